"""Where identities went wrong: switches, with what was before and after, and gaps survived."""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass

from masa_ros.evaluation.datasets.sequence import Sequence
from masa_ros.structures.boxes import pairwise_iou
from masa_ros.structures.instances import TrackedInstances
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

MATCH_IOU = 0.5
KEEP_BONUS = 10.0
"""Continuing the id of before weighs more than any overlap, as in CLEAR."""


@dataclass(frozen=True)
class Sighting:
    """
    One match of an object of the truth with a track.

    Parameters
    ----------
    position : int
        Frame within the sequence.
    track_id : int
        Its id.
    box : ndarray
        ``(4,)`` box of the result.
    similarity : float
        What the tracker stated for the match; NaN where nothing.

    """

    position: int
    track_id: int
    box: NDArray[np.float32]
    similarity: float


@dataclass(frozen=True)
class Recovery:
    """
    Two consecutive sightings of one object.

    Parameters
    ----------
    gt_id : int
        The object.
    before, after : Sighting
        Consecutive matches, perhaps of different tracks.
    gap_s : float
        Seconds between them.

    """

    gt_id: int
    before: Sighting
    after: Sighting
    gap_s: float

    @property
    def switched(self) -> bool:
        """Whether the object has another id than before."""
        return self.before.track_id != self.after.track_id


def recoveries(
    sequence: Sequence, frames: SequenceOf[TrackedInstances],
) -> list[Recovery]:
    """
    Follow every object of the truth through the results.

    Parameters
    ----------
    sequence : Sequence
        With its truth.
    frames : sequence of TrackedInstances
        One per frame.

    Returns
    -------
    list of Recovery
        In order of time; one for every sighting but the first of each object.

    """
    last: dict[int, Sighting] = {}
    found: list[Recovery] = []
    for position in np.flatnonzero(sequence.annotated):
        truth = sequence.truth[int(position)]
        result = frames[int(position)]
        result = result.select(result.seen)
        for row, column in matches(truth, result, last):
            gt_id = int(truth.track_ids[row])
            sighting = Sighting(int(position), int(result.track_ids[column]),
                                result.boxes[column], float(result.similarities[column]))
            if gt_id in last:
                gap_ns = sequence.stamps_ns[position] - sequence.stamps_ns[last[gt_id].position]
                found.append(Recovery(gt_id, last[gt_id], sighting, float(gap_ns) * 1e-9))
            last[gt_id] = sighting
    return found


def matches(
    truth: TrackedInstances, result: TrackedInstances, last: dict[int, Sighting],
) -> list[tuple[int, int]]:
    """Pairs of rows with an IoU of at least 0.5; a pair that was matched before is kept."""
    overlap = pairwise_iou(truth.boxes, result.boxes)
    before = np.array([last[int(i)].track_id if int(i) in last else -1
                       for i in truth.track_ids], np.int64)
    gain = np.where(overlap >= MATCH_IOU,
                    overlap + KEEP_BONUS * (before[:, None] == result.track_ids[None]), 0)
    rows, columns = linear_sum_assignment(gain, maximize=True)
    return [(int(row), int(column)) for row, column in zip(rows, columns, strict=True)
            if gain[row, column] > 0]
