"""Pairs of detections and tracks against the whole table of them."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from masa_ros.tracking.association import optimal_assignment, runners_up, UNMATCHED
from masa_ros.tracking.motion import initial_motion, measurements, motion_evidence, near_pairs
from masa_ros.tracking.pairs import Pairs, ranks
from masa_ros.tracking.workspace import Workspace
import numpy as np
import pytest

SEEDS = st.integers(0, 2 ** 32 - 1)
SIZES = st.tuples(st.integers(0, 12), st.integers(0, 12))


def drawn(seed: int, shape: tuple[int, int]) -> tuple[Pairs, np.ndarray]:
    """Half of the pairs of a table, and that table."""
    rng = np.random.default_rng(seed)
    table = rng.normal(0, 3, shape).astype(np.float32)
    table[rng.random(shape) < 0.5] = -np.inf
    positions = np.flatnonzero(table > -np.inf)
    return Pairs.at(positions, table.ravel()[positions], shape), table


@given(seed=SEEDS, shape=SIZES)
@settings(deadline=None)
def test_pairs_are_the_finite_part_of_their_table(seed: int, shape: tuple[int, int]) -> None:
    pairs, table = drawn(seed, shape)
    np.testing.assert_array_equal(pairs.table(), table)
    np.testing.assert_array_equal(table[pairs.rows, pairs.tracks], pairs.evidence)


@given(seed=SEEDS, shape=SIZES, threshold=st.floats(-4, 4))
@settings(deadline=None)
def test_the_assignment_is_that_of_the_table(
    seed: int, shape: tuple[int, int], threshold: float,
) -> None:
    pairs, table = drawn(seed, shape)
    everybody = np.ones(shape[0], bool)
    assert pairs.assigned(everybody, threshold).tolist() == optimal_assignment(
        table, threshold).tolist()


def test_who_may_not_take_part_stays_unmatched() -> None:
    pairs, _ = drawn(0, (6, 6))
    some = np.array([True, False] * 3)
    assert (pairs.assigned(some, -9.0)[~some] == UNMATCHED).all()


@given(seed=SEEDS, shape=SIZES)
@settings(deadline=None)
def test_the_next_best_is_that_of_the_table(seed: int, shape: tuple[int, int]) -> None:
    pairs, table = drawn(seed, shape)
    matches = pairs.assigned(np.ones(shape[0], bool), 0.0)
    found = np.flatnonzero(matches >= 0)
    own, others = pairs.compared(matches)
    np.testing.assert_array_equal(others[found], runners_up(table, found, matches[found]))
    np.testing.assert_array_equal(own[found], table[found, matches[found]])
    assert (own[matches < 0] == -np.inf).all()
    np.testing.assert_array_equal(
        pairs.rivals(matches), table[matches == UNMATCHED].max(axis=0, initial=-np.inf))


@given(seed=SEEDS, shape=SIZES)
@settings(deadline=None)
def test_pairs_are_found_in_a_part_of_the_table(seed: int, shape: tuple[int, int]) -> None:
    pairs, table = drawn(seed, shape)
    rng = np.random.default_rng(seed)
    rows, tracks = rng.random(shape[0]) < 0.7, rng.random(shape[1]) < 0.7
    chosen, positions = pairs.positions(rows, tracks)
    part = table[np.ix_(rows, tracks)]
    np.testing.assert_array_equal(part.ravel()[positions], pairs.evidence[chosen])
    assert len(chosen) == np.isfinite(part).sum()


def test_ranks_by_hand() -> None:
    chosen = np.array([True, False, True, True])
    assert ranks(chosen, np.array([3, 0, 2])).tolist() == [2, 0, 1]
    assert ranks(np.ones(4, bool), np.array([3, 0, 2])).tolist() == [3, 0, 2]


@pytest.mark.parametrize('least', [-30.0, -6.5, 0.0])
def test_near_pairs_are_those_with_enough_motion_evidence(least: float) -> None:
    rng = np.random.default_rng(0)
    centers = rng.uniform(0, 500, (40, 2))
    boxes = np.concatenate([centers - 20, centers + 20], 1).astype(np.float32)
    motion, gaps, costs = initial_motion(boxes), rng.uniform(0.03, 1, 40), rng.uniform(-3, 0, 40)
    seen = boxes[rng.permutation(40)[:30]] + rng.normal(0, 5, (30, 4)).astype(np.float32)
    pairs = near_pairs(measurements(seen), motion, gaps, (500, 500), costs.astype(np.float32),
                       least, Workspace())
    table = motion_evidence(seen, motion, gaps, (500, 500)) + costs
    assert len(pairs) == (table >= least).sum() > 0
    np.testing.assert_allclose(table[pairs.rows, pairs.tracks], pairs.evidence, atol=1e-4)
