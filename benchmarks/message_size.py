"""
Measure a TrackedObjectArray of many objects at 1080p: its size and what it costs on the way.

Objects are irregular blobs as large as objects of a street. One process publishes, another one
receives, over Fast DDS with and without the shipped profile. Times are medians; with other
programs on the machine take the CPU times.

    ./scripts/with_env python benchmarks/message_size.py --out benchmarks/message_size.json

"""

from __future__ import annotations

import argparse
from collections.abc import Callable
import json
import os
from pathlib import Path
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import cv2
from masa_ros.msg import TrackedObjectArray
from masa_ros.ros.convert import (
    make_header,
    message_to_tracks,
    stamp_to_ns,
    TrackInfo,
    tracks_to_message,
)
from masa_ros.ros.transport import environment, keep_freed_memory
from masa_ros.structures.instances import TrackedInstances, TrackState
from masa_ros.structures.masks import encode_plane, RoiMask
import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message, serialize_message

TOPIC = '/masa_ros_benchmark/tracks'
DOMAIN = '87'
RATE_HZ = 25.0


def make_tracks(count: int, height: int, width: int, embedding: int) -> TrackedInstances:
    """Objects with blob masks whose boxes have a median area of 9,950 pixels, like cars."""
    random = np.random.default_rng(7)
    masks = [_blob(random, height, width) for _ in range(count)]
    boxes = np.array([[mask.x_offset, mask.y_offset, mask.x_offset + mask.width,
                       mask.y_offset + mask.height] for mask in masks], np.float32)
    return TrackedInstances(
        boxes=boxes, scores=random.random(count, np.float32),
        class_ids=np.full(count, 2), labels=('car',) * count,
        flags=np.ones(count, np.uint8), masks=tuple(masks),
        mask_qualities=random.random(count, np.float32),
        embeddings=random.standard_normal((count, embedding)).astype(np.float32),
        track_ids=np.arange(1, count + 1), uuids=tuple(random.bytes(16) for _ in range(count)),
        states=np.full(count, TrackState.TRACKED, np.uint8),
        first_seen_ns=np.zeros(count, np.int64), last_seen_ns=np.full(count, 10**9),
        ages=np.arange(count), similarities=random.random(count, np.float32),
        margins=random.random(count, np.float32))


def _blob(random: np.random.Generator, height: int, width: int) -> RoiMask:
    """Draw a closed outline whose radius waves, somewhere in the image."""
    radius = float(np.clip(random.lognormal(4.0, 0.5), 10, 0.4 * height))
    center = random.uniform((radius, radius), (width - radius, height - radius))
    angles = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    radii = np.full(90, 0.8 * radius)
    for frequency in (2, 3, 5, 9):
        radii += radius * random.uniform(0, 0.15) * np.sin(
            frequency * angles + random.uniform(0, 7))
    outline = center + np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii[:, None]
    plane = np.zeros((height, width), np.uint8)
    cv2.fillPoly(plane, [outline.round().astype(np.int32)], 1)
    return encode_plane(plane.astype(bool))


def measure(function: Callable[[], Any], repeats: int = 40) -> dict[str, float]:
    """Median wall and CPU time in milliseconds."""
    walls, cpus = [], []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        function()
        walls.append(1e3 * (time.perf_counter() - wall))
        cpus.append(1e3 * (time.process_time() - cpu))
    return {'wall_ms': statistics.median(walls), 'cpu_ms': statistics.median(cpus)}


def in_process(tracks: TrackedInstances, info: TrackInfo) -> dict[str, Any]:
    """Sizes of the message's parts and the time of each conversion."""
    header = make_header(0, 'camera')
    message = tracks_to_message(tracks, header, info)
    data = serialize_message(message)
    bare = tracks.with_fields(masks=(None,) * len(tracks))
    return {
        'bytes': len(data),
        'bytes_without_masks': len(serialize_message(tracks_to_message(bare, header, info))),
        'bytes_with_embeddings': len(serialize_message(
            tracks_to_message(tracks, header, info, embeddings=True))),
        'runs': sum(len(entry.mask_counts) for entry in message.objects),
        'build': measure(lambda: tracks_to_message(tracks, header, info)),
        'serialize': measure(lambda: serialize_message(message)),
        'deserialize': measure(lambda: deserialize_message(data, TrackedObjectArray)),
        'read': measure(lambda: message_to_tracks(message)),
    }


