"""Looks that a track is known again by; cosines worked by hand."""

from __future__ import annotations

from masa_ros.tracking.exemplars import ExemplarStore
import numpy as np


def unit(*degrees: float) -> np.ndarray:
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def filled(*degrees: float, size: int = 2) -> ExemplarStore:
    store = ExemplarStore(size)
    for look in unit(*degrees):
        store.add(7, look)
    return store


def angles(store: ExemplarStore) -> list[int]:
    looks = store.looks(7)
    assert looks is not None
    return sorted(round(float(np.degrees(np.arctan2(y, x)))) for x, y in looks)


def test_a_look_that_is_nearly_known_is_not_kept() -> None:
    assert angles(filled(0, 5)) == [0]


def test_the_looks_that_stay_are_the_ones_far_apart() -> None:
    assert angles(filled(0, 30, 90)) == [0, 90]


def test_a_track_is_as_similar_as_its_closest_look() -> None:
    store = filled(0, 90)
    store.add(8, unit(180)[0])
    cosines = store.cosines(unit(30), np.array([8, 7]))
    np.testing.assert_allclose(cosines, [[-np.sqrt(3) / 2, np.sqrt(3) / 2]], rtol=1e-6)


def test_nothing_compared_gives_nothing() -> None:
    store = filled(0)
    assert store.cosines(np.zeros((0, 2), np.float32), np.array([7])).shape == (0, 1)
    assert store.cosines(unit(0), np.zeros(0, np.int64)).shape == (1, 0)


def test_removed_tracks_are_forgotten() -> None:
    store = filled(0)
    store.add(8, unit(90)[0])
    store.keep(np.array([8]))
    assert store.has(np.array([7, 8])).tolist() == [False, True]


def test_what_is_saved_comes_back() -> None:
    store = filled(0, 90)
    ids, looks = store.state()
    other = ExemplarStore(2)
    other.restore(ids, np.concatenate(looks))
    assert angles(other) == [0, 90]
