"""A bag goes into the graph, at its pace and with its clock."""

from __future__ import annotations

from pathlib import Path
import subprocess
import sys
from typing import Any, TypeAlias

from masa_ros.ros import convert
import numpy as np
import pytest

pytestmark = pytest.mark.ros

# The class in conftest.py, which pytest does not let a test module import.
Robot: TypeAlias = Any

START_NS = 1_700_000_000_000_000_000


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    """Bag with ten small images, one every 20 ms."""
    bags = pytest.importorskip('masa_ros.ros.bag')
    path = tmp_path / 'bag'
    with bags.BagWriter(path) as writer:
        for index in range(10):
            stamp_ns = START_NS + index * 20_000_000
            header = convert.make_header(stamp_ns, 'camera', writer.builder)
            writer.write('/camera/image', convert.array_to_image(
                np.full((4, 6, 3), index, np.uint8), 'rgb8', header, writer.builder), stamp_ns)
    return path


def test_every_image_of_the_bag_arrives_with_its_time(robot: Robot, bag: Path) -> None:
    from rosgraph_msgs.msg import Clock
    from sensor_msgs.msg import Image
    robot.listen('image', Image, '/camera/image', 20)
    robot.listen('clock', Clock, '/clock')
    robot.run('masa_ros.ros.player', str(bag))
    robot.wait_until(lambda: len(robot.received['image']) == 10, 'the images')
    images = robot.received['image']
    assert [convert.image_to_rgb(image)[0, 0, 0] for image in images] == list(range(10))
    assert [convert.stamp_to_ns(image.header.stamp) - START_NS for image in images] == [
        index * 20_000_000 for index in range(10)]
    times = [convert.stamp_to_ns(message.clock) for message in robot.received['clock']]
    assert times == sorted(times)
    assert START_NS <= times[-1] <= START_NS + 180_000_000
    assert robot.wait() == 0


def test_it_waits_for_a_listener_and_stops_when_told(robot: Robot, bag: Path) -> None:
    robot.run('masa_ros.ros.player', str(bag))
    robot.wait_until(lambda: robot.node.count_publishers('/camera/image') == 1, 'the player')
    robot.spin(0.5)
    assert robot.process.poll() is None
    assert robot.stop() == 0
    assert robot.output == ''


@pytest.mark.parametrize(('arguments', 'code', 'text'), [
    (['/nowhere/bag'], 2, 'the bag cannot be played: /nowhere/bag does not exist'),
    (['/nowhere/bag', '--rate', '0'], 2, 'the rate is 0.0, expected more than 0')])
def test_what_cannot_be_played_ends_with_a_reason(
    arguments: list[str], code: int, text: str,
) -> None:
    done = subprocess.run([sys.executable, '-m', 'masa_ros.ros.player', *arguments],
                          capture_output=True, text=True)
    assert done.returncode == code
    assert text in done.stderr
