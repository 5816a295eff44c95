"""Merging detections of several origins, worked by hand."""

from __future__ import annotations

from hypothesis import given, strategies
from masa_ros.detectors.merge import join_instances, merge_detections
from masa_ros.structures.boxes import nms
from masa_ros.structures.instances import Instances
from masa_ros.structures.masks import encode_crop
import numpy as np
import pytest

SQUARE = (0, 0, 10, 10)
SHIFTED = (1, 0, 11, 10)  # IoU with SQUARE: 90 / 110 = 0.82.
APART = (50, 50, 60, 60)


def found(*rows: tuple[tuple[float, ...], float, str, int]) -> Instances:
    return Instances.from_boxes(
        [row[0] for row in rows], [row[1] for row in rows], [row[3] for row in rows],
        [row[2] for row in rows])


def test_the_best_box_of_an_object_stays_with_its_origin() -> None:
    one = found((SQUARE, 0.6, 'car', 2), (APART, 0.5, 'car', 2))
    two = found((SHIFTED, 0.8, 'Car', 0))
    merged = merge_detections([one, two])
    np.testing.assert_array_equal(merged.instances.boxes, [SHIFTED, APART])
    assert merged.sources.tolist() == [1, 0]
    assert merged.rows.tolist() == [0, 1]
    assert merged.seen_by.tolist() == [[True, True], [True, False]]
    assert merged.dropped.tolist() == [1, 0]


def test_boxes_of_different_classes_both_stay() -> None:
    merged = merge_detections([found((SQUARE, 0.9, 'car', 0)), found((SQUARE, 0.8, 'bus', 0))])
    assert merged.instances.labels == ('car', 'bus')
    assert merged.dropped.tolist() == [0, 0]


def test_overlap_at_the_threshold_is_not_above_it() -> None:
    pair = [found(((0, 0, 10, 10), 0.9, 'a', 0)), found(((0, 0, 10, 5), 0.8, 'a', 0))]
    assert len(merge_detections(pair, 0.5).instances) == 2
    assert len(merge_detections(pair, 0.49).instances) == 1


def test_a_box_without_class_gives_way_to_any_class_whatever_the_scores() -> None:
    merged = merge_detections([found((SQUARE, 0.99, '', -1)), found((SHIFTED, 0.1, 'car', 2))])
    assert merged.instances.labels == ('car',)
    assert merged.seen_by.tolist() == [[True, True]]


def test_boxes_without_class_compete_among_themselves() -> None:
    merged = merge_detections([found((SQUARE, 0.5, '', -1)), found((SHIFTED, 0.9, '', -1))])
    np.testing.assert_array_equal(merged.instances.boxes, [SHIFTED])


def test_a_nameless_number_is_the_name_that_another_origin_gives_it() -> None:
    merged = merge_detections([found((SQUARE, 0.5, 'car', 2)), found((SHIFTED, 0.9, '', 2))])
    assert len(merged.instances) == 1
    merged = merge_detections([found((SQUARE, 0.5, 'car', 2)), found((SHIFTED, 0.9, '', 3))])
    assert len(merged.instances) == 2


def test_an_origins_own_overlapping_boxes_stay_unless_asked() -> None:
    crowd = found((SQUARE, 0.9, 'person', 0), (SHIFTED, 0.8, 'person', 0))
    assert len(merge_detections([crowd]).instances) == 2
    assert len(merge_detections([crowd], within_origin=True).instances) == 1


def test_equal_scores_keep_the_earlier_origin() -> None:
    merged = merge_detections([found((SQUARE, 0.5, 'a', 0)), found((SHIFTED, 0.5, 'a', 0))])
    assert merged.sources.tolist() == [0]


def test_a_dropped_box_drops_no_other() -> None:
    # Boxes 10 wide moved by 3: neighbours have IoU 7/13 = 0.54, the outer two 4/16 = 0.25.
    chain = [found(((3 * index, 0, 3 * index + 10, 10), 0.9 - 0.1 * index, 'a', 0))
             for index in range(3)]
    assert merge_detections(chain, 0.5).sources.tolist() == [0, 2]


