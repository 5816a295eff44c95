"""Region proposals: where something may be, of no particular class."""

from __future__ import annotations

from collections.abc import Sequence

from masa_ros.models.heads.boxes import anchors, ANCHORS_PER_CELL, apply_deltas, nms_within_groups
import torch
from torch import nn, Tensor
from torch.nn import functional


class RegionProposalHead(nn.Module):
    """
    One convolution shared by all levels, then scores and deltas of three anchors per cell.

    Parameters
    ----------
    channels : int
        Width of the pyramid.
    strides : sequence of int
        Network pixels per cell of every level.

    References
    ----------
    "Faster R-CNN", NIPS 2015; open-mmlab/mmdetection, ``mmdet/models/dense_heads/rpn_head.py``.

    """

    def __init__(self, channels: int, strides: Sequence[int]) -> None:
        super().__init__()
        self.strides = tuple(strides)
        self.rpn_conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.rpn_cls = nn.Conv2d(channels, ANCHORS_PER_CELL, 1)
        self.rpn_reg = nn.Conv2d(channels, 4 * ANCHORS_PER_CELL, 1)
        for conv in (self.rpn_conv, self.rpn_cls, self.rpn_reg):
            nn.init.normal_(conv.weight, std=0.01)
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]

    def forward(self, pyramid: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """
        Score and shape the anchors.

        Returns
        -------
        logits : list of Tensor
            ``(B, 3, H, W)`` of each level.
        deltas : list of Tensor
            ``(B, 12, H, W)`` of each level; channel ``4 * anchor + coordinate``.

        """
        hidden = [functional.relu(self.rpn_conv(level)) for level in pyramid]
        return [self.rpn_cls(x) for x in hidden], [self.rpn_reg(x) for x in hidden]

    def propose(
        self, logits: Sequence[Tensor], deltas: Sequence[Tensor], index: int,
        size: tuple[int, int], per_level: int = 1000, keep: int = 1000,
        iou_threshold: float = 0.7,
    ) -> tuple[Tensor, Tensor]:
        """
        Boxes of one image of the batch.

        Parameters
        ----------
        logits, deltas : sequence of Tensor
            What the head gave.
        index : int
            Position of the image in the batch.
        size : tuple of int
            Height and width of the image before padding, in network pixels.
        per_level, keep : int
            Most boxes before suppression of each level, and after it of all levels.
        iou_threshold : float
            Overlap within a level from which the lower scored box is dropped.

        Returns
        -------
        boxes : Tensor
            ``(N, 4)`` xyxy in network pixels, float32, by descending score.
        scores : Tensor
            ``(N,)``.

        """
        found, chances, origin = [], [], []
        for level, stride in enumerate(self.strides):
            score = logits[level][index].float().permute(1, 2, 0).flatten().sigmoid()
            delta = deltas[level][index].float().permute(1, 2, 0).reshape(-1, 4)
            height, width = logits[level].shape[-2:]
            grid = anchors(height, width, stride, score.device)
            score, best = score.sort(descending=True)
            score, best = score[:per_level], best[:per_level]
            found.append(apply_deltas(grid[best], delta[best], size))
            chances.append(score)
            origin.append(torch.full_like(best, level))
        boxes, scores, levels = torch.cat(found), torch.cat(chances), torch.cat(origin)
        solid = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
        boxes, scores, levels = boxes[solid], scores[solid], levels[solid]
        kept = nms_within_groups(boxes, scores, levels, iou_threshold)[:keep]
        return boxes[kept], scores[kept]
