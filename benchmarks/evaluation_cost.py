"""
What it costs to evaluate many sequences: one short sequence, copied 10, 30 and 100 times.

The processor time of observing, tracking and scoring, and of building the report, is taken apart;
each number of sequences starts with an empty cache. A cost that grows linearly has equal times
per sequence in all rows.

    ./scripts/with_env python benchmarks/evaluation_cost.py --out benchmarks/evaluation_cost.json

"""

from __future__ import annotations

import argparse
from dataclasses import replace
import json
from pathlib import Path
import tempfile
import time
from typing import Any

from compare_trackers import about
from long_occlusions import street
from masa_ros.cli.observers import baseline_tracker, Observation, observer, own_tracker
from masa_ros.detectors import DetectorConfig
from masa_ros.evaluation.benchmark import Faults, Plan, run_benchmark
from masa_ros.evaluation.benchmark_report import build_report, write_report
from masa_ros.evaluation.datasets.sequence import Sequence
from masa_ros.tracking.tracker import TrackerConfig

TRACKERS = (own_tracker('ours', TrackerConfig()), baseline_tracker('bytetrack', 'bytetrack'))


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=str(__doc__).strip().split('\n')[0])
    parser.add_argument('--counts', default='10,30,100')
    parser.add_argument('--seconds', type=float, default=3.0, help='length of the sequence')
    parser.add_argument('--folder', type=Path, default=Path('runs/evaluation_cost'))
    parser.add_argument('--out', type=Path)
    arguments = parser.parse_args()
    original = street(1, arguments.folder, arguments.seconds)
    measure(original, 1)  # What is only done once, such as imports, is not counted.
    rows = [measure(original, int(count)) for count in arguments.counts.split(',')]
    for row in rows:
        print('{sequences:4d} sequences: {run_s:6.1f} s to run ({run_ms_each:.0f} ms each), '
              '{report_s:6.1f} s to report ({report_ms_each:.0f} ms each)'.format(**row))
    if arguments.out:
        arguments.out.write_text(json.dumps(
            {'about': about(), 'frames': len(original), 'rows': rows}, indent=1) + '\n')


def measure(original: Sequence, count: int) -> dict[str, Any]:
    """Evaluate copies of a sequence; processor time in seconds."""
    copies = tuple(replace(original, name=f'street_{index:03d}') for index in range(count))
    observed = observer('given boxes', Observation('given', DetectorConfig(), None))
    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        plan = Plan(copies, (observed,), TRACKERS, (1,), (Faults(),), Path(folder) / 'cache')
        runs = run_benchmark(plan)
        ran = time.process_time()
        write_report(build_report('copies', plan, runs), Path(folder) / 'out')
        ended = time.process_time()
    return {'sequences': count, 'run_s': round(ran - started, 2),
            'report_s': round(ended - ran, 2), 'run_ms_each': round(1e3 * (ran - started) / count),
            'report_ms_each': round(1e3 * (ended - ran) / count)}


if __name__ == '__main__':
    main()
