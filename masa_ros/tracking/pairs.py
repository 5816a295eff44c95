"""
Pairs of a detection and a track that may be the same object.

In a crowd almost every detection is too far from almost every track for any likeness to make up
for it. What is left after that is a list of pairs, some per cent of the table of all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from masa_ros.tracking.association import pair_assignment, rows_where, UNMATCHED
import numpy as np
from numpy.typing import NDArray


def ranks(chosen: NDArray[np.bool_], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Tell where chosen rows are among the chosen ones, given a flag of each row."""
    return rows if chosen.all() else (np.cumsum(chosen) - 1)[rows]


@dataclass(frozen=True)
class Pairs:
    """
    Evidence of P pairs among N detections and M tracks.

    Parameters
    ----------
    shape : tuple of int
        ``(N, M)``.
    rows, tracks : ndarray
        ``(P,)`` int64 detection and track of each, in order of detections, then tracks.
    evidence : ndarray
        ``(P,)`` float32 log-likelihood ratio of "the same" in nats. That of all other pairs counts
        as minus infinity.

    """

    shape: tuple[int, int]
    rows: NDArray[np.int64]
    tracks: NDArray[np.int64]
    evidence: NDArray[np.float32]

    @classmethod
    def at(
        cls, positions: NDArray[np.int64], evidence: NDArray[np.float32], shape: tuple[int, int],
    ) -> Pairs:
        """Return the pairs at ascending positions of the flattened table."""
        # Half as wide numbers divide several times faster.
        kind = np.uint32 if shape[0] * shape[1] < 2 ** 32 else np.uint64
        rows, tracks = np.divmod(positions.astype(kind), kind(max(shape[1], 1)))
        return cls(shape, rows.astype(np.int64), tracks.astype(np.int64), evidence)

    def __len__(self) -> int:
        return len(self.rows)

    def plus(self, evidence: NDArray[np.float32]) -> Pairs:
        """Add more evidence to each pair."""
        return Pairs(self.shape, self.rows, self.tracks, self.evidence + evidence)

    def positions(
        self, chosen_rows: NDArray[np.bool_], chosen_tracks: NDArray[np.bool_],
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """
        Find the pairs in a table of some detections and some tracks.

        Parameters
        ----------
        chosen_rows, chosen_tracks : ndarray
            ``(N,)`` and ``(M,)`` bool, those that the table has.

        Returns
        -------
        pairs, positions : ndarray
            ``(K,)`` int64, which pairs it has, and where in the flattened table.

        """
        width = np.count_nonzero(chosen_tracks)
        if width == self.shape[1] and chosen_rows.all():
            return np.arange(len(self)), self.rows * width + self.tracks
        pairs = rows_where(chosen_rows[self.rows] & chosen_tracks[self.tracks])
        return pairs, (ranks(chosen_rows, self.rows[pairs]) * width
                       + ranks(chosen_tracks, self.tracks[pairs]))

    def table(self) -> NDArray[np.float32]:
        """``(N, M)`` of all pairs."""
        table = np.full(self.shape, -np.inf, np.float32)
        table[self.rows, self.tracks] = self.evidence
        return table

    def assigned(self, rows: NDArray[np.bool_], threshold: float) -> NDArray[np.int64]:
        """
        Match so that the evidence above a threshold is largest in sum.

        Parameters
        ----------
        rows : ndarray
            ``(N,)`` bool, detections that take part.
        threshold : float
            A match needs evidence above this.

        Returns
        -------
        ndarray
            ``(N,)`` int64 track of each detection, or `UNMATCHED`.

        """
        used = rows_where(rows[self.rows] & (self.evidence > threshold))
        return pair_assignment(
            self.rows[used], self.tracks[used],
            self.evidence[used].astype(np.float64) - threshold, self.shape)

    def compared(
        self, matches: NDArray[np.int64],
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """
        Compare each match with the best other track of its detection.

        Parameters
        ----------
        matches : ndarray
            ``(N,)`` int64 track of each detection, negative for none.

        Returns
        -------
        own, others : ndarray
            ``(N,)`` float32 evidence of the match and of the best other track.

        """
        own = np.full(self.shape[0], -np.inf, np.float32)
        others = own.copy()
        matched = matches[self.rows] == self.tracks
        own[self.rows[matched]] = self.evidence[matched]
        if len(self):
            left = np.where(matched, np.float32(-np.inf), self.evidence)
            new = np.empty(len(self), bool)
            new[0] = True
            np.not_equal(self.rows[1:], self.rows[:-1], out=new[1:])
            starts = rows_where(new)
            others[self.rows[starts]] = np.maximum.reduceat(left, starts)
        return own, others

    def rivals(self, matches: NDArray[np.int64]) -> NDArray[np.float32]:
        """``(M,)`` evidence of the best detection without a match for each track."""
        best = np.full(self.shape[1], -np.inf, np.float32)
        free = matches[self.rows] == UNMATCHED
        np.maximum.at(best, self.tracks[free], self.evidence[free])
        return best
