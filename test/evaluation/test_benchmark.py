"""The runner: cache, faults, strides, workers and resuming."""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

from masa_ros.evaluation.baselines import build_baseline, SequenceTracker
from masa_ros.evaluation.benchmark import (
    disturb,
    Faults,
    fingerprint,
    kept_positions,
    Observer,
    ObserverSpec,
    Plan,
    read_instances,
    read_tracks,
    run_benchmark,
    TrackerSpec,
    write_instances,
    write_tracks,
)
from masa_ros.evaluation.datasets.sequence import regular_stamps_ns, Sequence, with_ids
from masa_ros.structures.instances import Instances
from masa_ros.structures.masks import encode_plane
import numpy as np
import pytest


def sequence(name: str = 'a', count: int = 12) -> Sequence:
    indices = np.arange(count, dtype=np.int64)
    truth = tuple(
        with_ids(Instances.from_boxes([[t, 0, t + 20, 20], [100, t, 120, t + 30]]), [1, 2])
        for t in range(count))
    return Sequence(name, indices, regular_stamps_ns(indices, 10.0), 10.0, height_px=200,
                    width_px=200, truth=truth)


def truth_of(log: Path, own: Sequence) -> SequenceOf[Instances]:
    with log.open('a') as file:
        file.write(f'{own.name}\n')
    return [Instances.from_boxes(frame.boxes) for frame in own.truth]


def observer(log: Path) -> ObserverSpec:
    def build() -> Observer:
        return partial(truth_of, log)

    return ObserverSpec('truth', 'v1', build)


def greedy(rate_hz: float) -> SequenceTracker:
    return build_baseline('iou', rate_hz)


def plan(tmp_path: Path, **changes: object) -> Plan:
    whole = Plan((sequence('a'), sequence('b')), (observer(tmp_path / 'log'),),
                 (TrackerSpec('iou', 'v1', greedy),), (1, 5), (Faults(),), tmp_path / 'cache')
    return replace(whole, **changes)  # type: ignore[arg-type]


def test_every_combination_is_run_and_scored(tmp_path: Path) -> None:
    runs = run_benchmark(plan(tmp_path))
    assert [(run.sequence, run.stride) for run in runs] == [
        ('a', 1), ('a', 5), ('b', 1), ('b', 5)]
    assert all(run.score is not None and run.score.table()['HOTA'] == 1 for run in runs)
    assert [len(run.update_ms) for run in runs] == [12, 3, 12, 3]


def test_a_second_tracker_does_not_observe_again(tmp_path: Path) -> None:
    run_benchmark(plan(tmp_path))
    run_benchmark(plan(tmp_path, trackers=(TrackerSpec('other', 'v2', greedy),)))
    assert (tmp_path / 'log').read_text() == 'a\nb\n'


def test_a_new_fingerprint_observes_again(tmp_path: Path) -> None:
    run_benchmark(plan(tmp_path))
    changed = replace(observer(tmp_path / 'log'), fingerprint='v2')
    run_benchmark(plan(tmp_path, observers=(changed,)))
    assert (tmp_path / 'log').read_text() == 'a\nb\na\nb\n'


def test_a_run_that_was_broken_off_goes_on(tmp_path: Path) -> None:
    calls: list[str] = []

    def build(rate_hz: float) -> SequenceTracker:
        calls.append('build')
        if len(calls) == 3:
            raise RuntimeError('the power went')
        return greedy(rate_hz)

    broken = plan(tmp_path, trackers=(TrackerSpec('iou', 'v1', build),))
    with pytest.raises(RuntimeError):
        run_benchmark(broken)
    assert len(run_benchmark(broken)) == 4
    # Two were kept, the third failed, two were left.
    assert len(calls) == 5


def test_workers_give_the_same_in_the_same_order(tmp_path: Path) -> None:
    alone = run_benchmark(plan(tmp_path / 'x', observers=(observer(tmp_path / 'log'),)))
    done: list[tuple[int, int]] = []
    with ThreadPoolExecutor(2) as pool:
        shared = run_benchmark(
            plan(tmp_path / 'y', observers=(observer(tmp_path / 'log'),)), executor=pool,
            progress=lambda what, count, total: done.append((count, total)))
    assert [(run.sequence, run.stride, run.score and run.score.table()) for run in alone] == [
        (run.sequence, run.stride, run.score and run.score.table()) for run in shared]
    assert done == [(1, 2), (2, 2)]


def test_names_must_differ(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='sequences share a name'):
        run_benchmark(plan(tmp_path, sequences=(sequence('a'), sequence('a'))))


def test_a_stride_can_begin_at_each_of_its_frames(tmp_path: Path) -> None:
    runs = run_benchmark(plan(tmp_path, sequences=(sequence(count=12),), every_start=True))
    assert [(run.stride, run.first, run.positions.tolist()) for run in runs] == [
        (1, 0, list(range(12))), (5, 0, [0, 5, 10]), (5, 1, [1, 6, 11]), (5, 2, [2, 7]),
        (5, 3, [3, 8]), (5, 4, [4, 9])]
    assert len({run.tracks_file for run in runs}) == 6
    once = run_benchmark(plan(tmp_path, sequences=(sequence(count=12),)))
    assert [run.tracks_file for run in once] == [run.tracks_file for run in runs[:2]]


