"""Scores of tracked sequences: hand-worked cases and the outside tool on random ones."""

from __future__ import annotations

from dataclasses import replace

from masa_ros.evaluation.datasets.sequence import Sequence, with_ids
from masa_ros.evaluation.scores import (
    combine,
    mask_overlap,
    matching_data,
    mean_over_classes,
    of_class,
    score_sequence,
)
from masa_ros.structures.instances import Instances, TrackedInstances, TrackState
from masa_ros.structures.masks import encode_crop, RoiMask
import numpy as np
import pytest

A, B = [0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 30.0, 30.0]


def frame(boxes: list[list[float]], ids: list[int]) -> TrackedInstances:
    return with_ids(Instances.from_boxes(boxes), ids)


def sequence(truth: list[TrackedInstances], name: str = 's') -> Sequence:
    indices = np.arange(len(truth), dtype=np.int64)
    return Sequence(name, indices, indices, 1.0, truth=tuple(truth))


def test_perfect_tracks_score_one() -> None:
    truth = [frame([A, B], [1, 2])] * 3
    scores = score_sequence(sequence(truth), truth).table()
    assert [scores[name] for name in ('HOTA', 'AssA', 'DetA', 'IDF1', 'MOTA')] == [1] * 5
    assert scores['IDSW'] == 0


def test_one_switch_in_the_middle() -> None:
    # One object, four frames, two ids: AssA = mean over the matches of 2 / (4 + 2 - 2) = 0.5,
    # HOTA its root; IDF1 = 2 * 2 / (4 + 4); MOTA = 1 - 1 / 4.
    truth = [frame([A], [1])] * 4
    found = [frame([A], [7])] * 2 + [frame([A], [8])] * 2
    scores = score_sequence(sequence(truth), found).table()
    assert scores['AssA'] == pytest.approx(0.5)
    assert scores['HOTA'] == pytest.approx(0.5 ** 0.5)
    assert scores['IDF1'] == pytest.approx(0.5)
    assert scores['MOTA'] == pytest.approx(0.75)
    assert (scores['IDSW'], scores['num_ids']) == (1, 2)


def test_sequences_are_combined_by_their_objects() -> None:
    long = [frame([A], [1])] * 9
    first = score_sequence(sequence(long), long)
    missed = score_sequence(sequence([frame([A], [1])], 't'), [frame([], [])])
    table = combine([first, missed]).table()
    assert table['MOTA'] == pytest.approx(0.9)
    assert table['num_gt_ids'] == 2
    with pytest.raises(ValueError, match='no sequence was scored'):
        combine([])


def test_a_false_track_in_an_ignored_region_costs_nothing() -> None:
    truth = [frame([A], [1])] * 2
    found = [frame([A, B], [1, 2])] * 2
    ignored = tuple(np.array([[15, 15, 40, 40]], np.float32) for _ in range(2))
    assert score_sequence(sequence(truth), found).table()['FP'] == 2
    assert score_sequence(replace(sequence(truth), ignored=ignored), found).table()['FP'] == 0


def test_a_true_track_in_an_ignored_region_still_counts() -> None:
    truth = [frame([B], [1])] * 2
    ignored = tuple(np.array([[15, 15, 40, 40]], np.float32) for _ in range(2))
    assert score_sequence(replace(sequence(truth), ignored=ignored), truth).table()['FN'] == 0


def test_a_distractor_takes_its_match_out() -> None:
    truth = [frame([A], [1])] * 2
    found = [frame([A, B], [1, 2])] * 2
    distractors = tuple(np.array([B], np.float32) for _ in range(2))
    scores = score_sequence(replace(sequence(truth), distractors=distractors), found).table()
    assert (scores['FP'], scores['FN']) == (0, 0)


def test_frames_that_were_not_annotated_do_not_count() -> None:
    truth = [frame([A], [1]), frame([], [])]
    found = [frame([A], [1]), frame([A], [1])]
    whole = replace(sequence(truth), annotated=np.array([True, False]))
    assert score_sequence(whole, found).table()['FP'] == 0


def test_coasting_rows_are_not_results() -> None:
    truth = [frame([A], [1])]
    found = frame([A, B], [1, 2]).with_fields(
        states=np.array([TrackState.TRACKED, TrackState.COASTING], np.uint8))
    assert score_sequence(sequence(truth), [found]).table()['FP'] == 0


@pytest.mark.parametrize(('truth', 'found', 'expected'), [
    ([], [7], {'FP': 1, 'FN': 0}), ([1], [], {'FP': 0, 'FN': 1}), ([], [], {'FP': 0, 'FN': 0})])
def test_empty_sides_are_ordinary(
    truth: list[int], found: list[int], expected: dict[str, int],
) -> None:
    scores = score_sequence(sequence([frame([A] * len(truth), truth)]),
                            [frame([A] * len(found), found)]).table()
    assert {name: scores[name] for name in expected} == expected


def test_zero_area_boxes_match_nothing() -> None:
    flat = [5.0, 5.0, 5.0, 9.0]
    scores = score_sequence(sequence([frame([flat], [1])]), [frame([flat], [1])]).table()
    assert (scores['FP'], scores['FN']) == (1, 1)


