"""
Compare our tracker with the ones people use, on the same detections, in one run.

Writes a table to the terminal and, with --out, the figures with settings and versions to JSON.
Every baseline appears with its library's defaults and with settings tuned on these very
sequences (``tuned``), which flatters them; ours runs with its defaults.

    ./scripts/with_env python benchmarks/compare_trackers.py --sequences ../shared/data/sequences \
        --detector ../shared/data/models/yolox_nano.onnx --out benchmarks/compare_trackers.json

"""

from __future__ import annotations

import argparse
from importlib.metadata import version
import json
from pathlib import Path
import platform
import subprocess
from typing import Any

from masa_ros.cli.observers import baseline_tracker, Observation, observer, own_tracker
from masa_ros.detectors import DetectorConfig
from masa_ros.evaluation.benchmark import (
    Faults,
    ObserverSpec,
    Plan,
    read_tracks,
    Run,
    run_benchmark,
    TrackerSpec,
)
from masa_ros.evaluation.datasets.motchallenge import read_sequence
from masa_ros.evaluation.datasets.sequence import Sequence
from masa_ros.evaluation.moments import recoveries
from masa_ros.evaluation.scores import combine
from masa_ros.models import CATALOG, ModelConfig
from masa_ros.tracking.tracker import TrackerConfig
import numpy as np

PERSONS, VEHICLES = ('person',), ('car', 'bus', 'truck')
LONG_S = 1.0
COLUMNS = ('HOTA', 'AssA', 'DetA', 'IDF1', 'MOTA')

# Best mean HOTA over both sources and strides 1, 5, 10 of a grid of 16 to 64 settings each, with
# the `classical` model's masks; the grid is in docs/evaluation.md.
TUNED: dict[str, dict[str, Any]] = {
    'sort': {'track_activation_threshold': 0.5, 'minimum_consecutive_frames': 2,
             'minimum_iou_threshold': 0.15},
    'bytetrack': {'track_activation_threshold': 0.7, 'high_conf_det_threshold': 0.4,
                  'minimum_consecutive_frames': 2, 'minimum_iou_threshold': 0.1},
    'ocsort': {'high_conf_det_threshold': 0.5, 'minimum_consecutive_frames': 1,
               'minimum_iou_threshold': 0.05},
    'cbiou': {'track_activation_threshold': 0.5, 'high_conf_det_threshold': 0.6,
              'minimum_consecutive_frames': 2, 'minimum_iou_threshold_first_assoc': 0.2,
              'buffer_ratio_first': 0.6},
    'botsort': {'track_activation_threshold': 0.5, 'high_conf_det_threshold': 0.6,
                'minimum_consecutive_frames': 1, 'minimum_iou_threshold_first_assoc': 0.1},
    'iou': {'minimum_score': 0.6, 'minimum_iou': 0.3, 'memory_seconds': 1.0},
    'mask_iou': {'minimum_score': 0.6, 'minimum_iou': 0.15, 'memory_seconds': 1.0},
    'deepsort': {'max_cosine_distance': 0.4, 'gate': 1.0, 'memory_seconds': 3.0,
                 'minimum_score': 0.6, 'confirm_hits': 1},
}


def own_variants(model: ModelConfig) -> list[TrackerSpec]:
    """Ours with its defaults, then with each of its options."""
    return [own_tracker('ours', TrackerConfig()),
            own_tracker('ours, second look', TrackerConfig(second_look_seconds=1.0), model),
            own_tracker('ours, long memory', TrackerConfig(long_memory=8)),
            own_tracker('ours, camera motion', TrackerConfig(camera_motion='registration'))]


def trackers(names: list[str], model: ModelConfig) -> tuple[TrackerSpec, ...]:
    """Every baseline twice, then ours; the model is for its second looks."""
    specs = []
    for kind, options in TUNED.items():
        specs.append(baseline_tracker(kind, kind))
        specs.append(baseline_tracker(f'{kind}, tuned', kind, **options))
    specs += own_variants(model)
    return tuple(spec for spec in specs
                 if not names or spec.name.split(',')[0] in names)


def main() -> None:
    """Run and print."""
    arguments = parse()
    names = [name for name in arguments.trackers.split(',') if name]
    strides = tuple(int(stride) for stride in arguments.strides.split(','))
    rows = [row for model in arguments.models.split(',')
            for row in rows_of(arguments, ModelConfig(name=model), names, strides)]
    show(rows)
    if arguments.out:
        Path(arguments.out).write_text(json.dumps(
            {'about': about(), 'tuned': TUNED, 'rows': rows}, indent=1) + '\n')


def rows_of(
    arguments: argparse.Namespace, model: ModelConfig, names: list[str], strides: tuple[int, ...],
) -> list[dict[str, Any]]:
    """Run every tracker on what one model sees; second looks take the same model."""
    specs = trackers(names, model)
    runs: list[Run] = []
    sequences: dict[str, Sequence] = {}
    for classes, chosen in ((PERSONS, arguments.persons), (VEHICLES, arguments.vehicles)):
        own = [read_sequence(Path(arguments.sequences) / name)
               for name in chosen.split(',') if name]
        if not own:
            continue
        observers = observers_of(arguments, classes, model, all(one.detections for one in own))
        sequences |= {sequence.name: sequence for sequence in own}
        runs += run_benchmark(
            Plan(tuple(own), observers, specs, strides, (Faults(),), Path(arguments.cache)),
            progress=lambda what, done, count: print(f'[{done}/{count}] {what}', flush=True))
    observed = dict.fromkeys(run.observer for run in runs)
    return [row_of(runs, sequences, observer_name, stride, spec.name)
            for observer_name in observed for stride in strides for spec in specs]