def test_no_stride_begins_beyond_a_short_sequence(tmp_path: Path) -> None:
    runs = run_benchmark(plan(tmp_path, sequences=(sequence(count=3),), every_start=True))
    assert [(run.stride, run.first) for run in runs] == [(1, 0), (5, 0), (5, 1), (5, 2)]


def test_an_observer_must_answer_for_every_frame(tmp_path: Path) -> None:
    short = ObserverSpec('short', 'v1', lambda: lambda own: [Instances()])
    with pytest.raises(ValueError, match='gave 1 frames for the 12 of a'):
        run_benchmark(plan(tmp_path, observers=(short,)))


def test_a_sequence_without_truth_is_tracked_and_not_scored(tmp_path: Path) -> None:
    bare = ObserverSpec('none', 'v1', lambda: lambda own: [Instances()] * len(own))
    runs = run_benchmark(plan(tmp_path, observers=(bare,),
                              sequences=(replace(sequence(), truth=()),)))
    assert [run.score for run in runs] == [None, None]


def test_faults_are_the_same_for_every_tracker_and_run() -> None:
    faults = Faults(dropped_frames=0.5, missed=0.5, noise=0.1)
    own = sequence(count=200)
    kept = kept_positions(own, 1, faults)
    assert kept.tolist() == kept_positions(own, 1, faults).tolist()
    assert 70 < len(kept) < 130
    objects = Instances.from_boxes([[0, 0, 100, 200]] * 400)
    one, two = (disturb(objects, faults, 'a', 3) for _ in range(2))
    assert one.boxes.tolist() == two.boxes.tolist()
    assert 150 < len(one) < 250
    assert disturb(objects, faults, 'a', 4).boxes.tolist() != one.boxes.tolist()


def test_box_noise_has_the_stated_size() -> None:
    objects = Instances.from_boxes([[0, 0, 100, 200]] * 2000)
    noisy = disturb(objects, Faults(noise=0.05), 'a', 0)
    shift = noisy.boxes - objects.boxes
    np.testing.assert_allclose(shift.std(axis=0), [5, 10, 5, 10], rtol=0.1)
    assert (noisy.boxes[:, 2:] > noisy.boxes[:, :2]).all()


def test_all_frames_dropped_leaves_one() -> None:
    assert len(kept_positions(sequence(count=2), 1, Faults(dropped_frames=0.95))) >= 1


@pytest.mark.parametrize(('faults', 'name'), [
    (Faults(), 'none'), (Faults(dropped_frames=0.1, noise=0.05),
                         '10 % frames dropped, 5 % box noise')])
def test_faults_have_a_readable_name(faults: Faults, name: str) -> None:
    assert faults.name == name


def test_instances_survive_the_disk(tmp_path: Path) -> None:
    plane = np.zeros((9, 9), bool)
    plane[2:4, 3:8] = True
    full = replace(Instances.from_boxes([[0, 0, 1, 1], [2, 2, 5, 5]], [0.5, 0.25], [3, -1],
                                        ['car', '']),
                   masks=(None, encode_plane(plane)),
                   embeddings=np.arange(8, dtype=np.float32).reshape(2, 4))
    frames = (full, Instances(), Instances.from_boxes([[1, 1, 2, 2]]))
    write_instances(tmp_path / 'x' / 'a.npz', frames)
    back = read_instances(tmp_path / 'x' / 'a.npz')
    assert [len(frame) for frame in back] == [2, 0, 1]
    assert back[0].labels == ('car', '')
    assert back[0].masks[0] is None
    assert back[0].masks[1] is not None
    assert back[0].masks[1].paste(9, 9).tolist() == plane.tolist()
    assert back[0].embeddings is not None
    assert back[0].embeddings.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert back[2].embeddings is None


def test_no_frames_survive_the_disk(tmp_path: Path) -> None:
    write_instances(tmp_path / 'a.npz', [])
    assert read_instances(tmp_path / 'a.npz') == ()


def test_tracks_survive_the_disk(tmp_path: Path) -> None:
    frames = list(sequence(count=3).truth)
    write_tracks(tmp_path / 'a.npz', frames, np.array([1, 2, 3], np.float32))
    back, times = read_tracks(tmp_path / 'a.npz')
    assert [frame.track_ids.tolist() for frame in back] == [[1, 2]] * 3
    assert back[1].boxes.tolist() == frames[1].boxes.tolist()
    assert times.tolist() == [1, 2, 3]


def test_tracks_keep_their_masks(tmp_path: Path) -> None:
    mask = encode_plane(np.eye(4, dtype=bool))
    frames = [frame.with_fields(masks=(mask, None)) for frame in sequence(count=2).truth]
    write_tracks(tmp_path / 'a.npz', frames, np.zeros(2, np.float32))
    first, second = read_tracks(tmp_path / 'a.npz')[0][1].masks
    assert second is None
    assert first is not None
    assert first.decode().tolist() == mask.decode().tolist()


def test_the_fingerprint_follows_the_truth() -> None:
    own = sequence()
    other = replace(own, truth=(*own.truth[:-1], own.truth[0]))
    assert fingerprint(own) == fingerprint(sequence())
    assert fingerprint(own) != fingerprint(other)
