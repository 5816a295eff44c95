"""
Absence: what it costs a track that it was not seen in the frame before.

With a detector that misses every tenth object, one that was missed is mostly still there. With one
that misses none it has gone, and what appears in its place is somebody else. The tracker learns
which it is while it runs: how often is an object that was just seen not seen in the next frame?
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

# What it costs, in nats, to come back after a miss where objects are missed as often as USUAL.
RETURN, USUAL = -1.5, 0.1
# What one nat of a lower rate of misses adds to that, and limits of what it adds. More than one,
# since part of the rarer misses are objects that have gone.
SLOPE, LOWEST, HIGHEST = 1.3, -4.0, 0.0
# What is believed before anything was seen counts as many sights.
PRIOR_WEIGHT = 20.0
# Sights after which old ones fade.
HORIZON = 2000.0
# What it costs on top, in nats, that the track should be outside the image by now: those who leave
# rarely come back soon, and newcomers look like them. More than this share of its box must be
# outside.
LEFT, LEFT_SHARE = -2.5, 0.15


class AbsenceScale:
    """Prices absences, learning from the tracks how often objects are missed."""

    def __init__(self) -> None:
        self._misses, self._sights = USUAL * PRIOR_WEIGHT, PRIOR_WEIGHT

    @property
    def miss_rate(self) -> float:
        """Share of the objects seen in one frame that the next one misses."""
        return self._misses / self._sights

    def costs(
        self, missed: NDArray[np.bool_], leaving: NDArray[np.bool_],
    ) -> NDArray[np.float32]:
        """
        Return what coming back costs each track, in nats, 0 for those seen in the frame before.

        Parameters
        ----------
        missed, leaving : ndarray
            ``(M,)`` bool: not seen in the frame before; should be outside the image by now.

        """
        learned = min(max(SLOPE * math.log(self.miss_rate / USUAL), LOWEST), HIGHEST)
        costs = np.where(leaving, RETURN + learned + LEFT, RETURN + learned)
        return np.where(missed, costs, 0).astype(np.float32)

    def observe(self, num_sights: int, num_misses: int) -> None:
        """
        Learn from one frame.

        Parameters
        ----------
        num_sights : int
            Tracks that should be in the image and were seen in the frame before.
        num_misses : int
            How many of these were not seen now.

        """
        keep = min(1.0, HORIZON / (self._sights + num_sights))
        # Half a miss stands for those that will come: the rate is never zero.
        self._misses = max(keep * (self._misses + num_misses), 0.5)
        self._sights = keep * (self._sights + num_sights)

    def values(self) -> NDArray[np.float64]:
        """``(2,)`` what was learned, for saving."""
        return np.array([self._misses, self._sights])

    def restore(self, values: NDArray[np.float64]) -> None:
        """Take back what `values` gave."""
        self._misses, self._sights = (float(value) for value in values)


def fading_costs(gaps_s: NDArray[np.float64], missed: NDArray[np.bool_]) -> NDArray[np.float32]:
    """
    ``(M,)`` what it costs besides, in nats, where nobody knows what the track looks like.

    Its place is then all there is to go by, and after a long gap everything that appears somewhere
    near would be it.
    """
    return np.where(missed, -np.log1p(gaps_s), 0).astype(np.float32)


def leaving_image(
    mean: NDArray[np.float64], image_size: tuple[int, int],
) -> NDArray[np.bool_]:
    """
    Tell which tracks should have left.

    Parameters
    ----------
    mean : ndarray
        ``(M, 4)`` centre and log size of the predicted boxes, as `Motion.mean`.
    image_size : tuple of int
        ``(height, width)`` in pixels.

    Returns
    -------
    ndarray
        ``(M,)`` bool, whether more than `LEFT_SHARE` of the box is outside the image.

    """
    half = np.exp(mean[:, 2:]) / 2
    low = np.maximum(mean[:, :2] - half, 0)
    inside = np.minimum(mean[:, :2] + half, image_size[::-1])
    inside -= low
    inside /= half
    # Of a box beyond two borders both parts are negative, and their product is not.
    np.maximum(inside, 0, out=inside)
    return np.asarray(inside[:, 0] * inside[:, 1] < 4 * (1 - LEFT_SHARE))
