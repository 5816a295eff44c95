"""
Instance masks as run lengths of a region of interest.

A mask never needs the whole image: it is the runs of the pixels inside an integer region of
interest (RoI), column by column, background first. That is COCO's uncompressed RLE of the crop,
and exactly what travels in ``TrackedObject.msg``. Holes, several parts and overlaps are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class RoiMask:
    """
    One mask, run-length encoded inside its region of interest.

    Parameters
    ----------
    x_offset, y_offset : int
        Top-left pixel of the region in the image.
    height, width : int
        Size of the region in pixels.
    counts : ndarray
        ``(R,)`` uint32 run lengths over the region in column-major order, alternating background
        and foreground, background first (it may be 0). They sum to ``height * width``.

    Raises
    ------
    ValueError
        If the size is negative or the runs do not sum to ``height * width``.

    """

    x_offset: int
    y_offset: int
    height: int
    width: int
    counts: NDArray[np.uint32]

    def __post_init__(self) -> None:
        if self.height < 0 or self.width < 0:
            raise ValueError(f'mask region is {self.height} x {self.width}, expected no '
                             'negative side')
        total = int(np.sum(self.counts, dtype=np.int64))
        if total != self.height * self.width:
            raise ValueError(
                f'mask runs sum to {total}, but the region of {self.height} x {self.width} has '
                f'{self.height * self.width} pixels; the runs or the region are damaged')

    @property
    def area(self) -> int:
        """Count the foreground pixels."""
        return int(np.sum(self.counts[1::2], dtype=np.int64))

    def decode(self) -> NDArray[np.bool_]:
        """``(height, width)`` bool crop."""
        values = np.arange(len(self.counts)) % 2 == 1
        flat = np.repeat(values, self.counts)
        return flat.reshape(self.width, self.height).T

    def paste(self, height_px: int, width_px: int) -> NDArray[np.bool_]:
        """``(height_px, width_px)`` bool plane of the image; parts outside are cut."""
        plane = np.zeros((height_px, width_px), bool)
        y0, x0 = max(self.y_offset, 0), max(self.x_offset, 0)
        y1 = min(self.y_offset + self.height, height_px)
        x1 = min(self.x_offset + self.width, width_px)
        if y1 > y0 and x1 > x0:
            crop = self.decode()
            plane[y0:y1, x0:x1] = crop[
                y0 - self.y_offset:y1 - self.y_offset, x0 - self.x_offset:x1 - self.x_offset]
        return plane


def encode_crop(crop: NDArray[np.bool_], x_offset: int = 0, y_offset: int = 0) -> RoiMask:
    """
    Run-length encode a bool crop ``(h, w)`` whose top-left pixel is ``(x_offset, y_offset)``.

    The region is kept as given, so a caller decides whether it is the tight box of the mask.
    """
    height, width = crop.shape
    flat = np.asarray(crop, dtype=bool).ravel(order='F')
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = np.concatenate(([0], changes, [flat.size]))
    counts = np.diff(edges)
    if flat.size and flat[0]:
        counts = np.concatenate(([0], counts))
    return RoiMask(x_offset, y_offset, height, width, counts.astype(np.uint32))


def encode_plane(mask: NDArray[np.bool_]) -> RoiMask:
    """Encode a full ``(H, W)`` bool mask inside its tight box; an empty mask has size 0 x 0."""
    rows = np.flatnonzero(mask.any(axis=1))
    if rows.size == 0:
        return RoiMask(0, 0, 0, 0, np.zeros(0, np.uint32))
    band = mask[rows[0]:rows[-1] + 1]
    columns = np.flatnonzero(band.any(axis=0))
    crop = band[:, columns[0]:columns[-1] + 1]
    return encode_crop(crop, int(columns[0]), int(rows[0]))


def label_image(
    masks: Sequence[RoiMask | None], values: Sequence[int], height_px: int, width_px: int,
) -> NDArray[np.uint16]:
    """
    Paint masks into one 16-bit image; later masks cover earlier ones, 0 is background.

    Parameters
    ----------
    masks : sequence
        ``None`` where an object has no mask.
    values : sequence of int
        Value of each mask, 1 to 65535.
    height_px, width_px : int
        Size of the image.

    Returns
    -------
    ndarray
        ``(height_px, width_px)`` uint16.

    """
    image = np.zeros((height_px, width_px), np.uint16)
    for mask, value in zip(masks, values, strict=True):
        if mask is None:
            continue
        y0, x0 = max(mask.y_offset, 0), max(mask.x_offset, 0)
        y1 = min(mask.y_offset + mask.height, height_px)
        x1 = min(mask.x_offset + mask.width, width_px)
        if y1 > y0 and x1 > x0:
            crop = mask.decode()[y0 - mask.y_offset:y1 - mask.y_offset,
                                 x0 - mask.x_offset:x1 - mask.x_offset]
            image[y0:y1, x0:x1][crop] = value
    return image
