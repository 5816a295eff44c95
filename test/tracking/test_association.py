"""Association functions against recorded reference numbers and hand-worked cases."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from masa_ros.structures.boxes import pairwise_iou
from masa_ros.tracking.association import (
    appearance_similarity,
    bisoftmax_similarity,
    check_embeddings,
    combined_similarity,
    cosine_similarity,
    distance_gate,
    free_of_earlier,
    greedy_assignment,
    optimal_assignment,
    overlapping_pairs,
    runners_up,
    softmax_similarity,
    SUPPRESSED,
    unique_rows,
    UNMATCHED,
)
from masa_ros.tracking.workspace import Workspace
import numpy as np
import pytest


@pytest.fixture(scope='module')
def units(golden: Path) -> dict[str, np.ndarray]:
    stored = np.load(golden / 'small_units.npz')
    return {name: stored[name] for name in stored.files if name.startswith('sim.')}


@pytest.mark.data
def test_bisoftmax_equals_the_reference(units: dict[str, np.ndarray]) -> None:
    similarity = bisoftmax_similarity(units['sim.det'], units['sim.trk'])
    np.testing.assert_allclose(similarity, units['sim.bisoftmax'], atol=1e-6)


@pytest.mark.data
def test_cosine_equals_the_reference(units: dict[str, np.ndarray]) -> None:
    similarity = cosine_similarity(units['sim.det'], units['sim.trk'])
    np.testing.assert_allclose(similarity, units['sim.cosine'], atol=1e-6)


@pytest.mark.data
def test_combined_similarity_equals_the_reference(units: dict[str, np.ndarray]) -> None:
    similarity = combined_similarity(units['sim.det'], units['sim.trk'])
    np.testing.assert_allclose(similarity, units['sim.tao'], atol=1e-6)


@pytest.mark.data
def test_distance_gate_equals_the_reference(units: dict[str, np.ndarray]) -> None:
    gaps = units['sim.frame_det'][0] - units['sim.frame_trk']
    gate = distance_gate(units['sim.boxes_det'], units['sim.boxes_trk'], gaps, 100.0, 30.0)
    np.testing.assert_allclose(gate, units['sim.distance_mask'], rtol=1e-4, atol=1e-7)


def test_softmax_runs_over_the_tracks() -> None:
    # exp(0) : exp(log 3) = 1 : 3, worked by hand.
    similarity = softmax_similarity(
        np.array([[1, 0]], np.float32), np.array([[0, 1], [np.log(3), 0]], np.float32))
    np.testing.assert_allclose(similarity, [[0.25, 0.75]], rtol=1e-6)


@pytest.mark.parametrize('kind', ['combined', 'bisoftmax', 'softmax', 'cosine', 'product'])
@pytest.mark.parametrize(('rows', 'columns'), [(0, 3), (3, 0), (0, 0)])
def test_similarity_of_nothing_is_empty(kind: str, rows: int, columns: int) -> None:
    similarity = appearance_similarity(
        kind, np.zeros((rows, 4), np.float32), np.zeros((columns, 4), np.float32))
    assert similarity.shape == (rows, columns)


def test_large_dot_products_do_not_overflow() -> None:
    large = np.full((2, 8), 1e3, np.float32)
    assert np.isfinite(combined_similarity(large, large)).all()


def test_a_zero_embedding_has_cosine_zero() -> None:
    assert cosine_similarity(np.zeros((1, 4), np.float32), np.ones((1, 4), np.float32)) == 0


def test_other_width_says_what_came_and_the_way_out() -> None:
    with pytest.raises(ValueError, match=r'128 wide .* 256-wide ones; call tracker\.reset\(\)'):
        check_embeddings(np.zeros((1, 128), np.float32), np.zeros((1, 256), np.float32))


def test_flat_embeddings_are_refused() -> None:
    with pytest.raises(ValueError, match='expected two axes'):
        check_embeddings(np.zeros(4, np.float32), np.zeros((1, 4), np.float32))


def test_unknown_similarity_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown similarity 'iou'; known ones are combined"):
        appearance_similarity('iou', np.zeros((1, 4), np.float32), np.zeros((1, 4), np.float32))


def test_a_shared_workspace_gives_the_same_numbers() -> None:
    rng = np.random.default_rng(0)
    work = Workspace()
    for rows, columns in ((3, 5), (7, 2), (3, 5)):
        first = rng.standard_normal((rows, 6)).astype(np.float32)
        second = rng.standard_normal((columns, 6)).astype(np.float32)
        np.testing.assert_array_equal(
            appearance_similarity('combined', first, second, work),
            combined_similarity(first, second))


boxes_strategy = arrays(
    np.float32, st.tuples(st.integers(0, 12), st.just(4)),
    elements=st.floats(0, 32, width=32).map(round)).map(
        lambda edges: np.concatenate(
            [np.minimum(edges[:, :2], edges[:, 2:]), np.maximum(edges[:, :2], edges[:, 2:])],
            axis=1))


@given(boxes=boxes_strategy, iou=st.floats(0, 1))
@settings(deadline=None)
def test_the_sweep_finds_the_pairs_that_the_full_table_has(boxes: np.ndarray, iou: float) -> None:
    first, second, overlaps = overlapping_pairs(boxes, iou)
    assert (first < second).all()
    found = {(int(a), int(b)) for a, b, o in zip(first, second, overlaps, strict=True) if o > iou}
    table = pairwise_iou(boxes, boxes)
    expected = {(a, b) for a in range(len(boxes)) for b in range(a + 1, len(boxes))
                if table[a, b] > iou}
    assert found == expected


def test_a_low_scoring_duplicate_is_dropped_and_a_high_scoring_one_is_kept() -> None:
    # Two boxes 10 wide, shifted by 2: IoU 8 / 12, worked by hand.
    boxes = np.array([[0, 0, 10, 10], [2, 0, 12, 10]], np.float32)
    low = unique_rows(boxes, np.array([0.9, 0.4], np.float32), 0.5, 0.3, 1.0)
    high = unique_rows(boxes, np.array([0.9, 0.6], np.float32), 0.5, 0.3, 1.0)
    assert low.tolist() == [True, False]
    assert high.tolist() == [True, True]


def test_a_dropped_box_still_drops_others() -> None:
    # The second falls to the first and the third to the second, as in the reference.
    boxes = np.array([[0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]], np.float32)
    kept = unique_rows(boxes, np.array([0.9, 0.4, 0.3], np.float32), 0.5, 0.3, 1.0)
    assert kept.tolist() == [True, False, False]


def test_equal_boxes_are_kept_where_duplicates_are_off() -> None:
    boxes = np.tile(np.array([[0.1, 0.1, 9.7, 9.3]], np.float32), (4, 1))
    assert unique_rows(boxes, np.full(4, 0.1, np.float32), 0.5, 1.0, 1.0).all()
    assert unique_rows(boxes, np.full(4, 0.9, np.float32), 0.5, 0.3, 1.0).all()


def test_no_boxes_have_no_duplicates() -> None:
    empty = np.zeros((0, 4), np.float32)
    assert unique_rows(empty, np.zeros(0, np.float32), 0.5, 0.3, 0.7).shape == (0,)
    assert free_of_earlier(empty, 0.3).shape == (0,)


def test_greedy_takes_the_best_free_track_in_order_of_rank() -> None:
    similarity = np.array([[0.9, 0.8], [0.95, 0.7]], np.float32)
    assert greedy_assignment(similarity, 0.5).tolist() == [0, 1]


def test_greedy_keeps_the_first_of_equal_tracks() -> None:
    assert greedy_assignment(np.full((2, 3), 0.9, np.float32), 0.5).tolist() == [0, 1]


def test_greedy_leaves_unmatched_what_likes_a_distractor_best() -> None:
    similarity = np.array([[0.6, 0.9]], np.float32)
    assert greedy_assignment(similarity, 0.5, num_tracks=1).tolist() == [UNMATCHED]


def test_greedy_suppresses_what_may_not_take_its_track() -> None:
    similarity = np.array([[0.9, 0.1], [0.9, 0.1]], np.float32)
    matches = greedy_assignment(similarity, 0.5, np.array([False, True]), suppress_above=0.6)
    assert matches.tolist() == [SUPPRESSED, 0]


def test_a_match_must_be_above_the_threshold() -> None:
    similarity = np.array([[0.5]], np.float32)
    assert greedy_assignment(similarity, 0.5).tolist() == [UNMATCHED]
    assert optimal_assignment(similarity, 0.5).tolist() == [UNMATCHED]


def test_optimal_gives_up_a_good_match_for_two() -> None:
    # Greedy takes 0.9 and leaves the second detection alone; 0.8 + 0.7 is more.
    similarity = np.array([[0.9, 0.8], [0.7, 0.0]], np.float32)
    assert greedy_assignment(similarity, 0.5).tolist() == [0, UNMATCHED]
    assert optimal_assignment(similarity, 0.5).tolist() == [1, 0]


@pytest.mark.parametrize('shape', [(0, 0), (0, 3), (3, 0)])
def test_assignment_of_nothing_matches_nothing(shape: tuple[int, int]) -> None:
    empty = np.zeros(shape, np.float32)
    assert greedy_assignment(empty, 0.5).tolist() == [UNMATCHED] * shape[0]
    assert optimal_assignment(empty, 0.5).tolist() == [UNMATCHED] * shape[0]


def best_by_trying_all(similarity: np.ndarray, threshold: float) -> float:
    """Largest sum of gains over every one-to-one assignment, for a square table."""
    gains = np.maximum(similarity.astype(np.float64) - threshold, 0)
    rows = range(len(gains))
    return max(float(sum(gains[row, column] for row, column in zip(rows, columns, strict=True)))
               for columns in permutations(rows))


@given(arrays(np.float32, (5, 5), elements=st.sampled_from([0.0, 0.2, 0.4, 0.6, 0.7, 0.9])))
@settings(deadline=None)
def test_optimal_is_as_good_as_trying_all(similarity: np.ndarray) -> None:
    matches = optimal_assignment(similarity, 0.5)
    rows = np.flatnonzero(matches >= 0)
    taken = matches[rows]
    assert len(set(taken.tolist())) == len(taken)
    assert (similarity[rows, taken] > 0.5).all()
    gain = (similarity[rows, taken].astype(np.float64) - 0.5).sum()
    assert gain == pytest.approx(best_by_trying_all(similarity, 0.5), abs=1e-6)


def test_runners_up_are_the_best_of_the_other_tracks() -> None:
    similarity = np.array([[0.9, 0.4, 0.1], [0.2, 0.3, 0.8]], np.float32)
    before = similarity.copy()
    others = runners_up(similarity, np.array([0, 1]), np.array([0, 2]))
    np.testing.assert_allclose(others, [0.4, 0.3])
    np.testing.assert_array_equal(similarity, before)


def test_the_only_track_has_no_runner_up() -> None:
    assert runners_up(np.array([[0.9]], np.float32), np.array([0]), np.array([0])) == -np.inf
