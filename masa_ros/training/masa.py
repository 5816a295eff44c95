"""
Training of the MASA variants: adapter and heads over a frozen encoder, under published names.

What is learned keeps the names of the authors' files, so that `export` writes a file which
`masa_ros.models.load` reads like theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import logging
from pathlib import Path
from typing import Any

from masa_ros.models import weights
from masa_ros.models.checkpoint import load_backbone, read_entries
from masa_ros.models.heads.roi import roi_features, roi_rows
from masa_ros.models.heads.rpn import RegionProposalHead
from masa_ros.models.masa_network import MasaNetwork, ProposalRule
from masa_ros.models.preprocess import PIXEL_MEAN, PIXEL_STD
from masa_ros.models.variants import find_variant, Variant
from masa_ros.training.config import TrainConfig
from masa_ros.training.dataset import Batch, collate, PairDataset
from masa_ros.training.distillation import (
    box_head_losses,
    rpn_losses,
    sampled_tracking_loss,
    track_samples,
)
from masa_ros.training.losses import tracking_loss
from masa_ros.training.trainable import Step
from masa_ros.training.validation import mean_of, recalled, retrieved
import torch
from torch import nn, Tensor
from torch.nn import functional as F

log = logging.getLogger(__name__)

LEARNED = ('masa_adapter.', 'rpn_head.', 'roi_head.', 'track_head.', 'backbone.')
"""Prefixes of what a run may learn; a backbone under ``detector.`` is never among it."""
EXPORTED = 'masa.pth'
"""Name of the file that a finished run writes for `masa_ros.models.load`."""
_SAM_SIDE = 1024
_DIVISOR = 32
_RPN_TRAINING, _RPN_TESTING = 2000, 1000
_KEPT_REGIONS = 1000


class Frozen:
    """Modules that are used, but neither learned, saved, averaged nor copied."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module.eval().requires_grad_(False)

    def __deepcopy__(self, _: dict[int, Any]) -> Frozen:
        return self


