"""Switches and gaps on histories worked by hand."""

from __future__ import annotations

from masa_ros.evaluation.datasets.sequence import Sequence, with_ids
from masa_ros.evaluation.moments import recoveries
from masa_ros.structures.instances import Instances, TrackedInstances
import numpy as np

A = [0.0, 0.0, 10.0, 10.0]


def frame(boxes: list[list[float]], ids: list[int]) -> TrackedInstances:
    return with_ids(Instances.from_boxes(boxes), ids)


def sequence(truth: list[TrackedInstances]) -> Sequence:
    indices = np.arange(len(truth), dtype=np.int64)
    return Sequence('s', indices, indices * 500_000_000, 2.0, truth=tuple(truth))


def test_a_switch_after_a_gap() -> None:
    truth = [frame([A], [1])] * 5
    found = recoveries(sequence(truth), [
        frame([A], [7]), frame([A], [7]), frame([], []), frame([], []), frame([A], [8])])
    assert [(own.switched, own.gap_s) for own in found] == [(False, 0.5), (True, 1.5)]
    assert (found[1].before.track_id, found[1].after.track_id) == (7, 8)
    assert (found[1].before.position, found[1].after.position) == (1, 4)


def test_a_match_is_kept_while_it_overlaps() -> None:
    # The new track fits better, but the old one still fits: no switch, as in CLEAR.
    shifted = [2.0, 0.0, 12.0, 10.0]
    found = recoveries(sequence([frame([A], [1])] * 2), [
        frame([A], [7]), frame([shifted, A], [7, 8])])
    assert [own.switched for own in found] == [False]


def test_nothing_seen_gives_nothing() -> None:
    truth = [frame([A], [1]), frame([], [])]
    assert recoveries(sequence(truth), [frame([], []), frame([A], [1])]) == []
