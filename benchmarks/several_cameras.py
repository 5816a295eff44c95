"""
Compare several cameras in one node with as many single-camera nodes on the same model.

Real nodes in processes of their own, fed over DDS by this process, which sends one image of every
camera at the same time at a camera's pace. What counts is how many images are answered in the same
time (throughput), what CPU time the nodes use for one, and how much memory they hold. The two ways
take turns, so that other programs on the machine disturb both alike.

    ./scripts/with_env python benchmarks/several_cameras.py --out benchmarks/several_cameras.json

"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
import platform
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

from masa_ros.msg import TrackedObjectArray
from masa_ros.ros.convert import array_to_image, make_header, stamp_to_ns
from masa_ros.ros.transport import environment, prepare_transport
import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image

DOMAIN = '89'
START_LIMIT_S = 300.0


class Rig:
    """Cameras that send at the same time, and what comes back."""

    def __init__(self, images: list[str], tracks: list[str], height: int, width: int) -> None:
        self._node = rclpy.create_node('rig')
        qos = QoSProfile(depth=5)
        self._publishers = [self._node.create_publisher(Image, topic, qos) for topic in images]
        for topic in tracks:
            self._node.create_subscription(TrackedObjectArray, topic, self._receive, 10)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._pixels = [street(height, width, seed) for seed in range(len(images))]
        self.latencies_ms: list[float] = []
        self.objects: list[int] = []

    def ready(self) -> bool:
        """Whether all nodes listen."""
        return all(entry.get_subscription_count() > 0 for entry in self._publishers)

    def send(self) -> None:
        """Send one image of every camera."""
        header = make_header(time.time_ns(), 'camera')
        for publisher, pixels in zip(self._publishers, self._pixels, strict=True):
            publisher.publish(array_to_image(pixels, 'rgb8', header))

    def spin(self, seconds: float) -> None:
        """Receive for a while."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left)

    def close(self) -> None:
        """End the participant."""
        self._executor.shutdown()
        self._node.destroy_node()

    def _receive(self, message: Any) -> None:
        self.latencies_ms.append((time.time_ns() - stamp_to_ns(message.header.stamp)) / 1e6)
        self.objects.append(len(message.objects))


