"""The simulated detector."""

from __future__ import annotations

from masa_ros.rendering import (
    DetectorNoiseConfig,
    GroundTruth,
    imperfect_detections,
    perfect_detections,
)
from masa_ros.structures.boxes import pairwise_iou
from masa_ros.structures.masks import RoiMask
import numpy as np
import pytest

QUIET = DetectorNoiseConfig(
    miss_rate=0, occluded_miss_rate=0, gap_rate=0, jitter=0, false_positives=0, duplicate_rate=0,
    class_error_rate=0, score_noise=0)


def truth_of(visibilities: list[float]) -> GroundTruth:
    rows = len(visibilities)
    boxes = np.array([[40 * i, 20, 40 * i + 30, 80] for i in range(rows)], np.float32)
    boxes = boxes.reshape(-1, 4)
    empty = RoiMask(0, 0, 0, 0, np.zeros(0, np.uint32))
    return GroundTruth(np.arange(1, rows + 1), np.zeros(rows, np.int64), ('pedestrian',) * rows,
                       boxes, boxes, (empty,) * rows, np.array(visibilities, np.float32))


def test_a_perfect_detector_reports_what_is_visible() -> None:
    truth = truth_of([1.0, 0.1, 0.5])
    np.testing.assert_array_equal(perfect_detections(truth).boxes, truth.visible_boxes[[0, 2]])


def test_without_noise_only_scores_and_order_differ_from_the_truth() -> None:
    truth = truth_of([0.5, 1.0, 0.05])
    found = imperfect_detections(truth, 0, 100, 200, 7, QUIET)
    np.testing.assert_array_equal(found.boxes, truth.visible_boxes[[1, 0]])
    np.testing.assert_allclose(found.scores, [0.92, 0.71], atol=1e-6)
    assert found.labels == ('pedestrian', 'pedestrian')


def test_equal_arguments_give_equal_boxes_and_other_frames_other_ones() -> None:
    truth = truth_of([1.0] * 5)
    one = imperfect_detections(truth, 3, 100, 200, 7)
    np.testing.assert_array_equal(one.boxes, imperfect_detections(truth, 3, 100, 200, 7).boxes)
    other = imperfect_detections(truth, 4, 100, 200, 7)
    assert one.boxes.shape != other.boxes.shape or (one.boxes != other.boxes).any()


def test_rates_come_out_as_set() -> None:
    truth = truth_of([1.0] * 4)
    config = DetectorNoiseConfig(miss_rate=0.2, gap_rate=0, duplicate_rate=0, jitter=0.02,
                                 false_positives=1.0, class_error_rate=0)
    found = [imperfect_detections(truth, i, 100, 200, 1, config) for i in range(400)]
    overlap = [pairwise_iou(f.boxes, truth.visible_boxes).max(axis=1, initial=0) for f in found]
    hits = sum(int((o > 0.7).sum()) for o in overlap)
    others = sum(int((o <= 0.7).sum()) for o in overlap)
    # 1600 chances at 0.8 and 400 expected: more than five standard deviations of room.
    assert hits == pytest.approx(1280, abs=90)
    assert others == pytest.approx(400, abs=110)


def test_gaps_last_several_frames() -> None:
    truth = truth_of([1.0])
    config = DetectorNoiseConfig(**{**QUIET.__dict__, 'gap_rate': 0.3, 'gap_frames': 5})
    seen = [len(imperfect_detections(truth, i, 100, 200, 1, config)) for i in range(200)]
    blocks = np.array(seen).reshape(-1, 5)
    assert (blocks.min(axis=1) == blocks.max(axis=1)).all()
    assert 0 < (blocks[:, 0] == 0).mean() < 0.6


def test_hidden_objects_are_missed_more_often() -> None:
    config = DetectorNoiseConfig(**{**QUIET.__dict__, 'occluded_miss_rate': 0.6})
    counts = [sum(len(imperfect_detections(truth_of([v]), i, 100, 200, 1, config))
                  for i in range(200)) for v in (1.0, 0.5, 0.2)]
    assert counts[0] == 200
    assert counts[0] > counts[1] > counts[2]


def test_boxes_stay_inside_the_image() -> None:
    truth = truth_of([1.0] * 5)
    config = DetectorNoiseConfig(jitter=0.5, false_positives=10)
    for i in range(50):
        boxes = imperfect_detections(truth, i, 100, 200, 1, config).boxes
        assert (boxes >= 0).all()
        assert (boxes <= [200, 100, 200, 100]).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()


def test_nothing_to_see_is_no_detections() -> None:
    assert imperfect_detections(truth_of([]), 0, 100, 200, 1, QUIET).boxes.shape == (0, 4)
    assert perfect_detections(truth_of([])).boxes.shape == (0, 4)
