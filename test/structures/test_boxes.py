from __future__ import annotations

from masa_ros.structures.boxes import (
    as_boxes,
    box_areas,
    clip_boxes,
    nms,
    pairwise_iou,
    valid_boxes,
)
import numpy as np
import pytest


def test_width_is_the_difference_of_the_edges() -> None:
    assert box_areas(as_boxes([[0, 0, 1, 1], [2, 3, 5, 7]])).tolist() == [1, 12]


def test_iou_of_two_half_overlapping_squares_is_a_third() -> None:
    # Two 2 x 2 squares sharing 2 of 6 covered pixels.
    iou = pairwise_iou(as_boxes([[0, 0, 2, 2]]), as_boxes([[1, 0, 3, 2], [5, 5, 6, 6]]))
    assert iou[0] == pytest.approx([1 / 3, 0])


def test_iou_with_no_boxes_is_empty_and_of_empty_boxes_is_zero() -> None:
    assert pairwise_iou(as_boxes([]), as_boxes([[0, 0, 1, 1]])).shape == (0, 1)
    assert pairwise_iou(as_boxes([[1, 1, 1, 1]]), as_boxes([[1, 1, 1, 1]])).item() == 0


def test_boxes_of_a_wrong_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r'shape \(2, 3\), expected \(N, 4\)'):
        as_boxes(np.zeros((2, 3)))


def test_unusable_boxes_are_told_apart() -> None:
    nan, inf = float('nan'), float('inf')
    boxes = as_boxes(np.array([
        [0, 0, 5, 5], [-3, -3, 2, 2], [5, 5, 1, 1], [20, 20, 30, 30],
        [nan, 0, 1, 1], [0, 0, inf, 5], [3, 3, 3, 8]]))
    usable = valid_boxes(boxes, 10, 10)
    assert usable.tolist() == [True, True, False, False, False, False, False]


def test_clipping_makes_a_box_outside_empty_rather_than_inverted() -> None:
    assert clip_boxes(as_boxes([[20, 2, 30, 4]]), 10, 10).tolist() == [[10, 2, 10, 4]]


def test_nms_keeps_the_best_and_what_is_far_away() -> None:
    boxes = as_boxes([[0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10]])
    scores = np.array([0.5, 0.9, 0.3], np.float32)
    assert nms(boxes, scores, 0.5).tolist() == [1, 2]
    assert nms(boxes, scores, 0.5, np.array([0, 1, 0])).tolist() == [1, 0, 2]


def test_nms_equals_torchvision_on_random_boxes() -> None:
    torch = pytest.importorskip('torch')
    ops = pytest.importorskip('torchvision.ops')
    rng = np.random.default_rng(3)
    corner = rng.uniform(0, 80, (200, 2))
    boxes = np.hstack([corner, corner + rng.uniform(1, 40, (200, 2))]).astype(np.float32)
    scores = (rng.permutation(200) / 200).astype(np.float32)
    expected = ops.nms(torch.from_numpy(boxes), torch.from_numpy(scores), 0.4)
    assert nms(boxes, scores, 0.4).tolist() == expected.tolist()
