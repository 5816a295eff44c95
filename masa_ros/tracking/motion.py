"""
Motion: where a track should be now, how sure that is, and what a detection there is worth.

A box is ``(centre x, centre y, log width, log height)``. Each track has a damped constant-velocity
Kalman filter whose four coordinates share one covariance, because all noises are given relative to
the object's size: a car of 300 pixels jitters by more pixels than one of 30, and by the same share
of itself. Time is seconds, so dropped frames and other frame rates need no other numbers.

Units: sizes are square roots of box areas; variances are in squares of them.
"""

from __future__ import annotations

from dataclasses import dataclass
import math

from masa_ros.tracking.pairs import Pairs
from masa_ros.tracking.workspace import Workspace
import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]

# A detector's box jitters by this share of the object's size.
JITTER = 0.07
# Factor on it for a weak detection, whose box is mostly that of a part.
WEAK_JITTER = 3.0
# Random walk of the position, sizes per square root of a second: camera shake, poses.
DRIFT = 0.3
# Random walk of the velocity, sizes per second per square root of a second.
TURN = 1.4
# Spread of the unknown velocity of a new track, sizes per second.
SPEED = 3.0
# Seconds for which a velocity is kept, and over which it is then forgotten: nothing goes straight
# for ever.
STEADY_S = 0.25
DAMPING_S = 1.0
# Spread of the log of width and of height between two frames, and its growth per second.
SIZE_JITTER = 0.15
SIZE_DRIFT = 0.5
# Degrees of freedom of the residuals (Student's t): 4 forgives rare jumps, a normal law does not.
FREEDOM = 4.0
# Power of the density of four residuals.
POWER = (FREEDOM + 4) / 2
# Spread of log width and log height among unrelated objects.
SIZE_SPREAD = 1.0
# Log of the height of a four-dimensional Student's t density of unit scale.
_PEAK = (math.lgamma((FREEDOM + 4) / 2) - math.lgamma(FREEDOM / 2)
         - 2 * math.log(FREEDOM * math.pi))


@dataclass(frozen=True)
class Motion:
    """
    State of the filters of M tracks.

    Parameters
    ----------
    mean : ndarray
        ``(M, 4)`` centre x and y in pixels, log width, log height.
    velocity : ndarray
        ``(M, 4)`` the same per second.
    variance : ndarray
        ``(M, 3)`` position, position with velocity, velocity; in sizes and seconds.

    """

    mean: Doubles
    velocity: Doubles
    variance: Doubles

    def select(self, rows: NDArray[np.int64]) -> Motion:
        """Return the filters of some tracks."""
        return Motion(self.mean[rows], self.velocity[rows], self.variance[rows])


def measurements(boxes: NDArray[np.float32]) -> Doubles:
    """``(N, 4)`` centre and log size of boxes; sides below 1/100 pixel count as that."""
    wide = boxes.astype(np.float64)
    sides = np.maximum(wide[:, 2:] - wide[:, :2], 0.01)
    return np.concatenate([(wide[:, :2] + wide[:, 2:]) / 2, np.log(sides)], axis=1)


def boxes_of(mean: Doubles) -> NDArray[np.float32]:
    """``(M, 4)`` float32 xyxy boxes of filter means."""
    half = np.exp(mean[:, 2:]) / 2
    return np.concatenate([mean[:, :2] - half, mean[:, :2] + half], axis=1).astype(np.float32)


def initial_motion(boxes: NDArray[np.float32]) -> Motion:
    """Return filters of new tracks: at the box, velocity unknown."""
    count = len(boxes)
    variance = np.tile([JITTER ** 2, 0.0, SPEED ** 2], (count, 1))
    return Motion(measurements(boxes), np.zeros((count, 4)), variance)


def predict(motion: Motion, gaps_s: Doubles, uncertainty: float = 1.0) -> Motion:
    """
    Move filters forward.

    Parameters
    ----------
    motion : Motion
        State when each track was last seen.
    gaps_s : ndarray
        ``(M,)`` seconds since then.
    uncertainty : float
        Factor on the random walks.

    """
    steady_s = np.minimum(gaps_s, STEADY_S)
    decay = np.exp((steady_s - gaps_s) / DAMPING_S)
    reach = steady_s + DAMPING_S * (1 - decay)
    drift, turn = (DRIFT * uncertainty) ** 2, (TURN * uncertainty) ** 2
    place, mixed, speed = motion.variance.T
    moved, squared = mixed + reach * speed, gaps_s * gaps_s
    # White acceleration noise: its exact integral without damping, an upper bound with it.
    variance = np.empty_like(motion.variance)
    variance[:, 0] = place + reach * (mixed + moved) + gaps_s * (drift + turn / 3 * squared)
    variance[:, 1] = decay * moved + turn / 2 * squared
    variance[:, 2] = decay * decay * speed + turn * gaps_s
    return Motion(motion.mean + reach[:, None] * motion.velocity,
                  decay[:, None] * motion.velocity, variance)


def correct(
    predicted: Motion, measured: Doubles, weak: NDArray[np.bool_] | None = None,
) -> Motion:
    """Return the filters after ``(M, 4)`` `measurements`, those flagged weak less certain."""
    place, mixed, speed = predicted.variance.T
    jitter = JITTER if weak is None else np.where(weak, WEAK_JITTER * JITTER, JITTER)
    total = place + jitter ** 2
    gain, velocity_gain = place / total, mixed / total
    surprise = measured - predicted.mean
    variance = np.empty_like(predicted.variance)
    variance[:, 0] = place * (1 - gain)
    variance[:, 1] = mixed * (1 - gain)
    variance[:, 2] = speed - velocity_gain * mixed
    return Motion(predicted.mean + gain[:, None] * surprise,
                  predicted.velocity + velocity_gain[:, None] * surprise, variance)


