from __future__ import annotations

from pathlib import Path

from masa_ros.structures.masks import encode_plane, RoiMask
from masa_ros.training.corpus import Corpus, LabelledImage, write_corpus
from masa_ros.training.labels import labelled
import numpy as np
import pytest


def image_with(masks: tuple[RoiMask | None, ...], name: str = 'a') -> LabelledImage:
    rng = np.random.default_rng(1)
    boxes = np.arange(4 * len(masks), dtype=np.float32).reshape(-1, 4)
    return LabelledImage(name, 'somewhere', rng.integers(0, 256, (20, 31, 3)).astype(np.uint8),
                         boxes, masks, np.arange(len(masks)), True)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    mask = np.zeros((20, 31), bool)
    mask[3:9, 4:20] = True
    mask[5, 6] = False
    given = [image_with((encode_plane(mask), None)), image_with((), 'b')]
    corpus = write_corpus(tmp_path, given)
    assert len(corpus) == 2
    read = corpus[0]
    np.testing.assert_array_equal(read.image, given[0].image)
    np.testing.assert_array_equal(read.boxes, given[0].boxes)
    np.testing.assert_array_equal(read.class_ids, [0, 1])
    assert read.masks[1] is None
    assert read.masks[0] is not None
    np.testing.assert_array_equal(read.masks[0].paste(20, 31), mask)
    assert (read.name, read.source, read.exhaustive) == ('a', 'somewhere', True)
    assert corpus[1].boxes.shape == (0, 4)


def test_an_empty_mask_counts_as_none(tmp_path: Path) -> None:
    empty = encode_plane(np.zeros((20, 31), bool))
    corpus = write_corpus(tmp_path, [image_with((empty,))])
    assert corpus[0].masks == (None,)
    assert not corpus.has_mask(0).any()


def test_the_digest_follows_the_labels(tmp_path: Path) -> None:
    first = write_corpus(tmp_path / '1', [image_with((None,))])
    again = write_corpus(tmp_path / '2', [image_with((None,))])
    other = write_corpus(tmp_path / '3', [image_with((None, None))])
    assert first.digest() == again.digest() != other.digest()


def test_a_folder_without_a_corpus_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='not a corpus'):
        Corpus(tmp_path)


def test_nothing_to_write_and_double_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='no image to write'):
        write_corpus(tmp_path, [])
    with pytest.raises(ValueError, match="share the names \\['a'\\]"):
        write_corpus(tmp_path, [image_with(()), image_with(())])


def test_frames_of_a_clip_keep_their_identities(tmp_path: Path) -> None:
    frame = image_with((None, None))
    frame = LabelledImage(frame.name, frame.source, frame.image, frame.boxes, frame.masks,
                          frame.class_ids, False, 'drive', np.array([7, 9]))
    corpus = write_corpus(tmp_path, [frame, image_with((None,), 'b')])
    assert corpus.clips() == ['drive', '']
    np.testing.assert_array_equal(corpus.identities_of(0), [7, 9])
    read = corpus[0]
    assert read.identities is not None
    np.testing.assert_array_equal(read.identities, [7, 9])
    assert corpus[1].identities is None


def test_packed_images_differ_by_little_and_take_less(tmp_path: Path) -> None:
    image = np.tile(np.arange(160, dtype=np.uint8)[None, :, None], (120, 1, 3))
    items = [labelled(name, 's', image[:size], [], [], False)
             for name, size in (('a', 120), ('b', 70))]
    raw, packed = write_corpus(tmp_path / 'raw', items), write_corpus(
        tmp_path / 'packed', items, packed=True)
    for index, size in enumerate((120, 70)):
        assert packed.image(index).shape == (size, 160, 3)
        assert np.abs(packed.image(index).astype(int) - raw.image(index)).max() <= 3
    sizes = [(tmp_path / name / 'images.bin').stat().st_size for name in ('raw', 'packed')]
    assert sizes[1] < sizes[0] / 4
