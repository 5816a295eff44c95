"""
Serialized messages read without making them Python objects first, several times as fast.

Each reader takes from the bytes what the converter of its type takes from the message. The
layouts are those of `SIGNATURES`; where an installed package has another one, or a message does
not fit, the message is made an object in the ordinary way.
"""

from __future__ import annotations

from functools import cache
import hashlib
from importlib import import_module
import struct
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

_START = 4
_PADDING = 8
"""Bytes that may be left behind the last field."""

SIGNATURES = {
    'vision_msgs/msg/Detection2DArray': 'a40dbce2a629',
    'vision_msgs/msg/Detection2D': '3a0c16cdb655',
    'yolo_msgs/msg/DetectionArray': 'eaeba75dffd9',
    'tier4_perception_msgs/msg/DetectedObjectsWithFeature': '0e20d793f665',
}
"""First digits of the `signature` of the layouts that are known."""


def read_message(name: str, data: bytes, message_class: Any) -> Any:
    """
    Make an object that has the fields that are needed of a serialized message.

    Parameters
    ----------
    name : str
        Message type.
    data : bytes
        The message in CDR.
    message_class : type
        Its class.

    Raises
    ------
    Exception
        If the message is damaged; what it is depends on the middleware.

    """
    reader = _READERS.get(name)
    if reader is not None and data[:2] == b'\0\1' and signature(message_class) == SIGNATURES[name]:
        try:
            return reader(_Cursor(data))
        except (struct.error, ValueError):
            pass  # The middleware has the last word, and the better error.
    from rclpy.serialization import deserialize_message
    return deserialize_message(data, message_class)


@cache
def signature(message_class: Any) -> str:
    """Return digits that are equal for equal names and types of all fields, nested ones too."""
    return hashlib.sha256(_describe(message_class).encode()).hexdigest()[:12]


def _describe(message_class: Any) -> str:
    parts = []
    for name, kind in message_class.get_fields_and_field_types().items():
        inner = kind.removeprefix('sequence<').removesuffix('>').partition('[')[0]
        nested = ''
        if '/' in inner:
            package, _, short = inner.partition('/')
            nested = _describe(getattr(import_module(f'{package}.msg'), short))
        parts.append(f'{name}:{kind}{{{nested}}}')
    return ';'.join(parts)


