"""Identity statistics on histories worked by hand."""

from __future__ import annotations

import math

from masa_ros.evaluation.datasets.sequence import with_ids
from masa_ros.evaluation.identity_statistics import identity_statistics
from masa_ros.structures.instances import Instances, TrackedInstances, TrackState
import numpy as np
import pytest


def frames(history: list[list[int]]) -> list[TrackedInstances]:
    return [with_ids(Instances.from_boxes([[0, 0, 1, 1]] * len(ids)), ids) for ids in history]


def stamps(count: int, step_s: float) -> np.ndarray:
    return (np.arange(count) * step_s * 1e9).astype(np.int64)


def test_figures_of_a_short_recording() -> None:
    # Every 0.25 s for 5 s. Track 1 is seen throughout but for frame 4 (a gap of 0.5 s). Track 2
    # is seen in frames 0 and 1 and again from frame 10 on (a gap of 2.25 s). Track 3 once.
    history = [[1] if i != 4 else [] for i in range(21)]
    for i in (0, 1, *range(10, 21)):
        history[i] = [*history[i], 2]
    history[7] = [1, 3]
    found = identity_statistics(frames(history), stamps(21, 0.25))
    assert found.num_ids == 3
    assert found.duration_s == 5.0
    assert found.ids_per_minute == 36.0
    assert found.objects_per_frame == (20 + 13 + 1) / 21
    assert found.median_track_s == 5.0
    assert found.short_share == pytest.approx(1 / 3)
    assert found.fragments_per_track == pytest.approx(5 / 3)
    assert found.flickers_per_minute == 6.0  # One in 10 s of track.
    assert found.refound == {1.0: 1, 3.0: 0, 10.0: 0}


def test_margins_leave_out_what_is_unknown() -> None:
    objects = frames([[1, 2, 3]])
    objects[0] = objects[0].with_fields(margins=np.array([0.2, 0.6, np.nan], np.float32))
    found = identity_statistics(objects, stamps(1, 1.0))
    assert found.median_margin == pytest.approx(0.4)
    assert found.low_margin == pytest.approx(0.24)


def test_rows_that_were_not_seen_do_not_count() -> None:
    objects = frames([[1, 2], [1, 2]])
    objects[1] = objects[1].with_fields(
        states=np.array([TrackState.TRACKED, TrackState.COASTING], np.uint8))
    assert identity_statistics(objects, stamps(2, 1.0)).objects_per_frame == 1.5


def test_an_empty_recording_has_no_figures() -> None:
    found = identity_statistics([], np.zeros(0, np.int64))
    assert found.num_ids == 0
    assert math.isnan(found.ids_per_minute)
    assert math.isnan(found.table()['median_track_s'])
    assert found.table()['refound_after_1_s'] == 0


def test_empty_frames_are_frames() -> None:
    found = identity_statistics(frames([[], []]), stamps(2, 1.0))
    assert (found.num_frames, found.objects_per_frame) == (2, 0.0)


def test_wrong_stamps_are_an_error() -> None:
    with pytest.raises(ValueError, match='2 frames have 1 stamps'):
        identity_statistics(frames([[], []]), stamps(1, 1.0))
    with pytest.raises(ValueError, match='do not grow'):
        identity_statistics(frames([[], []]), np.array([5, 5]))
