"""
HOTA, CLEAR and Identity scores of tracked sequences, by the library `trackeval`.

Matches with the truth follow the benchmarks' rules: what lies in an ignored region or on a
distractor is left out unless it matches the truth.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, replace
from typing import Any

from masa_ros.evaluation.datasets.sequence import inside_fraction, Sequence
from masa_ros.structures.boxes import pairwise_iou
from masa_ros.structures.instances import TrackedInstances
from masa_ros.structures.masks import RoiMask
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

MATCH_IOU = 0.5

Scores = dict[str, float]
_COUNTS = ('IDSW', 'Frag', 'FP', 'FN', 'num_ids', 'num_gt_ids')


@dataclass(frozen=True)
class SequenceScore:
    """
    Score of one sequence that can be combined with others.

    Parameters
    ----------
    raw : dict
        What each metric of `trackeval` gave.
    counts : dict
        Numbers of ids.

    """

    raw: dict[str, Any]
    counts: Scores

    def table(self) -> Scores:
        """
        Return the figures by name.

        ``HOTA``, ``AssA``, ``DetA``, ``LocA`` (means over the thresholds), ``IDF1``, ``MOTA``,
        ``IDSW``, ``Frag``, ``FP``, ``FN``, ``num_ids``, ``num_gt_ids``; shares in ``[0, 1]``.
        """
        return _table(self.raw) | self.counts


def score_sequence(
    sequence: Sequence, frames: SequenceOf[TrackedInstances], *, use_masks: bool = False,
) -> SequenceScore:
    """
    Score what a tracker said about a sequence, all classes as one.

    Parameters
    ----------
    sequence : Sequence
        With its truth.
    frames : sequence of TrackedInstances
        One per frame; rows that were not seen in their frame (coasting, lost, removed) are
        left out.
    use_masks : bool
        Match by overlap of masks, which are made disjoint first, the best score on top, as the
        segmentation benchmarks do; MOTA is then MOTSA.

    Returns
    -------
    SequenceScore
        For `combine` and `SequenceScore.table`.

    Raises
    ------
    ValueError
        If the sequence has no truth, the number of frames differs, or an id is used twice in a
        frame.

    """
    data = matching_data(sequence, frames, use_masks=use_masks)
    raw = {name: metric.eval_sequence(data) for name, metric in _metrics().items()}
    return SequenceScore(raw, {'num_ids': float(data['num_tracker_ids']),
                               'num_gt_ids': float(data['num_gt_ids'])})


def combine(scores: SequenceOf[SequenceScore]) -> SequenceScore:
    """
    Score several sequences as one, by their objects and not by the mean of their scores.

    Raises
    ------
    ValueError
        If there is none.

    """
    if not scores:
        raise ValueError('no sequence was scored, expected at least one to combine')
    raw = {name: metric.combine_sequences({str(i): score.raw[name]
                                           for i, score in enumerate(scores)})
           for name, metric in _metrics().items()}
    return SequenceScore(raw, {key: sum(score.counts[key] for score in scores)
                               for key in scores[0].counts})


def of_class(
    sequence: Sequence, frames: SequenceOf[TrackedInstances], class_id: int,
) -> tuple[Sequence, list[TrackedInstances]]:
    """Truth and results of one class, for scores by class as in BDD100K and KITTI."""
    own = [frame.class_ids == class_id for frame in sequence.truth]
    near = sequence.alike.get(class_id, ())
    distractors = sequence.distractors
    if near:
        before = distractors or (np.zeros((0, 4), np.float32),) * len(sequence)
        distractors = tuple(
            np.concatenate([boxes, frame.boxes[np.isin(frame.class_ids, near)]])
            for boxes, frame in zip(before, sequence.truth, strict=True))
    return (replace(sequence.select_truth(own), distractors=distractors),
            [frame.select(frame.class_ids == class_id) for frame in frames])


def mean_over_classes(scores: Mapping[str, Scores]) -> Scores:
    """
    Mean of each figure over the classes, as BDD's mHOTA, mMOTA and mIDF1; counts are summed.

    Classes without any object in the truth are left out, as in the benchmark.
    """
    present = [table for table in scores.values() if table['num_gt_ids']]
    if not present:
        return {}
    return {key: (sum(table[key] for table in present) if key in _COUNTS
                  else float(np.mean([table[key] for table in present])))
            for key in present[0]}


def matching_data(
    sequence: Sequence, frames: SequenceOf[TrackedInstances], *, use_masks: bool = False,
) -> dict[str, Any]:
    """
    Bring truth and tracks into the form that the metrics of `trackeval` take.

    Raises
    ------
    ValueError
        If the sequence has no truth, the number of frames differs, or an id is used twice in a
        frame.

    """
    if not sequence.truth:
        raise ValueError(f'sequence {sequence.name} has no ground truth to score against')
    if len(frames) != len(sequence):
        raise ValueError(f'sequence {sequence.name} has {len(sequence)} frames but results for '
                         f'{len(frames)}; track all of them, empty ones included')
    gt_ids, pred_ids, similarity = [], [], []
    for position in np.flatnonzero(sequence.annotated):
        truth, distractors = _asked_for(sequence, int(position))
        found = frames[int(position)]
        found = found.select(found.seen)
        for kind, ids in (('truth', truth.track_ids), ('result', found.track_ids)):
            if len(np.unique(ids)) != len(ids):
                raise ValueError(f'sequence {sequence.name}: the {kind} uses an id twice in frame '
                                 f'{int(sequence.frame_indices[position])}')
        overlap = (mask_overlap(truth, found) if use_masks
                   else pairwise_iou(truth.boxes, found.boxes).astype(np.float64))
        counted = _counted(sequence, int(position), distractors, found, overlap, use_masks)
        gt_ids.append(truth.track_ids)
        pred_ids.append(found.track_ids[counted])
        similarity.append(overlap[:, counted])
    gt_ids, num_gt = _compact(gt_ids)
    pred_ids, num_pred = _compact(pred_ids)
    return {
        'gt_ids': gt_ids, 'tracker_ids': pred_ids, 'similarity_scores': similarity,
        'num_gt_ids': num_gt, 'num_tracker_ids': num_pred, 'num_timesteps': len(gt_ids),
        'num_gt_dets': sum(map(len, gt_ids)), 'num_tracker_dets': sum(map(len, pred_ids)),
    }


def mask_overlap(truth: TrackedInstances, found: TrackedInstances) -> NDArray[np.float64]:
    """
    Compute the IoU of masks, ``(N, M)``; an object without a mask overlaps nothing.

    A pixel of several results belongs to the one with the highest score.
    """
    overlap = np.zeros((len(truth), len(found)))
    height, width = _extent([*truth.masks, *found.masks])
    if not len(truth) or not len(found) or not height:
        return overlap
    owner = np.zeros((height, width), np.int64)  # Row of the result plus 1.
    for row in np.argsort(found.scores, kind='stable').tolist():
        mask = found.masks[row]
        if mask is not None:
            owner[mask.paste(height, width)] = row + 1
    areas = np.bincount(owner.ravel(), minlength=len(found) + 1)[1:]
    for row, mask in enumerate(truth.masks):
        if mask is None:
            continue
        common = np.bincount(owner[mask.paste(height, width)], minlength=len(found) + 1)[1:]
        overlap[row] = common / np.maximum(areas + mask.area - common, 1)
    return overlap


def _asked_for(
    sequence: Sequence, position: int,
) -> tuple[TrackedInstances, NDArray[np.float32]]:
    """Truth of a frame that results are asked for, and the boxes that are neither."""
    truth = sequence.truth[position]
    distractors = (sequence.distractors[position] if sequence.distractors
                   else np.zeros((0, 4), np.float32))
    if not sequence.hard:
        return truth, distractors
    hard = sequence.hard[position]
    return truth.select(~hard), np.concatenate([distractors, truth.boxes[hard]])


def _counted(
    sequence: Sequence, position: int, distractors: NDArray[np.float32],
    found: TrackedInstances, overlap: NDArray[np.float64], use_masks: bool,
) -> NDArray[np.bool_]:
    """Tell which results count: matched to the truth, or at least not to be ignored."""
    counted = np.ones(len(found), bool)
    if not len(found):
        return counted
    both = np.concatenate([overlap, pairwise_iou(distractors, found.boxes)])
    rows, columns = linear_sum_assignment(np.where(both >= MATCH_IOU, both, 0), maximize=True)
    real = both[rows, columns] >= MATCH_IOU
    rows, columns = rows[real], columns[real]
    counted[columns[rows >= len(overlap)]] = False
    free = np.zeros(len(found), bool)
    if use_masks and sequence.ignored_masks:
        free |= _inside_masks(found, sequence.ignored_masks[position]) >= MATCH_IOU
    elif sequence.ignored:
        free |= inside_fraction(found.boxes, sequence.ignored[position]) >= MATCH_IOU
    if sequence.least_height_px:
        free |= found.boxes[:, 3] - found.boxes[:, 1] <= sequence.least_height_px
    matched = np.isin(np.arange(len(found)), columns)
    return np.asarray(counted & (matched | ~free))


def _inside_masks(
    found: TrackedInstances, regions: SequenceOf[RoiMask],
) -> NDArray[np.float64]:
    """``(N,)`` share of each result's mask that lies in any of the regions."""
    inside = np.zeros(len(found))
    if not regions:
        return inside
    height, width = _extent([*found.masks, *regions])
    ignored = np.any([region.paste(height, width) for region in regions], axis=0)
    for row, mask in enumerate(found.masks):
        if mask is not None and mask.area:
            inside[row] = ignored[mask.paste(height, width)].sum() / mask.area
    return inside


