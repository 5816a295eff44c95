"""
Feature pyramids: what the fusion blocks start from.

`FeaturePyramid` is for backbones with several scales (ResNet, Swin), `SimplePyramid` for a plain
vision transformer whose layers all have one scale.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn, Tensor
from torch.nn import functional


class _NamedConv(nn.Module):
    """Convolution under the name ``conv``, with batch normalization ``bn`` or a bias."""

    def __init__(self, in_channels: int, out_channels: int, size: int, norm: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, size, padding=size // 2, bias=not norm)
        nn.init.xavier_uniform_(self.conv.weight)
        self.bn = nn.BatchNorm2d(out_channels) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x if self.bn is None else self.bn(x)


class FeaturePyramid(nn.Module):
    """
    Top-down feature pyramid.

    Parameters
    ----------
    in_channels : sequence of int
        Widths of the inputs, from fine to coarse.
    out_channels : int
        Width of every level.
    levels : int
        Number of outputs; those beyond the inputs are the last one, every second pixel.
    norm : bool
        Batch normalization after each convolution (and no bias).

    References
    ----------
    "Feature Pyramid Networks for Object Detection", CVPR 2017; open-mmlab/mmdetection,
    ``mmdet/models/necks/fpn.py``.

    """

    def __init__(
        self, in_channels: Sequence[int], out_channels: int = 256, levels: int = 5,
        norm: bool = True,
    ) -> None:
        super().__init__()
        self.levels = levels
        self.lateral_convs = nn.ModuleList(
            _NamedConv(width, out_channels, 1, norm) for width in in_channels)
        self.fpn_convs = nn.ModuleList(
            _NamedConv(out_channels, out_channels, 3, norm) for _ in in_channels)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """
        Build the levels.

        Parameters
        ----------
        features : sequence of Tensor
            ``(B, C_i, H_i, W_i)``, from fine to coarse.

        Returns
        -------
        list of Tensor
            ``(B, out_channels, H_i, W_i)``, from fine to coarse.

        """
        laterals = [conv(x) for conv, x in zip(self.lateral_convs, features, strict=True)]
        for index in range(len(laterals) - 1, 0, -1):
            finer = laterals[index - 1]
            laterals[index - 1] = finer + functional.interpolate(
                laterals[index], size=finer.shape[-2:], mode='nearest')
        outputs = [conv(x) for conv, x in zip(self.fpn_convs, laterals, strict=True)]
        while len(outputs) < self.levels:
            outputs.append(functional.max_pool2d(outputs[-1], 1, stride=2))
        return outputs


class SimplePyramid(FeaturePyramid):
    """
    Pyramid over four same-sized outputs of a plain vision transformer.

    The first is enlarged 4 times, the second twice, the third stays, the fourth is halved; then
    they are treated as the scales of a `FeaturePyramid` without normalization.

    Parameters
    ----------
    width : int
        Width of the transformer.
    out_channels, levels : int
        As in `FeaturePyramid`.

    References
    ----------
    "Exploring Plain Vision Transformer Backbones for Object Detection", ECCV 2022.

    """

    def __init__(self, width: int, out_channels: int = 256, levels: int = 5) -> None:
        super().__init__((width,) * 4, out_channels, levels, norm=False)
        self.fpn1 = nn.Sequential(
            nn.ConvTranspose2d(width, width, 2, stride=2), _ChannelNorm(width), nn.GELU(),
            nn.ConvTranspose2d(width, width, 2, stride=2))
        self.fpn2 = nn.Sequential(nn.ConvTranspose2d(width, width, 2, stride=2))

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Build the levels from four ``(B, width, H, W)``; the finest has ``4 H x 4 W``."""
        first, second, third, fourth = features
        return super().forward([
            self.fpn1(first), self.fpn2(second), third, functional.max_pool2d(fourth, 2)])


class _ChannelNorm(nn.Module):
    """Layer normalization over the channels of ``(B, C, H, W)``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.ln = nn.LayerNorm(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        normalized: Tensor = self.ln(x.permute(0, 2, 3, 1))
        return normalized.permute(0, 3, 1, 2)
