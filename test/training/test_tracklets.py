from __future__ import annotations

from masa_ros.structures.instances import Instances
from masa_ros.training.corpus import LabelledImage
from masa_ros.training.tracklets import followed, later_accuracy
import numpy as np
import pytest


def clip(*frames: list[list[float]]) -> tuple[list[LabelledImage], list[Instances]]:
    image = np.zeros((100, 100, 3), np.uint8)
    found = [Instances.from_boxes(np.array(boxes, np.float32).reshape(-1, 4), [0.9] * len(boxes))
             for boxes in frames]
    labelled = [
        LabelledImage(f'f{i}', 's', image, objects.boxes, objects.masks, objects.class_ids)
        for i, objects in enumerate(found)]
    return labelled, found


def test_objects_keep_their_number_while_they_move() -> None:
    still, mover = [10.0, 10, 40, 40], np.array([50.0, 50, 80, 80])
    frames = [[still, list(mover + 2 * t)] for t in range(4)]
    # In the last two the detector lists them the other way round.
    result = followed(*clip(*frames[:2], *(frame[::-1] for frame in frames[2:])), 'here')
    assert [frame.clip for frame in result] == ['here'] * 4
    numbers = [frame.identities.tolist() for frame in result if frame.identities is not None]
    assert numbers == [[0, 1], [0, 1], [1, 0], [1, 0]]


def test_what_was_not_followed_is_nobody_elses_partner() -> None:
    # Far-apart boxes that show up once each, beside an object that stays.
    stays = [10.0, 10, 40, 40]
    result = followed(*clip([stays], [stays, [60, 60, 90, 90]], [stays], [[60, 0, 95, 20], stays]),
                      'here')
    numbers = [frame.identities.tolist() for frame in result if frame.identities is not None]
    assert [row[-1] if len(row) == 2 and i == 3 else row[0] for i, row in enumerate(numbers)] == [
        0, 0, 0, 0]
    others = [numbers[1][1], numbers[3][0]]
    assert len({0, *others}) == 3


def test_frames_without_objects_are_ordinary() -> None:
    result = followed(*clip([], [], []), 'here')
    assert [len(frame.boxes) for frame in result] == [0, 0, 0]
    assert np.isnan(later_accuracy(result, lambda _: np.zeros((0, 4), np.float32), [1]))


def test_finding_oneself_later_by_hand() -> None:
    boxes = [[10.0, 10, 40, 40], [60.0, 60, 90, 90]]
    frames = followed(*clip(boxes, boxes, boxes), 'here')
    # The two look alike in the last frame only, and the first wins.
    looks = {'f0': np.eye(2), 'f1': np.eye(2), 'f2': np.array([[1, 1], [0, 0]])}
    assert later_accuracy(frames, lambda item: looks[item.name].astype(np.float32), [1]) == 0.75
    assert later_accuracy(frames, lambda item: looks[item.name].astype(np.float32), [2]) == 0.5
    # Four looks one frame on, two looks two frames on.
    both = later_accuracy(frames, lambda item: looks[item.name].astype(np.float32), [1, 2])
    assert both == pytest.approx(4 / 6)
    assert np.isnan(later_accuracy(frames, lambda item: looks[item.name].astype(np.float32), [3]))
