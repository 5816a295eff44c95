"""Track mAP, YouTube-VIS AP and AR100 on cases worked by hand."""

from __future__ import annotations

from dataclasses import replace

from masa_ros.evaluation.average_precision import score_images, score_tracks
from masa_ros.evaluation.datasets.sequence import Sequence, with_ids
from masa_ros.structures.instances import Instances, TrackedInstances
from masa_ros.structures.masks import encode_plane
import numpy as np
import pytest


def frame(
    boxes: list[list[float]], ids: list[int], classes: list[int] | None = None,
    scores: list[float] | None = None,
) -> TrackedInstances:
    """Objects of a frame with masks that fill their boxes."""
    masks = []
    for x0, y0, x1, y1 in boxes:
        plane = np.zeros((40, 40), bool)
        plane[int(y0):int(y1), int(x0):int(x1)] = True
        masks.append(encode_plane(plane))
    found = Instances.from_boxes(boxes, scores, classes or [1] * len(boxes))
    return with_ids(found.with_fields(masks=tuple(masks)), ids)


def sequence(truth: list[TrackedInstances]) -> Sequence:
    indices = np.arange(len(truth), dtype=np.int64)
    return Sequence('s', indices, indices, 1.0, height_px=40, width_px=40, truth=tuple(truth))


A, B = [0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 30.0, 30.0]
TRUTH = [frame([A, B], [1, 2])] * 4


@pytest.mark.parametrize('use_masks', [False, True])
def test_perfect_tracks_have_precision_one(use_masks: bool) -> None:
    scores = score_tracks([sequence(TRUTH)], [TRUTH], use_masks=use_masks)
    assert scores == pytest.approx({'AP': 1.0, 'AP50': 1.0, 'AP75': 1.0, 'AR': 1.0})


@pytest.mark.parametrize('use_masks', [False, True])
def test_half_a_track_overlaps_by_a_half(use_masks: bool) -> None:
    # Track 2 is called 7 after two of four frames: both halves have IoU 0.5 with it, which counts
    # at the threshold 0.5 only. There AP: ranks are right, right, wrong, so 1; above, the first
    # of three is right: precision 1 up to recall 0.5, which is 51 of 101 points.
    halves = [frame([A, B], [1, 2], scores=[0.9, 0.8])] * 2 + [
        frame([A, B], [1, 7], scores=[0.9, 0.7])] * 2
    scores = score_tracks([sequence(TRUTH)], [halves], use_masks=use_masks)
    assert scores['AP50'] == pytest.approx(1.0)
    assert scores['AP75'] == pytest.approx(51 / 101)
    assert scores['AR'] == pytest.approx((1.0 + 9 * 0.5) / 10)


def test_the_class_of_a_track_is_that_of_most_boxes() -> None:
    frames = [frame([A], [1], [1])] * 3 + [frame([A], [1], [2])]
    scores = score_tracks([sequence([frame([A], [1], [1])] * 4)], [frames])
    assert scores['AP'] == pytest.approx(1.0)


def test_a_class_that_was_not_checked_counts_nothing() -> None:
    first = sequence([frame([A], [1], [1])])
    # The second sequence was checked for class 3 only; a false track of class 1 is left out.
    second = replace(sequence([frame([], [])]), name='t', absent=frozenset({3}))
    found = [[frame([A], [1], [1], [0.5])], [frame([B], [1], [1], [0.9])]]
    assert score_tracks([first, second], found)['AP'] == pytest.approx(1.0)
    checked = replace(second, absent=frozenset({1, 3}))
    assert score_tracks([first, checked], found)['AP'] == pytest.approx(0.5)


def test_without_classes_proposals_count_for_objects_of_any_class() -> None:
    """Proposals have class -1; the truth of UVO has one or many."""
    found = [[frame([A, B], [7, 8], [-1, -1])] * 4]
    of_classes = sequence([frame([A, B], [1, 2], [3, 5])] * 4)
    assert score_tracks([of_classes], found, use_masks=True)['AR'] == 0
    scores = score_tracks([of_classes], found, use_masks=True, class_agnostic=True,
                          max_tracks=100)
    assert scores == pytest.approx({'AP': 1.0, 'AP50': 1.0, 'AP75': 1.0, 'AR100': 1.0})


def test_only_the_best_tracks_count_where_their_number_is_limited() -> None:
    # Of two right tracks one is left: half of the objects are found.
    found = [[frame([A, B], [1, 2], scores=[0.9, 0.8])] * 4]
    scores = score_tracks([sequence(TRUTH)], found, max_tracks=1)
    assert scores['AR1'] == pytest.approx(0.5)
    assert scores['AP'] == pytest.approx(51 / 101)


def test_no_truth_has_no_precision() -> None:
    empty = sequence([frame([], [])])
    assert score_tracks([empty], [[frame([A], [1])]])['AP'] == -1
    assert score_images([empty], [[frame([A], [1])]])['AR100'] == -1


@pytest.mark.parametrize('use_masks', [False, True])
def test_recall_of_images_ignores_identities(use_masks: bool) -> None:
    found = [frame([A, B], [1, 2]), frame([A, B], [9, 8]), frame([A], [3]), frame([], [])]
    scores = score_images([sequence(TRUTH)], [found], use_masks=use_masks)
    assert scores['AR100'] == pytest.approx(5 / 8)
    assert scores['AR1'] == pytest.approx(3 / 8)


def test_nothing_found_scores_zero() -> None:
    assert score_images([sequence(TRUTH)], [[frame([], [])] * 4])['AP'] == 0
    assert score_tracks([sequence(TRUTH)], [[frame([], [])] * 4])['AP'] == 0


def test_a_different_number_of_frames_is_an_error() -> None:
    with pytest.raises(ValueError, match='truth for 4 frames and results for 3'):
        score_tracks([sequence(TRUTH)], [TRUTH[:3]])
    with pytest.raises(ValueError, match='truth for 4 frames and results for 3'):
        score_images([sequence(TRUTH)], [TRUTH[:3]])
