"""
What can be said about identities without a ground truth.

Not accuracy: a tracker that merges everything into one id looks calm here. Meant for comparing
two configurations on the same recording, where fewer, longer, less broken tracks with wider
margins are better if the number of objects in sight stays the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass
from typing import Any

from masa_ros.structures.instances import TrackedInstances
import numpy as np
from numpy.typing import NDArray

FLICKER_S = 0.5
"""A gap up to this long is flicker."""
SHORT_S = 1.0
"""A track shorter than this is short-lived."""
REFOUND_S = (1.0, 3.0, 10.0)
"""Gaps longer than these are counted as found again."""


@dataclass(frozen=True)
class IdentityStatistics:
    """
    Figures of one recording.

    Parameters
    ----------
    duration_s : float
        From the first to the last frame.
    num_frames : int
        Frames with a result, empty ones included.
    num_ids : int
        Different track ids that were seen.
    ids_per_minute : float
        New ids per minute; NaN for a recording without duration.
    objects_per_frame : float
        Mean number of objects seen.
    median_track_s : float
        Median time between first and last sight of a track.
    short_share : float
        Share of the tracks that lasted less than `SHORT_S`.
    fragments_per_track : float
        Mean number of gap-free pieces.
    flickers_per_minute : float
        Gaps of up to `FLICKER_S` per minute of track.
    refound : dict
        ``{seconds: count}`` gaps longer than each of `REFOUND_S` after which an id came back.
    median_margin, low_margin : float
        Median and tenth percentile of the match margins; NaN where the tracker states none.

    """

    duration_s: float
    num_frames: int
    num_ids: int
    ids_per_minute: float
    objects_per_frame: float
    median_track_s: float
    short_share: float
    fragments_per_track: float
    flickers_per_minute: float
    refound: Mapping[float, int]
    median_margin: float
    low_margin: float

    def table(self) -> dict[str, float]:
        """Return all figures by name, ``refound`` as one entry per limit."""
        values = {name: float(value) for name, value in vars(self).items()
                  if name != 'refound'}
        return values | {f'refound_after_{limit:g}_s': float(count)
                         for limit, count in self.refound.items()}


def identity_statistics(
    frames: SequenceOf[TrackedInstances], stamps_ns: NDArray[np.int64],
) -> IdentityStatistics:
    """
    Describe the identities of one stream.

    Parameters
    ----------
    frames : sequence of TrackedInstances
        One per frame, empty ones included; rows that were not seen are left out.
    stamps_ns : ndarray
        ``(T,)`` growing.

    Returns
    -------
    IdentityStatistics
        With NaN where there is nothing to measure.

    Raises
    ------
    ValueError
        If the number of stamps differs or they do not grow.

    """
    stamps = np.asarray(stamps_ns, np.int64)
    if len(stamps) != len(frames):
        raise ValueError(f'{len(frames)} frames have {len(stamps)} stamps, expected one each')
    if (np.diff(stamps) <= 0).any():
        raise ValueError('the stamps do not grow; sort the frames by time and leave repeated '
                         'ones out')
    seen = [frame.select(frame.seen) for frame in frames]
    positions: dict[int, list[int]] = {}
    for position, frame in enumerate(seen):
        for track_id in frame.track_ids.tolist():
            positions.setdefault(track_id, []).append(position)
    seconds = (stamps - stamps[0]) * 1e-9 if len(stamps) else np.zeros(0)
    gaps, fragments, lengths = _histories(positions, seconds)
    margins = np.concatenate([frame.margins for frame in seen] or [np.zeros(0, np.float32)])
    margins = margins[np.isfinite(margins)]
    duration_s = float(seconds[-1]) if len(seconds) else 0.0
    tracked_minutes = float(lengths.sum()) / 60
    return IdentityStatistics(
        duration_s=duration_s, num_frames=len(frames), num_ids=len(positions),
        ids_per_minute=_ratio(60 * len(positions), duration_s),
        objects_per_frame=_ratio(sum(map(len, seen)), len(seen)),
        median_track_s=_percentile(lengths, 50),
        short_share=_ratio(int((lengths < SHORT_S).sum()), len(lengths)),
        fragments_per_track=_ratio(float(fragments.sum()), len(fragments)),
        flickers_per_minute=_ratio(int((gaps <= FLICKER_S).sum()), tracked_minutes),
        refound={limit: int((gaps > limit).sum()) for limit in REFOUND_S},
        median_margin=_percentile(margins, 50), low_margin=_percentile(margins, 10))


def _histories(
    positions: dict[int, list[int]], seconds: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """Seconds of all gaps, number of pieces of each track, seconds each track lasted."""
    gaps: list[float] = []
    pieces, lengths = [], []
    for own in positions.values():
        array = np.array(own)
        breaks = np.flatnonzero(np.diff(array) > 1)
        gaps += (seconds[array[breaks + 1]] - seconds[array[breaks]]).tolist()
        pieces.append(len(breaks) + 1)
        lengths.append(float(seconds[array[-1]] - seconds[array[0]]))
    return np.array(gaps), np.array(pieces, np.int64), np.array(lengths)


def _ratio(value: float, base: float) -> float:
    return float(value / base) if base else float('nan')


def _percentile(values: NDArray[Any], share: float) -> float:
    return float(np.percentile(values, share)) if len(values) else float('nan')
