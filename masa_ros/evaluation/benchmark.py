"""
Run many trackers over many sequences on the same detections, once observed and kept.

An observer turns a sequence into instances (boxes, perhaps masks and embeddings); that is the
expensive part, so it is stored on disk under the observer's fingerprint. Trackers then run on
what is stored, at several strides and with simulated faults, and are scored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from collections.abc import Sequence as SequenceOf
from concurrent.futures import as_completed, Executor, ProcessPoolExecutor
from dataclasses import dataclass, field, replace
import hashlib
import json
import multiprocessing
from pathlib import Path
import tempfile
import time
from typing import Any
import zlib

from masa_ros.evaluation.baselines import SequenceTracker, TrackerFactory
from masa_ros.evaluation.datasets.sequence import Sequence, with_ids
from masa_ros.evaluation.sam2_video import Sam2Video
from masa_ros.evaluation.scores import score_sequence, SequenceScore
from masa_ros.structures.frame import Frame
from masa_ros.structures.instances import Instances, TrackedInstances
from masa_ros.structures.masks import RoiMask
from masa_ros.structures.settings import setting
import numpy as np
from numpy.typing import NDArray

Observer = Callable[[Sequence], SequenceOf[Instances]]
Progress = Callable[[str, int, int], None]
"""Called with what was done, how many units are done and how many there are."""


@dataclass(frozen=True)
class ObserverSpec:
    """
    Where instances come from.

    Parameters
    ----------
    name : str
        Shown in tables.
    fingerprint : str
        Changes when the output would: weights, settings.
    build : callable
        Makes the observer; called once in each worker, must be picklable.

    """

    name: str
    fingerprint: str
    build: Callable[[], Observer]


@dataclass(frozen=True)
class TrackerSpec:
    """
    A tracker to run.

    Parameters
    ----------
    name : str
        Shown in tables.
    fingerprint : str
        Changes when the output would; part of the key of kept results.
    build : callable
        Makes a tracker for a sequence, given the frame rate; must be picklable.
    needs_images : bool
        Whether the tracker looks at pixels.

    """

    name: str
    fingerprint: str
    build: TrackerFactory
    needs_images: bool = False


@dataclass(frozen=True)
class Faults:
    """What goes wrong between camera and tracker, drawn from a seeded generator."""

    dropped_frames: float = setting(
        0.0, 'Share of frames that never arrive.', minimum=0.0, maximum=0.95)
    missed: float = setting(
        0.0, 'Share of detections that are missed.', minimum=0.0, maximum=1.0)
    noise: float = setting(
        0.0, 'Standard deviation of every box edge, as a share of the box side.', minimum=0.0,
        maximum=0.5)
    seed: int = setting(0, 'Start of the random numbers.', minimum=0)

    @property
    def name(self) -> str:
        """Short text for tables; ``none`` without faults."""
        parts = [f'{100 * value:g} % {text}' for value, text in (
            (self.dropped_frames, 'frames dropped'), (self.missed, 'detections missed'),
            (self.noise, 'box noise')) if value]
        return ', '.join(parts) or 'none'


@dataclass(frozen=True)
class Run:
    """
    One tracker on one sequence under one condition.

    Parameters
    ----------
    sequence, observer, tracker : str
        Names.
    stride : int
        Every n-th frame was used.
    faults : str
        Name of the faults.
    score : SequenceScore or None
        ``None`` where the sequence has no truth.
    update_ms : ndarray
        Wall time of each update of the tracker.
    tracks_file : Path
        What it said, for pictures and statistics; read with `read_tracks`.
    positions : ndarray
        Frames of the sequence that it was given.
    first : int
        Position of the frame at which the stride begins.

    """

    sequence: str
    observer: str
    tracker: str
    stride: int
    faults: str
    score: SequenceScore | None
    update_ms: NDArray[np.float32] = field(repr=False)
    tracks_file: Path
    positions: NDArray[np.int64] = field(repr=False)
    first: int = 0


@dataclass(frozen=True)
class Plan:
    """
    What to run.

    Parameters
    ----------
    sequences, observers, trackers : tuple
        Every combination is run.
    strides : tuple of int
        Every n-th frame.
    faults : tuple of Faults
        Conditions.
    cache : Path
        Folder that keeps observations and results; a run that was broken off goes on from it.
    every_start : bool
        Whether a stride of n is run n times, from each of the first n frames. At low rates a
        short sequence leaves few frames, and single matches decide; this takes all of them.

    """

    sequences: tuple[Sequence, ...]
    observers: tuple[ObserverSpec, ...]
    trackers: tuple[TrackerSpec, ...]
    strides: tuple[int, ...]
    faults: tuple[Faults, ...]
    cache: Path
    every_start: bool = False


def run_benchmark(
    plan: Plan, *, workers: int = 1, executor: Executor | None = None,
    progress: Progress | None = None,
) -> list[Run]:
    """
    Run every tracker on every sequence.

    Parameters
    ----------
    plan : Plan
        What to run.
    workers : int
        Processes; one unit of work is a sequence with an observer.
    executor : Executor, optional
        Something else that takes work, such as Ray's pool; `workers` is then ignored.
    progress : callable, optional
        Told of every finished unit.

    Returns
    -------
    list of Run
        In the order of sequences, observers, strides, first frames, faults, trackers.

    Raises
    ------
    ValueError
        If names repeat.

    """
    for kind, names in (('sequences', [item.name for item in plan.sequences]),
                        ('observers', [item.name for item in plan.observers]),
                        ('trackers', [item.name for item in plan.trackers])):
        if len(set(names)) != len(names):
            raise ValueError(f'{kind} share a name ({", ".join(names)}), expected unique ones')
    units = [(sequence, observer) for sequence in plan.sequences for observer in plan.observers]
    arguments = [(replace(plan, sequences=(sequence,), observers=(observer,)),)
                 for sequence, observer in units]
    results: dict[int, list[Run]] = {}
    for index, runs in _map(arguments, workers, executor):
        results[index] = runs
        if progress is not None:
            sequence, observer = units[index]
            progress(f'{sequence.name}, {observer.name}', len(results), len(units))
    return [run for index in range(len(units)) for run in results[index]]


def _map(
    arguments: SequenceOf[tuple[Plan]], workers: int, executor: Executor | None,
) -> Iterator[tuple[int, list[Run]]]:
    if executor is None and workers <= 1:
        for index, (plan,) in enumerate(arguments):
            yield index, run_unit(plan)
        return
    # Processes that were forked after torch started threads hang; new ones do not.
    pool = executor or ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context('spawn'))
    try:
        futures = {pool.submit(run_unit, plan): index
                   for index, (plan,) in enumerate(arguments)}
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        if executor is None:
            pool.shutdown(cancel_futures=True)


def run_unit(plan: Plan) -> list[Run]:
    """Run all trackers of a plan that has one sequence and one observer."""
    sequence, observer = plan.sequences[0], plan.observers[0]
    observed: list[tuple[Instances, ...]] = []

    def instances() -> tuple[Instances, ...]:
        if not observed:
            observed.append(observe(sequence, observer, plan.cache))
        return observed[0]

    return [_run_one(plan, tracker, stride, first, faults, instances)
            for stride in plan.strides
            for first in range(min(stride, len(sequence)) if plan.every_start else 1)
            for faults in plan.faults for tracker in plan.trackers]


def _run_one(
    plan: Plan, tracker: TrackerSpec, stride: int, first: int, faults: Faults,
    instances: Callable[[], tuple[Instances, ...]],
) -> Run:
    whole, observer = plan.sequences[0], plan.observers[0]
    key = _digest('2', fingerprint(whole), observer.fingerprint, tracker.fingerprint, str(stride),
                  json.dumps(vars(faults), sort_keys=True), *([str(first)] if first else []))
    path = plan.cache / 'tracks' / f'{_file_name(whole.name, tracker.name)}-{key}.npz'
    positions = kept_positions(whole, stride, faults, first)
    sequence = replace(whole.subset(positions), rate_hz=whole.rate_hz / stride)
    if path.is_file():
        tracks, update_ms = read_tracks(path)
    else:
        chosen = tuple(disturb(instances()[position], faults, whole.name, int(position))
                       for position in positions)
        tracks, update_ms = track(sequence, chosen, tracker)
        write_tracks(path, tracks, update_ms)
    score = score_sequence(sequence, tracks) if sequence.truth else None
    return Run(whole.name, observer.name, tracker.name, stride, faults.name, score, update_ms,
               path, positions, first)


def track(
    sequence: Sequence, instances: SequenceOf[Instances], spec: TrackerSpec,
) -> tuple[list[TrackedInstances], NDArray[np.float32]]:
    """Run one tracker; return its tracks and the wall time of each update in milliseconds."""
    tracker: SequenceTracker = spec.build(sequence.rate_hz)
    if isinstance(tracker, Sam2Video):
        started = time.perf_counter()
        whole = tracker.track_sequence(sequence, instances)
        each_ms = 1e3 * (time.perf_counter() - started) / max(len(whole), 1)
        return whole, np.full(len(whole), each_ms, np.float32)
    blank = np.zeros((max(sequence.height_px, 1), max(sequence.width_px, 1), 3), np.uint8)
    tracks, times = [], []
    for position, objects in enumerate(instances):
        image = sequence.image(position) if spec.needs_images else blank
        frame = Frame(image, int(sequence.stamps_ns[position]),
                      int(sequence.frame_indices[position]), sequence.name,
                      view=sequence.view(position))
        started = time.perf_counter()
        tracks.append(tracker.update(frame, objects))
        times.append(1e3 * (time.perf_counter() - started))
    return tracks, np.array(times, np.float32)


def kept_positions(
    sequence: Sequence, stride: int, faults: Faults, first: int = 0,
) -> NDArray[np.int64]:
    """
    Frames that reach the tracker: every n-th from the first, less those dropped.

    Never none of a sequence that has any.
    """
    positions = np.arange(first, len(sequence), stride)
    if not faults.dropped_frames or not len(positions):
        return positions
    draws = _generator(faults, sequence.name, -1).random(len(positions))
    kept = positions[draws >= faults.dropped_frames]
    return kept if len(kept) else positions[:1]


def disturb(instances: Instances, faults: Faults, name: str, position: int) -> Instances:
    """
    Apply missed detections and box noise to one frame.

    The draws depend on seed, sequence and frame only, so that every tracker gets the same.
    """
    if not faults.missed and not faults.noise:
        return instances
    generator = _generator(faults, name, position)
    kept = generator.random(len(instances)) >= faults.missed
    shifts = generator.standard_normal((len(instances), 4)).astype(np.float32)
    sides = np.tile(instances.boxes[:, 2:] - instances.boxes[:, :2], 2)
    boxes = instances.boxes + shifts * sides * np.float32(faults.noise)
    upright = np.asarray((boxes[:, 2:] > boxes[:, :2]).all(axis=1))
    boxes = np.where(upright[:, None], boxes, instances.boxes)
    return instances.with_fields(boxes=boxes.astype(np.float32)).select(kept)


def _generator(faults: Faults, name: str, position: int) -> np.random.Generator:
    return np.random.default_rng([faults.seed, zlib.crc32(name.encode()), position + 1])


# What is kept on disk.

def fingerprint(sequence: Sequence) -> str:
    """Digest of a sequence's frames, truth and given detections; images by name, size, time."""
    digest = hashlib.sha256(sequence.name.encode())
    for array in (sequence.frame_indices, sequence.stamps_ns, sequence.annotated):
        digest.update(np.ascontiguousarray(array).tobytes())
    for path in sequence.image_paths:
        status = path.stat() if path.is_file() else None
        digest.update(f'{path}{status and (status.st_size, status.st_mtime_ns)}'.encode())
    for objects in (*sequence.truth, *sequence.detections):
        digest.update(objects.boxes.tobytes() + objects.scores.tobytes()
                      + objects.class_ids.tobytes())
    for view in sequence.views:
        digest.update(b'none' if view is None else view.matrix.tobytes() + view.rotation.tobytes())
    return digest.hexdigest()[:16]


