"""A detection message as it comes from the middleware, before it is made a Python object."""

from __future__ import annotations

from dataclasses import dataclass
import struct

from masa_ros.ros.convert import NANOSECONDS
from masa_ros.ros.upstream import UpstreamType

_ENCAPSULATION = 4
_MAX_FRAME_ID = 4096


@dataclass(frozen=True)
class Arrival:
    """
    Serialized messages of one topic that belong to one image.

    Parameters
    ----------
    kind : UpstreamType
        What they are.
    frame_id : str
        Coordinate frame in their header.
    payloads : tuple of bytes
        One message, or several where each holds one object.

    """

    kind: UpstreamType
    frame_id: str
    payloads: tuple[bytes, ...]


@dataclass(frozen=True)
class Head:
    """
    Beginning of a serialized message that starts with a ``std_msgs/Header``.

    Parameters
    ----------
    stamp_ns : int
        Stamp in nanoseconds.
    frame_id : str
        Coordinate frame.
    count : int
        The number behind the header: of objects, where the message holds a sequence.

    """

    stamp_ns: int
    frame_id: str
    count: int


def read_head(data: bytes) -> Head:
    """
    Read the header of a message in CDR, which is how ROS 2 sends all of them.

    So stamps are judged and absurd messages refused without making thousands of Python objects.

    Raises
    ------
    ValueError
        If the message is too short or no CDR.

    """
    try:
        order = {0: '>', 1: '<'}[data[1]]
        seconds, nanoseconds, length = struct.unpack_from(f'{order}iII', data, _ENCAPSULATION)
        start = _ENCAPSULATION + 12
        if length > _MAX_FRAME_ID:
            raise ValueError(f'its frame_id has {length} bytes')
        raw = data[start:start + length].rstrip(b'\0')
        # Numbers are aligned to their size, counted from behind the encapsulation.
        after = _ENCAPSULATION + (12 + length + 3) // 4 * 4
        count, = struct.unpack_from(f'{order}I', data, after)
    except (KeyError, IndexError, struct.error, ValueError) as error:
        raise ValueError(f'message of {len(data)} bytes is cut off or no CDR: {error}') from error
    return Head(seconds * NANOSECONDS + nanoseconds, raw.decode('utf-8', 'replace'), count)
