"""From pixels of the sensor, which calibrations are in, to pixels of the image that came."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def image_from_sensor(info: Any, height_px: int, width_px: int) -> NDArray[np.float64]:
    """
    Return the matrix from pixels of the sensor to pixels of an image.

    Between the two lie the region of interest and the binning of the driver, and whatever scaled
    the image afterwards.

    Parameters
    ----------
    info : sensor_msgs/CameraInfo
        Calibration of the camera; without a size nothing has scaled the image.
    height_px, width_px : int
        Size of the image.

    Returns
    -------
    ndarray
        ``(3, 3)``. It takes ``(x, y, 1)`` as ``k`` and ``p`` give it, from the centre of the
        sensor's top-left pixel, to x and y as in `Instances`, from the outer corner of the
        image's top-left pixel.

    """
    binning = np.maximum((info.binning_x, info.binning_y), 1)
    # Drivers leave out the rest of a side that the binning does not divide.
    size = np.array([info.roi.width or info.width, info.roi.height or info.height]) // binning
    resized = np.where(size > 0, (width_px, height_px) / np.maximum(size, 1), 1.0)
    matrix = np.diag([*(resized / binning), 1.0])
    # From the pixel's centre to its corner, before anything is scaled.
    matrix[:2, 2] = resized / binning * (0.5 - np.array([info.roi.x_offset, info.roi.y_offset]))
    return matrix


def camera_matrix(info: Any, height_px: int, width_px: int) -> NDArray[np.float64]:
    """Intrinsic matrix ``(3, 3)`` of an unrectified image; see `image_from_sensor`."""
    matrix = np.array(info.k, np.float64).reshape(3, 3)
    return np.asarray(image_from_sensor(info, height_px, width_px) @ matrix)
