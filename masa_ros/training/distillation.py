"""
Losses that teach the object prior of a MASA adapter, and the samples its track head learns from.

Region proposals are scored against labelled boxes as in Faster R-CNN: anchors or proposals are
assigned to boxes by overlap, a limited number of them is drawn, positives and negatives apart.

References
----------
"Faster R-CNN", NIPS 2015; siyuanliii/masa, constants in MASA_REFERENCE section 6.

"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from masa_ros.models.heads.boxes import anchors
from masa_ros.training.losses import CONTRASTIVE, cosine_margin
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import box_iou

NOTHING, IGNORED = -1, -2
"""What `assign` gives a box that belongs to no label, and one that is neither."""
BOX_STDS = (0.1, 0.1, 0.2, 0.2)
"""What the box head's deltas are divided by."""
_RPN_SAMPLES, _RPN_POSITIVE = 256, 0.5
_BOX_SAMPLES, _BOX_POSITIVE = 512, 0.25
_TRACK_SAMPLES, _TRACK_POSITIVE, _TRACK_NEGATIVES = 512, 0.5, 3


def assign(
    boxes: Tensor, truth: Tensor, positive: float, negative: float, least: float | None = None,
) -> Tensor:
    """
    Assign boxes to labelled boxes by overlap.

    Parameters
    ----------
    boxes : Tensor
        ``(N, 4)``.
    truth : Tensor
        ``(M, 4)``.
    positive : float
        IoU from which a box belongs to the label it overlaps most.
    negative : float
        IoU below which it belongs to none; between the two it is ignored.
    least : float, optional
        If given, every label also gets the boxes that overlap it most, however little that is,
        from this IoU on; of two labels that want a box the later one gets it.

    Returns
    -------
    Tensor
        ``(N,)`` int64: row of ``truth``, `NOTHING` or `IGNORED`.

    """
    owners = torch.full((len(boxes),), NOTHING, dtype=torch.long, device=boxes.device)
    if not len(truth) or not len(boxes):
        return owners
    overlaps = box_iou(boxes, truth)
    best, which = overlaps.max(1)
    owners[best >= negative] = IGNORED
    owners = torch.where(best >= positive, which, owners)
    if least is not None:
        top = overlaps.amax(0)
        for row in (top >= max(least, 1e-6)).nonzero().flatten().tolist():
            owners[overlaps[:, row] == top[row]] = row
    return owners


def draw(
    owners: Tensor, count: int, share: float, generator: torch.Generator,
    negatives_per_positive: int = 0, balanced: bool = False,
) -> tuple[Tensor, Tensor]:
    """
    Draw assigned boxes.

    Parameters
    ----------
    owners : Tensor
        Of `assign`.
    count : int
        Most boxes.
    share : float
        Largest part of positives among them; negatives fill the rest.
    generator : torch.Generator
        On the CPU.
    negatives_per_positive : int
        Most negatives for each positive, at least as many as this; 0 is no limit.
    balanced : bool
        Whether every label gets about as many positives as any other.

    Returns
    -------
    positives, negatives : Tensor
        Rows.

    """
    order = torch.randperm(len(owners), generator=generator).to(owners.device)
    positives = order[owners[order] >= 0]
    if balanced:
        positives = _one_by_one(positives, owners)
    positives = positives[:int(count * share)]
    room = count - len(positives)
    if negatives_per_positive:
        room = min(room, negatives_per_positive * max(len(positives), 1))
    return positives, order[owners[order] == NOTHING][:room]


def _one_by_one(rows: Tensor, owners: Tensor) -> Tensor:
    """Rows in an order that takes one of each owner, then a second one of each, and so on."""
    if not len(rows):
        return rows
    groups = owners[rows]
    by_group = groups.argsort(stable=True)
    sizes = groups.bincount()
    sizes = sizes[sizes > 0]
    first = torch.repeat_interleave(sizes.cumsum(0) - sizes, sizes)
    turn = torch.arange(len(rows), device=rows.device) - first
    return rows[by_group[turn.argsort(stable=True)]]


def deltas_between(
    boxes: Tensor, targets: Tensor, stds: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
) -> Tensor:
    """Deltas that move boxes ``(N, 4)`` to targets; `apply_deltas` of the heads undoes it."""
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-3)
    wanted = (targets[:, 2:] - targets[:, :2]).clamp(min=1e-3)
    shift = (targets[:, :2] + targets[:, 2:] - boxes[:, :2] - boxes[:, 2:]) / 2 / sides
    return torch.cat([shift, (wanted / sides).log()], 1) / boxes.new_tensor(stds)


def rpn_losses(
    logits: Sequence[Tensor], deltas: Sequence[Tensor], strides: Sequence[int],
    truths: Sequence[Tensor], beta: float, generator: torch.Generator,
) -> dict[str, Tensor]:
    """
    Teach anchors where something is.

    Parameters
    ----------
    logits, deltas : sequence of Tensor
        What the region proposal head gives, level by level.
    strides : sequence of int
        Network pixels per cell.
    truths : sequence of Tensor
        Labelled boxes ``(M, 4)`` of each image.
    beta : float
        Where the smooth L1 loss turns linear; 0 is plain L1.
    generator : torch.Generator
        For the draw of 256 anchors an image.

    Returns
    -------
    dict of str to Tensor
        ``rpn_score`` and ``rpn_box``.

    """
    batch, device = len(truths), logits[0].device
    grid = torch.cat([anchors(level.shape[-2], level.shape[-1], stride, device)
                      for level, stride in zip(logits, strides, strict=True)])
    scores = torch.cat([x.float().permute(0, 2, 3, 1).reshape(batch, -1) for x in logits], 1)
    moves = torch.cat([x.float().permute(0, 2, 3, 1).reshape(batch, -1, 4) for x in deltas], 1)
    score, box, count = scores.sum() * 0, moves.sum() * 0, 0
    for i, truth in enumerate(truths):
        owners = assign(grid, truth, 0.7, 0.3, 0.3)
        yes, no = draw(owners, _RPN_SAMPLES, _RPN_POSITIVE, generator)
        score = score + F.softplus(-scores[i, yes]).sum() + F.softplus(scores[i, no]).sum()
        wanted = deltas_between(grid[yes], truth[owners[yes]])
        box = box + F.smooth_l1_loss(moves[i, yes], wanted, reduction='sum', beta=beta)
        count += len(yes) + len(no)
    return {'rpn_score': score / max(count, 1), 'rpn_box': box / max(count, 1)}


