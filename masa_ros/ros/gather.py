"""Bring the newest items of several sources together, with a bounded, adaptive wait."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

ItemT = TypeVar('ItemT')

# Weight of the newest gap in the mean interval of a source.
NEWEST = 0.25
# A source may be late by this share of its interval; then it counts as stalled until it is back.
LATE = 0.5
# A longer gap, in intervals, is a pause and says nothing about the interval.
PAUSE = 4.0


@dataclass
class _Source(Generic[ItemT]):
    items: deque[tuple[float, ItemT]] = field(default_factory=deque)
    last_s: float | None = None
    interval_s: float | None = None

    def arrived(self, now_s: float) -> None:
        """Learn how often items come."""
        if self.last_s is not None:
            gap_s = now_s - self.last_s
            if self.interval_s is None:
                self.interval_s = gap_s
            elif gap_s < PAUSE * self.interval_s:
                self.interval_s += NEWEST * (gap_s - self.interval_s)
        self.last_s = now_s

    def awaited_until(self, now_s: float, deadline_s: float) -> float:
        """Time up to which it makes sense to wait for the next item; `now_s` for no wait."""
        if self.last_s is None or self.interval_s is None:
            return now_s
        due_s = self.last_s + self.interval_s
        latest_s = due_s + LATE * self.interval_s
        if due_s > deadline_s or latest_s <= now_s:
            return now_s
        return min(latest_s, deadline_s)


class Gather(Generic[ItemT]):
    """
    Collects items of several sources into batches, at most one of each source.

    A batch is ready as soon as every source that delivers has an item in it. One that has none
    is waited for only if its next item is due, by the rate at which it has delivered, within
    `wait_s` of the arrival of the oldest item; a source that is overdue is not waited for at all
    until it is back. With one source a batch is ready as soon as there is an item.

    Times are those of a monotonic clock in seconds, given by the caller.

    Parameters
    ----------
    limit : int
        Most items of a source that wait; beyond that its oldest gives way.
    wait_s : float
        Longest time that an item waits for those of other sources.

    """

    def __init__(self, limit: int, wait_s: float) -> None:
        self._limit = limit
        self._wait_s = wait_s
        self._sources: dict[str, _Source[ItemT]] = {}

    def __len__(self) -> int:
        """Return how many items wait."""
        return sum(len(source.items) for source in self._sources.values())

    def waiting(self, source: str) -> int:
        """Return how many items of a source wait."""
        known = self._sources.get(source)
        return 0 if known is None else len(known.items)

    def add(self, source: str, item: ItemT, now_s: float) -> list[ItemT]:
        """Add an item; returns the items of the same source that gave way to it."""
        entry = self._sources.setdefault(source, _Source())
        entry.arrived(now_s)
        entry.items.append((now_s, item))
        surplus = max(0, len(entry.items) - self._limit)
        return [entry.items.popleft()[1] for _ in range(surplus)]

    def left_s(self, now_s: float) -> float | None:
        """How long to wait until a batch is ready; 0 when it is, None while nothing waits."""
        arrivals = [entry.items[0][0] for entry in self._sources.values() if entry.items]
        if not arrivals:
            return None
        deadline_s = min(arrivals) + self._wait_s
        until_s = max((entry.awaited_until(now_s, deadline_s)
                       for entry in self._sources.values() if not entry.items), default=now_s)
        return max(0.0, until_s - now_s)

    def take(self) -> list[ItemT]:
        """Return the oldest item of each source that has one, longest waiting first."""
        taken = sorted((entry.items.popleft() for entry in self._sources.values() if entry.items),
                       key=lambda entry: entry[0])
        return [item for _, item in taken]

    def clear(self, source: str | None = None) -> list[ItemT]:
        """Take back the waiting items of a source, or of all."""
        waiting = [item for name, entry in self._sources.items() if source in (None, name)
                   for _, item in entry.items]
        for name, entry in self._sources.items():
            if source in (None, name):
                entry.items.clear()
        return waiting
