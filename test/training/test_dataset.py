from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from masa_ros.structures.masks import encode_plane
from masa_ros.training.corpus import Corpus, LabelledImage, write_corpus
from masa_ros.training.dataset import (
    collate,
    jitter_boxes,
    PairConfig,
    PairDataset,
    recording_of,
)
from masa_ros.training.labels import labelled
from masa_ros.training.views import ViewConfig
import numpy as np
import pytest

VIEWS = ViewConfig(size=64, paste_max=3, least_pixels=8)


def pairs(corpus: Corpus, views: ViewConfig = VIEWS, seed: int = 0, **limits: int) -> PairDataset:
    return PairDataset(corpus, {'set0': 1, 'set1': 1}, {'set0': 1}, views,
                       PairConfig(**limits), seed, 50)


def test_a_sample_depends_on_seed_and_index_alone(corpus: Corpus) -> None:
    first, second, other = pairs(corpus), pairs(corpus), pairs(corpus, seed=1)
    second[7]  # What was drawn before must not matter.
    for one, two in zip(first[3], second[3], strict=True):
        np.testing.assert_array_equal(one.image, two.image)
        np.testing.assert_array_equal(one.track_boxes, two.track_boxes)
        np.testing.assert_array_equal(one.mask_targets, two.mask_targets)
    assert not np.array_equal(first[3][0].image, other[3][0].image)


def test_a_batch_tells_pairs_apart_and_joins_views(corpus: Corpus) -> None:
    dataset = pairs(corpus)
    batch = collate([dataset[i] for i in range(4)])
    assert batch.images.shape == (8, 3, 64, 64)
    views = batch.track_rois[:, 0].long()
    for identity in set(batch.identities.tolist()):
        assert len(set((views[batch.identities == identity] % 4).tolist())) == 1
    first, second = (set(batch.identities[views == i].tolist()) for i in (0, 4))
    assert first & second
    assert len(batch.mask_rois) == len(batch.mask_targets)


def test_pairs_know_the_recording_that_their_clips_are_parts_of(tmp_path: Path) -> None:
    assert [recording_of(clip) for clip in ('', 'street 3', 'a/0', 'a/b/60')] == [
        '', '', 'a', 'a/b']
    corpus = write_corpus(tmp_path, [LabelledImage(
        f'{k}', 'set0', np.zeros((48, 64, 3), np.uint8),
        np.array([[8, 8, 40, 40]], np.float32), (None,), np.zeros(1, np.int64), clip=clip,
        identities=np.zeros(1, np.int64))
        for k, clip in enumerate(('a/0', 'a/60', 'b/0', 'alone'))])
    dataset = PairDataset(
        corpus, {'set0': 1}, {}, ViewConfig(size=64, paste_max=0), PairConfig(), 0, 40)
    batch = collate([dataset[i] for i in range(40)])
    assert batch.recordings.shape == (40,)
    counts = np.bincount(batch.recordings.numpy(), minlength=3)
    # Both parts of a, b, and the clip on its own.
    assert counts[1] > counts[2] > 0 < counts[0]
    assert len(counts) == 3


def test_limits_of_a_view_hold(corpus: Corpus) -> None:
    dataset = pairs(corpus, max_instances=2, max_masks=1)
    for index in range(10):
        for view in dataset[index]:
            assert len(view.track_boxes) <= 2
            assert len(view.mask_boxes) <= 1


def test_a_blended_photo_adds_instances_and_teaches_no_masks(corpus: Corpus) -> None:
    blended = pairs(corpus, ViewConfig(size=64, paste_max=0, mixup=1.0, least_pixels=8))
    plain = pairs(corpus, ViewConfig(size=64, paste_max=0, mixup=0.0, least_pixels=8))
    more = sum(len(blended[i][0].boxes) > len(plain[i][0].boxes) for i in range(20))
    assert more > 5
    assert all(len(view.mask_boxes) == 0 for i in range(20) for view in blended[i])