def test_an_id_twice_in_a_frame_is_an_error() -> None:
    with pytest.raises(ValueError, match='the result uses an id twice in frame 0'):
        matching_data(sequence([frame([A], [1])]), [frame([A, B], [3, 3])])


def test_missing_truth_and_missing_frames_are_errors() -> None:
    with pytest.raises(ValueError, match='no ground truth'):
        matching_data(replace(sequence([frame([A], [1])]), truth=()), [frame([A], [1])])
    with pytest.raises(ValueError, match='1 frames but results for 2'):
        matching_data(sequence([frame([A], [1])]), [frame([A], [1])] * 2)


def test_the_mean_over_classes_leaves_absent_ones_out() -> None:
    tables = {'car': {'HOTA': 0.8, 'IDSW': 3.0, 'num_gt_ids': 5.0},
              'bus': {'HOTA': 0.4, 'IDSW': 1.0, 'num_gt_ids': 1.0},
              'train': {'HOTA': 0.0, 'IDSW': 0.0, 'num_gt_ids': 0.0}}
    assert mean_over_classes(tables) == {
        'HOTA': pytest.approx(0.6), 'IDSW': 4.0, 'num_gt_ids': 6.0}
    assert mean_over_classes({}) == {}


def test_a_class_is_scored_apart() -> None:
    def both(classes: list[int]) -> TrackedInstances:
        return with_ids(Instances.from_boxes([A, B], class_ids=classes), [1, 2])

    whole = sequence([both([1, 2])])
    tables = {class_id: score_sequence(*of_class(whole, [both([1, 1])], class_id)).table()
              for class_id in (1, 2)}
    assert (tables[1]['FP'], tables[1]['FN']) == (1, 0)
    assert (tables[2]['FP'], tables[2]['FN']) == (0, 1)


def rectangle(x0: int, y0: int, x1: int, y1: int) -> RoiMask:
    return encode_crop(np.ones((y1 - y0, x1 - x0), bool), x0, y0)


def test_masks_are_made_disjoint_before_they_are_compared() -> None:
    # The better result takes the columns 5 to 10 of the other: 50 of 100 pixels are left to it,
    # all within the truth (IoU 50 / 100); the better one shares 50 with it and covers 100.
    truth = frame([A], [1]).with_fields(masks=(rectangle(0, 0, 10, 10),))
    boxes: list[list[float]] = [A, [5.0, 0.0, 15.0, 10.0]]
    found = with_ids(Instances.from_boxes(boxes, [0.5, 0.9]), [1, 2]).with_fields(
        masks=(rectangle(0, 0, 10, 10), rectangle(5, 0, 15, 10)))
    np.testing.assert_allclose(mask_overlap(truth, found), [[0.5, 1 / 3]])


def test_an_object_without_a_mask_overlaps_nothing() -> None:
    truth = frame([A, B], [1, 2]).with_fields(masks=(rectangle(0, 0, 10, 10), None))
    found = frame([A, B], [1, 2]).with_fields(masks=(None, rectangle(20, 20, 30, 30)))
    assert mask_overlap(truth, found).tolist() == [[0, 0], [0, 0]]
    nothing: list[list[float]] = []
    assert mask_overlap(truth, frame(nothing, [])).shape == (2, 0)


def test_scores_by_masks_and_by_boxes_differ() -> None:
    truth = [frame([A], [1]).with_fields(masks=(rectangle(0, 0, 10, 10),))] * 2
    found = [frame([A], [1]).with_fields(masks=(rectangle(0, 0, 4, 10),))] * 2
    whole = sequence(truth)
    assert score_sequence(whole, found).table()['MOTA'] == 1
    assert score_sequence(whole, found, use_masks=True).table()['MOTA'] == -1


def test_ignored_masks_excuse_only_what_lies_in_them() -> None:
    # A region of two separate bars: their common box holds the whole result, they hold half of it.
    bars = encode_crop(np.array([[1, 0, 0, 1]] * 4, bool))
    half = encode_crop(np.array([[1, 0], [1, 0], [1, 1], [1, 1]], bool), 0, 0)
    between = encode_crop(np.ones((4, 2), bool), 1, 0)
    truth = [frame([], [])]
    whole = replace(sequence(truth), ignored=(np.array([[0, 0, 4, 4]], np.float32),),
                    ignored_masks=((bars,),))
    found = [with_ids(Instances.from_boxes([[0, 0, 2, 4], [1, 0, 3, 4]]).with_fields(
        masks=(half, between)), [1, 2])]
    # Four of the six pixels of the first lie in a bar, none of the eight of the second.
    assert score_sequence(whole, found, use_masks=True).table()['FP'] == 1
    assert score_sequence(whole, found).table()['FP'] == 0
    without = replace(whole, ignored_masks=())
    assert score_sequence(without, found, use_masks=True).table()['FP'] == 0


def test_hard_truth_is_asked_for_in_no_table() -> None:
    truth = [frame([A, B], [1, 2])]
    whole = replace(sequence(truth), hard=(np.array([False, True]),))
    missing = score_sequence(whole, [frame([A], [1])]).table()
    there = score_sequence(whole, truth).table()
    assert (missing['FN'], there['FP'], there['num_gt_ids']) == (0, 0, 1)
    assert [flags.tolist() for flags in
            whole.select_truth([np.array([False, True])]).hard] == [[True]]
