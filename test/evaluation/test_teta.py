"""TETA against the numbers of the public implementation, and hand-worked cases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from masa_ros.evaluation.teta import box_iou, mean_over, score_teta, TetaFrame, TetaScore
import numpy as np
import pytest

# Made by siyuanliii/TETA on the sequences of random_sequence() below; see "source" in the file.
VECTORS = json.loads((Path(__file__).parent / 'teta_vectors.json').read_text())['cases']


def random_sequence(
    seed: int, num_frames: int = 12, num_classes: int = 4,
) -> list[dict[str, np.ndarray]]:
    """Return frames of seeded random truth and results; RandomState never changes."""
    random = np.random.RandomState(seed)
    num_objects = random.randint(2, 9)
    classes = random.randint(1, num_classes + 1, num_objects)
    start = random.randint(0, 200, (num_objects, 2))
    step = random.randint(-6, 7, (num_objects, 2))
    size = random.randint(16, 64, (num_objects, 2))
    frames, ids, next_id = [], np.arange(num_objects), num_objects
    for t in range(num_frames):
        there = random.random_sample(num_objects) > 0.2
        corner = start + t * step
        boxes = np.concatenate([corner, corner + size], axis=1).astype(float)
        found = there & (random.random_sample(num_objects) > 0.15)
        switched = random.random_sample(num_objects) < 0.1
        ids = np.where(switched, next_id + np.arange(num_objects), ids)
        next_id += num_objects
        shifted = boxes + random.randint(-12, 13, boxes.shape) / 2
        shifted[:, 2:] = np.maximum(shifted[:, 2:], shifted[:, :2] + 1)
        labels = np.where(random.random_sample(num_objects) < 0.2,
                          random.randint(1, num_classes + 2, num_objects), classes)
        extra = random.randint(0, 3)
        at = random.randint(0, 200, (extra, 2))
        false = np.concatenate([at, at + random.randint(8, 60, (extra, 2))], axis=1)
        frames.append({
            'gt_ids': np.flatnonzero(there), 'gt_classes': classes[there],
            'gt_boxes': boxes[there],
            'pred_ids': np.concatenate([ids[found], 100000 + 10 * t + np.arange(extra)]),
            'pred_classes': np.concatenate(
                [labels[found], random.randint(1, num_classes + 1, extra)]),
            'pred_boxes': np.concatenate([shifted[found], false]).reshape(-1, 4)})
    return frames


def frames_of(seed: int) -> list[TetaFrame]:
    return [TetaFrame(frame['gt_ids'], frame['gt_classes'], frame['pred_ids'],
                      frame['pred_classes'], box_iou(frame['gt_boxes'], frame['pred_boxes']))
            for frame in random_sequence(seed)]


def values(score: TetaScore) -> list[float]:
    return [score.teta, score.loc_a, score.assoc_a, score.cls_a]


@pytest.mark.parametrize('case', VECTORS, ids=lambda case: f'seeds {case["seeds"]}')
def test_random_sequences_score_as_in_the_public_implementation(case: dict[str, Any]) -> None:
    mean, classes = score_teta([frames_of(seed) for seed in case['seeds']])
    np.testing.assert_allclose(values(mean), case['mean'], atol=1e-9)
    assert {str(class_id) for class_id in classes} == set(case['classes'])
    for class_id, score in classes.items():
        np.testing.assert_allclose(values(score), case['classes'][str(class_id)], atol=1e-9)


def one_track(pred_ids: list[int], pred_class: int = 1) -> list[TetaFrame]:
    """Return one object in perfect boxes, called by these ids."""
    return [TetaFrame(np.array([7]), np.array([1]), np.array([track_id]),
                      np.array([pred_class]), np.ones((1, 1))) for track_id in pred_ids]


def test_perfect_tracks_score_one() -> None:
    mean, classes = score_teta([one_track([3, 3, 3, 3])])
    assert values(mean) == [1, 1, 1, 1]
    assert list(classes) == [1]


def test_a_switch_in_the_middle_halves_association_only() -> None:
    # Two tracks of 2 frames over 4 true ones: each pair 2 * 2 / (4 + 2 - 2) = 1, sum 2 of 4.
    mean, _ = score_teta([one_track([3, 3, 4, 4])])
    np.testing.assert_allclose(values(mean), [2.5 / 3, 1, 0.5, 1])


def test_a_wrong_class_costs_classification_only() -> None:
    mean, _ = score_teta([one_track([3, 3], pred_class=2)])
    np.testing.assert_allclose(values(mean), [2 / 3, 1, 1, 0])


def test_nothing_found_scores_zero() -> None:
    empty = np.zeros(0, np.int64)
    mean, classes = score_teta(
        [[TetaFrame(np.array([1]), np.array([1]), empty, empty, np.zeros((1, 0)))]])
    assert values(mean) == [0, 0, 0, 0]
    assert classes[1].loc_a == 0


def test_no_frames_score_zero_and_have_no_classes() -> None:
    mean, classes = score_teta([])
    assert values(mean) == [0, 0, 0, 0]
    assert classes == {}


def test_an_id_used_twice_in_a_frame_is_an_error() -> None:
    frame = TetaFrame(np.array([1]), np.array([1]), np.array([2, 2]), np.array([1, 1]),
                      np.ones((1, 2)))
    with pytest.raises(ValueError, match='sequence 0, frame 0: the result uses an id twice'):
        score_teta([[frame]])


def test_a_similarity_of_the_wrong_shape_is_an_error() -> None:
    frame = TetaFrame(np.array([1]), np.array([1]), np.array([2]), np.array([1]),
                      np.ones((2, 1)))
    with pytest.raises(ValueError, match=r'similarity is \(2, 1\) for 1 true and 1 found'):
        score_teta([[frame]])


def test_base_and_novel_classes_are_averaged_apart() -> None:
    scores = {1: TetaScore(0.9, 1.0, 0.8, 0.9), 2: TetaScore(0.3, 0.4, 0.2, 0.3)}
    assert values(mean_over(scores, [1])) == [0.9, 1.0, 0.8, 0.9]
    np.testing.assert_allclose(values(mean_over(scores, [1, 2, 5])), [0.6, 0.7, 0.5, 0.6])
    assert values(mean_over(scores, [5])) == [0, 0, 0, 0]


def test_empty_boxes_overlap_nothing() -> None:
    flat = np.array([[1, 1, 1, 5]], np.float32)
    assert box_iou(flat, flat).tolist() == [[0.0]]
