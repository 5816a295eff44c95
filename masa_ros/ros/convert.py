"""
Between ROS messages and numpy: images, detections, tracks and masks.

Reading works on any object with the fields of the message, so messages of rclpy and of rosbags
are alike. Writing goes through `MessageBuilder`, which by default makes messages of the ROS
installation; neither needs rclpy.
"""

from __future__ import annotations

import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
import math
import sys
from typing import Any

import cv2
from masa_ros.structures.instances import Instances, TrackedInstances
from masa_ros.structures.masks import encode_crop, label_image, RoiMask
import numpy as np
from numpy.typing import NDArray

NANOSECONDS = 1_000_000_000


class MessageBuilder:
    """
    Makes messages of the ROS installation from plain values.

    A subclass can make those of another library: `make` gets the full type name and every field,
    `numbers` turns a numeric array into what a sequence field of that library takes.
    """

    def make(self, name: str, **fields: Any) -> Any:
        """Message of a type such as ``sensor_msgs/msg/Image``."""
        return _message_class(name)(**fields)

    def numbers(self, values: NDArray[Any]) -> Any:
        """Value of a numeric sequence field; ``array.array`` is assigned without a loop."""
        numbers = array.array(values.dtype.char)
        numbers.frombytes(values.tobytes())
        return numbers


@cache
def _message_class(name: str) -> Any:
    package, _, kind = name.split('/')
    return getattr(import_module(f'{package}.msg'), kind)


ROS = MessageBuilder()


# --- time and header ----------------------------------------------------------------------------


def stamp_to_ns(stamp: Any) -> int:
    """Nanoseconds of a ``builtin_interfaces/Time``."""
    return int(stamp.sec) * NANOSECONDS + int(stamp.nanosec)


def ns_to_stamp(stamp_ns: int, builder: MessageBuilder = ROS) -> Any:
    """
    ``builtin_interfaces/Time`` of nanoseconds.

    Raises
    ------
    ValueError
        If the seconds do not fit into the 32 bits that ROS has for them.

    """
    sec, nanosec = divmod(int(stamp_ns), NANOSECONDS)
    if not -2**31 <= sec < 2**31:
        raise ValueError(f'{stamp_ns} ns is no ROS time: its seconds need more than 32 bits; '
                         'is the unit right?')
    return builder.make('builtin_interfaces/msg/Time', sec=sec, nanosec=nanosec)


def make_header(stamp_ns: int, frame_id: str, builder: MessageBuilder = ROS) -> Any:
    """``std_msgs/Header`` of a stamp and a coordinate frame."""
    return builder.make('std_msgs/msg/Header', stamp=ns_to_stamp(stamp_ns, builder),
                        frame_id=frame_id)


# --- images -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Layout:
    """How the pixels of an encoding lie in memory, and how they become RGB."""

    kind: type[Any]
    channels: int
    code: int | None = None
    """Color conversion of OpenCV; None where the pixels are RGB already."""
    planar_rows: tuple[int, int] = (1, 1)
    """Rows of the buffer per image row, as a fraction (semi-planar YUV has more)."""


def _layouts() -> dict[str, _Layout]:
    packed: dict[str, tuple[int, int | None]] = {
        'rgb': (3, None), 'bgr': (3, cv2.COLOR_BGR2RGB), 'rgba': (4, cv2.COLOR_RGBA2RGB),
        'bgra': (4, cv2.COLOR_BGRA2RGB), 'mono': (1, cv2.COLOR_GRAY2RGB)}
    # OpenCV names a mosaic after its second row and column, ROS after its first.
    mosaics = {
        'bayer_rggb': cv2.COLOR_BayerBG2RGB, 'bayer_bggr': cv2.COLOR_BayerRG2RGB,
        'bayer_gbrg': cv2.COLOR_BayerGR2RGB, 'bayer_grbg': cv2.COLOR_BayerGB2RGB}
    layouts: dict[str, _Layout] = {}
    for bits, kind in (('8', np.uint8), ('16', np.uint16)):
        for name, (channels, code) in packed.items():
            layouts[name + bits] = _Layout(kind, channels, code)
        for name, code in mosaics.items():
            layouts[name + bits] = _Layout(kind, 1, code)
        # What OpenCV calls an image without saying its colors, in OpenCV's order.
        layouts[f'{bits}UC1'] = _Layout(kind, 1, cv2.COLOR_GRAY2RGB)
        layouts[f'{bits}UC3'] = _Layout(kind, 3, cv2.COLOR_BGR2RGB)
        layouts[f'{bits}UC4'] = _Layout(kind, 4, cv2.COLOR_BGRA2RGB)
    for name in ('yuv422', 'uyvy'):
        layouts[name] = _Layout(np.uint8, 2, cv2.COLOR_YUV2RGB_UYVY)
    for name in ('yuv422_yuy2', 'yuyv'):
        layouts[name] = _Layout(np.uint8, 2, cv2.COLOR_YUV2RGB_YUY2)
    layouts['nv12'] = _Layout(np.uint8, 1, cv2.COLOR_YUV2RGB_NV12, (3, 2))
    layouts['nv21'] = _Layout(np.uint8, 1, cv2.COLOR_YUV2RGB_NV21, (3, 2))
    layouts['nv24'] = _Layout(np.uint8, 1, None, (3, 1))
    return layouts


