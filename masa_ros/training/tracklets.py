"""
Identities over time without labels: what the tracker is sure of teaches the track head.

At the full rate of a recording boxes alone nearly say which object is which: each has moved
little. A tracker that uses them follows objects through a clip; the same object seconds apart is
then a positive no augmentation can draw (it has turned, walked, come nearer), and the others in
its frame are negatives for certain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from masa_ros.structures.frame import Frame
from masa_ros.structures.instances import Instances, TrackState
from masa_ros.tracking.tracker import Tracker, TrackerConfig
from masa_ros.training.corpus import LabelledImage
import numpy as np
from numpy.typing import NDArray

PERIOD_NS = 100_000_000
"""Time from frame to frame that the tracker is told; at most ten frames a second are used."""
LEAST_PERIOD_NS = 90_000_000
"""Least time between two frames, where stamps are not quite even."""
LEAST_SEEN = 3
"""Tracks seen in fewer frames of a clip are objects on their own in each of them."""


def at_most_ten_a_second(frames: Iterable[Frame]) -> Iterator[Frame]:
    """Leave out frames that come sooner than `LEAST_PERIOD_NS` after one of their stream."""
    next_ns: dict[str, int] = {}
    for frame in frames:
        if frame.stamp_ns >= next_ns.get(frame.stream, frame.stamp_ns):
            next_ns[frame.stream] = frame.stamp_ns + LEAST_PERIOD_NS
            yield frame


def followed(
    frames: Sequence[LabelledImage], found: Sequence[Instances], name: str,
    config: TrackerConfig | None = None,
) -> list[LabelledImage]:
    """
    Track the objects of a clip.

    Parameters
    ----------
    frames : sequence of LabelledImage
        In order of time, without gaps.
    found : sequence of Instances
        The objects of each, in the order of its boxes, with embeddings where there are any.
    name : str
        Of the clip.
    config : TrackerConfig, optional
        Settings of the tracker; its defaults when missing.

    Returns
    -------
    list of LabelledImage
        The frames with clip and identities.

    """
    tracker = Tracker(config or TrackerConfig(), seed=name)
    rows = []
    for index, (frame, instances) in enumerate(zip(frames, found, strict=True)):
        tracks = tracker.update(
            instances, index, (index + 1) * PERIOD_NS, frame.image.shape[:2])
        seen = np.isin(tracks.states, (TrackState.TENTATIVE, TrackState.TRACKED))
        rows.append(_identities(instances.boxes, tracks.boxes[seen], tracks.track_ids[seen]))
    return [replace(frame, clip=name, identities=identities)
            for frame, identities in zip(frames, _settled(rows), strict=True)]


def later_accuracy(
    frames: Sequence[LabelledImage],
    embeddings: Callable[[LabelledImage], NDArray[np.float32]],
    gaps: Sequence[int],
) -> float:
    """
    Part of the followed objects whose best match some frames later is themselves.

    Parameters
    ----------
    frames : sequence of LabelledImage
        With clips and identities, in order of time.
    embeddings : callable
        Image to ``(N, D)``.
    gaps : sequence of int
        Numbers of frames from one to the other. Several make a steadier number of a short clip.

    Returns
    -------
    float
        Over objects that both frames of a clip show, beside at least one other; NaN where there
        is none.

    """
    hits: list[bool] = []
    described = [embeddings(frame) for frame in frames]
    for k, later in ((k, k + gap) for gap in gaps for k in range(len(frames) - gap)):
        one, two = frames[k], frames[later]
        if (one.clip != two.clip or one.identities is None or two.identities is None
                or len(two.boxes) < 2):
            continue
        same = one.identities[:, None] == two.identities[None]
        both = np.flatnonzero(same.any(1))
        if len(both):
            best = (described[k][both] @ described[later].T).argmax(1)
            hits += same[both, best].tolist()
    return float(np.mean(hits)) if hits else float('nan')


def _identities(
    boxes: NDArray[np.float32], tracked: NDArray[np.float32], track_ids: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Track of each box, 0 where it has none; the tracker passes boxes on as they are."""
    by_box = {box.tobytes(): int(track) for box, track in zip(tracked, track_ids, strict=True)}
    return np.array([by_box.get(box.tobytes(), 0) for box in boxes], np.int64)


def _settled(clip: Sequence[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
    """Give every lasting track of the clip a number, and all else numbers of their own."""
    tracks, counts = np.unique(np.concatenate([
        np.zeros(0, np.int64), *(ids[ids > 0] for ids in clip)]), return_counts=True)
    lasting = {int(track): i for i, track in enumerate(tracks[counts >= LEAST_SEEN])}
    fresh = len(lasting)
    result = []
    for ids in clip:
        numbers = []
        for track in ids.tolist():
            numbers.append(lasting.get(track, fresh))
            fresh += numbers[-1] == fresh
        result.append(np.array(numbers, np.int64))
    return result
