"""Features of boxes: each box is pooled from the pyramid level that fits its size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import roi_align

ROI_SIZE = 7
"""Side of the pooled features."""
_FINEST_SIDE = 56
# A box of this geometric mean side, in pixels, is the first of the second level.


def roi_levels(boxes: Tensor, levels: int, finest_side: int = _FINEST_SIDE) -> Tensor:
    """
    Pyramid level of each box.

    Parameters
    ----------
    boxes : Tensor
        ``(N, 4)`` xyxy in network pixels.
    levels : int
        Number of levels that boxes are pooled from.
    finest_side : int
        Boxes below twice this geometric mean side, in pixels, belong to the first level.

    Returns
    -------
    Tensor
        ``(N,)`` int64 in ``[0, levels)``.

    """
    side = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sqrt()
    level = torch.log2(side / finest_side + 1e-6).floor()
    return level.clamp(0, levels - 1).long()


def roi_rows(boxes: Sequence[Tensor]) -> Tensor:
    """Boxes ``(N_b, 4)`` of each image of a batch as one ``(sum of N_b, 5)``: image, xyxy."""
    return torch.cat([torch.cat((torch.full_like(group[:, :1], index), group), dim=1)
                      for index, group in enumerate(boxes)])


def roi_features(
    pyramid: Sequence[Tensor], rows: Tensor, strides: Sequence[int],
    finest_side: int = _FINEST_SIDE,
) -> Tensor:
    """
    Pool ``7 x 7`` features of boxes.

    Boxes are not clipped: what lies outside the image counts as zero or as the border, as
    bilinear sampling gives it. Sampling is adaptive, one sample per pixel of the level.

    Parameters
    ----------
    pyramid : sequence of Tensor
        ``(B, C, H, W)`` levels from fine to coarse; those beyond `strides` are not used.
    rows : Tensor
        ``(N, 5)`` float32: index in the batch, then xyxy in network pixels.
    strides : sequence of int
        Network pixels per cell of each level that is used.
    finest_side : int
        As for `roi_levels`.

    Returns
    -------
    Tensor
        ``(N, C, 7, 7)`` in the pyramid's type.

    References
    ----------
    "Feature Pyramid Networks for Object Detection", equation 1, with 56 as the finest side;
    RoIAlign aligned to pixel centers.

    """
    levels = roi_levels(rows[:, 1:], len(strides), finest_side)
    channels = pyramid[0].shape[1]
    features = pyramid[0].new_zeros(len(rows), channels, ROI_SIZE, ROI_SIZE)
    for level, stride in enumerate(strides):
        here = (levels == level).nonzero().flatten()
        if len(here):
            # In float32: half precision would round coordinates to several pixels.
            pooled = roi_align(
                pyramid[level].float(), rows[here], ROI_SIZE, spatial_scale=1 / stride,
                sampling_ratio=-1, aligned=True)
            features[here] = pooled.to(features.dtype)
    return features