def moved_by_camera(motion: Motion, homography: NDArray[np.float64]) -> Motion:
    """
    Express filters in the pixels of an image that the camera took from elsewhere.

    Parameters
    ----------
    motion : Motion
        M filters in pixels of the last image.
    homography : ndarray
        ``(3, 3)`` from pixels of the last image to pixels of this one.

    Returns
    -------
    Motion
        Places moved, velocities turned and sizes scaled as the image is at that place;
        variances, which are in object sizes, stay. A track for which the homography has no
        place (behind the camera) stays as it is.

    """
    points = np.concatenate([motion.mean[:, :2], np.ones((len(motion.mean), 1))], axis=1)
    x, y, depth = homography @ points.T
    sure = depth > 1e-6 * max(abs(float(homography[2, 2])), 1e-12)
    depth = np.where(sure, depth, 1)
    place = np.stack([x, y], axis=1) / depth[:, None]
    # Derivative of the projection at each place.
    slope = (homography[None, :2, :2] - place[:, :, None] * homography[None, 2:, :2])
    slope = slope / depth[:, None, None]
    scale = np.sqrt(np.abs(np.linalg.det(slope)))
    sure &= np.isfinite(place).all(axis=1) & (scale > 1e-3) & (scale < 1e3)
    mean, velocity = motion.mean.copy(), motion.velocity.copy()
    mean[sure, :2] = place[sure]
    mean[sure, 2:] += np.log(scale[sure])[:, None]
    velocity[sure, :2] = np.einsum('mij,mj->mi', slope, motion.velocity[:, :2])[sure]
    return Motion(mean, velocity, motion.variance)


def motion_evidence(
    boxes: NDArray[np.float32], predicted: Motion, gaps_s: Doubles, image_size: tuple[int, int],
) -> NDArray[np.float32]:
    """
    Log-likelihood ratio of "this detection is that track" against "it is something else".

    Something else may be anywhere in the image with any size; the track is near its prediction.
    Just after it was seen a track is therefore worth a lot nearby and costs a lot far away; the
    longer the gap, the less its position says, and appearance decides.

    Parameters
    ----------
    boxes : ndarray
        ``(N, 4)`` xyxy.
    predicted : Motion
        M filters at the time of the boxes.
    gaps_s : ndarray
        ``(M,)`` seconds since each was seen.
    image_size : tuple of int
        ``(height, width)`` in pixels.

    Returns
    -------
    ndarray
        ``(N, M)`` float32, in nats.

    """
    return _evidence(_distances(measurements(boxes), predicted, gaps_s, image_size, Workspace()))


def near_pairs(
    measured: Doubles, predicted: Motion, gaps_s: Doubles, image_size: tuple[int, int],
    costs: NDArray[np.float32], least: float, workspace: Workspace,
) -> Pairs:
    """
    Return the pairs whose `motion_evidence` is enough.

    Parameters
    ----------
    measured : ndarray
        ``(N, 4)`` `measurements` of the boxes.
    predicted, gaps_s, image_size
        As for `motion_evidence`.
    costs : ndarray
        ``(M,)`` nats to add for each track.
    least : float
        Pairs with less evidence, costs included, are left out.
    workspace : Workspace
        Where to compute.

    """
    distances = _distances(measured, predicted, gaps_s, image_size, workspace, costs)
    flat = distances.ravel()
    positions = (flat < math.exp(-least / POWER)).nonzero()[0]
    return Pairs.at(positions, _evidence(flat[positions]), distances.shape)


def _distances(
    measured: Doubles, predicted: Motion, gaps_s: Doubles, image_size: tuple[int, int],
    workspace: Workspace, costs: NDArray[np.float32] | float = 0.0,
) -> Doubles:
    """``(N, M)`` what `_evidence` makes evidence of, in the table ``squares``."""
    area = float(image_size[0] * image_size[1])
    sizes = np.exp(predicted.mean[:, 2] + predicted.mean[:, 3])  # Square pixels.
    # An object is in the image at all: its place is never less certain than that.
    spread = np.minimum((predicted.variance[:, 0] + JITTER ** 2) * sizes, area / (2 * math.pi))
    size_spread = np.minimum(
        2 * SIZE_JITTER ** 2 + (SIZE_DRIFT * gaps_s) ** 2, SIZE_SPREAD ** 2)
    level = _PEAK + math.log(area * 2 * math.pi * SIZE_SPREAD ** 2)
    # The evidence is level - log(spread * size_spread) + costs - power * log(1 + residual /
    # freedom), residuals being squares in units of their variance. All of it goes inside the last
    # logarithm, so that it costs no pass over the table.
    inside = np.exp((np.log(spread * size_spread) - costs - level) / POWER)
    weights = np.empty_like(predicted.mean)
    weights[:, :2] = (inside / (FREEDOM * spread))[:, None]
    weights[:, 2:] = (inside / (FREEDOM * size_spread))[:, None]
    return workspace.squares(measured, predicted.mean, weights, inside)


def _evidence(distances: Doubles) -> NDArray[np.float32]:
    evidence = np.log(distances.astype(np.float32))
    evidence *= -POWER
    return evidence
