"""Prices of absences, worked by hand."""

from __future__ import annotations

import math

from masa_ros.tracking.absence import (
    AbsenceScale,
    fading_costs,
    HIGHEST,
    leaving_image,
    LEFT,
    LOWEST,
    RETURN,
    SLOPE,
    USUAL,
)
from masa_ros.tracking.motion import measurements
import numpy as np
import pytest

STAYS, LEAVES = np.array([False]), np.array([True])
SEEN, MISSED = np.array([False]), np.array([True])


def test_coming_back_has_a_price_and_staying_has_none() -> None:
    scale = AbsenceScale()
    assert scale.costs(SEEN, STAYS) == pytest.approx([0])
    assert scale.costs(SEEN, LEAVES) == pytest.approx([0])
    assert scale.costs(MISSED, STAYS) == pytest.approx([RETURN])
    assert scale.costs(MISSED, LEAVES) == pytest.approx([RETURN + LEFT])


def test_the_rarer_misses_are_the_less_likely_is_a_return() -> None:
    scale = AbsenceScale()
    assert scale.miss_rate == pytest.approx(USUAL)
    scale.observe(80, 0)
    # 2 of 20 were believed before: now 2 of 100.
    assert scale.miss_rate == pytest.approx(0.02)
    assert scale.costs(MISSED, STAYS) == pytest.approx([RETURN + SLOPE * math.log(0.2)])


def test_many_misses_make_returns_no_likelier_than_usual_ones() -> None:
    scale = AbsenceScale()
    scale.observe(100, 60)
    assert scale.miss_rate > 0.5
    assert scale.costs(MISSED, STAYS) == pytest.approx([RETURN + HIGHEST])


def test_a_detector_that_never_misses_has_a_lowest_price_and_may_begin_to_miss() -> None:
    scale = AbsenceScale()
    for _ in range(1000):
        scale.observe(50, 0)
    assert 0 < scale.miss_rate < 0.001
    assert scale.costs(MISSED, STAYS) == pytest.approx([RETURN + LOWEST])
    for _ in range(100):
        scale.observe(50, 25)
    assert scale.miss_rate > 0.4


def test_what_was_learned_is_saved() -> None:
    scale, other = AbsenceScale(), AbsenceScale()
    scale.observe(30, 4)
    other.restore(scale.values())
    assert other.miss_rate == scale.miss_rate


def test_without_looks_the_price_grows_with_the_logarithm_of_the_gap() -> None:
    gaps = np.array([0.1, math.e - 1, 5.0])
    assert fading_costs(gaps, np.array([False, True, True])) == pytest.approx(
        [0, -1, -math.log(6)])


def test_a_box_leaves_when_more_than_its_share_is_outside() -> None:
    # Ten by ten in an image 100 wide: 10 % and 20 % outside on the right, 15.5 % below.
    # The last two have left wholly, one of them beyond two borders at once.
    boxes = np.array([[91, 0, 101, 10], [92, 0, 102, 10], [0, 41.55, 10, 51.55],
                      [120, 10, 130, 20], [120, 60, 130, 70]], np.float32)
    assert leaving_image(measurements(boxes), (50, 100)).tolist() == [
        False, True, True, True, True]
