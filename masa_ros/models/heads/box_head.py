"""Class-agnostic box head: the object prior distilled from SAM."""

from __future__ import annotations

import itertools

from masa_ros.models.heads.boxes import apply_deltas
from masa_ros.models.heads.roi import ROI_SIZE
import torch
from torch import nn, Tensor
from torch.nn import functional
from torchvision.ops import nms

_DELTA_STDS = (0.1, 0.1, 0.2, 0.2)


class _ConvNorm(nn.Module):
    """Convolution ``conv`` without bias, batch normalization ``bn``, ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn(self.conv(x)))


class BoxHead(nn.Module):
    """
    Score and refine proposals.

    Parameters
    ----------
    channels : int
        Width of the pyramid.
    convs, linears : int
        Hidden layers: 4 and 1 for the R50 variant, 0 and 2 for the others.
    hidden : int
        Width of the linear layers.

    """

    def __init__(
        self, channels: int = 256, convs: int = 0, linears: int = 2, hidden: int = 1024,
    ) -> None:
        super().__init__()
        self.shared_convs = nn.ModuleList(_ConvNorm(channels) for _ in range(convs))
        widths = [channels * ROI_SIZE ** 2] + [hidden] * linears
        self.shared_fcs = nn.ModuleList(
            nn.Linear(before, after) for before, after in itertools.pairwise(widths))
        self.fc_cls = nn.Linear(hidden, 2)
        self.fc_reg = nn.Linear(hidden, 4)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """
        Judge pooled features ``(N, C, 7, 7)``.

        Returns
        -------
        logits : Tensor
            ``(N, 2)``: object, background.
        deltas : Tensor
            ``(N, 4)``, before their standard deviations.

        """
        for conv in self.shared_convs:
            features = conv(features)
        hidden = features.flatten(1)
        for linear in self.shared_fcs:
            hidden = functional.relu(linear(hidden))
        return self.fc_cls(hidden), self.fc_reg(hidden)

    @staticmethod
    def select(
        proposals: Tensor, logits: Tensor, deltas: Tensor, size: tuple[int, int],
        score_threshold: float, iou_threshold: float, keep: int,
    ) -> tuple[Tensor, Tensor]:
        """
        Refine the proposals of one image and keep the good ones.

        Parameters
        ----------
        proposals : Tensor
            ``(N, 4)`` xyxy in network pixels.
        logits, deltas : Tensor
            What the head gave for them.
        size : tuple of int
            Height and width of the image before padding, in network pixels.
        score_threshold : float
            Only scores above it are kept.
        iou_threshold : float
            Overlap from which the lower scored box is dropped.
        keep : int
            Most boxes.

        Returns
        -------
        boxes : Tensor
            ``(K, 4)`` xyxy in network pixels, by descending score.
        scores : Tensor
            ``(K,)``.

        """
        boxes = apply_deltas(proposals, deltas.float(), size, _DELTA_STDS)
        scores = torch.softmax(logits.float(), dim=1)[:, 0]
        good = scores > score_threshold
        boxes, scores = boxes[good], scores[good]
        kept = nms(boxes, scores, iou_threshold)[:keep]
        return boxes[kept], scores[kept]


class RoiHead(nn.Module):
    """Holder that gives the box head its published name."""

    def __init__(self, bbox_head: BoxHead) -> None:
        super().__init__()
        self.bbox_head = bbox_head
