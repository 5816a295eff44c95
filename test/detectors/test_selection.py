"""Class rules: renaming, thresholds and choice, worked by hand."""

from __future__ import annotations

from masa_ros.detectors.selection import (
    ClassConfig,
    ClassRules,
    FIRST_OWN_NUMBER,
    Vocabulary,
)
from masa_ros.structures.instances import Instances
from masa_ros.structures.settings import from_mapping
import numpy as np
import pytest


def found(*rows: tuple[str, int, float]) -> Instances:
    """Detections of (label, class number, score), side by side."""
    boxes = [(20 * index, 0, 20 * index + 10, 10) for index in range(len(rows))]
    return Instances.from_boxes(
        boxes, [row[2] for row in rows], [row[1] for row in rows], [row[0] for row in rows])


def test_without_rules_nothing_changes() -> None:
    given = found(('car', 2, 0.9), ('', -1, 0.1), ('', 7, 0.0))
    kept = ClassRules().apply(given)
    np.testing.assert_array_equal(kept.boxes, given.boxes)
    assert kept.labels == ('car', '', '')
    assert kept.class_ids.tolist() == [2, -1, 7]


def test_no_detections_give_no_detections() -> None:
    kept = ClassRules(ClassConfig(keep=('car',), score_thresholds=('*=0.5',))).apply(Instances())
    assert kept.boxes.shape == (0, 4)


def test_renamed_classes_share_the_number_of_the_new_name() -> None:
    rules = ClassRules(ClassConfig(rename=('truck=vehicle', 'Bus=vehicle', 'van=car')))
    kept = rules.apply(found(('truck', 7, 0.9), ('car', 2, 0.9), ('bus', 5, 0.9), ('van', 9, 0.9)))
    assert kept.labels == ('vehicle', 'car', 'vehicle', 'car')
    assert kept.class_ids.tolist() == [FIRST_OWN_NUMBER, 2, FIRST_OWN_NUMBER, 2]


def test_the_number_of_a_name_stays_the_same_over_time() -> None:
    rules = ClassRules(ClassConfig(rename=('van=car',)))
    first = rules.apply(found(('van', 9, 0.9))).class_ids.tolist()
    assert rules.apply(found(('car', 2, 0.9))).class_ids.tolist() == first


def test_two_detectors_with_one_number_for_different_names_do_not_mix_them_up() -> None:
    vocabulary = Vocabulary()
    one, two = ClassRules(vocabulary=vocabulary), ClassRules(vocabulary=vocabulary)
    assert one.apply(found(('person', 0, 1))).class_ids.tolist() == [0]
    assert two.apply(found(('cone', 0, 1), ('Person', 1, 1))).class_ids.tolist() == [
        FIRST_OWN_NUMBER, 0]


def test_a_vocabulary_starts_with_the_names_it_is_given() -> None:
    vocabulary = Vocabulary(('person', 'car'))
    assert [vocabulary.number('Car'), vocabulary.number('person', 9)] == [1, 0]
    assert vocabulary.number('dog', 1) == FIRST_OWN_NUMBER
    assert vocabulary.number('cat', 17) == 17


def test_each_class_has_its_own_score_threshold_under_its_new_name() -> None:
    rules = ClassRules(ClassConfig(
        rename=('van=car',), score_thresholds=('car=0.5', '*=0.2')))
    kept = rules.apply(found(
        ('car', 2, 0.5), ('car', 2, 0.49), ('van', 1, 0.4), ('dog', 3, 0.3), ('dog', 3, 0.1),
        ('', -1, 0.15), ('', -1, 0.25)))
    # 0.5 is not below 0.5 in float32 either.
    np.testing.assert_array_equal(kept.scores, np.array([0.5, 0.3, 0.25], np.float32))


def test_ignored_classes_go_under_their_old_and_new_names() -> None:
    rules = ClassRules(ClassConfig(rename=('van=car', 'lorry=truck'), ignore=('VAN', 'truck')))
    kept = rules.apply(found(('van', 1, 1), ('car', 2, 1), ('lorry', 3, 1), ('truck', 4, 1)))
    assert kept.labels == ('car',)


def test_kept_classes_are_the_only_ones_besides_unnamed_boxes() -> None:
    kept = ClassRules(ClassConfig(keep=('traffic cone',))).apply(
        found(('Traffic  Cone', 1, 1), ('car', 2, 1), ('', -1, 1)))
    assert kept.labels == ('Traffic  Cone', '')


def test_a_score_that_is_no_number_is_left_to_the_check_of_boxes() -> None:
    rules = ClassRules(ClassConfig(score_thresholds=('*=0.5',)))
    assert len(rules.apply(found(('car', 2, float('nan')), ('', -1, float('nan'))))) == 2


def test_rules_applied_twice_give_what_they_give_once() -> None:
    config = ClassConfig(rename=('van=car', 'bus=vehicle'), ignore=('dog',), keep=('car', 'cat'),
                         score_thresholds=('car=0.3',))
    given = found(('van', 1, 0.4), ('car', 2, 0.2), ('bus', 5, 0.9), ('cat', 8, 0.9))
    once = ClassRules(config).apply(given)
    twice = ClassRules(config).apply(once)
    assert twice.labels == once.labels == ('car', 'cat')
    assert twice.class_ids.tolist() == once.class_ids.tolist()


def test_two_hundred_classes_are_renamed_and_thresholded() -> None:
    config = ClassConfig(
        rename=tuple(f'old {index}=new {index}' for index in range(200)),
        score_thresholds=tuple(f'new {index}={index / 200}' for index in range(200)))
    given = found(*((f'old {index}', index, 0.5) for index in range(200)))
    kept = ClassRules(config).apply(given)
    assert kept.labels == tuple(f'new {index}' for index in range(101))


@pytest.mark.parametrize(('values', 'part'), [
    ({'rename': ['truck']}, "'truck', expected a pair such as truck=vehicle"),
    ({'rename': ['=vehicle']}, 'expected a pair'),
    ({'rename': ['truck=']}, 'expected a pair'),
    ({'rename': ['a=b', 'A=c']}, 'two new names'),
    ({'rename': ['a=b', 'b=c']}, 'itself a new name'),
    ({'rename': [3]}, '3, expected a pair'),
    ({'score_thresholds': ['car=high']}, 'from 0 to 1'),
    ({'score_thresholds': ['car=1.5']}, 'from 0 to 1'),
    ({'score_thresholds': ['car=nan']}, 'from 0 to 1'),
    ({'score_thresholds': ['0.4']}, 'expected a pair such as person=0.4'),
])
def test_rules_that_cannot_be_read_are_refused(values: dict[str, list[object]], part: str) -> None:
    with pytest.raises(ValueError, match=part):
        from_mapping(ClassConfig, values)


def test_a_name_may_be_given_the_same_new_name_twice_or_its_own() -> None:
    rules = ClassRules(ClassConfig(rename=('a=b', 'A=b', 'Car=car')))
    assert rules.apply(found(('a', 1, 1), ('CAR', 2, 1))).labels == ('b', 'car')
