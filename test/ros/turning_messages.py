"""Messages that tell how a robot turns, of rclpy or of rosbags; the angles are worked by hand."""

from __future__ import annotations

from typing import Any

from masa_ros.ros.convert import make_header, MessageBuilder
import numpy as np

S = 1_000_000_000
K = (500.0, 0.0, 320.0, 0.0, 400.0, 240.0, 0.0, 0.0, 1.0)
STILL = (0.0, 0.0, 0.0, 1.0)
# The robot (x ahead, y left, z up) turns left by atan(1/4).
LEFT = (0.0, 0.0, float(np.sin(np.arctan(0.25) / 2)), float(np.cos(np.arctan(0.25) / 2)))
# REP 103: optical frames have x right, y down, z ahead.
OPTICAL = (-0.5, 0.5, -0.5, 0.5)


def camera_info(
    builder: MessageBuilder, k: tuple[float, ...] = K, height: int = 480, width: int = 640,
    binning_y: int = 0, roi: tuple[int, ...] = (0, 0, 0, 0),
) -> Any:
    x_offset, y_offset, roi_width, roi_height = roi
    return builder.make(
        'sensor_msgs/msg/CameraInfo', header=make_header(S, 'camera_optical', builder),
        height=height, width=width, distortion_model='plumb_bob', d=builder.numbers(np.zeros(5)),
        k=np.array(k), r=np.eye(3).ravel(), p=np.zeros(12), binning_x=0, binning_y=binning_y,
        roi=builder.make('sensor_msgs/msg/RegionOfInterest', x_offset=x_offset,
                         y_offset=y_offset, height=roi_height, width=roi_width,
                         do_rectify=False))


def quaternion(builder: MessageBuilder, turn: tuple[float, ...]) -> Any:
    return builder.make('geometry_msgs/msg/Quaternion',
                        **dict(zip('xyzw', map(float, turn), strict=True)))


def zero_vector(builder: MessageBuilder, name: str = 'Vector3') -> Any:
    return builder.make(f'geometry_msgs/msg/{name}', x=0.0, y=0.0, z=0.0)


def odometry(builder: MessageBuilder, turn: tuple[float, ...], stamp_ns: int) -> Any:
    pose = builder.make('geometry_msgs/msg/Pose', position=zero_vector(builder, 'Point'),
                        orientation=quaternion(builder, turn))
    zero = zero_vector(builder)
    twist = builder.make('geometry_msgs/msg/Twist', linear=zero, angular=zero)
    return builder.make(
        'nav_msgs/msg/Odometry', header=make_header(stamp_ns, 'odom', builder),
        child_frame_id='base_link',
        pose=builder.make('geometry_msgs/msg/PoseWithCovariance', pose=pose,
                          covariance=np.zeros(36)),
        twist=builder.make('geometry_msgs/msg/TwistWithCovariance', twist=twist,
                           covariance=np.zeros(36)))


def transforms(
    builder: MessageBuilder, parent: str, child: str, turn: tuple[float, ...], stamp_ns: int,
) -> Any:
    entry = builder.make(
        'geometry_msgs/msg/TransformStamped', header=make_header(stamp_ns, parent, builder),
        child_frame_id=child, transform=builder.make(
            'geometry_msgs/msg/Transform', translation=zero_vector(builder),
            rotation=quaternion(builder, turn)))
    return builder.make('tf2_msgs/msg/TFMessage', transforms=[entry])
