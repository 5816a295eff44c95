"""The objects of one frame, before and after tracking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from enum import IntEnum, IntFlag
from typing import Any, TypeVar

from masa_ros.structures.boxes import as_boxes
from masa_ros.structures.masks import RoiMask
import numpy as np
from numpy.typing import ArrayLike, NDArray


class Flag(IntFlag):
    """Where an object came from and what was done to it; the bits of ``TrackedObject.flags``."""

    NONE = 0
    FROM_DETECTION = 1
    """An upstream or in-process detection gave the box."""
    FROM_PROPOSAL = 2
    """The model's own proposal gave the box."""
    MASK_SKIPPED = 4
    """No mask was computed (time budget, mask limit or a failed segmentation)."""
    TRUNCATED = 8
    """The box touches or leaves the image border."""
    PREDICTED = 16
    """The box was predicted from motion, not seen in this frame."""
    PROMPTED = 32
    """The object was asked for by a prompt."""
    RECOVERED = 64
    """Nothing was detected there; the model saw the track when asked about its predicted box."""


class TrackState(IntEnum):
    """Life of a track; the values of ``TrackedObject.state``."""

    TENTATIVE = 0
    """Seen, but not often enough yet to be confirmed."""
    TRACKED = 1
    """Seen in this frame and confirmed."""
    COASTING = 2
    """Not seen in this frame, position predicted from motion."""
    LOST = 3
    """Not seen for longer than the coasting time, kept in memory to be found again."""
    REMOVED = 4
    """Dropped from memory; its id is never used again. Sent once."""


InstancesT = TypeVar('InstancesT', bound='Instances')


def _empty_float() -> NDArray[np.float32]:
    return np.zeros(0, np.float32)


def _empty_int() -> NDArray[np.int64]:
    return np.zeros(0, np.int64)


@dataclass(frozen=True, eq=False)
class Instances:
    """
    A frame's worth of objects; row ``i`` of every field is the same object.

    Parameters
    ----------
    boxes : ndarray
        ``(N, 4)`` float32 xyxy, continuous pixel edges of the input image.
    scores : ndarray
        ``(N,)`` float32 confidence in ``[0, 1]``.
    class_ids : ndarray
        ``(N,)`` int64; -1 where the class is unknown (class-agnostic proposals).
    labels : tuple of str
        ``N`` class names; empty string where unknown.
    flags : ndarray
        ``(N,)`` uint8 of `Flag` bits.
    masks : tuple of RoiMask or None
        ``N`` masks; ``None`` for an object without one.
    mask_qualities : ndarray
        ``(N,)`` float32, the model's predicted IoU of its mask; NaN where unknown.
    embeddings : ndarray or None
        ``(N, D)`` float32 appearance vectors, not normalized; ``None`` before the model ran.
    detected_by : ndarray or None
        ``(N,)`` uint32, one bit for each upstream topic whose box went into the object; ``None``
        where no boxes came from topics.

    Raises
    ------
    ValueError
        If the fields do not have the same number of rows.

    """

    boxes: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    scores: NDArray[np.float32] = field(default_factory=_empty_float)
    class_ids: NDArray[np.int64] = field(default_factory=_empty_int)
    labels: tuple[str, ...] = ()
    flags: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))
    masks: tuple[RoiMask | None, ...] = ()
    mask_qualities: NDArray[np.float32] = field(default_factory=_empty_float)
    embeddings: NDArray[np.float32] | None = None
    detected_by: NDArray[np.uint32] | None = None

    def __post_init__(self) -> None:
        rows = len(self.boxes)
        for item in fields(self):
            value = getattr(self, item.name)
            if value is not None and len(value) != rows:
                raise ValueError(
                    f'instances have {rows} boxes but {len(value)} {item.name}; every field '
                    'must have one row per object')

    @classmethod
    def from_boxes(
        cls,
        boxes: ArrayLike,
        scores: ArrayLike | None = None,
        class_ids: ArrayLike | None = None,
        labels: Sequence[str] | None = None,
        flag: Flag = Flag.FROM_DETECTION,
    ) -> Instances:
        """
        Build instances that have boxes only; what is not given gets its neutral value.

        Parameters
        ----------
        boxes : array_like
            ``(N, 4)`` xyxy.
        scores : array_like, optional
            ``(N,)``; 1 when missing.
        class_ids : array_like, optional
            ``(N,)``; -1 when missing.
        labels : sequence of str, optional
            ``N`` names; empty when missing.
        flag : Flag
            Origin of the boxes.

        """
        array = as_boxes(boxes)
        rows = len(array)
        return Instances(
            boxes=array,
            scores=(np.ones(rows, np.float32) if scores is None
                    else np.asarray(scores, np.float32).reshape(-1)),
            class_ids=(np.full(rows, -1, np.int64) if class_ids is None
                       else np.asarray(class_ids, np.int64).reshape(-1)),
            labels=('',) * rows if labels is None else tuple(labels),
            flags=np.full(rows, int(flag), np.uint8),
            masks=(None,) * rows,
            mask_qualities=np.full(rows, np.nan, np.float32),
        )

    def __len__(self) -> int:
        return len(self.boxes)

    def select(self: InstancesT, rows: ArrayLike) -> InstancesT:
        """Return the rows given by an integer index or a bool mask, in that order."""
        index = np.asarray(rows)
        index = np.flatnonzero(index) if index.dtype == bool else index.astype(np.int64)
        listed = index.tolist()
        chosen: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, tuple):
                chosen[item.name] = tuple([value[row] for row in listed])
            elif value is not None:
                chosen[item.name] = value[index]
        return replace(self, **chosen)

    def with_fields(self: InstancesT, **changes: Any) -> InstancesT:
        """Return a copy with some fields replaced; row counts are checked again."""
        return replace(self, **changes)


