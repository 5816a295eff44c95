"""Which way a camera looked at an image, from messages of ROS; without rclpy, for bags too."""

from __future__ import annotations

from typing import Any

from masa_ros.ros.calibration import camera_matrix
from masa_ros.ros.convert import stamp_to_ns
from masa_ros.ros.rotations import RotationTree, UnknownRotationError
from masa_ros.structures.frame import CameraView

ODOMETRY = 'nav_msgs/msg/Odometry'
TRANSFORMS = 'tf2_msgs/msg/TFMessage'
CAMERA_INFO = 'sensor_msgs/msg/CameraInfo'
TF, TF_STATIC = '/tf', '/tf_static'


class CameraViews:
    """
    Looks up the rotation of cameras.

    Parameters
    ----------
    tree : RotationTree
        Filled with what comes.
    fixed_frame : str
        Frame that does not turn with the cameras; that of the odometry goes before it.

    """

    def __init__(self, tree: RotationTree, fixed_frame: str) -> None:
        self.tree = tree
        self.fixed_frame = fixed_frame
        self._odometry_frame = ''

    def add_odometry(self, message: Any) -> None:
        """Take a ``nav_msgs/Odometry``."""
        self._odometry_frame = message.header.frame_id
        self._add(message.header, message.child_frame_id, message.pose.pose.orientation, False)

    def add_transforms(self, message: Any, fixed: bool) -> None:
        """Take a ``tf2_msgs/TFMessage`` of /tf, or of /tf_static where it is `fixed`."""
        for entry in message.transforms:
            self._add(entry.header, entry.child_frame_id, entry.transform.rotation, fixed)

    def view(
        self, info: Any, frame_id: str, stamp_ns: int, height_px: int, width_px: int,
    ) -> CameraView:
        """
        Return which way a camera looked.

        Parameters
        ----------
        info : sensor_msgs/CameraInfo or None
            Its calibration.
        frame_id : str
            Optical frame of the image.
        stamp_ns : int
            Stamp of the image.
        height_px, width_px : int
            Size of the image, which may be a scaled copy.

        Raises
        ------
        UnknownRotationError
            If something is missing; the text says what.
        ValueError
            If the camera is not calibrated.

        """
        if info is None:
            raise UnknownRotationError('no camera_info has come')
        fixed = self._odometry_frame or self.fixed_frame
        return CameraView(camera_matrix(info, height_px, width_px),
                          self.tree.rotation(frame_id, fixed, stamp_ns))

    def _add(self, header: Any, child: str, turn: Any, fixed: bool) -> None:
        stamp_ns = None if fixed else stamp_to_ns(header.stamp)
        self.tree.add(header.frame_id, child, (turn.x, turn.y, turn.z, turn.w), stamp_ns)
