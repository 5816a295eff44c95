"""
Bags (rosbag2, MCAP or SQLite) as frames, and tracks as bags; no ROS installation is needed.

Reading goes as far as a file goes: what an interrupted recording left is read, and
`BagReader.problem` says afterwards what is missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
import errno
from pathlib import Path
from types import TracebackType
from typing import Any

from masa_ros.ros.bag_definitions import (
    BagMessageBuilder,
    COMPRESSED_IMAGE,
    DETECTIONS,
    IMAGE,
    typestore_for,
)
from masa_ros.ros.bag_recovery import RawMessage, RecoveredFile, unfinished_database
from masa_ros.ros.camera_views import (
    CAMERA_INFO,
    CameraViews,
    ODOMETRY,
    TF,
    TF_STATIC,
    TRANSFORMS,
)
from masa_ros.ros.clock import StampPolicy, StampVerdict
from masa_ros.ros.convert import (
    compressed_to_rgb,
    detections_to_instances,
    image_to_rgb,
    LabelTable,
    stamp_to_ns,
)
from masa_ros.ros.parameters import OdometryConfig
from masa_ros.ros.rotations import RotationTree, UnknownRotationError
from masa_ros.structures.frame import CameraView, Frame
from masa_ros.structures.instances import Instances
import numpy as np
from rosbags.rosbag2 import Reader, StoragePlugin, Writer

_IMAGE_TYPES = (IMAGE, COMPRESSED_IMAGE)
_STORAGES = ('.mcap', '.db3')


@dataclass(frozen=True)
class BagTopic:
    """
    A topic of a bag.

    Parameters
    ----------
    name, type_name : str
        Topic and message type.
    count : int
        Number of messages.

    """

    name: str
    type_name: str
    count: int


def is_bag(path: Path) -> bool:
    """Whether a path looks like a bag: an MCAP or SQLite file, or a folder of such files."""
    if path.is_dir():
        return (path / 'metadata.yaml').is_file() or bool(_storage_files(path))
    return path.suffix in _STORAGES


def _storage_files(folder: Path) -> list[Path]:
    """Storage files of a bag folder in the order of recording (``..._2`` before ``..._10``)."""
    def order(path: Path) -> tuple[str, int]:
        name, _, number = path.stem.rpartition('_')
        return (name, int(number)) if number.isdigit() else (path.stem, 0)

    return sorted((path for path in folder.iterdir() if path.suffix in _STORAGES), key=order)


def _open_indexed(path: Path) -> Reader | str:
    """Reader of a finished bag or file, or the reason why it is none."""
    files = _storage_files(path) if path.is_dir() else [path]
    if any(unfinished_database(file) for file in files):
        return 'a database was not closed'
    try:
        reader = Reader(path)
        reader.open()
    except Exception as error:  # rosbags raises many kinds on damaged files.
        return str(error) or type(error).__name__
    return reader


class BagReader:
    """
    Reads a bag, finished or not.

    Parameters
    ----------
    path : Path
        Folder of a bag, or one of its storage files.

    Raises
    ------
    FileNotFoundError
        If there is nothing at the path.
    ValueError
        If it is no bag, or nothing can be read from it.

    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.problem = ''
        """Why not everything was read; empty where all was. Complete after reading."""
        if not self.path.exists():
            raise FileNotFoundError(f'{self.path} does not exist')
        if not is_bag(self.path):
            raise ValueError(f'{self.path} is no bag; expected a folder with metadata.yaml, or a '
                             '.mcap or .db3 file')
        self._readers: list[Reader | RecoveredFile] = self._open()
        self.topics: list[BagTopic] = self._survey()
        if not self.topics:
            raise ValueError(f'nothing can be read from the bag {self.path}'
                             + (f': {self.problem}' if self.problem else '; it has no topics'))
        self._store = typestore_for(self._definitions())

    def __enter__(self) -> BagReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        for reader in self._readers:
            if isinstance(reader, Reader) and reader.is_open:
                reader.close()

    def topics_of(self, *type_names: str) -> list[BagTopic]:
        """Topics with one of the given types that have messages, by name."""
        return sorted((topic for topic in self.topics
                       if topic.type_name in type_names and topic.count),
                      key=lambda topic: topic.name)

    def image_topics(self) -> list[BagTopic]:
        """Topics with camera images."""
        return self.topics_of(*_IMAGE_TYPES)

    def detection_topics(self) -> list[BagTopic]:
        """Topics with 2D detections."""
        return self.topics_of(DETECTIONS)

    def raw(self, topics: Sequence[str]) -> Iterator[RawMessage]:
        """Messages of some topics in the order of recording, not decoded."""
        for reader in self._readers:
            if isinstance(reader, RecoveredFile):
                yield from (message for message in reader.messages() if message.topic in topics)
                self._note(reader)
            else:
                yield from self._indexed(reader, topics)

    def messages(self, topics: Sequence[str]) -> Iterator[tuple[RawMessage, Any]]:
        """Messages of some topics in the order of recording, with their content decoded."""
        for raw in self.raw(topics):
            message = self._decode(raw)
            if message is not None:
                yield raw, message

    def _decode(self, raw: RawMessage) -> Any:
        """Content of a message; None where its bytes are damaged."""
        try:
            return self._store.deserialize_cdr(raw.data, raw.type_name)
        except Exception as error:  # rosbags raises many kinds on damaged bytes.
            self._add_problem(f'a message of {raw.topic} cannot be decoded ({error})')
            return None

    def _open(self) -> list[Reader | RecoveredFile]:
        """Open the whole bag by its index, or what there is of its files."""
        whole = _open_indexed(self.path)
        if isinstance(whole, Reader):
            return [whole]
        self._add_problem(f'the bag is not complete ({whole})')
        files = [self.path] if self.path.is_file() else _storage_files(self.path)
        parts = [(path, _open_indexed(path)) for path in files]
        return [part if isinstance(part, Reader) else RecoveredFile(path)
                for path, part in parts]

    def _survey(self) -> list[BagTopic]:
        """Topics of all parts with their numbers of messages."""
        counts: Counter[tuple[str, str]] = Counter()
        for reader in self._readers:
            if isinstance(reader, RecoveredFile):
                for message in reader.messages():
                    counts[message.topic, message.type_name] += 1
                self._note(reader)
            else:
                for connection in reader.connections:
                    counts[connection.topic, connection.msgtype] += connection.msgcount
        return [BagTopic(name, kind, count) for (name, kind), count in sorted(counts.items())]

    def _definitions(self) -> dict[str, Any]:
        definitions: dict[str, Any] = {}
        for reader in self._readers:
            if isinstance(reader, RecoveredFile):
                definitions.update(reader.definitions)
            else:
                definitions.update({connection.msgtype: connection.msgdef
                                    for connection in reader.connections})
        return definitions

    def _indexed(self, reader: Reader, topics: Sequence[str]) -> Iterator[RawMessage]:
        """Messages of a finished file; a damaged place ends it."""
        connections = [connection for connection in reader.connections
                       if connection.topic in topics]
        if not connections:
            return
        messages = iter(reader.messages(connections))
        while True:
            try:
                connection, time_ns, data = next(messages)
            except StopIteration:
                return
            except Exception as error:  # rosbags raises many kinds on damaged files.
                self._add_problem(f'{reader.path} is damaged ({error})')
                return
            yield RawMessage(connection.topic, connection.msgtype, time_ns, data)

    def _note(self, source: RecoveredFile) -> None:
        if source.problem:
            self._add_problem(f'{source.path.name}: {source.problem}')

    def _add_problem(self, text: str) -> None:
        if text not in self.problem:
            self.problem = f'{self.problem}; {text}' if self.problem else text


