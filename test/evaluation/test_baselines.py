"""Baselines behind our protocol."""

from __future__ import annotations

from masa_ros.evaluation.baselines import BASELINES, build_baseline, mask_iou, SequenceTracker
from masa_ros.structures.frame import Frame
from masa_ros.structures.instances import Instances, TrackedInstances
from masa_ros.structures.masks import encode_plane, RoiMask
import numpy as np
import pytest

RATE_HZ = 10.0


def block(x0: int, y0: int, x1: int, y1: int) -> RoiMask:
    plane = np.zeros((100, 200), bool)
    plane[y0:y1, x0:x1] = True
    return encode_plane(plane)


def run(tracker: SequenceTracker, boxes: list[list[list[int]]]) -> list[TrackedInstances]:
    """Track boxes over frames, with masks that fill them and a textured image."""
    image = np.random.RandomState(0).randint(0, 255, (100, 200, 3)).astype(np.uint8)
    results = []
    for index, own in enumerate(boxes):
        objects = Instances.from_boxes(own, [0.9] * len(own)).with_fields(
            masks=tuple(block(*box) for box in own))
        results.append(tracker.update(
            Frame(image, round(index * 1e9 / RATE_HZ), index), objects))
    return results


@pytest.mark.parametrize('name', BASELINES)
def test_two_objects_keep_their_ids(name: str) -> None:
    # Two boxes drift apart by 2 pixels a frame.
    boxes = [[[20 + 2 * t, 20, 60 + 2 * t, 60], [120 - 2 * t, 30, 150 - 2 * t, 80]]
             for t in range(8)]
    tail = run(build_baseline(name, RATE_HZ), boxes)[-3:]
    assert [len(frame) for frame in tail] == [2, 2, 2]
    assert len({tuple(frame.track_ids.tolist()) for frame in tail}) == 1
    assert len(set(tail[0].track_ids.tolist())) == 2
    assert tail[-1].boxes.tolist() == boxes[-1]


@pytest.mark.parametrize('name', BASELINES)
def test_frames_without_objects_are_ordinary(name: str) -> None:
    results = run(build_baseline(name, RATE_HZ), [[], [[20, 20, 60, 60]], [], []])
    assert [len(frame) for frame in results[2:]] == [0, 0]


@pytest.mark.parametrize('name', BASELINES)
def test_two_trackers_do_not_share_ids(name: str) -> None:
    boxes = [[[20, 20, 60, 60]]] * 5
    first = run(build_baseline(name, RATE_HZ), boxes)[-1]
    second = run(build_baseline(name, RATE_HZ), boxes)[-1]
    assert first.track_ids.tolist() == second.track_ids.tolist()


def test_the_memory_of_the_library_lasts_as_long_at_every_rate() -> None:
    # 30 frames of 30 Hz are one second: at 10 Hz an object that was away for 0.8 s comes back
    # with its id, and after 1.5 s with another one.
    for away, same in ((8, True), (15, False)):
        boxes: list[list[list[int]]] = [[[20, 20, 60, 60]]] * 5 + [[]] * away + [
            [[20, 20, 60, 60]]] * 5
        results = run(build_baseline('bytetrack', RATE_HZ), boxes)
        before, after = results[4].track_ids.tolist(), results[-1].track_ids.tolist()
        assert (before == after) is same


def test_masks_tell_objects_with_equal_boxes_apart() -> None:
    # Two triangles share a box: their order changes, their masks say who is who.
    lower = np.tril(np.ones((40, 40), bool))
    planes = [np.zeros((100, 200), bool) for _ in range(2)]
    planes[0][20:60, 20:60], planes[1][20:60, 20:60] = lower, ~lower
    masks = [encode_plane(plane) for plane in planes]
    boxes = [[20, 20, 60, 60]] * 2
    tracker = build_baseline('mask_iou', RATE_HZ)
    image = np.zeros((100, 200, 3), np.uint8)
    ids = []
    for index, order in enumerate(((0, 1), (1, 0))):
        objects = Instances.from_boxes(boxes).with_fields(
            masks=tuple(masks[i] for i in order))
        found = tracker.update(Frame(image, index * 10 ** 8, index), objects)
        ids.append([found.track_ids[order.index(i)] for i in (0, 1)])
    assert ids[0] == ids[1]


def test_the_appearance_cascade_tells_objects_apart_that_swap_places() -> None:
    # Both boxes of a pair jump to each other's place in one step: overlap says the opposite of
    # what the embeddings say.
    left, right = [20, 20, 60, 60], [40, 20, 80, 60]
    looks = np.eye(4, dtype=np.float32)[:2]
    tracker = build_baseline('deepsort', RATE_HZ)
    image = np.zeros((100, 200, 3), np.uint8)
    ids = []
    for index in range(6):
        swapped = index == 5
        boxes = [right, left] if swapped else [left, right]
        objects = Instances.from_boxes(boxes, [0.9, 0.9]).with_fields(embeddings=looks)
        ids.append(tracker.update(
            Frame(image, index * 10 ** 8, index), objects).track_ids.tolist())
    assert ids[5] == ids[4] == [1, 2]


def test_mask_iou_by_hand() -> None:
    assert mask_iou(block(0, 0, 4, 4), block(2, 0, 6, 4)) == pytest.approx(8 / 24)
    assert mask_iou(block(0, 0, 4, 4), block(10, 10, 12, 12)) == 0
    assert mask_iou(block(0, 0, 0, 0), block(0, 0, 0, 0)) == 0


def test_an_unknown_baseline_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown baseline 'fairmot'; known ones are sort"):
        build_baseline('fairmot', RATE_HZ)
