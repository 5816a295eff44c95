"""
Appearance: what a cosine between two embeddings is worth.

A cosine of 0.9 means "the same object" to one model and "both are pictures" to another. The
tracker learns which it is while it runs: two objects matched to different tracks in one frame are
certainly different, and a matched object is most probably the same as its track.
"""

from __future__ import annotations

from dataclasses import dataclass
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

# What is believed before anything was seen, and how many observations that is worth.
PRIOR_SAME, PRIOR_OTHER, PRIOR_SPREAD, PRIOR_WEIGHT = 0.8, 0.4, 0.15, 10.0
# Observations after which old ones fade.
HORIZON = 2000.0
# Least spread: near-identical crops must not make a cosine look infinitely telling.
LEAST_SPREAD = 0.03
# Looks drift: what a cosine falls short of 1, and its spread, grow with this power of the time
# since the track was seen. Between 0.04 and 0.7 s the power is 0.4 to 0.9 on five sequences.
DRIFT_POWER = 0.5
# What an object's mean cosine falls short of 1, and its spread, at most by that growth.
MOST_SHORT, MOST_SPREAD = 0.3, 0.2
# Share of the spread among strangers that one object's spread stays below: else a very low cosine
# would speak for one object.
NARROWER = 0.95
# Frames with matches after which the usual gap between two sights of a track changes slowly.
GAP_MEMORY = 100.0
# Most that appearance may say for a match (1 to 660), and against it (1 to 33): strangers can look
# alike, and an object that is covered, blurred or badly lit can look like anything.
LIMIT_FOR, LIMIT_AGAINST = 6.5, 3.5


@dataclass
class _Moments:
    """Running mean and variance with fading weight."""

    mean: float
    variance: float
    weight: float = PRIOR_WEIGHT

    def add(self, mean: float, variance: float, count: float) -> None:
        share = count / (self.weight + count)
        step = mean - self.mean
        self.mean += share * step
        self.variance += share * (variance - self.variance + (1 - share) * step ** 2)
        self.weight = min(self.weight + count, HORIZON)


class AppearanceScale:
    """Turns cosines into log-likelihood ratios, learning their scale from the matches."""

    def __init__(self) -> None:
        self.same = _Moments(PRIOR_SAME, PRIOR_SPREAD ** 2)
        self.other = _Moments(PRIOR_OTHER, PRIOR_SPREAD ** 2)
        self._gap_s, self._num_gaps = 0.0, 0.0

    def evidence(
        self, cosines: NDArray[np.float32], gaps_s: NDArray[np.float64] | None = None,
    ) -> NDArray[np.float32]:
        """
        Turn ``(N, M)`` cosines into log-likelihood ratios of "the same object".

        Two normal laws. That of one object is the narrower one, lies nearer to 1, and moves away
        and widens the longer the track was not seen, beyond the gap it was learned at. From where
        a higher cosine would speak against a match the ratio stays level. Cut at two limits.

        Parameters
        ----------
        cosines : ndarray
            ``(N, M)`` between detections and tracks.
        gaps_s : ndarray, optional
            ``(M,)`` seconds since each track was seen; without them the usual gap.

        """
        growth: Any = 1.0
        if gaps_s is not None and len(gaps_s) and self._num_gaps:
            usual = max(self._gap_s, 1e-3)
            newest, oldest = float(gaps_s.min()), float(gaps_s.max())
            # Mostly the frame before showed all tracks; a number is faster than a row of them.
            growth = (np.maximum(gaps_s / usual, 1.0) if oldest > max(newest, usual)
                      else max(newest / usual, 1.0)) ** DRIFT_POWER
        other = max(math.sqrt(self.other.variance), LEAST_SPREAD)
        short, spread = 1 - self.same.mean, math.sqrt(self.same.variance)
        mean = np.maximum(1 - np.minimum(short * growth, max(short, MOST_SHORT)), self.other.mean)
        same = np.minimum(np.maximum(spread * growth, LEAST_SPREAD),
                          min(max(spread, MOST_SPREAD), NARROWER * other))
        # The difference of the two log densities is top - scale ** 2 * (cosine - peak) ** 2.
        apart, wider = mean - self.other.mean, other ** 2 - same ** 2
        scale = np.sqrt((same ** -2 - other ** -2) / 2)
        peak = mean + apart * same ** 2 / wider
        top = np.log(other / same) + apart ** 2 / wider / 2
        nearest = -np.sqrt(np.maximum(top - LIMIT_FOR, 0))
        evidence = cosines * scale.astype(np.float32)
        evidence -= (scale * peak).astype(np.float32)
        np.minimum(evidence, nearest.astype(np.float32), out=evidence)
        evidence *= evidence
        np.subtract(top.astype(np.float32), evidence, out=evidence)
        return np.asarray(np.clip(evidence, -LIMIT_AGAINST, LIMIT_FOR, out=evidence))

    def observe(
        self, cosines: NDArray[np.float32], gaps_s: NDArray[np.float64] | None = None,
    ) -> None:
        """
        Learn from the matches of one frame.

        Parameters
        ----------
        cosines : ndarray
            ``(K, K)`` between K matched objects and their K tracks, in the same order: the
            diagonal are pairs of the same object, the rest of different ones.
        gaps_s : ndarray, optional
            ``(K,)`` seconds since these tracks were seen before.

        """
        count = len(cosines)
        if not count:
            return
        if gaps_s is not None:
            self._num_gaps = min(self._num_gaps + 1, GAP_MEMORY)
            self._gap_s += (float(gaps_s.sum()) / count - self._gap_s) / self._num_gaps
        same = cosines.diagonal().astype(np.float64)
        self.same.add(*_mean_and_variance(float(same.sum()), float(same @ same), count), count)
        pairs = count * (count - 1)
        if pairs:
            flat = cosines.ravel().astype(np.float64)
            total, squares = float(flat.sum() - same.sum()), float(flat @ flat - same @ same)
            # K objects give K**2 pairs but no more than K of them are independent.
            self.other.add(*_mean_and_variance(total, squares, pairs), count)

    def values(self) -> NDArray[np.float64]:
        """``(8,)`` what was learned, for saving."""
        return np.array([self.same.mean, self.same.variance, self.same.weight,
                         self.other.mean, self.other.variance, self.other.weight,
                         self._gap_s, self._num_gaps])

    def restore(self, values: NDArray[np.float64]) -> None:
        """Take back what `values` gave."""
        numbers = [float(value) for value in values]
        self.same = _Moments(*numbers[:3])
        self.other = _Moments(*numbers[3:6])
        self._gap_s, self._num_gaps = numbers[6:]


def _mean_and_variance(total: float, squares: float, count: int) -> tuple[float, float]:
    mean = total / count
    return mean, max(squares / count - mean ** 2, 0.0)