@dataclass
class FrameCounts:
    """
    What became of the images of a topic.

    Parameters
    ----------
    used : int
        Frames given out.
    skipped : dict
        Images left out, by reason.
    resets : int
        Jumps of the clock back or far ahead, each of which starts the sequence anew.
    without_view : dict
        Images of which it is not known which way the camera looked, by reason.

    """

    used: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    resets: int = 0
    without_view: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class BagFrame:
    """
    A frame of a bag with what else is known about it.

    Parameters
    ----------
    frame : Frame
        Image with stamp; the stream is the topic.
    detections : Instances or None
        Boxes with the same stamp; ``None`` where the bag has none for it.
    restarted : bool
        The clock jumped just before, so what was tracked until now is past.
    recorded_ns : int
        When the image was recorded.

    """

    frame: Frame
    detections: Instances | None
    restarted: bool
    recorded_ns: int


class BagFrames:
    """
    The images of a bag, each once, as frames.

    Parameters
    ----------
    reader : BagReader
        The bag.
    detection_topics : mapping
        Image topic to the topic of its detections; keys are the topics to read. An empty text
        stands for no detections.
    tolerance_s : float
        Largest difference between the stamps of an image and of its detections.
    bit_depth : int
        Used bits of 16-bit images.
    class_names : sequence of str
        Names of the detector's class numbers.
    jump_back_s, jump_forward_s : float
        What counts as a jump of the clock, see `StampPolicy`.
    odometry : OdometryConfig, optional
        Where to look up which way the cameras looked; not looked up when missing.

    Raises
    ------
    ValueError
        If a topic is not in the bag, or nothing in it tells which way the cameras looked.

    """

    def __init__(
        self, reader: BagReader, detection_topics: Mapping[str, str], tolerance_s: float = 0.005,
        bit_depth: int = 16, class_names: Sequence[str] = (), jump_back_s: float = 1.0,
        jump_forward_s: float = 60.0, odometry: OdometryConfig | None = None,
    ) -> None:
        images = {topic.name: topic for topic in reader.image_topics()}
        for image_topic, topic in detection_topics.items():
            _check_topic(reader, image_topic, images)
            if topic:
                _check_topic(reader, topic, {t.name: t for t in reader.detection_topics()})
        self.counts = {name: FrameCounts() for name in detection_topics}
        self.total = sum(images[name].count for name in detection_topics)
        self._reader = reader
        self._tolerance_ns = round(tolerance_s * 1e9)
        self._bit_depth = bit_depth
        self._jumps = (jump_back_s, jump_forward_s)
        self._detections = self._read_detections(detection_topics, class_names)
        self._stamps = {topic: np.array(sorted(table), np.int64)
                        for topic, table in self._detections.items()}
        self._views = None if odometry is None else BagViews(
            reader, tuple(detection_topics), odometry)

    def __iter__(self) -> Iterator[BagFrame]:
        clocks = {name: StampPolicy(*self._jumps) for name in self.counts}
        indices: Counter[str] = Counter()
        for raw, message in self._reader.messages(list(self.counts)):
            counts = self.counts[raw.topic]
            # Drivers that do not stamp leave 0; the time of recording is the best there is then.
            stamp_ns = stamp_to_ns(message.header.stamp) or raw.time_ns
            verdict = clocks[raw.topic].judge(stamp_ns)
            if verdict in (StampVerdict.REPEATED, StampVerdict.LATE):
                counts.skipped[f'{verdict.value} stamp'] += 1
                continue
            restarted = verdict in (StampVerdict.JUMP_BACK, StampVerdict.JUMP_FORWARD)
            counts.resets += restarted
            try:
                frame = self._frame(raw, message, stamp_ns, indices[raw.topic])
            except ValueError as error:
                counts.skipped[str(error)] += 1
                continue
            indices[raw.topic] += 1
            counts.used += 1
            yield BagFrame(frame, self._detections_at(raw.topic, stamp_ns), restarted,
                           raw.time_ns)

    def _frame(self, raw: RawMessage, message: Any, stamp_ns: int, index: int) -> Frame:
        convert = image_to_rgb if raw.type_name == IMAGE else compressed_to_rgb
        image = convert(message, self._bit_depth)
        return Frame(image, stamp_ns, index, raw.topic, message.header.frame_id,
                     self._view(raw.topic, message.header.frame_id, stamp_ns, image.shape))

    def _view(
        self, topic: str, frame_id: str, stamp_ns: int, shape: tuple[int, ...],
    ) -> CameraView | None:
        if self._views is None:
            return None
        try:
            return self._views.view(topic, frame_id, stamp_ns, shape[0], shape[1])
        except (UnknownRotationError, ValueError) as error:
            self.counts[topic].without_view[str(error)] += 1
            return None

    def _read_detections(
        self, topics: Mapping[str, str], class_names: Sequence[str],
    ) -> dict[str, dict[int, Instances]]:
        """Read all detections first: they come after their image in most bags."""
        tables: dict[str, dict[int, Instances]] = {
            topic: {} for topic in topics.values() if topic}
        labels = {topic: LabelTable(class_names) for topic in tables}
        for raw, message in self._reader.messages(list(tables)):
            tables[raw.topic][stamp_to_ns(message.header.stamp)] = detections_to_instances(
                message, labels[raw.topic])
        return {image: tables[topic] for image, topic in topics.items() if topic}

    def _detections_at(self, topic: str, stamp_ns: int) -> Instances | None:
        """Return the detections whose stamp is nearest, within the tolerance."""
        stamps = self._stamps.get(topic)
        if stamps is None or not len(stamps):
            return None
        place = int(np.searchsorted(stamps, stamp_ns))
        near = stamps[max(place - 1, 0):place + 1]
        nearest = int(near[np.argmin(np.abs(near - stamp_ns))])
        if abs(nearest - stamp_ns) > self._tolerance_ns:
            return None
        return self._detections[topic][nearest]


