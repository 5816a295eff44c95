"""
Long-term memory: a few different looks of every track, to know it again after a long absence.

The running mean of a track's embeddings follows its newest looks: half hidden, turned away. When
it comes back it may look as it did long before. So a few looks are kept that differ from one
another, and a lost track is as similar as the closest of them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# A look that is closer than this to one that is kept adds nothing.
SAME_LOOK = 0.97


class ExemplarStore:
    """
    Looks of tracks by id, unit length.

    Parameters
    ----------
    size : int
        Most looks of a track.

    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._looks: dict[int, NDArray[np.float32]] = {}

    def __len__(self) -> int:
        return len(self._looks)

    def looks(self, track_id: int) -> NDArray[np.float32] | None:
        """``(K, D)`` looks of a track, ``None`` where it has none."""
        return self._looks.get(track_id)

    def has(self, track_ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Tell which tracks have a look."""
        return np.array([key in self._looks for key in track_ids.tolist()], bool)

    def add(self, track_id: int, embedding: NDArray[np.float32]) -> None:
        """
        Show a new look of a track.

        Where all places are taken, the two most similar looks are found and the one goes that
        resembles the others more: what stays is spread as far as possible.
        """
        looks = self._looks.get(track_id)
        if looks is None:
            self._looks[track_id] = embedding[None].copy()
            return
        if float((looks @ embedding).max()) > SAME_LOOK:
            return
        looks = np.concatenate([looks, embedding[None]])
        if len(looks) > self.size:
            alike = looks @ looks.T
            np.fill_diagonal(alike, -np.inf)
            first, second = np.unravel_index(int(alike.argmax()), alike.shape)
            np.fill_diagonal(alike, 0)
            crowded = first if alike[first].sum() >= alike[second].sum() else second
            looks = np.delete(looks, crowded, axis=0)
        self._looks[track_id] = looks

    def keep(self, track_ids: NDArray[np.int64]) -> None:
        """Forget all other tracks."""
        if len(self._looks) > len(track_ids):
            wanted = set(track_ids.tolist())
            self._looks = {key: looks for key, looks in self._looks.items() if key in wanted}

    def cosines(
        self, embeddings: NDArray[np.float32], track_ids: NDArray[np.int64],
    ) -> NDArray[np.float32]:
        """
        Cosine of unit embeddings with the closest look of each track.

        Parameters
        ----------
        embeddings : ndarray
            ``(N, D)``.
        track_ids : ndarray
            ``(M,)``; every one must have a look.

        Returns
        -------
        ndarray
            ``(N, M)`` float32.

        """
        if not len(track_ids) or not len(embeddings):
            return np.zeros((len(embeddings), len(track_ids)), np.float32)
        looks = [self._looks[int(track_id)] for track_id in track_ids]
        starts = np.cumsum([0, *(len(own) for own in looks[:-1])])
        products = embeddings @ np.concatenate(looks).T
        return np.asarray(np.maximum.reduceat(products, starts, axis=1), np.float32)

    def state(self) -> tuple[NDArray[np.int64], list[NDArray[np.float32]]]:
        """Track of every look, and the looks, for saving."""
        ids = [np.full(len(looks), key) for key, looks in self._looks.items()]
        return (np.concatenate([np.zeros(0, np.int64), *ids]).astype(np.int64),
                list(self._looks.values()))

    def restore(self, track_ids: NDArray[np.int64], looks: NDArray[np.float32]) -> None:
        """Take back what `state` gave, looks as ``(K, D)``."""
        self._looks = {int(key): np.asarray(looks[track_ids == key], np.float32)
                       for key in np.unique(track_ids)}
