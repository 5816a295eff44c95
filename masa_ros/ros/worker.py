"""One thread that owns the pipeline: it loads the model, runs every frame and frees it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
import threading
from typing import Any, Generic, TypeVar

ItemT = TypeVar('ItemT')
ResultT = TypeVar('ResultT')

POLICIES = ('latest', 'every')


class InferenceWorker(Generic[ItemT]):
    """
    Runs a function on submitted items in a thread of its own, one at a time, in order.

    With the policy ``latest`` one item waits and a newer one takes its place, so that what is
    processed is never older than one processing time. With ``every`` up to `queue_size` items
    wait; beyond that the oldest gives way.

    Parameters
    ----------
    process : callable
        Called with each item in the worker's thread. It must handle its own errors; one that
        escapes goes to `on_error` and the next item is taken.
    on_error : callable
        Called in the worker's thread with an exception that `process` did not handle.
    policy : str
        ``latest`` or ``every``.
    queue_size : int
        Most waiting items with ``every``.

    Raises
    ------
    ValueError
        If the policy is not known or the size is below 1.

    """

    def __init__(
        self,
        process: Callable[[ItemT], None],
        on_error: Callable[[Exception], None],
        policy: str = 'latest',
        queue_size: int = 20,
    ) -> None:
        if policy not in POLICIES:
            raise ValueError(f'policy is {policy!r}, expected latest or every')
        if queue_size < 1:
            raise ValueError(f'queue size is {queue_size}, expected at least 1')
        self._limit = 1 if policy == 'latest' else queue_size
        self._process = process
        self._on_error = on_error
        self._items: deque[ItemT] = deque()
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        # Python joins threads that are no daemons when it ends: a long inference would hold a
        # node that was told to stop.
        self._thread = threading.Thread(target=self._run, name='inference', daemon=True)
        self._thread.start()

    def submit(self, item: ItemT) -> list[ItemT]:
        """Hand over an item; returns the waiting items that gave way to it."""
        with self._changed:
            self._items.append(item)
            replaced = [self._items.popleft()
                        for _ in range(max(0, len(self._items) - self._limit))]
            self._changed.notify()
        return replaced

    def call(self, function: Callable[[], ResultT]) -> Future[ResultT]:
        """Run a function in the worker's thread, after the item at work and before the next."""
        future: Future[ResultT] = Future()
        with self._changed:
            if self._stopping:
                future.set_exception(RuntimeError('the worker has been stopped'))
            else:
                self._calls.append((function, future))
                self._changed.notify()
        return future

    def clear(self) -> list[ItemT]:
        """Take back all waiting items."""
        with self._changed:
            waiting = list(self._items)
            self._items.clear()
        return waiting

    def waiting(self) -> int:
        """Return how many items wait."""
        return len(self._items)

    def stop(self, timeout_s: float = 5.0) -> bool:
        """
        End the thread after the item at work; waiting items are dropped.

        Returns
        -------
        bool
            Whether it ended in time.

        """
        with self._changed:
            self._stopping = True
            self._items.clear()
            self._changed.notify()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._items or self._calls or self._stopping):
                    self._changed.wait()
                if self._calls:
                    function, future = self._calls.popleft()
                    item = None
                elif self._stopping:
                    return
                else:
                    item = self._items.popleft()
                    future = None
            if future is not None:
                _resolve(function, future)
                continue
            try:
                self._process(item)  # type: ignore[arg-type]
            except Exception as error:
                self._on_error(error)
            # The frame's memory must not wait for the next one.
            item = None


def _resolve(function: Callable[[], Any], future: Future[Any]) -> None:
    """Run a function and put its result or its error into a future."""
    try:
        result = function()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)
