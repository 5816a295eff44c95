"""Reused tables."""

from __future__ import annotations

from masa_ros.tracking.workspace import Workspace


def test_tables_of_other_names_do_not_touch_each_other() -> None:
    work = Workspace()
    first, second = work.table('first', 3, 4), work.table('second', 3, 4)
    first[:], second[:] = 1, 2
    assert (first == 1).all()


def test_memory_is_reused_and_bounded_by_the_largest_table() -> None:
    work = Workspace()
    work.table('a', 300, 300)
    held = work.nbytes()
    for rows in range(300):
        assert work.table('a', rows, 300).shape == (rows, 300)
    assert work.nbytes() == held