_LAYOUTS = _layouts()
ENCODINGS: tuple[str, ...] = tuple(_LAYOUTS)
"""Every ``sensor_msgs/Image`` encoding that `image_to_rgb` reads."""

# BT.601 with video range, the matrix that OpenCV applies to the other YUV layouts. Columns:
# Y, U, V and the constant that takes the offsets 16, 128, 128 away.
_YUV_TO_RGB = np.array([
    [1.163999557, 0.0, 1.5959997177, -16 * 1.163999557 - 128 * 1.5959997177],
    [1.163999557, -0.391999245, -0.812999725,
     -16 * 1.163999557 + 128 * (0.391999245 + 0.812999725)],
    [1.163999557, 2.017999649, 0.0, -16 * 1.163999557 - 128 * 2.017999649]])


def image_to_rgb(message: Any, bit_depth: int = 16) -> NDArray[np.uint8]:
    """
    Pixels of a ``sensor_msgs/Image`` as RGB.

    An ``rgb8`` image without padding is a view of the message's own memory; everything else is
    converted once. The encodings are those in `ENCODINGS`; ``step`` may be padded and 16-bit
    pixels may have either byte order.

    Parameters
    ----------
    message : sensor_msgs/Image
        The message; only its fields matter.
    bit_depth : int
        Used bits of 16-bit pixels, 8 to 16: a 12-bit camera that leaves the upper four bits 0
        needs 12 here, or its images come out almost black.

    Returns
    -------
    ndarray
        ``(height, width, 3)`` uint8, C-contiguous.

    Raises
    ------
    ValueError
        If the encoding is not known, or if size, step and amount of data do not fit together.

    """
    layout = _LAYOUTS.get(message.encoding)
    if layout is None:
        raise ValueError(
            f'image encoding {message.encoding!r} is not one of {", ".join(ENCODINGS)}; '
            'let the driver publish one of these')
    pixels = _pixel_view(message, layout)
    if not 8 <= bit_depth <= 16:
        raise ValueError(f'bit depth is {bit_depth}, expected 8 to 16')
    if bit_depth == 16 and (bridged := _through_cv_bridge(message, pixels)) is not None:
        return bridged
    try:
        if message.encoding == 'nv24':
            return _nv24_to_rgb(message)
        return _convert_pixels(pixels, layout, bit_depth)
    except cv2.error as error:
        raise ValueError(
            f'{message.width} x {message.height} {message.encoding} image cannot be converted: '
            f'{error.err or error}') from error


def _pixel_view(message: Any, layout: _Layout) -> NDArray[Any]:
    """Rows and pixels of the message's data as an array, without copying."""
    height, width, step = int(message.height), int(message.width), int(message.step)
    if height <= 0 or width <= 0:
        raise ValueError(f'image is {width} x {height} pixels; the driver sent an empty image')
    row_bytes = width * layout.channels * np.dtype(layout.kind).itemsize
    if step < row_bytes:
        raise ValueError(
            f'image step is {step} bytes, but a row of {width} {message.encoding} pixels has '
            f'{row_bytes}; the driver fills the message wrongly')
    if width % 2 and message.encoding in ('yuv422', 'uyvy', 'yuv422_yuy2', 'yuyv'):
        raise ValueError(f'{message.encoding} image is {width} pixels wide, expected an even '
                         'number: two pixels share their color')
    rows, remainder = divmod(height * layout.planar_rows[0], layout.planar_rows[1])
    if remainder or (layout.planar_rows == (3, 2) and width % 2):
        raise ValueError(f'{message.encoding} image is {width} x {height} pixels, expected even '
                         'sides: four pixels share their color')
    data = _bytes_view(message.data)
    # The last row may come without its padding, nothing else may be missing or left over.
    if not step * (rows - 1) + row_bytes <= data.size <= step * rows:
        raise ValueError(
            f'image holds {data.size} bytes, but {rows} rows with a step of {step} are '
            f'{step * rows}; the driver fills height, step or data wrongly')
    kind = np.dtype(layout.kind)
    if kind.itemsize > 1:
        kind = kind.newbyteorder('>' if message.is_bigendian else '<')
    shape: tuple[int, ...] = (rows, width, layout.channels)
    strides: tuple[int, ...] = (step, layout.channels * kind.itemsize, kind.itemsize)
    pixels: NDArray[Any] = np.ndarray(shape, kind, data.data, 0, strides)
    return pixels[..., 0] if layout.channels == 1 else pixels


