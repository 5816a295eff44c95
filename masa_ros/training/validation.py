"""Numbers of a network on held-out photos: retrieval, masks, proposals."""

from __future__ import annotations

from collections.abc import Sequence

from masa_ros.models.tiny.network import TinyNetwork
from masa_ros.training.dataset import Batch, collate, PairDataset
from masa_ros.training.losses import window_iou
import torch
from torch import Tensor
from torchvision.ops import box_iou, nms


@torch.no_grad()
def validate(
    network: TinyNetwork, dataset: PairDataset, batch: int = 8, num_proposals: int = 100,
) -> dict[str, float]:
    """
    Score a network on the pairs of a dataset.

    Parameters
    ----------
    network : TinyNetwork
        Left in evaluation mode.
    dataset : PairDataset
        Held-out pairs; the same seed and length give the same pairs.
    batch : int
        Pairs of one pass.
    num_proposals : int
        Proposals of a view that count.

    Returns
    -------
    dict of str to float
        ``retrieval``: part of the instances whose best match among all of the other view is
        themselves. ``mask_iou``: mean IoU on the windows of given boxes. ``recall``: average
        recall of the labelled boxes over IoU 0.5 to 0.95 with the best proposals. NaN where
        nothing was there to score.

    """
    network.eval()
    device = next(network.parameters()).device
    hits: list[Tensor] = []
    overlaps: list[Tensor] = []
    recalls: list[Tensor] = []
    for start in range(0, len(dataset), batch):
        rows = range(start, min(start + batch, len(dataset)))
        views = collate([dataset[i] for i in rows]).to(device)
        pyramid, levels = network.features(views.images.float())
        boxes, objectness = network.proposal_head(pyramid)
        logits, _ = network.mask_head(levels, views.mask_rois)
        overlaps.append(window_iou(logits, views.mask_targets.float() / 255))
        hits += retrieved(network.track_head(levels, views.track_rois), views, len(rows))
        recalls += recalled(_kept(boxes, objectness, num_proposals), views.boxes)
    return {'retrieval': mean_of(hits), 'mask_iou': mean_of(overlaps), 'recall': mean_of(recalls)}


def retrieved(embeddings: Tensor, views: Batch, num_pairs: int) -> list[Tensor]:
    """Whether each instance that both views show finds itself in the other."""
    hits = []
    index = views.track_rois[:, 0]
    for pair in range(num_pairs):
        one, two = index == pair, index == pair + num_pairs
        same = views.identities[one][:, None] == views.identities[two][None]
        if not same.any():
            continue
        best = (embeddings[one] @ embeddings[two].T).argmax(1, keepdim=True)
        hits.append(same.gather(1, best)[:, 0][same.any(1)].float())
    return hits


def _kept(
    boxes: Tensor, objectness: Tensor, num_proposals: int,
) -> list[Tensor]:
    """Best proposals of each view without duplicates."""
    return [found[nms(found, scores, 0.7)[:num_proposals]]
            for found, scores in zip(boxes, objectness, strict=True)]


def recalled(proposals: Sequence[Tensor], targets: Sequence[Tensor]) -> list[Tensor]:
    """For every labelled box, the part of ten IoU thresholds that some proposal reaches."""
    thresholds = torch.linspace(0.5, 0.95, 10, device=proposals[0].device)
    recalls = []
    for found, truth in zip(proposals, targets, strict=True):
        if len(truth):
            best = box_iou(truth, found).amax(1) if len(found) else truth.new_zeros(len(truth))
            recalls.append((best[:, None] >= thresholds).float().mean(1))
    return recalls


def mean_of(parts: list[Tensor]) -> float:
    """Mean over all parts; NaN where there is nothing."""
    values = torch.cat(parts) if parts else torch.zeros(0)
    return float(values.mean()) if len(values) else float('nan')
