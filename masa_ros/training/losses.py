"""Losses by name: contrastive (the paper's and the reference's), proposals, masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from masa_ros.models.tiny.network import PROPOSAL_STRIDES
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import box_iou, generalized_box_iou_loss


def paper_contrastive(
    key: Tensor, reference: Tensor, positive: Tensor, unknown: Tensor | None = None,
    temperature: float = 0.07,
) -> Tensor:
    """
    Contrastive loss of the paper: cosine over a temperature, one positive against all negatives.

    Parameters
    ----------
    key : Tensor
        ``(R, D)`` embeddings of one view.
    reference : Tensor
        ``(C, D)`` embeddings of the other.
    positive : Tensor
        ``(R, C)`` bool, true where both are the same instance. Every positive of a row is
        compared with the row's negatives alone.
    unknown : Tensor, optional
        ``(R, C)`` bool, true where nobody knows whether both are the same; left out.
    temperature : float
        Divides the cosine.

    Returns
    -------
    Tensor
        Mean over all positive pairs; 0 where there are none.

    References
    ----------
    Li et al., Matching Anything by Segmenting Anything, CVPR 2024, section 3.2.1.

    """
    _check_pairs(key, reference, positive)
    logits = F.normalize(key, dim=1) @ F.normalize(reference, dim=1).T / temperature
    others = logits.masked_fill(_not_negative(positive, unknown), -torch.inf)
    others = others.logsumexp(1, keepdim=True)
    losses = torch.logaddexp(logits, others.expand_as(logits)) - logits
    return losses[positive].sum() / positive.sum().clamp(min=1)


def reference_contrastive(
    key: Tensor, reference: Tensor, positive: Tensor, unknown: Tensor | None = None,
) -> Tensor:
    """
    Contrastive loss as the official code has it: raw dot products, all positives of a row.

    With P the positives of a row and N the rest, ``Z = mean_P(e^s) + sum_N(e^s)`` and the row's
    loss is ``-mean_P(s - ln Z)``; rows without a positive do not count.

    Parameters and result are those of `paper_contrastive`, without temperature.

    References
    ----------
    siyuanliii/masa, multi-positive cross entropy; constants in MASA_REFERENCE section 6.

    """
    _check_pairs(key, reference, positive)
    logits = key @ reference.T
    rows = positive.any(1)
    excluded = _not_negative(positive, unknown)[rows]
    logits, positive = logits[rows], positive[rows]
    count = positive.sum(1).clamp(min=1)
    mean_positive = logits.masked_fill(~positive, -torch.inf).logsumexp(1) - count.log()
    negatives = logits.masked_fill(excluded, -torch.inf).logsumexp(1)
    log_total = torch.logaddexp(mean_positive, negatives)
    losses = log_total - (logits * positive).sum(1) / count
    return losses.sum() / rows.sum().clamp(min=1)


def cosine_margin(
    key: Tensor, reference: Tensor, positive: Tensor, unknown: Tensor | None = None,
    margin: float = 0.1, negatives_per_positive: int = 3,
) -> Tensor:
    """
    Auxiliary loss of the official code: squared error of the cosine with hard negatives.

    Negatives get ``margin`` subtracted, then every cosine is clamped to ``[0, 1]`` and compared
    with 1 or 0. All positives and the hardest negatives, three for each positive, are averaged.
    """
    _check_pairs(key, reference, positive)
    cosine = F.normalize(key, dim=1) @ F.normalize(reference, dim=1).T
    errors = ((cosine - margin * ~positive).clamp(0, 1) - positive.to(cosine.dtype)) ** 2
    wanted = int(positive.sum()) * negatives_per_positive
    negatives = errors[~_not_negative(positive, unknown)]
    hardest = negatives.topk(min(wanted, len(negatives))).values
    kept = torch.cat([errors[positive], hardest])
    return kept.sum() / max(len(kept), 1)


def _not_negative(positive: Tensor, unknown: Tensor | None) -> Tensor:
    return positive if unknown is None else positive | unknown


CONTRASTIVE: dict[str, Callable[..., Tensor]] = {
    'paper': paper_contrastive,
    'reference': reference_contrastive,
}


def tracking_loss(
    embeddings: Tensor, identities: Tensor, views: Tensor, num_pairs: int, kind: str,
    contrast_weight: float, margin_weight: float, across_images: bool,
    recordings: Tensor | None = None,
) -> dict[str, Tensor]:
    """
    Contrast the embeddings of two views of several photos, in both directions.

    Parameters
    ----------
    embeddings : Tensor
        ``(T, D)`` of all views.
    identities : Tensor
        ``(T,)`` equal for the two views of an instance, different otherwise.
    views : Tensor
        ``(T,)`` index of the view, 0 to ``2 * num_pairs - 1``; view ``i`` pairs with
        ``i + num_pairs``.
    num_pairs : int
        Photos in the batch.
    kind : str
        Name in `CONTRASTIVE`.
    contrast_weight, margin_weight : float
        Weights of the two losses.
    across_images : bool
        Whether instances of other photos are negatives too.
    recordings : Tensor, optional
        ``(num_pairs,)`` int64 recording that each pair is from, 0 where it is from none. What two
        pairs of one recording show may be the same, so it is not told apart.

    Returns
    -------
    dict of str to Tensor
        ``contrast`` and ``margin``, weighted.

    """
    first = views < num_pairs
    groups = [(first, ~first)]
    if not across_images:
        groups = [(views == i, views == i + num_pairs) for i in range(num_pairs)]
    contrast = margin = embeddings.sum() * 0
    for one, two in groups:
        for rows, columns in ((one, two), (two, one)):
            positive = identities[rows][:, None] == identities[columns][None]
            if positive.any():
                pair = (embeddings[rows], embeddings[columns], positive,
                        _maybe_same(views[rows], views[columns], recordings))
                contrast = contrast + CONTRASTIVE[kind](*pair)
                if margin_weight:
                    margin = margin + cosine_margin(*pair)
    share = 1 / (2 * len(groups))
    return {'contrast': contrast * share * contrast_weight,
            'margin': margin * share * margin_weight}


def _maybe_same(
    views: Tensor, others: Tensor, recordings: Tensor | None,
) -> Tensor | None:
    """``(R, C)`` bool, whether both are of one recording but of different pairs."""
    if recordings is None or not recordings.any():
        return None
    pair = (views % len(recordings)).long()[:, None]
    other = (others % len(recordings)).long()[None]
    same: Tensor = (recordings[pair] == recordings[other]) & (recordings[pair] > 0)
    return same & (pair != other)


def proposal_loss(
    boxes: Tensor, objectness: Tensor, targets: Sequence[Tensor], exhaustive: Tensor, size: int,
    background_weight: float,
) -> dict[str, Tensor]:
    """
    Learn objectness and boxes of any region.

    Cells near the centre of a labelled box compete for it by how well they already fit it; each
    box takes as many cells as its overlaps with the best ten add up to. Objectness is taught the
    overlap itself, so that scores rank proposals by quality.

    Parameters
    ----------
    boxes : Tensor
        ``(B, A, 4)`` xyxy pixels.
    objectness : Tensor
        ``(B, A)`` logits.
    targets : sequence of Tensor
        ``B`` tensors ``(N, 4)``.
    exhaustive : Tensor
        ``(B,)`` bool; elsewhere unlabelled cells count less, as they may hold an object.
    size : int
        Side of the square input in pixels.
    background_weight : float
        Weight of unlabelled cells where labels are not exhaustive.

    Returns
    -------
    dict of str to Tensor
        ``objectness`` and ``box``.

    """
    centres, strides = cell_centres(size, boxes.device)
    goal = torch.zeros_like(objectness)
    assigned: list[tuple[Tensor, Tensor]] = []
    for i, truth in enumerate(targets):
        cells, owners = assign_cells(boxes[i].detach(), objectness[i].detach(), truth, centres,
                                     strides)
        assigned.append((boxes[i][cells], truth[owners]))
        if len(cells):
            goal[i, cells] = _paired_iou(boxes[i][cells].detach(), truth[owners])
    found = torch.cat([pair[0] for pair in assigned])
    wanted = torch.cat([pair[1] for pair in assigned])
    count = max(len(found), 1)
    overlap = goal[goal > 0].sum().clamp(min=1)
    box = generalized_box_iou_loss(found, wanted, reduction='sum') / count
    weight = (objectness.detach().sigmoid() - goal).abs() ** 2
    weight = weight * torch.where(
        (goal > 0) | exhaustive[:, None], 1.0, background_weight)
    score = F.binary_cross_entropy_with_logits(objectness, goal, weight, reduction='sum')
    return {'objectness': score / overlap, 'box': 2 * box}


def cell_centres(size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Centres ``(A, 2)`` in pixels and strides ``(A,)`` of all cells of a square input."""
    centres, strides = [], []
    for stride in PROPOSAL_STRIDES:
        line = (torch.arange(size // stride, device=device) + 0.5) * stride
        rows, columns = torch.meshgrid(line, line, indexing='ij')
        centres.append(torch.stack([columns, rows], -1).reshape(-1, 2))
        strides.append(torch.full((line.numel() ** 2,), float(stride), device=device))
    return torch.cat(centres), torch.cat(strides)


def assign_cells(
    boxes: Tensor, objectness: Tensor, truth: Tensor, centres: Tensor, strides: Tensor,
) -> tuple[Tensor, Tensor]:
    """
    Choose the cells that learn each labelled box.

    Returns
    -------
    cells : Tensor
        ``(P,)`` indices of the chosen cells.
    owners : Tensor
        ``(P,)`` row of ``truth`` that each learns.

    """
    if not len(truth):
        empty = torch.zeros(0, dtype=torch.long, device=boxes.device)
        return empty, empty
    middle = (truth[:, :2] + truth[:, 2:]) / 2
    distance = (centres[None] - middle[:, None]).abs().amax(-1)
    near = distance < 2.0 * strides[None]
    overlaps = box_iou(truth, boxes).nan_to_num(0)
    # Being wrong about objectness costs less than being in the wrong place.
    cost = (-3 * (overlaps + 1e-7).log() - F.logsigmoid(objectness)[None]
            + 1e6 * ~near)
    top = overlaps.masked_fill(~near, 0).topk(min(10, overlaps.shape[1])).values
    wanted = top.sum(1).long().clamp(min=1)
    order = cost.argsort(1)[:, :int(wanted.max())]
    rank = torch.arange(order.shape[1], device=order.device)[None]
    chosen = torch.zeros_like(near)
    chosen.scatter_(1, order, rank < wanted[:, None])
    chosen &= near
    # A cell that two boxes want learns the one it fits at the lower cost.
    best = cost.masked_fill(~chosen, torch.inf).argmin(0)
    cells = chosen.any(0).nonzero()[:, 0]
    return cells, best[cells]


def mask_loss(logits: Tensor, quality: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """
    Learn masks by cross entropy and Dice, and the quality by the IoU that was reached.

    Parameters
    ----------
    logits : Tensor
        ``(K, s, s)``.
    quality : Tensor
        ``(K,)`` logits of the IoU.
    targets : Tensor
        ``(K, s, s)`` from 0 to 1.

    Returns
    -------
    dict of str to Tensor
        ``mask``, ``dice`` and ``quality``.

    """
    if not len(logits):
        nothing = logits.sum() + quality.sum()
        return {'mask': nothing, 'dice': nothing, 'quality': nothing}
    probability = logits.sigmoid().flatten(1)
    flat = targets.flatten(1)
    dice = 1 - (2 * (probability * flat).sum(1) + 1) / ((probability + flat).sum(1) + 1)
    reached = window_iou(logits.detach(), targets)
    return {
        'mask': F.binary_cross_entropy_with_logits(logits, targets),
        'dice': dice.mean(),
        'quality': 0.2 * F.binary_cross_entropy_with_logits(quality, reached),
    }


def window_iou(logits: Tensor, targets: Tensor) -> Tensor:
    """``(K,)`` IoU of masks thresholded at one half, on their windows."""
    found, truth = logits.flatten(1) > 0, targets.flatten(1) > 0.5
    return (found & truth).sum(1) / (found | truth).sum(1).clamp(min=1)


def _paired_iou(first: Tensor, second: Tensor) -> Tensor:
    """Return the IoU of row ``i`` with row ``i``."""
    low = torch.maximum(first[:, :2], second[:, :2])
    high = torch.minimum(first[:, 2:], second[:, 2:])
    shared = (high - low).clamp(min=0).prod(1)
    area = (first[:, 2:] - first[:, :2]).prod(1) + (second[:, 2:] - second[:, :2]).prod(1)
    return shared / (area - shared).clamp(min=1e-6)


def _check_pairs(key: Tensor, reference: Tensor, positive: Tensor) -> None:
    """Refuse inputs whose shapes do not belong together."""
    if key.ndim != 2 or reference.ndim != 2 or key.shape[1] != reference.shape[1]:
        raise ValueError(f'embeddings are {tuple(key.shape)} and {tuple(reference.shape)}, '
                         'expected (R, D) and (C, D)')
    if positive.shape != (len(key), len(reference)) or positive.dtype != torch.bool:
        raise ValueError(f'positive is a {positive.dtype} of {tuple(positive.shape)}, expected '
                         f'bool of {(len(key), len(reference))}')
