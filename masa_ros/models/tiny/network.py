"""
Layers of the small network: features, proposals, box-prompted masks and embeddings.

Backbone, path-aggregation pyramid and proposal branch have the topology of YOLOX-Nano, so that
they can start from its published weights (`masa_ros.training.initialize`). The dynamic fusion,
mask head and track head are this project's own. No layer keeps batch statistics: training on
one process or on many, resumed or not, computes the same function.

Convention: boxes are xyxy in continuous pixel edges of the network's input image; the centre of
pixel ``(row, column)`` lies at ``(column + 0.5, row + 0.5)``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from masa_ros.structures.settings import setting
import torch
from torch import nn, Tensor
from torch.nn import functional as F
from torchvision.ops import roi_align

STRIDES = (4, 8, 16, 32)
PROPOSAL_STRIDES = (8, 16, 32)


@dataclass(frozen=True)
class TinyConfig:
    """Sizes of the network; saved with its weights."""

    channels: int = setting(64, 'Width of the fused pyramid.', minimum=8, maximum=512)
    fusion_blocks: int = setting(2, 'Dynamic fusion blocks.', minimum=1, maximum=8)
    embedding_size: int = setting(256, 'Length of an embedding.', minimum=8, maximum=2048)
    embedding_scale: float = setting(
        3.779645, 'Norm of every embedding; the square root of 1 / 0.07 makes a dot product the '
        'logit that training used.', minimum=0.1, maximum=100.0)
    mask_size: int = setting(32, 'Side of a mask before it is enlarged.', minimum=8, maximum=128)
    mask_margin: float = setting(
        0.125, 'Part of a box side that the mask window adds on each side.', minimum=0.0,
        maximum=1.0)


class ConvAct(nn.Sequential):
    """Convolution with bias, then SiLU; ``same`` padding."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1,
    ) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, groups=groups),
            nn.SiLU(inplace=True))


class Separable(nn.Sequential):
    """Depthwise 3x3, then pointwise convolution, each with SiLU."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(
            ConvAct(inputs, inputs, 3, stride, inputs), ConvAct(inputs, outputs))


class Bottleneck(nn.Module):
    """Pointwise, then separable convolution, with an optional shortcut."""

    def __init__(self, channels: int, shortcut: bool) -> None:
        super().__init__()
        self.reduce = ConvAct(channels, channels)
        self.conv = Separable(channels, channels)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to the same shape."""
        y: Tensor = self.conv(self.reduce(x))
        return x + y if self.shortcut else y


class CrossStage(nn.Module):
    """Cross-stage partial block: one half passes bottlenecks, the other goes around."""

    def __init__(self, inputs: int, outputs: int, repeats: int, shortcut: bool) -> None:
        super().__init__()
        hidden = outputs // 2
        self.main = ConvAct(inputs, hidden)
        self.bypass = ConvAct(inputs, hidden)
        self.blocks = nn.Sequential(*(Bottleneck(hidden, shortcut) for _ in range(repeats)))
        self.merge = ConvAct(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, outputs, H, W)``."""
        y: Tensor = self.merge(torch.cat([self.blocks(self.main(x)), self.bypass(x)], 1))
        return y


class SpatialPyramid(nn.Module):
    """Max-pooling at three window sizes beside the input itself."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.reduce = ConvAct(inputs, inputs // 2)
        self.expand = ConvAct(inputs * 2, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, outputs, H, W)``."""
        x = self.reduce(x)
        # Two chained 5-windows see 9 pixels, three see 13: same values, fewer comparisons.
        five = F.max_pool2d(x, 5, 1, 2)
        nine = F.max_pool2d(five, 5, 1, 2)
        thirteen = F.max_pool2d(nine, 5, 1, 2)
        y: Tensor = self.expand(torch.cat([x, five, nine, thirteen], 1))
        return y


class Backbone(nn.Module):
    """Cross-stage Darknet; returns features at strides 4, 8, 16 and 32."""

    widths = (32, 64, 128, 256)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 6, 2, 2), nn.SiLU(inplace=True))
        self.stage2 = nn.Sequential(Separable(16, 32, 2), CrossStage(32, 32, 1, True))
        self.stage3 = nn.Sequential(Separable(32, 64, 2), CrossStage(64, 64, 3, True))
        self.stage4 = nn.Sequential(Separable(64, 128, 2), CrossStage(128, 128, 3, True))
        self.stage5 = nn.Sequential(
            Separable(128, 256, 2), SpatialPyramid(256, 256), CrossStage(256, 256, 1, False))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Take ``(B, 3, H, W)`` RGB from 0 to 255, sides a multiple of 32."""
        c2 = self.stage2(self.stem(images))
        c3 = self.stage3(c2)
        c4 = self.stage4(c3)
        return [c2, c3, c4, self.stage5(c4)]


