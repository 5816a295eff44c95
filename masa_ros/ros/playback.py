"""Play a bag over DDS in real time and record what comes back; a small ``ros2 bag``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
import struct
import threading
import time
from typing import Any

from masa_ros.ros.bag import BagWriter
from masa_ros.ros.bag_recovery import RawMessage
from masa_ros.ros.transport import prepare_transport
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy

_POLL_S = 0.05
_MATCH_S = 0.5
_QOS = QoSProfile(depth=20, reliability=ReliabilityPolicy.RELIABLE)
_RECORD_QOS = QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE)


@dataclass(frozen=True)
class PlaybackResult:
    """
    What went over the wire.

    Parameters
    ----------
    sent : dict
        Messages published on each topic.
    received : int
        Messages recorded.
    duration_s : float
        Wall time of the playing.
    late_s : float
        Largest delay of a message behind its due time; the machine was too slow where it is
        large.
    latencies_s : tuple of float
        From publishing an input to receiving the answer with the same stamp, for each answer.

    """

    sent: dict[str, int]
    received: int
    duration_s: float
    late_s: float
    latencies_s: tuple[float, ...]


class Playback:
    """
    Publishes recorded messages at the pace of their recording and records one topic.

    Parameters
    ----------
    inputs : mapping
        Topic in the bag to ``(topic to publish on, type name)``.
    output_topic, output_type : str
        What to record.
    recorder : BagWriter
        Where to record it, under the same name.

    Raises
    ------
    ValueError
        If a message type is not installed.

    """

    def __init__(
        self, inputs: Mapping[str, tuple[str, str]], output_topic: str, output_type: str,
        recorder: BagWriter,
    ) -> None:
        prepare_transport()
        self._context = Context()
        rclpy.init(args=[], context=self._context)
        try:
            self._node = Node('masa_ros_player', context=self._context,
                              start_parameter_services=False, enable_rosout=False)
            self._publishers = {
                source: self._node.create_publisher(_message_class(type_name), topic, _QOS)
                for source, (topic, type_name) in inputs.items()}
            self._output = (output_topic, output_type)
            self._node.create_subscription(
                _message_class(output_type), output_topic, self._record, _RECORD_QOS, raw=True)
        except Exception:
            rclpy.try_shutdown(context=self._context)
            raise
        self._recorder = recorder
        self._received = 0
        self._sent_s: dict[int, float] = {}
        self._latencies_s: list[float] = []
        self._problem: OSError | None = None
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)
        self._thread.start()

    @property
    def received(self) -> int:
        """Messages recorded so far."""
        return self._received

    def wait_until_heard(self, is_alive: Callable[[], bool], limit_s: float) -> bool:
        """
        Wait until somebody listens to every input and publishes the output.

        Parameters
        ----------
        is_alive : callable
            Whether waiting still makes sense.
        limit_s : float
            Longest time to wait.

        Returns
        -------
        bool
            Whether everybody is there.

        """
        end = time.monotonic() + limit_s
        while time.monotonic() < end and is_alive():
            heard = all(publisher.get_subscription_count()
                        for publisher in self._publishers.values())
            if heard and self._node.count_publishers(self._output[0]):
                # The others find this process a moment after it has found them, and lose what
                # comes before that.
                time.sleep(_MATCH_S)
                return is_alive()
            time.sleep(_POLL_S)
        return False

    def play(
        self, messages: Iterable[RawMessage], is_alive: Callable[[], bool], rate: float = 1.0,
        settle_s: float = 3.0, expected: str = '',
    ) -> PlaybackResult:
        """
        Publish messages at their pace, then wait for the last answers.

        Parameters
        ----------
        messages : iterable of RawMessage
            In the order of recording.
        is_alive : callable
            Playing stops when it returns ``False``.
        rate : float
            1 is real time, 2 twice as fast.
        settle_s : float
            After the end, how long to wait without any answer; twice the longest time that an
            answer has taken where that is more.
        expected : str
            Topic in the bag of which every message gets an answer; waiting ends early when all
            are there.

        Raises
        ------
        OSError
            If an answer could not be recorded.

        """
        sent = dict.fromkeys(self._publishers, 0)
        late_s = 0.0
        started = time.monotonic()
        first_ns: int | None = None
        for message in messages:
            first_ns = message.time_ns if first_ns is None else first_ns
            due = started + (message.time_ns - first_ns) / 1e9 / rate
            while (left := due - time.monotonic()) > 0 and is_alive():
                time.sleep(min(left, _POLL_S))
            if not is_alive() or self._problem:
                break
            late_s = max(late_s, time.monotonic() - due)
            if message.topic == expected:
                self._sent_s[header_stamp_ns(message.data)] = time.monotonic()
            self._publishers[message.topic].publish(message.data)
            sent[message.topic] += 1
        self._settle(sent.get(expected, -1), is_alive, settle_s)
        if self._problem:
            raise self._problem
        return PlaybackResult(sent, self._received, time.monotonic() - started, late_s,
                              tuple(self._latencies_s))

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown(timeout_sec=2.0)
        self._thread.join(2.0)
        self._node.destroy_node()
        rclpy.try_shutdown(context=self._context)

    def _settle(self, expected: int, is_alive: Callable[[], bool], settle_s: float) -> None:
        """Wait until all answers are there, or none came for a while."""
        seen, since = self._received, time.monotonic()
        while is_alive() and seen != expected:
            slowest_s = max(self._latencies_s, default=0.0)
            if time.monotonic() - since >= max(settle_s, 2 * slowest_s):
                return
            time.sleep(_POLL_S)
            if self._received != seen:
                seen, since = self._received, time.monotonic()

    def _record(self, data: bytes) -> None:
        if self._problem:
            return
        sent_s = self._sent_s.pop(header_stamp_ns(data), None)
        if sent_s is not None:
            self._latencies_s.append(time.monotonic() - sent_s)
        try:
            self._recorder.write_raw(*self._output, bytes(data), time.time_ns())
            self._received += 1
        except OSError as error:
            self._problem = error


def header_stamp_ns(data: bytes) -> int:
    """Stamp of a serialized message that begins with a header, in nanoseconds."""
    # CDR: two bytes that tell the byte order (1 in the second is little-endian), two of options.
    order = '<' if data[1] & 1 else '>'
    sec, nanosec = struct.unpack_from(f'{order}iI', data, 4)
    return int(sec) * 1_000_000_000 + int(nanosec)


def _message_class(name: str) -> Any:
    package, _, kind = name.split('/')
    try:
        return getattr(import_module(f'{package}.msg'), kind)
    except (ImportError, AttributeError) as error:
        raise ValueError(f'the message type {name} is not installed ({error}); build the package '
                         'and source install/setup.bash, or run it through make') from error
