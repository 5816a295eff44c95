"""From arriving messages to work for the model: stamps judged, detections joined."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

from masa_ros.ros.clock import StampPolicy, StampVerdict
from masa_ros.ros.convert import stamp_to_ns
from masa_ros.ros.join import DetectionJoin, Joined
from masa_ros.ros.monitor import Monitor
from masa_ros.ros.parameters import NodeConfig
from masa_ros.ros.upstream.arrival import Arrival


class Origin(IntEnum):
    """Where the boxes of an image come from; ``TrackedObjectArray.detections``."""

    OWN = 0
    """From inside the node; no upstream topic was waited for."""
    UPSTREAM = 1
    """From all upstream topics that were due."""
    PARTIAL = 2
    """From some upstream topics; others were due and did not come in time."""
    PROPOSED = 3
    """None came in time: from inside the node instead."""
    EMPTY = 4
    """None came in time: taken for an image without objects."""


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
    detections : tuple of Arrival or None
        What came from each upstream topic; ``None`` for a topic that gave nothing. Empty where
        the boxes do not come from topics.
    origin : Origin
        Where the boxes come from.

    """

    message: Any
    stamp_ns: int
    received_s: float
    epoch: int
    detections: tuple[Arrival | None, ...] = ()
    origin: Origin = Origin.OWN


