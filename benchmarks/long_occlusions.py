"""
Compare trackers where objects vanish for more than a second: rendered streets full of trees.

Short real sequences hold almost no long occlusion, so streets are rendered with many objects
behind many trees, lamps and vehicles; the truth about who is behind what is exact. The simulated
detector misses, jitters and invents boxes. Embeddings are measured on the rendered pixels.

    ./scripts/with_env python benchmarks/long_occlusions.py --out benchmarks/long_occlusions.json

"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from compare_trackers import about, own_variants, row_of, show, TUNED
import cv2
from masa_ros.cli.observers import baseline_tracker, Observation, observer
from masa_ros.detectors import DetectorConfig
from masa_ros.evaluation.benchmark import (
    Faults,
    Plan,
    read_instances,
    read_tracks,
    run_benchmark,
    TrackerSpec,
    write_instances,
    write_tracks,
)
from masa_ros.evaluation.datasets.sequence import regular_stamps_ns, Sequence, with_ids
from masa_ros.models import ModelConfig
from masa_ros.rendering.detections import imperfect_detections
from masa_ros.rendering.scene import GroundTruth, Scene, SceneConfig
from masa_ros.structures.instances import Instances, TrackedInstances
import numpy as np

RATE_HZ = 10.0
VIEWS = ('across', 'corner', 'high', 'street')
LEAST_VISIBILITY = 0.15


def street(seed: int, folder: Path, duration_s: float) -> Sequence:
    """Render a street, or read the one that was rendered before."""
    config = SceneConfig(duration_s=duration_s, num_objects=45, num_props=40,
                         view=VIEWS[seed % len(VIEWS)])
    count = round(duration_s * RATE_HZ)
    own = folder / f'street_{seed:03d}'
    paths = tuple(own / f'{index:06d}.jpg' for index in range(count))
    if not (own / 'truth.npz').is_file():
        own.mkdir(parents=True, exist_ok=True)
        scene, truth, found = Scene(seed, config), [], []
        for index, path in enumerate(paths):
            frame = scene.render(index / RATE_HZ)
            cv2.imwrite(str(path), frame.image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
            truth.append(visible(frame.truth))
            found.append(imperfect_detections(
                frame.truth, index, config.height_px, config.width_px, seed))
        write_instances(own / 'detections.npz', found)
        write_tracks(own / 'truth.npz', truth, np.zeros(0, np.float32))
    indices = np.arange(count)
    return Sequence(
        own.name, indices, regular_stamps_ns(indices, RATE_HZ), RATE_HZ, paths,
        config.height_px, config.width_px, truth=tuple(read_tracks(own / 'truth.npz')[0]),
        detections=read_instances(own / 'detections.npz'))


def visible(truth: GroundTruth) -> TrackedInstances:
    """Objects that can be seen at all, by their visible boxes."""
    rows = np.flatnonzero(truth.visibilities >= LEAST_VISIBILITY)
    return with_ids(Instances.from_boxes(truth.visible_boxes[rows],
                                         class_ids=truth.class_ids[rows]), truth.track_ids[rows])


def hidden_seconds(sequences: list[Sequence]) -> list[float]:
    """Lengths of all times between two sightings, where they are over a second."""
    found = []
    for sequence in sequences:
        last: dict[int, int] = {}
        for frame, stamp in zip(sequence.truth, sequence.stamps_ns.tolist(), strict=True):
            for track_id in frame.track_ids.tolist():
                gap_s = (stamp - last.get(track_id, stamp)) * 1e-9
                found += [round(gap_s, 1)] if gap_s > 1 else []
                last[track_id] = stamp
    return found


def trackers(model: ModelConfig, names: list[str]) -> tuple[TrackerSpec, ...]:
    """Baselines with the settings tuned for compare_trackers, and ours with its options."""
    baselines = [baseline_tracker(kind, kind, **options) for kind, options in TUNED.items()
                 if kind != 'mask_iou']
    return tuple(spec for spec in (*baselines, *own_variants(model))
                 if not names or spec.name in names)


def main() -> None:
    """Render, run, print."""
    arguments = parse()
    folder = Path(arguments.folder)
    sequences = [street(arguments.first_seed + index, folder / 'streets', arguments.duration)
                 for index in range(arguments.streets)]
    gaps_s = hidden_seconds(sequences)
    print(f'{len(sequences)} streets of {arguments.duration:g} s, {len(gaps_s)} times that an '
          f'object was hidden for more than a second (median {np.median(gaps_s or [0]):.1f} s)')
    strides = tuple(int(stride) for stride in arguments.strides.split(','))
    model = ModelConfig(name=arguments.model)
    observed = observer(f'simulated detector, {arguments.model}',
                        Observation('given', DetectorConfig(), model))
    specs = trackers(model, [name for name in arguments.trackers.split('|') if name])
    runs = run_benchmark(
        Plan(tuple(sequences), (observed,), specs, strides, (Faults(),), folder / 'cache'),
        progress=lambda what, done, count: print(f'[{done}/{count}] {what}', flush=True))
    named = {sequence.name: sequence for sequence in sequences}
    rows = [row_of(runs, named, observed.name, stride, spec.name)
            for stride in strides for spec in specs]
    show(rows)
    if arguments.out:
        result: dict[str, Any] = {
            'about': about(), 'streets': len(sequences), 'first_seed': arguments.first_seed,
            'seconds_each': arguments.duration, 'hidden_s': sorted(gaps_s), 'rows': rows}
        Path(arguments.out).write_text(json.dumps(result, indent=1) + '\n')


def parse() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).strip().split('\n')[0])
    parser.add_argument('--streets', type=int, default=12)
    parser.add_argument('--first-seed', type=int, default=100)
    parser.add_argument('--duration', type=float, default=20.0, help='seconds of each')
    parser.add_argument('--strides', default='1,5,10')
    parser.add_argument('--model', default='classical')
    parser.add_argument('--trackers', default='', help='only these, separated by |')
    parser.add_argument('--folder', default='runs/long_occlusions')
    parser.add_argument('--out', default='', help='JSON file for the figures')
    return parser.parse_args()


if __name__ == '__main__':
    main()
