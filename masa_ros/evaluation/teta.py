"""
TETA, the tracking-every-thing accuracy: localization, association and classification apart.

Written from the definition; equal to the public implementation (see test/evaluation/test_teta.py).
Shapes: G objects of the truth and P results in a frame.
"""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass

from masa_ros.evaluation.datasets.sequence import Sequence
from masa_ros.structures.instances import TrackedInstances
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

THRESHOLDS = np.arange(0.0, 0.99, 0.05)
FIRST_CLASS_THRESHOLD = 10
"""Classification is scored from this threshold (0.5) on."""
OVERLAP = 0.5
_EPSILON = float(np.finfo(float).eps)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class TetaFrame:
    """
    Truth and results of one frame.

    Parameters
    ----------
    gt_ids, gt_classes : ndarray
        ``(G,)`` int64.
    pred_ids, pred_classes : ndarray
        ``(P,)`` int64.
    similarity : ndarray
        ``(G, P)`` IoU of boxes or masks.

    """

    gt_ids: Ints
    gt_classes: Ints
    pred_ids: Ints
    pred_classes: Ints
    similarity: Floats


@dataclass(frozen=True)
class TetaScore:
    """
    Means over the thresholds, in ``[0, 1]``.

    Parameters
    ----------
    teta : float
        Mean of the other three.
    loc_a, assoc_a, cls_a : float
        Localization, association and classification accuracy.

    """

    teta: float
    loc_a: float
    assoc_a: float
    cls_a: float


@dataclass
class _Counts:
    """What is added up over the sequences for one class; arrays over the thresholds."""

    loc_tp: Floats
    loc_fn: Floats
    loc_fp: Floats
    assoc: Floats
    cls_tp: Floats
    cls_fn: Floats
    cls_fp: Floats

    @classmethod
    def zeros(cls) -> _Counts:
        whole = [np.zeros(len(THRESHOLDS)) for _ in range(4)]
        upper = [np.zeros(len(THRESHOLDS) - FIRST_CLASS_THRESHOLD) for _ in range(3)]
        return cls(*whole, *upper)

    @property
    def empty(self) -> bool:
        return not (self.loc_tp + self.loc_fn + self.loc_fp).any()

    def score(self) -> Floats:
        """``(4, T)`` TETA, LocA, AssocA, ClsA."""
        loc_a = self.loc_tp / np.maximum(1, self.loc_tp + self.loc_fn + self.loc_fp)
        assoc_a = self.assoc / np.maximum(1, self.loc_tp)
        cls_a = np.full(len(THRESHOLDS), (
            self.cls_tp / np.maximum(1, self.cls_tp + self.cls_fn + self.cls_fp)).mean())
        return np.stack([(loc_a + assoc_a + cls_a) / 3, loc_a, assoc_a, cls_a])


def score_teta(
    sequences: SequenceOf[SequenceOf[TetaFrame]], classes: SequenceOf[int] | None = None,
) -> tuple[TetaScore, dict[int, TetaScore]]:
    """
    Score several sequences.

    Parameters
    ----------
    sequences : sequence of sequences of TetaFrame
        Frames in order.
    classes : sequence of int, optional
        Classes to score; those of the truth when missing.

    Returns
    -------
    tuple
        The mean over the classes that have something to score, and the score of each class.

    Raises
    ------
    ValueError
        If an id is used twice in a frame or shapes do not fit.

    References
    ----------
    Li et al., Tracking Every Thing in the Wild, ECCV 2022, section 4.

    """
    for number, frames in enumerate(sequences):
        for position, frame in enumerate(frames):
            _check(frame, number, position)
    present = sorted({int(value) for frames in sequences for frame in frames
                      for value in frame.gt_classes}) if classes is None else list(classes)
    counts = {class_id: _Counts.zeros() for class_id in present}
    for frames in sequences:
        _add_sequence(frames, counts)
    scores = {class_id: own.score() for class_id, own in counts.items() if not own.empty}
    mean = np.mean(list(scores.values()), axis=0) if scores else np.zeros((4, 1))
    return _mean_score(mean), {class_id: _mean_score(own) for class_id, own in scores.items()}