class Pyramid(nn.Module):
    """Path aggregation: top-down, then bottom-up, over strides 8, 16 and 32."""

    def __init__(self) -> None:
        super().__init__()
        self.lateral5 = ConvAct(256, 128)
        self.top4 = CrossStage(256, 128, 1, False)
        self.lateral4 = ConvAct(128, 64)
        self.top3 = CrossStage(128, 64, 1, False)
        self.down3 = Separable(64, 64, 2)
        self.bottom4 = CrossStage(128, 128, 1, False)
        self.down4 = Separable(128, 128, 2)
        self.bottom5 = CrossStage(256, 256, 1, False)

    def forward(self, c3: Tensor, c4: Tensor, c5: Tensor) -> list[Tensor]:
        """Return features of 64, 128 and 256 channels at strides 8, 16 and 32."""
        top5 = self.lateral5(c5)
        top4 = self.lateral4(self.top4(torch.cat([_double(top5), c4], 1)))
        p3 = self.top3(torch.cat([_double(top4), c3], 1))
        p4 = self.bottom4(torch.cat([self.down3(p3), top4], 1))
        return [p3, p4, self.bottom5(torch.cat([self.down4(p4), top5], 1))]


class DynamicFusion(nn.Module):
    """
    Mix every level with its neighbours by weights that depend on the picture.

    A light stand-in for deformable dynamic-head blocks: at each pixel a softmax decides how much
    of the level itself, the finer and the coarser one to take; a separable convolution follows.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Conv2d(channels, 1, 1)
        self.conv = Separable(channels, channels)

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        """Map levels, finest first, to levels of the same shapes."""
        fused = []
        for i, level in enumerate(levels):
            terms = [level]
            if i > 0:
                terms.append(F.avg_pool2d(levels[i - 1], 2))
            if i + 1 < len(levels):
                terms.append(_double(levels[i + 1]))
            gates = torch.cat([self.gate(term) for term in terms], 1).softmax(1)
            mixed = gates[:, :1] * terms[0]
            for k, term in enumerate(terms[1:], 1):
                mixed = mixed + gates[:, k:k + 1] * term
            fused.append(level + self.conv(mixed))
        return fused


class ProposalHead(nn.Module):
    """Objectness and one box for each cell of strides 8, 16 and 32."""

    def __init__(self) -> None:
        super().__init__()
        self.stems = nn.ModuleList(ConvAct(width, 64) for width in (64, 128, 256))
        self.towers = nn.ModuleList(
            nn.Sequential(Separable(64, 64), Separable(64, 64)) for _ in range(3))
        self.boxes = nn.ModuleList(nn.Conv2d(64, 4, 1) for _ in range(3))
        self.objectness = nn.ModuleList(nn.Conv2d(64, 1, 1) for _ in range(3))

    def forward(self, pyramid: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return boxes ``(B, A, 4)`` xyxy pixels and objectness logits ``(B, A)``, float32."""
        boxes, logits = [], []
        for i, (level, stride) in enumerate(zip(pyramid, PROPOSAL_STRIDES, strict=True)):
            tower = self.towers[i](self.stems[i](level))
            raw = self.boxes[i](tower).float().flatten(2).transpose(1, 2)
            cells = cell_corners(level.shape[2], level.shape[3], level.device)
            centre = (raw[..., :2] + cells) * stride
            half = raw[..., 2:].clamp(max=8.0).exp() * (stride / 2)
            boxes.append(torch.cat([centre - half, centre + half], -1))
            logits.append(self.objectness[i](tower).float().flatten(1))
        return torch.cat(boxes, 1), torch.cat(logits, 1)


