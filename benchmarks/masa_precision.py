"""
Say how far reduced precision and compilation move a variant's results from float32's.

Given boxes on one photo: cosine and relative difference of the embeddings, and for the SAM
variants IoU of the masks and difference of their predicted quality. Seeded weights are made when
no file is given; they are a hard case, because nothing in them is trained to be robust.

    ./scripts/with_env python benchmarks/masa_precision.py --variant r50 --image PHOTO \
        --out benchmarks/masa_precision_r50.json

"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
import sys
import tempfile
from typing import Any

from masa_ros.models.masa import load
from masa_ros.models.seeding import write
from masa_ros.models.variants import find_variant
from masa_ros.sources import read_image
from masa_ros.structures.instances import Instances
import numpy as np
from numpy.typing import NDArray

OPTIONS: dict[str, dict[str, Any]] = {
    'bfloat16': {'precision': 'bfloat16'}, 'float16': {'precision': 'float16'},
    'compile': {'compile': True}, 'bfloat16, compile': {'precision': 'bfloat16', 'compile': True},
}


def grid_of_boxes(height: int, width: int) -> NDArray[np.float32]:
    """Boxes of five sizes all over the image."""
    random = np.random.default_rng(0)
    sides = np.repeat([0.08, 0.15, 0.3, 0.5, 0.9], 8) * min(height, width)
    corners = random.uniform(0, 1, (40, 2)) * (
        np.array([width, height]) - sides[:, None])
    return np.concatenate((corners, corners + sides[:, None]), axis=1).astype(np.float32)


def compared(result: Instances, exact: Instances) -> dict[str, float]:
    """Differences of one result from the exact one."""
    assert result.embeddings is not None
    assert exact.embeddings is not None
    one, two = result.embeddings.astype(float), exact.embeddings.astype(float)
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1)
    cosines = (one * two).sum(axis=1) / lengths
    figures = {
        'embedding_cosine_mean': cosines.mean(), 'embedding_cosine_min': cosines.min(),
        'embedding_relative_difference': np.abs(one - two).max() / np.abs(two).max()}
    ious = []
    for mask, other in zip(result.masks, exact.masks, strict=True):
        if mask is not None and other is not None:
            first, second = mask.decode(), other.decode()
            union = (first | second).sum()
            ious.append((first & second).sum() / union if union else 1.0)
    if ious:
        figures['mask_iou_mean'] = float(np.mean(ious))
        figures['mask_quality_difference'] = float(
            np.abs(result.mask_qualities - exact.mask_qualities).max())
    return {name: float(f'{value:.3g}') if value < 0.9 else round(float(value), 5)
            for name, value in figures.items()}


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=str(__doc__).strip().split('\n')[0])
    parser.add_argument('--variant', default='r50')
    parser.add_argument('--masa', help='weights file; seeded weights when missing')
    parser.add_argument('--image', type=Path, required=True)
    parser.add_argument('--device', default='auto')
    parser.add_argument('--options', nargs='*', default=list(OPTIONS), choices=list(OPTIONS))
    parser.add_argument('--out', type=Path)
    arguments = parser.parse_args()
    image = read_image(arguments.image)
    given = Instances.from_boxes(grid_of_boxes(*image.shape[:2]))
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.masa or write(
            find_variant(arguments.variant).model, Path(folder) / 'seeded.pth')
        exact = None
        for name in ('float32', *arguments.options):
            model = load(arguments.variant, masa=path, device=arguments.device,
                         **OPTIONS.get(name, {}))
            result = model.run([image], [given])[0]
            exact = result if exact is None else exact
            results[name] = compared(result, exact)
            print(name, json.dumps(results[name]), flush=True)
            weights, device = model.weights.summary(), model.device
            model.close()
    if arguments.out:
        command = ' '.join(
            ['./scripts/with_env', 'python', 'benchmarks/masa_precision.py', *sys.argv[1:]])
        arguments.out.write_text(json.dumps(
            {'command': command, 'variant': arguments.variant, 'device': device,
             'weights': weights, 'results': results}, indent=1) + '\n')


if __name__ == '__main__':
    main()
