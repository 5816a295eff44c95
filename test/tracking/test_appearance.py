"""The appearance scale."""

from __future__ import annotations

from masa_ros.tracking.appearance import AppearanceScale, LIMIT
import numpy as np
import pytest


def lesson(rng: np.random.Generator, same: float, other: float, spread: float) -> np.ndarray:
    cosines = rng.normal(other, spread, (8, 8)).astype(np.float32)
    cosines[np.diag_indices(8)] = rng.normal(same, spread, 8)
    return cosines


def value(scale: AppearanceScale, cosine: float) -> float:
    return float(scale.evidence(np.array([[cosine]], np.float32))[0, 0])


def test_the_scale_of_a_model_is_learned_from_its_matches() -> None:
    # A model whose strangers are as alike as another's friends.
    rng = np.random.default_rng(0)
    scale = AppearanceScale()
    assert value(scale, 0.9) > 1
    for _ in range(100):
        scale.observe(lesson(rng, 0.98, 0.9, 0.02))
    assert value(scale, 0.9) < -1
    assert value(scale, 0.98) > 1
    assert value(scale, 0.94) == pytest.approx(0, abs=0.5)


def test_a_model_that_cannot_tell_objects_apart_has_no_say() -> None:
    rng = np.random.default_rng(0)
    scale = AppearanceScale()
    for _ in range(500):
        scale.observe(lesson(rng, 0.7, 0.7, 0.1))
    assert abs(value(scale, 0.9)) < 0.2
    assert abs(value(scale, 0.5)) < 0.2


def test_appearance_alone_says_only_so_much() -> None:
    scale = AppearanceScale()
    assert value(scale, 1.0) <= LIMIT
    assert value(scale, -1.0) == pytest.approx(-LIMIT)


def test_one_match_teaches_nothing_about_strangers() -> None:
    scale = AppearanceScale()
    before = scale.other.mean
    scale.observe(np.array([[0.99]], np.float32))
    assert scale.other.mean == before
    assert scale.same.mean > 0.8


def test_no_matches_teach_nothing() -> None:
    scale = AppearanceScale()
    before = scale.values()
    scale.observe(np.zeros((0, 0), np.float32))
    np.testing.assert_array_equal(scale.values(), before)


def test_moments_equal_those_of_all_observations_together() -> None:
    # With the prior as ten observations of its own mean and variance.
    rng = np.random.default_rng(0)
    scale = AppearanceScale()
    seen = [rng.normal(0.7, 0.05, 5) for _ in range(6)]
    for row in seen:
        table = np.zeros((5, 5), np.float32)
        table[np.diag_indices(5)] = row
        scale.observe(table)
    together = np.concatenate(seen)
    weight = 10 + len(together)
    mean = (10 * 0.8 + together.sum()) / weight
    spread = (10 * (0.15 ** 2 + 0.8 ** 2) + (together ** 2).sum()) / weight - mean ** 2
    assert scale.same.mean == pytest.approx(mean, abs=1e-6)
    assert scale.same.variance == pytest.approx(spread, abs=1e-6)


def test_values_restore_the_scale() -> None:
    rng = np.random.default_rng(0)
    scale, copy = AppearanceScale(), AppearanceScale()
    scale.observe(lesson(rng, 0.9, 0.3, 0.1))
    copy.restore(scale.values())
    assert copy.values().tolist() == scale.values().tolist()
