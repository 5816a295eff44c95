"""Detections of one image from several origins made one, each object once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from masa_ros.detectors.selection import class_key
from masa_ros.structures.boxes import pairwise_iou
from masa_ros.structures.instances import Instances
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Merged:
    """
    What became of the detections of several origins.

    Parameters
    ----------
    instances : Instances
        ``K`` rows, each exactly as its origin gave it, by descending score; rows without a class
        come after those with one.
    sources : ndarray
        ``(K,)`` int64 index of the origin of each row.
    rows : ndarray
        ``(K,)`` int64 row of each within its origin.
    seen_by : ndarray
        ``(K, S)`` bool: which of the ``S`` origins had a box that went into the row, its own
        included.
    dropped : ndarray
        ``(S,)`` int64 boxes of each origin that went into one of another row.

    """

    instances: Instances
    sources: NDArray[np.int64]
    rows: NDArray[np.int64]
    seen_by: NDArray[np.bool_]
    dropped: NDArray[np.int64]


def merge_detections(
    detections: Sequence[Instances], iou_threshold: float = 0.6, *, within_origin: bool = False,
) -> Merged:
    """
    Join detections of one image; of boxes of one class that overlap the best scored one stays.

    Classes are compared by name where both boxes have one, without regard to case, else by
    number. A box without name and number gives way to any box that it overlaps and takes no
    other's place but that of its own kind. Boxes that are not finite or have no size pass as they
    are; scores that are no numbers count as 0.

    Parameters
    ----------
    detections : sequence of Instances
        One per origin, in the pixels of the same image. Where scores are equal, the earlier
        origin and row goes before.
    iou_threshold : float
        IoU above which two boxes are the same object.
    within_origin : bool
        Whether boxes of one origin compete too. Otherwise an origin's own overlapping boxes all
        stay (two people behind one another): it had its own suppression.

    Raises
    ------
    ValueError
        If the threshold is not from 0 to 1.

    """
    if not 0 <= iou_threshold <= 1:
        raise ValueError(f'iou_threshold is {iou_threshold}, expected a number from 0 to 1')
    joined = join_instances(detections)
    counts = [len(part) for part in detections]
    sources = np.repeat(np.arange(len(counts)), counts)
    rows = np.concatenate([np.zeros(0, np.int64), *(np.arange(count) for count in counts)])
    classes = _classes(joined)
    # Rank: with a class first, then by score, then in the order given (the sort is stable).
    scores = np.nan_to_num(joined.scores, nan=0.0, posinf=0.0, neginf=0.0)
    order = np.lexsort((-scores, classes < 0))
    rivals = _rivals(joined.boxes[order], classes[order], iou_threshold)
    if not within_origin:
        rivals &= sources[order][:, None] != sources[order][None, :]
    winners = _winners(rivals)
    own = np.arange(len(order))
    kept = np.flatnonzero(winners == own)
    seen_by = np.zeros((len(order), len(counts)), bool)
    seen_by[winners, sources[order]] = True
    lost = sources[order][winners != own]
    return Merged(
        joined.select(order[kept]), sources[order][kept], rows[order][kept].astype(np.int64),
        seen_by[kept], np.bincount(lost, minlength=len(counts)).astype(np.int64))


def join_instances(parts: Sequence[Instances]) -> Instances:
    """
    Rows of all parts in order.

    Embeddings are kept only where every part with rows has them, in one width.
    """
    filled = [part for part in parts if len(part)]
    if not filled:
        return parts[0] if parts else Instances()
    if len(filled) == 1:
        return filled[0]
    joined: dict[str, Any] = {}
    for item in fields(Instances):
        values = [getattr(part, item.name) for part in filled]
        if any(value is None for value in values) or (
                item.name == 'embeddings' and len({value.shape[1] for value in values}) > 1):
            joined[item.name] = None
        elif isinstance(values[0], tuple):
            joined[item.name] = tuple(entry for value in values for entry in value)
        else:
            joined[item.name] = np.concatenate(values)
    return Instances(**joined)


def _classes(instances: Instances) -> NDArray[np.int64]:
    """
    Give rows of the same class the same number; -1 for no class.

    A nameless number belongs to the name that some other row gives it, if there is just one.
    """
    names_of: dict[int, set[str]] = {}
    for number, label in zip(instances.class_ids.tolist(), instances.labels, strict=True):
        if label and number >= 0:
            names_of.setdefault(number, set()).add(class_key(label))
    keys: dict[str | int, int] = {}
    classes = np.full(len(instances), -1, np.int64)
    for row, (number, label) in enumerate(
            zip(instances.class_ids.tolist(), instances.labels, strict=True)):
        key: str | int = class_key(label) if label else number
        named = names_of.get(number, set())
        if not label and len(named) == 1:
            key = next(iter(named))
        if label or number >= 0:
            classes[row] = keys.setdefault(key, len(keys))
    return classes


def _rivals(
    boxes: NDArray[np.float32], classes: NDArray[np.int64], iou_threshold: float,
) -> NDArray[np.bool_]:
    """``(N, N)``: whether the box of the row, being ranked first, takes that of the column."""
    # A box of size 0, as inverted ones count, has no overlap with any.
    checked = np.where(np.isfinite(boxes).all(axis=1, keepdims=True), boxes, 0)
    overlaps = pairwise_iou(checked, checked) > iou_threshold
    same = (classes[:, None] == classes[None, :]) | (classes[None, :] < 0)
    return np.asarray(np.triu(overlaps & same, k=1))


def _winners(rivals: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Row that each row went into, by rank; itself where it stays."""
    winners = np.arange(len(rivals))
    for row in range(len(rivals)):
        if winners[row] == row:
            taken = np.flatnonzero(rivals[row])
            winners[taken[winners[taken] == taken]] = row
    return winners