def _bytes_view(data: Any) -> NDArray[np.uint8]:
    """Bytes of a message field without copying (``array.array``, ``bytes``, ndarray)."""
    try:
        return np.frombuffer(data, np.uint8)
    except (TypeError, ValueError):  # a list, and every empty buffer
        return np.asarray(data, np.uint8).reshape(-1)


def _convert_pixels(
    pixels: NDArray[Any], layout: _Layout, bit_depth: int,
) -> NDArray[np.uint8]:
    """Pixels in their layout to RGB, 8 bits a channel."""
    native = np.ascontiguousarray(pixels, dtype=layout.kind)
    if layout.code is not None:
        native = cv2.cvtColor(native, layout.code)
    if layout.kind is np.uint16:
        native = cv2.convertScaleAbs(native, alpha=255 / (2**bit_depth - 1))
    return np.asarray(native, dtype=np.uint8)


def _nv24_to_rgb(message: Any) -> NDArray[np.uint8]:
    """
    Semi-planar YUV with full color resolution: a plane of Y, then one of U V pairs.

    The step is that of the Y plane; a row of pairs takes two of them.
    """
    height, width, step = message.height, message.width, message.step
    data = _bytes_view(message.data)
    luma = np.ndarray((height, width), np.uint8, data.data, 0, (step, 1))
    chroma = np.ndarray((height, width, 2), np.uint8, data.data, height * step, (2 * step, 2, 1))
    planes = cv2.merge([np.ascontiguousarray(luma), *cv2.split(np.ascontiguousarray(chroma))])
    return np.asarray(cv2.transform(planes, _YUV_TO_RGB), dtype=np.uint8)


# What cv_bridge converts to exactly our result (compared byte by byte with its version 4.1).
_BRIDGED = {
    'bgr8', 'rgba8', 'bgra8', 'mono8', 'bgr16', 'rgb16', 'rgba16', 'bgra16', 'mono16', 'yuv422',
    'yuv422_yuy2', 'bayer_rggb8', 'bayer_bggr8', 'bayer_gbrg8', 'bayer_grbg8'}


def _through_cv_bridge(message: Any, pixels: NDArray[Any]) -> NDArray[np.uint8] | None:
    """
    Image converted by cv_bridge; None where it is missing or not to be trusted.

    It shears rows whose padding is no multiple of a pixel, and fails on foreign byte order with
    numpy 2.
    """
    if (message.encoding not in _BRIDGED or not pixels.flags.c_contiguous
            or not pixels.dtype.isnative):
        return None
    bridge = cv_bridge()[0]
    if bridge is None:
        return None
    try:
        return np.ascontiguousarray(bridge.imgmsg_to_cv2(message, 'rgb8'), dtype=np.uint8)
    except Exception:  # whatever a broken build raises: our own conversion takes over
        return None


@cache
def cv_bridge() -> tuple[Any, str]:
    """
    Return a working ``CvBridge`` and an empty text, or ``None`` and why there is none.

    cv_bridge is compiled against one numpy and one OpenCV and fails in various ways with others,
    some of them only when used. So it has to convert two known pixels first.
    """
    try:
        bridge = import_module('cv_bridge').CvBridge()
        probe = ROS.make(
            'sensor_msgs/msg/Image', height=1, width=2, encoding='bgr8', step=6,
            data=ROS.numbers(np.array([1, 2, 3, 4, 5, 6], np.uint8)))
        if bridge.imgmsg_to_cv2(probe, 'rgb8').tolist() != [[[3, 2, 1], [6, 5, 4]]]:
            return None, 'cv_bridge converts colors wrongly'
    except ModuleNotFoundError as error:
        return None, f'cv_bridge is not installed ({error.name} is missing)'
    except Exception as error:
        return None, f'cv_bridge does not work here ({type(error).__name__}: {error})'
    return bridge, ''


