"""
Images into SAM's square input, and boxes between the two frames.

Convention: input pixels are those of the scaled image before padding; the origin stays at the
top-left corner, so coordinates only need one factor for each axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from masa_ros.models.sam.architecture import PIXEL_MEAN, PIXEL_STD
import numpy as np
from numpy.typing import NDArray
import torch
from torch import Tensor
import torch.nn.functional as F


@dataclass(frozen=True)
class Geometry:
    """
    Where an image lies in the square input of the encoder.

    Parameters
    ----------
    image_size : tuple of int
        Height and width of the image.
    input_size : tuple of int
        Height and width it was scaled to; the rest of the square is padding, right and bottom.
    side : int
        Side of the square.

    """

    image_size: tuple[int, int]
    input_size: tuple[int, int]
    side: int = 1024

    @classmethod
    def of_longest_side(cls, height: int, width: int, side: int = 1024) -> Geometry:
        """Scale the longer side to ``side``, as SAM does; no side gets shorter than a pixel."""
        scale = side / max(height, width)
        return cls((height, width),
                   (max(int(height * scale + 0.5), 1), max(int(width * scale + 0.5), 1)), side)

    @property
    def factors(self) -> NDArray[np.float64]:
        """``(2,)`` input pixels for an image pixel along x and y."""
        return np.array([self.input_size[1] / self.image_size[1],
                         self.input_size[0] / self.image_size[0]])

    def to_input(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Boxes or points ``(N, 2k)`` of the image in input pixels."""
        return (boxes * np.tile(self.factors, boxes.shape[1] // 2)).astype(np.float32)


def to_batch(
    images: Sequence[NDArray[np.uint8]], device: torch.device, side: int = 1024,
) -> tuple[Tensor, list[Geometry]]:
    """
    Scale, normalize and pad images on the device.

    Parameters
    ----------
    images : sequence of ndarray
        Each ``(H, W, 3)`` uint8 RGB, of any size and shape.
    device : torch.device
        Where the work is done; the images are uploaded as they are.
    side : int
        Side of the square input.

    Returns
    -------
    batch : Tensor
        ``(B, 3, side, side)`` float32; the padding is 0, the mean color.
    geometries : list of Geometry
        One per image.

    Notes
    -----
    The scaling filters like the Pillow call in the segment-anything package; grey levels differ
    by 1, rarely 2, because of rounding between the two passes.

    """
    batch = torch.zeros(len(images), 3, side, side, device=device)
    mean = torch.tensor(PIXEL_MEAN, device=device).view(3, 1, 1)
    std = torch.tensor(PIXEL_STD, device=device).view(3, 1, 1)
    geometries = []
    for row, image in zip(batch, images, strict=True):
        geometry = Geometry.of_longest_side(image.shape[0], image.shape[1], side)
        height, width = geometry.input_size
        source = torch.from_numpy(np.ascontiguousarray(image)).to(device)
        pixels = scale(source.permute(2, 0, 1), geometry.input_size)
        row[:, :height, :width] = (pixels - mean) / std
        geometries.append(geometry)
    return batch, geometries


def scale(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Scale ``(3, H, W)`` uint8 to ``(3, *size)`` float32 whole grey levels, without aliasing."""
    if pixels.shape[1:] == size:
        return pixels.float()
    if pixels.is_cuda:
        # There is no kernel for integers on a GPU.
        return F.interpolate(
            pixels.float()[None], size, mode='bilinear', antialias=True)[0].round().clamp(0, 255)
    return F.interpolate(pixels[None], size, mode='bilinear', antialias=True)[0].float()