class MaskHead(nn.Module):
    """Masks of given boxes on a square window around each box."""

    def __init__(self, channels: int, size: int, margin: float) -> None:
        super().__init__()
        self.size, self.margin = size, margin
        fine = 24
        self.reduce = nn.Conv2d(channels, fine, 1)
        self.shrink = Separable(fine, channels, 2)
        self.enter = nn.Conv2d(2 * channels + 2, channels, 1)
        self.body = nn.Sequential(*(RoiBlock(channels, dilation) for dilation in (1, 2, 4, 1)))
        self.context = nn.Linear(channels, channels)
        self.leave = ConvAct(channels, 2 * fine)
        self.refine = nn.Sequential(
            nn.Conv2d(3 * fine, 2 * fine, 1), nn.SiLU(inplace=True), RoiBlock(2 * fine, 1),
            RoiBlock(2 * fine, 1), nn.Conv2d(2 * fine, 1, 1))
        self.quality = nn.Linear(channels, 1)

    def windows(self, rois: Tensor) -> Tensor:
        """Boxes ``(N, 5)`` (image index first) enlarged by the margin."""
        sides = rois[:, 3:] - rois[:, 1:3]
        grow = sides * self.margin
        return torch.cat([rois[:, :1], rois[:, 1:3] - grow, rois[:, 3:] + grow], 1)

    def forward(self, levels: list[Tensor], rois: Tensor) -> tuple[Tensor, Tensor]:
        """
        Predict masks.

        Parameters
        ----------
        levels : list of Tensor
            Fused features, finest first.
        rois : Tensor
            ``(N, 5)`` image index and box.

        Returns
        -------
        masks : Tensor
            ``(N, size, size)`` logits over the windows of `windows`.
        quality : Tensor
            ``(N,)`` logits of the expected IoU.

        """
        windows, half = self.windows(rois), self.size // 2
        if not len(rois):
            return rois.new_zeros((0, self.size, self.size)), rois.new_zeros(0)
        fine = roi_align(self.reduce(levels[0]).float(), windows, self.size, 1 / STRIDES[0], 2,
                         aligned=True)
        coarse = pool_levels(levels, windows, half)
        grid = _coordinates(half, coarse).expand(len(rois), -1, -1, -1)
        body = self.enter(torch.cat([self.shrink(fine), coarse, grid], 1))
        body = self.body(body)
        summary = body.mean((2, 3))
        body = body + self.context(summary)[:, :, None, None]
        body = F.interpolate(self.leave(body), scale_factor=2.0, mode='bilinear')
        masks: Tensor = self.refine(torch.cat([body, fine], 1))
        return masks[:, 0].float(), self.quality(summary)[:, 0].float()


class RoiBlock(nn.Module):
    """Residual separable convolution with group norm, for small windows."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.depth = nn.Conv2d(
            channels, channels, 3, padding=dilation, dilation=dilation, groups=channels)
        self.norm = nn.GroupNorm(8, channels)
        self.point = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, h, w)`` to the same shape."""
        y: Tensor = self.point(F.silu(self.norm(self.depth(x))))
        return x + y


