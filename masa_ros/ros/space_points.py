"""Points of space, as publish-point tools send them, into pixels of a camera's image."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
import time
from typing import Any

from masa_ros.ros.calibration import image_from_sensor
from masa_ros.ros.convert import stamp_to_ns
from masa_ros.structures.frame import Frame
import numpy as np
from numpy.typing import ArrayLike, NDArray
from rclpy.clock import Clock, ClockType  # type: ignore[attr-defined]
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.task import Future
from rclpy.time import Time
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CameraInfo

# Longest time that a click waits for the calibration, and for the transform at its image's time.
CALIBRATION_LIMIT_S = 2.0
TRANSFORM_LIMIT_S = 1.0
_LOOK_S = 0.02
# Each that waits has a subscription of its own.
MOST_WAITING = 8
# Distortion models of CameraInfo; an empty name has none, or the common one.
_RADIAL = ('', 'plumb_bob', 'rational_polynomial')
_FISHEYE = ('equidistant', 'fisheye')
# Where undoing the distortion ends this far from the ray, the lens does not see the point.
_FOLDED = 0.02


class SpacePoints:
    """
    Finds the pixel of a point of space, with the calibration and, where needed, TF.

    Both are listened to when the first such point comes: it is rare, and they cost all the time.

    Parameters
    ----------
    node : rclpy.node.Node
        Owner of the subscriptions.
    group : rclpy.callback_groups.CallbackGroup
        Reentrant, as points wait in their callbacks.

    """

    def __init__(self, node: Any, group: Any) -> None:
        self._node = node
        self._group = group
        self._transforms: FrameTransforms | None = None
        self._waiting = 0

    async def calibration(self, topic: str) -> Any:
        """
        Wait for the next ``CameraInfo`` of a topic.

        Raises
        ------
        ValueError
            If none comes in time, or too many points wait already.

        """
        if self._waiting >= MOST_WAITING:
            raise ValueError(f'{self._waiting} points of space wait for the calibration already')
        came: list[Any] = []
        self._waiting += 1
        subscription = self._node.create_subscription(
            CameraInfo, topic, came.append, callback_group=self._group,
            qos_profile=QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT))
        try:
            if not await self._wait(lambda: bool(came), CALIBRATION_LIMIT_S):
                raise ValueError(
                    'it is a point of space, which needs the calibration of the camera, but no '
                    f'CameraInfo came on {subscription.topic_name} in {CALIBRATION_LIMIT_S:g} s; '
                    'remap ~/input/camera_info, or click in the image')
        finally:
            self._waiting -= 1
            self._node.destroy_subscription(subscription)
        return came[-1]

    async def pixel(
        self, frame: Frame, info: Any, header: Any, point: Any, rectified: bool,
    ) -> tuple[NDArray[np.float64], str]:
        """
        Project a point of space into an image.

        Parameters
        ----------
        frame : Frame
            The image.
        info : sensor_msgs/CameraInfo
            Calibration of its camera.
        header : std_msgs/Header
            Frame of the point.
        point : geometry_msgs/Point
            The point.
        rectified : bool
            Whether the image is rectified.

        Returns
        -------
        pixel : ndarray
            ``(2,)`` x and y; may lie outside the image.
        note : str
            What should be known about it.

        Raises
        ------
        ValueError
            If it cannot be projected; the text says why.

        """
        place, note = np.array([point.x, point.y, point.z], np.float64), ''
        if not same_frame(header.frame_id, frame.frame_id) and header.frame_id:
            if not frame.frame_id:
                raise ValueError(f'it is in the frame {header.frame_id!r}, but the images name no '
                                 'frame, so nobody knows where their camera is')
            if self._transforms is None:
                self._transforms = FrameTransforms(self._node)
            place, note = await self._transforms.move(
                place, header.frame_id, frame.frame_id, frame.stamp_ns, self._wait)
        return project(place, info, frame.height_px, frame.width_px, rectified), note

    async def _wait(self, condition: Callable[[], bool], limit_s: float) -> bool:
        """Let other callbacks run until something is so; False where it takes too long."""
        end = time.monotonic() + limit_s
        answer: Any = Future()

        def look() -> None:
            if answer.done():
                return
            try:
                there = condition()
            except Exception as error:
                answer.set_exception(error)
            else:
                if there or time.monotonic() > end:
                    answer.set_result(there)
        timer = self._node.create_timer(
            _LOOK_S, look, callback_group=self._group,
            clock=Clock(clock_type=ClockType.STEADY_TIME))
        try:
            return bool(await answer)
        finally:
            self._node.destroy_timer(timer)


class FrameTransforms:
    """
    Moves points between coordinate frames by ``tf2_ros``, which need not be installed.

    Parameters
    ----------
    node : rclpy.node.Node
        Owner of the subscriptions of TF, from now on.

    Raises
    ------
    ValueError
        If ``tf2_ros`` cannot be imported.

    """

    def __init__(self, node: Any) -> None:
        try:
            tf2_ros: Any = import_module('tf2_ros')
        except ImportError as error:
            raise ValueError(
                "it is not in the image's own frame, and points of another frame need tf2_ros, "
                f'which cannot be imported ({error}); install ros-<distro>-tf2-ros-py, or click '
                "in the image's frame") from error
        self._buffer: Any = tf2_ros.Buffer()
        self._listener: Any = tf2_ros.TransformListener(self._buffer, node, spin_thread=False)

    async def move(
        self, point: NDArray[np.float64], source: str, target: str, stamp_ns: int,
        wait: Callable[..., Any],
    ) -> tuple[NDArray[np.float64], str]:
        """
        Move a point to another frame at some time.

        Parameters
        ----------
        point : ndarray
            ``(3,)`` in `source`.
        source, target : str
            Names of frames.
        stamp_ns : int
            The time; where it is not known, the newest transform is taken.
        wait : callable
            Awaits a condition for some seconds.

        Returns
        -------
        point : ndarray
            ``(3,)`` in `target`.
        note : str
            Says so where it is not of that time.

        Raises
        ------
        ValueError
            If the frames are not connected.

        """
        then, newest = Time(nanoseconds=stamp_ns), Time()

        def known(when: Time) -> bool:
            return bool(self._buffer.can_transform(target, source, when))
        when, note = then, ''
        if not await wait(lambda: known(then), TRANSFORM_LIMIT_S):
            when = newest
            note = " (by the newest transform, as that of the image's time is not known)"
            if not known(newest):
                raise ValueError(f'no transform from the frame {source!r} to {target!r} came on '
                                 f'/tf or /tf_static in {TRANSFORM_LIMIT_S:g} s')
        found = self._buffer.lookup_transform(target, source, when).transform
        turn, shift = found.rotation, found.translation
        turned = Rotation.from_quat([turn.x, turn.y, turn.z, turn.w]).apply(point)
        return np.asarray(turned + np.array([shift.x, shift.y, shift.z])), note


def same_frame(first: str, second: str) -> bool:
    """Whether two names of frames are the same; a leading slash is of ROS 1."""
    return first.lstrip('/') == second.lstrip('/')


def project(
    point: ArrayLike, info: Any, height_px: int, width_px: int, rectified: bool = False,
) -> NDArray[np.float64]:
    """
    Pixel that shows a point.

    Parameters
    ----------
    point : array_like
        ``(3,)`` in the optical frame: x to the right, y down, z ahead.
    info : sensor_msgs/CameraInfo
        Calibration of the camera, binning and region of interest included.
    height_px, width_px : int
        Size of the image, which may be a scaled copy.
    rectified : bool
        Take the matrix ``p`` and no distortion, as for rectified images.

    Returns
    -------
    ndarray
        ``(2,)`` x and y as in `Instances`: the outer corner of the top-left pixel is (0, 0).

    Raises
    ------
    ValueError
        If it is not in front of the camera, or the calibration does not tell.

    """
    x, y, z = np.asarray(point, np.float64)
    if not np.isfinite([x, y, z]).all():
        raise ValueError('it is not finite, expected coordinates of a point')
    if z <= 0:
        raise ValueError(f'it is behind the camera: ({x:.3g}, {y:.3g}, {z:.3g}) in its optical '
                         'frame, whose z points ahead')
    matrix = np.array(info.p, np.float64).reshape(3, 4) if rectified else np.pad(
        np.array(info.k, np.float64).reshape(3, 3), ((0, 0), (0, 1)))
    if not (matrix[0, 0] > 0 and matrix[1, 1] > 0 and np.isfinite(matrix).all()):
        raise ValueError('the camera is not calibrated (CameraInfo without focal length); '
                         'calibrate it, or click in the image')
    if rectified:
        seen = matrix @ (x, y, z, 1.0)
        full = seen[:2] / seen[2]
    else:
        full = _through_lens(np.array([x, y, z]), matrix[:, :3], info)
    return np.asarray((image_from_sensor(info, height_px, width_px) @ (*full, 1.0))[:2])


def _through_lens(
    point: NDArray[np.float64], matrix: NDArray[np.float64], info: Any,
) -> NDArray[np.float64]:
    """Pixel of the whole sensor that shows a point, with the lens's distortion."""
    import cv2
    coefficients = np.array(info.d, np.float64)
    model = info.distortion_model
    ideal, still = point[:2] / point[2], np.zeros(3)
    try:
        if not coefficients.any():
            return np.asarray((matrix @ point)[:2] / point[2])
        if model in _FISHEYE:
            pixels, _ = cv2.fisheye.projectPoints(
                point[None, None], still, still, matrix, coefficients[:4])
            return np.asarray(pixels, np.float64).reshape(2)
        if model in _RADIAL:
            pixels, _ = cv2.projectPoints(point[None], still, still, matrix, coefficients)
            back = cv2.undistortPointsIter(
                pixels, matrix, coefficients, np.eye(3), np.eye(3),
                (cv2.TERM_CRITERIA_COUNT, 50, 0.0)).reshape(2)
            # Beyond the calibrated view the polynomial turns round and points come back in.
            if not np.abs(back - ideal).max() < _FOLDED * max(1.0, np.abs(ideal).max()):
                raise ValueError('it is outside the view of the camera')
            return np.asarray(pixels, np.float64).reshape(2)
    except cv2.error as error:
        raise ValueError(f'the distortion of the CameraInfo cannot be used: {model!r} with '
                         f'{len(coefficients)} coefficients') from error
    raise ValueError(f'the distortion model of the CameraInfo is {model!r}, expected one of '
                     + ', '.join(filter(None, (*_RADIAL, *_FISHEYE))))


def image_stamp(header: Any, frame_id: str) -> int:
    """Stamp of the image that a point belongs to: its own in the image's frame, else newest."""
    return stamp_to_ns(header.stamp) if same_frame(header.frame_id, frame_id) else 0
