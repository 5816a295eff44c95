"""Messages of ROS to the view of a camera; made with rosbags, so that no ROS is needed."""

from __future__ import annotations

from masa_ros.ros.bag_definitions import BagMessageBuilder
from masa_ros.ros.camera_views import camera_matrix, CameraViews
from masa_ros.ros.rotations import RotationTree, UnknownRotationError
import numpy as np
import pytest
from turning_messages import camera_info, K, LEFT, odometry, OPTICAL, S, transforms

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
    np.testing.assert_allclose(view.matrix, np.reshape(K, (3, 3)))


def test_without_odometry_the_fixed_frame_of_the_settings_counts() -> None:
    views = CameraViews(RotationTree(), 'map')
    views.add_transforms(transforms(BUILDER, 'map', 'camera_optical', LEFT, S), fixed=False)
    view = views.view(camera_info(BUILDER), 'camera_optical', S, 480, 640)
    np.testing.assert_allclose(view.rotation @ [4, 0, 0], np.array([16, 4, 0]) / np.sqrt(17),
                               atol=1e-9)


def test_the_intrinsics_are_scaled_to_a_smaller_copy_of_the_image() -> None:
    np.testing.assert_allclose(camera_matrix(camera_info(BUILDER), 240, 160),
                               [[125, 0, 80], [0, 200, 120], [0, 0, 1]])
    np.testing.assert_allclose(camera_matrix(camera_info(BUILDER, height=0, width=0), 240, 160),
                               np.reshape(K, (3, 3)))


def test_what_is_missing_is_said() -> None:
    views = CameraViews(RotationTree(), 'odom')
    with pytest.raises(UnknownRotationError, match='no camera_info'):
        views.view(None, 'camera_optical', S, 480, 640)
    with pytest.raises(UnknownRotationError, match='not connected'):
        views.view(camera_info(BUILDER), 'camera_optical', S, 480, 640)
    views.add_transforms(transforms(BUILDER, 'odom', 'camera_optical', OPTICAL, S), fixed=True)
    with pytest.raises(ValueError, match='calibrate'):
        views.view(camera_info(BUILDER, k=(0.0,) * 9), 'camera_optical', S, 480, 640)