def array_to_image(
    pixels: NDArray[Any], encoding: str, header: Any, builder: MessageBuilder = ROS,
) -> Any:
    """
    ``sensor_msgs/Image`` of an array whose pixels are already in the encoding.

    Parameters
    ----------
    pixels : ndarray
        ``(height, width)`` or ``(height, width, channels)``, uint8 or uint16 as the encoding
        asks.
    encoding : str
        One of the packed ones: ``rgb8``, ``bgr8``, ``mono8``, ``mono16``, ``bayer_...``.
    header : std_msgs/Header
        Stamp and coordinate frame.
    builder : MessageBuilder
        Who makes the message.

    Raises
    ------
    ValueError
        If the array does not fit the encoding.

    """
    layout = _LAYOUTS.get(encoding)
    if layout is None or layout.planar_rows != (1, 1):
        raise ValueError(f'cannot write encoding {encoding!r}')
    channels = 1 if pixels.ndim == 2 else pixels.shape[-1]
    if pixels.ndim not in (2, 3) or channels != layout.channels or pixels.dtype != layout.kind:
        raise ValueError(
            f'{encoding} needs (height, width, {layout.channels}) '
            f'{np.dtype(layout.kind).name} pixels, got {pixels.dtype} of shape {pixels.shape}')
    height, width = pixels.shape[:2]
    return builder.make(
        'sensor_msgs/msg/Image', header=header, height=height, width=width, encoding=encoding,
        is_bigendian=int(sys.byteorder == 'big'),
        step=width * layout.channels * pixels.dtype.itemsize,
        data=builder.numbers(np.ascontiguousarray(pixels).view(np.uint8).reshape(-1)))


# --- compressed images --------------------------------------------------------------------------

_JPEG_START = b'\xff\xd8\xff'
_JPEG_END = b'\xff\xd9'
_JPEG_SCAN = 0xDA
_PNG_START = b'\x89PNG\r\n\x1a\n'
_PNG_END = b'IEND\xaeB`\x82'


def compressed_to_rgb(message: Any, bit_depth: int = 16) -> NDArray[np.uint8]:
    """
    Pixels of a ``sensor_msgs/CompressedImage`` (JPEG or PNG, told by their content) as RGB.

    Grey images get three equal channels, transparency is dropped, 16-bit PNGs are scaled to 8
    bits like 16-bit raw images. A rotation in the file's metadata is ignored: boxes are in the
    sensor's pixels.

    Parameters
    ----------
    message : sensor_msgs/CompressedImage
        The message; only its field ``data`` and, for error texts, ``format`` matter.
    bit_depth : int
        Used bits of 16-bit pixels, see `image_to_rgb`.

    Returns
    -------
    ndarray
        ``(height, width, 3)`` uint8, C-contiguous.

    Raises
    ------
    ValueError
        If the data is not JPEG or PNG, or is cut off or damaged.

    """
    data = _bytes_view(message.data)
    head = data[:32].tobytes()
    if 'compressedDepth' in str(message.format):
        raise ValueError(f'compressed image format is {message.format!r}: a depth image, not one '
                         'of a camera; subscribe to the color topic')
    if head.startswith(_JPEG_START):
        _check_jpeg_is_whole(data)
    elif head.startswith(_PNG_START):
        if _PNG_END not in data[-64:].tobytes():
            raise ValueError(f'PNG image of {data.size} bytes is cut off')
    else:
        raise ValueError(
            f'compressed image of {data.size} bytes (format {message.format!r}) is neither JPEG '
            'nor PNG')
    pixels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        raise ValueError(f'compressed image of {data.size} bytes (format {message.format!r}) is '
                         'damaged')
    codes = {1: cv2.COLOR_GRAY2RGB, 3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGB}
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    return _convert_pixels(
        pixels, _Layout(pixels.dtype.type, channels, codes[channels]), bit_depth)


