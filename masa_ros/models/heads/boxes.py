"""Box arithmetic of the detection heads: anchors, deltas and suppression."""

from __future__ import annotations

from collections.abc import Sequence
import math

import torch
from torch import Tensor
from torchvision.ops import nms

# Deltas of width and height are exponents; beyond a factor of 62 they are noise.
_MAX_LOG_RATIO = abs(math.log(16 / 1000))
_ASPECT_RATIOS = (0.5, 1.0, 2.0)
_ANCHOR_CELLS = 8
ANCHORS_PER_CELL = len(_ASPECT_RATIOS)


def anchors(height: int, width: int, stride: int, device: torch.device) -> Tensor:
    """
    Anchors of one level: 8 cells wide, ratios (height / width) 0.5, 1 and 2.

    They are centred at ``(x * stride, y * stride)``, without a shift by half a cell.

    Returns
    -------
    Tensor
        ``(height * width * 3, 4)`` xyxy float32, ordered by row, column and ratio.

    """
    ratios = torch.tensor(_ASPECT_RATIOS, device=device).sqrt()
    half_width = stride / ratios * _ANCHOR_CELLS / 2
    half_height = stride * ratios * _ANCHOR_CELLS / 2
    shapes = torch.stack((-half_width, -half_height, half_width, half_height), dim=1)
    y, x = torch.meshgrid(
        torch.arange(height, device=device) * stride,
        torch.arange(width, device=device) * stride, indexing='ij')
    centers = torch.stack((x, y, x, y), dim=-1).reshape(-1, 1, 4)
    return (centers + shapes).reshape(-1, 4)


def apply_deltas(
    boxes: Tensor, deltas: Tensor, size: tuple[int, int],
    stds: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
) -> Tensor:
    """
    Move and scale boxes by predicted deltas, then clip them to the image.

    Parameters
    ----------
    boxes : Tensor
        ``(N, 4)`` xyxy.
    deltas : Tensor
        ``(N, 4)``: center shifts in box sizes, then logarithms of the size ratios.
    size : tuple of int
        Height and width to clip to.
    stds : sequence of float
        What the deltas are multiplied by first.

    Returns
    -------
    Tensor
        ``(N, 4)`` xyxy.

    """
    deltas = deltas * deltas.new_tensor(stds)
    centers = (boxes[:, :2] + boxes[:, 2:]) * 0.5
    sides = boxes[:, 2:] - boxes[:, :2]
    centers = centers + sides * deltas[:, :2]
    halves = sides * deltas[:, 2:].clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO).exp() * 0.5
    limits = boxes.new_tensor((size[1], size[0]))
    low = (centers - halves).clamp(min=0).minimum(limits)
    high = (centers + halves).clamp(min=0).minimum(limits)
    return torch.cat((low, high), dim=1)


def nms_within_groups(
    boxes: Tensor, scores: Tensor, groups: Tensor, iou_threshold: float,
) -> Tensor:
    """
    Greedy suppression among boxes of the same group.

    Groups are moved apart so that one call does all. The shift costs the last bits of the
    coordinates, and the reference's results include that.

    Returns
    -------
    Tensor
        Rows kept, by descending score.

    """
    if len(boxes) == 0:
        return groups.new_zeros(0, dtype=torch.long)
    shifted = boxes + (groups.to(boxes) * (boxes.max() + 1))[:, None]
    kept: Tensor = nms(shifted, scores, iou_threshold)
    return kept
