"""Batches of several sources: what is waited for, and for how long; times worked by hand."""

from __future__ import annotations

from masa_ros.ros.gather import Gather
import pytest


def at_10_hz(*sources: str, wait_s: float = 0.05, items: int = 3) -> Gather[str]:
    """Sources that have delivered every 0.1 s, the last time at 0.0, and nothing that waits."""
    gather: Gather[str] = Gather(1, wait_s)
    for step in range(1 - items, 1):
        for source in sources:
            gather.add(source, f'{source}{step}', 0.1 * step)
    gather.take()
    return gather


def test_one_source_never_waits() -> None:
    gather = at_10_hz('a')
    assert gather.left_s(0.1) is None
    gather.add('a', 'x', 0.1)
    assert gather.left_s(0.1) == 0
    assert gather.take() == ['x']
    assert len(gather) == 0


def test_the_others_are_waited_for_until_all_are_there() -> None:
    gather = at_10_hz('a', 'b', 'c')
    gather.add('b', 'b1', 0.1)
    # a and c are due at 0.1 and may be late by half an interval, but the wait ends at 0.15.
    assert gather.left_s(0.1) == pytest.approx(0.05)
    gather.add('a', 'a1', 0.12)
    assert gather.left_s(0.12) == pytest.approx(0.03)
    gather.add('c', 'c1', 0.13)
    assert gather.left_s(0.13) == 0
    assert gather.take() == ['b1', 'a1', 'c1']


def test_a_source_that_stalls_costs_one_bounded_wait_and_then_none() -> None:
    gather = at_10_hz('a', 'b')
    gather.add('a', 'a1', 0.1)
    assert gather.left_s(0.149) == pytest.approx(0.001)
    assert gather.left_s(0.151) == 0
    gather.take()
    gather.add('a', 'a2', 0.2)  # b was due at 0.1: it is given up until it is back
    assert gather.left_s(0.2) == 0
    gather.take()
    gather.add('b', 'b3', 0.3)
    gather.add('a', 'a3', 0.3)
    gather.take()
    gather.add('a', 'a4', 0.4)
    assert gather.left_s(0.4) == pytest.approx(0.05)


def test_a_slow_camera_is_waited_for_only_when_its_image_is_due() -> None:
    gather: Gather[str] = Gather(1, 0.05)
    for step in range(4):
        gather.add('slow', 's', 1.0 * step)
    for step in range(28, 31):
        gather.add('fast', 'f', 0.1 * step)
    gather.take()  # time 3.0, slow comes next at 4.0
    gather.add('fast', 'f', 3.1)
    assert gather.left_s(3.1) == 0
    gather.take()
    gather.add('fast', 'f', 3.97)
    assert gather.left_s(3.97) == pytest.approx(0.05)


def test_a_source_that_never_delivered_is_not_waited_for() -> None:
    gather: Gather[str] = Gather(1, 0.05)
    gather.add('a', 'x', 0.0)
    assert gather.left_s(0.0) == 0
    gather.take()
    gather.add('b', 'y', 0.0)  # a's rate is not known yet
    assert gather.left_s(0.0) == 0


def test_a_pause_does_not_change_what_is_known_of_the_rate() -> None:
    gather = at_10_hz('a', 'b')
    gather.add('b', 'b', 100.0)
    gather.add('a', 'a', 100.0)
    gather.take()
    gather.add('a', 'a', 100.1)
    assert gather.left_s(100.1) == pytest.approx(0.05)


def test_newer_items_take_the_place_of_older_ones_of_their_own_source_only() -> None:
    gather: Gather[str] = Gather(2, 0.05)
    assert [gather.add('a', item, 0.0) for item in ('a1', 'a2', 'a3')] == [[], [], ['a1']]
    assert gather.add('b', 'b1', 0.0) == []
    assert (gather.waiting('a'), gather.waiting('b'), gather.waiting('c'), len(gather)) == (
        2, 1, 0, 3)
    assert gather.take() == ['a2', 'b1']
    assert gather.take() == ['a3']


def test_items_of_one_source_or_of_all_can_be_taken_back() -> None:
    gather = at_10_hz('a', 'b')
    gather.add('a', 'a1', 0.1)
    gather.add('b', 'b1', 0.1)
    assert gather.clear('a') == ['a1']
    assert gather.clear() == ['b1']
    assert gather.left_s(0.1) is None