def _check_jpeg_is_whole(data: NDArray[np.uint8]) -> None:
    """
    Refuse a JPEG that ends before its end marker.

    Decoders fill the missing part with grey and say so on the console only. Bytes after the
    marker are allowed: some cameras send a fixed amount.
    """
    text = data.tobytes()
    position = 2
    # Up to the picture there are segments that say how long they are; one may hold a whole
    # thumbnail with markers of its own.
    while position + 4 <= len(text) and text[position] == 0xFF:
        marker = text[position + 1]
        if marker == _JPEG_SCAN:
            # The end marker cannot occur inside the coded pixels that follow.
            if text.find(_JPEG_END, position) < 0:
                break
            return
        # A fill byte stands alone.
        position += 1 if marker == 0xFF else 2 + int.from_bytes(
            text[position + 2:position + 4], 'big')
    raise ValueError(f'JPEG image of {data.size} bytes is cut off: it has no end marker')


def rgb_to_compressed(
    rgb: NDArray[np.uint8], header: Any, kind: str = 'jpeg', quality: int = 90,
    builder: MessageBuilder = ROS,
) -> Any:
    """
    ``sensor_msgs/CompressedImage`` of RGB pixels.

    Raises
    ------
    ValueError
        If ``kind`` is not ``jpeg`` or ``png``, or the pixels cannot be encoded.

    """
    if kind not in ('jpeg', 'png'):
        raise ValueError(f'compression is {kind!r}, expected jpeg or png')
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if kind == 'jpeg' else []
    done, data = cv2.imencode(f'.{kind}', cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), options)
    if not done:
        raise ValueError(f'image of shape {rgb.shape} cannot be written as {kind}')
    return builder.make(
        'sensor_msgs/msg/CompressedImage', header=header,
        format=f'rgb8; {kind} compressed bgr8', data=builder.numbers(data.reshape(-1)))


# --- detections ---------------------------------------------------------------------------------


@dataclass
class LabelTable:
    """
    Class numbers and names of an upstream detector.

    Detections carry one text per class, which is a name with some detectors and a number with
    others. Names that are not in the table get the next free numbers, in order of appearance.

    Parameters
    ----------
    names : sequence of str
        Name of each class number, from 0.

    """

    names: Sequence[str] = ()
    _numbers: dict[str, int] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._numbers = {name: number for number, name in enumerate(self.names) if name}
        self._next = len(self.names)

    def read(self, class_id: str) -> tuple[int, str]:
        """Class number and name of the text of a detection; -1 and '' where it is empty."""
        if not class_id:
            return -1, ''
        number = self._numbers.get(class_id)
        if number is not None:
            return number, class_id
        try:
            number = int(class_id)
        except ValueError:
            self._numbers[class_id] = self._next
            self._next += 1
            return self._numbers[class_id], class_id
        if not 0 <= number < 2**31:
            return -1, class_id
        return number, self.names[number] if number < len(self.names) else ''


def detections_to_instances(message: Any, labels: LabelTable | None = None) -> Instances:
    """
    Boxes, scores and classes of a ``vision_msgs/Detection2DArray``.

    A detection's class is its hypothesis with the highest score; without any it is unknown with
    score 1. A rotated box becomes the upright box around it. Boxes that cannot be used (NaN, no
    area, outside) are kept here; the pipeline refuses and counts them.

    Parameters
    ----------
    message : vision_msgs/Detection2DArray
        The message, its boxes in the pixels of the image with the same stamp.
    labels : LabelTable, optional
        Class names of the detector.

    """
    table = LabelTable() if labels is None else labels
    rows = len(message.detections)
    boxes = np.empty((rows, 5), np.float64)
    scores = np.ones(rows, np.float32)
    class_ids = np.full(rows, -1, np.int64)
    names = [''] * rows
    for row, detection in enumerate(message.detections):
        box = detection.bbox
        center = box.center
        boxes[row] = (center.position.x, center.position.y, box.size_x, box.size_y, center.theta)
        hypothesis = _best_hypothesis(detection.results)
        if hypothesis is not None:
            scores[row] = hypothesis.score
            class_ids[row], names[row] = table.read(hypothesis.class_id)
    # Boxes of impossible size overflow to infinity, which the pipeline refuses like NaN.
    with np.errstate(over='ignore', invalid='ignore'):
        corners = upright_boxes(boxes).astype(np.float32)
    return Instances.from_boxes(corners, scores, class_ids, names)


def _best_hypothesis(results: Sequence[Any]) -> Any | None:
    """Most certain hypothesis of a detection; one without a number loses to all others."""
    if not results:
        return None
    return max((result.hypothesis for result in results),
               key=lambda entry: -math.inf if math.isnan(entry.score) else entry.score)