class BagViews:
    """
    Which way the cameras of a bag looked.

    Everything is read first: odometry may be recorded after the images that it belongs to.

    Parameters
    ----------
    reader : BagReader
        The bag.
    images : sequence of str
        Image topics; the calibration of each is on ``camera_info`` beside it.
    config : OdometryConfig
        Topic, fixed frame and tolerance.

    Raises
    ------
    ValueError
        If the bag has no calibration of any of the topics, or nothing that tells rotations.

    """

    def __init__(
        self, reader: BagReader, images: Sequence[str], config: OdometryConfig,
    ) -> None:
        self._views = CameraViews(RotationTree(config.tolerance_s), config.fixed_frame)
        moving = {config.topic: ODOMETRY} if config.topic else {TF: TRANSFORMS}
        present = {topic.name: topic.type_name for topic in reader.topics if topic.count}
        for name, kind in moving.items():
            if present.get(name) != kind:
                others = [topic.name for topic in reader.topics_of(ODOMETRY, TRANSFORMS)]
                raise ValueError(
                    f'{reader.path} has no {kind} on {name!r}, so it cannot tell how the cameras '
                    f'turned; it has {", ".join(others) or "no such topics"} (odometry.topic '
                    'names one, tracker.camera_motion registration needs none)')
        wanted = [*moving, *([TF_STATIC] if present.get(TF_STATIC) == TRANSFORMS else [])]
        for raw, message in reader.messages(wanted):
            if raw.type_name == ODOMETRY:
                self._views.add_odometry(message)
            else:
                self._views.add_transforms(message, raw.topic == TF_STATIC)
        beside = {image: calibration_topic(image) for image in images}
        known = {topic.name for topic in reader.topics_of(CAMERA_INFO)}
        self._infos: dict[str, Any] = {}
        for raw, message in reader.messages([name for name in beside.values() if name in known]):
            self._infos.setdefault(raw.topic, message)
        self._beside = beside
        if not self._infos:
            raise ValueError(
                f'{reader.path} has no {CAMERA_INFO} on {", ".join(sorted(beside.values()))}, and '
                'without the intrinsics the turning of a camera says nothing about its pictures')

    def view(
        self, topic: str, frame_id: str, stamp_ns: int, height_px: int, width_px: int,
    ) -> CameraView:
        """Return which way the camera of a topic looked; see `CameraViews.view`."""
        return self._views.view(self._infos.get(self._beside[topic]), frame_id, stamp_ns,
                                height_px, width_px)