def mean_over(scores: dict[int, TetaScore], classes: SequenceOf[int]) -> TetaScore:
    """Mean of the scores of some classes, as of the base and the novel ones in OV-MOT."""
    chosen = [scores[class_id] for class_id in classes if class_id in scores]
    if not chosen:
        return TetaScore(0.0, 0.0, 0.0, 0.0)
    values = np.mean([(own.teta, own.loc_a, own.assoc_a, own.cls_a) for own in chosen], axis=0)
    return TetaScore(*(float(value) for value in values))


def teta_frames(
    sequence: Sequence, frames: SequenceOf[TrackedInstances], max_detections: int = 300,
) -> list[TetaFrame]:
    """
    Pair truth and results of a sequence by box IoU.

    Parameters
    ----------
    sequence : Sequence
        With its truth; frames that were not annotated are left out.
    frames : sequence of TrackedInstances
        One per frame; rows that were not seen are left out.
    max_detections : int
        At most this many results of a frame count, best scores first, as in TAO.

    Raises
    ------
    ValueError
        If the number of frames differs or there is no truth.

    """
    if len(sequence.truth) != len(frames):
        raise ValueError(f'sequence {sequence.name} has truth for {len(sequence.truth)} frames '
                         f'and results for {len(frames)}, expected both for every frame')
    paired = []
    for position in np.flatnonzero(sequence.annotated):
        truth, found = sequence.truth[int(position)], frames[int(position)]
        found = found.select(found.seen)
        if len(found) > max_detections:
            best = np.argsort(-found.scores, kind='stable')[:max_detections]
            found = found.select(np.sort(best))
        paired.append(TetaFrame(truth.track_ids, truth.class_ids, found.track_ids,
                                found.class_ids, box_iou(truth.boxes, found.boxes)))
    return paired


def box_iou(boxes: NDArray[np.float32], other: NDArray[np.float32]) -> Floats:
    """``(N, M)`` IoU in double precision, 0 where a box is empty."""
    first, second = boxes.astype(np.float64), other.astype(np.float64)
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    common = np.maximum(high - low, 0).prod(axis=2)
    areas = [np.maximum(side[:, 2:] - side[:, :2], 0).prod(axis=1) for side in (first, second)]
    union = areas[0][:, None] + areas[1][None] - common
    return np.asarray(np.where(union > _EPSILON, common / np.maximum(union, _EPSILON), 0.0))


def _check(frame: TetaFrame, number: int, position: int) -> None:
    where = f'sequence {number}, frame {position}'
    if frame.similarity.shape != (len(frame.gt_ids), len(frame.pred_ids)):
        raise ValueError(f'{where}: similarity is {frame.similarity.shape} for '
                         f'{len(frame.gt_ids)} true and {len(frame.pred_ids)} found objects')
    for kind, ids in (('truth', frame.gt_ids), ('result', frame.pred_ids)):
        if len(np.unique(ids)) != len(ids):
            raise ValueError(f'{where}: the {kind} uses an id twice')


def _add_sequence(frames: SequenceOf[TetaFrame], counts: dict[int, _Counts]) -> None:
    """Add one sequence to the counts of every class."""
    gt_index, num_gt = _renumbered([frame.gt_ids for frame in frames])
    pred_index, num_pred = _renumbered([frame.pred_ids for frame in frames])
    owners = _owners(frames, gt_index, pred_index, num_gt, num_pred)
    for class_id, own in counts.items():
        rows = [frame.gt_classes == class_id for frame in frames]
        near = [(frame.similarity[mask] >= OVERLAP).any(axis=0)
                & ((owner < 0) | np.append(mask, True)[owner])
                for frame, mask, owner in zip(frames, rows, owners, strict=True)]
        kept = np.zeros(num_pred, bool)
        for index, mask in zip(pred_index, near, strict=True):
            kept[index[mask]] = True
        if not kept.any():
            own.loc_fn += sum(int(mask.sum()) for mask in rows)
            continue
        columns = [kept[index] for index in pred_index]
        _add_class(class_id, counts, [
            _Part(frame.similarity[mask][:, column], gt[mask], pred[column], close[column],
                  frame.pred_classes[column])
            for frame, mask, column, gt, pred, close in zip(
                frames, rows, columns, gt_index, pred_index, near, strict=True)],
            num_gt, num_pred)


