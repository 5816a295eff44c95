"""Pixels of the sensor to pixels of the image; numbers worked by hand, without ROS."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from masa_ros.ros.calibration import camera_matrix, image_from_sensor
import numpy as np
import pytest


def info(
    width: int = 640, height: int = 480, binning: tuple[int, int] = (0, 0),
    roi: tuple[int, int, int, int] = (0, 0, 0, 0),
) -> Any:
    """Calibration of a camera; the region is offset, then width and height."""
    return SimpleNamespace(
        width=width, height=height, binning_x=binning[0], binning_y=binning[1],
        roi=SimpleNamespace(x_offset=roi[0], y_offset=roi[1], width=roi[2], height=roi[3]),
        k=[500.0, 0.0, 320.0, 0.0, 400.0, 240.0, 0.0, 0.0, 1.0])


@pytest.mark.parametrize(('calibration', 'size', 'focal', 'center'), [
    # The whole sensor: half a pixel from the corner of the first pixel to its centre.
    (info(), (480, 640), (500, 400), (320.5, 240.5)),
    # Resized to a quarter of the width and half of the height: 320.5 / 4 and 240.5 / 2.
    (info(), (240, 160), (125, 200), (80.125, 120.25)),
    (info(binning=(2, 2)), (240, 320), (250, 200), (160.25, 120.25)),
    (info(binning=(2, 0)), (480, 320), (250, 400), (160.25, 240.5)),
    # The window counts in pixels of the sensor: 320.5 - 400 and 240.5 - 20.
    (info(roi=(400, 20, 200, 100)), (100, 200), (500, 400), (-79.5, 220.5)),
    (info(roi=(400, 20, 200, 100), binning=(2, 2)), (50, 100), (250, 200), (-39.75, 110.25)),
    # A window of 400 x 200, binned to 200 x 100, resized to 100 x 100.
    (info(roi=(100, 40, 400, 200), binning=(2, 2)), (100, 100), (125, 200), (55.125, 100.25)),
    # 641 columns make 320 of two, not a scaled image of 320.5.
    (info(641, 480, binning=(2, 2)), (240, 320), (250, 200), (160.25, 120.25)),
    # Where the calibration has no size, nothing tells of a scaled image.
    (info(0, 0), (240, 160), (500, 400), (320.5, 240.5)),
    (info(0, 0, binning=(2, 2)), (240, 160), (250, 200), (160.25, 120.25)),
])
def test_intrinsics_follow_region_binning_and_scaling(
    calibration: Any, size: tuple[int, int], focal: tuple[float, float],
    center: tuple[float, float],
) -> None:
    np.testing.assert_array_equal(
        camera_matrix(calibration, *size),
        [[focal[0], 0, center[0]], [0, focal[1], center[1]], [0, 0, 1]])


def test_the_corners_of_the_window_are_those_of_the_image() -> None:
    window = info(roi=(100, 40, 400, 200), binning=(2, 2))
    # From the centre of a pixel, its outer corner is half a pixel less.
    corners = np.array([[99.5, 39.5, 1], [499.5, 239.5, 1]])
    found = corners @ image_from_sensor(window, 150, 300).T
    np.testing.assert_allclose(found, [[0, 0, 1], [300, 150, 1]])
