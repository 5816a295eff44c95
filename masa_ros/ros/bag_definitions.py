"""
Message types for reading and writing bags without a ROS installation.

Types of ROS itself come from `rosbags`, ours from the ``.msg`` files of the checkout or of the
installed package, those of vision_msgs (which `rosbags` does not know) from the field lists below.
"""

from __future__ import annotations

import os
from pathlib import Path
import sys
from typing import Any

from masa_ros.ros.convert import MessageBuilder
import numpy as np
from numpy.typing import NDArray
from rosbags.interfaces import MessageDefinitionFormat
from rosbags.typesys import get_types_from_idl, get_types_from_msg, get_typestore, Stores

OUR_TYPES = ('TrackedObject', 'TrackedObjectArray')
TRACKS = 'masa_ros/msg/TrackedObjectArray'
DETECTIONS = 'vision_msgs/msg/Detection2DArray'
IMAGE = 'sensor_msgs/msg/Image'
COMPRESSED_IMAGE = 'sensor_msgs/msg/CompressedImage'

# Fields of vision_msgs 4, the version of Humble and later.
_VISION_MSGS = {
    'Point2D': 'float64 x\nfloat64 y\n',
    'Pose2D': 'vision_msgs/Point2D position\nfloat64 theta\n',
    'BoundingBox2D': 'vision_msgs/Pose2D center\nfloat64 size_x\nfloat64 size_y\n',
    'ObjectHypothesis': 'string class_id\nfloat64 score\n',
    'ObjectHypothesisWithPose':
        'vision_msgs/ObjectHypothesis hypothesis\ngeometry_msgs/PoseWithCovariance pose\n',
    'Detection2D':
        'std_msgs/Header header\nvision_msgs/ObjectHypothesisWithPose[] results\n'
        'vision_msgs/BoundingBox2D bbox\nstring id\n',
    'Detection2DArray': 'std_msgs/Header header\nvision_msgs/Detection2D[] detections\n',
}


def definition_folder() -> Path:
    """
    Folder of our ``.msg`` files: of the checkout, else of the installed package.

    Raises
    ------
    FileNotFoundError
        If there is none.

    """
    prefixes = [*os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep), sys.prefix]
    folders = [Path(__file__).resolve().parents[2] / 'msg',
               *(Path(prefix) / 'share' / 'masa_ros' / 'msg' for prefix in prefixes if prefix)]
    for folder in folders:
        if all((folder / f'{name}.msg').is_file() for name in OUR_TYPES):
            return folder
    raise FileNotFoundError(
        'the message definitions of masa_ros were not found in '
        + ', '.join(map(str, folders)) + '; source install/setup.bash, or install the package')


def make_typestore() -> Any:
    """Type store that knows ROS's messages, ours and the detections of vision_msgs."""
    store = get_typestore(Stores.ROS2_KILTED)
    types: dict[Any, Any] = {}
    for name, text in _VISION_MSGS.items():
        types.update(get_types_from_msg(text, f'vision_msgs/msg/{name}'))
    folder = definition_folder()
    for name in OUR_TYPES:
        text = (folder / f'{name}.msg').read_text()
        types.update(get_types_from_msg(text, f'masa_ros/msg/{name}'))
    store.register(types)
    return store


def typestore_for(definitions: dict[str, Any]) -> Any:
    """
    Type store in which the definitions that a bag carries go before ours.

    Parameters
    ----------
    definitions : dict
        Type name to ``rosbags`` message definition; types of ROS itself are left as they are.

    """
    store = make_typestore()
    plain = get_typestore(Stores.ROS2_KILTED)
    for name, definition in definitions.items():
        if name in plain.fielddefs:
            continue
        if definition.format == MessageDefinitionFormat.MSG:
            types = get_types_from_msg(definition.data, name)
        elif definition.format == MessageDefinitionFormat.IDL:
            types = get_types_from_idl(definition.data)
        else:
            continue
        types = {key: value for key, value in types.items() if key not in plain.fielddefs}
        for key in types:  # A bag of another version of the package may define a type anew.
            store.fielddefs.pop(key, None)
        store.register(types)
    return store


class BagMessageBuilder(MessageBuilder):
    """
    Makes messages that `rosbags` can write.

    Parameters
    ----------
    store : Typestore, optional
        Known types.

    """

    def __init__(self, store: Any = None) -> None:
        self.store = make_typestore() if store is None else store

    def make(self, name: str, **fields: Any) -> Any:
        """Message of a type such as ``sensor_msgs/msg/Image``."""
        return self.store.types[name](**fields)

    def numbers(self, values: NDArray[Any]) -> Any:
        """Numeric sequence fields are arrays."""
        return np.ascontiguousarray(values)
