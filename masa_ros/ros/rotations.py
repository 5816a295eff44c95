"""
Which way coordinate frames are turned, over time: from odometry, ``/tf`` and ``/tf_static``.

Only rotations, as the tracker takes only the turning of a camera out of its pictures. Quaternions
are ``(x, y, z, w)`` and turn vectors of the child frame into the parent frame, as in ROS.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
import math
import threading

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Longer chains of frames are a circle.
MOST_LINKS = 64


class UnknownRotationError(LookupError):
    """It is not known which way a frame was turned; the text says what is missing."""


@dataclass
class _Link:
    """How a frame was turned in its parent; stamps are empty where it never moves."""

    parent: str
    turns: list[NDArray[np.float64]]
    stamps_ns: list[int] = field(default_factory=list)


class RotationTree:
    """
    Frames that turn within each other; may be filled and asked from different threads.

    Parameters
    ----------
    tolerance_s : float
        Largest time between the stamp asked for and the nearest one that is known.
    keep_s : float
        How long is remembered. What comes with an older stamp than that starts its frame anew, as
        after a jump of the clock.

    """

    def __init__(self, tolerance_s: float = 0.1, keep_s: float = math.inf) -> None:
        self.tolerance_s = tolerance_s
        self._keep_s = keep_s
        self._links: dict[str, _Link] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Return the number of frames that have a parent."""
        return len(self._links)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._links.clear()

    def add(
        self, parent: str, child: str, quaternion: ArrayLike, stamp_ns: int | None = None,
    ) -> None:
        """
        Learn how a frame is turned; what is no rotation (zeros, NaN) is left out.

        Parameters
        ----------
        parent, child : str
            Names of coordinate frames.
        quaternion : array_like
            ``(4,)`` x, y, z, w from child to parent; of any length.
        stamp_ns : int, optional
            When that was; None for always.

        """
        turn = np.asarray(quaternion, float)
        length = float(np.linalg.norm(turn))
        if not 1e-3 < length < 1e3:
            return
        turn = turn / length
        parent, child = parent.strip('/'), child.strip('/')
        with self._lock:
            link = self._links.get(child)
            if stamp_ns is None:
                self._links[child] = _Link(parent, [turn])
            elif (link is None or link.parent != parent or not link.stamps_ns
                    or (link.stamps_ns[-1] - stamp_ns) * 1e-9 > self._keep_s):
                self._links[child] = _Link(parent, [turn], [stamp_ns])
            else:
                self._insert(link, turn, stamp_ns)

    def rotation(self, frame: str, fixed: str, stamp_ns: int) -> NDArray[np.float64]:
        """
        Return the matrix ``(3, 3)`` from one frame to another at some time.

        Between two stamps it is interpolated, after the newest one the turning goes on as it was.

        Raises
        ------
        UnknownRotationError
            If the frames are not connected, or nothing is known near that time.

        """
        with self._lock:
            there, root = self._to_root(frame.strip('/'), fixed.strip('/'), stamp_ns)
            if root == fixed.strip('/'):
                return there
            back, other = self._to_root(fixed.strip('/'), root, stamp_ns)
        if root != other:
            raise UnknownRotationError(
                f'{frame!r} and {fixed!r} are not connected: the one hangs on {root!r}, the other '
                f'on {other!r}; what connects them must come on /tf_static, /tf or as odometry')
        return np.asarray(back.T @ there)

    def _insert(self, link: _Link, turn: NDArray[np.float64], stamp_ns: int) -> None:
        place = bisect_left(link.stamps_ns, stamp_ns)
        if place < len(link.stamps_ns) and link.stamps_ns[place] == stamp_ns:
            link.turns[place] = turn
            return
        link.stamps_ns.insert(place, stamp_ns)
        link.turns.insert(place, turn)
        while (link.stamps_ns[-1] - link.stamps_ns[0]) * 1e-9 > self._keep_s:
            del link.stamps_ns[0], link.turns[0]

    def _to_root(
        self, frame: str, goal: str, stamp_ns: int,
    ) -> tuple[NDArray[np.float64], str]:
        """Go up from a frame to another one or to where no parent is known."""
        matrix = np.eye(3)
        for _ in range(MOST_LINKS):
            link = self._links.get(frame)
            if frame == goal or link is None:
                return matrix, frame
            matrix = quaternion_matrix(self._turn_at(link, frame, stamp_ns)) @ matrix
            frame = link.parent
        raise UnknownRotationError(f'the frame {frame!r} is its own ancestor')

    def _turn_at(self, link: _Link, frame: str, stamp_ns: int) -> NDArray[np.float64]:
        stamps = link.stamps_ns
        if not stamps:
            return link.turns[0]
        after = bisect_left(stamps, stamp_ns)
        near_ns = min(abs(stamp - stamp_ns) for stamp in stamps[max(after - 1, 0):after + 1])
        if near_ns * 1e-9 > self.tolerance_s:
            raise UnknownRotationError(
                f'how {frame!r} is turned in {link.parent!r} is not known within '
                f'odometry.tolerance_s ({self.tolerance_s:g} s) of the image')
        if len(stamps) == 1 or after == 0:
            return link.turns[0]
        first = min(after, len(stamps) - 1) - 1
        span_ns = stamps[first + 1] - stamps[first]
        share = (stamp_ns - stamps[first]) / span_ns
        if share > 1 and span_ns * 1e-9 > self.tolerance_s:
            return link.turns[-1]
        return between(link.turns[first], link.turns[first + 1], share)


def quaternion_matrix(quaternion: ArrayLike) -> NDArray[np.float64]:
    """Rotation matrix of a unit quaternion ``(x, y, z, w)``."""
    x, y, z, w = np.asarray(quaternion, float)
    return np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)]])


def between(
    first: NDArray[np.float64], second: NDArray[np.float64], share: float,
) -> NDArray[np.float64]:
    """Turn at an even rate from one unit quaternion (0) to another (1), and beyond it."""
    cosine = float(first @ second)
    if cosine < 0:  # The same rotation the short way round.
        second, cosine = -second, -cosine
    angle = math.acos(min(cosine, 1.0))
    if angle < 1e-6:
        return first
    parts = math.sin((1 - share) * angle), math.sin(share * angle)
    return np.asarray((parts[0] * first + parts[1] * second) / math.sin(angle))