def observe(sequence: Sequence, observer: ObserverSpec, cache: Path) -> tuple[Instances, ...]:
    """
    Return the instances of a sequence, from the cache where they are there.

    Raises
    ------
    ValueError
        If the observer did not give one `Instances` per frame.

    """
    key = _digest(fingerprint(sequence), observer.fingerprint)
    path = cache / 'observations' / f'{_file_name(sequence.name, observer.name)}-{key}.npz'
    if path.is_file():
        return read_instances(path)
    found = tuple(observer.build()(sequence))
    if len(found) != len(sequence):
        raise ValueError(f'observer {observer.name} gave {len(found)} frames for the '
                         f'{len(sequence)} of {sequence.name}, expected one each')
    write_instances(path, found)
    return found


def write_instances(path: Path, frames: SequenceOf[Instances]) -> None:
    """Write instances of consecutive frames to an ``.npz`` file, in one step."""
    _write(path, _columns(frames))


def read_instances(path: Path) -> tuple[Instances, ...]:
    """Read what `write_instances` wrote."""
    with np.load(path) as data:
        return tuple(_frames(data))


def write_tracks(
    path: Path, frames: SequenceOf[TrackedInstances], update_ms: NDArray[np.float32],
) -> None:
    """Write tracks (boxes, masks, ids, states, similarities) and times to an ``.npz`` file."""
    slim = [frame.with_fields(embeddings=None) for frame in frames]
    columns = _columns(slim)
    for name, kind in _TRACK_COLUMNS.items():
        columns[name] = np.concatenate([getattr(frame, name) for frame in frames]
                                       or [np.zeros(0, kind)]).astype(kind)
    _write(path, {**columns, 'update_ms': update_ms})


