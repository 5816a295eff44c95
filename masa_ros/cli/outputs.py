"""The files that ``masa_ros track`` writes, kept whole whatever ends the run."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
import re
from types import TracebackType
from typing import TypeVar

import cv2
from masa_ros.cli.video import DEFAULT_WIDTH_PX, VideoWriter
from masa_ros.evaluation.formats.coco import CocoWriter
from masa_ros.evaluation.formats.mot import MotWriter
from masa_ros.pipeline import FrameResult
from masa_ros.ros.bag import BagWriter
from masa_ros.ros.convert import (
    array_to_image,
    instances_to_detections,
    make_header,
    TrackInfo,
    tracks_to_label_image,
    tracks_to_message,
)
from masa_ros.structures.frame import Frame
from masa_ros.structures.instances import TrackedInstances
from masa_ros.visualization import contact_sheet, draw_tracks, Trails
import numpy as np
from numpy.typing import NDArray

ItemT = TypeVar('ItemT')

BAG = 'bag'
TRACKS_TOPIC = '/tracker/output/tracks'
_SHEET_FRAMES = 12
_SHEET_WIDTH_PX = 480
_RATE_SAMPLES = 8
_RESERVE_BYTES = 8 << 20


@dataclass(frozen=True)
class OutputOptions:
    """
    What is written.

    Parameters
    ----------
    overlay : bool
        Video and contact sheet.
    overlay_width_px : int
        Largest width of the video.
    label_images : bool
        Label images into the bag.
    images : bool
        Camera images into the bag.
    storage : str
        ``mcap`` or ``sqlite3``.

    """

    overlay: bool = True
    overlay_width_px: int = DEFAULT_WIDTH_PX
    label_images: bool = False
    images: bool = False
    storage: str = 'mcap'


class TrackOutputs:
    """
    All files of a run.

    Parameters
    ----------
    folder : Path
        Where they go; made when missing.
    streams : sequence of str
        Names of the streams. One writes into the folder itself, several into a folder each.
    options : OutputOptions
        What is written.
    fingerprint, weights : str
        Model and settings, for the files.

    Raises
    ------
    FileExistsError
        If the folder holds results already.

    """

    def __init__(
        self, folder: Path, streams: Sequence[str], options: OutputOptions, fingerprint: str,
        weights: str,
    ) -> None:
        names = [file_name(stream) for stream in streams]
        folders = [folder] if len(names) == 1 else [folder / name for name in names]
        taken = [path for path in (folder / BAG, *(place / 'tracks.txt' for place in folders))
                 if path.exists()]
        if taken:
            raise FileExistsError(f'{taken[0]} exists already; give another folder with --out, or '
                                  'replace the old results with --overwrite')
        folder.mkdir(parents=True, exist_ok=True)
        self._fingerprint = fingerprint
        self._options = options
        self._stack = ExitStack()
        self._reserve = folder / '.reserve'
        with self._stack:
            self._bag = self._stack.enter_context(
                BagWriter(folder / BAG, options.storage, reserve_bytes=0))
            prefixes = [''] if len(names) == 1 else [f'/{name}' for name in names]
            self._streams = {}
            for stream, place, prefix in zip(streams, folders, prefixes, strict=True):
                place.mkdir(parents=True, exist_ok=True)
                info = {'description': 'tracked objects', 'stream': stream, 'model': fingerprint,
                        'weights': weights, 'url': 'masa_ros'}
                self._streams[stream] = self._stack.enter_context(
                    _StreamFiles(place, prefix, info, options))
            # Freed before the files are closed, which then has room for what closing writes.
            self._reserve.write_bytes(bytes(_RESERVE_BYTES))
            self._stack.callback(self._reserve.unlink, missing_ok=True)
            self._stack = self._stack.pop_all()

    def __enter__(self) -> TrackOutputs:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self._stack.close()

    def write(
        self, frame: Frame, result: FrameResult, recorded_ns: int, skipped: int, resets: int,
    ) -> None:
        """
        Write one frame.

        Parameters
        ----------
        frame : Frame
            The image.
        result : FrameResult
            What the pipeline made of it.
        recorded_ns : int
            Time of recording, under which the messages are stored.
        skipped : int
            Images left out since the frame before.
        resets : int
            Tracker resets of the stream so far.

        """
        files = self._streams[frame.stream]
        tracks = result.tracks
        info = TrackInfo(frame.height_px, frame.width_px, frame.stream, files.num_frames, skipped,
                         resets, self._fingerprint, result.stage_times_ms)
        files.write(frame, tracks)
        builder = self._bag.builder
        header = make_header(frame.stamp_ns, frame.frame_id, builder)
        topics = {
            'tracks': tracks_to_message(tracks, header, info, builder=builder),
            'detections': instances_to_detections(tracks, header, builder)}
        if self._options.label_images:
            topics['label_image'] = tracks_to_label_image(
                tracks, header, frame.height_px, frame.width_px, builder)
        if self._options.images:
            topics['image'] = array_to_image(frame.image, 'rgb8', header, builder)
        for name, message in topics.items():
            self._bag.write(f'{files.prefix}/tracker/output/{name}', message, recorded_ns)

    def paths(self) -> list[Path]:
        """Files and folders that were written."""
        return [self._bag.path, *(path for files in self._streams.values()
                                  for path in files.paths())]


class _StreamFiles:
    """Text, JSON, video and contact sheet of one stream."""

    def __init__(self, folder: Path, prefix: str, info: dict[str, str],
                 options: OutputOptions) -> None:
        self.prefix = prefix
        self.num_frames = 0
        self._folder = folder
        self._mot = MotWriter(folder / 'tracks.txt')
        self._coco = CocoWriter(folder / 'tracks.json', dict(info))
        self._overlay = (Overlay(folder, options.overlay_width_px)
                         if options.overlay else None)

    def __enter__(self) -> _StreamFiles:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        with ExitStack() as stack:
            stack.callback(self._mot.close)
            stack.callback(self._coco.close)
            if self._overlay:
                stack.callback(self._overlay.close)

    def write(self, frame: Frame, tracks: TrackedInstances) -> None:
        """Append a frame to every file."""
        self._mot.write(frame.frame_index, tracks)
        self._coco.write(frame, tracks)
        if self._overlay:
            self._overlay.write(frame, tracks)
        self.num_frames += 1

    def paths(self) -> list[Path]:
        """Files that are there."""
        overlay = self._overlay.paths() if self._overlay else []
        return [self._folder / 'tracks.txt', self._folder / 'tracks.json', *overlay]


class Overlay:
    """
    Video and contact sheet of the tracked frames.

    Parameters
    ----------
    folder : Path
        Where ``overlay.webm`` and ``contact_sheet.png`` go.
    width_px : int
        Largest width of the video.

    """

    def __init__(self, folder: Path, width_px: int = DEFAULT_WIDTH_PX) -> None:
        self._folder = folder
        self._width_px = width_px
        self._trails = Trails()
        self._video: VideoWriter | None = None
        self._waiting: list[tuple[int, NDArray[np.uint8]]] = []
        self._sheet: list[tuple[int, NDArray[np.uint8]]] = []
        self._stride = 1
        self._count = 0

    def write(self, frame: Frame, tracks: TrackedInstances) -> None:
        """Draw a frame and append it."""
        self._trails.update(tracks)
        drawn = draw_tracks(frame.image, tracks, trails=self._trails)
        self._keep_for_sheet(frame.frame_index, drawn)
        if self._video is None:
            # The first frames tell the frame rate.
            self._waiting.append((frame.stamp_ns, drawn))
            if len(self._waiting) >= _RATE_SAMPLES:
                self._start()
        else:
            self._video.write(drawn)

    def close(self) -> None:
        """Finish the video and write the contact sheet."""
        if self._waiting:
            self._start()
        if self._video is not None:
            self._video.close()
        if self._sheet:
            write_sheet(self._folder / 'contact_sheet.png', spread(self._sheet, _SHEET_FRAMES))

    def paths(self) -> list[Path]:
        """Files that are there."""
        paths = [self._folder / 'contact_sheet.png']
        return [self._video.path, *paths] if self._video else paths

    def _start(self) -> None:
        self._video = VideoWriter(self._folder / 'overlay',
                                  frame_rate([stamp for stamp, _ in self._waiting]),
                                  self._width_px)
        for _, image in self._waiting:
            self._video.write(image)
        self._waiting.clear()

    def _keep_for_sheet(self, index: int, image: NDArray[np.uint8]) -> None:
        """Keep a few frames spread evenly, although the length is not known before."""
        if self._count % self._stride == 0:
            scale = min(1.0, _SHEET_WIDTH_PX / image.shape[1])
            small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            self._sheet.append((index, np.asarray(small, np.uint8)))
        self._count += 1
        if len(self._sheet) == 4 * _SHEET_FRAMES:
            self._sheet = self._sheet[::2]
            self._stride *= 2


def spread(items: list[ItemT], count: int) -> list[ItemT]:
    """Return at most ``count`` items, the first and the last among them, evenly spaced."""
    if len(items) <= count:
        return items
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]


def write_sheet(path: Path, frames: Sequence[tuple[int, NDArray[np.uint8]]]) -> None:
    """Write numbered frames into one picture."""
    sheet = contact_sheet([image for _, image in frames],
                          titles=[f'frame {index}' for index, _ in frames])
    cv2.imwrite(str(path), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))


def frame_rate(stamps_ns: Sequence[int]) -> float:
    """Frames per second from acquisition times: one over the median distance; 10 where unknown."""
    steps = np.diff(np.array(stamps_ns, np.float64))
    steps = steps[steps > 0]
    return 1e9 / float(np.median(steps)) if len(steps) else 10.0


def file_name(stream: str) -> str:
    """Name of a stream as a file name: ``/camera/image_raw`` becomes ``camera_image_raw``."""
    return re.sub(r'[^A-Za-z0-9.-]+', '_', stream).strip('_.') or 'stream'
