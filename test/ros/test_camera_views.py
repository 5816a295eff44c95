"""Messages of ROS to the view of a camera; made with rosbags, so that no ROS is needed."""

from __future__ import annotations

from masa_ros.ros.bag_definitions import BagMessageBuilder
from masa_ros.ros.camera_views import CameraViews
from masa_ros.ros.rotations import RotationTree, UnknownRotationError
import numpy as np
import pytest
from turning_messages import camera_info, LEFT, odometry, OPTICAL, S, transforms

BUILDER = BagMessageBuilder()


def test_odometry_and_where_the_camera_is_mounted_give_its_view() -> None:
    views = CameraViews(RotationTree(), 'map')
    views.add_odometry(odometry(BUILDER, LEFT, S))
    views.add_transforms(
        transforms(BUILDER, 'base_link', 'camera_optical', OPTICAL, 0), fixed=True)
    view = views.view(camera_info(BUILDER), 'camera_optical', S, 480, 640)
    # The robot has turned left by atan(1/4): it looks along (4, 1, 0) of odom.
    np.testing.assert_allclose(view.rotation @ [0, 0, 1], np.array([4, 1, 0]) / np.sqrt(17),
                               atol=1e-9)
    # From the corner of the first pixel, half a pixel before its centre.
    np.testing.assert_allclose(view.matrix, [[500, 0, 320.5], [0, 400, 240.5], [0, 0, 1.0]])


def test_without_odometry_the_fixed_frame_of_the_settings_counts() -> None:
    views = CameraViews(RotationTree(), 'map')
    views.add_transforms(transforms(BUILDER, 'map', 'camera_optical', LEFT, S), fixed=False)
    view = views.view(camera_info(BUILDER), 'camera_optical', S, 480, 640)
    np.testing.assert_allclose(view.rotation @ [4, 0, 0], np.array([16, 4, 0]) / np.sqrt(17),
                               atol=1e-9)


def test_the_intrinsics_are_those_of_the_image_that_came() -> None:
    views = CameraViews(RotationTree(), 'map')
    views.add_transforms(transforms(BUILDER, 'map', 'camera_optical', LEFT, S), fixed=False)
    # Every second row, the right half of the columns: 240.5 / 2 and 320.5 - 320.
    info = camera_info(BUILDER, binning_y=2, roi=(320, 0, 320, 480))
    view = views.view(info, 'camera_optical', S, 240, 320)
    np.testing.assert_allclose(view.matrix, [[500, 0, 0.5], [0, 200, 120.25], [0, 0, 1.0]])


def test_what_is_missing_is_said() -> None:
    views = CameraViews(RotationTree(), 'odom')
    with pytest.raises(UnknownRotationError, match='no camera_info'):
        views.view(None, 'camera_optical', S, 480, 640)
    with pytest.raises(UnknownRotationError, match='not connected'):
        views.view(camera_info(BUILDER), 'camera_optical', S, 480, 640)
    views.add_transforms(transforms(BUILDER, 'odom', 'camera_optical', OPTICAL, S), fixed=True)
    with pytest.raises(ValueError, match='calibrate'):
        views.view(camera_info(BUILDER, k=(0.0,) * 9), 'camera_optical', S, 480, 640)
