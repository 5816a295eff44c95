"""Portions that shrink when memory runs out."""

from __future__ import annotations

import logging

from masa_ros.models.memory import is_out_of_memory, Portions
import pytest
import torch


def test_everything_is_covered_once_in_order() -> None:
    parts = list(Portions('images', 3).run(8, lambda part: (part.start, part.stop)))
    assert parts == [(0, 3), (3, 6), (6, 8)]
    assert list(Portions('images', 3).run(0, lambda part: part)) == []


def test_portions_halve_for_good_and_nothing_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    def work(part: slice) -> list[int]:
        if part.stop - part.start > 2:
            raise torch.cuda.OutOfMemoryError('CUDA out of memory. Tried to allocate 2 GiB')
        return list(range(part.start, part.stop))
    portions = Portions('images', 8)
    with caplog.at_level(logging.WARNING):
        done = [row for part in portions.run(7, work) for row in part]
    assert done == list(range(7))
    assert portions.at_once == 1  # 7 and 3 did not fit.
    assert 'images are now computed 1 at a time' in caplog.text


def test_no_room_for_one_names_ways_out() -> None:
    def work(_: slice) -> None:
        raise torch.cuda.OutOfMemoryError('CUDA out of memory. Tried to allocate 2 GiB')
    with pytest.raises(MemoryError, match=r'single one of the images: .*bfloat16.*2 GiB'):
        list(Portions('images', 2).run(2, work))


def test_other_errors_pass_through_untouched() -> None:
    def work(_: slice) -> None:
        raise RuntimeError('a bug')
    portions = Portions('images', 4)
    with pytest.raises(RuntimeError, match='a bug'):
        list(portions.run(4, work))
    assert portions.at_once == 4


def test_a_cpu_without_memory_is_recognized() -> None:
    assert is_out_of_memory(RuntimeError(
        "[enforce fail at alloc_cpu.cpp:75] . DefaultCPUAllocator: can't allocate memory"))
    assert not is_out_of_memory(ValueError('DefaultCPUAllocator'))