class TrackHead(nn.Module):
    """Embeddings of given boxes: RoI pooling, two convolutions, two linear layers."""

    def __init__(self, channels: int, embedding_size: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.convs = nn.Sequential(
            nn.Conv2d(channels, 96, 3, padding=1, bias=False), nn.GroupNorm(8, 96),
            nn.SiLU(inplace=True),
            nn.Conv2d(96, 96, 3, padding=1, bias=False), nn.GroupNorm(8, 96),
            nn.SiLU(inplace=True))
        self.hidden = nn.Linear(96 * 49, 384)
        self.embed = nn.Linear(384, embedding_size)

    def forward(self, levels: list[Tensor], rois: Tensor) -> Tensor:
        """Return ``(N, D)`` float32 embeddings of norm ``scale`` for ``(N, 5)`` RoIs."""
        if not len(rois):
            return rois.new_zeros((0, self.embed.out_features))
        pooled = self.convs(pool_levels(levels, rois, 7))
        embedding = self.embed(F.silu(self.hidden(pooled.flatten(1)))).float()
        return F.normalize(embedding, dim=1) * self.scale


class TinyNetwork(nn.Module):
    """Everything together: one pass of features, heads on demand."""

    def __init__(self, config: TinyConfig | None = None) -> None:
        super().__init__()
        self.config = config or TinyConfig()
        width = self.config.channels
        self.backbone = Backbone()
        self.pyramid = Pyramid()
        self.laterals = nn.ModuleList(
            nn.Conv2d(inputs, width, 1) for inputs in (32, 64, 128, 256))
        self.fusion = nn.ModuleList(
            DynamicFusion(width) for _ in range(self.config.fusion_blocks))
        self.proposal_head = ProposalHead()
        self.mask_head = MaskHead(width, self.config.mask_size, self.config.mask_margin)
        self.track_head = TrackHead(
            width, self.config.embedding_size, self.config.embedding_scale)

    def features(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """
        Compute the pyramid for proposals and the fused levels for masks and embeddings.

        Parameters
        ----------
        images : Tensor
            ``(B, 3, H, W)`` float RGB from 0 to 255, sides a multiple of 32.

        Returns
        -------
        pyramid : list of Tensor
            Strides 8, 16, 32.
        levels : list of Tensor
            Strides 4, 8, 16, 32, all of ``config.channels`` channels.

        """
        stages = self.backbone(images)
        pyramid = self.pyramid(*stages[1:])
        levels = [lateral(x) for lateral, x in
                  zip(self.laterals, [stages[0], *pyramid], strict=True)]
        for block in self.fusion:
            levels = block(levels)
        return pyramid, levels

    def forward(
        self, images: Tensor, mask_rois: Tensor,
        track_rois: Callable[[Tensor, Tensor], Tensor],
    ) -> dict[str, Tensor]:
        """
        Run all heads; one call, so that distributed training sees every parameter.

        Parameters
        ----------
        images, mask_rois : Tensor
            As for `features` and `MaskHead`.
        track_rois : callable
            Proposed boxes ``(B, A, 4)`` and objectness logits ``(B, A)``, without gradients, to
            the ``(N, 5)`` RoIs to embed.

        """
        pyramid, levels = self.features(images)
        boxes, objectness = self.proposal_head(pyramid)
        masks, quality = self.mask_head(levels, mask_rois)
        rois = track_rois(boxes.detach(), objectness.detach())
        return {'boxes': boxes, 'objectness': objectness, 'masks': masks, 'quality': quality,
                'embeddings': self.track_head(levels, rois)}


def cell_corners(height: int, width: int, device: torch.device) -> Tensor:
    """``(height * width, 2)`` x and y index of every cell, row by row."""
    rows, columns = torch.meshgrid(
        torch.arange(height, device=device), torch.arange(width, device=device), indexing='ij')
    return torch.stack([columns, rows], -1).reshape(-1, 2).float()


def pool_levels(levels: list[Tensor], rois: Tensor, size: int) -> Tensor:
    """
    Pool each box by RoIAlign on the level that fits its size.

    Parameters
    ----------
    levels : list of Tensor
        ``(B, C, H, W)`` at strides 4, 8, 16, 32.
    rois : Tensor
        ``(N, 5)`` image index and box in input pixels.
    size : int
        Side of the pooled window.

    Returns
    -------
    Tensor
        ``(N, C, size, size)`` float32. Boxes up to 112 px (geometric mean of the sides) come
        from the finest level, then one level for each doubling, as in feature pyramid networks.

    """
    sides = (rois[:, 3:] - rois[:, 1:3]).clamp(min=1e-3)
    index = torch.floor(torch.log2(sides.prod(1).sqrt() / 56 + 1e-6)).long()
    index = index.clamp(0, len(levels) - 1)
    pooled = levels[0].new_zeros(
        (len(rois), levels[0].shape[1], size, size), dtype=torch.float32)
    for i, level in enumerate(levels):
        rows = torch.nonzero(index == i)[:, 0]
        # Pooling nothing costs little and keeps every level in the gradient.
        part = roi_align(level.float(), rois[rows], size, 1 / STRIDES[i], 2, aligned=True)
        pooled = pooled.index_copy(0, rows, part)
    return pooled


def _double(x: Tensor) -> Tensor:
    """Nearest enlargement by two."""
    return F.interpolate(x, scale_factor=2.0, mode='nearest')


def _coordinates(size: int, like: Tensor) -> Tensor:
    """``(1, 2, size, size)`` positions from -1 to 1."""
    line = torch.linspace(-1, 1, size, dtype=like.dtype, device=like.device)
    rows, columns = torch.meshgrid(line, line, indexing='ij')
    return torch.stack([columns, rows])[None]
