"""The MASA network: backbone, adapter and heads under their published names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from masa_ros.models.adapter.fusion import Fusion
from masa_ros.models.adapter.pyramid import FeaturePyramid, SimplePyramid
from masa_ros.models.backbones.resnet import ResNet50, WIDTHS
from masa_ros.models.backbones.swin import Swin
from masa_ros.models.heads.box_head import BoxHead, RoiHead
from masa_ros.models.heads.roi import roi_features, roi_rows
from masa_ros.models.heads.rpn import RegionProposalHead
from masa_ros.models.heads.track_head import TrackHead
from masa_ros.models.variants import Variant
import torch
from torch import nn, Tensor

CHANNELS = 256
"""Width of the pyramid."""
_SWIN_WIDTHS = (256, 512, 1024)
# 300 boxes' pooled features are 15 MB in float32, their hidden layers as much.
_ROIS_AT_ONCE = 256


@dataclass(frozen=True)
class Encoded:
    """
    What one pass makes of a batch of images.

    Parameters
    ----------
    pyramid : list of Tensor
        Five fused levels ``(B, 256, H, W)`` from fine to coarse.
    image_embedding : Tensor or None
        ``(B, 256, 64, 64)`` for SAM's mask decoder; ``None`` for other backbones.
    backbone : tuple of Tensor
        Features that the adapter took, for the detector that has the same backbone; empty for
        backbones without one.

    """

    pyramid: list[Tensor]
    image_embedding: Tensor | None = None
    backbone: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class ProposalRule:
    """
    Which of the network's own boxes are kept.

    Parameters
    ----------
    score_threshold : float
        Only scores above it.
    iou_threshold : float
        Overlap from which the lower scored box is dropped.
    keep : int
        Most boxes of an image.

    """

    score_threshold: float = 0.02
    iou_threshold: float = 0.5
    keep: int = 50


class MasaNetwork(nn.Module):
    """
    Any published variant.

    SAM's parts are created without memory, on the meta device, because they are never used
    without weights; the rest is initialized for training.

    Parameters
    ----------
    variant : Variant
        Which one.

    """

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        self.variant = variant
        pyramid: FeaturePyramid
        if variant.has_sam:
            from masa_ros.models.sam.architecture import (
                ARCHITECTURES,
                build_network,
                VitArchitecture,
            )
            architecture = ARCHITECTURES[variant.backbone]
            assert isinstance(architecture, VitArchitecture)
            sam = build_network(architecture)
            self.detector = nn.ModuleDict({
                'backbone': sam.image_encoder, 'prompt_encoder': sam.prompt_encoder,
                'mask_decoder': sam.mask_decoder})
            pyramid = SimplePyramid(architecture.width, CHANNELS)
        elif variant.has_swin:
            window = int(variant.backbone.removeprefix('swin_b_window'))
            self.detector = nn.ModuleDict({'backbone': Swin(window=window)})
            pyramid = FeaturePyramid(_SWIN_WIDTHS, CHANNELS)
        else:
            self.backbone = ResNet50()
            pyramid = FeaturePyramid(WIDTHS, CHANNELS)
        self.masa_adapter = nn.Sequential(pyramid, Fusion(attention=variant.has_sam))
        self.rpn_head = RegionProposalHead(CHANNELS, variant.strides)
        self.roi_head = RoiHead(BoxHead(CHANNELS, variant.box_convs, variant.box_linears))
        self.track_head = TrackHead(CHANNELS)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights and features."""
        return self.rpn_head.rpn_conv.weight.dtype

    def backbone_features(self, images: Tensor) -> tuple[Sequence[Tensor], Tensor | None]:
        """Features that the adapter takes, and SAM's image embedding where there is one."""
        images = images.to(self.dtype)
        if self.variant.has_sam:
            from masa_ros.models.sam.encoder import encode
            features = encode(self.detector['backbone'], images)
            return features.taps, features.neck
        if self.variant.has_swin:
            levels: list[Tensor] = self.detector['backbone'](images)
            return levels, None
        return self.backbone(images), None

    def forward(self, images: Tensor) -> Encoded:
        """
        Run backbone and adapter once.

        Parameters
        ----------
        images : Tensor
            ``(B, 3, H, W)`` normalized and padded.

        """
        features, embedding = self.backbone_features(images)
        shared = tuple(features) if self.variant.has_swin else ()
        return Encoded(self.masa_adapter(features), embedding, shared)

    def embed(self, encoded: Encoded, boxes: Sequence[Tensor]) -> list[Tensor]:
        """
        Appearance embeddings of boxes.

        Parameters
        ----------
        encoded : Encoded
            Features of ``B`` images.
        boxes : sequence of Tensor
            ``B`` tensors ``(N_b, 4)`` xyxy in network pixels, float32.

        Returns
        -------
        list of Tensor
            ``B`` tensors ``(N_b, 256)`` float32, not normalized.

        """
        flat = self._over_boxes(encoded.pyramid, boxes, self.track_head)
        return list(torch.split(flat, [len(group) for group in boxes]))

    def propose(
        self, encoded: Encoded, sizes: Sequence[tuple[int, int]], rule: ProposalRule,
    ) -> list[tuple[Tensor, Tensor]]:
        """
        Boxes of anything, by the object prior that was distilled from SAM.

        Parameters
        ----------
        encoded : Encoded
            Features of ``B`` images.
        sizes : sequence of tuple
            Height and width of each before padding, in network pixels.
        rule : ProposalRule
            What is kept.

        Returns
        -------
        list of tuple
            For each image boxes ``(N, 4)`` in network pixels and scores ``(N,)``, float32, by
            descending score.

        """
        logits, deltas = self.rpn_head(encoded.pyramid)
        regions = [self.rpn_head.propose(logits, deltas, index, size)[0]
                   for index, size in enumerate(sizes)]
        judged = self._over_boxes(encoded.pyramid, regions, self._judge)
        verdicts = torch.split(judged, [len(group) for group in regions])
        results = []
        for boxes, verdict, size in zip(regions, verdicts, sizes, strict=True):
            results.append(BoxHead.select(
                boxes, verdict[:, :2], verdict[:, 2:], size, rule.score_threshold,
                rule.iou_threshold, rule.keep))
        return results

    def _judge(self, features: Tensor) -> Tensor:
        """Box head's logits and deltas side by side, ``(N, 6)``."""
        return torch.cat(self.roi_head.bbox_head(features), dim=1)

    def _over_boxes(
        self, pyramid: Sequence[Tensor], boxes: Sequence[Tensor],
        head: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """Run a head on the pooled features of all boxes, some at a time, into float32."""
        rows = roi_rows(boxes)
        strides = self.variant.strides[:self.variant.roi_levels]
        results = [head(roi_features(pyramid, chunk, strides)).float()
                   for chunk in torch.split(rows, _ROIS_AT_ONCE)]
        return torch.cat(results)
