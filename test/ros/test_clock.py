"""Stamp policy: every case of the docstring, with stamps written out."""

from __future__ import annotations

from masa_ros.ros.clock import RESTART_AFTER, StampPolicy, StampVerdict
import pytest

USE, REPEATED, LATE = StampVerdict.USE, StampVerdict.REPEATED, StampVerdict.LATE
BACK, FORWARD = StampVerdict.JUMP_BACK, StampVerdict.JUMP_FORWARD


def verdicts(*stamps_s: float, **limits: float) -> list[StampVerdict]:
    policy = StampPolicy(**limits)
    return [policy.judge(round(stamp * 1e9)) for stamp in stamps_s]


def test_stamps_that_rise_are_used() -> None:
    assert verdicts(0, 0.03, 0.06, 5.0) == [USE] * 4


def test_the_first_image_is_used_whatever_its_stamp() -> None:
    assert verdicts(-3.0) == verdicts(0.0) == verdicts(1.7e9) == [USE]


def test_a_repeated_stamp_is_dropped_and_the_next_one_used() -> None:
    assert verdicts(1.0, 1.0, 1.0, 1.1) == [USE, REPEATED, REPEATED, USE]


def test_a_late_image_is_dropped_and_changes_nothing() -> None:
    assert verdicts(1.0, 1.2, 1.1, 1.2, 1.3) == [USE, USE, LATE, REPEATED, USE]


def test_a_loop_of_a_recording_is_one_jump() -> None:
    assert verdicts(10, 11, 12, 10, 11, 12) == [USE, USE, USE, BACK, USE, USE]


def test_the_limit_of_a_jump_back_belongs_to_the_jump() -> None:
    assert verdicts(10, 9.0, jump_back_s=1.0) == [USE, BACK]
    assert verdicts(10, 9.001, jump_back_s=1.0) == [USE, LATE]


def test_a_jump_forward_starts_anew_and_the_way_back_again() -> None:
    assert verdicts(10, 100, 10.1, jump_forward_s=60) == [USE, FORWARD, BACK]


def test_a_jump_forward_can_be_switched_off() -> None:
    assert verdicts(10, 1e9, jump_forward_s=0) == [USE, USE]


def test_a_loop_shorter_than_the_jump_is_found_after_a_few_images() -> None:
    loop = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    first, second = verdicts(*loop, *loop)[:8], verdicts(*loop, *loop)[8:]
    assert first == [USE] * 8
    assert second == [LATE] * (RESTART_AFTER - 1) + [BACK] + [USE] * 3


def test_disorder_of_the_network_is_no_loop() -> None:
    # Every second image comes one place too late.
    stamps = [0.1, 0.3, 0.2, 0.5, 0.4, 0.7, 0.6, 0.9, 0.8, 1.1, 1.0, 1.3, 1.2]
    assert BACK not in verdicts(*stamps)


def test_late_images_in_falling_order_are_no_loop() -> None:
    stamps = [5.0, *(4.9 - 0.05 * step for step in range(12))]
    assert verdicts(*stamps, jump_back_s=2.0) == [USE] + [LATE] * 12


@pytest.mark.parametrize('stamp', [0.0, 5.0, 1e9])
def test_after_a_reset_any_stamp_is_used(stamp: float) -> None:
    policy = StampPolicy()
    policy.judge(10**12)
    policy.reset()
    assert policy.judge(round(stamp * 1e9)) is USE
