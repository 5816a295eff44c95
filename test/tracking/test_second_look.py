"""Which tracks are looked for again, and which answers count."""

from __future__ import annotations

from masa_ros.structures.instances import Flag, Instances
from masa_ros.structures.masks import encode_crop, RoiMask
from masa_ros.tracking.second_look import missed, MissedTracks, MOST_LOOKS, seen_by_mask
import numpy as np
import pytest

WANTED = np.array([[100, 100, 140, 180]], np.float32)


def mask_of(x0: int, y0: int, x1: int, y1: int) -> RoiMask:
    return encode_crop(np.ones((y1 - y0, x1 - x0), bool), x0, y0)


def looked(
    mask: RoiMask | None, quality: float = 0.9, given: Instances | None = None,
) -> tuple[Instances, list[int]]:
    tracks = MissedTracks.of(np.array([5]), WANTED, np.array([0.8], np.float32),
                             np.array([2]), ['car'])
    given = given or Instances()
    found = tracks.added_to(given).with_fields(
        masks=(*given.masks, mask), embeddings=np.ones((len(given) + 1, 3), np.float32),
        mask_qualities=np.append(given.mask_qualities, np.float32(quality)))
    kept, ids = seen_by_mask(found, tracks, 0.6)
    return kept, ids.tolist()


@pytest.mark.parametrize(('box', 'expected'), [
    ([100, 100, 140, 180], False),  # Detected: IoU 1.
    ([100, 100, 140, 120], True),   # IoU 0.25.
    ([300, 300, 340, 380], True),
])
def test_a_track_is_missed_when_no_detection_is_near(box: list[float], expected: bool) -> None:
    boxes = np.array([box], np.float32)
    assert missed(boxes, WANTED, (480, 640)).tolist() == [expected]


def test_a_track_that_left_the_image_is_not_missed() -> None:
    outside = WANTED - np.float32(130)
    assert missed(np.zeros((0, 4), np.float32), outside, (480, 640)).tolist() == [False]


def test_a_good_mask_confirms_the_track_and_draws_its_box() -> None:
    kept, ids = looked(mask_of(102, 104, 138, 178))
    assert ids == [5]
    assert kept.boxes.tolist() == [[102, 104, 138, 178]]
    assert kept.labels == ('car',)
    assert kept.flags.tolist() == [Flag.RECOVERED]


@pytest.mark.parametrize(('mask', 'quality'), [
    (mask_of(102, 104, 138, 178), 0.5),
    (mask_of(102, 104, 138, 178), float('nan')),
    (None, 0.9),
    (mask_of(102, 104, 110, 110), 0.9),  # Fills a corner of the box.
    (RoiMask(100, 100, 0, 0, np.zeros(0, np.uint32)), 0.9),
])
def test_a_poor_mask_does_not(mask: RoiMask | None, quality: float) -> None:
    kept, ids = looked(mask, quality)
    assert ids == []
    assert len(kept) == 0


def test_a_mask_that_grew_into_a_detection_is_the_detection() -> None:
    given = Instances.from_boxes([[100, 100, 140, 176]])
    _, ids = looked(mask_of(100, 100, 140, 180), given=given)
    assert ids == [0]


def test_only_the_surest_tracks_are_looked_for() -> None:
    scores = np.linspace(0, 1, MOST_LOOKS + 5).astype(np.float32)
    tracks = MissedTracks.of(np.arange(len(scores)), np.tile(WANTED, (len(scores), 1)), scores,
                             np.zeros(len(scores), np.int64), [''] * len(scores))
    assert len(tracks) == MOST_LOOKS
    assert tracks.track_ids[0] == len(scores) - 1


def test_which_topics_saw_an_object_stays_known() -> None:
    given = Instances.from_boxes([[0, 0, 9, 9]]).with_fields(
        detected_by=np.array([3], np.uint32))
    tracks = MissedTracks.of(np.array([5]), WANTED, np.ones(1, np.float32), np.array([2]), [''])
    joined = tracks.added_to(given)
    assert joined.detected_by is not None
    assert joined.detected_by.tolist() == [3, 0]
