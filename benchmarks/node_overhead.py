"""
Measure what the node costs besides the model: image in, tracks out, split by stage.

The real node runs in its own process with a model that gives every box a ready-made mask and
embedding at once; a second process sends images and detections at a camera's pace and takes the
time from the image's stamp to the arrival of its tracks. With other programs on the machine
compare the CPU time per frame.

    ./scripts/with_env python benchmarks/node_overhead.py --out benchmarks/node_overhead.json

"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
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
from unittest.mock import patch

from diagnostic_msgs.msg import DiagnosticArray
from masa_ros.models import ModelConfig
from masa_ros.models.model import WeightsInfo
from masa_ros.msg import TrackedObjectArray
from masa_ros.ros.convert import (
    array_to_image,
    image_to_rgb,
    instances_to_detections,
    make_header,
    stamp_to_ns,
    TrackInfo,
)
from masa_ros.ros.join import DetectionJoin
from masa_ros.ros.parameters import DetectionsConfig
from masa_ros.ros.track_bytes import tracks_to_bytes
from masa_ros.ros.transport import environment, prepare_transport
from masa_ros.ros.upstream import TYPES
from masa_ros.ros.upstream.arrival import Arrival, read_head
from masa_ros.ros.upstream.reading import DetectionReader
from masa_ros.structures.instances import Instances
from masa_ros.tracking.tracker import Tracker
from message_size import make_tracks
import numpy as np
from numpy.typing import NDArray
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Image
from vision_msgs.msg import Detection2DArray

DOMAIN = '88'
HEIGHT, WIDTH = 1080, 1920


class NullModel:
    """Hands out masks and embeddings made beforehand, in the order of the boxes."""

    name = 'null'
    weights = WeightsInfo()
    device = 'cpu'
    can_propose = False

    def __init__(self, _: ModelConfig) -> None:
        count = int(os.environ['MASA_ROS_BENCHMARK_OBJECTS'])
        self._ready = make_tracks(count, HEIGHT, WIDTH, 256)

    def warm_up(self) -> None:
        """Have nothing to warm up."""

    def run(
        self, images: Sequence[NDArray[np.uint8]], detections: Sequence[Instances | None],
    ) -> list[Instances]:
        """Fill in what is ready."""
        return [given.with_fields(
            masks=self._ready.masks, mask_qualities=self._ready.mask_qualities,
            embeddings=self._ready.embeddings) for given in detections if given is not None]

    def reconfigure(self, config: Any) -> None:
        """Have no settings."""

    def close(self) -> None:
        """Have nothing to free."""


def stage_cpu_ms(objects: int, rounds: int = 200) -> dict[str, dict[str, float]]:
    """Measure the CPU time of the node's own steps in one thread, without ROS between them."""
    tracks = make_tracks(objects, HEIGHT, WIDTH, 256)
    header = make_header(10**18, 'camera')
    given = Instances.from_boxes(tracks.boxes, np.full(objects, 0.9))
    payload = serialize_message(instances_to_detections(given, header))
    kind = TYPES['vision_msgs/msg/Detection2DArray']
    reader = DetectionReader(1, DetectionsConfig())
    info = TrackInfo(HEIGHT, WIDTH, 'front', 1, 0, 0, 'null@0', {'track': 1.0})
    image = array_to_image(np.zeros((HEIGHT, WIDTH, 3), np.uint8), 'rgb8', header)
    join: DetectionJoin[int, Arrival] = DetectionJoin(0.005, 0.5, 20)
    tracker = Tracker()
    found = given.with_fields(masks=tracks.masks, embeddings=tracks.embeddings,
                              mask_qualities=tracks.mask_qualities)
    times: dict[str, list[float]] = {}

    def measure_step(name: str, step: Callable[[], Any]) -> Any:
        before = time.thread_time()
        result = step()
        times.setdefault(name, []).append(1e3 * (time.thread_time() - before))
        return result

    for index in range(rounds):
        stamp_ns = 10**18 + index * 10**8
        measure_step('image as RGB', lambda: image_to_rgb(image))

        def joined(stamp_ns: int = stamp_ns) -> Arrival:
            head = read_head(payload)
            arrival = Arrival(kind, head.frame_id, (payload,))
            join.add_image(stamp_ns, 0, 0.0)
            part = join.add_detections(stamp_ns, arrival, 0.0)[0].parts[0]
            assert part is not None
            return part

        part = measure_step('join', joined)
        measure_step('conversion of detections', lambda part=part: reader.read(
            [part], HEIGHT, WIDTH))
        result = measure_step('association', lambda index=index, stamp_ns=stamp_ns: tracker.update(
            found, index, stamp_ns, (HEIGHT, WIDTH)))
        measure_step('message as bytes', lambda result=result: tracks_to_bytes(
            result, header, info))
    return {name: summary(values[10:]) for name, values in times.items()}