def publish(arguments: argparse.Namespace) -> None:
    """Publish in this process; prints the time of publish()."""
    keep_freed_memory()
    rclpy.init(args=[])
    node = rclpy.create_node('sender')
    publisher = node.create_publisher(TrackedObjectArray, TOPIC, _qos(arguments.qos))
    tracks, info = _scene(arguments)
    while publisher.get_subscription_count() == 0:
        time.sleep(0.05)
    time.sleep(0.5)
    message = tracks_to_message(tracks, make_header(0, 'camera'), info)
    times = []
    for _ in range(arguments.messages):
        started = time.perf_counter()
        message.header = make_header(time.time_ns(), 'camera')
        publisher.publish(message)
        times.append(1e3 * (time.perf_counter() - started))
        time.sleep(max(0.0, 1 / RATE_HZ - (time.perf_counter() - started)))
    time.sleep(1.0)
    print(json.dumps({'publish_ms': statistics.median(times)}))
    rclpy.shutdown()


def over_dds(arguments: argparse.Namespace, qos: str, profile: bool) -> dict[str, float]:
    """Receive what a second process publishes."""
    variables = environment() if profile else {}
    sender = subprocess.Popen(
        [sys.executable, __file__, '--publish', '--qos', qos, '--objects',
         str(arguments.objects), '--messages', str(arguments.messages)],
        env={**os.environ, **variables}, stdout=subprocess.PIPE, text=True)
    node = rclpy.create_node('receiver')
    latencies: list[float] = []
    node.create_subscription(
        TrackedObjectArray, TOPIC,
        lambda message: latencies.append(
            1e3 * (time.time_ns() - stamp_to_ns(message.header.stamp)) / 1e9), _qos(qos))
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    while sender.poll() is None:
        executor.spin_once(timeout_sec=0.05)
    output = sender.communicate()[0]
    node.destroy_node()
    return {'received': len(latencies) / arguments.messages,
            'publish_to_callback_ms': statistics.median(latencies) if latencies else float('nan'),
            **json.loads(output.splitlines()[-1])}


def _qos(name: str) -> QoSProfile:
    return QoSProfile(depth=5, reliability=ReliabilityPolicy[name.upper()])


def _scene(arguments: argparse.Namespace) -> tuple[TrackedInstances, TrackInfo]:
    info = TrackInfo(1080, 1920, 'front', 1, 0, 0, 'classical@0123456789ab', {'track': 1.0})
    return make_tracks(arguments.objects, 1080, 1920, 256), info


def main() -> None:
    """Run all measurements and write them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--objects', type=int, default=100)
    parser.add_argument('--messages', type=int, default=60)
    parser.add_argument('--out', type=Path)
    parser.add_argument('--publish', action='store_true', help=argparse.SUPPRESS)
    parser.add_argument('--qos', default='reliable', help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.environ.update(ROS_DOMAIN_ID=DOMAIN, ROS_AUTOMATIC_DISCOVERY_RANGE='LOCALHOST',
                      ROS_LOG_DIR=tempfile.gettempdir())
    if arguments.publish:
        publish(arguments)
        return
    keep_freed_memory()
    rclpy.init(args=[])
    tracks, info = _scene(arguments)
    result: dict[str, Any] = {
        'objects': arguments.objects, 'height': 1080, 'width': 1920,
        'machine': f'{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs',
        'load': os.getloadavg()[0], 'python': platform.python_version(),
        'in_process': in_process(tracks, info),
        'over_dds': {f'{qos}, {"our profile" if profile else "Fast DDS defaults"}':
                     over_dds(arguments, qos, profile)
                     for profile in (False, True) for qos in ('best_effort', 'reliable')}}
    rclpy.shutdown()
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + '\n')


if __name__ == '__main__':
    main()
