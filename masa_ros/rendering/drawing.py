"""
Objects as coloured polygons in the image, and their rasterization with anti-aliasing.

Every object is a list of flat polygons in painter's order. That keeps silhouettes exact: boxes,
masks and visibility all come from the same polygons that make the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
import math

import cv2
from masa_ros.rendering.camera import Camera, clip_polygon, NEAR_M
from masa_ros.rendering.textures import Color
import numpy as np
from numpy.typing import NDArray

_SUBPIXEL_BITS = 4
_ARC = np.linspace(-np.pi / 2, np.pi / 2, 7)


@dataclass
class Drawing:
    """
    One object as polygons in the image.

    Parameters
    ----------
    polygons : list of ndarray
        Each ``(K, 2)`` continuous pixels, in painter's order; may leave the image.
    colors : list of tuple
        One RGB colour per polygon.

    """

    polygons: list[NDArray[np.float64]] = field(default_factory=list)
    colors: list[Color] = field(default_factory=list)

    def add(self, polygon: NDArray[np.float64], color: Color) -> None:
        """Append one polygon."""
        self.polygons.append(polygon)
        self.colors.append(color)

    def bounds(self) -> NDArray[np.float64] | None:
        """``(4,)`` xyxy around everything drawn, or ``None`` where nothing was."""
        if not self.polygons:
            return None
        points = np.concatenate(self.polygons)
        return np.concatenate([points.min(axis=0), points.max(axis=0)])


@dataclass(frozen=True)
class Layer:
    """
    An object's pixels inside the image.

    Parameters
    ----------
    x0, y0 : int
        Top-left pixel of the arrays in the image.
    colors : ndarray
        ``(h, w, 3)`` uint8, already multiplied with the coverage.
    coverage : ndarray
        ``(h, w)`` uint8, 255 where the object fills the pixel.

    """

    x0: int
    y0: int
    colors: NDArray[np.uint8]
    coverage: NDArray[np.uint8]

    def region(self) -> tuple[slice, slice]:
        """Rows and columns of the image that the layer covers."""
        height, width = self.coverage.shape
        return slice(self.y0, self.y0 + height), slice(self.x0, self.x0 + width)


def rasterize(
    drawing: Drawing, width_px: int, height_px: int,
    texture: NDArray[np.uint8] | None = None,
) -> Layer | None:
    """
    Fill the polygons on a finer grid and average it down.

    Parameters
    ----------
    drawing : Drawing
        What to draw.
    width_px, height_px : int
        Size of the image.
    texture : ndarray, optional
        ``(h, w, 3)`` uint8 stretched over the bounds and multiplied with the colours; 128 leaves
        a colour as it is.

    Returns
    -------
    Layer or None
        ``None`` where nothing falls into the image.

    """
    bounds = drawing.bounds()
    if bounds is None:
        return None
    x0, y0 = (max(math.floor(value), 0) for value in bounds[:2])
    x1, y1 = (min(math.ceil(value), limit)
              for value, limit in zip(bounds[2:], (width_px, height_px), strict=True))
    if x1 <= x0 or y1 <= y0:
        return None
    area = (x1 - x0) * (y1 - y0)
    factor = 4 if area < 80 ** 2 else 3 if area < 200 ** 2 else 2
    canvas = np.zeros(((y1 - y0) * factor, (x1 - x0) * factor, 4), np.uint8)
    scale = factor * (1 << _SUBPIXEL_BITS)
    offset = np.array([x0, y0]) * scale + (1 << _SUBPIXEL_BITS) / 2
    limit = 1 << 20  # Corners far outside would overflow the fixed-point numbers of fillPoly.
    for polygon, color in zip(drawing.polygons, drawing.colors, strict=True):
        corners = np.clip(np.rint(polygon * scale - offset), -limit, limit).astype(np.int32)
        cv2.fillPoly(canvas, [corners], (*color, 255), shift=_SUBPIXEL_BITS)
    small = cv2.resize(canvas, (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA)
    colors = np.ascontiguousarray(small[..., :3])
    if texture is not None:
        colors = cv2.multiply(colors, _stretch(texture, bounds, (x0, y0, x1, y1)), scale=1 / 128)
    return Layer(x0, y0, np.asarray(colors, np.uint8), np.ascontiguousarray(small[..., 3]))


def _stretch(
    texture: NDArray[np.uint8], bounds: NDArray[np.float64], window: tuple[int, int, int, int],
) -> NDArray[np.uint8]:
    """Piece of a texture that lies in a window of the image when it spans the bounds."""
    x0, y0, x1, y1 = window
    span = np.maximum(bounds[2:] - bounds[:2], 1e-3)
    per_pixel = np.array(texture.shape[1::-1]) / span
    transform = np.array([
        [per_pixel[0], 0, (x0 + 0.5 - bounds[0]) * per_pixel[0] - 0.5],
        [0, per_pixel[1], (y0 + 0.5 - bounds[1]) * per_pixel[1] - 0.5]])
    return np.asarray(cv2.warpAffine(
        texture, transform, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE), np.uint8)


def silhouette_area(drawing: Drawing, max_side_px: int = 384) -> float:
    """Area in square pixels of everything drawn, also outside the image (about 1 % exact)."""
    bounds = drawing.bounds()
    if bounds is None:
        return 0.0
    span = np.maximum(bounds[2:] - bounds[:2], 1e-6)
    scale = max_side_px / float(span.max())
    height, width = (math.ceil(side * scale) + 1 for side in span[::-1])
    mask = np.zeros((height, width), np.uint8)
    for polygon in drawing.polygons:
        corners = np.rint(((polygon - bounds[:2]) * scale - 0.5) * 16).astype(np.int32)
        cv2.fillPoly(mask, [corners], 1, shift=4)
    return float(cv2.countNonZero(mask)) / scale ** 2


class Sketch:
    """
    Draws 3D parts of one object as seen by a camera.

    Parameters
    ----------
    camera : Camera
        Point of view.

    """

    def __init__(self, camera: Camera) -> None:
        self.camera = camera
        self.drawing = Drawing()

    def polygon(self, points: NDArray[np.float64], color: Color) -> None:
        """Add a flat polygon of world points ``(K, 3)``, cut where it comes too close."""
        self.camera_polygon(self.camera.to_camera(points), color)

    def camera_polygon(self, points: NDArray[np.float64], color: Color) -> None:
        """Add a flat polygon of camera points ``(K, 3)``, cut where it comes too close."""
        if points[:, 2].min() < NEAR_M:
            points = clip_polygon(points, np.array([0, 0, 1, -NEAR_M]))
            if len(points) < 3:
                return
        self.drawing.add(self.camera.to_image(points), color)

    def capsules(
        self, starts: NDArray[np.float64], ends: NDArray[np.float64],
        radii: NDArray[np.float64], colors: Sequence[Color],
    ) -> None:
        """
        Add thick round-ended lines, the farthest first.

        Parameters
        ----------
        starts, ends : ndarray
            ``(K, 3)`` world points; equal points make a disc.
        radii : ndarray
            ``(K, 2)`` metres at start and end.
        colors : sequence of tuple
            One per line.

        """
        first, last = self.camera.to_camera(starts), self.camera.to_camera(ends)
        depth = first[:, 2] + last[:, 2]
        shapes = self._capsule_outlines(first, last, radii)
        for row in np.argsort(-depth, kind='stable'):
            if min(first[row, 2], last[row, 2]) > NEAR_M:
                self.drawing.add(shapes[row], colors[row])

    def _capsule_outlines(
        self, first: NDArray[np.float64], last: NDArray[np.float64],
        radii: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """``(K, 14, 2)`` pixels around each line."""
        start, end = self.camera.to_image(first), self.camera.to_image(last)
        sizes = radii * self.camera.focal_px / np.maximum(
            np.stack([first[:, 2], last[:, 2]], axis=1), NEAR_M)
        direction = end - start
        angle = np.arctan2(direction[:, 1], direction[:, 0])[:, None]
        tip = np.stack([np.cos(angle + _ARC), np.sin(angle + _ARC)], axis=-1)
        return np.concatenate([end[:, None] + sizes[:, 1, None, None] * tip,
                               start[:, None] - sizes[:, 0, None, None] * tip], axis=1)

    def upright(self, foot: NDArray[np.float64], outline: NDArray[np.float64],
                color: Color) -> None:
        """
        Add a flat shape that stands upright and faces the camera.

        Parameters
        ----------
        foot : ndarray
            ``(3,)`` world point.
        outline : ndarray
            ``(K, 2)`` metres to the right of and above the foot.
        color : tuple
            Colour.

        """
        right = np.array([math.cos(self.camera.yaw), 0, -math.sin(self.camera.yaw)])
        up = np.array([0.0, 1.0, 0.0])
        self.polygon(foot + outline[:, :1] * right + outline[:, 1:] * up, color)