def read_tracks(path: Path) -> tuple[list[TrackedInstances], NDArray[np.float32]]:
    """Read what `write_tracks` wrote; UUIDs and times of life are not kept."""
    with np.load(path) as data:
        ends = np.cumsum(data['count'])[:-1]
        columns = {name: np.split(data[name], ends) for name in _TRACK_COLUMNS}
        frames = [
            with_ids(objects, ids).with_fields(
                states=columns['states'][i], similarities=columns['similarities'][i],
                margins=columns['margins'][i])
            for i, (objects, ids) in enumerate(
                zip(_frames(data), columns['track_ids'], strict=True))]
        return frames, data['update_ms']


_TRACK_COLUMNS: dict[str, Any] = {
    'track_ids': np.int64, 'states': np.uint8, 'similarities': np.float32,
    'margins': np.float32}
_COLUMNS: dict[str, tuple[Any, tuple[int, ...]]] = {
    'boxes': (np.float32, (4,)), 'scores': (np.float32, ()), 'class_ids': (np.int64, ()),
    'flags': (np.uint8, ()), 'mask_qualities': (np.float32, ())}


def _columns(frames: SequenceOf[Instances]) -> dict[str, NDArray[Any]]:
    columns: dict[str, NDArray[Any]] = {
        'count': np.array([len(frame) for frame in frames], np.int64)}
    for name, (kind, shape) in _COLUMNS.items():
        columns[name] = np.concatenate(
            [getattr(frame, name) for frame in frames] + [np.zeros((0, *shape), kind)])
    columns['labels'] = np.array([label for frame in frames for label in frame.labels], str)
    described = [frame.embeddings for frame in frames if frame.embeddings is not None]
    columns['described'] = np.array([frame.embeddings is not None for frame in frames], bool)
    if described:
        columns['embeddings'] = np.concatenate(described)
    masks = [mask for frame in frames for mask in frame.masks]
    columns['masks'] = np.array(
        [(-1, 0, 0, 0, 0) if mask is None else
         (mask.x_offset, mask.y_offset, mask.height, mask.width, len(mask.counts))
         for mask in masks], np.int64).reshape(-1, 5)
    columns['masked'] = np.array([mask is not None for mask in masks], bool)
    columns['runs'] = np.concatenate(
        [mask.counts for mask in masks if mask is not None] + [np.zeros(0, np.uint32)])
    return columns


