"""The appearance scale."""

from __future__ import annotations

from masa_ros.tracking.appearance import AppearanceScale, LIMIT_AGAINST, LIMIT_FOR
import numpy as np
import pytest
from scipy.stats import norm


def lesson(rng: np.random.Generator, same: float, other: float, spread: float) -> np.ndarray:
    cosines = rng.normal(other, spread, (8, 8)).astype(np.float32)
    cosines[np.diag_indices(8)] = rng.normal(same, spread, 8)
    return cosines


def value(scale: AppearanceScale, cosine: float, gap_s: float | None = None) -> float:
    gaps_s = None if gap_s is None else np.array([gap_s])
    return float(scale.evidence(np.array([[cosine]], np.float32), gaps_s)[0, 0])


def learned(same: float, spread: float, other: float, other_spread: float) -> AppearanceScale:
    """Return a scale with these moments, learned from matches 0.04 s apart."""
    scale = AppearanceScale()
    scale.restore(np.array([same, spread ** 2, 100, other, other_spread ** 2, 100, 0.04, 100]))
    return scale


def ratio(cosine: float, same: float, spread: float, other: float, other_spread: float) -> float:
    """Return the log-likelihood ratio of two normal laws, by scipy."""
    return float(norm.logpdf(cosine, same, spread) - norm.logpdf(cosine, other, other_spread))


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
    assert value(scale, 1.0) <= LIMIT_FOR
    assert value(scale, -1.0) == pytest.approx(-LIMIT_AGAINST)
    assert value(learned(0.95, 0.03, 0.0, 0.15), 0.95) == pytest.approx(LIMIT_FOR)


@pytest.mark.parametrize('cosine', [0.5, 0.55, 0.6, 0.65, 0.7])
def test_evidence_is_the_ratio_of_two_normal_laws(cosine: float) -> None:
    scale = learned(0.7, 0.15, 0.2, 0.25)
    assert value(scale, cosine) == pytest.approx(ratio(cosine, 0.7, 0.15, 0.2, 0.25), abs=1e-4)


def test_more_alike_never_speaks_against_a_match() -> None:
    # The ratio of the second pair of laws itself falls again above 0.98.
    for scale in (AppearanceScale(), learned(0.7, 0.15, 0.2, 0.25), learned(0.6, 0.3, 0.2, 0.2)):
        cosines = np.linspace(-1, 1, 201, dtype=np.float32)[:, None]
        assert (np.diff(scale.evidence(cosines)[:, 0]) >= 0).all()


def test_looks_drift_with_the_square_root_of_the_time_unseen() -> None:
    # Four times the usual gap: from 0.9 +- 0.05 to 0.8 +- 0.1.
    scale = learned(0.9, 0.05, 0.2, 0.25)
    assert value(scale, 0.65, 0.04) == pytest.approx(
        max(ratio(0.65, 0.9, 0.05, 0.2, 0.25), -LIMIT_AGAINST), abs=1e-4)
    assert value(scale, 0.65, 0.16) == pytest.approx(ratio(0.65, 0.8, 0.1, 0.2, 0.25), abs=1e-4)
    assert value(scale, 0.65, 0.16) > 0 > value(scale, 0.65, 0.04)


def test_looks_drift_only_so_far() -> None:
    # 0.7 +- 0.2 at most.
    scale = learned(0.9, 0.05, 0.2, 0.25)
    assert value(scale, 0.5, 1000.0) == pytest.approx(ratio(0.5, 0.7, 0.2, 0.2, 0.25), abs=1e-4)
    assert value(scale, 0.5, 1000.0) == value(scale, 0.5, 10.0)


def test_every_track_has_its_own_gap() -> None:
    scale = learned(0.9, 0.05, 0.2, 0.25)
    both = scale.evidence(np.full((1, 2), 0.65, np.float32), np.array([0.04, 0.16]))
    assert both[0].tolist() == pytest.approx([value(scale, 0.65, 0.04), value(scale, 0.65, 0.16)])


def test_the_usual_gap_is_the_mean_of_those_seen() -> None:
    scale = AppearanceScale()
    for gap_s in (0.1, 0.3):
        scale.observe(np.eye(2, dtype=np.float32), np.full(2, gap_s))
    assert scale.values()[6:].tolist() == pytest.approx([0.2, 2])
    # Nothing is older than usual at or below it.
    assert value(scale, 0.7, 0.2) == value(scale, 0.7, 0.01) == value(scale, 0.7)
    assert value(scale, 0.5, 0.8) > value(scale, 0.5, 0.2)


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