class _Cursor:
    """Reads little-endian CDR field by field; numbers are aligned to their size."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = _START

    def take(self, layout: struct.Struct, align: int) -> tuple[Any, ...]:
        at = (self._at - _START + align - 1 & -align) + _START
        self._at = at + layout.size
        return layout.unpack_from(self._data, at)

    def skip(self, size: int, align: int) -> None:
        self._at = (self._at - _START + align - 1 & -align) + _START + size
        # A damaged count must not be counted to its end.
        if self._at > len(self._data):
            raise ValueError('the message is cut off')

    def count(self) -> int:
        number: int = self.take(_U32, 4)[0]
        return number

    def text(self) -> str:
        size = self.count()
        start = self._at
        self._at = start + size
        return self._data[start:self._at - 1].decode('utf-8', 'replace') if size else ''

    def skip_text(self) -> None:
        size = self.count()
        self.skip(size, 1)

    def skip_header(self) -> None:
        self.skip(8, 4)
        self.skip_text()

    def doubles(self, count: int) -> NDArray[np.float64]:
        if not count:
            return np.zeros(0)
        self.skip(0, 8)
        start = self._at
        self._at = start + 8 * count
        return np.frombuffer(self._data, '<f8', count, start)

    def finish(self) -> None:
        left = len(self._data) - self._at
        if not 0 <= left < _PADDING:
            raise ValueError(f'{left} bytes are left')


_U32 = struct.Struct('<I')
_I32 = struct.Struct('<i')
_F64 = struct.Struct('<d')
_5F64 = struct.Struct('<5d')
_2I32 = struct.Struct('<2i')
_F32 = struct.Struct('<f')
_4U32 = struct.Struct('<4I')
_U8 = struct.Struct('<B')


# --- vision_msgs --------------------------------------------------------------------------------


def _detection_array(cursor: _Cursor) -> Any:
    cursor.skip_header()
    array = SimpleNamespace(detections=[_detection(cursor) for _ in range(cursor.count())])
    cursor.finish()
    return array


def _single_detection(cursor: _Cursor) -> Any:
    detection = _detection(cursor)
    cursor.finish()
    return detection


def _detection(cursor: _Cursor) -> Any:
    cursor.skip_header()
    results = []
    for _ in range(cursor.count()):
        class_id = cursor.text()
        score, = cursor.take(_F64, 8)
        cursor.skip(43 * 8, 8)  # pose and covariance
        results.append(SimpleNamespace(
            hypothesis=SimpleNamespace(class_id=class_id, score=score)))
    x, y, theta, width, height = cursor.take(_5F64, 8)
    cursor.skip_text()
    return SimpleNamespace(results=results, bbox=SimpleNamespace(
        center=SimpleNamespace(position=SimpleNamespace(x=x, y=y), theta=theta),
        size_x=width, size_y=height))


# --- yolo_msgs ----------------------------------------------------------------------------------


def _yolo_array(cursor: _Cursor) -> Any:
    cursor.skip_header()
    array = SimpleNamespace(detections=[_yolo_detection(cursor) for _ in range(cursor.count())])
    cursor.finish()
    return array


def _yolo_detection(cursor: _Cursor) -> Any:
    class_id, = cursor.take(_I32, 4)
    class_name = cursor.text()
    score, = cursor.take(_F64, 8)
    cursor.skip_text()
    x, y, theta, width, height = cursor.take(_5F64, 8)
    cursor.skip(10 * 8, 8)  # box in space
    cursor.skip_text()
    mask_height, mask_width = cursor.take(_2I32, 4)
    points = cursor.doubles(2 * cursor.count()).reshape(-1, 2)
    for numbers in (3, 4):  # key points in pixels, then in space: id, place and score
        for _ in range(cursor.count()):
            cursor.skip(4, 4)
            cursor.skip(numbers * 8, 8)
    cursor.skip_text()
    return SimpleNamespace(
        class_id=class_id, class_name=class_name, score=score,
        bbox=SimpleNamespace(
            center=SimpleNamespace(position=SimpleNamespace(x=x, y=y), theta=theta),
            size=SimpleNamespace(x=width, y=height)),
        mask=SimpleNamespace(height=mask_height, width=mask_width, data=points))


# --- tier4_perception_msgs ----------------------------------------------------------------------


def _tier4_array(cursor: _Cursor) -> Any:
    cursor.skip_header()
    array = SimpleNamespace(
        feature_objects=[_tier4_object(cursor) for _ in range(cursor.count())])
    cursor.finish()
    return array


def _tier4_object(cursor: _Cursor) -> Any:
    probability, = cursor.take(_F32, 4)
    classification = []
    for _ in range(cursor.count()):
        label, = cursor.take(_U8, 1)
        certainty, = cursor.take(_F32, 4)
        classification.append(SimpleNamespace(label=label, probability=certainty))
    cursor.skip(43 * 8, 8)  # pose and covariance
    cursor.skip(2, 1)
    cursor.skip(42 * 8, 8)  # twist and covariance
    cursor.skip(3, 1)  # two flags of the twist, type of the shape
    cursor.skip(12 * cursor.count(), 4)
    cursor.skip(3 * 8, 8)
    _skip_cloud(cursor)
    x, y, height, width = cursor.take(_4U32, 4)
    cursor.skip(1, 1)
    return SimpleNamespace(
        object=SimpleNamespace(existence_probability=probability, classification=classification),
        feature=SimpleNamespace(roi=SimpleNamespace(
            x_offset=x, y_offset=y, height=height, width=width)))


def _skip_cloud(cursor: _Cursor) -> None:
    cursor.skip_header()
    cursor.skip(8, 4)
    for _ in range(cursor.count()):
        cursor.skip_text()
        cursor.skip(4, 4)
        cursor.skip(1, 1)
        cursor.skip(4, 4)
    cursor.skip(1, 1)
    cursor.skip(8, 4)
    cursor.skip(cursor.count(), 1)
    cursor.skip(1, 1)


_READERS = {
    'vision_msgs/msg/Detection2DArray': _detection_array,
    'vision_msgs/msg/Detection2D': _single_detection,
    'yolo_msgs/msg/DetectionArray': _yolo_array,
    'tier4_perception_msgs/msg/DetectedObjectsWithFeature': _tier4_array,
}