def _frames(data: Any) -> Iterator[Instances]:
    count = data['count']
    ends = np.cumsum(count)[:-1]
    columns = {name: np.split(data[name], ends) for name in _COLUMNS}
    labels = np.split(data['labels'], ends)
    runs = np.split(data['runs'], np.cumsum(data['masks'][:, 4])[:-1]) \
        if len(data['masks']) else []
    masks = [RoiMask(int(row[0]), int(row[1]), int(row[2]), int(row[3]), own)
             if masked else None
             for row, own, masked in zip(data['masks'], runs, data['masked'], strict=True)]
    described = data['described']
    embeddings: list[Any] = [None] * len(count)
    if described.any():
        parts = np.split(data['embeddings'], np.cumsum(count[described])[:-1])
        for position, part in zip(np.flatnonzero(described), parts, strict=True):
            embeddings[position] = part
    start = 0
    for i, size in enumerate(count):
        yield Instances(
            labels=tuple(str(label) for label in labels[i]),
            masks=tuple(masks[start:start + size]), embeddings=embeddings[i],
            **{name: columns[name][i] for name in _COLUMNS})
        start += size


def _write(path: Path, columns: dict[str, NDArray[Any]]) -> None:
    """Write beside the target and rename, so that a broken-off run leaves no half file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
            dir=path.parent, suffix='.part', delete=False) as temporary:
        np.savez_compressed(temporary, **columns)  # type: ignore[arg-type]
    Path(temporary.name).replace(path)


def _digest(*parts: str) -> str:
    return hashlib.sha256('\n'.join(parts).encode()).hexdigest()[:16]


def _file_name(*parts: str) -> str:
    text = '-'.join(parts)
    return ''.join(sign if sign.isalnum() or sign in '-_.' else '_' for sign in text)[:80]