def upright_boxes(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """``(N, 4)`` xyxy boxes around ``(N, 5)`` rows of center, size and angle."""
    x, y, width, height, angle = boxes.T
    # Exact sides where the box is upright: sin(pi) is not quite 0.
    turned = angle != 0
    cosine = np.where(turned, np.abs(np.cos(angle)), 1)
    sine = np.where(turned, np.abs(np.sin(angle)), 0)
    half_width = (width * cosine + np.where(turned, height * sine, 0)) / 2
    half_height = (np.where(turned, width * sine, 0) + height * cosine) / 2
    return np.stack([x - half_width, y - half_height, x + half_width, y + half_height], axis=1)


def detection_ids(message: Any) -> tuple[str, ...]:
    """Id texts of the detections of a ``vision_msgs/Detection2DArray``."""
    return tuple(detection.id for detection in message.detections)


def instances_to_detections(
    instances: Instances, header: Any, builder: MessageBuilder = ROS,
) -> Any:
    """
    ``vision_msgs/Detection2DArray`` of instances; tracked ones carry their id as text.

    Tracks that were not seen in this frame are left out, as a detection is an observation.
    """
    ids: list[str] = [''] * len(instances)
    if isinstance(instances, TrackedInstances):
        instances = instances.select(instances.seen)
        ids = [str(track_id) for track_id in instances.track_ids.tolist()]
    centers = ((instances.boxes[:, :2] + instances.boxes[:, 2:]) / 2).tolist()
    sizes = (instances.boxes[:, 2:] - instances.boxes[:, :2]).tolist()
    make = builder.make
    nowhere = _no_pose(builder)
    detections = []
    for (x, y), (width, height), score, class_id, label, track_id in zip(
            centers, sizes, instances.scores.tolist(), instances.class_ids.tolist(),
            instances.labels, ids, strict=True):
        name = label or (str(class_id) if class_id >= 0 else '')
        hypothesis = make('vision_msgs/msg/ObjectHypothesis', class_id=name, score=score)
        position = make('vision_msgs/msg/Point2D', x=x, y=y)
        detections.append(make(
            'vision_msgs/msg/Detection2D', header=header,
            results=[make('vision_msgs/msg/ObjectHypothesisWithPose', hypothesis=hypothesis,
                          pose=nowhere)],
            bbox=make('vision_msgs/msg/BoundingBox2D', size_x=width, size_y=height,
                      center=make('vision_msgs/msg/Pose2D', position=position, theta=0.0)),
            id=track_id))
    return make('vision_msgs/msg/Detection2DArray', header=header, detections=detections)


def _no_pose(builder: MessageBuilder) -> Any:
    """Pose for hypotheses that have none."""
    make = builder.make
    return make(
        'geometry_msgs/msg/PoseWithCovariance',
        pose=make('geometry_msgs/msg/Pose',
                  position=make('geometry_msgs/msg/Point', x=0.0, y=0.0, z=0.0),
                  orientation=make('geometry_msgs/msg/Quaternion', x=0.0, y=0.0, z=0.0, w=1.0)),
        covariance=np.zeros(36, np.float64))


# --- tracks -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrackInfo:
    """
    What a ``TrackedObjectArray`` says besides the objects.

    Parameters
    ----------
    height_px, width_px : int
        Size of the image.
    stream : str
        Name of the stream.
    sequence : int
        Number of the image among the processed ones.
    dropped : int
        Images received but not processed since the previous message.
    resets : int
        Tracker resets so far.
    fingerprint : str
        Model, weights and settings.
    stage_times_ms : dict
        Time of each stage.
    detections : int
        Where the boxes came from, one of the ``DETECTIONS_`` constants of the message.
    detection_topics : tuple of str
        Upstream topics in the order of the bits of ``detected_by``.

    """

    height_px: int
    width_px: int
    stream: str = ''
    sequence: int = 0
    dropped: int = 0
    resets: int = 0
    fingerprint: str = ''
    stage_times_ms: dict[str, float] = field(default_factory=dict)
    detections: int = 0
    detection_topics: tuple[str, ...] = ()


def tracks_to_message(
    tracks: TrackedInstances, header: Any, info: TrackInfo, *, embeddings: bool = False,
    builder: MessageBuilder = ROS,
) -> Any:
    """
    ``masa_ros/TrackedObjectArray`` of the tracker's output.

    Parameters
    ----------
    tracks : TrackedInstances
        Objects of one frame.
    header : std_msgs/Header
        The image's own header.
    info : TrackInfo
        Everything about the frame.
    embeddings : bool
        Whether the appearance vectors go along (1 kB each and more).
    builder : MessageBuilder
        Who makes the message.

    """
    rows = len(tracks)
    places = [(builder.make(
        'sensor_msgs/msg/RegionOfInterest', x_offset=x, y_offset=y, height=height, width=width,
        do_rectify=False), builder.numbers(counts))
        for (x, y, height, width), counts in regions(tracks, info)]
    vectors = [builder.numbers(np.zeros(0, np.float32))] * rows
    if embeddings and tracks.embeddings is not None:
        vectors = [builder.numbers(np.asarray(row, np.float32)) for row in tracks.embeddings]
    boxes = tracks.boxes.tolist()
    flags = tracks.flags.tolist()
    detected_by = [0] * rows if tracks.detected_by is None else tracks.detected_by.tolist()
    columns = zip(
        tracks.track_ids.tolist(), tracks.uuids, tracks.states.tolist(),
        tracks.class_ids.tolist(), tracks.labels, tracks.scores.tolist(), boxes, places,
        tracks.mask_qualities.tolist(), tracks.first_seen_ns.tolist(),
        tracks.last_seen_ns.tolist(), tracks.ages.tolist(), tracks.similarities.tolist(),
        tracks.margins.tolist(), detected_by, flags, vectors, strict=True)
    objects = [
        builder.make(
            'masa_ros/msg/TrackedObject', id=track_id,
            uuid=builder.make('unique_identifier_msgs/msg/UUID',
                              uuid=np.frombuffer(uuid, np.uint8).copy()),
            state=state, class_id=class_id, label=label, score=score,
            x0=box[0], y0=box[1], x1=box[2], y1=box[3], roi=roi, mask_counts=mask_counts,
            mask_quality=quality, first_seen=ns_to_stamp(first, builder),
            last_seen=ns_to_stamp(last, builder), age_frames=age, match_similarity=similarity,
            match_margin=margin, detected_by=topics, flags=flag, embedding=vector)
        for (track_id, uuid, state, class_id, label, score, box, (roi, mask_counts), quality,
             first, last, age, similarity, margin, topics, flag, vector) in columns]
    return builder.make(
        'masa_ros/msg/TrackedObjectArray', header=header, height=info.height_px,
        width=info.width_px, stream=info.stream, sequence=info.sequence, dropped=info.dropped,
        resets=info.resets, fingerprint=info.fingerprint, detections=info.detections,
        detection_topics=list(info.detection_topics), stage_names=list(info.stage_times_ms),
        stage_times_ms=builder.numbers(
            np.array(list(info.stage_times_ms.values()), np.float32)),
        objects=objects)


def regions(
    tracks: TrackedInstances, info: TrackInfo,
) -> list[tuple[tuple[int, int, int, int], NDArray[np.uint32]]]:
    """Region of interest (x, y, height, width) and run lengths of every object."""
    nothing = np.zeros(0, np.uint32)
    corners = _whole_pixels(tracks.boxes, info.height_px, info.width_px)
    places = []
    for mask, (x0, y0, x1, y1) in zip(tracks.masks, corners.tolist(), strict=True):
        runs = nothing
        if mask is not None:
            mask = _inside_image(mask, info.height_px, info.width_px)
        if mask is not None and mask.height > 0 and mask.width > 0:
            x0, y0 = mask.x_offset, mask.y_offset
            x1, y1 = x0 + mask.width, y0 + mask.height
            runs = np.asarray(mask.counts, np.uint32)
        places.append(((x0, y0, y1 - y0, x1 - x0), runs))
    return places


def _whole_pixels(
    boxes: NDArray[np.float32], height_px: int, width_px: int,
) -> NDArray[np.int64]:
    """Boxes rounded outwards and cut to the image, as integers."""
    limits = np.array([width_px, height_px, width_px, height_px])
    outer = np.concatenate([np.floor(boxes[:, :2]), np.ceil(boxes[:, 2:])], axis=1)
    cut = np.clip(np.nan_to_num(outer, posinf=2**31, neginf=-2**31), 0, limits).astype(np.int64)
    cut[:, 2:] = np.maximum(cut[:, 2:], cut[:, :2])
    return np.asarray(cut)


def _inside_image(mask: RoiMask, height_px: int, width_px: int) -> RoiMask:
    """Mask without the part outside the image; the region of the message has no sign."""
    if (mask.x_offset >= 0 and mask.y_offset >= 0 and mask.x_offset + mask.width <= width_px
            and mask.y_offset + mask.height <= height_px):
        return mask
    x0, y0 = max(mask.x_offset, 0), max(mask.y_offset, 0)
    crop = mask.decode()[y0 - mask.y_offset:height_px - mask.y_offset,
                         x0 - mask.x_offset:width_px - mask.x_offset]
    return encode_crop(crop, x0, y0)


def message_to_tracks(message: Any) -> TrackedInstances:
    """
    Tracker output back from a ``masa_ros/TrackedObjectArray``.

    Raises
    ------
    ValueError
        If the run lengths of a mask do not fit its region.

    """
    objects = message.objects
    vectors = [_numbers(entry.embedding, np.float32) for entry in objects]
    widths = {len(vector) for vector in vectors}
    embeddings = np.stack(vectors) if len(widths) == 1 and widths != {0} else None

    def column(read: Callable[[Any], Any], kind: type[Any]) -> NDArray[Any]:
        return np.array([read(entry) for entry in objects], dtype=kind)

    return TrackedInstances(
        boxes=column(lambda entry: (entry.x0, entry.y0, entry.x1, entry.y1),
                     np.float32).reshape(-1, 4),
        scores=column(lambda entry: entry.score, np.float32),
        class_ids=column(lambda entry: entry.class_id, np.int64),
        labels=tuple(entry.label for entry in objects),
        flags=column(lambda entry: entry.flags, np.uint8),
        masks=tuple(object_mask(entry) for entry in objects),
        mask_qualities=column(lambda entry: entry.mask_quality, np.float32),
        embeddings=embeddings, detected_by=_detected_by(message),
        track_ids=column(lambda entry: entry.id, np.int64),
        uuids=tuple(bytes(bytearray(entry.uuid.uuid)) for entry in objects),
        states=column(lambda entry: entry.state, np.uint8),
        first_seen_ns=column(lambda entry: stamp_to_ns(entry.first_seen), np.int64),
        last_seen_ns=column(lambda entry: stamp_to_ns(entry.last_seen), np.int64),
        ages=column(lambda entry: entry.age_frames, np.int64),
        similarities=column(lambda entry: entry.match_similarity, np.float32),
        margins=column(lambda entry: entry.match_margin, np.float32))


def _detected_by(message: Any) -> NDArray[np.uint32] | None:
    """Topics that saw each object; None where none did, and in recordings from before."""
    if not len(getattr(message, 'detection_topics', ())):
        return None
    return np.array([entry.detected_by for entry in message.objects], np.uint32)


def _numbers(values: Any, kind: type[Any]) -> NDArray[Any]:
    """Numeric sequence field as an array (``array.array``, ndarray or list)."""
    if isinstance(values, array.array | np.ndarray) and len(values):
        return np.asarray(values).astype(kind, copy=False)
    return np.array(values, dtype=kind).reshape(-1)


def object_mask(message: Any) -> RoiMask | None:
    """
    Mask of a ``masa_ros/TrackedObject`` with its place in the image; None where it has none.

    Raises
    ------
    ValueError
        If the run lengths do not fit the region.

    """
    if not len(message.mask_counts):
        return None
    roi = message.roi
    return RoiMask(int(roi.x_offset), int(roi.y_offset), int(roi.height), int(roi.width),
                   _numbers(message.mask_counts, np.uint32))


def decode_mask(message: Any) -> NDArray[np.bool_] | None:
    """
    Mask of a ``masa_ros/TrackedObject`` as a bool crop ``(roi.height, roi.width)``.

    Returns ``None`` where the object has no mask. ``image[y:y + h, x:x + w][mask]`` with the
    numbers of ``roi`` are the object's pixels.
    """
    mask = object_mask(message)
    return None if mask is None else mask.decode()


def label_value(track_id: int) -> int:
    """Value of a track in the label image: its id, wrapped into 1 to 65535 (0 is background)."""
    return (track_id - 1) % 65535 + 1


def tracks_to_label_image(
    tracks: TrackedInstances, header: Any, height_px: int, width_px: int,
    builder: MessageBuilder = ROS,
) -> Any:
    """
    ``sensor_msgs/Image`` in ``mono16`` whose pixels are track ids (see `label_value`).

    Where masks overlap the object with the higher score is on top.
    """
    seen = tracks.select(tracks.seen)
    seen = seen.select(np.argsort(seen.scores, kind='stable'))
    values = [label_value(track_id) for track_id in seen.track_ids.tolist()]
    return array_to_image(label_image(seen.masks, values, height_px, width_px), 'mono16', header,
                          builder)