def observers_of(
    arguments: argparse.Namespace, classes: tuple[str, ...], model: ModelConfig, published: bool,
) -> tuple[ObserverSpec, ...]:
    """Boxes of the truth, of the detector and published ones, with what the model adds to them."""
    detector = DetectorConfig(
        name='onnx', checkpoint=arguments.detector, class_file=arguments.class_file,
        classes=classes, score_threshold=0.1)
    sources = {'truth': 'truth'}
    if arguments.detector:
        sources[Path(arguments.detector).stem] = 'detector'
    if published:
        sources['published'] = 'given'
    wanted = arguments.sources.split(',')
    sources = {name: source for name, source in sources.items() if source in wanted}
    return tuple(observer(f'{name}, {model.name}', Observation(source, detector, model))
                 for name, source in sources.items())


def long_gaps(runs: list[Run], sequences: dict[str, Sequence]) -> dict[str, int]:
    """Objects seen again after more than a second, and how many of them with another id."""
    found = []
    for run in runs:
        sequence = sequences[run.sequence].subset(run.positions)
        frames, _ = read_tracks(run.tracks_file)
        found += [recovery for recovery in recoveries(sequence, frames)
                  if recovery.gap_s > LONG_S
                  and recovery.after.position > recovery.before.position + 1]
    return {'long_gaps': len(found),
            'switches_after': sum(recovery.switched for recovery in found)}


def row_of(
    runs: list[Run], sequences: dict[str, Sequence], observed: str, stride: int, tracker: str,
) -> dict[str, Any]:
    """Figures of one tracker over all sequences."""
    chosen = [run for run in runs
              if (run.observer, run.stride, run.tracker) == (observed, stride, tracker)]
    table = combine([run.score for run in chosen if run.score is not None]).table()
    return {
        'detections': observed, 'stride': stride, 'tracker': tracker,
        **{name: round(value, 4) for name, value in table.items()},
        **long_gaps(chosen, sequences),
        'update_ms': round(float(np.median(np.concatenate(
            [run.update_ms for run in chosen]))), 3),
        'HOTA_of': {run.sequence: round(run.score.table()['HOTA'], 4)
                    for run in chosen if run.score is not None}}


def show(rows: list[dict[str, Any]]) -> None:
    """Print the rows, one block for each source and stride."""
    block: tuple[str, int] | None = None
    for row in rows:
        if (row['detections'], row['stride']) != block:
            block = (row['detections'], row['stride'])
            print(f'\n{block[0]}, stride {block[1]}\n{"":18s}'
                  + ''.join(f'{name:>7s}' for name in (*COLUMNS, 'IDSW', 'ids', 'of', 'FP',
                                                       'FN', '>1 s', 'lost', 'ms'))
                  + '   HOTA of each sequence')
        print(f'{row["tracker"]:18s}' + ''.join(f'{row[name]:7.3f}' for name in COLUMNS)
              + ''.join(f'{row[name]:7.0f}' for name in (
                  'IDSW', 'num_ids', 'num_gt_ids', 'FP', 'FN', 'long_gaps', 'switches_after'))
              + f'{row["update_ms"]:7.2f}   '
              + ' '.join(f'{value:.3f}' for value in row['HOTA_of'].values()))


def about() -> dict[str, str]:
    """Describe what ran: commit, machine, versions."""
    commit = subprocess.run(['git', 'rev-parse', '--short', 'HEAD'], capture_output=True,
                            text=True, check=False).stdout.strip()
    return {'commit': commit, 'python': platform.python_version(),
            'machine': platform.machine(),
            **{name: version(name) for name in ('trackers', 'trackeval', 'numpy')}}


def parse() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).strip().split('\n')[0])
    parser.add_argument('--sequences', required=True, help='folder of MOTChallenge sequences')
    parser.add_argument('--persons', default='TUD-Campus,ETH-Sunnyday-a', metavar='NAMES',
                        help='sequences whose truth is of persons, comma separated')
    parser.add_argument('--vehicles', default='kitti_drive_0052', metavar='NAMES',
                        help='sequences whose truth is of vehicles')
    parser.add_argument('--detector', default='', help='ONNX detector; without it only the '
                                                       'boxes of the truth are used')
    parser.add_argument('--sources', default='truth,detector,given',
                        help='where boxes come from; given are those published with a sequence')
    parser.add_argument('--class-file', default='', help='class names of the detector')
    parser.add_argument('--models', default='classical',
                        help=f'embedding models, comma separated: {", ".join(CATALOG)}')
    parser.add_argument('--trackers', default='', help='only these, comma separated')
    parser.add_argument('--strides', default='1,5,10')
    parser.add_argument('--cache', default='runs/compare_trackers')
    parser.add_argument('--out', default='', help='JSON file for the figures')
    return parser.parse_args()


if __name__ == '__main__':
    main()