def run_node() -> int:
    """Run the real node with the null model."""
    from masa_ros.ros.node import main as node_main
    with patch('masa_ros.pipeline.build_model', NullModel):
        return node_main(['--ros-args', '-p', 'stream:=benchmark'])


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median and 95th percentile."""
    return {'median': float(np.median(values)), 'p95': float(np.percentile(values, 95))}


class Camera:
    """Sends images with detections and receives the tracks."""

    def __init__(self, objects: int) -> None:
        self._node = rclpy.create_node('camera')
        qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
        self._image = self._node.create_publisher(Image, '/tracker/input/image', qos)
        self._detections = self._node.create_publisher(
            Detection2DArray, '/tracker/input/detections', qos)
        self._node.create_subscription(
            TrackedObjectArray, '/tracker/output/tracks', self._receive, 10)
        self._node.create_subscription(DiagnosticArray, '/diagnostics', self._diagnose, 10)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._pixels = np.random.default_rng(0).integers(
            0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        self._boxes = make_tracks(objects, HEIGHT, WIDTH, 256).boxes
        self.latencies_ms: list[float] = []
        self.stages_ms: dict[str, list[float]] = {}
        self.objects = 0
        self.publish_ms = float('nan')

    def ready(self) -> bool:
        """Whether the node listens."""
        return (self._image.get_subscription_count() > 0
                and self._detections.get_subscription_count() > 0)

    def send(self) -> None:
        """Send one image and its detections, the detections after it."""
        header = make_header(time.time_ns(), 'camera')
        message = array_to_image(self._pixels, 'rgb8', header)
        # The stamp of a driver is that of the exposure; here it is the moment of publication.
        message.header = header = make_header(time.time_ns(), 'camera')
        self._image.publish(message)
        self._detections.publish(instances_to_detections(
            Instances.from_boxes(self._boxes), header))

    def spin(self, seconds: float) -> None:
        """Receive for a while."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left)

    def _receive(self, message: Any) -> None:
        self.latencies_ms.append((time.time_ns() - stamp_to_ns(message.header.stamp)) / 1e6)
        self.objects = len(message.objects)
        for name, value in zip(message.stage_names, message.stage_times_ms, strict=True):
            self.stages_ms.setdefault(name, []).append(value)

    def _diagnose(self, message: Any) -> None:
        """Keep the one stage that a message cannot hold itself: its own making and sending."""
        for status in message.status:
            for item in status.values:
                if item.key == 'time: publish (ms)':
                    self.publish_ms = float(item.value)


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used."""
    fields = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def measure(objects: int, frames: int, rate_hz: float) -> dict[str, Any]:
    """Run node and camera."""
    variables = {**environment(), 'MASA_ROS_BENCHMARK_OBJECTS': str(objects)}
    with tempfile.TemporaryFile() as log:
        node = subprocess.Popen([sys.executable, __file__, '--node'],
                                env={**os.environ, **variables}, stdout=log, stderr=log)
        camera = Camera(objects)
        while not camera.ready():
            camera.spin(0.1)
            if node.poll() is not None:
                log.seek(0)
                raise SystemExit(f'the node ended: {log.read().decode()}')
        camera.spin(1.0)
        for _ in range(10):
            camera.send()
            camera.spin(1 / rate_hz)
        camera.latencies_ms.clear()
        camera.stages_ms.clear()
        before = cpu_seconds(node.pid)
        for _ in range(frames):
            started = time.monotonic()
            camera.send()
            camera.spin(max(0.001, 1 / rate_hz - (time.monotonic() - started)))
        camera.spin(1.0)
        used = cpu_seconds(node.pid) - before
        node.send_signal(signal.SIGINT)
        node.wait(20)
    return {
        'objects': camera.objects, 'height': HEIGHT, 'width': WIDTH, 'rate_hz': rate_hz,
        'sent': frames, 'received': len(camera.latencies_ms),
        'latency_ms': summary(camera.latencies_ms),
        'stages_ms': {name: summary(values) for name, values in camera.stages_ms.items()},
        'publish_mean_ms': camera.publish_ms,
        'node_cpu_ms_per_frame': 1e3 * used / max(1, len(camera.latencies_ms)),
        'stages_cpu_ms': stage_cpu_ms(objects),
        'machine': f'{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs',
        'load': os.getloadavg()[0], 'python': platform.python_version()}


def main() -> int:
    """Run the measurement and write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--objects', type=int, default=100)
    parser.add_argument('--frames', type=int, default=100)
    parser.add_argument('--rate', type=float, default=10.0)
    parser.add_argument('--out', type=Path)
    parser.add_argument('--node', action='store_true', help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.environ.update(ROS_DOMAIN_ID=DOMAIN, ROS_AUTOMATIC_DISCOVERY_RANGE='LOCALHOST',
                      ROS_LOG_DIR=tempfile.gettempdir())
    if arguments.node:
        return run_node()
    prepare_transport()
    rclpy.init(args=[])
    text = json.dumps(measure(arguments.objects, arguments.frames, arguments.rate), indent=2)
    rclpy.shutdown()
    print(text)
    if arguments.out:
        arguments.out.write_text(text + '\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
