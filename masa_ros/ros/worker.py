"""One thread that owns the pipeline: it loads the model, runs every frame and frees it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
import threading
import time
from typing import Any, Generic, TypeVar

from masa_ros.ros.gather import Gather

ItemT = TypeVar('ItemT')
ResultT = TypeVar('ResultT')

POLICIES = ('latest', 'every')


class InferenceWorker(Generic[ItemT]):
    """
    Runs a function on batches of submitted items in a thread of its own, one after the other.

    A batch holds at most one item of each source; see `masa_ros.ros.gather.Gather` for how long
    it waits. With the policy ``latest`` one item of a source waits and a newer one takes its
    place, so that what is processed is never older than one processing time. With ``every`` up
    to `queue_size` items wait; beyond that the oldest gives way.

    Parameters
    ----------
    process : callable
        Called with each batch in the worker's thread. It must handle its own errors; one that
        escapes goes to `on_error` and the next batch is taken.
    on_error : callable
        Called in the worker's thread with an exception that `process` did not handle.
    policy : str
        ``latest`` or ``every``.
    queue_size : int
        Most waiting items of a source with ``every``.
    wait_s : float
        Longest time that an item waits for those of other sources.

    Raises
    ------
    ValueError
        If the policy is not known or the size is below 1.

    """

    def __init__(
        self,
        process: Callable[[list[ItemT]], None],
        on_error: Callable[[Exception], None],
        policy: str = 'latest',
        queue_size: int = 20,
        wait_s: float = 0.0,
    ) -> None:
        if policy not in POLICIES:
            raise ValueError(f'policy is {policy!r}, expected latest or every')
        if queue_size < 1:
            raise ValueError(f'queue size is {queue_size}, expected at least 1')
        self._process = process
        self._on_error = on_error
        self._items: Gather[ItemT] = Gather(1 if policy == 'latest' else queue_size, wait_s)
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        # Python joins threads that are no daemons when it ends: a long inference would hold a
        # node that was told to stop.
        self._thread = threading.Thread(target=self._run, name='inference', daemon=True)
        self._thread.start()

    def submit(self, item: ItemT, source: str = '') -> list[ItemT]:
        """Hand over an item; returns the waiting items of its source that gave way to it."""
        with self._changed:
            replaced = self._items.add(source, item, time.monotonic())
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

    def clear(self, source: str | None = None) -> list[ItemT]:
        """Take back the waiting items of a source, or of all."""
        with self._changed:
            return self._items.clear(source)

    def waiting(self, source: str | None = None) -> int:
        """Return how many items of a source, or of all, wait."""
        with self._changed:
            return len(self._items) if source is None else self._items.waiting(source)

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
                while not (self._calls or self._stopping or self._ready()):
                    self._changed.wait(self._items.left_s(time.monotonic()))
                if self._calls:
                    function, future = self._calls.popleft()
                    batch = []
                elif self._stopping:
                    return
                else:
                    batch = self._items.take()
                    future = None
            if future is not None:
                _resolve(function, future)
                continue
            try:
                self._process(batch)
            except Exception as error:
                self._on_error(error)
            # The frames' memory must not wait for the next ones.
            batch = []

    def _ready(self) -> bool:
        """Whether there is a batch that need not wait any longer."""
        left_s = self._items.left_s(time.monotonic())
        return left_s is not None and left_s <= 0


def _resolve(function: Callable[[], Any], future: Future[Any]) -> None:
    """Run a function and put its result or its error into a future."""
    try:
        result = function()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)
