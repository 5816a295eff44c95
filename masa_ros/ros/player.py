"""
Play a bag into the graph: ``python -m masa_ros.ros.player BAG``.

Unlike ``ros2 bag play`` it needs no rosbag2, and it waits until somebody listens to the images
before it starts, so that the first ones are not lost while a model is loaded.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
import sys
import time
from typing import Any

from masa_ros.ros.bag import BagReader
from masa_ros.ros.bag_recovery import RawMessage
from masa_ros.ros.convert import ns_to_stamp
from masa_ros.ros.signals import finish_undisturbed
from masa_ros.ros.transport import prepare_transport
import rclpy
from rclpy.duration import Duration
from rclpy.executors import ExternalShutdownException
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock

CLOCK_PERIOD_S = 0.01
# Each running graph has these of its own.
NOT_PLAYED = {'/clock', '/rosout', '/parameter_events'}


class Player:
    """
    Publishes the messages of a bag at the pace of their recording, with ``/clock``.

    Parameters
    ----------
    bag : BagReader
        What to play; topics whose type is not installed are left out.
    rate : float
        1 is real time, 2 twice as fast.

    """

    def __init__(self, bag: BagReader, rate: float) -> None:
        self._bag = bag
        self._rate = rate
        self._node = rclpy.create_node('player', start_parameter_services=False)
        self._clock = self._node.create_publisher(Clock, '/clock', 10)
        self._publishers = {topic.name: self._publisher(topic.name, kind)
                            for topic in bag.topics if topic.name not in NOT_PLAYED
                            and (kind := self._message_class(topic.type_name)) is not None}
        self._images = [topic.name for topic in bag.image_topics()]

    def wait_for_listeners(self, limit_s: float) -> None:
        """Wait until an image topic has a listener, but not longer than the limit."""
        images = [self._publishers[name] for name in self._images if name in self._publishers]
        end = time.monotonic() + limit_s
        while images and not any(entry.get_subscription_count() for entry in images):
            if time.monotonic() > end:
                self._log(f'nobody listens to {", ".join(self._images)} after {limit_s:.0f} s; '
                          'playing anyway')
                return
            self._sleep(0.05)

    def play(self) -> int:
        """Play the bag once; returns the number of messages."""
        count = 0
        for message in self._paced(self._bag.raw(list(self._publishers))):
            self._publishers[message.topic].publish(message.data)
            count += 1
        for publisher in self._publishers.values():
            publisher.wait_for_all_acked(Duration(seconds=2))
        if self._bag.problem:
            self._log(f'not everything could be read: {self._bag.problem}')
        return count

    def _paced(self, messages: Iterator[RawMessage]) -> Iterator[RawMessage]:
        """Messages at their time; the clock goes on between them."""
        started_s = time.monotonic()
        first_ns: int | None = None
        clock_ns = 0
        for message in messages:
            first_ns = message.time_ns if first_ns is None else first_ns
            due_s = started_s + (message.time_ns - first_ns) / 1e9 / self._rate
            while (left_s := due_s - time.monotonic()) > 0:
                self._tick(message.time_ns - round(left_s * self._rate * 1e9))
                self._sleep(min(left_s, CLOCK_PERIOD_S))
            if message.time_ns - clock_ns > CLOCK_PERIOD_S * 1e9:
                clock_ns = message.time_ns
                self._tick(clock_ns)
            yield message

    def _tick(self, now_ns: int) -> None:
        self._clock.publish(Clock(clock=ns_to_stamp(now_ns)))

    def _sleep(self, seconds: float) -> None:
        if not rclpy.ok():
            raise ExternalShutdownException
        time.sleep(seconds)

    def _publisher(self, topic: str, kind: Any) -> Any:
        latched = topic == '/tf_static'
        return self._node.create_publisher(kind, topic, QoSProfile(
            depth=100 if latched else 20, reliability=ReliabilityPolicy.RELIABLE,
            durability=(DurabilityPolicy.TRANSIENT_LOCAL if latched
                        else DurabilityPolicy.VOLATILE)))

    def _message_class(self, name: str) -> Any:
        package, _, kind = name.split('/')
        try:
            return getattr(import_module(f'{package}.msg'), kind)
        except (ImportError, AttributeError):
            self._log(f'{name} is not installed: its topics are left out')
            return None

    def _log(self, text: str) -> None:
        self._node.get_logger().warning(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Play a bag.

    Returns
    -------
    int
        0 at the end of the bag and when told to stop, 2 when the bag cannot be read.

    """
    parser = argparse.ArgumentParser(description='Play a bag into the ROS graph.')
    parser.add_argument('bag', type=Path, help='folder of a bag, or its .mcap or .db3 file')
    parser.add_argument('--rate', type=float, default=1.0, help='speed, 1 is real time')
    parser.add_argument('--loop', action='store_true', help='start again at the end')
    parser.add_argument('--wait', type=float, default=60.0,
                        help='longest time to wait for a listener, in seconds')
    given = parser.parse_args(arguments)
    if not given.rate > 0:
        parser.error(f'the rate is {given.rate}, expected more than 0')
    prepare_transport()
    started = False
    try:
        with BagReader(given.bag) as bag:
            rclpy.init(args=[])
            started = True
            player = Player(bag, given.rate)
            player.wait_for_listeners(given.wait)
            while player.play() and given.loop:
                pass
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except (ValueError, OSError) as error:
        print(f'the bag cannot be played: {error}', file=sys.stderr)
        return 2
    except Exception:
        # Told to stop between two calls, rclpy answers the second one with an error of its own.
        if not started or rclpy.ok():
            raise
    finally:
        finish_undisturbed()
        rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())
