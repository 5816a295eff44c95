"""The node's output topics; what costs time is made only while somebody subscribes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from masa_ros.msg import TrackedObjectArray
from masa_ros.ros.convert import (
    array_to_image,
    instances_to_detections,
    TrackInfo,
    tracks_to_label_image,
    tracks_to_message,
)
from masa_ros.ros.monitor import Monitor
from masa_ros.ros.subscription import publisher_options
from masa_ros.ros.track_bytes import can_write_bytes, tracks_to_bytes
from masa_ros.structures.instances import TrackedInstances
import numpy as np
from numpy.typing import NDArray
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image

try:
    from vision_msgs.msg import Detection2DArray as _Detection2DArray
except ImportError:
    _Detection2DArray = None

Detection2DArray: Any = _Detection2DArray
"""Message class, or None where vision_msgs is not installed."""

PUBLISH_ERRORS: tuple[type[Exception], ...] = (
    rclpy_implementation.RCLError, rclpy_implementation.InvalidHandle)
NAMES = ('tracks', 'detections', 'overlay', 'label_image')


class Outputs:
    """
    Publishers of the tracked objects and of their mirrors.

    All are reliable, which every subscriber can read, and silent unless the node is active.

    Parameters
    ----------
    node : rclpy.lifecycle.LifecycleNode
        Owner.
    monitor : Monitor
        Counts what cannot be published.
    complain : callable
        Gets ``(what, text)`` for a warning; repeated ones are its business.
    report : callable
        Gets a text when a subscriber's QoS does not fit.
    prefix : str
        Start of the names of the topics.

    """

    def __init__(
        self,
        node: Any,
        monitor: Monitor,
        complain: Callable[[str, str], None],
        report: Callable[[str], None],
        prefix: str = '~/',
    ) -> None:
        self._monitor = monitor
        self._complain = complain
        kinds = dict(zip(NAMES, (TrackedObjectArray, Detection2DArray, Image, Image),
                         strict=True))
        self._publishers = {
            name: node.create_lifecycle_publisher(
                kind, f'{prefix}output/{name}', QoSProfile(depth=5),
                **publisher_options(
                    node, node.resolve_topic_name(f'{prefix}output/{name}'), report))
            for name, kind in kinds.items() if kind is not None}

    def publish_tracks(
        self, tracks: TrackedInstances, header: Any, info: TrackInfo, embeddings: bool,
    ) -> None:
        """Publish the objects of an image."""
        make = tracks_to_bytes if can_write_bytes() else tracks_to_message
        self._send('tracks', lambda: make(tracks, header, info, embeddings=embeddings))

    def publish_mirrors(
        self, tracks: TrackedInstances, header: Any, image: NDArray[np.uint8],
    ) -> None:
        """Publish the other views of the objects, as far as somebody subscribes."""
        height, width = image.shape[:2]
        if self._wanted('detections'):
            self._send('detections', lambda: instances_to_detections(tracks, header))
        if self._wanted('label_image'):
            self._send('label_image', lambda: tracks_to_label_image(
                tracks, header, height, width))
        if self._wanted('overlay'):
            self._send('overlay', lambda: array_to_image(
                _overlay(image, tracks), 'rgb8', header))

    def _wanted(self, name: str) -> bool:
        publisher = self._publishers.get(name)
        return publisher is not None and publisher.get_subscription_count() > 0

    def _send(self, name: str, make: Callable[[], Any]) -> None:
        """Build and publish a message; an error costs this message only."""
        publisher = self._publishers[name]
        try:
            publisher.publish(make())
        except PUBLISH_ERRORS as error:
            # A full reliable writer says so in this way; the next message may go through.
            self._monitor.problem('publish failed')
            self._complain(f'publish {name}', f'{publisher.topic_name}: {error}')
        except Exception as error:
            self._monitor.problem(f'no {name}')
            self._complain(f'make {name}',
                           f'{publisher.topic_name}: {type(error).__name__}: {error}')


def _overlay(image: NDArray[np.uint8], tracks: TrackedInstances) -> NDArray[np.uint8]:
    """Picture with the objects drawn in; imported when first needed."""
    from masa_ros.visualization import draw_tracks
    return draw_tracks(image, tracks)
