"""Detic end to end with a small network, seeded numbers and a small CLIP."""

from __future__ import annotations

from collections.abc import Sequence
import json
from pathlib import Path
import sys
from typing import Any

from masa_ros.detectors import build_detector, DetectorConfig
from masa_ros.detectors.detic import Detic
from masa_ros.models.backbones.swin import Swin
from masa_ros.models.masa import EncodedBatch
from masa_ros.models.masa_network import Encoded
from masa_ros.models.preprocess import prepare
from masa_ros.models.variants import InputRule
from masa_ros.structures.boxes import pairwise_iou
import numpy as np
from numpy.typing import NDArray
import pytest
import torch

RULE = InputRule(128, 96, 32, resize_float=False)
RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 255, (60, 100, 3), np.uint8)
OTHER = RNG.integers(0, 255, (90, 70, 3), np.uint8)


def build(file: Path, model: Any = None, **settings: Any) -> Detic:
    values = {'name': 'detic', 'checkpoint': str(file), 'device': 'cpu', 'score_threshold': 0.0,
              'class_file': str(file.parent / 'names.txt'), **settings}
    detector = build_detector(DetectorConfig(**values), model)
    assert isinstance(detector, Detic)
    detector._input_rule = RULE
    return detector


@pytest.fixture(scope='module')
def detector(detic_file: Path) -> Detic:
    return build(detic_file)


