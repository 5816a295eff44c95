"""
From the decoder's low-resolution logits to run lengths, inside each object's region only.

SAM enlarges each mask bilinearly to the square input, cuts the padding off, scales the rest
bilinearly to the image and keeps positive values: two full planes per mask. Both steps are linear
in rows and in columns, so a region of the result is ``rows @ logits @ columns.T`` with two small
interpolation matrices, and only the region's pixels are ever made.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from masa_ros.models.sam.preprocess import Geometry
from masa_ros.structures.masks import RoiMask
import numpy as np
from numpy.typing import NDArray
import torch
from torch import Tensor

MARGIN = 0.1
"""Share of a box's side by which a mask may leave the box on each side."""

_CELL = 4
"""Low-resolution pixels along a cell of the image embedding."""

_PIXELS_AT_ONCE = 1 << 24
"""Pixels enlarged together: 64 MiB in float32."""


@dataclass(frozen=True)
class Regions:
    """
    Where the masks of some boxes are computed.

    Parameters
    ----------
    rois : ndarray
        ``(N, 4)`` int64 ``x0, y0, x1, y1`` in whole pixels of the image, the last ones excluded.
    windows : ndarray
        ``(N, 4)`` int64 cells of the image embedding that these pixels depend on.

    """

    rois: NDArray[np.int64]
    windows: NDArray[np.int64]

    @classmethod
    def around(
        cls, boxes: NDArray[np.float32], geometry: Geometry, margin: float = MARGIN,
    ) -> Regions:
        """
        Regions of boxes, widened on each side and cut to the image.

        A mask follows its box but is not bound to it. The region is wider by ``margin`` of the
        box's side, at least one low-resolution pixel (4 input pixels); what the mask has beyond
        is cut off.

        Parameters
        ----------
        boxes : ndarray
            ``(N, 4)`` xyxy in image pixels. One outside the image gets an empty region.
        geometry : Geometry
            Of the image.
        margin : float
            Share of the side; infinity makes every region the whole image.

        """
        sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0).astype(np.float64)
        grow = np.maximum(margin * sides, 4 / geometry.factors)
        limits = np.array(geometry.image_size[::-1])
        low = np.clip(np.floor(boxes[:, :2] - grow), 0, limits)
        high = np.clip(np.ceil(boxes[:, 2:] + grow), low, limits)
        rois = np.concatenate((low, high), axis=1).astype(np.int64)
        rois[(high == low).any(axis=1)] = 0
        first, last = _low_resolution_range(rois, geometry)
        windows = np.concatenate((first // _CELL, last // _CELL + 1), axis=1)
        windows[rois[:, 2] == 0] = 0
        return cls(rois, windows)

    def select(self, rows: slice) -> Regions:
        """Return the regions of some rows."""
        return Regions(self.rois[rows], self.windows[rows])


def _low_resolution_range(
    rois: NDArray[np.int64], geometry: Geometry,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and last low-resolution pixel ``(N, 2)`` (x, y) that a region depends on."""
    limits = np.array(geometry.input_size[::-1]) - 1
    # 1e-3 keeps rounding at a pixel's edge from leaving a neighbour out.
    first = np.floor((rois[:, :2] + 0.5) * geometry.factors - 0.5 - 1e-3)
    last = np.floor((rois[:, 2:] - 0.5) * geometry.factors - 0.5 + 1e-3) + 1
    first, last = np.clip(first, 0, limits), np.clip(last, 0, limits)
    low_limit = geometry.side // 4 - 1
    low = np.clip(np.floor((first + 0.5) / 4 - 0.5), 0, low_limit)
    high = np.clip(np.floor((last + 0.5) / 4 - 0.5) + 1, 0, low_limit)
    return low.astype(np.int64), high.astype(np.int64)


def masks_from_logits(logits: Tensor, regions: Regions, geometry: Geometry) -> list[RoiMask]:
    """
    Make the masks of an image from the decoder's logits.

    Parameters
    ----------
    logits : Tensor
        ``(N, side / 4, side / 4)`` float32 on any device; needed inside the windows only.
    regions : Regions
        ``N`` regions.
    geometry : Geometry
        Of the image.

    Returns
    -------
    list of RoiMask
        ``N`` masks over their regions, equal to SAM's own on those pixels except where the logit
        is 0 to within rounding. An empty region gives an empty mask.

    """
    masks = [RoiMask(0, 0, 0, 0, np.zeros(0, np.uint32))] * len(regions.rois)
    first, last = _low_resolution_range(regions.rois, geometry)
    for rows in _batches(regions.rois):
        positive = _enlarge(
            logits, rows, regions.rois[rows], first[rows], last[rows], geometry) > 0
        sizes = regions.rois[rows, 2:] - regions.rois[rows, :2]
        for row, counts in zip(rows, run_lengths(positive, sizes), strict=True):
            x0, y0, x1, y1 = regions.rois[row].tolist()
            masks[row] = RoiMask(x0, y0, y1 - y0, x1 - x0, counts)
    return masks


def _batches(rois: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Rows of non-empty regions with similar sizes, so that padding wastes little."""
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    for row, (width, height) in enumerate((rois[:, 2:] - rois[:, :2]).tolist()):
        if width and height:
            groups[_rung(width), _rung(height)].append(row)
    for (width, height), rows in groups.items():
        step = max(_PIXELS_AT_ONCE // (width * height), 1)
        for start in range(0, len(rows), step):
            yield np.array(rows[start:start + step])


def _rung(size: int) -> int:
    """Round up to 2, 3, 4, 6, 8, 12, 16, ...: at most half as much again."""
    power = 1 << (size - 1).bit_length()
    return power * 3 // 4 if size <= power * 3 // 4 else power


def _enlarge(
    logits: Tensor, rows: NDArray[np.int64], rois: NDArray[np.int64], first: NDArray[np.int64],
    last: NDArray[np.int64], geometry: Geometry,
) -> Tensor:
    """Full-resolution logits ``(n, width, height)`` of some regions, padded to the largest."""
    device = logits.device
    side = logits.shape[-1]
    width, height = (rois[:, 2:] - rois[:, :2]).max(axis=0).tolist()
    across, down = np.minimum((last - first + 1).max(axis=0), side).tolist()
    x0, y0, low_x, low_y, index = torch.from_numpy(np.stack((
        rois[:, 0], rois[:, 1], np.minimum(first[:, 0], side - across),
        np.minimum(first[:, 1], side - down), rows))).to(device)
    crop = logits[index[:, None, None], (low_y[:, None] + _steps(down, device))[:, :, None],
                  (low_x[:, None] + _steps(across, device))[:, None, :]]
    columns = _interpolation(
        x0, width, low_x, across, geometry.image_size[1], geometry.input_size[1], side)
    lines = _interpolation(
        y0, height, low_y, down, geometry.image_size[0], geometry.input_size[0], side)
    return (columns @ crop.transpose(1, 2)) @ lines.transpose(1, 2)


def _steps(count: int, device: torch.device) -> Tensor:
    return torch.arange(count, device=device)


def _interpolation(
    start: Tensor, count: int, low_start: Tensor, low_count: int, image: int, scaled: int,
    side: int,
) -> Tensor:
    """
    Weights of low-resolution pixels for image pixels along one axis.

    Parameters
    ----------
    start, low_start : Tensor
        ``(n,)`` first image pixel and first low-resolution pixel of each region.
    count, low_count : int
        How many of each.
    image, scaled : int
        Length of the axis in the image and in the encoder's input.
    side : int
        Length of the low-resolution axis.

    Returns
    -------
    Tensor
        ``(n, count, low_count)`` float32.

    """
    factor = torch.tensor(scaled / image, dtype=torch.float32, device=start.device)
    places = (start[:, None] + _steps(count, start.device)).float()
    source = ((places + 0.5) * factor - 0.5).clamp(0, scaled - 1)
    below = source.floor()
    share = (source - below)[..., None]
    low = (low_start[:, None] + _steps(low_count, start.device)).float()[:, None]

    def weights(fine: Tensor) -> Tensor:
        """Linear interpolation at pixels of the fourfold enlarged mask."""
        place = ((fine + 0.5) / 4 - 0.5).clamp(0, side - 1)
        return (1 - (place[..., None] - low).abs()).clamp_min(0)

    above = (below + 1).clamp_max(scaled - 1)
    return (1 - share) * weights(below) + share * weights(above)


def run_lengths(positive: Tensor, sizes: NDArray[np.int64]) -> list[NDArray[np.uint32]]:
    """
    Run-length encode masks on their device; only the changes travel to the host.

    Parameters
    ----------
    positive : Tensor
        ``(n, W, H)`` bool, column by column, each mask in its top-left corner.
    sizes : ndarray
        ``(n, 2)`` width and height of each mask, none of them 0.

    Returns
    -------
    list of ndarray
        uint32 runs in column-major order, background first.

    """
    device = positive.device
    widths, heights = torch.from_numpy(np.ascontiguousarray(sizes.T)).to(device)[:, :, None]
    if (sizes == positive.shape[1:]).all():
        flat = positive.flatten()
    else:
        inside_x = _steps(positive.shape[1], device) < widths
        inside_y = _steps(positive.shape[2], device) < heights
        flat = positive[inside_x[:, :, None] & inside_y[:, None, :]]
    starts = np.concatenate(([0], np.cumsum(sizes.prod(axis=1))))
    changes = flat[1:] != flat[:-1]
    begin = torch.from_numpy(starts[1:-1]).to(device)
    changes[begin - 1] = True
    edges = np.concatenate(([0], changes.nonzero()[:, 0].cpu().numpy() + 1, starts[-1:]))
    foreground = flat[torch.from_numpy(starts[:-1]).to(device)].cpu().numpy()
    bounds = np.searchsorted(edges, starts)
    counts = []
    for row, inside in enumerate(foreground):
        runs = np.diff(edges[bounds[row]:bounds[row + 1] + 1])
        counts.append(np.concatenate(([0], runs) if inside else (runs,)).astype(np.uint32))
    return counts