@dataclass(frozen=True)
class _Part:
    """One frame as one class sees it; ids as numbers from 0."""

    similarity: Floats
    gt: Ints
    pred: Ints
    near: Bools
    pred_classes: Ints


def _add_class(
    class_id: int, counts: dict[int, _Counts], parts: list[_Part], num_gt: int, num_pred: int,
) -> None:
    own = counts[class_id]
    alignment, gt_count, pred_count = _alignment(
        [(part.similarity, part.gt, part.pred) for part in parts], num_gt, num_pred)
    matched = np.zeros((len(THRESHOLDS), num_gt, num_pred))
    for part in parts:
        if not len(part.gt):
            continue
        rows, columns = linear_sum_assignment(
            -alignment[np.ix_(part.gt, part.pred)] * part.similarity)
        found = part.similarity[rows, columns][None] >= THRESHOLDS[:, None] - _EPSILON
        own.loc_tp += found.sum(axis=1)
        own.loc_fn += len(part.gt) - found.sum(axis=1)
        own.loc_fp += part.near.sum() - (found & part.near[columns]).sum(axis=1)
        matched[:, part.gt[rows], part.pred[columns]] += found
        _add_classification(class_id, counts, part.pred_classes[columns],
                            found[FIRST_CLASS_THRESHOLD:])
    own.assoc += (matched ** 2 / np.maximum(
        1, gt_count[:, None] + pred_count[None] - matched)).sum(axis=(1, 2))


def _add_classification(
    class_id: int, counts: dict[int, _Counts], classes: Ints, found: Bools,
) -> None:
    right = classes == class_id
    counts[class_id].cls_tp += found[:, right].sum(axis=1)
    counts[class_id].cls_fn += found[:, ~right].sum(axis=1)
    for wrong in np.unique(classes[~right]):
        if int(wrong) in counts:
            counts[int(wrong)].cls_fp += found[:, classes == wrong].sum(axis=1)


def _owners(
    frames: SequenceOf[TetaFrame], gt_index: list[Ints], pred_index: list[Ints],
    num_gt: int, num_pred: int,
) -> list[Ints]:
    """Row of the true object, of any class, that each result is assigned to; -1 for none."""
    kept = np.zeros(num_pred, bool)
    for frame, index in zip(frames, pred_index, strict=True):
        kept[index[(frame.similarity >= OVERLAP).any(axis=0)]] = True
    columns = [kept[index] for index in pred_index]
    parts = [(frame.similarity[:, column], gt, pred[column])
             for frame, column, gt, pred in zip(
                 frames, columns, gt_index, pred_index, strict=True)]
    alignment, _, _ = _alignment(parts, num_gt, num_pred)
    owners = []
    for (similarity, gt, pred), column in zip(parts, columns, strict=True):
        rows, found = linear_sum_assignment(-alignment[np.ix_(gt, pred)] * similarity)
        real = similarity[rows, found] >= OVERLAP - _EPSILON
        owner = np.full(len(column), -1, np.int64)
        owner[np.flatnonzero(column)[found[real]]] = rows[real]
        owners.append(owner)
    return owners


def _alignment(
    parts: list[tuple[Floats, Ints, Ints]], num_gt: int, num_pred: int,
) -> tuple[Floats, Floats, Floats]:
    """``(num_gt, num_pred)`` how well whole tracks fit, and the lengths of both."""
    common = np.zeros((num_gt, num_pred))
    gt_count, pred_count = np.zeros(num_gt), np.zeros(num_pred)
    for similarity, gt, pred in parts:
        total = similarity.sum(axis=0)[None] + similarity.sum(axis=1)[:, None] - similarity
        common[np.ix_(gt, pred)] += np.where(
            total > _EPSILON, similarity / np.maximum(total, _EPSILON), 0)
        gt_count[gt] += 1
        pred_count[pred] += 1
    union = gt_count[:, None] + pred_count[None] - common
    return common / np.maximum(union, _EPSILON), gt_count, pred_count


def _renumbered(ids: list[Ints]) -> tuple[list[Ints], int]:
    values = np.unique(np.concatenate(ids)) if ids else np.zeros(0, np.int64)
    return [np.searchsorted(values, own) for own in ids], len(values)


def _mean_score(values: Floats) -> TetaScore:
    return TetaScore(*(float(value) for value in values.mean(axis=1)))
