"""Detections of another image size; numbers by hand."""

from __future__ import annotations

from collections import Counter
import math

from masa_ros.ros.upstream.placement import (
    DetectorSize,
    read_size,
    to_image,
    usable,
    without_bad_masks,
)
from masa_ros.structures.instances import Instances
from masa_ros.structures.masks import encode_crop, RoiMask
import numpy as np
import pytest


@pytest.mark.parametrize(('text', 'expected'), [
    ('image', None), ('640x480', DetectorSize(480, 640)),
    ('640x640 padded', DetectorSize(640, 640, 'padded')),
    ('640x384 centered', DetectorSize(384, 640, 'centered')),
    (' 640x480 stretched ', DetectorSize(480, 640))])
def test_sizes_are_width_times_height(text: str, expected: DetectorSize | None) -> None:
    assert read_size(text) == expected


@pytest.mark.parametrize('text', [
    '', '640', '640x', '0x480', '640x99999', '640x480 letterboxed', '-1x4', '6.4x4', '640 x 480'])
def test_other_texts_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match='such as 640x480'):
        read_size(text)


@pytest.mark.parametrize(('size', 'box'), [
    # An image of 1280 x 720; the box covers columns 320 to 640 and rows 180 to 360 of it.
    (DetectorSize(480, 640), [160, 120, 320, 240]),  # each side scaled by itself
    (DetectorSize(640, 640, 'padded'), [160, 90, 320, 180]),  # half size, from the top left
    (DetectorSize(640, 640, 'centered'), [160, 230, 320, 320]),  # 140 grey rows above it
    (DetectorSize(720, 1280), [320, 180, 640, 360])])
def test_boxes_are_brought_to_the_image(size: DetectorSize, box: list[float]) -> None:
    placed = to_image(Instances.from_boxes([box]), size, 720, 1280)
    assert placed.boxes.tolist() == [[320, 180, 640, 360]]


def test_masks_are_brought_to_the_image() -> None:
    crop = np.array([[1, 0], [1, 1]], bool)
    instances = Instances.from_boxes([[1, 1, 3, 3]]).with_fields(masks=(encode_crop(crop, 1, 1),))
    placed = to_image(instances, DetectorSize(4, 4), 8, 8).masks[0]
    assert placed is not None
    expected = np.zeros((8, 8), bool)
    expected[2:6, 2:6] = np.kron(crop, np.ones((2, 2), bool))
    assert (placed.paste(8, 8) == expected).all()


def test_a_mask_in_the_padding_is_empty() -> None:
    mask = encode_crop(np.ones((1, 4), bool), 0, 3)  # the lowest row of 4 x 4, which is padding
    instances = Instances.from_boxes([[0, 3, 4, 4]]).with_fields(masks=(mask,))
    placed = to_image(instances, DetectorSize(4, 4, 'padded'), 4, 8).masks[0]
    assert placed is not None
    assert placed.area == 0


def test_masks_outside_their_image_are_left_out() -> None:
    inside = encode_crop(np.ones((2, 2), bool), 6, 6)
    outside = encode_crop(np.ones((2, 2), bool), 7, 6)
    huge = RoiMask(0, 0, 2**16, 2**16, np.array([2**31, 2**31], np.uint32))
    instances = Instances.from_boxes(np.zeros((4, 4))).with_fields(
        masks=(inside, outside, huge, None))
    problems: Counter[str] = Counter()
    kept = without_bad_masks(instances, 8, 8, problems)
    assert [mask is not None for mask in kept.masks] == [True, False, False, False]
    assert problems == {'masks outside the image': 2}


def test_boxes_that_cannot_be_used_are_left_out_each_with_one_reason() -> None:
    boxes: list[list[float]] = [
        [math.nan, 0, 5, 5], [0, 0, math.inf, 5], [5, 0, 1, 5], [3, 3, 3, 9],
        [70, 0, 80, 5], [-9, -9, -1, -1], [1, 1, 5, 5], [1, 1, 6, 6], [1, 1, 7, 7]]
    scores = [0.5, 0.5, 0.5, 0.5, 0.5, math.nan, math.nan, 87.0, -1.0]
    problems: Counter[str] = Counter()
    kept = usable(Instances.from_boxes(boxes, scores), 48, 64, problems)
    assert kept.boxes.tolist() == [[1, 1, 6, 6], [1, 1, 7, 7]]
    assert kept.scores.tolist() == [1, 0]
    assert problems == {
        'boxes that are not finite': 2, 'boxes without area': 2, 'boxes outside the image': 2,
        'boxes without a score': 1, 'scores outside 0 to 1': 2}


def test_no_boxes_are_no_problem() -> None:
    problems: Counter[str] = Counter()
    assert len(usable(Instances(), 48, 64, problems)) == 0
    assert len(to_image(Instances(), DetectorSize(4, 4), 48, 64)) == 0
    assert problems == {}
