"""
Trackers that people use today, behind one small protocol, to be measured beside ours.

SORT, ByteTrack, OC-SORT, BoT-SORT and C-BIoU come from the library `trackers` (Apache-2.0). The
greedy IoU and mask-IoU matchers, the plainest thing that works, and the appearance cascade after
DeepSORT are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from masa_ros.evaluation.datasets.sequence import with_ids
from masa_ros.structures.boxes import pairwise_iou
from masa_ros.structures.frame import Frame
from masa_ros.structures.instances import Instances, TrackedInstances
from masa_ros.structures.masks import RoiMask
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment


class SequenceTracker(Protocol):
    """Gives the objects of one sequence their identities, frame after frame."""

    def update(self, frame: Frame, instances: Instances) -> TrackedInstances:
        """
        Track one frame.

        Parameters
        ----------
        frame : Frame
            The image with its stamp; trackers without camera motion compensation ignore the
            pixels.
        instances : Instances
            Detections of the frame, with embeddings and masks where the run has them.

        Returns
        -------
        TrackedInstances
            The objects that got an id; boxes as they came in.

        """
        ...


TrackerFactory = Callable[[float], SequenceTracker]
"""Makes a tracker for one sequence, given its frame rate in hertz."""

_LIBRARY = {
    'sort': 'SORTTracker', 'bytetrack': 'ByteTrackTracker', 'ocsort': 'OCSORTTracker',
    'botsort': 'BoTSORTTracker', 'cbiou': 'CBIoUTracker',
}
BASELINES = (*_LIBRARY, 'iou', 'mask_iou', 'deepsort')


def build_baseline(
    name: str, rate_hz: float, options: Mapping[str, Any] | None = None,
) -> SequenceTracker:
    """
    Build a baseline for one sequence.

    Parameters
    ----------
    name : str
        One of `BASELINES`.
    rate_hz : float
        Rate of the frames it will see, after striding: the lost-track buffer of the library's
        trackers is counted in frames of 30 Hz and scaled by it, so that it lasts as long at
        every stride.
    options : mapping, optional
        Arguments of the tracker over its own defaults. ``use_stamps`` (bool) of the library's
        trackers predicts by the stamps of the frames instead of a fixed step.

    Raises
    ------
    ValueError
        If the name is unknown.
    ModuleNotFoundError
        If the library is not installed; the message says how to get it.

    """
    values = dict(options or {})
    if name in ('iou', 'mask_iou'):
        return GreedyIou(use_masks=name == 'mask_iou', **values)
    if name == 'deepsort':
        return AppearanceCascade(**values)
    if name not in _LIBRARY:
        raise ValueError(f'unknown baseline {name!r}; known ones are {", ".join(BASELINES)}')
    return LibraryTracker(name, rate_hz, **values)


class LibraryTracker:
    """
    A tracker of the library `trackers`.

    Parameters
    ----------
    name : str
        ``sort``, ``bytetrack``, ``ocsort``, ``botsort`` or ``cbiou``.
    rate_hz : float
        Rate of the frames it will see.
    use_stamps : bool
        Hand the stamps over: motion is then predicted over the real time between frames, in
        units of ``1 / reference_rate_hz``.
    reference_rate_hz : float
        Rate the motion model was tuned for; only with `use_stamps`.
    **options
        Passed on.

    """

    def __init__(
        self, name: str, rate_hz: float, *, use_stamps: bool = False,
        reference_rate_hz: float = 30.0, **options: Any,
    ) -> None:
        try:
            import supervision
            import trackers
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f'the baseline {name} needs the library {error.name}; install it with '
                "pip install 'masa_ros[evaluate]'", name=error.name) from error
        self._detections = supervision.Detections
        self._tracker = getattr(trackers, _LIBRARY[name])(
            frame_rate=reference_rate_hz if use_stamps else rate_hz, **options)
        self._uses_image = name == 'botsort'
        self._use_stamps = use_stamps

    def update(self, frame: Frame, instances: Instances) -> TrackedInstances:
        """Track one frame; see `SequenceTracker.update`."""
        arguments: dict[str, Any] = {}
        if self._uses_image:
            # The library expects OpenCV's channel order.
            arguments['frame'] = np.ascontiguousarray(frame.image[:, :, ::-1])
        if self._use_stamps:
            arguments['timestamp'] = frame.stamp_ns * 1e-9
        rows = np.arange(len(instances))
        result = self._tracker.update(
            self._detections(
                xyxy=instances.boxes.astype(np.float64).reshape(-1, 4),
                confidence=instances.scores.astype(np.float32),
                class_id=instances.class_ids, data={'row': rows}), **arguments)
        if not len(result):
            return with_ids(instances.select(rows[:0]), [])
        ids = np.asarray(result.tracker_id, np.int64)
        chosen = np.asarray(result.data['row'], np.int64)[ids >= 0]
        order = np.argsort(chosen)
        return with_ids(instances.select(chosen[order]), ids[ids >= 0][order] + 1)


class GreedyIou:
    """
    Each detection, best score first, takes the free track it overlaps most.

    Parameters
    ----------
    use_masks : bool
        Overlap of masks instead of boxes; boxes where an object has no mask.
    minimum_iou : float
        Overlap that a match needs.
    memory_seconds : float
        A track is dropped when it was not seen for longer.
    minimum_score : float
        Detections below start no track.

    """

    def __init__(
        self, *, use_masks: bool = False, minimum_iou: float = 0.3, memory_seconds: float = 1.0,
        minimum_score: float = 0.0,
    ) -> None:
        self._use_masks = use_masks
        self._minimum_iou = minimum_iou
        self._memory_ns = round(memory_seconds * 1e9)
        self._minimum_score = minimum_score
        self._boxes = np.zeros((0, 4), np.float32)
        self._masks: list[RoiMask | None] = []
        self._ids = np.zeros(0, np.int64)
        self._seen_ns = np.zeros(0, np.int64)
        self._next_id = 1

    def update(self, frame: Frame, instances: Instances) -> TrackedInstances:
        """Track one frame; see `SequenceTracker.update`."""
        self._keep(frame.stamp_ns - self._seen_ns <= self._memory_ns)
        overlap = self._overlap(instances)
        ids = np.full(len(instances), -1, np.int64)
        free = np.ones(len(self._ids), bool)
        for row in np.argsort(-instances.scores, kind='stable'):
            values = np.where(free, overlap[row], -1)
            track = int(values.argmax()) if len(values) else -1
            if track >= 0 and values[track] >= self._minimum_iou:
                free[track] = False
                ids[row] = self._ids[track]
                self._boxes[track] = instances.boxes[row]
                self._masks[track] = instances.masks[row]
                self._seen_ns[track] = frame.stamp_ns
        new = np.flatnonzero((ids < 0) & (instances.scores >= self._minimum_score))
        ids[new] = np.arange(self._next_id, self._next_id + len(new))
        self._next_id += len(new)
        self._boxes = np.concatenate([self._boxes, instances.boxes[new]])
        self._masks += [instances.masks[row] for row in new]
        self._ids = np.concatenate([self._ids, ids[new]])
        self._seen_ns = np.concatenate(
            [self._seen_ns, np.full(len(new), frame.stamp_ns, np.int64)])
        return with_ids(instances.select(ids >= 0), ids[ids >= 0])

    def _keep(self, kept: NDArray[np.bool_]) -> None:
        self._boxes, self._ids = self._boxes[kept], self._ids[kept]
        self._seen_ns = self._seen_ns[kept]
        self._masks = [mask for mask, keep in zip(self._masks, kept, strict=True) if keep]

    def _overlap(self, instances: Instances) -> NDArray[np.float32]:
        overlap = pairwise_iou(instances.boxes, self._boxes)
        if not self._use_masks:
            return overlap
        for row, track in zip(*np.nonzero(overlap > 0), strict=True):
            first, second = instances.masks[row], self._masks[track]
            if first is not None and second is not None:
                overlap[row, track] = mask_iou(first, second)
        return overlap


@dataclass
class _Track:
    """What the cascade remembers of one object."""

    track_id: int
    box: NDArray[np.float32]
    velocity: NDArray[np.float64]
    seen_ns: int
    hits: int
    embeddings: list[NDArray[np.float32]]


class AppearanceCascade:
    """
    After DeepSORT: appearance within a motion gate, most recently seen tracks first, then IoU.

    The appearance distance of a track is the smallest cosine distance to its last embeddings.
    The motion gate is on the distance of the centre from where constant velocity puts it, in
    units of the box, instead of a Kalman filter's Mahalanobis distance, so that it needs no frame
    rate. Without embeddings only the IoU stage is left.

    Parameters
    ----------
    max_cosine_distance : float
        Largest appearance distance of a match.
    gate : float
        Largest motion error of a match in box diagonals, growing with the square root of the gap.
    minimum_iou : float
        Overlap that a match of the second stage needs.
    budget : int
        Embeddings kept of a track.
    memory_seconds : float
        A track is dropped when it was not seen for longer.
    minimum_score : float
        Detections below are not used.
    confirm_hits : int
        Sightings before a track has an id.

    References
    ----------
    Wojke et al., Simple Online and Realtime Tracking with a Deep Association Metric, ICIP 2017.

    """

    def __init__(
        self, *, max_cosine_distance: float = 0.2, gate: float = 1.0, minimum_iou: float = 0.3,
        budget: int = 100, memory_seconds: float = 1.0, minimum_score: float = 0.3,
        confirm_hits: int = 3,
    ) -> None:
        self._max_distance = max_cosine_distance
        self._gate = gate
        self._minimum_iou = minimum_iou
        self._budget = budget
        self._memory_ns = round(memory_seconds * 1e9)
        self._minimum_score = minimum_score
        self._confirm_hits = confirm_hits
        self._tracks: list[_Track] = []
        self._next_id = 1
        self._last_ns = 0
        self._started = False

    def update(self, frame: Frame, instances: Instances) -> TrackedInstances:
        """Track one frame; see `SequenceTracker.update`."""
        now = frame.stamp_ns
        step_ns = max(now - self._last_ns, 1)
        self._tracks = [track for track in self._tracks if now - track.seen_ns
                        <= max(self._memory_ns, step_ns)]
        rows = np.flatnonzero(instances.scores >= self._minimum_score)
        used = instances.select(rows)
        unit = None if used.embeddings is None else _unit(used.embeddings)
        matched: dict[int, int] = {}
        # Younger gaps first, as their position is known best.
        for seen_ns in sorted({track.seen_ns for track in self._tracks}, reverse=True):
            level = [i for i, track in enumerate(self._tracks) if track.seen_ns == seen_ns
                     and track.hits >= self._confirm_hits]
            self._assign(level, self._appearance(level, used, unit, now, step_ns), matched)
        level = [i for i, track in enumerate(self._tracks)
                 if i not in matched.values() and track.seen_ns == self._last_ns]
        overlap = pairwise_iou(used.boxes, np.array(
            [self._tracks[i].box for i in level], np.float32).reshape(-1, 4))
        self._assign(level, np.where(overlap >= self._minimum_iou, overlap, 0), matched)
        ids = self._renew(used, unit, matched, now)
        self._last_ns, self._started = now, True
        return with_ids(used.select(ids > 0), ids[ids > 0])

    def _appearance(
        self, level: list[int], used: Instances, unit: NDArray[np.float32] | None, now: int,
        step_ns: int,
    ) -> NDArray[np.float64]:
        """``(N, len(level))`` 1 minus cosine distance inside the gates, 0 outside."""
        gain = np.zeros((len(used), len(level)))
        if unit is None or not len(used):
            return gain
        centers = (used.boxes[:, :2] + used.boxes[:, 2:]) / 2
        for column, index in enumerate(level):
            track = self._tracks[index]
            if not track.embeddings:
                continue
            distance = 1 - (unit @ np.stack(track.embeddings).T).max(axis=1)
            gap_s = (now - track.seen_ns) * 1e-9
            expected = (track.box[:2] + track.box[2:]) / 2 + track.velocity * gap_s
            error = np.linalg.norm(centers - expected, axis=1) / max(
                float(np.linalg.norm(track.box[2:] - track.box[:2])), 1.0)
            allowed = self._gate * np.sqrt((now - track.seen_ns) / step_ns)
            near = (distance <= self._max_distance) & (error <= allowed)
            gain[:, column] = np.where(near, 1 - distance, 0)
        return gain

    @staticmethod
    def _assign(level: list[int], gain: NDArray[Any], matched: dict[int, int]) -> None:
        """Add the best pairs of free detections with the tracks of a level."""
        free = [row for row in range(len(gain)) if row not in matched]
        rows, columns = linear_sum_assignment(gain[free], maximize=True)
        for row, column in zip(rows, columns, strict=True):
            if gain[free[row], column] > 0:
                matched[free[row]] = level[column]

    def _renew(
        self, used: Instances, unit: NDArray[np.float32] | None, matched: dict[int, int],
        now: int,
    ) -> NDArray[np.int64]:
        """Bring tracks up to date and start new ones; ids of the detections, 0 for none."""
        ids = np.zeros(len(used), np.int64)
        for row in range(len(used)):
            box = used.boxes[row]
            if row in matched:
                track = self._tracks[matched[row]]
                moved = (box[:2] + box[2:] - track.box[:2] - track.box[2:]) / 2
                speed = moved / max((now - track.seen_ns) * 1e-9, 1e-9)
                track.velocity = speed if track.hits == 1 else (track.velocity + speed) / 2
                track.box, track.seen_ns, track.hits = box, now, track.hits + 1
            else:
                track = _Track(0, box, np.zeros(2), now, 1, [])
                self._tracks.append(track)
            if unit is not None:
                track.embeddings = [*track.embeddings, unit[row]][-self._budget:]
            # At the start nothing can confirm an object yet.
            if not track.track_id and (track.hits >= self._confirm_hits or not self._started):
                track.track_id = self._next_id
                self._next_id += 1
            ids[row] = track.track_id
        # An unconfirmed track that is missed once is gone.
        self._tracks = [track for track in self._tracks
                        if track.hits >= self._confirm_hits or track.seen_ns == now]
        return ids


def _unit(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return np.asarray(np.nan_to_num(embeddings) / np.maximum(lengths, 1e-12), np.float32)


def mask_iou(first: RoiMask, second: RoiMask) -> float:
    """Intersection over union of two masks; 0 where both are empty."""
    x0, y0 = max(first.x_offset, second.x_offset), max(first.y_offset, second.y_offset)
    x1 = min(first.x_offset + first.width, second.x_offset + second.width)
    y1 = min(first.y_offset + first.height, second.y_offset + second.height)
    common = 0
    if x1 > x0 and y1 > y0:
        crops = [mask.decode()[y0 - mask.y_offset:y1 - mask.y_offset,
                               x0 - mask.x_offset:x1 - mask.x_offset]
                 for mask in (first, second)]
        common = int(np.count_nonzero(crops[0] & crops[1]))
    union = first.area + second.area - common
    return common / union if union else 0.0
