"""
Detic's heads on the features of a Swin backbone, under their published names.

A feature pyramid, CenterNet2's proposals (one heat map of objects of any class, four distances to
the box's edges), and three box heads in a row, each refining the boxes of the one before. A class
is a vector of CLIP's text encoder; a box's score for it is the cosine with the box's own vector.

References
----------
X. Zhou et al., "Probabilistic two-stage detection", arXiv:2103.07461 (CenterNet2); X. Zhou et
al., "Detecting twenty-thousand classes using image-level supervision", ECCV 2022 (Detic);
open-mmlab/mmdetection, ``projects/Detic_new``, whose names these are.

"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
import re

from masa_ros.detectors.on_backbone import PREFIX
from masa_ros.models.heads.boxes import apply_deltas
from masa_ros.models.heads.roi import roi_features, roi_rows, ROI_SIZE
import torch
from torch import nn, Tensor
from torch.nn import functional
from torchvision.ops import nms

CHANNELS = 256
VECTOR_WIDTH = 512
"""Length of CLIP's text vectors (ViT-B/32)."""
STRIDES = (8, 16, 32, 64, 128)

UNUSED = {
    r'roi_head\.mask_head\..*': 'masks come from the tracking model or its mask model',
    r'roi_head\.bbox_head\.\d\.freq_weight': 'how frequent classes are, a part of the loss',
    r'backbone\..*': 'the image features come from the tracking model, or from our own Swin',
}
"""Patterns of entries that the heads do without, and why."""

_ROI_LEVELS = 3
_FINEST_SIDE = 112
_STAGE_STDS = ((0.1, 0.1, 0.2, 0.2), (0.05, 0.05, 0.1, 0.1), (0.033, 0.033, 0.067, 0.067))
_TEMPERATURE = 50.0
_LEAST_SIDE = 0.01
_ROIS_AT_ONCE = 256


@dataclass(frozen=True)
class ProposalRule:
    """
    Which proposals go to the box heads; the published values.

    Parameters
    ----------
    score : float
        Lowest height of the heat map.
    per_level : int
        Most proposals of a level before suppression.
    iou_threshold : float
        Overlap from which the lower scored proposal is dropped.
    keep : int
        Most proposals of an image.

    """

    score: float = 0.0001
    per_level: int = 1000
    iou_threshold: float = 0.9
    keep: int = 256