@dataclass(frozen=True, eq=False)
class TrackedInstances(Instances):
    """
    Instances with identities: what the tracker returns for one frame.

    Rows with state ``COASTING``, ``LOST`` or ``REMOVED`` were not seen in this frame: their box
    is predicted or the last one, they have no mask, and their embedding is the track's memory.

    Parameters
    ----------
    track_ids : ndarray
        ``(N,)`` int64, from 1 in order of creation within a stream.
    uuids : tuple of bytes
        ``N`` 16-byte ids that are unique across streams, resets and runs.
    states : ndarray
        ``(N,)`` uint8 of `TrackState`.
    first_seen_ns, last_seen_ns : ndarray
        ``(N,)`` int64 acquisition stamps of the first and the newest frame that showed it.
    ages : ndarray
        ``(N,)`` int64 frames since the first one, the first frame being age 0.
    similarities : ndarray
        ``(N,)`` float32 score of the match that gave the id in this frame, in ``[0, 1]``; NaN
        for a new track and for one not seen.
    margins : ndarray
        ``(N,)`` float32 similarity minus that of the best other track for the same object;
        equal to the similarity where there was no other, NaN where the similarity is.

    """

    track_ids: NDArray[np.int64] = field(default_factory=_empty_int)
    uuids: tuple[bytes, ...] = ()
    states: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))
    first_seen_ns: NDArray[np.int64] = field(default_factory=_empty_int)
    last_seen_ns: NDArray[np.int64] = field(default_factory=_empty_int)
    ages: NDArray[np.int64] = field(default_factory=_empty_int)
    similarities: NDArray[np.float32] = field(default_factory=_empty_float)
    margins: NDArray[np.float32] = field(default_factory=_empty_float)

    @property
    def seen(self) -> NDArray[np.bool_]:
        """``(N,)`` bool: the object was observed in this frame (tentative or tracked)."""
        return np.asarray(self.states <= TrackState.TRACKED)
