"""
Feed the real node for as many frames as hours of driving have, and watch its memory.

The node runs in a process of its own. A toy street is rendered, sent with imperfect detections
over DDS, and the next frame goes out when the tracks of the last one are back, so that as many
frames as possible pass. The stamps go on at 10 Hz: 72000 frames are two hours. Now and then a bag
loop is imitated by stamps that jump back. The node's resident memory is read from the kernel.

    ./scripts/with_env python benchmarks/soak.py --frames 72000 --out benchmarks/soak.json

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
import time
from typing import Any

from masa_ros.msg import TrackedObjectArray
from masa_ros.rendering import imperfect_detections, Scene, SceneConfig
from masa_ros.ros import convert
import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import Image
from vision_msgs.msg import Detection2DArray

RATE_HZ = 10
SIZE = (180, 320)
# The street is filmed once and shown again and again, with detections that differ every time.
FILM_FRAMES = 600
LOOP_EVERY = 20000
SAMPLES = 60
DOMAIN = '87'
ANSWER_LIMIT_S = 10.0


def main() -> int:
    """Run the soak and write the report; the exit status is 1 when the node died."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument('--frames', type=int, default=72000)
    parser.add_argument('--model', default='classical')
    parser.add_argument('--out', type=Path)
    options = parser.parse_args()
    os.environ['ROS_DOMAIN_ID'] = DOMAIN
    node = subprocess.Popen(
        [sys.executable, '-m', 'masa_ros.ros.node', '--ros-args', '--log-level', 'error',
         '-p', 'policy:=every', '-p', f'model.name:={options.model}',
         '-p', 'detections.source:=topic'])
    try:
        report = soak(node, options.frames)
    finally:
        node.send_signal(signal.SIGINT)
        status = node.wait(30)
    report.update({
        'command': ' '.join(['python', *sys.argv]), 'machine': platform.platform(),
        'model': options.model, 'exit_status': status})
    text = json.dumps(report, indent=1)
    print(text)
    if options.out is not None:
        options.out.write_text(text + '\n')
    return status


def soak(node: subprocess.Popen[bytes], frames: int) -> dict[str, Any]:
    """Send frames and wait for each answer; returns what was seen."""
    film = make_film()
    rclpy.init()
    robot = rclpy.create_node('soak')
    executor = SingleThreadedExecutor()
    executor.add_node(robot)
    answers: list[Any] = []
    robot.create_subscription(
        TrackedObjectArray, '/tracker/output/tracks', answers.append, 10)
    images = robot.create_publisher(Image, '/tracker/input/image', 10)
    boxes = robot.create_publisher(Detection2DArray, '/tracker/input/detections', 10)
    while images.get_subscription_count() == 0 or boxes.get_subscription_count() == 0:
        if node.poll() is not None:
            raise SystemExit('the node ended before it was ready')
        executor.spin_once(timeout_sec=0.1)
    started = time.monotonic()
    samples: list[dict[str, float]] = []
    unanswered = 0
    most_tracks = 0
    last_id = 0
    for index in range(frames):
        stamp_ns = 10**12 + (index % LOOP_EVERY) * 10**9 // RATE_HZ
        frame = film[index % len(film)]
        header = convert.make_header(stamp_ns, 'camera')
        found = imperfect_detections(frame.truth, index, *SIZE, seed=7)
        answers.clear()
        boxes.publish(convert.instances_to_detections(found, header))
        images.publish(convert.array_to_image(frame.image, 'rgb8', header))
        limit = time.monotonic() + ANSWER_LIMIT_S
        while not answers and time.monotonic() < limit and node.poll() is None:
            executor.spin_once(timeout_sec=0.05)
        if node.poll() is not None:
            break
        unanswered += not answers
        for answer in answers:
            most_tracks = max(most_tracks, len(answer.objects))
            last_id = max([last_id, *(item.id for item in answer.objects)])
        if index % max(frames // SAMPLES, 1) == 0 or index == frames - 1:
            samples.append({'frame': index, 'seconds': round(time.monotonic() - started, 1),
                            'resident_mib': round(resident_mib(node.pid), 1)})
            print(samples[-1], file=sys.stderr, flush=True)
    executor.shutdown()
    rclpy.shutdown()
    settled = [entry for entry in samples if entry['frame'] >= frames // 10]
    slope = np.polyfit([entry['frame'] for entry in settled],
                       [entry['resident_mib'] for entry in settled], 1)[0]
    return {
        'frames': frames, 'hours_at_10_hz': frames / RATE_HZ / 3600, 'unanswered': unanswered,
        'highest_id': last_id, 'most_objects': most_tracks,
        'growth_mib_per_hour_at_10_hz': round(float(slope) * RATE_HZ * 3600, 3),
        'samples': samples}


def make_film() -> list[Any]:
    """Render the street once."""
    height, width = SIZE
    scene = Scene(3, SceneConfig(
        width_px=width, height_px=height, duration_s=FILM_FRAMES / RATE_HZ))
    return [scene.render(index / RATE_HZ) for index in range(FILM_FRAMES)]


def resident_mib(pid: int) -> float:
    """Resident memory of a process in MiB."""
    for line in Path(f'/proc/{pid}/status').read_text().splitlines():
        if line.startswith('VmRSS:'):
            return int(line.split()[1]) / 1024
    return float('nan')


if __name__ == '__main__':
    sys.exit(main())
