"""
Score masks, proposals and speed of a model on the development data.

Masks: mean IoU with the COCO polygons of held-out photos and the DAVIS masks, given boxes.
Proposals: average recall of the best 100 over IoU 0.5 to 0.95 (AR100) on held-out photos of
BSDS500 (every segment) and COCO (every polygon). Speed: median time of a 640 x 480 frame with 32
boxes.

    python benchmarks/tiny_model.py --data ../shared/data --held-out runs/corpus_val \
        --models classical,tiny --out benchmarks/tiny_model.json

"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
import time
from typing import Any

import cv2
from masa_ros.models import build_model, ModelConfig
from masa_ros.models.model import Model
from masa_ros.sources import read_image
from masa_ros.structures.boxes import pairwise_iou
from masa_ros.structures.instances import Instances
from masa_ros.training.corpus import Corpus, LabelledImage
import numpy as np
from numpy.typing import NDArray

DAVIS = ('davis_car-roundabout', 'davis_horsejump-high')
THRESHOLDS = np.linspace(0.5, 0.95, 10)


def main() -> None:
    """Score and print."""
    parser = argparse.ArgumentParser(description=str(__doc__).strip().split('\n')[0])
    parser.add_argument('--data', type=Path, required=True)
    parser.add_argument('--held-out', type=Path, required=True, help='corpus of held-out photos')
    parser.add_argument('--models', default='classical,tiny', help='NAME or NAME:CHECKPOINT')
    parser.add_argument('--noise', type=float, default=0.0,
                        help='standard deviation of box noise, part of a side')
    parser.add_argument('--out', type=Path)
    arguments = parser.parse_args()
    photos = Corpus(arguments.held_out)
    items = [photos[i] for i in range(len(photos))]
    rows = {}
    for entry in arguments.models.split(','):
        name, _, checkpoint = entry.partition(':')
        model = build_model(ModelConfig(
            name=name, checkpoint=checkpoint, proposal_score=0.0, max_proposals=100))
        rows[entry] = score(model, items, arguments.data, arguments.noise)
        rows[entry]['weights'] = model.weights.summary()
        print(entry, json.dumps(rows[entry], indent=1), flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps(rows, indent=1) + '\n')


def score(
    model: Model, items: list[LabelledImage], data: Path, noise: float,
) -> dict[str, Any]:
    """All figures of one model."""
    polygons = [item for item in items if item.source == 'coco128train']
    row: dict[str, Any] = {
        'coco_mask_iou': mean(np.concatenate([mask_ious(model, i, noise) for i in polygons]))}
    for name in DAVIS:
        row[f'{name}_mask_iou'] = mean(np.concatenate([
            mask_ious(model, item, noise) for item in davis(data / 'sequences' / name)]))
    if model.can_propose:
        for source in ('bsds500', 'coco128train'):
            row[f'{source}_ar100'] = mean(np.concatenate([
                recalls(model, item) for item in items if item.source == source]))
    row['ms_640x480_32_boxes'] = frame_time_ms(model)
    return row


def mask_ious(model: Model, item: LabelledImage, noise: float) -> NDArray[np.float64]:
    """IoU of each mask of an image, given its box."""
    height, width = item.image.shape[:2]
    sides = np.tile(item.boxes[:, 2:] - item.boxes[:, :2], 2)
    rng = np.random.default_rng(len(item.boxes))
    boxes = item.boxes + rng.normal(0, 1, item.boxes.shape).astype(np.float32) * sides * noise
    found = model.run([item.image], [Instances.from_boxes(boxes)])[0]
    values = []
    for mask, truth in zip(found.masks, item.masks, strict=True):
        if truth is None:
            continue
        wanted = truth.paste(height, width)
        got = np.zeros_like(wanted) if mask is None else mask.paste(height, width)
        values.append((wanted & got).sum() / max((wanted | got).sum(), 1))
    return np.array(values, np.float64)


def recalls(model: Model, item: LabelledImage) -> NDArray[np.float64]:
    """Part of the IoU thresholds at which each labelled box is found."""
    found = model.run([item.image], [None])[0]
    best = pairwise_iou(item.boxes, found.boxes).max(1, initial=0)
    return np.asarray((best[:, None] >= THRESHOLDS).mean(1))


def davis(folder: Path) -> list[LabelledImage]:
    """Every fifth frame with its object."""
    from masa_ros.training.labels import segment_map

    items = []
    for path in sorted((folder / 'img1').glob('*.jpg'))[::5]:
        mask = cv2.imread(str(folder / f'mask/{path.stem}.png'), cv2.IMREAD_GRAYSCALE)
        if mask is not None and mask.any():
            items.append(segment_map(path.stem, 'davis', read_image(path),
                                     (mask > 127).astype(np.uint8), 0.0, False))
    return items


def frame_time_ms(model: Model, frames: int = 15) -> float:
    """Median wall time of a frame of noise with 32 boxes."""
    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.integers(0, 256, (480, 640, 3)).astype(np.uint8), (0, 0), 3)
    corner = rng.uniform(0, 300, (32, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(30, 180, (32, 2))], 1)
    given = Instances.from_boxes(boxes)
    model.warm_up()
    times = []
    for _ in range(frames):
        started = time.perf_counter()
        model.run([np.asarray(image, np.uint8)], [given])
        times.append(1e3 * (time.perf_counter() - started))
    return round(float(np.median(times)), 1)


def mean(values: NDArray[np.float64]) -> float:
    """Mean, rounded for a table."""
    return round(float(values.mean()), 4)


if __name__ == '__main__':
    main()
