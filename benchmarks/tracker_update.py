"""
Time one tracker update at 10, 100 and 300 objects with 256-wide embeddings, everything included.

Objects drift and are all seen in every frame, in another order each time. The default settings and
two of the reference's are measured on the same frames. Times are processor time of the one thread
(OpenBLAS and OpenMP are held to one), so that other work on the machine changes them little, and
wall time beside it.

    ./scripts/with_env python benchmarks/tracker_update.py --out benchmarks/tracker_update.json

"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
import platform
import shlex
import subprocess
import sys
import time
from typing import Any

# Before numpy is loaded, which reads them once.
os.environ['OMP_NUM_THREADS'] = '1'
os.environ['OPENBLAS_NUM_THREADS'] = '1'
os.environ['MKL_NUM_THREADS'] = '1'

from masa_ros.structures.instances import Instances
from masa_ros.tracking.tracker import Tracker, TrackerConfig
import numpy as np

PRESETS = ('default', 'tao_demo', 'bdd_bench')
COUNTS = (10, 100, 300)
WIDTH = 256
IMAGE = (1080, 1920)
STEP_NS = 33_333_333


def scene(count: int, frames: int) -> list[Instances]:
    """Objects of 20 to 80 pixels that drift by some pixels a frame."""
    random = np.random.default_rng(0)
    looks = random.standard_normal((count, WIDTH))
    centers = random.random((count, 2)) * (IMAGE[1], IMAGE[0])
    speeds = random.normal(0, 2, (count, 2))
    half = random.uniform(10, 40, (count, 2))
    made = []
    for frame in range(frames):
        places = centers + frame * speeds
        boxes = np.concatenate([places - half, places + half], axis=1)
        boxes += random.normal(0, 1, boxes.shape)
        order = random.permutation(count)
        seen = (looks + 0.3 * random.standard_normal(looks.shape))[order].astype(np.float32)
        made.append(Instances.from_boxes(
            boxes[order], random.uniform(0.5, 1, count)).with_fields(embeddings=seen))
    return made


def measure(preset: str, objects: list[Instances], warm_up: int) -> dict[str, float]:
    """
    Return the 10th, 50th and 95th percentile of an update in milliseconds.

    On a busy machine even processor time grows, as others empty the caches; the 10th percentile
    then comes nearest to an idle core.
    """
    tracker = Tracker(TrackerConfig.preset(preset))
    own, wall = [], []
    for index, instances in enumerate(objects):
        own_start, wall_start = time.thread_time_ns(), time.perf_counter_ns()
        tracker.update(instances, index, index * STEP_NS, IMAGE)
        own.append((time.thread_time_ns() - own_start) * 1e-6)
        wall.append((time.perf_counter_ns() - wall_start) * 1e-6)
    return {f'{name}_{kind}_ms': round(float(np.percentile(times[warm_up:], rank)), 3)
            for name, times in (('cpu', own), ('wall', wall))
            for kind, rank in (('p10', 10), ('median', 50), ('p95', 95))}


def about() -> dict[str, Any]:
    """Describe the run: command, commit, machine."""
    commit = subprocess.run(['git', 'rev-parse', '--short', 'HEAD'], capture_output=True,
                            text=True, check=False, cwd=Path(__file__).parent).stdout.strip()
    names = [line.partition(':')[2].strip()
             for line in Path('/proc/cpuinfo').read_text().splitlines()
             if line.startswith('model name')] if Path('/proc/cpuinfo').exists() else []
    return {'command': shlex.join(['./scripts/with_env', 'python', *sys.argv]), 'commit': commit,
            'machine': f'{names[0] if names else platform.machine()}, {os.cpu_count()} cores',
            'niceness': os.nice(0), 'load_average': [round(value, 1) for value in os.getloadavg()],
            'threads': 1, 'python': platform.python_version(), 'numpy': np.__version__}


def main() -> None:
    """Measure, print, and write the figures."""
    parser = argparse.ArgumentParser(description=str(__doc__).strip().split('\n')[0])
    parser.add_argument('--frames', type=int, default=200)
    parser.add_argument('--warm-up', type=int, default=20)
    parser.add_argument('--out', default='', help='JSON file for the figures')
    arguments = parser.parse_args()
    results: dict[str, dict[str, dict[str, float]]] = {preset: {} for preset in PRESETS}
    for count in COUNTS:
        objects = scene(count, arguments.frames)
        for preset in PRESETS:
            figures = measure(preset, objects, arguments.warm_up)
            results[preset][str(count)] = figures
            print(f'{preset:10s} {count:4d} objects ' + '  '.join(
                f'{name.replace("_ms", "").replace("_", " ")} {value:.3f}'
                for name, value in figures.items()) + ' ms')
    if arguments.out:
        Path(arguments.out).write_text(
            json.dumps({'about': about(), 'milliseconds': results}, indent=1) + '\n')


if __name__ == '__main__':
    main()
