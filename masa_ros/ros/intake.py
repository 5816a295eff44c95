"""From arriving messages to work for the model: stamps judged, detections joined."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from masa_ros.ros.clock import StampPolicy, StampVerdict
from masa_ros.ros.convert import stamp_to_ns
from masa_ros.ros.join import DetectionJoin, Joined
from masa_ros.ros.monitor import Monitor
from masa_ros.ros.parameters import NodeConfig


@dataclass(frozen=True)
class Work:
    """
    An image on its way to the model.

    Parameters
    ----------
    message : sensor_msgs/Image or sensor_msgs/CompressedImage
        The image as it came.
    stamp_ns : int
        Its stamp.
    received_s : float
        Monotonic time of its arrival.
    epoch : int
        Number of tracker resets before it; when it grows the tracker is reset first.
    detections : vision_msgs/Detection2DArray or None
        Its detections.
    empty : bool
        Take missing detections for an image without objects.

    """

    message: Any
    stamp_ns: int
    received_s: float
    epoch: int
    detections: Any = None
    empty: bool = False


class Intake:
    """
    Judges stamps, joins images with detections and hands both over; used from one thread.

    Parameters
    ----------
    config : NodeConfig
        Settings of the node.
    monitor : Monitor
        Counts what is dropped.
    hand_over : callable
        Gets each piece of work, in the order of the stamps.
    complain : callable
        Gets ``(what, text)`` for a warning; repeated ones are its business.

    """

    def __init__(
        self,
        config: NodeConfig,
        monitor: Monitor,
        hand_over: Callable[[Work], None],
        complain: Callable[[str, str], None],
    ) -> None:
        self.epoch = 0
        self.finds_objects = False
        """Whether objects can be found without detections from the topic."""
        self._config = config
        self._monitor = monitor
        self._hand_over = hand_over
        self._complain = complain
        self._stamps = StampPolicy(config.clock.jump_back_s, config.clock.jump_forward_s)
        self._join: DetectionJoin[Work, Any] = DetectionJoin(
            config.detections.tolerance_s, config.detections.wait_s, config.queue_size)

    def __len__(self) -> int:
        """Return how many images wait for detections."""
        return len(self._join)

    @property
    def deadline_s(self) -> float | None:
        """When `release` should be called, by the monotonic clock; None while nothing waits."""
        return self._join.deadline_s

    def reconfigure(self, config: NodeConfig) -> None:
        """Take over changed settings."""
        self._config = config
        self._stamps.jump_back_s = config.clock.jump_back_s
        self._stamps.jump_forward_s = config.clock.jump_forward_s
        self._join.tolerance_s = config.detections.tolerance_s
        self._join.wait_s = config.detections.wait_s

    def add_image(self, message: Any, now_s: float, waits: bool) -> None:
        """
        Take an image.

        Parameters
        ----------
        message : sensor_msgs/Image or sensor_msgs/CompressedImage
            The image.
        now_s : float
            Monotonic time of its arrival.
        waits : bool
            Whether it waits for detections from the topic.

        """
        self._monitor.received(now_s)
        stamp_ns = stamp_to_ns(message.header.stamp)
        if not self._judge(stamp_ns):
            return
        work = Work(message, stamp_ns, now_s, self.epoch)
        if waits:
            pushed_out = self._join.pushed_out
            self._submit(self._join.add_image(stamp_ns, work, now_s))
            if self._join.pushed_out > pushed_out:
                self._monitor.problem('pushed out of the queue')
                self._complain('pushed out', f'more than {self._join.capacity} images wait for '
                               'their detections, the oldest are left out: raise queue_size or '
                               'lower detections.wait_s')
        else:
            # Those that waited until now are older, and go first.
            self._submit(self._join.clear())
            self._hand_over(work)

    def add_detections(self, message: Any, now_s: float) -> None:
        """Take the detections of an image that has come or will come."""
        stamp_ns = stamp_to_ns(message.header.stamp)
        if self._join.is_late(stamp_ns):
            self._monitor.problem('late detections')
            self._complain('late detections', 'detections come after their image was left out: '
                           f'raise detections.wait_s, now {self._config.detections.wait_s} s')
        unused = self._join.unused_detections
        self._submit(self._join.add_detections(stamp_ns, message, now_s))
        self._monitor.problem('unused detections', self._join.unused_detections - unused)

    def release(self, now_s: float) -> None:
        """Let images go that have waited long enough."""
        self._submit(self._join.release(now_s))

    def reset(self) -> int:
        """Start anew with the next image, whatever its stamp; returns the number of resets."""
        self.epoch += 1
        self._stamps.reset()
        return self.epoch

    def stop(self) -> None:
        """Forget everything that waits."""
        self._monitor.dropped('stopped', len(self._join.clear()))
        self._stamps.reset()

    def _judge(self, stamp_ns: int) -> bool:
        """Whether an image with this stamp is used; a jump starts anew first."""
        verdict = self._stamps.judge(stamp_ns)
        if verdict in (StampVerdict.JUMP_BACK, StampVerdict.JUMP_FORWARD):
            self._submit(self._join.restart(stamp_ns))
            self.epoch += 1
            self._monitor.problem('clock jumps')
            self._complain(
                f'jump {self.epoch}', f'{verdict.value} of the image stamps, to '
                f'{stamp_ns / 1e9:.3f} s: the tracker starts anew (reset {self.epoch})')
        elif verdict is not StampVerdict.USE:
            reason = f'{verdict.value} stamp'
            self._monitor.dropped(reason)
            self._complain(reason, f'image with a {reason} ({stamp_ns / 1e9:.3f} s) is dropped')
            return False
        return True

    def _submit(self, joined: Sequence[Joined[Work, Any]]) -> None:
        """Hand joined images over, those without detections as the settings say."""
        missing = self._config.detections.missing
        for entry in joined:
            if entry.detections is not None:
                self._hand_over(replace(entry.image, detections=entry.detections))
            elif missing == 'empty':
                self._hand_over(replace(entry.image, empty=True))
            elif missing == 'propose' and self.finds_objects:
                self._hand_over(entry.image)
            else:
                self._monitor.dropped('without detections')
                self._complain('without detections', 'images are left out: no detections came '
                               'for them')
