"""The inference thread: what waits, what gives way, what happens to errors."""

from __future__ import annotations

from collections.abc import Iterator
import threading

from masa_ros.ros.worker import InferenceWorker
import pytest


class Bench:
    """A worker whose items wait at a gate until it is opened."""

    def __init__(self, policy: str, queue_size: int = 3) -> None:
        self.done: list[int] = []
        self.errors: list[Exception] = []
        self.threads: set[str] = set()
        self.gate = threading.Event()
        self.started = threading.Event()
        self.worker = InferenceWorker(self.process, self.errors.append, policy, queue_size)

    def process(self, items: list[int]) -> None:
        (item,) = items
        self.threads.add(threading.current_thread().name)
        self.started.set()
        self.gate.wait(10)
        if item < 0:
            raise RuntimeError(f'item {item}')
        self.done.append(item)

    def busy(self) -> None:
        """Return when the worker is at work on item 0."""
        self.worker.submit(0)
        assert self.started.wait(10)

    def finish(self) -> list[int]:
        self.gate.set()
        self.worker.call(lambda: None).result(10)
        while self.worker.waiting():
            self.worker.call(lambda: None).result(10)
        self.worker.call(lambda: None).result(10)
        return self.done


@pytest.fixture
def benches() -> Iterator[list[Bench]]:
    made: list[Bench] = []
    yield made
    for bench in made:
        bench.gate.set()
        assert bench.worker.stop(10)


def make(benches: list[Bench], policy: str, queue_size: int = 3) -> Bench:
    benches.append(Bench(policy, queue_size))
    return benches[-1]


def test_latest_keeps_only_the_newest(benches: list[Bench]) -> None:
    bench = make(benches, 'latest')
    bench.busy()
    replaced = [bench.worker.submit(item) for item in (1, 2, 3)]
    assert replaced == [[], [1], [2]]
    assert bench.finish() == [0, 3]


def test_every_keeps_all_in_order_up_to_its_size(benches: list[Bench]) -> None:
    bench = make(benches, 'every', 3)
    bench.busy()
    replaced = [bench.worker.submit(item) for item in (1, 2, 3, 4)]
    assert replaced == [[], [], [], [1]]
    assert bench.finish() == [0, 2, 3, 4]


def test_work_is_done_in_one_other_thread(benches: list[Bench]) -> None:
    bench = make(benches, 'every')
    bench.gate.set()
    bench.worker.submit(1)
    name = bench.worker.call(lambda: threading.current_thread().name).result(10)
    bench.finish()
    assert bench.threads == {name}
    assert name != threading.current_thread().name


def test_an_error_of_one_item_does_not_stop_the_next(benches: list[Bench]) -> None:
    bench = make(benches, 'every')
    bench.gate.set()
    bench.worker.submit(-1)
    bench.worker.submit(2)
    assert bench.finish() == [2]
    assert [str(error) for error in bench.errors] == ['item -1']


def test_a_call_goes_before_waiting_items(benches: list[Bench]) -> None:
    bench = make(benches, 'every')
    bench.busy()
    bench.worker.submit(1)
    future = bench.worker.call(lambda: list(bench.done))
    bench.gate.set()
    assert future.result(10) == [0]


def test_the_error_of_a_call_comes_back_to_the_caller(benches: list[Bench]) -> None:
    bench = make(benches, 'latest')

    def fail() -> None:
        raise FileNotFoundError('no weights')
    with pytest.raises(FileNotFoundError, match='no weights'):
        bench.worker.call(fail).result(10)
    bench.gate.set()
    bench.worker.submit(1)
    assert bench.finish() == [1]


def test_cleared_items_are_given_back(benches: list[Bench]) -> None:
    bench = make(benches, 'every')
    bench.busy()
    bench.worker.submit(1)
    bench.worker.submit(2)
    assert bench.worker.clear() == [1, 2]
    assert bench.finish() == [0]


def test_stopping_drops_what_waits_and_ends_the_thread(benches: list[Bench]) -> None:
    bench = make(benches, 'every')
    bench.busy()
    bench.worker.submit(1)
    assert not bench.worker.stop(0.01)  # item 0 is still at the gate
    bench.gate.set()
    assert bench.worker.stop(10)
    assert bench.done == [0]
    with pytest.raises(RuntimeError, match='has been stopped'):
        bench.worker.call(lambda: None).result(10)


@pytest.mark.parametrize(('policy', 'size', 'text'), [
    ('newest', 1, 'expected latest or every'), ('every', 0, 'at least 1')])
def test_an_impossible_policy_is_refused(policy: str, size: int, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        InferenceWorker(lambda item: None, lambda error: None, policy, size)


def test_items_of_several_sources_come_in_one_batch_and_a_silent_one_does_not_stop_them() -> None:
    batches: list[list[str]] = []
    done = threading.Event()

    def process(items: list[str]) -> None:
        batches.append(items)
        if 'last' in items:
            done.set()
    worker = InferenceWorker(process, lambda error: None, 'every', wait_s=0.05)
    gate = threading.Event()
    worker.call(lambda: gate.wait(10))
    for item in ('1', '2'):
        for source in ('a', 'b', 'silent'):
            worker.submit(source + item, source)
    gate.set()
    worker.call(lambda: None).result(10)
    worker.submit('last', 'a')
    assert done.wait(10)
    assert worker.stop(10)
    assert batches[:2] == [['a1', 'b1', 'silent1'], ['a2', 'b2', 'silent2']]
    assert batches[2] == ['last']
