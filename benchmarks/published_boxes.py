"""
Compare trackers on boxes alone over whole published data sets: annotations are enough.

KITTI tracking, MOTChallenge and BDD100K publish who is who in small files; their images, many
gigabytes, are not needed where no tracker looks at pixels. The annotations of all of them are in
TrackEval's example data. Ours runs without embeddings, the baselines as `compare_trackers.py` has
them: with their library's defaults and tuned (on other sequences; BoT-SORT, DeepSORT-like and
mask-IoU need pixels and are left out).

    ./scripts/with_env python benchmarks/published_boxes.py \
        --data kitti=DATA/gt/kitti/kitti_2d_box_train --out kitti.json
    ... --data motchallenge=DATA/gt/mot_challenge/MOT17-train --names FRCNN --truth
    ... --data motchallenge=DATA/gt/mot_challenge/MOT15-train --truth
    ... --data motchallenge=DATA/gt/mot_challenge/MOT15-train
    ... --data bdd_mot=BDD100K --given DATA/trackers/bdd100k/bdd100k_val/qdtrack/data --every 4

``published_boxes.json`` holds the rows of these five runs.

"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from compare_trackers import about, row_of, show, TUNED
from masa_ros.cli.observers import baseline_tracker, Observation, observer, own_tracker
from masa_ros.detectors import DetectorConfig
from masa_ros.evaluation.benchmark import Faults, Plan, run_benchmark, TrackerSpec
from masa_ros.evaluation.datasets import DATASETS, read_dataset
from masa_ros.evaluation.datasets.given_detections import give
from masa_ros.evaluation.datasets.sequence import Sequence, sized_by_boxes
from masa_ros.tracking.tracker import TrackerConfig

BASELINES = ('sort', 'bytetrack', 'ocsort', 'cbiou', 'iou')


def main() -> None:
    """Run and print."""
    arguments = parse()
    strides = tuple(int(stride) for stride in arguments.strides.split(','))
    rows: list[dict[str, Any]] = []
    for entry in arguments.data:
        name, _, folder = entry.partition('=')
        rows += rows_of(arguments, name, Path(folder), strides)
    show(rows)
    if arguments.out:
        Path(arguments.out).write_text(json.dumps(
            {'about': about(), 'rows': [
                {key: value for key, value in row.items() if key != 'HOTA_of'}
                for row in rows]}, indent=1) + '\n')


def rows_of(
    arguments: argparse.Namespace, name: str, folder: Path, strides: tuple[int, ...],
) -> list[dict[str, Any]]:
    """Figures of every tracker over one data set."""
    sequences = chosen(arguments, name, folder)
    source = 'given' if sequences[0].detections and not arguments.truth else 'truth'
    seen = observer(f'{name} {folder.name}, {source}',
                    Observation(source, DetectorConfig(), None))
    specs = trackers()
    runs = run_benchmark(
        Plan(tuple(sequences), (seen,), specs, strides, (Faults(),), Path(arguments.cache)),
        workers=arguments.workers,
        progress=lambda what, done, count: print(f'[{done}/{count}] {what}', flush=True))
    by_name = {sequence.name: sequence for sequence in sequences}
    frames, boxes = sum(map(len, sequences)), sum(
        len(truth) for sequence in sequences for truth in sequence.truth)
    return [{**row_of(runs, by_name, seen.name, stride, spec.name), 'sequences': len(sequences),
             'frames': frames, 'boxes': boxes} for stride in strides for spec in specs]


def chosen(arguments: argparse.Namespace, name: str, folder: Path) -> list[Sequence]:
    """Sequences that were asked for, with their boxes."""
    sequences = [sequence for sequence in read_dataset(name, folder, images=False)
                 if arguments.names in sequence.name][::arguments.every]
    if arguments.given:
        sequences = give(sequences, arguments.given)
    elif any(sequence.detections for sequence in sequences) and not arguments.truth:
        sequences = [sequence for sequence in sequences if sequence.detections]
    return [sized_by_boxes(sequence) for sequence in sequences]


def trackers() -> tuple[TrackerSpec, ...]:
    """Every baseline that looks at boxes, twice, then ours."""
    specs = []
    for kind in BASELINES:
        specs.append(baseline_tracker(kind, kind))
        specs.append(baseline_tracker(f'{kind}, tuned', kind, **TUNED[kind]))
    return (*specs, own_tracker('ours', TrackerConfig()))


def parse() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).strip().split('\n')[0])
    parser.add_argument('--data', action='append', required=True, metavar='DATASET=FOLDER',
                        help=f'data set ({", ".join(DATASETS)}) and its folder; may be repeated')
    parser.add_argument('--given', type=Path, help='published detections for it')
    parser.add_argument('--truth', action='store_true', help='boxes of the truth, even where '
                        'detections come with the data')
    parser.add_argument('--names', default='', help='only sequences whose name contains this')
    parser.add_argument('--every', type=int, default=1, help='every n-th sequence')
    parser.add_argument('--strides', default='1,5,10')
    parser.add_argument('--workers', type=int, default=1)
    parser.add_argument('--cache', default='runs/published_boxes')
    parser.add_argument('--out', default='', help='JSON file for the figures')
    return parser.parse_args()


if __name__ == '__main__':
    main()
