"""How the robot turns, from topics: odometry, or /tf, with /tf_static for what is bolted on."""

from __future__ import annotations

from functools import partial
from typing import Any

from masa_ros.ros.camera_views import CameraViews, TF, TF_STATIC
from masa_ros.ros.parameters import OdometryConfig
from masa_ros.ros.rotations import RotationTree
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

try:
    from nav_msgs.msg import Odometry as _Odometry
except ImportError:
    _Odometry = None
try:
    from tf2_msgs.msg import TFMessage as _TFMessage
except ImportError:
    _TFMessage = None

Odometry: Any = _Odometry
TFMessage: Any = _TFMessage
"""Message classes, or None where their packages are not installed."""

# Rotations that are remembered; images wait less than this for their detections.
KEEP_S = 10.0
# Every publisher fits a best-effort subscription, and a pose that is lost is followed by others.
_MOVING = QoSProfile(depth=100, reliability=ReliabilityPolicy.BEST_EFFORT)
_STATIC = QoSProfile(history=HistoryPolicy.KEEP_ALL, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Turning:
    """
    Subscribes to what tells how the cameras turn, while that is wanted and the node is active.

    Parameters
    ----------
    node : rclpy.node.Node
        Owner of the subscriptions.
    config : OdometryConfig
        Topic, fixed frame and tolerance.

    """

    def __init__(self, node: Any, config: OdometryConfig) -> None:
        self.wanted = False
        """Whether the tracker takes the turning of the cameras out."""
        self._node = node
        self._topic = config.topic
        self._active = False
        self._subscriptions: list[Any] = []
        self.views = CameraViews(RotationTree(config.tolerance_s, KEEP_S), config.fixed_frame)

    def reconfigure(self, config: OdometryConfig, wanted: bool) -> None:
        """Take over changed settings."""
        self._topic, self.wanted = config.topic, wanted
        self.views.fixed_frame = config.fixed_frame
        self.views.tree.tolerance_s = config.tolerance_s
        self._follow()

    def subscribe(self) -> None:
        """Start to receive, where it is wanted."""
        self._active = True
        self._follow()

    def unsubscribe(self) -> None:
        """Stop to receive and forget."""
        self._active = False
        self._follow()

    def _follow(self) -> None:
        """Have exactly the subscriptions that are wanted now."""
        wanted = self._active and self.wanted
        if wanted and not self._subscriptions:
            self._open()
        elif not wanted and self._subscriptions:
            for subscription in self._subscriptions:
                self._node.destroy_subscription(subscription)
            self._subscriptions.clear()
            self.views.tree.clear()

    def _open(self) -> None:
        create = self._node.create_subscription
        if self._topic and Odometry is not None:
            self._subscriptions.append(create(
                Odometry, self._topic, self.views.add_odometry, _MOVING))
        if TFMessage is not None:
            self._subscriptions.append(create(
                TFMessage, TF_STATIC, partial(self.views.add_transforms, fixed=True), _STATIC))
            if not self._topic:
                self._subscriptions.append(create(
                    TFMessage, TF, partial(self.views.add_transforms, fixed=False), _MOVING))
        missing = [name for name, kind in (('nav_msgs', Odometry if self._topic else True),
                                           ('tf2_msgs', TFMessage)) if kind is None]
        if missing:
            self._node.get_logger().warning(
                f'{" and ".join(missing)} is not installed, so tracker.camera_motion odometry '
                'does not learn how the cameras turn; install it or use registration')
