"""
How often an embedding finds its object again among all boxes of a later frame.

A tracker's scores rest on a few dozen objects and jump with single matches; this asks thousands of
times: is the most similar box, 4, 10 and 20 frames later or earlier, of the same object? Boxes are
those of the truth, or a detector's above 0.4, matched to the truth at IoU 0.5; those that match
nothing compete too, and being similar to one of them is wrong.

    ./scripts/with_env python benchmarks/embedding_retrieval.py --data ../shared/data \
        --sequences OTHER/TUD-Stadtmitte OTHER/ETH-Sunnyday-b \
        --out benchmarks/embedding_retrieval.json

"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from masa_ros.cli.observers import Observation
from masa_ros.detectors import DetectorConfig
from masa_ros.evaluation.datasets.motchallenge import read_sequence
from masa_ros.evaluation.datasets.sequence import Sequence
from masa_ros.models import ModelConfig
from masa_ros.structures.boxes import pairwise_iou
from masa_ros.structures.instances import Instances, TrackedInstances
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

KNOWN = {('person',): ('TUD-Campus', 'ETH-Sunnyday-a'),
         ('car', 'bus', 'truck'): ('kitti_drive_0052',)}
LAGS, STEP = (4, 10, 20), 2
LEARNED = 256
"""The first numbers of an embedding of `tiny` are learned, the rest is measured."""
Seen = list[tuple[NDArray[np.int64], NDArray[np.float32]]]
"""Identities (-1 for none) and embeddings of each frame."""


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=str(__doc__).strip().split('\n')[0])
    parser.add_argument('--data', type=Path, required=True)
    parser.add_argument('--sequences', type=Path, nargs='*', default=[],
                        help='more folders of persons in the form of MOTChallenge')
    parser.add_argument('--checkpoint', default='', help='other weights of tiny')
    parser.add_argument('--out', type=Path)
    arguments = parser.parse_args()
    models = {'classical': ModelConfig(name='classical', max_masks=100),
              'tiny': ModelConfig(name='tiny', max_masks=0, checkpoint=arguments.checkpoint)}
    rows: list[dict[str, Any]] = []
    for classes, names in KNOWN.items():
        folders = [arguments.data / 'sequences' / name for name in names]
        folders += arguments.sequences if classes == ('person',) else []
        detector = DetectorConfig(
            name='onnx', checkpoint=str(arguments.data / 'models/yolox_nano.onnx'),
            class_file=str(arguments.data / 'models/coco80.txt'), classes=classes,
            score_threshold=0.4)
        for folder in folders:
            whole = read_sequence(folder)
            sequence = whole.subset(np.arange(0, len(whole), STEP))
            for source in ('truth', 'detector'):
                for name, model in models.items():
                    found = Observation(source, detector, model)(sequence)
                    rows += scores(sequence, source, name, list(found))
    show(rows)
    if arguments.out:
        arguments.out.write_text(json.dumps(rows, indent=1) + '\n')


def scores(
    sequence: Sequence, source: str, name: str, found: list[Instances],
) -> list[dict[str, Any]]:
    """Rows of one model on one sequence: all of its embedding, and its parts."""
    parts = {name: slice(None)}
    if name == 'tiny':
        parts |= {'tiny, learned part': slice(LEARNED),
                  'tiny, measured part': slice(LEARNED, None)}
    rows = []
    for part, columns in parts.items():
        seen = [(identities(truth, objects), embeddings_of(objects)[:, columns])
                for truth, objects in zip(sequence.truth, found, strict=True)]
        for lag in LAGS:
            hits, asked = retrieved(seen, lag // STEP)
            rows.append({'sequence': sequence.name, 'boxes': source, 'embedding': part,
                         'lag': lag, 'asked': asked, 'found': round(hits / max(asked, 1), 4)})
    return rows


def embeddings_of(objects: Instances) -> NDArray[np.float32]:
    """Embeddings ``(N, D)``."""
    if objects.embeddings is None:
        raise RuntimeError('the model gave no embeddings')
    return np.asarray(objects.embeddings, np.float32)


def identities(truth: TrackedInstances, objects: Instances) -> NDArray[np.int64]:
    """``(N,)`` id of the true object that each box shows, -1 for none."""
    ids = np.full(len(objects), -1, np.int64)
    overlaps = pairwise_iou(objects.boxes, truth.boxes)
    rows, columns = linear_sum_assignment(-overlaps)
    matched = overlaps[rows, columns] > 0.5
    ids[rows[matched]] = truth.track_ids[columns[matched]]
    return ids


def retrieved(seen: Seen, frames: int) -> tuple[int, int]:
    """Count objects that find themselves so many frames apart, both ways, and all that could."""
    hits = asked = 0
    for (ids, looks), (later_ids, later_looks) in zip(seen, seen[frames:], strict=False):
        if len(ids) < 2 or len(later_ids) < 2:
            continue
        alike = looks @ later_looks.T
        for own, other, table in ((ids, later_ids, alike), (later_ids, ids, alike.T)):
            can = (own >= 0) & np.isin(own, other)
            hits += int((other[table.argmax(1)] == own)[can].sum())
            asked += int(can.sum())
    return hits, asked


def show(rows: list[dict[str, Any]]) -> None:
    """Print means over the sequences."""
    for source in ('truth', 'detector'):
        for name in dict.fromkeys(row['embedding'] for row in rows):
            of = [[row['found'] for row in rows if (row['boxes'], row['embedding'], row['lag'])
                   == (source, name, lag)] for lag in LAGS]
            print(f'{source:9s} {name:20s}' + '  '.join(
                f'{lag:2d} frames {np.mean(values):.3f}'
                for lag, values in zip(LAGS, of, strict=True)))


if __name__ == '__main__':
    main()
