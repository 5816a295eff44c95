"""
Dynamic fusion of neighbouring pyramid levels by deformable convolutions.

Every block maps the levels to levels of the same sizes. A level is the mean of up to three terms:
itself (``mid``), the finer level brought down (``low``) and the coarser level brought up
(``high``). One ordinary convolution on the level steers the sampling of all three.

References
----------
"Matching Anything by Segmenting Anything", section 3.2, equation 1; siyuanliii/masa,
``masa/models/masa_adapter``. Where they differ the code wins: see `read_as_size` in
``deform_conv.py`` for the coarser level's offsets.

"""

from __future__ import annotations

from collections.abc import Sequence

from masa_ros.models.adapter.deform_conv import ModulatedDeformConv2d
import torch
from torch import nn, Tensor
from torch.nn import functional

_OFFSETS, _MASKS = 18, 9
_BRANCHES = ('mid', 'low', 'high')


class DeformConvNorm(nn.Module):
    """Modulated deformable convolution, then group normalization over 16 groups."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = ModulatedDeformConv2d(in_channels, out_channels, stride)
        self.norm = nn.GroupNorm(16, out_channels)

    def forward(self, x: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
        """Convolve and normalize; shapes as in `ModulatedDeformConv2d`."""
        normalized: Tensor = self.norm(self.conv(x, offset, mask))
        return normalized


class FusionBlock(nn.Module):
    """
    What both kinds of block share.

    Parameters
    ----------
    channels : int
        Width of every level.
    samplings : int
        How many sets of offsets and masks the steering convolution gives: 1 for all branches
        together, 3 for one each.

    """

    def __init__(self, channels: int, samplings: int) -> None:
        super().__init__()
        self.samplings = samplings
        self.spatial_conv_high = DeformConvNorm(channels, channels)
        self.spatial_conv_mid = DeformConvNorm(channels, channels)
        self.spatial_conv_low = DeformConvNorm(channels, channels, stride=2)
        self.spatial_conv_offset = nn.Conv2d(
            channels, samplings * (_OFFSETS + _MASKS), 3, padding=1)
        # Start as an ordinary convolution: no offset, every sample weighted 1/2.
        nn.init.zeros_(self.spatial_conv_offset.weight)
        nn.init.zeros_(self.spatial_conv_offset.bias)  # type: ignore[arg-type]

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """
        Fuse neighbouring levels.

        Parameters
        ----------
        levels : sequence of Tensor
            ``(B, C, H, W)`` each, from fine to coarse, every one half the size of the last.

        Returns
        -------
        list of Tensor
            Levels of the same shapes.

        """
        return [self._fuse(levels, index) for index in range(len(levels))]

    def _fuse(self, levels: Sequence[Tensor], index: int) -> Tensor:
        """Compute one level anew."""
        level = levels[index]
        sampling = self._samplings(self.spatial_conv_offset(level))
        total = self._weigh(self.spatial_conv_mid(level, *sampling['mid']))
        terms = 1
        if index > 0:
            total = total + self._weigh(
                self.spatial_conv_low(levels[index - 1], *sampling['low']))
            terms += 1
        if index < len(levels) - 1:
            coarse = self.spatial_conv_high(levels[index + 1], *sampling['high'])
            total = total + self._weigh(functional.interpolate(
                coarse, size=level.shape[-2:], mode='bilinear', align_corners=True))
            terms += 1
        return self._activate(total / terms)

    def _samplings(self, steering: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Offsets and masks of each branch."""
        split = self.samplings * _OFFSETS
        offsets = torch.split(steering[:, :split], _OFFSETS, dim=1)
        masks = torch.split(steering[:, split:].sigmoid(), _MASKS, dim=1)
        last = self.samplings - 1
        return {branch: (offsets[min(i, last)], masks[min(i, last)])
                for i, branch in enumerate(_BRANCHES)}

    def _weigh(self, term: Tensor) -> Tensor:
        """Weigh one term before the sum."""
        return term

    def _activate(self, mean: Tensor) -> Tensor:
        """Finish the mean of the terms."""
        return mean


class DeformFusionBlock(FusionBlock):
    """Block of the R50, Detic and Grounding-DINO variants: own offsets for each branch."""

    def __init__(self, channels: int = 256) -> None:
        super().__init__(channels, samplings=3)


class DyHeadBlock(FusionBlock):
    """Block of the SAM variants: shared offsets, scale-aware and task-aware attention."""

    def __init__(self, channels: int = 256) -> None:
        super().__init__(channels, samplings=1)
        self.scale_attn_module = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, 1, 1), nn.ReLU(), nn.Hardsigmoid())
        self.task_attn_module = DynamicRelu(channels)

    def _weigh(self, term: Tensor) -> Tensor:
        scaled: Tensor = term * self.scale_attn_module(term)
        return scaled

    def _activate(self, mean: Tensor) -> Tensor:
        activated: Tensor = self.task_attn_module(mean)
        return activated


class DynamicRelu(nn.Module):
    """
    Maximum of two lines per channel, whose slopes and offsets come from the whole level.

    Parameters
    ----------
    channels : int
        Width of the level; the inner layer has a quarter of it.

    References
    ----------
    "Dynamic ReLU", ECCV 2020, and "Dynamic Head", CVPR 2021 (task-aware attention).

    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        # The published names have one more level for each convolution.
        self.conv1 = nn.ModuleDict({'conv': nn.Conv2d(channels, channels // 4, 1)})
        self.conv2 = nn.ModuleDict({'conv': nn.Conv2d(channels // 4, 4 * channels, 1)})

    def forward(self, x: Tensor) -> Tensor:
        """Activate ``(B, C, H, W)``."""
        pooled = functional.adaptive_avg_pool2d(x, 1)
        hidden = functional.relu(self.conv1['conv'](pooled))
        coefficients = functional.hardsigmoid(self.conv2['conv'](hidden)) - 0.5
        slope, offset, slope_2, offset_2 = coefficients.chunk(4, dim=1)
        return torch.maximum(x * (slope * 2 + 1) + offset, x * (slope_2 * 2) + offset_2)


class Fusion(nn.Module):
    """
    Fusion blocks in a row.

    Parameters
    ----------
    attention : bool
        `DyHeadBlock` when true, `DeformFusionBlock` otherwise.
    channels, blocks : int
        Width of the levels and number of blocks.

    """

    def __init__(self, *, attention: bool, channels: int = 256, blocks: int = 3) -> None:
        super().__init__()
        kind = DyHeadBlock if attention else DeformFusionBlock
        self.dyhead_blocks = nn.ModuleList(kind(channels) for _ in range(blocks))

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Fuse levels ``(B, C, H, W)``; shapes stay."""
        for block in self.dyhead_blocks:
            levels = block(levels)
        return list(levels)
