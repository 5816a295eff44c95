"""
A pinhole camera in a street, and how planes and points look through it.

World: x to the right of the street, y up, z along the street, in metres; the ground is y = 0.
Image: continuous pixel edges, as everywhere (see `masa_ros.structures.boxes`).
"""

from __future__ import annotations

from dataclasses import dataclass
import math

import numpy as np
from numpy.typing import NDArray

NEAR_M = 0.3
"""Nothing closer than this is drawn."""

_SHIFT_TO_INDEX = np.array([[1, 0, -0.5], [0, 1, -0.5], [0, 0, 1]])


@dataclass(frozen=True)
class Camera:
    """
    Where a camera is and what its lens is like.

    Parameters
    ----------
    position : tuple of float
        ``(x, y, z)`` in metres.
    yaw, pitch, roll : float
        Radians: to the right, up, and clockwise as seen in the image.
    focal_px : float
        Focal length in pixels.
    width_px, height_px : int
        Image size.

    """

    position: tuple[float, float, float]
    yaw: float
    pitch: float
    roll: float
    focal_px: float
    width_px: int
    height_px: int

    def axes(self) -> NDArray[np.float64]:
        """``(3, 3)`` rows: image right, image down and forward, in world coordinates."""
        sin_y, cos_y = math.sin(self.yaw), math.cos(self.yaw)
        sin_p, cos_p = math.sin(self.pitch), math.cos(self.pitch)
        sin_r, cos_r = math.sin(self.roll), math.cos(self.roll)
        forward = np.array([sin_y * cos_p, sin_p, cos_y * cos_p])
        right = np.array([cos_y, 0.0, -sin_y])
        down = np.array([sin_y * sin_p, -cos_p, cos_y * sin_p])
        return np.stack([cos_r * right - sin_r * down, sin_r * right + cos_r * down, forward])

    def to_camera(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """World points ``(K, 3)`` as ``(K, 3)`` right, down, forward distances in metres."""
        return np.asarray((points - np.array(self.position)) @ self.axes().T)

    def to_image(self, camera_points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Pixels ``(K, 2)`` of points from `to_camera`; points too close are put at NEAR_M."""
        depth = np.maximum(camera_points[:, 2:], NEAR_M)
        center = np.array([self.width_px / 2, self.height_px / 2])
        return np.asarray(camera_points[:, :2] * (self.focal_px / depth) + center)

    def intrinsics(self) -> NDArray[np.float64]:
        """``(3, 3)`` matrix from camera directions to homogeneous pixels."""
        return np.array([[self.focal_px, 0, self.width_px / 2],
                         [0, self.focal_px, self.height_px / 2], [0, 0, 1.0]])


@dataclass(frozen=True)
class Plane:
    """
    A flat surface with surface coordinates ``(a, b)`` in metres.

    Parameters
    ----------
    origin, a_axis, b_axis : tuple of float
        World point of ``(0, 0)`` and the unit vectors along a and b.

    """

    origin: tuple[float, float, float]
    a_axis: tuple[float, float, float]
    b_axis: tuple[float, float, float]

    def homography(self, camera: Camera) -> NDArray[np.float64]:
        """``(3, 3)`` matrix from ``(a, b, 1)`` to homogeneous pixels (depth as the scale)."""
        columns = np.stack([np.array(self.a_axis), np.array(self.b_axis),
                            np.array(self.origin) - np.array(camera.position)], axis=1)
        return np.asarray(camera.intrinsics() @ camera.axes() @ columns)

    def inverse_depth(self, camera: Camera) -> NDArray[np.float64]:
        """
        Coefficients ``(3,)`` of ``1 / depth`` as a linear function of the pixel ``(u, v, 1)``.

        The surface is in front of the camera where the value is positive.
        """
        normal = np.cross(np.array(self.a_axis), np.array(self.b_axis))
        distance = float(normal @ (np.array(self.origin) - np.array(camera.position)))
        if abs(distance) < 1e-6:
            return np.array([0.0, 0.0, -1.0])
        pixels_to_rays = camera.axes().T @ np.linalg.inv(camera.intrinsics())
        return np.asarray(normal @ pixels_to_rays / distance)


def index_homography(homography: NDArray[np.float64], pixels_per_metre: float,
                     offset: tuple[float, float] = (0, 0)) -> NDArray[np.float64]:
    """
    Matrix from pixel indices of an image region to pixel indices of a texture.

    Parameters
    ----------
    homography : ndarray
        ``(3, 3)`` from `Plane.homography`.
    pixels_per_metre : float
        Resolution of the texture, whose pixel edge 0 is at surface coordinate 0.
    offset : tuple of float
        Top-left pixel ``(x, y)`` of the image region.

    """
    scale = np.diag([pixels_per_metre, pixels_per_metre, 1.0])
    to_image = np.array([[1, 0, offset[0]], [0, 1, offset[1]], [0, 0, 1.0]])
    return np.asarray(_SHIFT_TO_INDEX @ scale @ np.linalg.inv(homography) @ to_image
                      @ np.linalg.inv(_SHIFT_TO_INDEX))


def clip_polygon(
    polygon: NDArray[np.float64], half_plane: NDArray[np.float64],
) -> NDArray[np.float64]:
    """
    Part of a convex polygon on one side of a line or plane.

    Parameters
    ----------
    polygon : ndarray
        ``(K, D)`` corners in order, D being 2 or 3.
    half_plane : ndarray
        ``(D + 1,)`` coefficients; kept where ``corner @ half_plane[:D] + half_plane[D] >= 0``.

    Returns
    -------
    ndarray
        ``(L, D)``; L is 0 where nothing is left.

    """
    if len(polygon) == 0:
        return polygon
    values = polygon @ half_plane[:-1] + half_plane[-1]
    if (values >= 0).all():
        return polygon
    corners = []
    for here, there, value, following in zip(
            polygon, np.roll(polygon, -1, axis=0), values, np.roll(values, -1), strict=True):
        if value >= 0:
            corners.append(here)
        if (value >= 0) != (following >= 0):
            corners.append(here + (there - here) * (value / (value - following)))
    return np.array(corners).reshape(-1, polygon.shape[1])
