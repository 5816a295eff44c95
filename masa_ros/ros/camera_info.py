"""Calibration of a camera: passed on beside its tracks, and for what needs its intrinsics."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from masa_ros.ros.convert import stamp_to_ns
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo

# Calibrations that wait for their image; they come about as fast as the images.
KEPT = 50


class CameraInfoRelay:
    """
    Publishes the camera's ``CameraInfo`` with the header of every processed image.

    It subscribes only while somebody listens to it, or while the node itself needs it. A
    calibration with the image's own stamp goes before the newest one.

    Parameters
    ----------
    node : rclpy.lifecycle.LifecycleNode
        Owner of the topics.
    prefix : str
        Start of the names of the camera's topics.

    """

    def __init__(self, node: Any, prefix: str) -> None:
        self._node = node
        self._topic = f'{prefix}input/camera_info'
        self._publisher = node.create_lifecycle_publisher(
            CameraInfo, f'{prefix}output/camera_info', QoSProfile(depth=5))
        self._subscription: Any = None
        self._known: OrderedDict[int, Any] = OrderedDict()
        self._newest: Any = None
        self.needed = False
        """Whether the node itself needs the calibration."""

    def look_at_graph(self) -> None:
        """Subscribe once somebody listens, and stop when nobody does any more."""
        wanted = self.needed or self._publisher.get_subscription_count() > 0
        if wanted and self._subscription is None:
            # Every publisher fits a best-effort subscription, and a message that is lost is
            # replaced by the one before.
            self._subscription = self._node.create_subscription(
                CameraInfo, self._topic, self._receive,
                QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT))
        elif not wanted:
            self.close()

    def publish(self, header: Any) -> None:
        """Send the calibration of an image, if there is one."""
        info = self.find(stamp_to_ns(header.stamp))
        if info is not None and self._subscription is not None:
            info.header = header
            self._publisher.publish(info)

    def find(self, stamp_ns: int) -> Any:
        """Return the calibration of an image, or None while there is none."""
        # The other thread may forget both at any time.
        return self._known.get(stamp_ns) or self._newest

    def close(self) -> None:
        """Stop to receive."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None
            self._known.clear()
            self._newest = None

    def _receive(self, message: Any) -> None:
        self._newest = message
        self._known[stamp_to_ns(message.header.stamp)] = message
        while len(self._known) > KEPT:
            self._known.popitem(last=False)