def street(height: int, width: int, seed: int) -> np.ndarray[Any, Any]:
    """Picture with a few dozen patches that a model may take for objects."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), 110, np.uint8)
    for _ in range(40):
        side_y, side_x = rng.integers(height // 20, height // 4, 2)
        y, x = rng.integers(0, height - side_y), rng.integers(0, width - side_x)
        image[y:y + side_y, x:x + side_x] = rng.integers(0, 255, 3)
    return image


def used(pid: int) -> tuple[float, float]:
    """CPU seconds that a process has used, and MiB of memory that it holds alone."""
    fields = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
    memory = sum(int(line.split()[1]) for line in
                 Path(f'/proc/{pid}/smaps_rollup').read_text().splitlines()
                 if line.startswith(('Private_Clean:', 'Private_Dirty:')))
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK'), memory / 1024


def run_once(together: bool, arguments: argparse.Namespace) -> dict[str, Any]:
    """Start the node or nodes, send for a while, and count."""
    count = arguments.cameras
    names = [f'c{number}' for number in range(count)]
    common = ['-p', f'model.name:={arguments.model}', '-p', 'detections.source:=none']
    if together:
        commands = [[*common, '-p', f'cameras:={names}']]
        images = [f'/tracker/{name}/input/image' for name in names]
        tracks = [f'/tracker/{name}/output/tracks' for name in names]
    else:
        commands = [[*common, '-r', f'__ns:=/{name}'] for name in names]
        images = [f'/{name}/tracker/input/image' for name in names]
        tracks = [f'/{name}/tracker/output/tracks' for name in names]
    with tempfile.TemporaryFile() as log:
        nodes = [subprocess.Popen(
            [sys.executable, '-m', 'masa_ros.ros.node', '--ros-args', *command],
            env={**os.environ, **environment()}, stdout=log, stderr=log) for command in commands]
        rig = Rig(images, tracks, arguments.height, arguments.width)
        try:
            _wait(rig, nodes, log)
            result = _measure(rig, nodes, arguments)
        finally:
            for node in nodes:
                node.send_signal(signal.SIGINT)
            for node in nodes:
                node.wait(30)
            rig.close()
    return result


def _wait(rig: Rig, nodes: list[subprocess.Popen[bytes]], log: Any) -> None:
    end = time.monotonic() + START_LIMIT_S
    while not rig.ready():
        rig.spin(0.2)
        if any(node.poll() is not None for node in nodes) or time.monotonic() > end:
            log.seek(0)
            raise SystemExit(f'a node did not start: {log.read().decode()}')
    for _ in range(5):
        rig.send()
        rig.spin(1.0)


def _measure(
    rig: Rig, nodes: list[subprocess.Popen[bytes]], arguments: argparse.Namespace,
) -> dict[str, Any]:
    rig.spin(2.0)
    rig.latencies_ms.clear()
    rig.objects.clear()
    before = [used(node.pid)[0] for node in nodes]
    started = time.monotonic()
    sent = 0
    while time.monotonic() - started < arguments.seconds:
        rig.send()
        sent += 1
        rig.spin(max(0.001, started + sent / arguments.rate - time.monotonic()))
    elapsed_s = time.monotonic() - started
    answered = len(rig.latencies_ms)
    after = [used(node.pid) for node in nodes]
    cpu_s = sum(end[0] - start for end, start in zip(after, before, strict=True))
    return {
        'sent_hz': sent * arguments.cameras / elapsed_s, 'answered_hz': answered / elapsed_s,
        'cpu_ms_per_image': 1e3 * cpu_s / max(1, answered),
        'private_memory_mib': sum(end[1] for end in after),
        'latency_ms_median': float(np.median(rig.latencies_ms or [np.nan])),
        'objects_mean': float(np.mean(rig.objects or [0])), 'load': os.getloadavg()[0]}


def main() -> int:
    """Take turns, compare and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--cameras', type=int, default=6)
    parser.add_argument('--model', default='tiny')
    parser.add_argument('--height', type=int, default=480)
    parser.add_argument('--width', type=int, default=640)
    parser.add_argument('--rate', type=float, default=10.0, help='images per second and camera')
    parser.add_argument('--seconds', type=float, default=20.0)
    parser.add_argument('--rounds', type=int, default=2)
    parser.add_argument('--out', type=Path)
    arguments = parser.parse_args()
    os.environ.update(ROS_DOMAIN_ID=DOMAIN, ROS_AUTOMATIC_DISCOVERY_RANGE='LOCALHOST',
                      ROS_LOG_DIR=tempfile.gettempdir())
    prepare_transport()
    rclpy.init(args=[])
    runs: dict[str, list[dict[str, Any]]] = {'one node': [], 'single-camera nodes': []}
    for _ in range(arguments.rounds):
        runs['one node'].append(run_once(True, arguments))
        runs['single-camera nodes'].append(run_once(False, arguments))
    rclpy.shutdown()
    mean = {name: {key: float(np.mean([run[key] for run in entries])) for key in entries[0]}
            for name, entries in runs.items()}
    one, many = mean['one node'], mean['single-camera nodes']
    text = json.dumps({
        'command': 'python benchmarks/several_cameras.py ' + ' '.join(
            f'--{name} {value}' for name, value in vars(arguments).items() if name != 'out'),
        # On a busy machine six processes get six times the share of one, whatever they do with
        # it: only the ratio for equal CPU time says what sharing a node costs or saves.
        'throughput_ratio_for_equal_cpu_time':
            many['cpu_ms_per_image'] / one['cpu_ms_per_image'],
        'throughput_ratio_as_measured': one['answered_hz'] / many['answered_hz'],
        'memory_ratio': one['private_memory_mib'] / many['private_memory_mib'],
        'mean': mean, 'runs': runs,
        'machine': f'{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs',
        'threads': os.environ.get('OMP_NUM_THREADS', 'not limited'),
        'python': platform.python_version()}, indent=2)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + '\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
