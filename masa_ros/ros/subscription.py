"""A subscription whose reliability follows its publishers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.clock import Clock, ClockType  # type: ignore[attr-defined]
from rclpy.qos import HistoryPolicy, QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

try:
    from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import PublisherEventCallbacks, SubscriptionEventCallbacks


class MatchedSubscription:
    """
    Subscribes with the reliability that the publishers offer, also when they come later.

    A best-effort subscription receives from every publisher, but large images may be lost on the
    way; a reliable one receives nothing from a best-effort publisher. So it is reliable exactly
    when all publishers are. Before there are any it is reliable: a reliable publisher that comes
    then loses nothing, and a best-effort one makes itself known by not fitting.

    Parameters
    ----------
    node : rclpy.node.Node
        Owner.
    kind : type
        Message class.
    topic : str
        Resolved topic name.
    callback : callable
        Gets every message.
    reliability : str
        ``auto``, ``best_effort`` or ``reliable``. A ``qos_overrides`` parameter goes before it.
    depth : int
        Messages to hold.
    report : callable
        Gets a text when publisher and subscription do not fit each other.
    lost : callable
        Gets a number of messages that the middleware could not deliver.
    raw : bool
        Whether the callback gets serialized messages.

    """

    def __init__(
        self,
        node: Any,
        kind: Any,
        topic: str,
        callback: Callable[[Any], None],
        reliability: str,
        depth: int,
        report: Callable[[str], None],
        lost: Callable[[int], None],
        raw: bool = False,
    ) -> None:
        self.topic = topic
        self._raw = raw
        self._node = node
        self._kind = kind
        self._callback = callback
        self._depth = depth
        self._report = report
        self._lost = lost
        # Only policies that the user gave are declared: once declared they would fix what
        # follows the publishers or a parameter.
        self._overridden = overridden_policies(node, topic, 'subscription')
        self._automatic = (reliability == 'auto'
                           and QoSPolicyKind.RELIABILITY not in self._overridden)
        self._offered: ReliabilityPolicy | None = None
        self._rematch: Any = None
        wanted = ReliabilityPolicy.RELIABLE
        if self._automatic:
            wanted = self._offer() or wanted
        elif reliability == 'best_effort':
            wanted = ReliabilityPolicy.BEST_EFFORT
        self._subscription = self._subscribe(wanted)
        self.offered = bool(self._publishers())
        """Whether the topic had a publisher when last looked at."""

    @property
    def reliability(self) -> str:
        """Reliability in force: ``best_effort`` or ``reliable``."""
        return str(self._subscription.qos_profile.reliability.name).lower()

    def match(self) -> None:
        """Look at the publishers again; call it now and then."""
        if self._rematch is not None:
            self._node.destroy_timer(self._rematch)
            self._rematch = None
        self._report_other_types()
        self.offered = bool(self._publishers())
        if not self._automatic:
            return
        offered = self._offer()
        if offered is None or offered == self._subscription.qos_profile.reliability:
            return
        self._node.get_logger().info(
            f'{self.topic}: its publisher is {offered.name.lower()}, subscribing so')
        self._node.destroy_subscription(self._subscription)
        self._subscription = self._subscribe(offered)

    def close(self) -> None:
        """Stop receiving."""
        if self._rematch is not None:
            self._node.destroy_timer(self._rematch)
        self._node.destroy_subscription(self._subscription)

    def _subscribe(self, reliability: ReliabilityPolicy) -> Any:
        profile = QoSProfile(
            history=HistoryPolicy.KEEP_LAST, depth=self._depth, reliability=reliability)
        return self._node.create_subscription(
            self._kind, self.topic, self._callback, profile,
            event_callbacks=SubscriptionEventCallbacks(
                incompatible_qos=self._incompatible,
                message_lost=lambda event: self._lost(event.total_count_change)),
            qos_overriding_options=QoSOverridingOptions(self._overridden), raw=self._raw)

    def _publishers(self) -> list[Any]:
        infos = self._node.get_publishers_info_by_topic(self.topic)
        return [info for info in infos if info.topic_type == _type_name(self._kind)]

    def _offer(self) -> ReliabilityPolicy | None:
        """Return the best reliability that all publishers offer; None without publishers."""
        offers = {info.qos_profile.reliability for info in self._publishers()}
        if not offers:
            return None
        return (ReliabilityPolicy.RELIABLE if offers == {ReliabilityPolicy.RELIABLE}
                else ReliabilityPolicy.BEST_EFFORT)

    def _report_other_types(self) -> None:
        """Say when the topic carries something else, which ROS passes over in silence."""
        infos = self._node.get_publishers_info_by_topic(self.topic)
        others = {info.topic_type for info in infos} - {_type_name(self._kind)}
        if others:
            self._report(f'{self.topic} carries {", ".join(sorted(others))}, but this node reads '
                         f'{_type_name(self._kind)} there')

    def _incompatible(self, event: Any) -> None:
        if self._automatic and self._offer() == ReliabilityPolicy.BEST_EFFORT:
            # Not here: this is a callback of the subscription that is to be replaced.
            self._rematch = self._rematch or self._node.create_timer(
                0.0, self.match, clock=Clock(clock_type=ClockType.STEADY_TIME))
            return
        policy = getattr(event, 'last_policy_kind', None)
        self._report(
            f'{self.topic}: the QoS of a publisher does not fit this subscription '
            f'({_policy_name(policy)}), nothing arrives from it; set the parameter reliability '
            f'or qos_overrides.{self.topic}.subscription.*')


def overridden_policies(node: Any, topic: str, role: str) -> list[QoSPolicyKind]:
    """Policies of a ``publisher`` or ``subscription`` that the user set by ``qos_overrides``."""
    given = getattr(node, '_parameter_overrides', {})
    return [kind for kind in QoSPolicyKind
            if f'qos_overrides.{topic}.{role}.{kind.name.lower()}' in given]


def publisher_options(
    node: Any, topic: str, report: Callable[[str], None],
) -> dict[str, Any]:
    """Return keyword arguments of ``create_publisher``: overridable QoS, mismatches reported."""
    kinds = {QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY,
             *overridden_policies(node, topic, 'publisher')}

    def incompatible(event: Any) -> None:
        policy = getattr(event, 'last_policy_kind', None)
        report(f'{topic}: the QoS that a subscriber asks for is not offered '
               f'({_policy_name(policy)}), it receives nothing; set '
               f'qos_overrides.{topic}.publisher.*')

    return {'event_callbacks': PublisherEventCallbacks(incompatible_qos=incompatible),
            'qos_overriding_options': QoSOverridingOptions(sorted(kinds))}


def _policy_name(kind: Any) -> str:
    """Return the name of the policy of an incompatible-QoS event."""
    try:
        from rclpy.qos import qos_policy_name_from_kind
        return str(qos_policy_name_from_kind(kind)).lower()
    except (ImportError, ValueError, TypeError):
        return f'policy {kind}'


def _type_name(kind: Any) -> str:
    """Return the full name, such as ``sensor_msgs/msg/Image``."""
    package, middle = kind.__module__.split('.')[:2]
    return f'{package}/{middle}/{kind.__name__}'
