"""
Parts of a camera's image that are looked at, and parts that are not: the robot's own bonnet.

A region is given as an image file or as polygons, for what is ignored or for what is of interest.
An object is left out when most of it lies in what is ignored: of its mask where the model found
the object itself, of its box where the box was given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
import hashlib
from pathlib import Path

import cv2
from masa_ros.structures.boxes import box_areas, clip_boxes
from masa_ros.structures.instances import Instances
from masa_ros.structures.masks import RoiMask
from masa_ros.structures.settings import setting
import numpy as np
from numpy.typing import NDArray

# Largest difference of the side ratios of an image file and of the camera's images.
SAME_SHAPE = 0.01
LARGEST_COORDINATE = 1e6


@dataclass(frozen=True)
class RegionsConfig:
    """Which parts of the image count."""

    ignore_image: str = setting(
        '', 'Image file in the shape of the camera image; where it is not black, objects are '
        'left out (own bonnet, dirt, a part of the robot).')
    interest_image: str = setting(
        '', 'The same the other way round: where it is black, objects are left out.')
    ignore_polygons: tuple[str, ...] = setting(
        (), 'Polygons inside which objects are left out, each a text of corners in pixels such '
        'as "0,600 300,500 640,600".', dynamic=True)
    interest_polygons: tuple[str, ...] = setting(
        (), 'Polygons outside all of which objects are left out.', dynamic=True)
    width: int = setting(
        0, 'Width of the image that the polygons were drawn on, where it is not that of the '
        'camera; 0 is that of the camera.', minimum=0, maximum=100000, dynamic=True)
    height: int = setting(
        0, 'Its height.', minimum=0, maximum=100000, dynamic=True)
    share: float = setting(
        0.5, 'An object is left out when more than this share of its mask, or of its box where '
        'boxes are given, is in what is left out.', minimum=0.0, maximum=1.0, dynamic=True)

    def __post_init__(self) -> None:
        for text in (*self.ignore_polygons, *self.interest_polygons):
            read_polygon(text)
        if (self.width == 0) != (self.height == 0):
            raise ValueError(f'regions.width is {self.width} and regions.height {self.height}, '
                             'expected both or neither')


def read_polygon(text: str) -> NDArray[np.float64]:
    """
    Corners ``(K, 2)`` of a polygon written as ``x,y x,y x,y``.

    Raises
    ------
    ValueError
        If there are fewer than three corners, or one is not two finite numbers.

    """
    try:
        corners = np.array([[float(number) for number in corner.split(',')]
                            for corner in str(text).split()], np.float64)
    except ValueError:
        corners = np.zeros(0)
    if (corners.ndim != 2 or corners.shape[0] < 3 or corners.shape[1] != 2
            or not (np.abs(corners) <= LARGEST_COORDINATE).all()):
        raise ValueError(f'polygon {text!r}: expected at least three corners in pixels, such as '
                         '"0,600 300,500 640,600"')
    return corners


class Regions:
    """
    The ignored part of one camera's images, at whatever size they have.

    Parameters
    ----------
    config : RegionsConfig
        Where it is described.

    Raises
    ------
    FileNotFoundError
        If an image file is not there.
    ValueError
        If it cannot be read as an image, or leaves nothing to look at.

    """

    def __init__(self, config: RegionsConfig) -> None:
        self.config = config
        self._files = {name: _read_image(path, name) for name, path in (
            ('ignore_image', config.ignore_image), ('interest_image', config.interest_image))
            if path}
        self._drawn: tuple[tuple[int, ...], IgnoredArea] | None = None

    def __bool__(self) -> bool:
        """Whether anything is described at all."""
        return bool(self._files or self.config.ignore_polygons or self.config.interest_polygons)

    def digest(self) -> str:
        """Text that is equal for equal regions, whatever the files are called."""
        content = hashlib.sha256(repr(replace(
            self.config, ignore_image='', interest_image='')).encode())
        for name, plane in self._files.items():
            content.update(f'{name} {plane.shape}'.encode() + plane.tobytes())
        return content.hexdigest()[:12]

    def keeps(
        self, found: Instances, height_px: int, width_px: int, *, by_mask: bool,
        full_size: tuple[int, int] | None = None,
    ) -> NDArray[np.bool_]:
        """
        Tell which ``(N,)`` objects of an image of that size stay.

        Parameters
        ----------
        found : Instances
            The objects.
        height_px, width_px : int
            Size of the image.
        by_mask : bool
            Judge by masks, as for a model's own proposals; by boxes where they were given.
        full_size : tuple of int, optional
            Height and width of the camera's image, where this one was made smaller.

        Raises
        ------
        ValueError
            If an image file has another shape, or nothing of the image is left.

        """
        if not self or not len(found):
            return np.ones(len(found), bool)
        area = self.area(height_px, width_px, full_size)
        keeps = area.keeps_masks if by_mask else area.keeps_boxes
        return keeps(found, self.config.share)

    def area(
        self, height_px: int, width_px: int, full_size: tuple[int, int] | None = None,
    ) -> IgnoredArea:
        """
        Return the ignored part of an image of that size; see `keeps`.

        Raises
        ------
        ValueError
            If an image file has another shape, or nothing of the image is left.

        """
        full = full_size or (height_px, width_px)
        sizes = (height_px, width_px, *full)
        if self._drawn is None or self._drawn[0] != sizes:
            self._drawn = sizes, IgnoredArea(self._draw(height_px, width_px, *full))
        return self._drawn[1]

    def _draw(
        self, height_px: int, width_px: int, full_height_px: int, full_width_px: int,
    ) -> NDArray[np.bool_]:
        """``(H, W)`` bool, true where objects are left out."""
        config = self.config
        scale = (width_px / (config.width or full_width_px),
                 height_px / (config.height or full_height_px))
        ignored = _fill(config.ignore_polygons, scale, height_px, width_px)
        if config.interest_polygons:
            ignored |= ~_fill(config.interest_polygons, scale, height_px, width_px)
        for name, plane in self._files.items():
            ratio = (plane.shape[1] / plane.shape[0]) / (full_width_px / full_height_px)
            if abs(ratio - 1) > SAME_SHAPE:
                raise ValueError(
                    f'regions.{name} is {plane.shape[1]} x {plane.shape[0]} pixels, the images '
                    f'are {full_width_px} x {full_height_px}: another shape; draw it on an image '
                    'of this camera')
            scaled = cv2.resize(plane, (width_px, height_px), interpolation=cv2.INTER_NEAREST) > 0
            ignored |= scaled if name == 'ignore_image' else ~scaled
        if ignored.all():
            raise ValueError(f'the regions leave nothing of an image of {full_width_px} x '
                             f'{full_height_px} pixels to look at; polygons are in its pixels '
                             'unless regions.width and regions.height say otherwise')
        return ignored


@dataclass(frozen=True, eq=False)
class IgnoredArea:
    """
    What is ignored in an image of one size.

    Parameters
    ----------
    mask : ndarray
        ``(H, W)`` bool.

    """

    mask: NDArray[np.bool_]

    @cached_property
    def _sums(self) -> NDArray[np.float64]:
        """``(H + 1, W + 1)`` number of ignored pixels above and to the left."""
        return np.asarray(cv2.integral(self.mask.astype(np.uint8)), np.float64)

    def box_shares(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """
        Share ``(N,)`` of each box that is ignored; parts outside the image do not count.

        Exact for boxes between pixels too: an ignored pixel counts as much as the box covers it.
        """
        if not len(boxes):
            return np.zeros(0, np.float32)
        height, width = self.mask.shape
        inside = clip_boxes(boxes, height, width).astype(np.float64)
        x0, y0, x1, y1 = inside.T
        ignored = (self._below(x1, y1) - self._below(x0, y1) - self._below(x1, y0)
                   + self._below(x0, y0))
        areas = box_areas(inside.astype(np.float32))
        return np.asarray(ignored / np.maximum(areas, 1e-9), np.float32).clip(0, 1)

    def mask_share(self, mask: RoiMask) -> float:
        """Share of a mask's pixels that is ignored; 0 for one without pixels."""
        y0, x0 = max(mask.y_offset, 0), max(mask.x_offset, 0)
        y1, x1 = mask.y_offset + mask.height, mask.x_offset + mask.width
        ignored = self.mask[y0:max(y1, 0), x0:max(x1, 0)]
        if not ignored.any():
            return 0.0
        crop = mask.decode()[y0 - mask.y_offset:, x0 - mask.x_offset:]
        crop = crop[:ignored.shape[0], :ignored.shape[1]]
        return float((crop & ignored).sum() / max(crop.sum(), 1))

    def keeps_boxes(self, found: Instances, share: float) -> NDArray[np.bool_]:
        """Tell which ``(N,)`` objects stay, by their boxes."""
        return np.asarray(self.box_shares(found.boxes) <= share)

    def keeps_masks(self, found: Instances, share: float) -> NDArray[np.bool_]:
        """Tell which ``(N,)`` objects stay, by their masks, or boxes where they have none."""
        shares = self.box_shares(found.boxes)
        for row in np.flatnonzero(shares > 0).tolist():
            mask = found.masks[row]
            if mask is not None and mask.area:
                shares[row] = self.mask_share(mask)
        return np.asarray(shares <= share)

    def contains(self, x: float, y: float) -> bool:
        """Whether a point of the image is ignored."""
        height, width = self.mask.shape
        return bool(0 <= x < width and 0 <= y < height and self.mask[int(y), int(x)])

    def _below(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        """Ignored area above and to the left of points: sums, interpolated between pixels."""
        height, width = self.mask.shape
        column = np.minimum(x.astype(np.int64), width - 1)
        row = np.minimum(y.astype(np.int64), height - 1)
        right, down = x - column, y - row
        sums = self._sums
        upper = (1 - right) * sums[row, column] + right * sums[row, column + 1]
        lower = (1 - right) * sums[row + 1, column] + right * sums[row + 1, column + 1]
        return np.asarray((1 - down) * upper + down * lower)


def _fill(
    polygons: Sequence[str], scale: tuple[float, float], height_px: int, width_px: int,
) -> NDArray[np.bool_]:
    """``(H, W)`` bool, true for pixels whose centre is inside any of the polygons."""
    inside = np.zeros((height_px, width_px), bool)
    x = np.arange(width_px) + 0.5
    for text in polygons:
        corners = read_polygon(text) * scale
        first = max(0, int(np.floor(corners[:, 1].min())))
        last = min(height_px, int(np.ceil(corners[:, 1].max())))
        starts, ends = corners, np.roll(corners, -1, axis=0)
        for row in range(first, last):
            y = row + 0.5
            crosses = (starts[:, 1] <= y) != (ends[:, 1] <= y)
            one, two = starts[crosses], ends[crosses]
            places = one[:, 0] + (y - one[:, 1]) / (two[:, 1] - one[:, 1]) * (
                two[:, 0] - one[:, 0])
            # Inside where an odd number of edges lies to the left.
            inside[row] |= np.searchsorted(np.sort(places), x, side='right') % 2 == 1
    return inside


def _read_image(path: str, name: str) -> NDArray[np.uint8]:
    """``(H, W)`` uint8, 0 where the image file is black (or, where it has alpha, see-through)."""
    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f'regions.{name}: {file} is not there')
    content = np.frombuffer(file.read_bytes(), np.uint8)
    image = cv2.imdecode(content, cv2.IMREAD_UNCHANGED) if content.size else None
    if image is None:
        raise ValueError(f'regions.{name}: {file} cannot be read as an image; PNG is best, as '
                         'JPEG blurs the edges')
    planes = image.reshape(image.shape[0], image.shape[1], -1)
    half = {'uint8': 127, 'uint16': 32767}.get(str(image.dtype), 0.5)
    marked = planes[..., :3].max(axis=2) > half
    if planes.shape[2] == 4:
        marked &= planes[..., 3] > 0
    return np.asarray(marked, np.uint8)
