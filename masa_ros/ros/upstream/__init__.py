"""
Detections of other packages: which messages are read, and by what.

A message package is imported when a topic with its type appears, never before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
import os
from typing import Any

from masa_ros.ros.convert import LabelTable
from masa_ros.ros.upstream.found import Found

Reader = Callable[[Sequence[Any], LabelTable], Found]
"""All messages of one image to detections."""


@dataclass(frozen=True)
class UpstreamType:
    """
    A message type that can be read.

    Parameters
    ----------
    name : str
        Full name, such as ``vision_msgs/msg/Detection2DArray``.
    module, function : str
        Where its `Reader` is.
    source : str
        How to get the package where apt does not have it; empty where it does.
    one_object : bool
        Whether each message holds one object, and those with equal stamps make an image's.
    counted : bool
        Whether the number behind the header is that of the objects.

    """

    name: str
    module: str
    function: str = 'read_array'
    source: str = ''
    one_object: bool = False
    counted: bool = True

    @property
    def package(self) -> str:
        """Package of the message."""
        return self.name.partition('/')[0]

    def reader(self) -> Reader:
        """Return what reads the messages."""
        found: Reader = getattr(import_module(f'masa_ros.ros.upstream.{self.module}'),
                                self.function)
        return found

    def message_class(self) -> Any:
        """
        Import the message class.

        Raises
        ------
        ValueError
            If its package is not installed; the text says how to install it.

        """
        try:
            return getattr(import_module(f'{self.package}.msg'), self.name.rpartition('/')[2])
        except (ImportError, AttributeError) as error:
            raise ValueError(
                f'{self.name} cannot be read: {self.package} is not installed here ({error}); '
                f'{self._advice()}, then source it and start the node again') from error

    def _advice(self) -> str:
        if self.source:
            return f'build it from {self.source} in your workspace'
        distribution = os.environ.get('ROS_DISTRO', '<distro>')
        return f'sudo apt install ros-{distribution}-{self.package.replace("_", "-")}'


TYPES: dict[str, UpstreamType] = {entry.name: entry for entry in (
    UpstreamType('vision_msgs/msg/Detection2DArray', 'vision'),
    UpstreamType('vision_msgs/msg/Detection2D', 'vision', 'read_objects', one_object=True,
                 counted=False),
    UpstreamType('yolo_msgs/msg/DetectionArray', 'yolo',
                 source='https://github.com/mgonzs13/yolo_ros'),
    UpstreamType('tier4_perception_msgs/msg/DetectedObjectsWithFeature', 'tier4',
                 source='https://github.com/tier4/tier4_autoware_msgs'),
    UpstreamType('masa_ros/msg/TrackedObjectArray', 'own', source='this package',
                 counted=False),
)}
"""Every message type that can be read, by name."""
