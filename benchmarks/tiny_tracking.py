"""
Compare what embeddings are worth: classical, tiny before and after training, and ByteTrack.

The same boxes for all: those of the truth and of a detector, every frame, every 5th and every
10th; once from the first frame and, since every 10th frame of a short sequence are few, together
over all frames to begin at (``over all starts``). ``ours`` is the tracker with its defaults,
``appearance`` the reference's benchmark settings, which look at nothing but embeddings; ByteTrack
looks at nothing but boxes. ``perfect`` knows who is who: it shows what is left to gain with these
boxes.

    ./scripts/with_env python benchmarks/tiny_tracking.py --data ../shared/data \
        --out benchmarks/tiny_tracking.json

Other sequences in the form of MOTChallenge, of persons unless ``--classes`` says otherwise, take
the place of the three with ``--sequences FOLDER ...``.

"""

from __future__ import annotations

import argparse
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass
from functools import partial
import json
from pathlib import Path
from typing import Any

from masa_ros.cli.observers import baseline_tracker, Observation, observer, own_tracker
from masa_ros.detectors import DetectorConfig
from masa_ros.evaluation.benchmark import (
    Faults,
    ObserverSpec,
    Plan,
    Run,
    run_benchmark,
    TrackerSpec,
)
from masa_ros.evaluation.datasets.motchallenge import read_sequence
from masa_ros.evaluation.datasets.sequence import Sequence
from masa_ros.evaluation.scores import combine
from masa_ros.models import ModelConfig
from masa_ros.models.tiny.network import TinyNetwork
from masa_ros.models.tiny.weights import save_weights
from masa_ros.structures.boxes import pairwise_iou
from masa_ros.structures.instances import Instances
from masa_ros.tracking.presets import PRESETS
from masa_ros.tracking.tracker import TrackerConfig
from masa_ros.training.initialize import load_yolox_nano
import numpy as np
from numpy.typing import NDArray
import torch

SEQUENCES = {('person',): ('TUD-Campus', 'ETH-Sunnyday-a'),
             ('car', 'bus', 'truck'): ('kitti_drive_0052',)}
STRIDES = (1, 5, 10)
COLUMNS = ('HOTA', 'AssA', 'IDF1', 'IDSW')


@dataclass(frozen=True)
class Perfect:
    """Embeddings that are equal for boxes of one object of the truth and for no others."""

    boxes: Observation
    size: int = 512
    least_iou: float = 0.3

    def __call__(self, sequence: Sequence) -> SequenceOf[Instances]:
        """Give each box of a sequence the vector of the object that it overlaps most."""
        draws = np.random.default_rng(0)
        known: dict[int, NDArray[np.float64]] = {}
        frames = []
        for found, truth in zip(self.boxes(sequence), sequence.truth, strict=True):
            vectors = draws.standard_normal((len(found), self.size))
            overlaps = pairwise_iou(found.boxes, truth.boxes)
            for row in np.flatnonzero((overlaps >= self.least_iou).any(1)):
                identity = int(truth.track_ids[overlaps[row].argmax()])
                vectors[row] = known.setdefault(identity, vectors[row])
            lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
            embeddings = np.asarray(4 * vectors / lengths, np.float32)
            frames.append(found.with_fields(embeddings=embeddings))
        return frames


def perfect(name: str, boxes: Observation) -> ObserverSpec:
    """Observer that knows who is who; kept as long as its boxes and its rule stay the same."""
    kept_for = f'{observer(name, boxes).fingerprint}, {Perfect(boxes)}'
    return ObserverSpec(name, kept_for, partial(Perfect, boxes))


def untrained(data: Path, folder: Path) -> str:
    """Write the network before training: the detector's layers, the heads from seed 0."""
    torch.manual_seed(0)
    network = TinyNetwork()
    load_yolox_nano(network, data / 'models/yolox_nano.onnx')
    save_weights(folder / 'untrained.pt', network, {}, trained=False)
    return str(folder / 'untrained.pt')


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
    parser.add_argument('--checkpoint', default='', help='other weights of tiny')
    parser.add_argument('--cache', type=Path, default=Path('runs/tiny_tracking'))
    parser.add_argument('--out', type=Path)
    arguments = parser.parse_args()
    models = {'classical': ModelConfig(name='classical', max_masks=100),
              'tiny': ModelConfig(name='tiny', max_masks=0, checkpoint=arguments.checkpoint),
              'tiny untrained': ModelConfig(
                  name='tiny', max_masks=0,
                  checkpoint=untrained(arguments.data, arguments.cache))}
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
        observers += tuple(
            perfect(f'{source}, perfect', Observation(source, detector, None))
            for source in ('truth', 'detector'))
        names = [item.name for item in observers]
        runs += run_benchmark(Plan(
            tuple(read_sequence(folder) for folder in sequences),
            observers, trackers(), STRIDES, (Faults(),), arguments.cache, every_start=True),
            progress=lambda what, done, count: print(f'[{done}/{count}] {what}', flush=True))
    rows = [row_of(runs, name, stride, spec.name)
            for name in names for stride in STRIDES for spec in trackers()]
    for row in rows:
        print(f'{row["boxes, model"]:26s} every {row["stride"]:2d}  {row["tracker"]:11s}'
              + '  '.join(f'{name} {row[name]:6.3f} ({row["over all starts"][name]:6.3f})'
                          for name in COLUMNS)
              + '  ' + ' '.join(f'{value:.3f}' for value in row['AssA_of'].values()))
    if arguments.out:
        arguments.out.write_text(json.dumps(rows, indent=1) + '\n')


def row_of(runs: list[Run], observed: str, stride: int, tracker: str) -> dict[str, Any]:
    """Figures of one tracker over all sequences."""
    chosen = [run for run in runs
              if (run.observer, run.stride, run.tracker) == (observed, stride, tracker)]
    return {'boxes, model': observed, 'stride': stride, 'tracker': tracker,
            **figures_of([run for run in chosen if run.first == 0]),
            'over all starts': figures_of(chosen)}


def figures_of(runs: list[Run]) -> dict[str, Any]:
    """Figures of some runs together, and AssA of each sequence."""
    scores = {name: combine([run.score for run in runs
                             if run.sequence == name and run.score is not None])
              for name in dict.fromkeys(run.sequence for run in runs)}
    table = combine(list(scores.values())).table()
    return {**{name: round(table[name], 4) for name in COLUMNS},
            'AssA_of': {name: round(score.table()['AssA'], 4) for name, score in scores.items()}}


if __name__ == '__main__':
    main()
