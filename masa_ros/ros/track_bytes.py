"""
The message of the tracked objects as the bytes that ROS 2 sends, without Python objects between.

Making 100 objects and having them serialized takes several times as long. What is read from the
bytes is what `masa_ros.ros.convert.tracks_to_message` makes; a test holds both together.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
import struct
from typing import Any

from masa_ros.msg import TrackedObjectArray
from masa_ros.ros.convert import regions, stamp_to_ns, TrackInfo
from masa_ros.ros.upstream.cdr import signature
from masa_ros.structures.instances import TrackedInstances
import numpy as np

SIGNATURE = '188f57c97666'
"""The layout that is written here, see `masa_ros.ros.upstream.cdr.signature`."""

_NANOSECONDS = 1_000_000_000
_ENCAPSULATION = b'\0\1\0\0'
_HEAD = struct.Struct('<I16sB3xi')
_PLACE = struct.Struct('<f4f4IB3xI')
_REST = struct.Struct('<fiIiIIffIB3xI')
_U32 = struct.Struct('<I')


@cache
def can_write_bytes() -> bool:
    """Whether the installed message has the layout that is written here."""
    return signature(TrackedObjectArray) == SIGNATURE


def tracks_to_bytes(
    tracks: TrackedInstances, header: Any, info: TrackInfo, *, embeddings: bool = False,
) -> bytes:
    """
    Serialize a ``masa_ros/TrackedObjectArray``; arguments are those of `tracks_to_message`.

    Raises
    ------
    ValueError
        If a number does not fit into its field.

    """
    try:
        return _array(tracks, header, info, embeddings)
    except struct.error as error:
        raise ValueError(f'a number does not fit into its field: {error}') from error


def _array(
    tracks: TrackedInstances, header: Any, info: TrackInfo, embeddings: bool,
) -> bytes:
    start = b''.join((
        struct.pack('<iI', *_seconds(stamp_to_ns(header.stamp))), _text(header.frame_id),
        struct.pack('<II', info.height_px, info.width_px), _text(info.stream)))
    # The only number of eight bytes, and aligned so.
    start += b'\0' * (-len(start) % 8)
    times = np.array(list(info.stage_times_ms.values()), '<f4')
    # A single byte follows the text at once, without filling between.
    made_by = info.fingerprint.encode() + b'\0'
    made_by = _U32.pack(len(made_by)) + made_by + struct.pack('<B', info.detections)
    made_by += b'\0' * (-len(made_by) % 4)
    return b''.join((
        _ENCAPSULATION, start,
        struct.pack('<QII', info.sequence, info.dropped, info.resets), made_by,
        _texts(info.detection_topics),
        _texts(list(info.stage_times_ms)), _U32.pack(len(times)), times.tobytes(),
        _U32.pack(len(tracks)), *_objects(tracks, info, embeddings)))


def _objects(tracks: TrackedInstances, info: TrackInfo, embeddings: bool) -> list[bytes]:
    """Parts of all objects; every one starts and ends at a multiple of four bytes."""
    rows = len(tracks)
    vectors: list[bytes] = [b''] * rows
    if embeddings and tracks.embeddings is not None:
        vectors = [row.tobytes() for row in np.asarray(tracks.embeddings, '<f4')]
    labels = {label: _text(label) for label in set(tracks.labels)}
    detected_by = [0] * rows if tracks.detected_by is None else tracks.detected_by.tolist()
    parts: list[bytes] = []
    for (track_id, uuid, state, class_id, label, score, box, (region, counts), quality, first,
         last, age, similarity, margin, topics, flags, vector) in zip(
            tracks.track_ids.tolist(), tracks.uuids, tracks.states.tolist(),
            tracks.class_ids.tolist(), tracks.labels, tracks.scores.tolist(),
            tracks.boxes.tolist(), regions(tracks, info), tracks.mask_qualities.tolist(),
            tracks.first_seen_ns.tolist(), tracks.last_seen_ns.tolist(), tracks.ages.tolist(),
            tracks.similarities.tolist(), tracks.margins.tolist(), detected_by,
            tracks.flags.tolist(), vectors, strict=True):
        parts += (
            _HEAD.pack(track_id, uuid, state, class_id), labels[label],
            _PLACE.pack(score, *box, *region, 0, len(counts)),
            np.asarray(counts, '<u4').tobytes(),
            _REST.pack(quality, *_seconds(first), *_seconds(last), age, similarity, margin,
                       topics, flags, len(vector) // 4), vector)
    return parts


def _seconds(stamp_ns: int) -> tuple[int, int]:
    return divmod(stamp_ns, _NANOSECONDS)


def _text(text: str) -> bytes:
    """Length, bytes and end of a text, filled up to a multiple of four."""
    data = text.encode() + b'\0'
    return _U32.pack(len(data)) + data + b'\0' * (-len(data) % 4)


def _texts(texts: Sequence[str]) -> bytes:
    return _U32.pack(len(texts)) + b''.join(map(_text, texts))