def test_no_origins_and_empty_origins_merge_to_nothing() -> None:
    assert merge_detections([]).instances.boxes.shape == (0, 4)
    merged = merge_detections([Instances(), Instances()])
    assert merged.seen_by.shape == (0, 2)
    assert merged.dropped.tolist() == [0, 0]
    one = merge_detections([Instances(), found((SQUARE, 0.9, 'a', 0)), Instances()])
    assert one.sources.tolist() == [1]


def test_boxes_that_cannot_be_used_pass_for_the_pipeline_to_count() -> None:
    bad = found(((np.nan, 0, 10, 10), 0.9, 'a', 0), ((10, 10, 0, 0), 0.9, 'a', 0),
                ((0, 0, np.inf, 10), 0.9, 'a', 0))
    merged = merge_detections([bad, found((SQUARE, np.nan, 'a', 0), (APART, 0.2, 'a', 0))])
    assert len(merged.instances) == 5
    assert merged.sources.tolist() == [0, 0, 0, 1, 1]
    assert merged.rows.tolist() == [0, 1, 2, 1, 0]


@pytest.mark.parametrize('threshold', [-0.1, 1.1, float('nan')])
def test_a_threshold_that_is_no_iou_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match='from 0 to 1'):
        merge_detections([], threshold)


def test_masks_and_flags_travel_with_their_rows() -> None:
    mask = encode_crop(np.ones((2, 2), bool))
    one = found((SQUARE, 0.4, 'a', 0)).with_fields(masks=(mask,))
    two = found((APART, 0.6, 'a', 0))
    merged = merge_detections([one, two]).instances
    assert merged.masks == (None, mask)


def test_embeddings_are_joined_only_where_all_have_them_in_one_width() -> None:
    narrow = found((SQUARE, 0.4, 'a', 0)).with_fields(embeddings=np.ones((1, 2), np.float32))
    wide = found((APART, 0.4, 'a', 0)).with_fields(embeddings=np.ones((1, 3), np.float32))
    joined = join_instances([narrow, narrow]).embeddings
    assert joined is not None
    assert joined.shape == (2, 2)
    assert join_instances([narrow, wide]).embeddings is None
    assert join_instances([narrow, found((APART, 0.4, 'a', 0))]).embeddings is None


def test_three_hundred_boxes_of_two_hundred_classes_keep_one_of_each_pair() -> None:
    rng = np.random.default_rng(1)
    low = np.stack([np.arange(300) % 20 * 50, np.arange(300) // 20 * 50], axis=1)
    boxes = np.concatenate([low, low + 40], axis=1).astype(np.float32)
    labels = [f'class {index % 200}' for index in range(300)]
    one = Instances.from_boxes(boxes, rng.random(300), np.arange(300) % 200, labels)
    two = Instances.from_boxes(boxes + 1, rng.random(300), np.arange(300) % 200, labels)
    merged = merge_detections([one, two])
    assert len(merged.instances) == 300
    assert merged.seen_by.all()


@given(strategies.integers(0, 10_000), strategies.integers(0, 25), strategies.integers(1, 3))
def test_competition_of_all_boxes_is_class_aware_suppression(
    seed: int, rows: int, classes: int,
) -> None:
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 30, (rows, 2))
    boxes = np.concatenate([low, low + rng.uniform(5, 20, (rows, 2))], axis=1).astype(np.float32)
    scores = rng.random(rows).astype(np.float32)
    class_ids = rng.integers(0, classes, rows)
    every = Instances.from_boxes(boxes, scores, class_ids)
    parts = [every.select(np.arange(rows) % 2 == side) for side in (0, 1)]
    merged = merge_detections(parts, 0.4, within_origin=True).instances
    expected = every.select(nms(boxes, scores, 0.4, class_ids))
    np.testing.assert_array_equal(merged.boxes, expected.boxes)
