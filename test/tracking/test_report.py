"""What is told about a frame."""

from __future__ import annotations

from typing import Any

from masa_ros.structures.instances import Flag, Instances, TrackState
from masa_ros.tracking.memory import COLUMNS, TrackMemory
from masa_ros.tracking.report import report, unseen_rows
import numpy as np


def memory_of(ids: list[int], embeddings: np.ndarray | None = None) -> TrackMemory:
    count = len(ids)
    columns: dict[str, np.ndarray[Any, Any]] = {
        name: np.zeros((count, *shape), kind) for name, (kind, shape) in COLUMNS.items()}
    columns['ids'] = np.array(ids)
    columns['uuids'] = np.arange(16 * count).reshape(count, 16)
    columns['labels'] = np.array([f'object {i}' for i in ids], object)
    columns['states'] = np.full(count, TrackState.COASTING)
    columns['flags'] = np.full(count, Flag.FROM_DETECTION | Flag.TRUNCATED | Flag.MASK_SKIPPED)
    columns['first_update'] = np.arange(count)
    columns['has_embedding'] = np.full(count, embeddings is not None)
    memory = TrackMemory()
    memory.append(columns, embeddings)
    return memory


NONE = np.zeros(0, np.int64)
NO_REASON = np.zeros(0, np.float32)


def test_nothing_seen_and_nothing_unseen_is_empty() -> None:
    tracks = report(Instances(), TrackMemory(), NONE, NO_REASON, NO_REASON, [], 5)
    assert len(tracks) == 0
    assert tracks.boxes.shape == (0, 4)


def test_copied_rows_do_not_follow_the_memory() -> None:
    memory = memory_of([4, 5])
    rows = unseen_rows(memory, np.array([1]), state=TrackState.REMOVED)
    memory.keep(np.array([True, False]))
    tracks = report(Instances(), memory, NONE, NO_REASON, NO_REASON, [rows], 9)
    assert tracks.track_ids.tolist() == [5]
    assert tracks.states.tolist() == [TrackState.REMOVED]
    assert tracks.labels == ('object 5',)
    assert tracks.uuids == (bytes(range(16, 32)),)
    assert tracks.ages.tolist() == [8]


def test_only_the_origin_flags_outlive_the_frame_that_saw_the_object() -> None:
    memory = memory_of([4])
    boxes = np.array([[1, 2, 3, 4]], np.float32)
    lost, coasting = unseen_rows(memory, np.array([0])), unseen_rows(
        memory, np.array([0]), boxes=boxes)
    assert lost.columns['flags'].tolist() == [Flag.FROM_DETECTION]
    assert coasting.columns['flags'].tolist() == [Flag.FROM_DETECTION | Flag.PREDICTED]
    assert coasting.columns['boxes'].tolist() == boxes.tolist()
    assert memory['boxes'].tolist() == [[0, 0, 0, 0]]


def test_a_uuid_that_ends_in_zeros_keeps_its_sixteen_bytes() -> None:
    memory = memory_of([1])
    memory['uuids'][0] = 0
    rows = unseen_rows(memory, np.array([0]))
    tracks = report(Instances(), memory, NONE, NO_REASON, NO_REASON, [rows], 1)
    assert tracks.uuids == (bytes(16),)


def test_unseen_tracks_show_their_memory_and_nan_where_there_is_none() -> None:
    seen = Instances.from_boxes([[0, 0, 1, 1]]).with_fields(
        embeddings=np.array([[1, 2, 3]], np.float32))
    memory = memory_of([1, 2], np.ones((2, 3), np.float32))
    memory['has_embedding'][1] = False
    rows = unseen_rows(memory, np.array([0, 1]))
    reason = np.array([0.9], np.float32)
    tracks = report(seen, memory, np.array([0]), reason, reason, [rows], 1)
    np.testing.assert_array_equal(
        tracks.embeddings, np.array([[1, 2, 3], [1, 1, 1], [np.nan] * 3], np.float32))


def test_tracks_from_before_the_first_embedding_are_reported_beside_described_objects() -> None:
    seen = Instances.from_boxes([[0, 0, 1, 1]]).with_fields(
        embeddings=np.array([[1, 2, 3]], np.float32))
    memory = memory_of([1, 2])
    reason = np.array([0.9], np.float32)
    tracks = report(seen, memory, np.array([0]), reason, reason,
                    [unseen_rows(memory, np.array([1]))], 1)
    assert tracks.embeddings is not None
    assert np.isnan(tracks.embeddings[1]).all()