def calibration_topic(image: str) -> str:
    """Topic of the calibration that belongs to an image topic, as image_transport has it."""
    return image.removesuffix('/compressed').rpartition('/')[0] + '/camera_info'


def _check_topic(reader: BagReader, name: str, allowed: Mapping[str, BagTopic]) -> None:
    if name not in allowed:
        raise ValueError(f'{reader.path} has no such topic with messages as {name!r}; it has '
                         + (', '.join(sorted(allowed)) or 'none of this kind'))


class BagWriter:
    """
    Writes messages of `rosbags` (see `BagMessageBuilder`) or serialized ones into a new bag.

    Whatever ends the writing, the bag is closed properly: some space is kept free for the index,
    so that this also works when the disk is full. A killed process leaves a file without index,
    which `BagReader` reads as far as it goes.

    Parameters
    ----------
    path : Path
        Folder of the bag; must not exist.
    storage : str
        ``mcap`` or ``sqlite3``.
    reserve_bytes : int
        Space kept for closing the bag.

    Raises
    ------
    FileExistsError
        If there is something at the path.
    ValueError
        If the storage is unknown.

    """

    def __init__(self, path: Path, storage: str = 'mcap',
                 reserve_bytes: int = 4 << 20) -> None:
        plugins = {'mcap': StoragePlugin.MCAP, 'sqlite3': StoragePlugin.SQLITE3}
        if storage not in plugins:
            raise ValueError(f'unknown storage {storage!r}, expected mcap or sqlite3')
        self.path = Path(path)
        if self.path.exists():
            raise FileExistsError(f'{self.path} exists already; give another name or remove it')
        self.builder = BagMessageBuilder()
        self.num_messages = 0
        self._writer = Writer(self.path, version=9, storage_plugin=plugins[storage])
        self._writer.open()
        self._reserve = self.path.with_name(f'{self.path.name}.reserve')
        self._reserve.write_bytes(bytes(reserve_bytes))
        self._connections: dict[str, Any] = {}
        self._open = True

    def __enter__(self) -> BagWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self.close()

    def write(self, topic: str, message: Any, time_ns: int) -> None:
        """
        Write a message.

        Parameters
        ----------
        topic : str
            Its topic; the first message decides the type.
        message : object
            Made by `builder`.
        time_ns : int
            Time of recording.

        """
        name = message.__msgtype__
        self.write_raw(topic, name, bytes(self.builder.store.serialize_cdr(message, name)),
                       time_ns)

    def write_raw(self, topic: str, type_name: str, data: bytes, time_ns: int) -> None:
        """Write a serialized message of a known type."""
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(
                topic, type_name, typestore=self.builder.store)
        self._writer.write(self._connections[topic], time_ns, data)
        self.num_messages += 1

    def close(self) -> None:
        """Write the index; the bag is complete afterwards."""
        if not self._open:
            return
        self._open = False
        self._reserve.unlink(missing_ok=True)
        self._writer.close()


def out_of_space(error: OSError) -> bool:
    """Whether an error means that the disk is full or a limit of space is reached."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
