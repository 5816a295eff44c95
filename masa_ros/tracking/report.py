"""What the tracker says about a frame: seen objects, then the tracks that were not seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from masa_ros.structures.instances import Flag, Instances, TrackedInstances, TrackState
from masa_ros.tracking.memory import TrackMemory
import numpy as np
from numpy.typing import NDArray

_REPORTED = ('ids', 'uuids', 'states', 'boxes', 'scores', 'class_ids', 'labels', 'flags',
             'first_update', 'first_seen_ns', 'last_seen_ns', 'has_embedding', 'pinned')


@dataclass(frozen=True)
class Rows:
    """Copies of some tracks' columns; what the memory does later does not reach them."""

    columns: dict[str, NDArray[Any]]
    embeddings: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.columns['ids'])


def unseen_rows(
    memory: TrackMemory, tracks: NDArray[np.int64], *,
    boxes: NDArray[np.float32] | None = None, state: TrackState | None = None,
) -> Rows:
    """
    Copy tracks that are not in the frame.

    Parameters
    ----------
    memory : TrackMemory
        Where they are.
    tracks : ndarray
        ``(K,)`` rows.
    boxes : ndarray, optional
        ``(K, 4)`` predicted boxes; the last ones seen when missing.
    state : TrackState, optional
        State to report instead of the stored one.

    """
    columns = {name: memory[name][tracks] for name in _REPORTED}
    columns['flags'] &= np.uint8(Flag.FROM_DETECTION | Flag.FROM_PROPOSAL)
    if boxes is not None:
        columns['boxes'] = boxes
        columns['flags'] |= np.uint8(Flag.PREDICTED)
    columns['flags'][columns['pinned']] |= np.uint8(Flag.PROMPTED)
    if state is not None:
        columns['states'][:] = state
    embeddings = memory.embeddings[tracks]
    embeddings[~columns['has_embedding']] = np.nan
    return Rows(columns, embeddings)


def report(
    seen: Instances, memory: TrackMemory, tracks: NDArray[np.int64],
    similarities: NDArray[np.float32], margins: NDArray[np.float32], unseen: list[Rows],
    num_updates: int,
) -> TrackedInstances:
    """
    Put the output of a frame together.

    Parameters
    ----------
    seen : Instances
        Seen objects, in output order.
    memory : TrackMemory
        The tracks.
    tracks : ndarray
        ``(K,)`` memory row of each seen object.
    similarities, margins : ndarray
        ``(K,)`` why.
    unseen : list of Rows
        Tracks to append.
    num_updates : int
        Frames processed so far.

    """
    parts = [part for part in unseen if len(part)]
    count = sum(len(part) for part in parts)

    def joined(own: NDArray[Any], name: str) -> NDArray[Any]:
        return np.concatenate([own, *(part.columns[name] for part in parts)]) if parts else own

    def padded(own: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.concatenate([own, np.full(count, np.nan, np.float32)]) if count else own

    embeddings = seen.embeddings
    if embeddings is not None and parts:
        embeddings = np.concatenate([embeddings, *(
            part.embeddings if part.embeddings.shape[1] == embeddings.shape[1]
            else np.full((len(part), embeddings.shape[1]), np.nan, np.float32)
            for part in parts)])
    detected_by = seen.detected_by
    if detected_by is not None and count:
        detected_by = np.concatenate([detected_by, np.zeros(count, np.uint32)])
    labels = memory['labels'][tracks].tolist()
    labels += [label for part in parts for label in part.columns['labels']]
    flags = seen.flags | np.where(
        memory['pinned'][tracks], np.uint8(Flag.PROMPTED), np.uint8(0))
    uuids = joined(memory['uuids'][tracks], 'uuids')
    return TrackedInstances(
        boxes=joined(seen.boxes, 'boxes'), scores=joined(seen.scores, 'scores'),
        class_ids=joined(memory['class_ids'][tracks], 'class_ids'), labels=tuple(labels),
        flags=joined(flags, 'flags'), masks=(*seen.masks, *[None] * count),
        mask_qualities=padded(seen.mask_qualities), embeddings=embeddings,
        detected_by=detected_by,
        track_ids=joined(memory['ids'][tracks], 'ids'),
        uuids=tuple(np.ascontiguousarray(uuids).view('V16').ravel().tolist()),
        states=joined(memory['states'][tracks], 'states'),
        first_seen_ns=joined(memory['first_seen_ns'][tracks], 'first_seen_ns'),
        last_seen_ns=joined(memory['last_seen_ns'][tracks], 'last_seen_ns'),
        ages=num_updates - joined(memory['first_update'][tracks], 'first_update'),
        similarities=padded(similarities), margins=padded(margins))
