"""
The label of a track: a vote over time among the classes that its detections named.

A detection's vote weighs as much as its score, and older votes fade with every further sighting.
Each track keeps its few strongest classes; the first one is its label.
"""

from __future__ import annotations

from typing import Any

from masa_ros.tracking.memory import TrackMemory, VOTE_SLOTS
import numpy as np
from numpy.typing import NDArray

HOLDER = 0
"""Slot of the class that a track is labelled with."""


def first_votes(
    class_ids: NDArray[np.int64], labels: NDArray[np.object_], scores: NDArray[np.float32],
) -> dict[str, NDArray[Any]]:
    """Columns of the memory for ``(K,)`` new tracks; a detection without a class has no vote."""
    count = len(class_ids)
    columns: dict[str, NDArray[Any]] = {
        'vote_class_ids': np.full((count, VOTE_SLOTS), -1, np.int64),
        'vote_labels': np.full((count, VOTE_SLOTS), '', object),
        'votes': np.zeros((count, VOTE_SLOTS), np.float32)}
    columns['vote_class_ids'][:, HOLDER] = class_ids
    columns['vote_labels'][:, HOLDER] = labels
    columns['votes'][:, HOLDER] = np.where(_named(class_ids, labels), scores, 0)
    return columns


def vote(
    memory: TrackMemory, tracks: NDArray[np.int64], class_ids: NDArray[np.int64],
    labels: NDArray[np.object_], scores: NDArray[np.float32], keep: float,
) -> None:
    """
    Count what the detections of a frame say, and label their tracks.

    A class takes over a track's label when its votes weigh more than those of the present one
    and it was named in an earlier sighting too, so that one wrong frame never flips a label. A
    track without a label takes the first one it gets.

    Parameters
    ----------
    memory : TrackMemory
        The tracks; their votes, ``class_ids`` and ``labels`` change.
    tracks : ndarray
        ``(K,)`` rows of the memory, each once.
    class_ids, labels, scores : ndarray
        ``(K,)`` what each one's detection says. A class is known by its label, or by its number
        where it has no label; a detection with neither does not vote.
    keep : float
        Share of a vote that is left after one more sighting; 0 takes the newest class as it is.

    """
    if np.isinf(memory['votes'][:, HOLDER]).any():
        fixed = np.isinf(memory['votes'][tracks, HOLDER])
        tracks, class_ids, labels, scores = (
            tracks[~fixed], class_ids[~fixed], labels[~fixed], scores[~fixed])
    if keep <= 0:
        _take_newest(memory, tracks, class_ids, labels, scores)
        return
    named = _named(class_ids, labels)
    if not named.any():
        return
    if not named.all():
        tracks, class_ids, labels, scores = (
            tracks[named], class_ids[named], labels[named], scores[named])
    votes = memory['votes']
    votes[tracks] *= np.float32(keep)
    agrees = np.asarray(memory['labels'][tracks] == labels, bool)
    agrees &= (labels != '') | (memory['class_ids'][tracks] == class_ids)
    votes[tracks[agrees], HOLDER] += scores[agrees]
    # Text prompts number their classes anew; the label then stays and its number follows.
    memory['class_ids'][tracks[agrees]] = class_ids[agrees]
    memory['vote_class_ids'][tracks[agrees], HOLDER] = class_ids[agrees]
    for row in np.flatnonzero(~agrees).tolist():
        _vote_otherwise(memory, int(tracks[row]), int(class_ids[row]), labels[row],
                        float(scores[row]))


def fix_label(memory: TrackMemory, track: int, label: str) -> None:
    """Give a track a label for good: no number of votes outweighs it."""
    if memory['labels'][track] != label:
        memory['class_ids'][track] = memory['vote_class_ids'][track, HOLDER] = -1
    memory['labels'][track] = memory['vote_labels'][track, HOLDER] = label
    memory['votes'][track, HOLDER] = np.inf


def _take_newest(
    memory: TrackMemory, tracks: NDArray[np.int64], class_ids: NDArray[np.int64],
    labels: NDArray[np.object_], scores: NDArray[np.float32],
) -> None:
    for name, values in first_votes(class_ids, labels, scores).items():
        memory[name][tracks] = values
    memory['class_ids'][tracks] = class_ids
    memory['labels'][tracks] = labels


def _named(class_ids: NDArray[np.int64], labels: NDArray[np.object_]) -> NDArray[np.bool_]:
    return np.asarray((class_ids >= 0) | (labels != ''), bool)


def _vote_otherwise(
    memory: TrackMemory, track: int, class_id: int, label: str, score: float,
) -> None:
    """Count a vote for another class than the one that the track is labelled with."""
    votes = memory['votes'][track]
    class_ids, labels = memory['vote_class_ids'][track], memory['vote_labels'][track]
    unlabelled = class_ids[HOLDER] < 0 and not labels[HOLDER]
    known = [slot for slot in range(VOTE_SLOTS) if votes[slot] > 0 and labels[slot] == label
             and (label or class_ids[slot] == class_id)]
    if unlabelled:
        slot = HOLDER
    elif known:
        slot = known[0]
    else:
        slot = 1 + int(votes[1:].argmin())
        votes[slot] = 0
    votes[slot] += np.float32(score)
    class_ids[slot], labels[slot] = class_id, label
    if known and votes[slot] > votes[HOLDER]:
        for column in (votes, class_ids, labels):
            column[HOLDER], column[slot] = column[slot], column[HOLDER]
    memory['class_ids'][track], memory['labels'][track] = class_ids[HOLDER], labels[HOLDER]
