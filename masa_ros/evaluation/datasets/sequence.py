"""One annotated image sequence, whatever data set it came from."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
from masa_ros.structures.boxes import as_boxes
from masa_ros.structures.frame import CameraView, Frame
from masa_ros.structures.instances import Instances, TrackedInstances, TrackState
from masa_ros.structures.masks import RoiMask
import numpy as np
from numpy.typing import ArrayLike, NDArray

_PER_FRAME = ('image_paths', 'truth', 'ignored', 'distractors', 'detections', 'views', 'hard',
              'ignored_masks')


def with_ids(instances: Instances, track_ids: ArrayLike) -> TrackedInstances:
    """
    Give instances track ids and nothing else: a ground truth, or what a foreign tracker said.

    Parameters
    ----------
    instances : Instances
        Objects of one frame.
    track_ids : array_like
        ``(N,)`` whole numbers.

    Returns
    -------
    TrackedInstances
        State ``TRACKED``, unknown similarities, zero times and UUIDs.

    """
    rows = len(instances)
    zeros = np.zeros(rows, np.int64)
    nan = np.full(rows, np.nan, np.float32)
    return TrackedInstances(
        boxes=instances.boxes, scores=instances.scores, class_ids=instances.class_ids,
        labels=instances.labels, flags=instances.flags, masks=instances.masks,
        mask_qualities=instances.mask_qualities, embeddings=instances.embeddings,
        track_ids=np.asarray(track_ids, np.int64).reshape(-1), uuids=(bytes(16),) * rows,
        states=np.full(rows, int(TrackState.TRACKED), np.uint8), first_seen_ns=zeros,
        last_seen_ns=zeros, ages=zeros, similarities=nan, margins=nan)


@dataclass(frozen=True, eq=False)
class Sequence:
    """
    Frames in order with what is known about them.

    Parameters
    ----------
    name : str
        Unique within a data set.
    frame_indices : ndarray
        ``(T,)`` positions in the recording, from 0, growing.
    stamps_ns : ndarray
        ``(T,)`` acquisition times, growing.
    rate_hz : float
        Frame rate of the recording; strides divide it.
    image_paths : tuple of Path or None
        Image of each frame; empty when the images are not there (scoring needs none).
    height_px, width_px : int
        Size of the images; 0 where unknown.
    truth : tuple of TrackedInstances
        Annotated objects of each frame.
    ignored : tuple of ndarray
        ``(K, 4)`` regions of each frame in which nothing counts as false; empty for none.
    distractors : tuple of ndarray
        ``(K, 4)`` boxes of each frame that are neither right nor wrong: what matches one
        better than the truth is not scored; empty for none.
    detections : tuple of Instances
        Given detections of each frame; empty where the data set has none.
    views : tuple of CameraView or None
        Which way the camera looked at each frame, ``None`` where that is not known; empty where
        nothing tells.
    annotated : ndarray
        ``(T,)`` bool: the frame was annotated, so that it counts in the score.
    not_exhaustive : frozenset of int
        Classes of which some objects may be missing from the annotation.
    absent : frozenset of int
        Classes that annotators checked are not there; empty where that is not recorded.
    hard : tuple of ndarray
        ``(N,)`` bool for the truth of each frame: too far cut off or covered to be asked for, so
        neither found nor missed; empty for none.
    ignored_masks : tuple of tuple of RoiMask
        The regions of ``ignored`` exactly, for scores by masks; empty where they are boxes.
    alike : mapping of int to tuple of int
        For a class, others whose objects are neither right nor wrong where it is scored alone.
    least_height_px : float
        What is reported not higher than this and matches nothing does not count as false.

    Raises
    ------
    ValueError
        If the lists do not have one entry per frame.

    """

    name: str
    frame_indices: NDArray[np.int64]
    stamps_ns: NDArray[np.int64]
    rate_hz: float
    image_paths: tuple[Path, ...] = ()
    height_px: int = 0
    width_px: int = 0
    truth: tuple[TrackedInstances, ...] = ()
    ignored: tuple[NDArray[np.float32], ...] = ()
    distractors: tuple[NDArray[np.float32], ...] = ()
    detections: tuple[Instances, ...] = ()
    views: tuple[CameraView | None, ...] = ()
    annotated: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))
    not_exhaustive: frozenset[int] = frozenset()
    absent: frozenset[int] = frozenset()
    hard: tuple[NDArray[np.bool_], ...] = ()
    ignored_masks: tuple[tuple[RoiMask, ...], ...] = ()
    alike: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    least_height_px: float = 0.0

    def __post_init__(self) -> None:
        frames = len(self.frame_indices)
        if not len(self.annotated):
            object.__setattr__(self, 'annotated', np.ones(frames, bool))
        for name in ('stamps_ns', 'annotated', *_PER_FRAME):
            count = len(getattr(self, name))
            if count not in (0, frames) or (name == 'stamps_ns' and count != frames):
                raise ValueError(f'sequence {self.name} has {frames} frames but {count} {name}, '
                                 'expected one per frame')
        if frames > 1 and not (np.diff(self.stamps_ns) > 0).all():
            row = int(np.flatnonzero(np.diff(self.stamps_ns) <= 0)[0])
            raise ValueError(
                f'sequence {self.name}: frame {self.frame_indices[row + 1]} has stamp '
                f'{self.stamps_ns[row + 1]} ns after {self.stamps_ns[row]} ns, expected stamps '
                'to grow; sort the frames by time and leave repeated ones out')

    def __len__(self) -> int:
        return len(self.frame_indices)

    def select_truth(self, rows: SequenceOf[NDArray[np.bool_]]) -> Sequence:
        """Keep some objects of the truth, one ``(N,)`` bool array per frame."""
        return replace(
            self,
            truth=tuple(frame.select(kept)
                        for frame, kept in zip(self.truth, rows, strict=True)),
            hard=tuple(hard[kept] for hard, kept in zip(self.hard, rows, strict=False)))

    def image(self, position: int) -> NDArray[np.uint8]:
        """
        Read the image of a frame, ``(H, W, 3)`` uint8 RGB.

        Raises
        ------
        FileNotFoundError
            If the sequence has no images or the file cannot be read.

        """
        if not self.image_paths:
            raise FileNotFoundError(
                f'sequence {self.name} was read without its images, and this step needs them; '
                'give the folder of the images')
        path = self.image_paths[position]
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            state = 'is not a readable image' if path.is_file() else 'is missing'
            raise FileNotFoundError(f'{path} {state}; sequence {self.name} needs it as frame '
                                    f'{int(self.frame_indices[position])}')
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)

    def frame(self, position: int) -> Frame:
        """Return a frame with its image."""
        return Frame(self.image(position), int(self.stamps_ns[position]),
                     int(self.frame_indices[position]), self.name, view=self.view(position))

    def view(self, position: int) -> CameraView | None:
        """Return which way the camera looked at a frame, where that is known."""
        return self.views[position] if self.views else None

    def subset(self, positions: ArrayLike) -> Sequence:
        """Return the sequence with only the frames at these positions."""
        rows = np.asarray(positions, np.int64)

        def pick(values: SequenceOf[object]) -> tuple[object, ...]:
            return tuple(values[row] for row in rows) if len(values) else ()

        return replace(
            self, frame_indices=self.frame_indices[rows], stamps_ns=self.stamps_ns[rows],
            annotated=self.annotated[rows],
            **{name: pick(getattr(self, name))  # type: ignore[arg-type]
               for name in _PER_FRAME})

    def strided(self, stride: int) -> Sequence:
        """Return every n-th frame; indices and stamps stay, the rate falls."""
        if stride < 1:
            raise ValueError(f'stride is {stride}, expected 1 (all frames) or more')
        chosen = self.subset(np.arange(0, len(self), stride))
        return replace(chosen, rate_hz=self.rate_hz / stride)


def sized_by_boxes(sequence: Sequence) -> Sequence:
    """Give a sequence whose image size is not known the smallest one that holds its boxes."""
    if sequence.height_px and sequence.width_px:
        return sequence
    corners = [frame.boxes[:, 2:] for frame in (*sequence.truth, *sequence.detections)]
    width, height = np.concatenate([np.ones((1, 2), np.float32), *corners]).max(axis=0)
    return replace(sequence, height_px=int(np.ceil(height)), width_px=int(np.ceil(width)))


def regular_stamps_ns(frame_indices: NDArray[np.int64], rate_hz: float) -> NDArray[np.int64]:
    """Stamps ``(T,)`` of frames taken at a fixed rate, frame 0 at time 0."""
    return np.asarray(np.round(frame_indices * (1e9 / rate_hz)), np.int64)


def inside_fraction(
    boxes: NDArray[np.float32], regions: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Largest share ``(N,)`` of each box's own area that lies in one of the regions."""
    boxes, regions = as_boxes(boxes), as_boxes(regions)
    if not len(boxes) or not len(regions):
        return np.zeros(len(boxes), np.float32)
    low = np.maximum(boxes[:, None, :2], regions[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], regions[None, :, 2:])
    common = np.maximum(high - low, 0).prod(axis=2)
    area = np.maximum(np.maximum(boxes[:, 2:] - boxes[:, :2], 0).prod(axis=1), 1e-9)
    return np.asarray((common / area[:, None]).max(axis=1), np.float32)
