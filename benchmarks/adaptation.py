"""
What adaptation is worth: tracking a recording before and after learning from it.

Every sequence is adapted to by ``masa_ros adapt`` with its defaults (no label is read), then
tracked with the shipped weights and with the adapted ones: boxes of the truth and of a detector,
every frame, every 5th and every 10th. ``ours`` is the tracker with its defaults, ``appearance``
the reference's benchmark settings, which look at nothing but embeddings.

    ./scripts/with_env python benchmarks/adaptation.py --data ../shared/data \
        --sequences ../shared/data/sequences/TUD-Campus --out benchmarks/adaptation.json

"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
import subprocess
import sys
from typing import Any

from masa_ros.cli.observers import Observation, observer, own_tracker
from masa_ros.detectors import DetectorConfig
from masa_ros.evaluation.benchmark import Faults, Plan, run_benchmark
from masa_ros.evaluation.datasets.motchallenge import read_sequence
from masa_ros.models import ModelConfig
from masa_ros.tracking.presets import PRESETS
from masa_ros.tracking.tracker import TrackerConfig

STRIDES = (1, 5, 10)
COLUMNS = ('AssA', 'IDF1', 'IDSW')


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=str(__doc__).strip().split('\n')[0])
    parser.add_argument('--data', type=Path, required=True, help='for the detector')
    parser.add_argument('--sequences', type=Path, nargs='+', required=True,
                        help='folders in the form of MOTChallenge')
    parser.add_argument('--classes', nargs='+', default=['person'])
    parser.add_argument('--runs', type=Path, default=Path('runs/adaptation'))
    parser.add_argument('--out', type=Path)
    arguments = parser.parse_args()
    known = json.loads(arguments.out.read_text()) if arguments.out and arguments.out.is_file() \
        else []
    for sequence in arguments.sequences:
        found = measure(sequence, arguments)
        known = [row for row in known if row['sequence'] != sequence.name] + [found]
        print(json.dumps(found, indent=1), flush=True)
        if arguments.out:
            arguments.out.write_text(json.dumps(known, indent=1) + '\n')


def measure(sequence: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Adapt to one sequence and track it before and after."""
    place = arguments.runs / sequence.name
    done = subprocess.run(
        [sys.executable, '-m', 'masa_ros', 'adapt', str(sequence), '--out', str(place)],
        capture_output=True, text=True, check=False)
    adapted = place / 'adapted.pt'
    said = [line for line in done.stdout.splitlines() if line]
    if not adapted.is_file():
        return {'sequence': sequence.name, 'said': said + done.stderr.splitlines()[-1:]}
    detector = DetectorConfig(
        name='onnx', checkpoint=str(arguments.data / 'models/yolox_nano.onnx'),
        class_file=str(arguments.data / 'models/coco80.txt'), classes=tuple(arguments.classes),
        score_threshold=0.1)
    models = {'before': ModelConfig(name='tiny', max_masks=0),
              'after': ModelConfig(name='tiny', max_masks=0, checkpoint=str(adapted))}
    runs = run_benchmark(Plan(
        (read_sequence(sequence),),
        tuple(observer(f'{boxes}, {name}', Observation(boxes, detector, model))
              for boxes in ('truth', 'detector') for name, model in models.items()),
        (own_tracker('ours', TrackerConfig()),
         own_tracker('appearance', TrackerConfig(**PRESETS['tao_bench']))),
        STRIDES, (Faults(),), place / 'cache'))
    rows = []
    for run in runs:
        if run.score is not None:
            table = run.score.table()
            rows.append({'boxes, weights': run.observer, 'tracker': run.tracker,
                         'stride': run.stride,
                         **{name: round(table[name], 4) for name in COLUMNS}})
    return {'sequence': sequence.name, 'said': said, 'rows': rows}


if __name__ == '__main__':
    main()