class MasaStudent(nn.Module):
    """
    The parts of a MASA variant that are learned, in front of an encoder that is not.

    Parameters
    ----------
    encoder : Module
        Frozen; called as ``encode(encoder, pixels)``.
    encode : callable
        Encoder and normalized pixels ``(B, 3, H, W)`` to the features that the adapter takes.
    adapter, rpn_head, roi_head, track_head : Module
        As in `MasaNetwork`.
    strides : sequence of int
        Network pixels per cell of each pyramid level.
    roi_levels : int
        Number of levels that boxes are pooled from.
    side : int
        Side in pixels that views are scaled to; 0 takes them as they are.
    beta : float
        Where the loss of anchor boxes turns linear.
    backbone : Module, optional
        In place of ``encoder`` where it may be learned too; its statistics stay.

    """

    def __init__(
        self, encoder: nn.Module, encode: Callable[[nn.Module, Tensor], Sequence[Tensor]],
        adapter: nn.Module, rpn_head: RegionProposalHead, roi_head: Any, track_head: nn.Module,
        strides: Sequence[int], roi_levels: int, side: int = 0, beta: float = 1 / 9,
        backbone: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if backbone is not None:
            self.backbone = backbone
        self._frozen = None if backbone is not None else Frozen(encoder)
        self._encode = encode
        self.masa_adapter, self.track_head = adapter, track_head
        self.rpn_head, self.roi_head = rpn_head, roi_head
        self.strides, self.roi_levels = tuple(strides), roi_levels
        self.side, self.beta = side, beta

    @property
    def encoder(self) -> nn.Module:
        """Whatever comes before the adapter."""
        return self.backbone if self._frozen is None else self._frozen.module

    def train(self, mode: bool = True) -> MasaStudent:
        """Switch to training; parts that are frozen, and the encoder, keep their statistics."""
        super().train(mode)
        for name, part in self.named_children():
            learns = any(parameter.requires_grad for parameter in part.parameters())
            if name == 'backbone' or not learns:
                part.eval()
        return self

    def pyramid(self, images: Tensor) -> tuple[list[Tensor], float]:
        """
        Fused levels of views.

        Parameters
        ----------
        images : Tensor
            ``(B, 3, S, S)`` RGB from 0 to 255.

        Returns
        -------
        levels : list of Tensor
            ``(B, C, H, W)`` from fine to coarse, float32.
        scale : float
            Network pixels per pixel of a view.

        """
        pixels, scale = self._pixels(images)
        return self.levels(pixels), scale

    def levels(self, pixels: Tensor) -> list[Tensor]:
        """Fused levels of normalized and padded images ``(B, 3, H, W)``."""
        with torch.set_grad_enabled(self._learns(self.encoder)):
            features = self._encode(self.encoder, pixels)
        with torch.set_grad_enabled(self._learns_before_heads()):
            levels: list[Tensor] = self.masa_adapter(features)
        return levels

    def pooled(self, levels: Sequence[Tensor], rois: Tensor) -> Tensor:
        """Features ``(N, C, 7, 7)`` of boxes ``(N, 5)`` in network pixels."""
        return roi_features(levels, rois, self.strides[:self.roi_levels])

    def regions(
        self, outputs: tuple[list[Tensor], list[Tensor]], views: Sequence[int], side: float,
        per_level: int,
    ) -> list[Tensor]:
        """Proposals of some views, without gradients."""
        size = (round(side), round(side))
        with torch.no_grad():
            return [self.rpn_head.propose(*outputs, view, size, per_level, _KEPT_REGIONS)[0]
                    for view in views]

    def forward(self, batch: Batch, config: TrainConfig, generator: torch.Generator) -> dict[
            str, Tensor]:
        """Weighted losses of a batch that is on the device."""
        loss = config.loss
        if batch.track_features is not None:
            embeddings = self.track_head(batch.track_features.float())
            return tracking_loss(
                embeddings, batch.identities, batch.track_rois[:, 0], batch.num_pairs,
                loss.contrast, loss.contrast_weight, loss.margin_weight, loss.across_images,
                batch.recordings)
        levels, scale = self.pyramid(batch.images.float())
        pairs, side = batch.num_pairs, batch.images.shape[-1] * scale
        parts: dict[str, Tensor] = {}
        outputs = None
        if loss.detection_weight or loss.track_samples == 'proposals':
            with torch.set_grad_enabled(self._learns(self.rpn_head)):
                outputs = self.rpn_head(levels)
        if loss.detection_weight:
            assert outputs is not None
            parts.update(self._distill(batch, levels, outputs, scale, side, loss.detection_weight,
                                       generator))
        rois = torch.cat([batch.track_rois[:, :1], batch.track_rois[:, 1:] * scale], 1)
        if loss.track_samples == 'boxes':
            # The head needs at least one RoI, or processes would wait for gradients.
            used = rois if len(rois) else rois.new_tensor([[0, 0, 0, 32, 32]])
            embeddings = self.track_head(self.pooled(levels, used))[:len(rois)].float()
            return {**tracking_loss(
                embeddings, batch.identities, rois[:, 0], pairs, loss.contrast,
                loss.contrast_weight, loss.margin_weight, loss.across_images,
                batch.recordings), **parts}
        assert outputs is not None
        regions = (self.regions(outputs, range(pairs), side, _RPN_TRAINING)
                   + self.regions(outputs, range(pairs, 2 * pairs), side, _RPN_TESTING))
        samples = track_samples(regions, rois, batch.identities, generator)
        used = (samples.rois if len(samples.rois)
                else samples.rois.new_tensor([[0, 0, 0, 32, 32]]))
        embeddings = self.track_head(self.pooled(levels, used))[:len(samples.rois)].float()
        return {**sampled_tracking_loss(embeddings, samples, pairs, loss.contrast,
                                        loss.contrast_weight, loss.margin_weight), **parts}

    def _distill(
        self, batch: Batch, levels: Sequence[Tensor], outputs: tuple[list[Tensor], list[Tensor]],
        scale: float, side: float, weight: float, generator: torch.Generator,
    ) -> dict[str, Tensor]:
        """Losses of the object prior on the first views."""
        pairs = batch.num_pairs
        truths = [boxes * scale for boxes in batch.boxes[:pairs]]
        first = [x[:pairs] for x in outputs[0]], [x[:pairs] for x in outputs[1]]
        parts = rpn_losses(*first, self.strides, truths, self.beta, generator)
        regions = self.regions(outputs, range(pairs), side, _RPN_TRAINING)

        def judge(boxes: list[Tensor]) -> tuple[Tensor, Tensor]:
            logits, deltas = self.roi_head.bbox_head(self.pooled(levels, roi_rows(boxes)))
            return logits, deltas

        parts.update(box_head_losses(judge, regions, truths, generator))
        return {name: weight * value for name, value in parts.items()}

    def _pixels(self, images: Tensor) -> tuple[Tensor, float]:
        """Scale, normalize and pad views as `masa_ros.models.preprocess` does."""
        own = images.shape[-1]
        scale = self.side / own if self.side else 1.0
        if scale != 1:
            images = F.interpolate(images, (self.side, self.side), mode='bilinear')
        mean = images.new_tensor(PIXEL_MEAN).view(3, 1, 1)
        std = images.new_tensor(PIXEL_STD).view(3, 1, 1)
        rest = -images.shape[-1] % _DIVISOR
        padded = F.pad((images - mean) / std, (0, rest, 0, rest))
        return padded.contiguous(memory_format=torch.channels_last), scale

    def _learns_before_heads(self) -> bool:
        return self._learns(self.masa_adapter) or self._learns(self.encoder)

    @staticmethod
    def _learns(module: nn.Module) -> bool:
        return torch.is_grad_enabled() and any(p.requires_grad for p in module.parameters())


class MasaTrainable:
    """A MASA variant under the settings of a run; see `masa_ros.training.trainable`."""

    def __init__(self, config: TrainConfig, student: MasaStudent | None = None) -> None:
        self.config = config
        self.student = student or load_student(config)
        self.network: nn.Module = self.student
        self.slow: set[str] = set()
        if not config.loss.detection_weight:
            # Without their losses they would get no gradients, for which processes would wait.
            self.student.rpn_head.requires_grad_(False)
            self.student.roi_head.requires_grad_(False)

    def to(self, device: torch.device) -> None:
        """Move learned and frozen parts."""
        self.student.to(device)
        self.student.encoder.to(device)

    def losses(self, network: nn.Module, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Weighted losses of one batch."""
        with torch.autocast(
                step.device.type, torch.bfloat16, self.config.precision == 'bfloat16'):
            parts: dict[str, Tensor] = network(batch.to(step.device), self.config, step.generator)
        return parts

    @torch.no_grad()
    def validate(self, network: nn.Module, dataset: PairDataset) -> dict[str, float]:
        """Score retrieval between the views, and recall of the labelled boxes by the best 100."""
        assert isinstance(network, MasaStudent)
        network.eval()
        device = next(network.parameters()).device
        hits: list[Tensor] = []
        recalls: list[Tensor] = []
        for index in range(len(dataset)):
            views = collate([dataset[index]]).to(device)
            if views.track_features is None:
                levels, scale = network.pyramid(views.images.float())
                rois = torch.cat([views.track_rois[:, :1], views.track_rois[:, 1:] * scale], 1)
                features = network.pooled(levels, rois)
                if self.config.loss.detection_weight:
                    recalls += self._recalled(network, views, levels, scale)
            else:
                features = views.track_features.float()
            hits += retrieved(network.track_head(features).float(), views, 1)
        return {'retrieval': mean_of(hits), 'recall': mean_of(recalls)}

    def export(self, network: nn.Module, run: Path) -> Path | None:
        """Write the averaged weights as the authors' files are written."""
        return export(self.config, network.state_dict(), run / EXPORTED)

    def cached(self, dataset: PairDataset, folder: Path, main: bool) -> PairDataset:
        """Compute the pooled features of the pairs once, where the track head learns alone."""
        from masa_ros.training.cache import cache_features

        moving = [name for name, parameter in self.student.named_parameters()
                  if parameter.requires_grad and not name.startswith('track_head.')]
        if moving or self.config.loss.track_samples != 'boxes':
            raise ValueError(
                'data.cached_pairs needs features that stay as they are; freeze everything but '
                f'the track head (optim.frozen leaves {moving[:2]} free) and take '
                'loss.track_samples: boxes')
        return cache_features(dataset, self.student, folder, main)

    @staticmethod
    def _recalled(
        network: MasaStudent, views: Batch, levels: list[Tensor], scale: float,
    ) -> list[Tensor]:
        """Recall of the labelled boxes of both views of a pair."""
        side = views.images.shape[-1] * scale
        outputs = network.rpn_head(levels)
        regions = network.regions(outputs, range(2), side, _RPN_TESTING)
        logits, deltas = network.roi_head.bbox_head(network.pooled(levels, roi_rows(regions)))
        rule = ProposalRule(score_threshold=0.0, iou_threshold=0.7, keep=100)
        sizes = [len(boxes) for boxes in regions]
        found = []
        for boxes, logit, delta in zip(
                regions, logits.split(sizes), deltas.split(sizes), strict=True):
            found.append(network.roi_head.bbox_head.select(
                boxes, logit, delta, (round(side), round(side)), rule.score_threshold,
                rule.iou_threshold, rule.keep)[0] / scale)
        return recalled(found, views.boxes)


def student_of(network: MasaNetwork) -> MasaStudent:
    """Take the parts of a variant's network for training."""
    variant = network.variant
    own = network.backbone if not (variant.has_sam or variant.has_swin) else None
    encoder = own if own is not None else network.detector['backbone']
    return MasaStudent(
        encoder, _encode_sam if variant.has_sam else _encode_levels, network.masa_adapter,
        network.rpn_head, network.roi_head, network.track_head, variant.strides,
        variant.roi_levels, _SAM_SIDE if variant.has_sam else 0,
        0.0 if own is not None else 1 / 9, own)


def load_student(config: TrainConfig) -> MasaStudent:
    """
    Build the student that a recipe starts from.

    Adapter and heads are new, or those of ``initial_weights``: a file of the authors, one that
    `export` wrote, or a checkpoint of the trainer. The frozen encoder comes from
    ``backbone_weights``, else from ``initial_weights`` where it holds one, else from the weights
    folder.

    Raises
    ------
    FileNotFoundError
        If a file is missing; the message says where to get it.
    ValueError
        If a file does not fit.

    """
    variant = find_variant(config.model)
    network = MasaNetwork(variant)
    start: dict[str, Tensor] = {}
    if config.initial_weights:
        start = learned_entries(config.initial_weights)
    if 'backbone.' not in {name.split('.')[0] + '.' for name in start}:
        load_backbone(network, backbone_file(config, variant))
    student = student_of(network)
    if start:
        wanted = dict.fromkeys(student.state_dict())
        missing = [name for name in wanted if name not in start
                   and not name.endswith('num_batches_tracked')]
        if missing:
            raise ValueError(
                f'{config.initial_weights} does not fit {config.model}: it lacks {len(missing)} '
                f'entries such as {missing[0]}')
        try:
            student.load_state_dict({name: start[name] for name in wanted if name in start},
                                    strict=False)
        except RuntimeError as error:
            raise ValueError(
                f'{config.initial_weights} does not fit {config.model}: {error}') from error
    return student


def learned_entries(path: str | Path) -> dict[str, Tensor]:
    """Adapter and heads of a MASA file or of a checkpoint of the trainer, in float32."""
    entries: Mapping[str, Tensor] = _averaged(path) or read_entries(path)
    return {name: value.float() if value.is_floating_point() else value.clone()
            for name, value in entries.items() if name.startswith(LEARNED)}


def backbone_file(config: TrainConfig, variant: Variant) -> Path:
    """Find the file with the frozen encoder of a recipe; see `load_student`."""
    if config.backbone_weights:
        return Path(config.backbone_weights)
    start = config.initial_weights
    if start and not _averaged(start) and any(
            name.startswith(('detector.', 'backbone.')) for name in read_entries(start)):
        return Path(start)
    return weights.find(variant.backbone if variant.has_sam else variant.model)


def export(config: TrainConfig, learned: Mapping[str, Tensor], path: str | Path) -> Path:
    """
    Write a MASA file that `masa_ros.models.load` reads.

    SAM's own weights are left out: the reader takes them from SAM's file. The detectors of the
    variants ``gdino`` and ``detic`` are copied, as the authors' files hold them.

    Parameters
    ----------
    config : TrainConfig
        Recipe of the run.
    learned : mapping
        Entries that the run learned.
    path : str or Path
        File to write; it appears when it is complete.

    """
    variant = find_variant(config.model)
    entries = {name: value.detach().cpu().contiguous() for name, value in learned.items()}
    if variant.has_swin:
        source = read_entries(backbone_file(config, variant))
        entries |= {name: value for name, value in source.items()
                    if name.startswith('detector.')}
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_suffix('.writing')
    torch.save({'meta': {}, 'state_dict': entries}, scratch)
    scratch.replace(target)
    return target


def _averaged(path: str | Path) -> dict[str, Tensor] | None:
    """Averaged weights of a checkpoint of the trainer; ``None`` for any other file."""
    if not Path(path).is_file():
        raise FileNotFoundError(f'no weights file at {path}')
    try:
        stored = torch.load(path, map_location='cpu', weights_only=True, mmap=True)
    except Exception:  # Files of other kinds are for read_entries, which says what is wrong.
        return None
    if isinstance(stored, dict) and isinstance(stored.get('average'), dict):
        average: dict[str, Tensor] = stored['average']
        return average
    return None


def _encode_sam(encoder: nn.Module, pixels: Tensor) -> Sequence[Tensor]:
    from masa_ros.models.sam.encoder import encode

    features: Sequence[Tensor] = encode(encoder, pixels).taps
    return features


def _encode_levels(encoder: nn.Module, pixels: Tensor) -> Sequence[Tensor]:
    levels: Sequence[Tensor] = encoder(pixels)
    return levels
