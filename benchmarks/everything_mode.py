"""
Time "segment everything": SAM's grid of points against boxes that prompt the decoder together.

All ways use the same SAM weights on the same image in the same run. Weights need not be trained
for the time of the networks, but random ones make other masks than trained ones, so the number of
masks that the filters keep is written beside each time: where the grid keeps none, its time is
without most of its own filtering and encoding, a lower bound.

    python benchmarks/everything_mode.py --checkpoint sam_vit_b_01ec64.pth --out result.json
    python benchmarks/everything_mode.py --seeded --points-per-side 8      # a quick look
    python benchmarks/everything_mode.py --checkpoint S.pth --masa sam_vitb_masa.pth

"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
import json
from pathlib import Path
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import cv2
from masa_ros.models import build_model, ModelConfig, seeding, weights
from masa_ros.models.model import Model
from masa_ros.models.sam.checkpoint import load_network
from masa_ros.models.sam.grid import GridSettings
from masa_ros.models.sam.model import SamModel
from masa_ros.structures.instances import Instances
import numpy as np
from numpy.typing import NDArray
from segment_anything import SamAutomaticMaskGenerator
import torch


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print a table and write JSON."""
    arguments = parse(argv)
    torch.set_num_threads(arguments.threads)
    image = read_image(arguments.image)
    with tempfile.TemporaryDirectory() as folder:
        config = configure(arguments, Path(folder))
        rows = measure(arguments, config, image)
        result = {**about(arguments, config, image), 'rows': rows}
    for row in rows:
        print(f'{row["way"]:<24} {row["median_s"]:9.3f} s  cpu {row["cpu_s"]:9.3f} s  '
              f'{row["masks"]:5d} masks')
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + '\n')
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument('--variant', default='sam_vit_b', help='SAM model')
    weights_from = parser.add_mutually_exclusive_group(required=True)
    weights_from.add_argument('--checkpoint', default='', help='SAM file')
    weights_from.add_argument('--seeded', action='store_true', help='random weights')
    parser.add_argument('--masa', default='', help='MASA file: also time its own proposals')
    parser.add_argument('--image', type=Path, help='picture (default: 720 x 1280 noise)')
    parser.add_argument('--boxes', type=int, nargs='+', default=[1, 16, 100], metavar='N')
    parser.add_argument('--points-per-side', type=int, default=32)
    parser.add_argument('--repeats', type=int, default=3, help='after one run to warm up')
    parser.add_argument('--device', default='auto')
    parser.add_argument('--precision', default='float32',
                        choices=('float32', 'bfloat16', 'float16'),
                        help='of the boxes; the grid is always in float32, as published')
    parser.add_argument('--compile', action='store_true')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    parser.add_argument('--out', type=Path, help='JSON file')
    return parser.parse_args(argv)


def read_image(path: Path | None) -> NDArray[np.uint8]:
    """Read a picture as RGB, or make noise."""
    if path is None:
        return np.random.default_rng(0).integers(0, 256, (720, 1280, 3), np.uint8)
    read = cv2.imread(str(path))
    if read is None:
        raise SystemExit(f'{path} cannot be read as a picture')
    return np.asarray(cv2.cvtColor(read, cv2.COLOR_BGR2RGB), np.uint8)


def configure(arguments: argparse.Namespace, folder: Path) -> ModelConfig:
    """Choose the measured SAM; random weights are written first."""
    checkpoint = arguments.checkpoint
    if arguments.seeded:
        checkpoint = str(seeding.write(arguments.variant, folder / f'{arguments.variant}.pth'))
    return ModelConfig(
        name=arguments.variant, checkpoint=checkpoint, device=arguments.device,
        precision=arguments.precision, compile=arguments.compile, max_masks=1000)


