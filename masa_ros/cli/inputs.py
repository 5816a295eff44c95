"""Recordings of every kind as frames with their detections, for the commands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from masa_ros.evaluation.datasets.motchallenge import read_rows, unit_scores
from masa_ros.ros.bag import BagFrames, BagReader, is_bag
from masa_ros.ros.parameters import NodeConfig
from masa_ros.sources import open_source
from masa_ros.structures.frame import Frame
from masa_ros.structures.instances import Instances
import numpy as np


@dataclass(frozen=True)
class InputFrame:
    """
    A frame with what else is known about it.

    Parameters
    ----------
    frame : Frame
        Image with stamp.
    detections : Instances or None
        Given boxes; ``None`` where there are none for it.
    restarted : bool
        The clock jumped just before.
    recorded_ns : int
        Time of recording.
    skipped : int
        Images of the stream that were left out so far.

    """

    frame: Frame
    detections: Instances | None
    restarted: bool
    recorded_ns: int
    skipped: int


class Input(Protocol):
    """A recording."""

    streams: list[str]
    total: int | None
    """Number of frames, where known."""
    has_detections: bool
    """Whether boxes come with the recording."""
    description: str
    """What is read, for the screen."""

    def __iter__(self) -> Iterator[InputFrame]:
        """Frames of all streams in order of time."""
        ...

    def problems(self) -> list[str]:
        """Tell what was not read and why; complete after reading."""
        ...

    def incomplete(self) -> bool:
        """Whether the recording ended before its end."""
        ...

    def close(self) -> None:
        """Close files."""


def open_input(
    path: Path, config: NodeConfig, topics: Sequence[str] = (), detections: str = '',
    fps: float | None = None, use_bag_detections: bool = True, camera_motion: str = 'none',
) -> Input:
    """
    Open a bag, a video, an image or an image folder.

    Parameters
    ----------
    path : Path
        The recording.
    config : NodeConfig
        Tolerance, class names and bit depth are used.
    topics : sequence of str
        ``IMAGE`` or ``IMAGE:DETECTIONS`` of a bag; all image topics when empty.
    detections : str
        Topic of a bag, or file in MOTChallenge format; found by itself when empty.
    fps : float, optional
        Frame rate of a video or image folder.
    use_bag_detections : bool
        Whether boxes that lie in or beside the recording are used without being named.
    camera_motion : str
        ``tracker.camera_motion``; with ``odometry`` frames get their views.

    Raises
    ------
    FileNotFoundError
        If there is nothing at the path.
    ValueError
        If it is no recording, or the topics or detections do not fit.

    """
    if is_bag(path):
        if fps is not None:
            raise ValueError('--fps is for videos and image folders; the images of a bag have '
                             'their own times')
        reader = BagReader(path)
        try:
            pairs = choose_topics(reader, topics, detections, use_bag_detections)
            return BagInput(reader, pairs, config, camera_motion == 'odometry')
        except Exception:
            reader.close()
            raise
    if topics:
        raise ValueError(f'--topics is for bags, and {path} is none')
    if camera_motion == 'odometry':
        raise ValueError(f'tracker.camera_motion odometry is for bags, and {path} is none; '
                         'registration needs the images only')
    return SourceInput(path, detections, fps, use_bag_detections)


def choose_topics(
    reader: BagReader, topics: Sequence[str], detections: str, automatic: bool,
) -> dict[str, str]:
    """
    Pair image topics with detection topics.

    Without a choice all image topics are taken, except depth images and compressed copies of raw
    ones. An image topic gets the detection topic that shares the longest beginning of its name,
    if that is the only such one.

    Raises
    ------
    ValueError
        If the bag has no images, or a topic is not in it.

    """
    available = [topic.name for topic in reader.image_topics()]
    boxes = [topic.name for topic in reader.detection_topics()]
    if not available:
        raise ValueError(f'{reader.path} has no images; its topics are '
                         + ', '.join(f'{t.name} ({t.type_name})' for t in reader.topics))
    if detections and detections not in boxes:
        raise ValueError(f'{reader.path} has no detections on {detections!r}; it has '
                         + (', '.join(boxes) or 'none'))
    if topics:
        pairs = dict(_split_pair(text) for text in topics)
    else:
        colored = [name for name in available if 'depth' not in name.lower()] or available
        pairs = {name: '' for name in colored
                 if name.removesuffix('/compressed') == name
                 or name.removesuffix('/compressed') not in colored}
    if detections:
        if len(pairs) > 1:
            raise ValueError(f'--detections {detections} with {len(pairs)} image topics is not '
                             'clear; use --topics IMAGE:DETECTIONS ...')
        return {name: given or detections for name, given in pairs.items()}
    if automatic:
        return {name: given or _nearest_name(name, boxes) for name, given in pairs.items()}
    return pairs


def _split_pair(text: str) -> tuple[str, str]:
    image, _, boxes = text.partition(':')
    return image, boxes


def _nearest_name(image: str, candidates: Sequence[str]) -> str:
    """Return the candidate that shares most leading name parts; nothing where two are equal."""
    def shared(name: str) -> int:
        parts = zip(image.split('/'), name.split('/'), strict=False)
        return next((i for i, (a, b) in enumerate(parts) if a != b), 99)

    ranked = sorted(candidates, key=lambda name: (-shared(name), name))
    if not ranked or (len(ranked) > 1 and shared(ranked[0]) == shared(ranked[1])):
        return ''
    return ranked[0]


class BagInput:
    """
    Image topics of a bag.

    Parameters
    ----------
    reader : BagReader
        The bag; closed with the input.
    pairs : dict
        Image topic to detection topic or an empty text.
    config : NodeConfig
        Tolerance, class names and bit depth; where odometry is.
    views : bool
        Whether to look up which way the cameras looked.

    """

    def __init__(self, reader: BagReader, pairs: dict[str, str], config: NodeConfig,
                 views: bool = False) -> None:
        self._reader = reader
        self._frames = BagFrames(
            reader, pairs, config.detections.tolerance_s, config.bit_depth,
            config.detections.class_names, config.clock.jump_back_s,
            config.clock.jump_forward_s, config.odometry if views else None)
        self.streams = list(pairs)
        self.total: int | None = self._frames.total
        self.has_detections = all(pairs.values())
        self.description = ', '.join(
            name + (f' with boxes from {boxes}' if boxes else '') for name, boxes in pairs.items())

    def __iter__(self) -> Iterator[InputFrame]:
        """Frames of all topics in order of recording."""
        for item in self._frames:
            counts = self._frames.counts[item.frame.stream]
            yield InputFrame(item.frame, item.detections, item.restarted, item.recorded_ns,
                             counts.skipped.total())

    def problems(self) -> list[str]:
        """Tell what was not read and why."""
        texts = [f'{name}: {count} images left out: {reason}'
                 for name, counts in self._frames.counts.items()
                 for reason, count in sorted(counts.skipped.items())]
        texts += [f'{name}: {count} images without the turning of the camera: {reason}'
                  for name, counts in self._frames.counts.items()
                  for reason, count in sorted(counts.without_view.items())]
        return [*texts, self._reader.problem] if self._reader.problem else texts

    def incomplete(self) -> bool:
        """Whether the bag ended before its end."""
        return bool(self._reader.problem)

    def close(self) -> None:
        """Close the bag."""
        self._reader.close()


class SourceInput:
    """
    A video, image or image folder.

    Parameters
    ----------
    path : Path
        The recording.
    detections : str
        File in MOTChallenge format, or empty.
    fps : float or None
        Frame rate.
    automatic : bool
        Whether ``det/det.txt`` of a MOTChallenge folder is used without being named.

    """

    def __init__(self, path: Path, detections: str, fps: float | None, automatic: bool) -> None:
        self._source = open_source(path, fps)
        file = Path(detections) if detections else None
        if file is None and automatic:
            file = self._source.detections_file
        self._detections = read_detections(file) if file else None
        self.streams = [self._source.stream]
        self.total = self._source.length
        self.has_detections = self._detections is not None
        self.description = str(path) + (f' with boxes from {file}' if file else '')

    def __iter__(self) -> Iterator[InputFrame]:
        """Frames in order of time."""
        for frame in self._source:
            boxes = None
            if self._detections is not None:
                boxes = self._detections.get(frame.frame_index, Instances())
            yield InputFrame(frame, boxes, False, frame.stamp_ns, len(self._source.skipped))

    def problems(self) -> list[str]:
        """Tell what was not read and why."""
        return [f'{skipped.name}: {skipped.reason}' for skipped in self._source.skipped]

    def incomplete(self) -> bool:
        """Whether something could not be read."""
        return bool(self._source.skipped)

    def close(self) -> None:
        """Nothing is open between iterations."""


def read_detections(path: Path) -> dict[int, Instances]:
    """
    Read boxes from a file in MOTChallenge format by frame index (from 0).

    The file counts classes from 1, as `masa_ros.evaluation.formats.mot` writes them. Scores
    outside ``[0, 1]``, as published ones are, become ranks between 0.25 and 1.

    Raises
    ------
    FileNotFoundError
        If the file is missing.
    ValueError
        If a line cannot be read.

    """
    rows = read_rows(path)
    scores = unit_scores(rows.confidences)
    boxes = {}
    for frame in np.unique(rows.frames).tolist():
        chosen = rows.frames == frame
        class_ids = rows.class_ids[chosen]
        boxes[frame - 1] = Instances.from_boxes(
            rows.boxes[chosen], scores[chosen], np.where(class_ids > 0, class_ids - 1, -1))
    return boxes
