"""
Time a MASA variant: a frame by number of objects, everything mode, and SAM's own everything mode.

Weights do not change the time, so seeded ones are made when no file is given. With them SAM's
generator finds no mask good enough to keep, which spares it its last steps: the speed-up over it
is a lower bound. Wall time is the median of the rounds; CPU time is given besides because other
programs may share the machine.

    ./scripts/with_env python benchmarks/masa_speed.py --variant sam_vitb --baseline \
        --out benchmarks/masa_speed_sam_vitb.json

"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
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

from masa_ros.models.masa import load, MasaModel
from masa_ros.models.seeding import write
from masa_ros.models.variants import find_variant
from masa_ros.structures.instances import Instances
import numpy as np
from numpy.typing import NDArray
import torch


def picture(height: int, width: int) -> NDArray[np.uint8]:
    """Give smooth noise, the same on every run."""
    import cv2
    coarse = np.random.default_rng(0).integers(0, 256, (height // 16, width // 16, 3), np.uint8)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(image, np.uint8)


def boxes(count: int, height: int, width: int) -> Instances:
    """Random boxes of 20 to 220 pixels."""
    random = np.random.default_rng(1)
    corners = random.uniform(0, 1, (count, 2)) * (width - 220, height - 220)
    sides = random.uniform(20, 220, (count, 2))
    return Instances.from_boxes(
        np.concatenate((corners, corners + sides), axis=1), random.uniform(0.1, 1, count))


def timed(function: Callable[[], Any], rounds: int, model: MasaModel) -> dict[str, float]:
    """Median wall and CPU milliseconds of a call, device work included."""
    walls, cpus = [], []
    for _ in range(rounds):
        wall, cpu = time.perf_counter(), time.process_time()
        function()
        if model.device.startswith('cuda'):
            torch.cuda.synchronize()
        walls.append(1e3 * (time.perf_counter() - wall))
        cpus.append(1e3 * (time.process_time() - cpu))
    return {'wall_ms': round(statistics.median(walls), 2),
            'cpu_ms': round(statistics.median(cpus), 2)}


def generator(model: MasaModel) -> Callable[[NDArray[np.uint8]], Any]:
    """SAM's automatic mask generator, as the package ships it, on the same weights."""
    from segment_anything import SamAutomaticMaskGenerator
    from segment_anything.modeling import Sam
    parts: Any = model.network.detector
    sam = Sam(parts['backbone'], parts['prompt_encoder'], parts['mask_decoder']).eval()
    generate: Callable[[NDArray[np.uint8]], Any] = SamAutomaticMaskGenerator(
        sam.to(model.device)).generate
    return generate


def memory_mb(model: MasaModel) -> float:
    """Peak of the process, or of the GPU."""
    if model.device.startswith('cuda'):
        return round(torch.cuda.max_memory_allocated() / 1e6, 1)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3, 1)


def measure(model: MasaModel, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run all parts."""
    image = picture(arguments.height, arguments.width)
    rounds = arguments.rounds
    model.run([image], [boxes(1, *image.shape[:2])])
    results: dict[str, Any] = {'given_boxes': {}}
    for count in arguments.objects:
        given = boxes(count, *image.shape[:2])
        results['given_boxes'][count] = timed(
            partial(model.run, [image], [given]), rounds, model)
        print(count, 'boxes', results['given_boxes'][count], flush=True)
    results['everything'] = timed(lambda: model.run([image], [None]), rounds, model)
    found = model.run([image], [None])[0]
    results['everything'].update(
        boxes=len(found), masks=sum(mask is not None for mask in found.masks))
    print('everything', results['everything'], flush=True)
    results['peak_memory_mb'] = memory_mb(model)
    if arguments.baseline:
        generate = generator(model)
        baseline = timed(lambda: generate(image), max(rounds // 3, 1), model)
        # Once more ours, so that both sides of the ratio see the same machine.
        again = timed(lambda: model.run([image], [None]), max(rounds // 3, 1), model)
        results['sam_automatic_mask_generator'] = {
            **baseline, 'ours_next_to_it': again,
            'speedup_wall': round(baseline['wall_ms'] / again['wall_ms'], 1),
            'speedup_cpu': round(baseline['cpu_ms'] / again['cpu_ms'], 1)}
        print('baseline', results['sam_automatic_mask_generator'], flush=True)
    return results


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=str(__doc__).strip().split('\n')[0])
    parser.add_argument('--variant', default='sam_vitb')
    parser.add_argument('--masa', help='weights file; seeded weights when missing')
    parser.add_argument('--device', default='auto')
    parser.add_argument('--precision', default='float32')
    parser.add_argument('--compile', action='store_true')
    parser.add_argument('--objects', type=int, nargs='*', default=[1, 16, 128, 300])
    parser.add_argument('--max-masks', type=int, default=100)
    parser.add_argument('--max-proposals', type=int, default=100)
    parser.add_argument('--height', type=int, default=720)
    parser.add_argument('--width', type=int, default=1280)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--threads', type=int, default=0, help='0 takes what torch takes')
    parser.add_argument('--baseline', action='store_true',
                        help="also SAM's automatic mask generator (minutes on a CPU)")
    parser.add_argument('--out', type=Path)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.masa or write(
            find_variant(arguments.variant).model, Path(folder) / 'seeded.pth')
        started = time.perf_counter()
        model = load(
            arguments.variant, masa=path, device=arguments.device, precision=arguments.precision,
            compile=arguments.compile, max_masks=arguments.max_masks, proposal_score=0.0,
            max_proposals=arguments.max_proposals)
        loading = time.perf_counter() - started
    results = measure(model, arguments)
    report = {
        'command': ' '.join(
            ['./scripts/with_env', 'python', 'benchmarks/masa_speed.py', *sys.argv[1:]]),
        'commit': subprocess.run(['git', 'rev-parse', '--short', 'HEAD'], capture_output=True,
                                 text=True, check=False).stdout.strip(),
        'machine': torch.cuda.get_device_name() if model.device.startswith('cuda') else (
            platform.processor() or platform.machine()),
        'torch': torch.__version__, 'threads': torch.get_num_threads(),
        'variant': arguments.variant, 'precision': arguments.precision,
        'compile': arguments.compile, 'image': [arguments.height, arguments.width],
        'weights': model.weights.summary(), 'load_s': round(loading, 2), 'results': results}
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=1) + '\n')


if __name__ == '__main__':
    main()