@dataclass
class _Group:
    """Messages of one image that come one by one, each with one object."""

    stamp_ns: int
    arrival: Arrival
    payloads: list[bytes]
    deadline_s: float


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
    sources : int
        Number of upstream topics.

    """

    def __init__(
        self,
        config: NodeConfig,
        monitor: Monitor,
        hand_over: Callable[[Work], None],
        complain: Callable[[str, str], None],
        sources: int = 1,
    ) -> None:
        self.epoch = 0
        self.finds_objects = False
        """Whether objects can be found without detections from the topic."""
        self._config = config
        self._monitor = monitor
        self._hand_over = hand_over
        self._complain = complain
        self._stamps = StampPolicy(config.clock.jump_back_s, config.clock.jump_forward_s)
        self._join: DetectionJoin[Work, Arrival] = DetectionJoin(
            config.detections.tolerance_s, config.detections.wait_s, config.queue_size, sources)
        self._groups: dict[int, _Group] = {}
        self._frame_id = ''

    def __len__(self) -> int:
        """Return how many images wait for detections."""
        return len(self._join)

    @property
    def deadline_s(self) -> float | None:
        """When `release` should be called, by the monotonic clock; None while nothing waits."""
        deadlines = [group.deadline_s for group in self._groups.values()]
        if self._join.deadline_s is not None:
            deadlines.append(self._join.deadline_s)
        return min(deadlines, default=None)

    def is_silent(self, source: int, now_s: float) -> bool:
        """Whether images do not wait for an upstream topic any more."""
        return self._join.is_silent(source, now_s)

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
            Whether it waits for detections from upstream topics.

        """
        self._monitor.received(now_s)
        stamp_ns = stamp_to_ns(message.header.stamp)
        if not self._judge(stamp_ns):
            return
        self._frame_id = message.header.frame_id
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

    def add_detections(
        self, stamp_ns: int, arrival: Arrival, now_s: float, source: int = 0,
    ) -> None:
        """
        Take detections of an image that has come or will come.

        Parameters
        ----------
        stamp_ns : int
            Stamp in their header.
        arrival : Arrival
            The message. Where each message holds one object, those with one stamp are gathered
            until one with another stamp comes, or for ``detections.gather_s``.
        now_s : float
            Monotonic time of its arrival.
        source : int
            Which of the upstream topics it came on.

        """
        if (self._config.detections.other_frames == 'drop'
                and not self._is_of_the_camera(arrival.frame_id, self._frame_id)):
            return
        if not arrival.kind.one_object:
            self._join_detections(stamp_ns, arrival, now_s, source)
            return
        group = self._groups.get(source)
        if group is not None and group.stamp_ns == stamp_ns:
            if len(group.payloads) >= self._config.detections.max_objects:
                self._monitor.problem('messages with too many objects')
                return
            group.payloads += arrival.payloads
            group.deadline_s = now_s + self._config.detections.gather_s
            return
        if group is not None:
            self._join_group(source, now_s)
        self._groups[source] = _Group(
            stamp_ns, arrival, list(arrival.payloads),
            now_s + self._config.detections.gather_s)

    def release(self, now_s: float) -> None:
        """Let images go that have waited long enough."""
        deadline_s = self._join.deadline_s
        last_chance = deadline_s is not None and now_s >= deadline_s
        for source in [source for source, group in self._groups.items()
                       if last_chance or now_s >= group.deadline_s]:
            self._join_group(source, now_s)
        self._submit(self._join.release(now_s))

    def _is_of_the_camera(self, given: str, expected: str) -> bool:
        """Compare coordinate frames: another camera's detections can have the same stamps."""
        if not given or not expected or given.strip('/') == expected.strip('/'):
            return True
        used = self._config.detections.other_frames == 'use'
        self._monitor.problem('detections of another frame')
        self._complain('frame ' + given, f'detections have the frame {given!r}, the images '
                       f'{expected!r}: they are ' + ('used nevertheless' if used else (
                           'left out; set detections.other_frames to use if they are right')))
        return False

    def _usable(self, entry: Joined[Work, Arrival]) -> tuple[Arrival | None, ...]:
        """Parts of an image; those that came before its frame was known are checked now."""
        expected = entry.image.message.header.frame_id
        use = self._config.detections.other_frames == 'use'
        return tuple(
            part if part is None or self._is_of_the_camera(part.frame_id, expected) or use
            else None for part in entry.parts)

    def _join_group(self, source: int, now_s: float) -> None:
        group = self._groups.pop(source)
        arrival = replace(group.arrival, payloads=tuple(group.payloads))
        self._join_detections(group.stamp_ns, arrival, now_s, source)

    def _join_detections(
        self, stamp_ns: int, arrival: Arrival, now_s: float, source: int,
    ) -> None:
        if self._join.is_late(stamp_ns, source):
            self._monitor.problem('late detections')
            self._complain('late detections', 'detections come after their image went on without '
                           'them: raise detections.wait_s, now '
                           f'{self._config.detections.wait_s} s')
        unused = self._join.unused_detections
        self._submit(self._join.add_detections(stamp_ns, arrival, now_s, source))
        self._monitor.problem('unused detections', self._join.unused_detections - unused)

    def reset(self) -> int:
        """Start anew with the next image, whatever its stamp; returns the number of resets."""
        self.epoch += 1
        self._stamps.reset()
        return self.epoch

    def stop(self) -> None:
        """Forget everything that waits."""
        self._monitor.dropped('stopped', len(self._join.clear()))
        self._groups.clear()
        self._frame_id = ''
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

    def _submit(self, joined: Sequence[Joined[Work, Arrival]]) -> None:
        """Hand joined images over, those without detections as the settings say."""
        missing = self._config.detections.missing
        for entry in joined:
            parts = self._usable(entry)
            if any(part is not None for part in parts):
                if any(entry.late):
                    self._monitor.problem('images with detections of some topics only')
                self._hand_over(replace(
                    entry.image, detections=parts,
                    origin=Origin.PARTIAL if any(entry.late) else Origin.UPSTREAM))
            elif missing == 'empty':
                self._monitor.problem('images taken for empty')
                self._hand_over(replace(entry.image, origin=Origin.EMPTY))
            elif missing == 'propose' and self.finds_objects:
                self._monitor.problem('images with own proposals')
                self._hand_over(replace(entry.image, origin=Origin.PROPOSED))
            else:
                self._monitor.dropped('without detections')
                self._complain('without detections', 'images are left out: no detections came '
                               'for them')