@pytest.fixture(scope='module')
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a small CLIP text model with a tokenizer of single letters."""
    transformers: Any = pytest.importorskip('transformers')
    folder = tmp_path_factory.mktemp('clip')
    letters = 'abcdefghijklmnopqrstuvwxyz'
    words = [*letters, *(f'{letter}</w>' for letter in letters), '<|startoftext|>',
             '<|endoftext|>']
    (folder / 'vocab.json').write_text(json.dumps({word: row for row, word in enumerate(words)}))
    (folder / 'merges.txt').write_text('#version: 0.2\n')
    transformers.CLIPTokenizer(
        str(folder / 'vocab.json'), str(folder / 'merges.txt')).save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.CLIPTextConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=40, projection_dim=512,
        bos_token_id=len(words) - 2, eos_token_id=len(words) - 1, pad_token_id=len(words) - 1)
    transformers.CLIPTextModelWithProjection(config).save_pretrained(folder)
    return folder


class SharedModel:
    """A ``masa_detic`` as far as a detector sees it, with a small backbone that counts."""

    name = 'masa_detic'
    device = 'cpu'

    def __init__(self, swin: Swin, file: Path) -> None:
        self.file = file
        self.swin = swin
        self.passes = 0

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> list[EncodedBatch]:
        batches = []
        for row, image in enumerate(images):
            self.passes += 1
            prepared = prepare(image, RULE, torch.device('cpu'))
            with torch.inference_mode():
                levels = self.swin(prepared.pixels[None])
            batches.append(EncodedBatch(
                [row], [prepared], [image.shape[:2]], Encoded([], None, tuple(levels))))
        return batches


def test_boxes_lie_in_the_image_best_first_and_each_object_once(detector: Detic) -> None:
    found = detector.detect([IMAGE])[0]
    assert len(found) > 0
    assert (found.boxes[:, :2] >= 0).all()
    assert (found.boxes[:, 2:] <= [100, 60]).all()
    assert (np.diff(found.scores) <= 0).all()
    names = ('car', 'person', 'traffic cone', 'dog', 'cat')
    assert detector.class_names == names
    assert all(names[number] == label
               for number, label in zip(found.class_ids, found.labels, strict=True))
    others = ~np.eye(len(found), dtype=bool)
    assert (pairwise_iou(found.boxes, found.boxes)[others] <= 0.6).all()


def test_a_shared_backbone_runs_once_and_gives_the_same(
    detector: Detic, detic_file: Path, swin: Swin,
) -> None:
    model = SharedModel(swin, detic_file)
    shared = build(detic_file, model, checkpoint='')
    assert shared.shares_features
    found = shared.detect_encoded(model.encode([IMAGE, OTHER]), [0, 1])
    assert model.passes == 2  # One for each image, none by the detector.
    for one, other in zip(found, detector.detect([IMAGE, OTHER]), strict=True):
        np.testing.assert_array_equal(one.boxes, other.boxes)
        np.testing.assert_array_equal(one.scores, other.scores)
        assert one.labels == other.labels


def test_named_classes_only_are_looked_for_from_the_next_call_on(detic_file: Path) -> None:
    detector = build(detic_file, text='dog . Traffic Cone')
    found = detector.detect([IMAGE])[0]
    assert set(found.labels) <= {'dog', 'Traffic Cone'}
    assert set(found.class_ids.tolist()) <= {3, 2}
    detector.set_classes(['car'])
    assert set(detector.detect([IMAGE])[0].labels) == {'car'}
    with pytest.raises(ValueError, match=r"no vector for 'zebra'.*class_file.*clip-vit-base"):
        detector.set_classes(['car', 'zebra'])
    assert detector.class_names == ('car',)
    detector.set_classes([])
    assert len(detector.class_names) == 5


def test_classes_without_names_have_numbers(detic_file: Path) -> None:
    detector = build(detic_file, class_file='')
    found = detector.detect([IMAGE])[0]
    assert detector.class_names == ()
    assert set(found.labels) == {''}
    assert found.class_ids.max() < 5
    with pytest.raises(ValueError, match='class_file is empty'):
        detector.set_classes(['car'])


def test_vectors_from_a_file_take_the_place_of_the_stored_ones(
    detector: Detic, detic_file: Path, tmp_path: Path,
) -> None:
    """The stored vectors in reverse, of another length: same boxes under the reversed names."""
    stored = detector._known.vectors.numpy()
    np.save(tmp_path / 'own.npy', 3 * stored[::-1])
    (tmp_path / 'own.txt').write_text('five\nfour\nthree\ntwo\none\n')
    own = build(detic_file, class_vectors=str(tmp_path / 'own.npy'),
                class_file=str(tmp_path / 'own.txt'))
    found, expected = own.detect([IMAGE])[0], detector.detect([IMAGE])[0]
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-3)
    assert found.class_ids.tolist() == [4 - row for row in expected.class_ids]
    assert own.class_names == ('five', 'four', 'three', 'two', 'one')


def test_any_class_is_found_with_clip(detic_file: Path, clip_folder: Path) -> None:
    detector = build(detic_file, text='zebra . car . fire hydrant', text_model=str(clip_folder))
    found = detector.detect([IMAGE])[0]
    assert set(found.labels) <= {'zebra', 'car', 'fire hydrant'}
    torch.testing.assert_close(
        detector._wanted.vectors.norm(dim=1), torch.ones(3), atol=1e-5, rtol=1e-5)
    # A known class keeps the vector of its file.
    torch.testing.assert_close(detector._wanted.vectors[1], detector._known.vectors[0])
    numbers = dict(zip(detector._wanted.names, detector._wanted.numbers, strict=True))
    assert numbers['car'] == 0
    detector.set_classes(['fire hydrant'])
    assert detector._wanted.numbers == (numbers['fire hydrant'],)


def test_two_hundred_classes_are_looked_for_at_once(detic_file: Path, clip_folder: Path) -> None:
    letters = 'abcdefghijklmnopqrst'
    names = tuple(f'{one}{two} thing' for one in letters for two in letters[:10])
    detector = build(detic_file, classes=names, text_model=str(clip_folder))
    assert len(detector.class_names) == 200
    found = detector.detect([IMAGE])[0]
    assert set(found.labels) <= set(names)
    assert len(set(detector._wanted.numbers)) == 200


def test_a_missing_library_is_named_only_where_text_needs_it(
    detic_file: Path, clip_folder: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, 'transformers', None)
    build(detic_file)
    with pytest.raises(ValueError, match=r'detic \(with text\) needs .* transformers'):
        build(detic_file, text='zebra', text_model=str(clip_folder))


def test_wrong_files_are_refused(detic_file: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r'model is not masa_detic.*fetch masa_detic'):
        build(detic_file, checkpoint='')
    with pytest.raises(FileNotFoundError, match=r'no CLIP text model at'):
        build(detic_file, text_model=str(tmp_path / 'nowhere'))
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ValueError, match=r'holds no CLIP text model'):
        build(detic_file, text_model=str(tmp_path / 'empty'))
    with pytest.raises(FileNotFoundError, match=r'no class vectors at'):
        build(detic_file, class_vectors=str(tmp_path / 'nowhere.npy'))
    for values, part in ((np.zeros((5, 3)), r'expected \(classes, 512\)'),
                         (np.zeros((0, 512)), r'expected \(classes, 512\)'),
                         (np.zeros((5, 512)), 'zero or not finite'),
                         (np.full((5, 512), np.nan), 'zero or not finite'),
                         (np.ones((4, 512)), 'has 5 names, but the detector gives 4')):
        np.save(tmp_path / 'own.npy', values)
        with pytest.raises(ValueError, match=part):
            build(detic_file, class_vectors=str(tmp_path / 'own.npy'))
    (tmp_path / 'text.npy').write_text('no numbers')
    with pytest.raises(ValueError, match='is no NumPy file'):
        build(detic_file, class_vectors=str(tmp_path / 'text.npy'))