def _extent(masks: SequenceOf[RoiMask | None]) -> tuple[int, int]:
    """Height and width of the smallest plane at the origin that holds all masks; 0 for none."""
    there = [mask for mask in masks if mask is not None]
    return (max((mask.y_offset + mask.height for mask in there), default=0),
            max((mask.x_offset + mask.width for mask in there), default=0))


def _compact(ids: list[NDArray[np.int64]]) -> tuple[list[NDArray[np.int64]], int]:
    """Renumber ids from 0 without gaps, because the metrics index arrays with them."""
    values = np.unique(np.concatenate(ids)) if ids else np.zeros(0, np.int64)
    return [np.searchsorted(values, frame) for frame in ids], len(values)


def _metrics() -> dict[str, Any]:
    try:
        from trackeval.metrics import CLEAR, HOTA, Identity
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "scores need the library trackeval; install it with pip install 'masa_ros[evaluate]'",
            name=error.name) from error
    quiet = {'PRINT_CONFIG': False}
    return {'HOTA': HOTA(), 'CLEAR': CLEAR(quiet), 'Identity': Identity(quiet)}


def _table(results: dict[str, Any]) -> Scores:
    hota, clear, identity = results['HOTA'], results['CLEAR'], results['Identity']
    return {
        **{name: float(np.mean(hota[name])) for name in ('HOTA', 'AssA', 'DetA', 'LocA')},
        'IDF1': float(identity['IDF1']), 'MOTA': float(clear['MOTA']),
        'IDSW': float(clear['IDSW']), 'Frag': float(clear['Frag']),
        'FP': float(clear['CLR_FP']), 'FN': float(clear['CLR_FN']),
    }
