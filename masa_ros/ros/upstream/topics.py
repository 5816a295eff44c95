"""The upstream topics of a camera: their types are found at run time, then they are received."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
import time
from typing import Any

from masa_ros.ros.diagnostics import TopicState
from masa_ros.ros.intake import Intake
from masa_ros.ros.monitor import Monitor
from masa_ros.ros.parameters import AUTO, NodeConfig
from masa_ros.ros.subscription import MatchedSubscription
from masa_ros.ros.upstream import TYPES, UpstreamType
from masa_ros.ros.upstream.arrival import Arrival, read_head


def given_topics(node: Any) -> tuple[str, ...]:
    """Topics that the user gives, before the parameters are declared."""
    given = getattr(node, '_parameter_overrides', {}).get('detections.topics')
    value = None if given is None else given.value
    return tuple(map(str, value)) if isinstance(value, list | tuple) else ()


def topic_names(node: Any, camera: str, given: Sequence[str]) -> list[str]:
    """
    Resolve the names of a camera's upstream topics.

    Parameters
    ----------
    node : rclpy.node.Node
        Resolves and remaps them.
    camera : str
        Name of the camera, put in the place of ``{camera}``; empty for the only one.
    given : sequence of str
        The setting ``detections.topics``.

    """
    own = f'~/{camera}/input/detections' if camera else '~/input/detections'
    names = [name.replace('{camera}', camera) for name in given if name] or [own]
    return [node.resolve_topic_name(name) for name in names]


class DetectionTopics:
    """
    Receives detections from topics whose message types are not known before.

    Parameters
    ----------
    node : rclpy.node.Node
        Owner.
    names : sequence of str
        Resolved names.
    config : NodeConfig
        Settings of the node.
    intake : Intake
        Gets what comes.
    monitor : Monitor
        Counts what cannot be used.
    complain : callable
        Gets ``(what, text)`` for a warning; repeated ones are its business.
    report : callable
        Gets a text when publisher and subscription do not fit each other.

    """

    def __init__(
        self,
        node: Any,
        names: Sequence[str],
        config: NodeConfig,
        intake: Intake,
        monitor: Monitor,
        complain: Callable[[str, str], None],
        report: Callable[[str], None],
    ) -> None:
        self._node = node
        self._config = config
        self._intake = intake
        self._monitor = monitor
        self._complain = complain
        self._report = report
        self._topics = [_Topic(name, index) for index, name in enumerate(names)]
        self._after: Callable[[], None] = lambda: None

    @property
    def names(self) -> tuple[str, ...]:
        """Return the resolved names, in the order of the bits of ``TrackedObject.detected_by``."""
        return tuple(topic.name for topic in self._topics)

    @property
    def offered(self) -> bool:
        """Whether any topic that can be read had a publisher when last looked at."""
        return any(topic.publishers for topic in self._topics)

    def start(self, after: Callable[[], None]) -> None:
        """
        Start to receive, as soon as there is something to receive.

        Parameters
        ----------
        after : callable
            Called after every message that the intake got.

        """
        self._after = after
        for topic in self._topics:
            topic.received = 0
        self.match()

    def close(self) -> None:
        """Stop to receive."""
        for topic in self._topics:
            topic.close()

    def reconfigure(self, config: NodeConfig) -> None:
        """Take over changed settings."""
        self._config = config

    def match(self) -> None:
        """Look at the publishers again; call it now and then."""
        for topic in self._topics:
            infos = self._node.get_publishers_info_by_topic(topic.name)
            types = [info.topic_type for info in infos]
            try:
                self._subscribe(topic, self._choose(topic, set(types)))
                topic.error = ''
            except Exception as error:
                topic.close()
                topic.error = str(error)
                self._complain(topic.error, topic.error)
            topic.unread = self._unread(topic, set(types))
            if topic.unread:
                self._complain(topic.unread, topic.unread)
            if topic.subscription is not None:
                topic.subscription.match()
            topic.publishers = 0 if topic.kind is None else types.count(topic.kind.name)

    def states(self) -> list[TopicState]:
        """Return what is known about each topic."""
        now_s = time.monotonic()
        return [TopicState(
            topic.name, '' if topic.kind is None else topic.kind.name, topic.publishers,
            topic.received, self._intake.is_silent(topic.index, now_s), topic.error, topic.unread)
            for topic in self._topics]

    def _choose(self, topic: _Topic, offered: set[str]) -> UpstreamType | None:
        """Type to read from a topic; None while that cannot be told."""
        forced = self._config.detections.type_of(topic.index)
        if forced != AUTO:
            return TYPES[forced]
        if not offered:
            return topic.kind
        readable = sorted(offered & TYPES.keys())
        if topic.kind is not None and topic.kind.name in readable:
            return topic.kind
        if not readable:
            raise ValueError(
                f'{topic.name} carries {", ".join(sorted(offered))}, which is not among the '
                f'types that can be read: {", ".join(TYPES)}')
        if len(readable) > 1:
            raise ValueError(
                f'{topic.name} carries {" and ".join(readable)}, all of which can be read: choose '
                'one with detections.types, or give one publisher another topic')
        return TYPES[readable[0]]

    def _unread(self, topic: _Topic, offered: set[str]) -> str:
        """Say which types of a topic that is read are not; empty where the user chose."""
        if topic.kind is None or self._config.detections.type_of(topic.index) != AUTO:
            return ''
        others = sorted(offered - {topic.kind.name})
        if not others:
            return ''
        return (f'{topic.name} carries {topic.kind.name}, which is read because it was found '
                f'first, and {" and ".join(others)}, which is not: choose one with '
                'detections.types, or give one publisher another topic')

    def _subscribe(self, topic: _Topic, kind: UpstreamType | None) -> None:
        """Receive messages of a type, and no longer those of another."""
        if kind is None or (topic.subscription is not None and kind is topic.kind):
            return
        message_class = kind.message_class()
        topic.close()
        every = self._config.policy == 'every'
        # One message per object needs room for those of several images.
        depth = max(self._config.qos_depth, self._config.queue_size if every else 0,
                    1000 if kind.one_object else 0)
        topic.subscription = MatchedSubscription(
            self._node, message_class, topic.name, partial(self._on_message, topic, kind),
            self._config.reliability, depth, self._report,
            partial(self._monitor.problem, 'lost by the middleware'), raw=True)
        topic.kind = kind
        self._node.get_logger().info(f'detections from {topic.name}: {kind.name}')

    def _on_message(self, topic: _Topic, kind: UpstreamType, data: bytes) -> None:
        topic.received += 1
        try:
            head = read_head(data)
            if kind.counted and head.count > self._config.detections.max_objects:
                self._monitor.problem('messages with too many objects')
                self._complain('too many objects', f'{topic.name}: a message with {head.count} '
                               'objects is left out; raise detections.max_objects, now '
                               f'{self._config.detections.max_objects}, if that is right')
                return
            self._intake.add_detections(
                head.stamp_ns, Arrival(kind, head.frame_id, (data,)), time.monotonic(),
                topic.index)
        except ValueError as error:
            self._monitor.problem('messages that cannot be read')
            self._complain(f'message of {topic.name}', f'{topic.name}: {error}')
        except Exception as error:
            self._monitor.problem('bad detections')
            self._complain('detections callback', f'detections are dropped: '
                           f'{type(error).__name__}: {error}')
        self._after()


class _Topic:
    """One topic and what is received from it."""

    def __init__(self, name: str, index: int) -> None:
        self.name = name
        self.index = index
        self.kind: UpstreamType | None = None
        self.subscription: MatchedSubscription | None = None
        self.publishers = 0
        self.received = 0
        self.error = ''
        self.unread = ''

    def close(self) -> None:
        """Stop to receive."""
        if self.subscription is not None:
            self.subscription.close()
        self.subscription = self.kind = None
        self.publishers = 0