@pytest.mark.parametrize('large_scale', [False, True])
def test_a_blended_view_is_the_mean_of_two_views_pixel_by_pixel(
    corpus: Corpus, large_scale: bool,
) -> None:
    plain = ViewConfig(size=64, paste_max=0, mixup=0.0, photometric=0.0, hue=0, saturation=0,
                       value=0, least_pixels=8, large_scale=large_scale)
    alone, blended = pairs(corpus, plain), pairs(corpus, replace(plain, mixup=1.0))
    found = 0
    for index in range(12):
        for one, both in zip(alone[index], blended[index], strict=True):
            # Twice the mean less the first photo is the second one, within a grey level.
            other = 2 * both.image.astype(int) - one.image
            assert other.min() >= -1
            assert other.max() <= 256
            for identity, box in zip(both.identities, both.track_boxes, strict=True):
                found += identity >= 200_000
                assert (box[2:] > box[:2]).all()
            mine = {tuple(box) for box in one.boxes.round(3)}
            assert mine <= {tuple(box) for box in both.boxes.round(3)}
    assert found > 5


def test_views_of_their_own_still_share_instances(corpus: Corpus) -> None:
    views = ViewConfig(size=64, paste_max=0, mixup=0.0, least_pixels=4, large_scale=True)
    dataset = PairDataset(corpus, {'set0': 1}, {}, views, PairConfig(), 0, 40)
    shared = sum(bool(set(first.identities) & set(second.identities))
                 for first, second in (dataset[i] for i in range(40)))
    assert shared > 20


def test_unlabelled_photos_give_empty_arrays(corpus: Corpus) -> None:
    views = ViewConfig(size=64, paste_max=0, mixup=0.0)
    dataset = PairDataset(corpus, {'set1': 1}, {}, views, PairConfig(), 0, 40)
    samples = [view for i in range(40) for view in dataset[i]]
    assert any(view.boxes.shape == (0, 4) for view in samples)
    batch = collate([dataset[i] for i in range(40)])
    assert len(batch.boxes) == 80


def test_no_photo_at_all_is_refused(corpus: Corpus) -> None:
    with pytest.raises(ValueError, match='no photo to train on'):
        PairDataset(corpus, {'elsewhere': 1}, {}, VIEWS, PairConfig(), 0, 1)


def test_jitter_keeps_boxes_upright() -> None:
    boxes = np.array([[5, 5, 6, 6], [0, 0, 50, 20]], np.float32)
    moved = jitter_boxes(np.random.default_rng(0), boxes, 0.5)
    assert (moved[:, 2:] > moved[:, :2]).all()
    still = jitter_boxes(np.random.default_rng(0), boxes, 0.0)
    np.testing.assert_array_equal(still, boxes)
    assert jitter_boxes(np.random.default_rng(0), boxes[:0], 0.1).shape == (0, 4)


def test_two_frames_of_a_clip_make_a_pair(tmp_path: Path) -> None:
    def frame(name: str, clip: str, colour: int, x: int) -> LabelledImage:
        image = np.full((64, 64, 3), colour, np.uint8)
        mask = np.zeros((64, 64), bool)
        mask[20:40, x:x + 20] = True
        item = labelled(name, 'video', image, [encode_plane(mask)], [0], False)
        return replace(item, clip=clip, identities=np.array([5]))

    corpus = write_corpus(tmp_path, [frame('a', 'one', 10, 10), frame('b', 'one', 200, 30),
                                     frame('c', 'two', 10, 10)])
    still = ViewConfig(size=64, paste_max=0, mixup=0.0, zoom_min=1.0, zoom_max=1.0,
                       photometric=0.0, hue=0, saturation=0, value=0)
    dataset = PairDataset(corpus, {'video': 1}, {}, still, PairConfig(), 0, 60)
    mixed = 0
    for index in range(60):
        first, second = dataset[index]
        colours = {int(np.median(first.image)), int(np.median(second.image))}
        mixed += colours == {10, 200}
        assert set(first.identities) | set(second.identities) <= {6}
    # Two thirds of the draws are of clip one, half of which take the other frame.
    assert 8 <= mixed <= 32
