"""
Images into normalized, padded network input, as the reference does it.

Convention: network pixels are the scaled image's, before padding; the origin stays at the
top-left corner, so coordinates only need the two scale factors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
from masa_ros.models.variants import InputRule
import numpy as np
from numpy.typing import NDArray
import torch
from torch import Tensor
from torch.nn import functional

PIXEL_MEAN = (123.675, 116.28, 103.53)
"""RGB mean, in grey levels; the same for every variant."""
PIXEL_STD = (58.395, 57.12, 57.375)
"""RGB standard deviation, in grey levels."""


@dataclass(frozen=True)
class Prepared:
    """
    One image, ready for the network.

    Parameters
    ----------
    pixels : Tensor
        ``(3, H, W)`` float32, normalized and padded.
    size : tuple of int
        Height and width before padding: what boxes are clipped to.
    scale : tuple of float
        Network pixels per image pixel along x and y; slightly different because of rounding.

    """

    pixels: Tensor
    size: tuple[int, int]
    scale: tuple[float, float]

    def to_network(self, boxes: NDArray[np.float32]) -> Tensor:
        """Boxes ``(N, 4)`` of the image in network pixels."""
        sx, sy = self.scale
        factors = torch.tensor((sx, sy, sx, sy), dtype=torch.float32)
        return (torch.from_numpy(np.ascontiguousarray(boxes, np.float32)) * factors).to(
            self.pixels.device)

    def to_image(self, boxes: Tensor) -> NDArray[np.float32]:
        """Boxes ``(N, 4)`` of the network in image pixels."""
        sx, sy = self.scale
        factors = torch.tensor((1 / sx, 1 / sy, 1 / sx, 1 / sy), dtype=torch.float32)
        return (boxes.cpu() * factors).numpy()


def check_image(image: object) -> None:
    """
    Refuse what is no picture.

    Raises
    ------
    ValueError
        If it is not a non-empty ``(H, W, 3)`` uint8 array; the message says what came.

    """
    if isinstance(image, np.ndarray):
        if (image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
                and image.size > 0):
            return
        came = f'{image.dtype} array of shape {image.shape}'
    else:
        came = type(image).__name__
    raise ValueError(
        f'image is a {came}, expected a non-empty (height, width, 3) uint8 RGB array')


def prepare(image: NDArray[np.uint8], rule: InputRule, device: torch.device) -> Prepared:
    """
    Scale, normalize and pad an image on the device.

    Parameters
    ----------
    image : ndarray
        ``(H, W, 3)`` uint8 RGB.
    rule : InputRule
        Sizes.
    device : torch.device
        Where the result goes; on a GPU the scaling runs there too, with the same result.

    Raises
    ------
    ValueError
        If the image is not a non-empty ``(H, W, 3)`` uint8 array.

    """
    check_image(image)
    height, width = image.shape[:2]
    size = rule.scaled_size(height, width)
    if device.type == 'cpu':
        source = image.astype(np.float32) if rule.resize_float else image
        scaled = cv2.resize(source, size[::-1], interpolation=cv2.INTER_LINEAR)
        pixels = torch.from_numpy(scaled).permute(2, 0, 1).float()
    else:
        pixels = scale_on_device(image, size, rule.resize_float, device)
    mean = torch.tensor(PIXEL_MEAN, device=device).view(3, 1, 1)
    std = torch.tensor(PIXEL_STD, device=device).view(3, 1, 1)
    padded = rule.padded_size(*size)
    pixels = functional.pad(
        (pixels - mean) / std, (0, padded[1] - size[1], 0, padded[0] - size[0]))
    return Prepared(pixels, size, (size[1] / width, size[0] / height))


def scale_on_device(
    image: NDArray[np.uint8], size: tuple[int, int], resize_float: bool, device: torch.device,
) -> Tensor:
    """
    Scale an image with torch exactly as OpenCV's bilinear ``resize`` does.

    Parameters
    ----------
    image : ndarray
        ``(H, W, 3)`` uint8.
    size : tuple of int
        Height and width of the result.
    resize_float : bool
        Scale in floating point; otherwise in OpenCV's fixed-point arithmetic.
    device : torch.device
        Where it is done.

    Returns
    -------
    Tensor
        ``(3, h, w)`` float32 grey levels.

    References
    ----------
    opencv/opencv, ``modules/imgproc/src/resize.cpp``, `HResizeLinear` and `VResizeLinear`.

    """
    source = torch.from_numpy(np.ascontiguousarray(image)).to(device).permute(2, 0, 1)
    # OpenCV keeps positions of integer images in float32, those of float images in float64.
    precision = torch.float64 if resize_float else torch.float32
    left, right, along = _neighbours(size[1], image.shape[1], precision, device)
    top, bottom, down = _neighbours(size[0], image.shape[0], precision, device)
    # At the border OpenCV sets the share to 0 along a row, but not across rows, where both
    # positions are the border row; in fixed-point arithmetic that rounds differently.
    along = torch.where(left == right, 0, along)
    if resize_float:
        values = source.float()
        rows = values[:, :, left] * (1 - along) + values[:, :, right] * along
        return rows[:, top] * (1 - down)[:, None] + rows[:, bottom] * down[:, None]
    values = source.int()
    rows = values[:, :, left] * _fixed(1 - along) + values[:, :, right] * _fixed(along) >> 4
    upper = rows[:, top] * _fixed(1 - down)[:, None] >> 16
    lower = rows[:, bottom] * _fixed(down)[:, None] >> 16
    return (upper + lower + 2 >> 2).float()


def _neighbours(
    outputs: int, inputs: int, precision: torch.dtype, device: torch.device,
) -> tuple[Tensor, Tensor, Tensor]:
    """Both source positions of each output position along one side, and the second's share."""
    place = (torch.arange(outputs, dtype=torch.float64) + 0.5) * (inputs / outputs) - 0.5
    place = place.to(precision)
    first = place.floor()
    index = first.long()
    return (index.clamp(0, inputs - 1).to(device), (index + 1).clamp(0, inputs - 1).to(device),
            (place - first).float().to(device))


def _fixed(share: Tensor) -> Tensor:
    """Share in 11-bit fixed point."""
    return (share * 2048).round().int()


def equal_sizes(prepared: Sequence[Prepared]) -> list[list[int]]:
    """
    Group images of the same padded size, which can go through the network together.

    The size decides what the network computes (global pooling, offset reading), so images of
    different sizes are not padded to a common one: each gives what it gives alone.

    Returns
    -------
    list of list of int
        Indices of each group, in order of first appearance.

    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, image in enumerate(prepared):
        groups.setdefault(tuple(image.pixels.shape), []).append(index)
    return list(groups.values())
