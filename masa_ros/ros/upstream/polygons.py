"""Masks from polygons."""

from __future__ import annotations

import cv2
from masa_ros.structures.masks import encode_crop, RoiMask
import numpy as np
from numpy.typing import NDArray

MAX_POINTS = 100_000
MAX_SIDE = 2**15


def polygon_mask(
    points: NDArray[np.float64], height_px: int, width_px: int,
) -> tuple[RoiMask | None, str]:
    """
    Fill a polygon whose corners are pixels, the border included.

    Parameters
    ----------
    points : ndarray
        ``(N, 2)`` x and y of pixels, as contour finders give them: 0 is the first pixel.
    height_px, width_px : int
        Size of the image; the mask is cut to it.

    Returns
    -------
    RoiMask or None
        The mask; ``None`` where there is none.
    str
        Why there is none; empty when there is one.

    """
    if len(points) < 3:
        return None, 'polygons with less than 3 points'
    if len(points) > MAX_POINTS:
        return None, f'polygons with more than {MAX_POINTS} points'
    if not np.isfinite(points).all():
        return None, 'polygons with points that are not finite'
    if not (0 < height_px <= MAX_SIDE and 0 < width_px <= MAX_SIDE):
        return None, 'polygons without the size of their image'
    # Far outside is as good as just outside, and safe for the integers of OpenCV.
    corners = np.clip(points, -2 * MAX_SIDE, 2 * MAX_SIDE).round().astype(np.int32)
    x0, y0 = np.maximum(corners.min(axis=0), 0).tolist()
    x1, y1 = np.minimum(corners.max(axis=0) + 1, (width_px, height_px)).tolist()
    if x1 <= x0 or y1 <= y0:
        return None, 'polygons outside the image'
    crop = np.zeros((y1 - y0, x1 - x0), np.uint8)
    cv2.fillPoly(crop, [corners - np.array([x0, y0], np.int32)], 1)
    return encode_crop(crop.astype(bool), x0, y0), ''
