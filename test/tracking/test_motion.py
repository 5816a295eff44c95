"""Motion filters: hand-worked cases and statistics of simulated objects."""

from __future__ import annotations

import math

from masa_ros.tracking.motion import (
    boxes_of,
    correct,
    initial_motion,
    JITTER,
    measurements,
    motion_evidence,
    predict,
    SPEED,
    WEAK_JITTER,
)
import numpy as np
import pytest

IMAGE = (480, 640)


def box(x: float, y: float, width: float = 40, height: float = 40) -> np.ndarray:
    return np.array([[x - width / 2, y - height / 2, x + width / 2, y + height / 2]], np.float32)


def seen(x: float, y: float, width: float = 40, height: float = 40) -> np.ndarray:
    return measurements(box(x, y, width, height))


def test_boxes_survive_the_way_through_the_filter_state() -> None:
    boxes = np.array([[1, 2, 31, 52], [-5, -6, 5, 60]], np.float32)
    np.testing.assert_allclose(boxes_of(measurements(boxes)), boxes, atol=1e-4)


def test_an_empty_box_has_finite_measurements() -> None:
    assert np.isfinite(measurements(np.array([[5, 5, 5, 5]], np.float32))).all()


def test_no_tracks_can_be_predicted() -> None:
    motion = predict(initial_motion(np.zeros((0, 4), np.float32)), np.zeros(0))
    assert motion.mean.shape == (0, 4)
    assert motion_evidence(box(1, 1), motion, np.zeros(0), IMAGE).shape == (1, 0)


def test_a_steady_object_is_predicted_where_it_will_be() -> None:
    motion = initial_motion(box(100, 100))
    for step in range(1, 20):
        motion = correct(predict(motion, np.array([0.04])), seen(100 + 4 * step, 100))
    ahead = predict(motion, np.array([0.04])).mean[0]
    assert ahead[0] == pytest.approx(180, abs=1)
    assert ahead[1] == pytest.approx(100, abs=0.1)


def test_the_same_speed_is_learned_at_any_frame_rate() -> None:
    # 100 pixels a second, seen at 25 Hz and at 5 Hz.
    speeds = []
    for step_s, steps in ((0.04, 50), (0.2, 10)):
        motion = initial_motion(box(100, 100))
        for step in range(1, steps + 1):
            motion = correct(predict(motion, np.array([step_s])),
                             seen(100 + 100 * step * step_s, 100))
        speeds.append(motion.velocity[0, 0])
    assert speeds[0] == pytest.approx(100, rel=0.1)
    assert speeds[1] == pytest.approx(100, rel=0.2)


def test_velocity_is_forgotten_in_a_long_gap() -> None:
    motion = initial_motion(box(100, 100))
    for step in range(1, 30):
        motion = correct(predict(motion, np.array([0.04])), seen(100 + 4 * step, 100))
    start = motion.mean[0, 0]
    after = [predict(motion, np.array([gap])).mean[0, 0] for gap in (1.0, 10.0, 100.0)]
    assert start < after[0] < after[1]
    # 100 px/s for a damping time of 1 s is 100 px, however long the gap.
    assert after[2] - start < 130


def test_variance_grows_with_the_gap_and_shrinks_when_seen() -> None:
    motion = initial_motion(box(100, 100))
    short, long = (predict(motion, np.array([gap])).variance[0, 0] for gap in (0.04, 1.0))
    assert JITTER ** 2 < short < long
    assert correct(predict(motion, np.array([1.0])), seen(100, 100)).variance[0, 0] < JITTER ** 2


def test_covariance_stays_valid_over_thousands_of_steps() -> None:
    rng = np.random.default_rng(0)
    motion = initial_motion(box(100, 100))
    for _ in range(3000):
        motion = predict(motion, rng.uniform(0.001, 2, 1))
        if rng.random() < 0.5:
            motion = correct(motion, seen(*rng.normal(100, 5, 2)))
        place, mixed, speed = motion.variance[0]
        assert place > 0
        assert speed > 0
        assert mixed ** 2 <= place * speed * (1 + 1e-9)
        assert speed < 100 * SPEED ** 2


def evidence_at(distance: float, gap_s: float, size: float = 40, image: tuple[int, int] = IMAGE,
                ) -> float:
    motion = initial_motion(box(100, 100, size, size))
    for _ in range(10):
        motion = correct(predict(motion, np.array([0.04])), seen(100, 100, size, size))
    gaps = np.array([gap_s])
    return float(motion_evidence(
        box(100 + distance, 100, size, size), predict(motion, gaps), gaps, image)[0, 0])


def test_evidence_is_for_the_near_and_against_the_far_just_after() -> None:
    assert evidence_at(0, 0.04) > 5
    assert evidence_at(40 * 3, 0.04) < -3


def test_place_says_less_the_longer_the_gap() -> None:
    contrast = [evidence_at(0, gap) - evidence_at(120, gap) for gap in (0.04, 0.5, 2.0, 10.0)]
    assert contrast == sorted(contrast, reverse=True)
    assert contrast[-1] < 1


def test_after_a_long_gap_place_and_size_leave_the_verdict_open() -> None:
    assert abs(evidence_at(0, 60.0)) < 2


def test_distance_counts_in_sizes_of_the_object() -> None:
    # Twice as large in a picture twice as large: the same evidence.
    small = evidence_at(30, 0.1, 40, (480, 640))
    large = evidence_at(60, 0.1, 80, (960, 1280))
    assert small == pytest.approx(large, abs=1e-3)


def test_evidence_is_the_log_ratio_of_the_two_densities() -> None:
    # At the prediction, freedom 4, four dimensions: the t density is
    # gamma(4) / gamma(2) / (4 pi)^2 / sqrt(determinant) = 6 / (16 pi^2) / (spread * size spread).
    motion = initial_motion(box(100, 100))
    gaps = np.array([0.0])
    spread = 2 * JITTER ** 2 * 40 * 40
    size_spread = 2 * 0.15 ** 2
    same = 6 / (16 * math.pi ** 2) / (spread * size_spread)
    other = 1 / (480 * 640) / (2 * math.pi)
    value = motion_evidence(box(100, 100), motion, gaps, IMAGE)[0, 0]
    assert value == pytest.approx(math.log(same / other), abs=1e-4)


def test_a_weak_detection_moves_its_track_less() -> None:
    # Steady state aside, one step: gains place / (place + r) with r 0.07 ** 2 and nine times that.
    motion = predict(initial_motion(box(100, 100)), np.array([0.04]))
    place = float(motion.variance[0, 0])
    for weak, noise in ((False, JITTER ** 2), (True, (WEAK_JITTER * JITTER) ** 2)):
        after = correct(motion, seen(110, 100), np.array([weak]))
        assert after.mean[0, 0] - 100 == pytest.approx(10 * place / (place + noise))
        assert after.variance[0, 0] == pytest.approx(place * noise / (place + noise))