def box_head_losses(
    judge: Callable[[list[Tensor]], tuple[Tensor, Tensor]], regions: Sequence[Tensor],
    truths: Sequence[Tensor], generator: torch.Generator,
) -> dict[str, Tensor]:
    """
    Teach the box head which proposals are objects, and their exact boxes.

    Parameters
    ----------
    judge : callable
        Boxes of each image to logits ``(N, 2)`` (object, background) and deltas ``(N, 4)``.
    regions : sequence of Tensor
        Proposals of each image; the labelled boxes are added.
    truths : sequence of Tensor
        Labelled boxes.
    generator : torch.Generator
        For the draw of 512 boxes an image.

    Returns
    -------
    dict of str to Tensor
        ``head_score`` and ``head_box``.

    """
    chosen, labels, wanted = [], [], []
    for region, truth in zip(regions, truths, strict=True):
        candidates = torch.cat([truth, region])
        owners = assign(candidates, truth, 0.5, 0.5)
        yes, no = draw(owners, _BOX_SAMPLES, _BOX_POSITIVE, generator)
        chosen.append(candidates[torch.cat([yes, no])])
        labels.append(torch.cat([torch.zeros_like(yes), torch.ones_like(no)]))
        wanted.append(deltas_between(candidates[yes], truth[owners[yes]], BOX_STDS))
    if not sum(len(boxes) for boxes in chosen):
        chosen[0] = chosen[0].new_tensor([[0, 0, 32, 32]])
        labels[0] = torch.ones(1, dtype=torch.long, device=chosen[0].device)
    logits, deltas = judge(chosen)
    target = torch.cat(labels)
    box = F.l1_loss(deltas[target == 0].float(), torch.cat(wanted), reduction='sum')
    return {'head_score': F.cross_entropy(logits.float(), target),
            'head_box': box / len(target) + deltas.sum() * 0}


@dataclass(frozen=True)
class TrackSamples:
    """
    Boxes that the track head learns from.

    Parameters
    ----------
    rois : Tensor
        ``(T, 5)`` index of the view and box.
    identities : Tensor
        ``(T,)`` of the instance; -1 for a box of none.

    """

    rois: Tensor
    identities: Tensor


def track_samples(
    regions: Sequence[Tensor], rois: Tensor, identities: Tensor, generator: torch.Generator,
) -> TrackSamples:
    """
    Draw proposals for the track head as the official code does.

    Parameters
    ----------
    regions : sequence of Tensor
        Proposals of each view; the labelled boxes are added.
    rois : Tensor
        ``(L, 5)`` labelled boxes with the index of their view.
    identities : Tensor
        ``(L,)``, equal for the two views of an instance.
    generator : torch.Generator
        For the draw of 512 boxes a view, half of them positive, three negatives for each.

    """
    boxes, owners_of = [], []
    for view, region in enumerate(regions):
        here = rois[:, 0] == view
        truth, names = rois[here, 1:], identities[here]
        candidates = torch.cat([truth, region])
        owners = assign(candidates, truth, 0.7, 0.3)
        yes, no = draw(owners, _TRACK_SAMPLES, _TRACK_POSITIVE, generator, _TRACK_NEGATIVES,
                       balanced=True)
        rows = candidates[torch.cat([yes, no])]
        boxes.append(torch.cat([rows.new_full((len(rows), 1), view), rows], 1))
        owners_of.append(torch.cat([names[owners[yes]], torch.full_like(no, -1)]))
    return TrackSamples(torch.cat(boxes), torch.cat(owners_of))


def sampled_tracking_loss(
    embeddings: Tensor, samples: TrackSamples, num_pairs: int, kind: str,
    contrast_weight: float, margin_weight: float,
) -> dict[str, Tensor]:
    """
    Contrast the positives of each key view with all samples of its partner.

    Parameters
    ----------
    embeddings : Tensor
        ``(T, D)`` of the samples.
    samples : TrackSamples
        View ``i`` is the key view of pair ``i``, view ``i + num_pairs`` its partner.
    num_pairs : int
        Photos in the batch.
    kind : str
        Name in `CONTRASTIVE`.
    contrast_weight, margin_weight : float
        Weights of the two losses.

    Returns
    -------
    dict of str to Tensor
        ``contrast`` and ``margin``, weighted, mean over the photos.

    """
    views, identities = samples.rois[:, 0], samples.identities
    contrast = margin = embeddings.sum() * 0
    for pair in range(num_pairs):
        key = (views == pair) & (identities >= 0)
        partner = views == pair + num_pairs
        positive = identities[key][:, None] == identities[partner][None]
        if positive.any():
            rows = embeddings[key], embeddings[partner], positive
            contrast = contrast + CONTRASTIVE[kind](*rows)
            if margin_weight:
                margin = margin + cosine_margin(*rows)
    return {'contrast': contrast_weight * contrast / num_pairs,
            'margin': margin_weight * margin / num_pairs}