def measure(
    arguments: argparse.Namespace, config: ModelConfig, image: NDArray[np.uint8],
) -> list[dict[str, Any]]:
    """Time every way; one model at a time is in memory."""
    rows = [measure_grid(arguments, config, image)]
    model: Model = SamModel(
        load_network(config.name, config.checkpoint), config, weights.info([config.checkpoint]))
    for count in arguments.boxes:
        given = some_boxes(count, image)
        rows.append(timed(f'{count} boxes', lambda given=given: masks_of(  # type: ignore[misc]
            model, image, given), arguments.repeats, model.device))
    model.close()
    if arguments.masa:
        model = build_model(replace(
            config, name=f'masa_{config.name}', adapter_checkpoint=arguments.masa))
        rows.append(timed('MASA proposals', lambda: masks_of(model, image, None),
                          arguments.repeats, model.device))
        model.close()
    return rows


def measure_grid(
    arguments: argparse.Namespace, config: ModelConfig, image: NDArray[np.uint8],
) -> dict[str, Any]:
    """Time the package's own generator, encoder included."""
    device = 'cuda' if config.device == 'auto' and torch.cuda.is_available() else config.device
    device = 'cpu' if device == 'auto' else device
    settings = GridSettings(points_per_side=arguments.points_per_side)
    generator = SamAutomaticMaskGenerator(
        load_network(config.name, config.checkpoint).to(device),
        points_per_side=settings.points_per_side, output_mode='uncompressed_rle')
    # The grid is minutes on a CPU, and its first run is not slower than its second.
    repeats = arguments.repeats if device.startswith('cuda') else 0
    row = timed('grid', lambda: len(generator.generate(image)), repeats, device)
    return {**row, 'settings': asdict(settings)}


def masks_of(model: Model, image: NDArray[np.uint8], given: Instances | None) -> int:
    """Run a model on one image; returns the number of masks."""
    (found,) = model.run([image], [given])
    return sum(mask is not None for mask in found.masks)


def some_boxes(count: int, image: NDArray[np.uint8]) -> Instances:
    """Boxes of 2 to 25 % of the image's side, the same on every run."""
    rng = np.random.default_rng(1)
    size = np.array(image.shape[1::-1])
    sides = rng.uniform(0.02, 0.25, (count, 2)) * size
    corners = rng.uniform(0, 1, (count, 2)) * (size - sides)
    return Instances.from_boxes(np.concatenate((corners, corners + sides), axis=1))


def timed(way: str, run: Callable[[], int], repeats: int, device: str) -> dict[str, Any]:
    """Time something: once to warm up, then the repeats; without any, the first run counts."""
    walls, processors, masks = [], [], 0
    for _ in range(repeats + 1):
        wall, processor = time.perf_counter(), time.process_time()
        masks = run()
        if device.startswith('cuda'):
            torch.cuda.synchronize()
        walls.append(time.perf_counter() - wall)
        processors.append(time.process_time() - processor)
    counted = slice(1, None) if repeats else slice(None)
    return {'way': way, 'median_s': statistics.median(walls[counted]), 'all_s': walls[counted],
            'cpu_s': statistics.median(processors[counted]), 'masks': masks}


def about(
    arguments: argparse.Namespace, config: ModelConfig, image: NDArray[np.uint8],
) -> dict[str, Any]:
    """Describe the run: command, commit, machine, versions, weights."""
    commit = subprocess.run(
        ['git', 'rev-parse', 'HEAD'], capture_output=True, text=True, check=False,
        cwd=Path(__file__).parent).stdout.strip()
    gpu = torch.cuda.is_available()
    return {
        'command': ' '.join(sys.argv), 'commit': commit, 'machine': platform.machine(),
        'processor': platform.processor(), 'threads': arguments.threads,
        'gpu': torch.cuda.get_device_name() if gpu else None,
        'gpu_peak_bytes': torch.cuda.max_memory_allocated() if gpu else None,
        'peak_bytes': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        'python': platform.python_version(),
        'versions': {name: version(name) for name in ('torch', 'torchvision', 'numpy')},
        'weights': weights.info([config.checkpoint]).summary(), 'precision': config.precision,
        'compile': config.compile, 'image': list(image.shape),
    }


if __name__ == '__main__':
    sys.exit(main())
