"""Track and distractor memory."""

from __future__ import annotations

from typing import Any

from masa_ros.tracking.memory import COLUMNS, DistractorMemory, TrackMemory
import numpy as np
import pytest


def rows(ids: list[int], described: bool = True) -> dict[str, np.ndarray[Any, Any]]:
    count = len(ids)
    columns = {name: np.zeros((count, *shape), kind) for name, (kind, shape) in COLUMNS.items()}
    columns['ids'] = np.array(ids)
    columns['labels'] = np.array([f'object {i}' for i in ids], object)
    columns['vote_labels'][:] = ''
    columns['has_embedding'] = np.full(count, described)
    return columns


def test_rows_keep_their_order_when_others_are_removed() -> None:
    memory = TrackMemory()
    memory.append(rows([1, 2, 3, 4, 5]), np.arange(10, dtype=np.float32).reshape(5, 2))
    memory.keep(np.array([True, False, True, False, True]))
    assert memory['ids'].tolist() == [1, 3, 5]
    assert memory['labels'].tolist() == ['object 1', 'object 3', 'object 5']
    assert memory.embeddings.tolist() == [[0, 1], [4, 5], [8, 9]]


def test_appended_rows_are_told() -> None:
    memory = TrackMemory()
    assert memory.append(rows([1, 2])).tolist() == [0, 1]
    assert memory.append(rows([3])).tolist() == [2]


def test_arrays_double_when_full_and_shrink_when_the_crowd_is_gone() -> None:
    memory = TrackMemory()
    smallest, bytes_before = memory.capacity, memory.nbytes()
    memory.append(rows(list(range(1, smallest + 2))))
    assert memory.capacity == 2 * smallest
    memory.append(rows(list(range(1000))))
    keep = np.zeros(len(memory), bool)
    keep[-3:] = True
    memory.keep(keep)
    assert memory['ids'].tolist() == [997, 998, 999]
    assert (memory.capacity, memory.nbytes()) == (smallest, bytes_before)


def test_a_track_without_embedding_leaves_a_row_of_zeros() -> None:
    memory = TrackMemory()
    memory.append(rows([1], described=False), np.full((1, 3), np.nan, np.float32))
    memory.append(rows([2]), np.ones((1, 3), np.float32))
    assert memory.embeddings.tolist() == [[0, 0, 0], [1, 1, 1]]
    assert memory['has_embedding'].tolist() == [False, True]


def test_tracks_from_before_the_first_embedding_get_room_for_one() -> None:
    memory = TrackMemory()
    memory.append(rows([1], described=False))
    assert memory.width is None
    assert memory.embeddings.shape == (1, 0)
    memory.append(rows([2]), np.ones((1, 3), np.float32))
    assert memory.embeddings.tolist() == [[0, 0, 0], [1, 1, 1]]


def test_clear_forgets_the_embedding_width() -> None:
    memory = TrackMemory()
    memory.append(rows([1]), np.ones((1, 3), np.float32))
    memory.clear()
    assert (len(memory), memory.width) == (0, None)


def test_normalize_leaves_rows_without_embedding_alone() -> None:
    memory = TrackMemory()
    memory.append(rows([1], described=False))
    memory.append(rows([2]), np.array([[3, 4]], np.float32))
    memory.normalize()
    expected = np.array([[0, 0], [0.6, 0.8]], np.float32)
    np.testing.assert_allclose(memory.embeddings, expected)


def test_columns_make_the_same_memory_again() -> None:
    memory = TrackMemory()
    memory.append(rows([1, 7]), np.ones((2, 3), np.float32))
    copy = TrackMemory.from_columns(memory.copy_columns(), 3)
    for name in COLUMNS:
        np.testing.assert_array_equal(copy[name], memory[name])
    np.testing.assert_array_equal(copy.embeddings, memory.embeddings)


def test_a_missing_column_is_named() -> None:
    columns = TrackMemory().copy_columns()
    del columns['boxes']
    with pytest.raises(ValueError, match="no column 'boxes'"):
        TrackMemory.from_columns(columns, -1)


def test_a_column_of_another_length_is_named() -> None:
    columns = TrackMemory().copy_columns()
    columns['scores'] = np.zeros(3, np.float32)
    with pytest.raises(ValueError, match=r"column 'scores' has shape \(3,\), expected \(0,\)"):
        TrackMemory.from_columns(columns, -1)


def test_distractors_of_the_newest_frames_come_first_and_old_ones_go() -> None:
    distractors = DistractorMemory()
    for frame in range(3):
        distractors.push(np.full((1, 2), frame, np.float32), np.array([frame]), 2)
    assert distractors.embeddings(2).tolist() == [[2, 2], [1, 1]]
    assert distractors.class_ids().tolist() == [2, 1]
    distractors.trim(1)
    assert (len(distractors), distractors.num_frames) == (1, 1)
    distractors.clear()
    assert distractors.embeddings(2).shape == (0, 2)


def test_no_frames_of_distractors_keeps_none() -> None:
    distractors = DistractorMemory()
    distractors.push(np.ones((1, 2), np.float32), np.array([0]), 0)
    assert len(distractors) == 0
