"""
Objects that were asked for: by a box, by points on them, or by a mask.

`PromptedObjects` belongs to a pipeline. It keeps the newest frames of each stream, so that a
prompt finds the image it was made on, and it looks after objects that no detector finds: each is
followed by its pixels, and the embedding decides whether it is really there.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from masa_ros.models.model import Model
from masa_ros.regions import Regions
from masa_ros.structures.boxes import clip_boxes, pairwise_iou, valid_boxes
from masa_ros.structures.frame import Frame
from masa_ros.structures.instances import Flag, Instances, TrackedInstances
from masa_ros.structures.masks import RoiMask
from masa_ros.structures.settings import setting
from masa_ros.tracking.follow import find_picture, follow_box, picture_of, snap_to_picture
from masa_ros.tracking.tracker import Tracker
import numpy as np
from numpy.typing import NDArray

# A prompted box that overlaps a known object this much means that object.
SAME_OBJECT_IOU = 0.6
# A detection that overlaps a followed box this much is the object.
DETECTED_IOU = 0.4
# Known objects segmented along with a new one: embeddings may depend on who else is there.
MOST_COMPANY = 50
SMALLEST_SIDE_PX = 2.0
NO_IMAGE = ('no image has been processed yet; wait for the first one (and look at /diagnostics '
            'if none comes)')


@dataclass(frozen=True)
class PromptsConfig:
    """How objects that were asked for are found and kept."""

    frames: int = setting(
        5, 'Newest images of each camera that are kept for prompts that name one of them by its '
        'stamp (6 MB each at 1080p).', minimum=1, maximum=100, dynamic=True)
    max_objects: int = setting(
        50, 'Most objects per camera that can be asked for; each costs time in every image that '
        'nothing else finds it in.', minimum=0, maximum=1000, dynamic=True)
    rectified: bool = setting(
        False, 'Whether the images are rectified: clicked points of space then go through the '
        'projection matrix of camera_info, otherwise through its camera matrix and distortion.',
        dynamic=True)
    follow: bool = setting(
        True, 'Follow an object that was asked for by its pixels where no detection or proposal '
        'shows it, and look for it in the image when it was lost; its embedding decides whether '
        'it is there (with tracker.similarity evidence only).', dynamic=True)


@dataclass(frozen=True, eq=False)
class Prompt:
    """
    What is pointed at; exactly one of box, points and mask.

    Parameters
    ----------
    stamp_ns : int
        Stamp of the image that it was made on; 0 for the newest.
    box : ndarray or None
        ``(4,)`` xyxy in pixels.
    points : ndarray or None
        ``(K, 2)`` pixels.
    on_object : ndarray or None
        ``(K,)`` bool, whether each point is on the object or beside it; all when missing.
    mask : ndarray or None
        ``(H, W)`` bool of the image's size.
    label : str
        Name for the object.

    Raises
    ------
    ValueError
        If it does not say what is meant.

    """

    stamp_ns: int = 0
    box: NDArray[np.float64] | None = None
    points: NDArray[np.float64] | None = None
    on_object: NDArray[np.bool_] | None = None
    mask: NDArray[np.bool_] | None = None
    label: str = ''

    def __post_init__(self) -> None:
        given = [name for name in ('box', 'points', 'mask') if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f'{" and ".join(given) or "nothing"} was given, expected a box, '
                             'points or a mask')
        if self.box is not None:
            _check_box(self.box)
        if self.points is not None:
            _check_points(self.points, self.on_object)
        if self.mask is not None and not self.mask.any():
            raise ValueError('the mask is empty, expected a pixel of the object that is not 0')

    @property
    def positive(self) -> NDArray[np.bool_]:
        """``(K,)`` bool, which points are on the object."""
        count = 0 if self.points is None else len(self.points)
        return np.ones(count, bool) if self.on_object is None else self.on_object

    def check_size(self, height_px: int, width_px: int) -> None:
        """
        Check it against the image that it was made on.

        Raises
        ------
        ValueError
            If it is not in the image.

        """
        where = f'the image, which is {width_px} x {height_px} pixels'
        if self.box is not None:
            inside = clip_boxes(self.box[None].astype(np.float32), height_px, width_px)[0]
            if (inside[2:] - inside[:2]).min() < SMALLEST_SIDE_PX:
                raise ValueError(f'the box {_numbers(self.box)} has less than '
                                 f'{SMALLEST_SIDE_PX:.0f} pixels inside {where}')
        if self.points is not None:
            for x, y in self.points.tolist():
                if not (0 <= x < width_px and 0 <= y < height_px):
                    raise ValueError(f'the point ({x:g}, {y:g}) is outside {where}')
        if self.mask is not None and self.mask.shape != (height_px, width_px):
            raise ValueError(f'the mask is {self.mask.shape[1]} x {self.mask.shape[0]} pixels, '
                             f'expected the size of {where}')


def _check_box(box: NDArray[np.float64]) -> None:
    if box.shape != (4,):
        raise ValueError(f'the box has {box.size} numbers, expected left, top, right and bottom')
    if not np.isfinite(box).all():
        raise ValueError(f'the box is {_numbers(box)}, expected finite pixel coordinates')
    if (box[2:] - box[:2]).min() < SMALLEST_SIDE_PX:
        raise ValueError(f'the box is {_numbers(box)}, expected left, top, right and bottom with '
                         f'at least {SMALLEST_SIDE_PX:.0f} pixels between them')


def _check_points(points: NDArray[np.float64], on_object: NDArray[np.bool_] | None) -> None:
    if points.ndim != 2 or points.shape[1] != 2 or not len(points):
        raise ValueError(f'the points have shape {points.shape}, expected x and y of each')
    if not np.isfinite(points).all():
        raise ValueError('a point is not finite, expected pixel coordinates')
    if on_object is not None and len(on_object) != len(points):
        raise ValueError(f'{len(points)} points have {len(on_object)} labels, expected one for '
                         'each, or none at all')
    if on_object is not None and not on_object.any():
        raise ValueError('all points are beside the object, expected one on it (label 1)')


def _numbers(values: NDArray[np.float64]) -> str:
    return '[' + ', '.join(f'{value:g}' for value in values.tolist()) + ']'


@dataclass(frozen=True)
class Added:
    """
    Answer to a prompt.

    Parameters
    ----------
    track_id : int
        Id of the object.
    uuid : bytes
        Its 16-byte UUID.
    box : ndarray
        ``(4,)`` where it was in the prompt's image.
    message : str
        What was done.

    """

    track_id: int
    uuid: bytes
    box: NDArray[np.float32]
    message: str


@dataclass(frozen=True)
class Wanted:
    """
    Places where objects that were asked for may be in a frame.

    Parameters
    ----------
    track_ids : ndarray
        ``(K,)`` int64.
    instances : Instances
        Their boxes.

    """

    track_ids: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    instances: Instances = field(default_factory=Instances)

    def __len__(self) -> int:
        return len(self.track_ids)

    def without(self, boxes: NDArray[np.float32]) -> Wanted:
        """Leave out those that a detection shows."""
        overlap = pairwise_iou(self.instances.boxes, boxes).max(axis=1, initial=0)
        free = overlap < DETECTED_IOU
        return Wanted(self.track_ids[free], self.instances.select(free))


class PromptedObjects:
    """
    What a pipeline knows for its prompts; used from one thread.

    Parameters
    ----------
    config : PromptsConfig
        Settings; may be replaced at any time.

    """

    def __init__(self, config: PromptsConfig) -> None:
        self.config = config
        self._seen: dict[str, deque[tuple[Frame, TrackedInstances]]] = {}
        self._pictures: dict[tuple[str, int], NDArray[np.uint8]] = {}
        self._searched: dict[str, int] = {}

    # --- prompts --------------------------------------------------------------------------------

    def add(
        self, stream: str, prompt: Prompt, model: Model, tracker: Tracker | None,
        regions: Regions,
    ) -> Added:
        """
        Track what a prompt points at, from now on.

        Raises
        ------
        ValueError
            If it cannot be done; the text says why and what to do instead.

        """
        frame, tracks, note = self._frame(stream, prompt.stamp_ns)
        if tracker is None:
            raise ValueError(NO_IMAGE)
        prompt.check_size(frame.height_px, frame.width_px)
        self._check_regions(prompt, frame, regions)
        if tracker.num_pinned() >= self.config.max_objects:
            raise ValueError(f'{tracker.num_pinned()} objects were asked for already, which is '
                             'the most (prompts.max_objects); remove one first')
        seen = tracks.select(tracks.seen)
        seen = seen.select(np.isin(seen.track_ids, tracker.known().track_ids))
        found = _find(prompt, frame, seen, model)
        row = _known_as(prompt, found, seen)
        if row is not None:
            track_id = int(seen.track_ids[row])
            tracker.pin(track_id, prompt.label)
            self._remember(stream, frame, track_id, seen.boxes[row])
            return Added(track_id, seen.uuids[row], seen.boxes[row],
                         f'object {track_id} is tracked already and is kept from now on{note}')
        described = _describe(found, frame, seen, model)
        track_id = tracker.add(described, frame.frame_index, frame.stamp_ns, prompt.label)
        self._remember(stream, frame, track_id, described.boxes[0])
        known = tracker.known()
        uuid = known.uuids[known.track_ids.tolist().index(track_id)]
        return Added(track_id, uuid, described.boxes[0],
                     f'object {track_id} is tracked from now on{note}')

    def image(self, stream: str, stamp_ns: int) -> Frame:
        """Image that a prompt with some stamp goes to."""
        return self._frame(stream, stamp_ns)[0]

    def _frame(self, stream: str, stamp_ns: int) -> tuple[Frame, TrackedInstances, str]:
        """Frame of a stamp, or the newest one and a note about it."""
        seen = self._seen.get(stream)
        if not seen:
            raise ValueError(NO_IMAGE)
        for frame, tracks in seen:
            if frame.stamp_ns == stamp_ns:
                return frame, tracks, ''
        note = ' (its image is not known any more, the newest one was taken)' if stamp_ns else ''
        return (*seen[-1], note)

    @staticmethod
    def _check_regions(prompt: Prompt, frame: Frame, regions: Regions) -> None:
        if not regions:
            return
        area = regions.area(frame.height_px, frame.width_px)
        if prompt.points is not None:
            where = prompt.points[prompt.positive]
        elif prompt.mask is not None:
            where = _middle(prompt.mask)[None]
        else:
            assert prompt.box is not None  # One of the three is given, as a Prompt checks.
            where = (prompt.box[None, :2] + prompt.box[None, 2:]) / 2
        for x, y in where.tolist():
            if area.contains(x, y):
                raise ValueError(f'({x:g}, {y:g}) is in the ignored part of the image (regions)')

    def _remember(
        self, stream: str, frame: Frame, track_id: int, box: NDArray[np.float32],
    ) -> None:
        picture = picture_of(frame.image, box)
        if picture is not None:
            self._pictures[stream, track_id] = picture

    def forget(self, stream: str, track_id: int | None = None) -> None:
        """Forget one object of a stream, or everything about it (its tracker starts anew)."""
        if track_id is None:
            self._seen.pop(stream, None)
        for key in [key for key in self._pictures
                    if key[0] == stream and track_id in (None, key[1])]:
            del self._pictures[key]

    # --- frame by frame -------------------------------------------------------------------------

    def look_for(self, frame: Frame, tracker: Tracker | None) -> Wanted:
        """Places in a new frame where objects that were asked for may be."""
        if tracker is None or not self.config.follow or not tracker.num_pinned():
            return Wanted()
        seen = self._seen.get(frame.stream)
        if not seen:
            return Wanted()
        before, tracks = seen[-1]
        rows = {track_id: row for row, track_id in enumerate(tracks.track_ids.tolist())}
        ids, predicted = tracker.pinned(frame.stamp_ns)
        places = []
        for track_id, guess in zip(ids.tolist(), predicted, strict=True):
            picture = self._pictures.get((frame.stream, track_id))
            box = None
            if track_id in rows and tracks.seen[rows[track_id]]:
                box = follow_box(before.image, frame.image, tracks.boxes[rows[track_id]])
            if box is None:
                box = guess
            places.append(box if picture is None else snap_to_picture(frame.image, box, picture))
        lost = self._search(frame, tracker, set(ids.tolist()))
        if lost is not None:
            ids = np.append(ids, lost[0])
            places.append(lost[1])
        if not places:
            return Wanted()
        boxes = np.stack(places).astype(np.float32)
        usable = valid_boxes(boxes, frame.height_px, frame.width_px)
        centers = (boxes[:, :2] + boxes[:, 2:]) / 2
        usable &= ((centers >= 0) & (centers < (frame.width_px, frame.height_px))).all(axis=1)
        return self._wanted(tracker, ids[usable], boxes[usable])

    def _search(
        self, frame: Frame, tracker: Tracker, live: set[int],
    ) -> tuple[int, NDArray[np.float32]] | None:
        """Look for one of the lost objects, another one in every frame."""
        lost = sorted(track_id for stream, track_id in self._pictures
                      if stream == frame.stream and track_id not in live)
        if not lost:
            return None
        turn = self._searched.get(frame.stream, 0)
        self._searched[frame.stream] = turn + 1
        track_id = lost[turn % len(lost)]
        box = find_picture(frame.image, self._pictures[frame.stream, track_id])
        return None if box is None else (track_id, box)

    @staticmethod
    def _wanted(
        tracker: Tracker, ids: NDArray[np.int64], boxes: NDArray[np.float32],
    ) -> Wanted:
        known = tracker.known()
        rows = {track_id: row for row, track_id in enumerate(known.track_ids.tolist())}
        there = np.array([track_id in rows for track_id in ids.tolist()], bool)
        at = [rows[track_id] for track_id in ids[there].tolist()]
        return Wanted(ids[there], Instances.from_boxes(
            boxes[there], known.scores[at], known.class_ids[at],
            [known.labels[row] for row in at], flag=Flag.NONE))

    def done(self, frame: Frame, tracks: TrackedInstances) -> None:
        """Keep a frame and what was seen in it."""
        seen = self._seen.setdefault(frame.stream, deque())
        seen.append((frame, tracks))
        while len(seen) > self.config.frames:
            seen.popleft()
        prompted = tracks.flags & np.uint8(Flag.PROMPTED) != 0
        if not prompted.any():
            return
        detected = tracks.flags & np.uint8(Flag.FROM_DETECTION | Flag.FROM_PROPOSAL) != 0
        for row in np.flatnonzero(prompted & detected & tracks.seen).tolist():
            self._remember(frame.stream, frame, int(tracks.track_ids[row]), tracks.boxes[row])


# --- what a prompt means ------------------------------------------------------------------------


def _find(prompt: Prompt, frame: Frame, seen: TrackedInstances, model: Model) -> Instances:
    """Object that a prompt points at, one row: a box, perhaps with a mask."""
    if prompt.box is not None:
        box = clip_boxes(prompt.box[None].astype(np.float32), frame.height_px, frame.width_px)
        return Instances.from_boxes(box, labels=[prompt.label], flag=Flag.NONE)
    if prompt.mask is not None:
        rows, columns = np.flatnonzero(prompt.mask.any(1)), np.flatnonzero(prompt.mask.any(0))
        box = np.array([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]], np.float32)
        return Instances.from_boxes(box, labels=[prompt.label], flag=Flag.NONE)
    points, positive = prompt.points, prompt.positive
    assert points is not None  # One of the three is given, as a Prompt checks.
    segment: Any = getattr(model, 'segment_points', None)
    cut_out: Instances | None = None
    if segment is not None:
        cut_out = segment(frame.image, points.astype(np.float32), positive)
    if cut_out is not None and len(cut_out):
        return cut_out
    row = _smallest_around(seen, points, positive)
    if row is not None:
        return seen.select([row])
    if model.can_propose and cut_out is None:
        proposals = model.run([frame.image], [None])[0]
        row = _smallest_around(proposals, points, positive)
        if row is not None:
            return proposals.select([row])
    x, y = points[positive][0].tolist()
    raise ValueError(
        f'nothing that was found in the image contains the point ({x:g}, {y:g})'
        + (' and leaves the others out' if len(points) > 1 else '')
        + f'; the model {model.name} cannot tell an object from a point alone, so give a box')


def _smallest_around(
    found: Instances, points: NDArray[np.float64], positive: NDArray[np.bool_],
) -> int | None:
    """Row of the smallest object with all points on it and none of those beside it."""
    best: tuple[float, int] | None = None
    for row in range(len(found)):
        mask = found.masks[row]
        inside = np.array([_contains(found.boxes[row], mask, x, y) for x, y in points.tolist()])
        if (inside != positive).any():
            continue
        sides = found.boxes[row, 2:] - found.boxes[row, :2]
        area = float(mask.area if mask is not None else sides[0] * sides[1])
        if best is None or area < best[0]:
            best = area, row
    return None if best is None else best[1]


def _contains(box: NDArray[np.float32], mask: RoiMask | None, x: float, y: float) -> bool:
    if mask is None:
        return bool(box[0] <= x < box[2] and box[1] <= y < box[3])
    column, row = int(x) - mask.x_offset, int(y) - mask.y_offset
    if not (0 <= column < mask.width and 0 <= row < mask.height):
        return False
    return bool(mask.decode()[row, column])


def _known_as(prompt: Prompt, found: Instances, seen: TrackedInstances) -> int | None:
    """Row of the tracked object that a prompt means, if it is one."""
    if isinstance(found, TrackedInstances):
        return int(np.flatnonzero(seen.track_ids == found.track_ids[0])[0])
    overlaps = pairwise_iou(found.boxes, seen.boxes)[0]
    if not len(overlaps) or float(overlaps.max()) < SAME_OBJECT_IOU:
        return None
    return int(overlaps.argmax())


def _describe(
    found: Instances, frame: Frame, seen: TrackedInstances, model: Model,
) -> Instances:
    """Object with embedding, described among the others in its image."""
    company = seen.select(np.argsort(-seen.scores, kind='stable')[:MOST_COMPANY])
    boxes = np.concatenate([company.boxes, found.boxes])
    asked = Instances.from_boxes(boxes, np.concatenate([company.scores, found.scores]))
    usable = valid_boxes(boxes, frame.height_px, frame.width_px)
    described = model.run([frame.image], [asked.select(usable)])[0]
    last = described.select([len(described) - 1])
    return found.with_fields(embeddings=last.embeddings)


def _middle(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Pixel of a mask that is nearest to its centre."""
    rows, columns = np.nonzero(mask)
    distances = (rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2
    nearest = int(distances.argmin())
    return np.array([columns[nearest] + 0.5, rows[nearest] + 0.5])


def concatenated(first: Instances, more: Instances) -> Instances:
    """Put further objects behind detections; what the model fills in is left out."""
    detected_by = None
    if first.detected_by is not None:
        detected_by = np.concatenate([first.detected_by, np.zeros(len(more), np.uint32)])
    return Instances(
        boxes=np.concatenate([first.boxes, more.boxes]),
        scores=np.concatenate([first.scores, more.scores]),
        class_ids=np.concatenate([first.class_ids, more.class_ids]),
        labels=(*first.labels, *more.labels),
        flags=np.concatenate([first.flags, more.flags]),
        masks=(*first.masks, *more.masks),
        mask_qualities=np.concatenate([first.mask_qualities, more.mask_qualities]),
        detected_by=detected_by)
