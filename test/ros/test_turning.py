"""The node takes the turning of its camera out, told by real messages over DDS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from masa_ros.ros.convert import make_header, MessageBuilder
import numpy as np
import pytest
from turning_messages import camera_info, LEFT, odometry, OPTICAL, STILL, transforms

pytestmark = pytest.mark.ros

# The class in conftest.py, which pytest does not let a test module import.
Robot: TypeAlias = Any

ROS = MessageBuilder()
BOX = [30.0, 22.0, 34.0, 26.0]
# The calibration is for 640 x 480 with f 500 px, the images are 64 x 48: 50 px, times 1/4.
SHIFT_PX = 12.5


def mount(robot: Robot) -> None:
    """Tell once where the camera is on the robot, as static transforms are told."""
    from rclpy.qos import DurabilityPolicy, QoSProfile
    from tf2_msgs.msg import TFMessage
    robot.publisher('tf_static', TFMessage, '/tf_static', QoSProfile(
        depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)).publish(
            transforms(ROS, 'base_link', 'camera_optical', OPTICAL, 0))


def calibrate(robot: Robot) -> None:
    from sensor_msgs.msg import CameraInfo
    publisher = robot.publisher('camera_info', CameraInfo, '/tracker/input/camera_info')
    message = camera_info(ROS)
    message.header = make_header(robot.clock_ns, 'camera_optical')
    publisher.publish(message)


def missed_while_turning(robot: Robot, tell: Callable[[tuple[float, ...]], None]) -> float:
    """Centre of a coasting box along x: seen at 32 px, then missed while the robot turns left."""
    robot.begin()  # What an attempt before has left would be another object.
    robot.tick()
    tell(STILL)
    calibrate(robot)
    robot.spin(0.2)  # Topics have no order among one another.
    header = robot.header()
    robot.send_image(header=header)
    robot.send_boxes([BOX], header)
    robot.answer(header)
    robot.tick()
    tell(LEFT)
    robot.spin(0.2)
    header = robot.header()
    robot.send_image(header=header)
    robot.send_boxes(np.zeros((0, 4)), header)
    entry, = robot.answer(header).objects
    assert entry.state == entry.STATE_COASTING
    return float(entry.x0 + entry.x1) / 2


@pytest.mark.parametrize('by', ['odometry', 'tf'])
def test_a_coasting_box_goes_where_the_turning_takes_it(robot: Robot, by: str) -> None:
    from nav_msgs.msg import Odometry
    from tf2_msgs.msg import TFMessage
    robot.start('policy:=every', 'tracker.camera_motion:=odometry', 'detections.source:=topic',
                'odometry.fixed_frame:=map',
                *(['odometry.topic:=/wheels/odom'] if by == 'odometry' else []))
    robot.listen_tracks()
    robot.image_publisher()
    robot.detections_publisher()
    mount(robot)

    def tell(turn: tuple[float, ...]) -> None:
        if by == 'odometry':
            robot.publisher('odometry', Odometry, '/wheels/odom').publish(
                odometry(ROS, turn, robot.clock_ns))
        else:
            robot.publisher('tf', TFMessage, '/tf').publish(
                transforms(ROS, 'map', 'base_link', turn, robot.clock_ns))

    centers: list[float] = []

    def followed() -> bool:
        centers.append(missed_while_turning(robot, tell))
        return abs(centers[-1] - 32 - SHIFT_PX) < 0.5
    robot.wait_until(followed, 'a box that follows the turning')
    # Off again while it runs: the box stays where it was seen.
    assert robot.set_parameter('tracker.camera_motion', 'none')[0]
    robot.wait_until(lambda: robot.node.count_subscribers('/tf_static') == 0,
                     'the node to stop listening')
    robot.clock_ns += 1_000_000_000_000
    robot.publishers = {name: made for name, made in robot.publishers.items()
                        if name in ('image', 'detections')}
    header = robot.tick()
    robot.send_image(header=header)
    robot.send_boxes([BOX], header)
    robot.answer(header)
    header = robot.tick()
    robot.send_image(header=header)
    robot.send_boxes(np.zeros((0, 4)), header)
    entry, = robot.answer(header).objects
    assert (entry.x0 + entry.x1) / 2 == pytest.approx(32, abs=0.5)


def test_a_turning_that_is_not_known_is_counted_and_the_images_are_tracked(robot: Robot) -> None:
    robot.start('policy:=every', 'tracker.camera_motion:=odometry', PROPOSES='1')
    robot.listen_tracks()
    robot.listen_diagnostics()
    robot.image_publisher()
    assert len(robot.answer(robot.send_image()).objects) == 1
    robot.diagnostics('stream', lambda _, values: values.get(
        'problem: images without the turning of the camera') == '1')
    assert 'no camera_info has come' in robot.output
    calibrate(robot)
    robot.spin(0.2)
    assert len(robot.answer(robot.send_image()).objects) == 1
    robot.wait_until(lambda: 'are not connected' in robot.output, 'the other reason')
