"""
Time of a tracker update at 10, 100 and 300 objects, ours and the baselines' in one run.

Objects drift and are all detected in every frame; ours also gets embeddings of 64 numbers. Times
are processor time of the one thread, which a busy machine hardly changes; trackers take turns
frame by frame, and ratios are of medians.

    ./scripts/with_env python benchmarks/tracker_speed.py --out benchmarks/tracker_speed.json

"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
import platform
import time
from typing import Any

os.environ.setdefault('OMP_NUM_THREADS', '1')

from masa_ros.cli.observers import OwnTracker
from masa_ros.evaluation.baselines import build_baseline, SequenceTracker
from masa_ros.structures.frame import Frame
from masa_ros.structures.instances import Instances
from masa_ros.tracking.tracker import TrackerConfig
import numpy as np

BASELINES = ('sort', 'bytetrack', 'ocsort', 'cbiou', 'botsort', 'deepsort', 'iou')
WIDTH_PX, HEIGHT_PX, RATE_HZ = 1920, 1080, 30.0


def scene(count: int, frames: int) -> list[Instances]:
    """Objects on a grid that drift, with embeddings of their own."""
    random = np.random.default_rng(0)
    columns = int(np.ceil(np.sqrt(count * WIDTH_PX / HEIGHT_PX)))
    rows = int(np.ceil(count / columns))
    at = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), -1).reshape(-1, 2)[:count]
    cell = np.array([WIDTH_PX / columns, HEIGHT_PX / rows])
    speed = random.uniform(-0.3, 0.3, (count, 2))
    own = random.standard_normal((count, 64))
    found = []
    for index in range(frames):
        corner = at * cell + 0.2 * cell + speed * index
        boxes = np.concatenate([corner, corner + 0.6 * cell], axis=1)
        boxes += random.normal(0, 0.3, boxes.shape)
        embeddings = (own + 0.2 * random.standard_normal(own.shape)).astype(np.float32)
        found.append(Instances.from_boxes(
            boxes, random.uniform(0.7, 1.0, count)).with_fields(embeddings=embeddings))
    return found


def measure(count: int, frames: int, warm_up: int) -> dict[str, dict[str, float]]:
    """Median and 95th percentile of each tracker's update in milliseconds."""
    trackers: dict[str, SequenceTracker] = {
        name: build_baseline(name, RATE_HZ) for name in BASELINES}
    trackers['ours'] = OwnTracker(TrackerConfig())
    trackers['ours, boxes only'] = OwnTracker(TrackerConfig())
    times: dict[str, list[float]] = {name: [] for name in trackers}
    image = np.zeros((HEIGHT_PX, WIDTH_PX, 3), np.uint8)
    for index, objects in enumerate(scene(count, frames + warm_up)):
        frame = Frame(image, round(index * 1e9 / RATE_HZ), index)
        for name, tracker in trackers.items():
            given = objects.with_fields(embeddings=None) if 'boxes' in name else objects
            started = time.thread_time()
            tracker.update(frame, given)
            if index >= warm_up:
                times[name].append(1e3 * (time.thread_time() - started))
    return {name: {'median_ms': round(float(np.median(own)), 3),
                   'p95_ms': round(float(np.percentile(own, 95)), 3)}
            for name, own in times.items()}


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=str(__doc__).strip().split('\n')[0])
    parser.add_argument('--frames', type=int, default=100)
    parser.add_argument('--warm-up', type=int, default=20)
    parser.add_argument('--out', default='', help='JSON file for the figures')
    arguments = parser.parse_args()
    results: dict[str, Any] = {}
    for count in (10, 100, 300):
        results[str(count)] = measure(count, arguments.frames, arguments.warm_up)
        own = results[str(count)]['ours']['median_ms']
        print(f'\n{count} objects')
        for name, values in results[str(count)].items():
            print(f'  {name:18s} {values["median_ms"]:8.3f} ms  (95 %: {values["p95_ms"]:8.3f})'
                  f'  {values["median_ms"] / own:6.2f} x ours')
    if arguments.out:
        Path(arguments.out).write_text(json.dumps(
            {'machine': platform.machine(), 'python': platform.python_version(),
             'milliseconds': results}, indent=1) + '\n')


if __name__ == '__main__':
    main()
