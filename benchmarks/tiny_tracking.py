"""
Compare what embeddings are worth: classical, tiny before and after training, and ByteTrack.

The same boxes for all: those of the truth and of a detector, every frame, every 5th and every
10th. ``ours`` is the tracker with its defaults, ``appearance`` the reference's benchmark settings,
which look at nothing but embeddings; ByteTrack looks at nothing but boxes.

    ./scripts/with_env python benchmarks/tiny_tracking.py --data ../shared/data \
        --untrained runs/untrained.pt --out benchmarks/tiny_tracking.json

Other sequences in the form of MOTChallenge, of persons unless ``--classes`` says otherwise, take
the place of the three with ``--sequences FOLDER ...``.

"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from masa_ros.cli.observers import baseline_tracker, Observation, observer, own_tracker
from masa_ros.detectors import DetectorConfig
from masa_ros.evaluation.benchmark import Faults, Plan, Run, run_benchmark, TrackerSpec
from masa_ros.evaluation.datasets.motchallenge import read_sequence
from masa_ros.evaluation.scores import combine
from masa_ros.models import ModelConfig
from masa_ros.tracking.presets import PRESETS
from masa_ros.tracking.tracker import TrackerConfig

SEQUENCES = {('person',): ('TUD-Campus', 'ETH-Sunnyday-a'),
             ('car', 'bus', 'truck'): ('kitti_drive_0052',)}
STRIDES = (1, 5, 10)
COLUMNS = ('HOTA', 'AssA', 'IDF1', 'IDSW')


def trackers() -> tuple[TrackerSpec, ...]:
    """Ours, ours without motion, ByteTrack."""
    return (own_tracker('ours', TrackerConfig()),
            own_tracker('appearance', TrackerConfig(**PRESETS['tao_bench'])),
            baseline_tracker('bytetrack', 'bytetrack'))


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=str(__doc__).strip().split('\n')[0])
    parser.add_argument('--data', type=Path, required=True)
    parser.add_argument('--sequences', type=Path, nargs='+', default=[],
                        help='folders to track instead of those of the data')
    parser.add_argument('--classes', nargs='+', default=['person'], help='of these folders')
    parser.add_argument('--untrained', default='', help='weights before training')
    parser.add_argument('--cache', type=Path, default=Path('runs/tiny_tracking'))
    parser.add_argument('--out', type=Path)
    arguments = parser.parse_args()
    models = {'classical': ModelConfig(name='classical', max_masks=100),
              'tiny': ModelConfig(name='tiny', max_masks=0)}
    if arguments.untrained:
        models['tiny untrained'] = ModelConfig(
            name='tiny', max_masks=0, checkpoint=arguments.untrained)
    runs: list[Run] = []
    names: list[str] = []
    chosen = {tuple(arguments.classes): tuple(arguments.sequences)} if arguments.sequences else {
        classes: tuple(arguments.data / 'sequences' / name for name in known)
        for classes, known in SEQUENCES.items()}
    for classes, sequences in chosen.items():
        detector = DetectorConfig(
            name='onnx', checkpoint=str(arguments.data / 'models/yolox_nano.onnx'),
            class_file=str(arguments.data / 'models/coco80.txt'), classes=classes,
            score_threshold=0.1)
        observers = tuple(
            observer(f'{source}, {name}', Observation(source, detector, model))
            for source in ('truth', 'detector') for name, model in models.items())
        names = [item.name for item in observers]
        runs += run_benchmark(Plan(
            tuple(read_sequence(folder) for folder in sequences),
            observers, trackers(), STRIDES, (Faults(),), arguments.cache),
            progress=lambda what, done, count: print(f'[{done}/{count}] {what}', flush=True))
    rows = [row_of(runs, name, stride, spec.name)
            for name in names for stride in STRIDES for spec in trackers()]
    for row in rows:
        print(f'{row["boxes, model"]:26s} every {row["stride"]:2d}  {row["tracker"]:11s}'
              + '  '.join(f'{name} {row[name]:6.3f}' for name in COLUMNS)
              + '  ' + ' '.join(f'{value:.3f}' for value in row['AssA_of'].values()))
    if arguments.out:
        arguments.out.write_text(json.dumps(rows, indent=1) + '\n')


def row_of(runs: list[Run], observed: str, stride: int, tracker: str) -> dict[str, Any]:
    """Figures of one tracker over all sequences."""
    chosen = [run for run in runs
              if (run.observer, run.stride, run.tracker) == (observed, stride, tracker)]
    table = combine([run.score for run in chosen if run.score is not None]).table()
    return {'boxes, model': observed, 'stride': stride, 'tracker': tracker,
            **{name: round(table[name], 4) for name in COLUMNS},
            'AssA_of': {run.sequence: round(run.score.table()['AssA'], 4)
                        for run in chosen if run.score is not None}}


if __name__ == '__main__':
    main()
