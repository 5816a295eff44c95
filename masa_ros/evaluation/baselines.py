"""
Trackers that people use today, behind one small protocol, to be measured beside ours.

SORT, ByteTrack, OC-SORT, BoT-SORT and C-BIoU come from the library `trackers` (Apache-2.0);
the greedy IoU and mask-IoU matchers are the plainest thing that works and are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from masa_ros.evaluation.datasets.sequence import with_ids
from masa_ros.structures.boxes import pairwise_iou
from masa_ros.structures.frame import Frame
from masa_ros.structures.instances import Instances, TrackedInstances
from masa_ros.structures.masks import RoiMask
import numpy as np
from numpy.typing import NDArray


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
BASELINES = (*_LIBRARY, 'iou', 'mask_iou')


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
