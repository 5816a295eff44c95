"""Training of the small network: all of it at once, from views of any size."""

from __future__ import annotations

import math
from pathlib import Path

from masa_ros.models.tiny.network import TinyNetwork
from masa_ros.training.config import TrainConfig
from masa_ros.training.dataset import Batch, PairDataset
from masa_ros.training.distillation import TrackSamples
from masa_ros.training.losses import mask_loss, proposal_loss, tracking_loss
from masa_ros.training.trainable import Step
from masa_ros.training.validation import validate
import torch
from torch import nn, Tensor
from torchvision.ops import box_iou

ROI_STEP = 32
LOOSEST, UNRELATED, STRANGERS = 0.5, 0.3, 6
"""Least IoU of a proposal with its object, most IoU of one of no object, how many of these."""


class TinyTrainable:
    """The small network under the settings of a run; see `masa_ros.training.trainable`."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.network: nn.Module = TinyNetwork(config.network)
        self.slow = load_initial(self.network, config.initial_weights)

    def to(self, device: torch.device) -> None:
        """Move the network."""
        self.network.to(device)

    def losses(self, network: nn.Module, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Weighted losses of one batch."""
        loss, device = self.config.loss, step.device
        images = batch.images.to(device).float().contiguous(memory_format=torch.channels_last)
        samples = TrackSamples(batch.track_rois.to(device), batch.identities.to(device))

        def track_rois(boxes: Tensor, objectness: Tensor) -> Tensor:
            nonlocal samples
            if loss.track_samples == 'proposals':
                samples = with_proposals(samples, boxes, objectness, step.generator)
            return filled_up(samples.rois, samples.identities)[0]

        # Heads get at least one RoI, or processes would wait for gradients that never come.
        mask_rois, masks = filled_up(batch.mask_rois, batch.mask_targets)
        with torch.autocast(device.type, torch.bfloat16, self.config.precision == 'bfloat16'):
            out = network(images, mask_rois.to(device), track_rois)
        num_masks = len(batch.mask_rois)
        parts = tracking_loss(
            out['embeddings'][:len(samples.rois)], samples.identities, samples.rois[:, 0],
            len(images) // 2, loss.contrast, loss.contrast_weight, loss.margin_weight,
            loss.across_images, batch.recordings.to(device))
        targets = masks[:num_masks].to(device).float() / 255
        for name, value in mask_loss(
                out['masks'][:num_masks], out['quality'][:num_masks], targets).items():
            parts[name] = loss.mask_weight * value
        if loss.detection_weight:
            for name, value in proposal_loss(
                    out['boxes'], out['objectness'], [rows.to(device) for rows in batch.boxes],
                    batch.exhaustive.to(device), images.shape[-1],
                    loss.background_weight).items():
                parts[name] = loss.detection_weight * value
        return parts

    def validate(self, network: nn.Module, dataset: PairDataset) -> dict[str, float]:
        """Score retrieval, masks and proposals on held-out pairs."""
        assert isinstance(network, TinyNetwork)
        return validate(network, dataset)

    def export(self, network: nn.Module, run: Path) -> Path | None:
        """Write nothing: models load checkpoints of this network as they are."""
        return None

    def cached(self, dataset: PairDataset, folder: Path, main: bool) -> PairDataset:
        """Refuse: its features cost less than reading them back."""
        raise ValueError('data.cached_pairs is for the MASA variants; the features of tiny cost '
                         'less than reading them back')


def load_initial(network: nn.Module, path: str) -> set[str]:
    """
    Start a network from a detector's ONNX file or from a checkpoint.

    Returns
    -------
    set of str
        Parameters that came from a detector and shall move slowly.

    """
    if not path:
        return set()
    if path.endswith('.onnx'):
        from masa_ros.training.initialize import load_yolox_nano
        assert isinstance(network, TinyNetwork)
        return set(load_yolox_nano(network, path))
    stored = torch.load(path, map_location='cpu', weights_only=True)
    weights = stored.get('average', stored) if isinstance(stored, dict) else stored
    network.load_state_dict(weights)
    slow = ('backbone.', 'pyramid.', 'proposal_head.')
    return {name for name in weights if name.startswith(slow)}


def with_proposals(
    samples: TrackSamples, boxes: Tensor, objectness: Tensor, generator: torch.Generator,
) -> TrackSamples:
    """
    Add the network's own boxes to the labelled ones.

    A detector's boxes are cut off, shifted, too large; what has to be told apart are those. Each
    labelled box gets one proposal of the same object, drawn so that small and large overlaps are
    equally frequent, and every view gets some of what is no labelled object.

    Parameters
    ----------
    samples : TrackSamples
        Labelled boxes.
    boxes, objectness : Tensor
        ``(B, A, 4)`` and ``(B, A)`` logits of all cells of each view.
    generator : torch.Generator
        On the CPU.

    Returns
    -------
    TrackSamples
        The labelled boxes first. Identities of what is no labelled object are negative, each its
        own.

    """
    rois, identities = [samples.rois], [samples.identities]
    others = 0
    for view in range(len(boxes)):
        here = samples.rois[:, 0] == view
        truth, names = samples.rois[here, 1:], samples.identities[here]
        if not len(truth):
            continue
        overlaps = box_iou(truth, boxes[view]).nan_to_num(0)
        goal = torch.rand(len(truth), 1, generator=generator).to(boxes) * (1 - LOOSEST) + LOOSEST
        away = (overlaps - goal).abs().masked_fill(overlaps < LOOSEST, torch.inf)
        # A box that overlaps another label more is one of that.
        away = away.masked_fill(overlaps < overlaps.amax(0), torch.inf)
        best, cells = away.min(1)
        found = cells[best.isfinite()]
        empty = overlaps.amax(0) < UNRELATED
        strange = objectness[view].masked_fill(~empty, -torch.inf).topk(
            min(STRANGERS, len(empty)))
        chosen = torch.cat([found, strange.indices[strange.values.isfinite()]])
        rows = boxes[view, chosen]
        rois.append(torch.cat([rows.new_full((len(rows), 1), view), rows], 1))
        count = len(chosen) - len(found)
        identities += [names[best.isfinite()],
                       torch.arange(-others - count, -others, device=names.device)]
        others += count
    return TrackSamples(torch.cat(rois), torch.cat(identities))


def filled_up(rois: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """
    Add stand-in rows up to the next multiple of `ROI_STEP`, at least one.

    Every number of RoIs that oneDNN has not seen costs it new code and memory, which it keeps: a
    run grew by megabytes with every step.
    """
    extra = math.ceil(max(len(rois), 1) / ROI_STEP) * ROI_STEP - len(rois)
    stand_in = rois.new_tensor([[0, 0, 0, 32, 32]]).expand(extra, -1)
    return (torch.cat([rois, stand_in]),
            torch.cat([values, values.new_zeros((extra, *values.shape[1:]))]))
