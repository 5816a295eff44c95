"""
Appearance: what a cosine between two embeddings is worth.

A cosine of 0.9 means "the same object" to one model and "both are pictures" to another. The
tracker learns which it is while it runs: two objects matched to different tracks in one frame are
certainly different, and a matched object is most probably the same as its track.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# What is believed before anything was seen, and how many observations that is worth.
PRIOR_SAME, PRIOR_OTHER, PRIOR_SPREAD, PRIOR_WEIGHT = 0.8, 0.4, 0.15, 10.0
# Observations after which old ones fade.
HORIZON = 2000.0
# Least spread: near-identical crops must not make a cosine look infinitely telling.
LEAST_SPREAD = 0.03
# Most that appearance may say, in nats (1 to 100): light, blur and occlusion can make any pair
# look unlike, and strangers can look alike.
LIMIT = 4.6


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

    def evidence(
        self, cosines: NDArray[np.float32], out: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        """
        Turn ``(N, M)`` cosines into log-likelihood ratios of "the same object".

        Two normal laws of equal spread, which makes it a straight line: 0 halfway between the
        means, steeper the better they are apart, cut at a limit.
        """
        spread = max((self.same.variance + self.other.variance) / 2, LEAST_SPREAD ** 2)
        slope = max(self.same.mean - self.other.mean, 0.0) / spread
        evidence = np.multiply(cosines, np.float32(slope), out=out)
        evidence -= np.float32(slope * (self.same.mean + self.other.mean) / 2)
        return np.asarray(np.clip(evidence, -LIMIT, LIMIT, out=evidence))

    def observe(self, cosines: NDArray[np.float32]) -> None:
        """
        Learn from the matches of one frame.

        Parameters
        ----------
        cosines : ndarray
            ``(K, K)`` between K matched objects and their K tracks, in the same order: the
            diagonal are pairs of the same object, the rest of different ones.

        """
        count = len(cosines)
        if not count:
            return
        same = cosines.diagonal().astype(np.float64)
        self.same.add(*_mean_and_variance(float(same.sum()), float(same @ same), count), count)
        pairs = count * (count - 1)
        if pairs:
            flat = cosines.ravel().astype(np.float64)
            total, squares = float(flat.sum() - same.sum()), float(flat @ flat - same @ same)
            # K objects give K**2 pairs but no more than K of them are independent.
            self.other.add(*_mean_and_variance(total, squares, pairs), count)

    def values(self) -> NDArray[np.float64]:
        """``(6,)`` what was learned, for saving."""
        return np.array([self.same.mean, self.same.variance, self.same.weight,
                         self.other.mean, self.other.variance, self.other.weight])

    def restore(self, values: NDArray[np.float64]) -> None:
        """Take back what `values` gave."""
        numbers = [float(value) for value in values]
        self.same = _Moments(*numbers[:3])
        self.other = _Moments(*numbers[3:])


def _mean_and_variance(total: float, squares: float, count: int) -> tuple[float, float]:
    mean = total / count
    return mean, max(squares / count - mean ** 2, 0.0)