class _Conv(nn.Module):
    """Convolution under the name ``conv``."""

    def __init__(self, before: int, after: int, size: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, size, stride, padding=size // 2)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.conv(x)
        return result


class _ConvNorm(_Conv):
    """The same, group normalization ``gn``, ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3)
        self.gn = nn.GroupNorm(32, channels)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.gn(self.conv(x)))


class Pyramid(nn.Module):
    """
    Feature pyramid of five levels from three.

    Parameters
    ----------
    widths : sequence of int
        Channels of the backbone's levels.
    channels : int
        Channels of the pyramid.

    """

    def __init__(self, widths: Sequence[int], channels: int = CHANNELS) -> None:
        super().__init__()
        self.lateral_convs = nn.ModuleList(_Conv(width, channels, 1) for width in widths)
        levels = len(widths)
        self.fpn_convs = nn.ModuleList(
            _Conv(channels, channels, 3, 1 if index < levels else 2)
            for index in range(len(STRIDES)))

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Make the levels at strides 8 to 128 of those at 8, 16 and 32."""
        lateral = [conv(level) for conv, level in zip(self.lateral_convs, features, strict=True)]
        for index in range(len(lateral) - 1, 0, -1):
            size = lateral[index - 1].shape[-2:]
            lateral[index - 1] = lateral[index - 1] + functional.interpolate(
                lateral[index], size=size)
        levels = [conv(level) for conv, level in zip(self.fpn_convs, lateral, strict=False)]
        for index, conv in enumerate(list(self.fpn_convs)[len(lateral):]):
            # The second extra level is made of the first one's positive part.
            levels.append(conv(functional.relu(levels[-1]) if index else levels[-1]))
        return levels


class _Scale(nn.Module):
    """A learned factor under the name ``scale``."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))


class CenterHead(nn.Module):
    """
    Heat map of object centres, and the distances from each cell to the edges of its box.

    Parameters
    ----------
    channels : int
        Channels of the pyramid.

    """

    def __init__(self, channels: int = CHANNELS) -> None:
        super().__init__()
        self.reg_convs = nn.ModuleList(_ConvNorm(channels) for _ in range(4))
        self.conv_cls = nn.Conv2d(channels, 1, 3, padding=1)
        self.conv_reg = nn.Conv2d(channels, 4, 3, padding=1)
        self.scales = nn.ModuleList(_Scale() for _ in STRIDES)

    def forward(self, pyramid: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """
        Look for centres on all levels.

        Returns
        -------
        heat : list of Tensor
            ``(B, 1, H, W)`` in ``[0, 1]`` of each level.
        distances : list of Tensor
            ``(B, 4, H, W)`` to the left, top, right and bottom edge, in network pixels.

        """
        heat, distances = [], []
        for level, scale, stride in zip(pyramid, self.scales, STRIDES, strict=True):
            for conv in self.reg_convs:
                level = conv(level)
            factor: Tensor = scale.scale  # type: ignore[assignment]
            heat.append(self.conv_cls(level).float().sigmoid())
            distances.append((self.conv_reg(level) * factor).float().clamp(min=0) * stride)
        return heat, distances


def propose(
    heat: Sequence[Tensor], distances: Sequence[Tensor], index: int,
    rule: ProposalRule | None = None,
) -> tuple[Tensor, Tensor]:
    """
    Proposals of one image of a batch.

    Parameters
    ----------
    heat, distances : sequence of Tensor
        What `CenterHead` gave.
    index : int
        Position of the image in the batch.
    rule : ProposalRule, optional
        What is kept.

    Returns
    -------
    boxes : Tensor
        ``(N, 4)`` xyxy in network pixels, not clipped, by descending score.
    scores : Tensor
        ``(N,)``, square roots of the heat.

    """
    rule = rule or ProposalRule()
    found, scores = [], []
    for level, (hot, reach) in enumerate(zip(heat, distances, strict=True)):
        width = hot.shape[-1]
        score = hot[index, 0].flatten()
        best = score.topk(min(rule.per_level, len(score))).indices
        best = best[score[best] > rule.score]
        # Cells are centred half a stride from their corner.
        x = (best % width + 0.5) * STRIDES[level]
        y = (torch.div(best, width, rounding_mode='floor') + 0.5) * STRIDES[level]
        sides = reach[index].flatten(1).T[best]
        boxes = torch.stack((x - sides[:, 0], y - sides[:, 1],
                             x + sides[:, 2], y + sides[:, 3]), dim=1)
        boxes[:, 2:] = torch.maximum(boxes[:, 2:], boxes[:, :2] + _LEAST_SIDE)
        found.append(boxes)
        scores.append(score[best].sqrt())
    every, chances = torch.cat(found), torch.cat(scores)
    kept = nms(every, chances, rule.iou_threshold)[:rule.keep]
    return every[kept], chances[kept]


class ClassVectors(nn.Module):
    """
    Scores of classes that are vectors.

    Parameters
    ----------
    hidden : int
        Width of what comes in.
    classes : int
        Number of classes whose vectors are stored; one more, of zeros, is the background.

    """

    def __init__(self, hidden: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden, VECTOR_WIDTH)
        self.register_buffer('zs_weight', torch.zeros(VECTOR_WIDTH, classes + 1))

    def forward(self, hidden: Tensor, vectors: Tensor) -> Tensor:
        """
        Compare features with class vectors.

        Parameters
        ----------
        hidden : Tensor
            ``(N, hidden)``.
        vectors : Tensor
            ``(K, 512)`` of length 1.

        Returns
        -------
        Tensor
            ``(N, K)`` logits, 50 times the cosine.

        """
        embedded = functional.normalize(self.linear(hidden), dim=1)
        return _TEMPERATURE * embedded @ vectors.T


class RefineHead(nn.Module):
    """
    One of the three box heads.

    Parameters
    ----------
    channels : int
        Channels of the pyramid.
    hidden : int
        Width of its layers.
    classes : int
        Number of stored classes.

    """

    def __init__(
        self, channels: int = CHANNELS, hidden: int = 1024, classes: int = 1203,
    ) -> None:
        super().__init__()
        self.shared_fcs = nn.ModuleList(
            [nn.Linear(channels * ROI_SIZE ** 2, hidden), nn.Linear(hidden, hidden)])
        self.fc_cls = ClassVectors(hidden, classes)
        self.fc_reg = nn.Sequential(
            nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 4))

    def forward(self, features: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Logits ``(N, K)`` and deltas ``(N, 4)`` of pooled features ``(N, C, 7, 7)``."""
        hidden = features.flatten(1)
        for layer in self.shared_fcs:
            hidden = functional.relu(layer(hidden))
        return self.fc_cls(hidden, vectors), self.fc_reg(hidden)


class DeticHeads(nn.Module):
    """
    Detic without its image backbone.

    Parameters
    ----------
    widths : sequence of int
        Channels of the backbone's levels.
    channels, hidden : int
        Channels of the pyramid and width of the box heads.
    classes : int
        Number of stored classes.

    """

    def __init__(
        self, widths: Sequence[int] = (256, 512, 1024), channels: int = CHANNELS,
        hidden: int = 1024, classes: int = 1203,
    ) -> None:
        super().__init__()
        self.neck = Pyramid(widths, channels)
        self.rpn_head = CenterHead(channels)
        self.roi_head = nn.ModuleDict({'bbox_head': nn.ModuleList(
            RefineHead(channels, hidden, classes) for _ in _STAGE_STDS)})

    @property
    def stored_vectors(self) -> Tensor:
        """Class vectors ``(classes, 512)`` that came with the weights, of length 1."""
        heads: nn.ModuleList = self.roi_head['bbox_head']  # type: ignore[assignment]
        stored: Tensor = heads[0].fc_cls.zs_weight  # type: ignore[union-attr,assignment]
        return functional.normalize(stored[:, :-1], dim=0).T

    def forward(
        self, features: Sequence[Tensor], sizes: Sequence[tuple[int, int]], vectors: Tensor,
    ) -> list[tuple[Tensor, Tensor]]:
        """
        Detect.

        Parameters
        ----------
        features : sequence of Tensor
            Three levels ``(B, C, h, w)`` of the backbone.
        sizes : sequence of tuple
            Height and width of each image before padding, in network pixels.
        vectors : Tensor
            ``(K, 512)`` classes to look for, of length 1.

        Returns
        -------
        list of tuple
            For each image boxes ``(N, 4)`` in network pixels, clipped, and class scores
            ``(N, K)``.

        """
        pyramid = self.neck(features)
        heat, distances = self.rpn_head(pyramid)
        proposals = [propose(heat, distances, index) for index in range(len(sizes))]
        boxes = [found for found, _ in proposals]
        scores = [torch.zeros(len(found), len(vectors), device=found.device) for found in boxes]
        heads: nn.ModuleList = self.roi_head['bbox_head']  # type: ignore[assignment]
        for head, stds in zip(heads, _STAGE_STDS, strict=True):
            judged = self._over_boxes(head, pyramid, boxes, vectors)
            for index, (logits, deltas) in enumerate(judged):
                scores[index] = scores[index] + logits.sigmoid() / len(_STAGE_STDS)
                boxes[index] = apply_deltas(boxes[index], deltas, sizes[index], stds)
        # CenterNet2: how sure there is an object, times how sure it is this one.
        return [(found, (score * chance[:, None]).sqrt())
                for found, score, (_, chance) in zip(boxes, scores, proposals, strict=True)]

    @staticmethod
    def _over_boxes(
        head: nn.Module, pyramid: Sequence[Tensor], boxes: Sequence[Tensor], vectors: Tensor,
    ) -> list[tuple[Tensor, Tensor]]:
        """Logits and deltas of one head for the boxes of each image."""
        parts = [head(roi_features(pyramid, rows, STRIDES[:_ROI_LEVELS], _FINEST_SIDE), vectors)
                 for rows in torch.split(roi_rows(boxes), _ROIS_AT_ONCE)]
        counts = [len(group) for group in boxes]
        logits = torch.split(torch.cat([part[0] for part in parts]).float(), counts)
        deltas = torch.split(torch.cat([part[1] for part in parts]).float(), counts)
        return list(zip(logits, deltas, strict=True))


def heads_from_entries(entries: Mapping[str, Tensor], where: str) -> DeticHeads:
    """
    Build the heads from the entries of a MASA file; sizes are read from the shapes.

    Raises
    ------
    ValueError
        If the file holds no Detic, or one with other entries.

    """
    inner = {name.removeprefix(PREFIX): value for name, value in entries.items()
             if name.startswith(PREFIX)}
    state = {name: value.float() for name, value in inner.items()
             if not any(re.fullmatch(pattern, name) for pattern in UNUSED)}
    try:
        widths = [inner[f'neck.lateral_convs.{index}.conv.weight'].shape[1] for index in range(3)]
        hidden, pooled = inner['roi_head.bbox_head.0.shared_fcs.0.weight'].shape
        classes = inner['roi_head.bbox_head.0.fc_cls.zs_weight'].shape[1] - 1
    except KeyError as error:
        raise ValueError(f'{where} holds no Detic: {PREFIX}{error.args[0]} is missing; give '
                         'detic_masa.pth') from None
    heads = DeticHeads(widths, pooled // ROI_SIZE ** 2, hidden, classes)
    try:
        heads.load_state_dict(state)
    except RuntimeError as error:
        problem = ' '.join(str(error).split())[:400]
        raise ValueError(f'{where} does not fit Detic: {problem}') from error
    return heads.eval().requires_grad_(False)
