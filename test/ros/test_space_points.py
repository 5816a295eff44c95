"""Points of space into pixels: numbers worked by hand, and what is refused."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.ros


def info(**changes: Any) -> Any:
    """Calibration of a camera of 640 x 480 pixels."""
    from sensor_msgs.msg import CameraInfo
    values = {'height': 480, 'width': 640, 'distortion_model': 'plumb_bob',
              'k': [500.0, 0.0, 320.0, 0.0, 400.0, 240.0, 0.0, 0.0, 1.0],
              'p': [450.0, 0.0, 310.0, -45.0, 0.0, 450.0, 250.0, 0.0, 0.0, 0.0, 1.0, 0.0],
              **changes}
    message = CameraInfo()
    for name, value in values.items():
        setattr(message, name, value)
    return message


def pixel(point: tuple[float, float, float], calibration: Any, *size: int, **more: Any) -> Any:
    from masa_ros.ros.space_points import project
    height, width = size or (480, 640)
    return project(point, calibration, height, width, **more).tolist()


def test_the_optical_axis_goes_through_the_centre_of_its_pixel() -> None:
    assert pixel((0, 0, 7), info()) == [320.5, 240.5]


def test_a_camera_without_distortion_is_a_pinhole() -> None:
    # 320 + 500 / 4 and 240 - 400 / 2, from the centre of the first pixel.
    assert pixel((1, -2, 4), info()) == [445.5, 40.5]
    assert pixel((1, -2, 4), info(d=[0.0] * 5)) == [445.5, 40.5]


def test_the_lens_moves_points_by_its_polynomial() -> None:
    # r^2 = 0.25: 1 - 0.2 * 0.25 + 0.04 * 0.0625 = 0.9525.
    found = pixel((1, 0, 2), info(d=[-0.2, 0.04, 0.0, 0.0, 0.0]))
    assert found == pytest.approx([320.5 + 500 * 0.5 * 0.9525, 240.5])
    # The denominator of the rational model: 1 + 0.1 * 0.25 = 1.025.
    found = pixel((1, 0, 2), info(distortion_model='rational_polynomial',
                                  d=[0.0, 0.0, 0.0, 0.0, 0.0, 0.1, 0.0, 0.0]))
    assert found == pytest.approx([320.5 + 500 * 0.5 / 1.025, 240.5])


def test_a_fisheye_maps_the_angle() -> None:
    # 45 degrees are pi/4, and with k1 = 0.1 a little more.
    angle = np.pi / 4
    found = pixel((3, 0, 3), info(distortion_model='equidistant', d=[0.1, 0.0, 0.0, 0.0]))
    assert found == pytest.approx([320.5 + 500 * (angle + 0.1 * angle ** 3), 240.5])


def test_rectified_images_use_the_projection_matrix() -> None:
    # 310 + (450 * 1 - 45) / 2, with a lens that is undone already.
    assert pixel((1, 0, 2), info(d=[-0.3, 0.0, 0.0, 0.0, 0.0]), rectified=True) == [513, 250.5]


def test_binning_cropping_and_scaling_are_followed() -> None:
    assert pixel((1, -2, 4), info(), 240, 320) == [222.75, 20.25]
    assert pixel((1, -2, 4), info(binning_x=2, binning_y=2), 240, 320) == [222.75, 20.25]
    cropped = info()
    cropped.roi.x_offset, cropped.roi.y_offset = 400, 20
    cropped.roi.width, cropped.roi.height = 200, 100
    assert pixel((1, -2, 4), cropped, 100, 200) == [45.5, 20.5]
    assert pixel((1, -2, 4), info(width=0, height=0)) == [445.5, 40.5]


@pytest.mark.parametrize(('changes', 'roi', 'size'), [
    ({}, (0, 0, 0, 0), (480, 640)), ({}, (0, 0, 0, 0), (200, 300)),
    ({'binning_x': 2, 'binning_y': 4}, (0, 0, 0, 0), (120, 320)),
    ({'binning_x': 2, 'binning_y': 2}, (100, 40, 401, 200), (50, 200)),
])
def test_points_go_where_the_intrinsics_of_the_image_say(
    changes: dict[str, int], roi: tuple[int, ...], size: tuple[int, int],
) -> None:
    from masa_ros.ros.calibration import camera_matrix
    calibration = info(**changes)
    for name, value in zip(('x_offset', 'y_offset', 'width', 'height'), roi, strict=True):
        setattr(calibration.roi, name, value)
    seen = camera_matrix(calibration, *size) @ (1, -2, 4)
    assert pixel((1, -2, 4), calibration, *size) == pytest.approx((seen / seen[2])[:2])


def test_a_strong_lens_does_not_fold_points_from_beside_into_the_image() -> None:
    barrel = info(d=[-0.3, 0.0, 0.0, 0.0, 0.0])
    assert 0 < pixel((0.6, 0, 1), barrel)[0] < 640
    # 3 * (1 - 0.3 * 9) = -5.1: the polynomial has turned round.
    with pytest.raises(ValueError, match='outside the view of the camera'):
        pixel((1.75, 0, 1), barrel)
    with pytest.raises(ValueError, match='outside the view of the camera'):
        pixel((3, 0, 1), barrel)


@pytest.mark.parametrize(('point', 'changes', 'text'), [
    ((0, 0, -1), {}, 'behind the camera'),
    ((1, 2, 0), {}, 'behind the camera'),
    ((0, np.nan, 1), {}, 'not finite'),
    ((0, 0, 1), {'k': [0.0] * 9}, 'not calibrated'),
    ((0, 0, 1), {'k': [np.nan] * 9}, 'not calibrated'),
    ((0, 0, 1), {'distortion_model': 'mirror', 'd': [1.0]}, "is 'mirror', expected one of plumb"),
    ((0, 0, 1), {'d': [0.1, 0.2]}, 'with 2 coefficients'),
    ((0, 0, 1), {'distortion_model': 'equidistant', 'd': [0.1]}, 'with 1 coefficients'),
])
def test_what_cannot_be_projected_is_refused(
    point: Any, changes: dict[str, Any], text: str,
) -> None:
    with pytest.raises(ValueError, match=text):
        pixel(point, info(**changes))


class Buffer:
    """Stands in for that of tf2_ros: one transform, known at some times."""

    def __init__(self) -> None:
        self.stamps = {7, 0}
        self.asked: list[tuple[str, str, int]] = []

    def can_transform(self, target: str, source: str, when: Any) -> bool:
        return source == 'map' and when.nanoseconds in self.stamps

    def lookup_transform(self, target: str, source: str, when: Any) -> Any:
        self.asked.append((target, source, when.nanoseconds))
        # A quarter turn about z brings x to y.
        half = 0.5 ** 0.5
        return SimpleNamespace(transform=SimpleNamespace(
            rotation=SimpleNamespace(x=0.0, y=0.0, z=half, w=half),
            translation=SimpleNamespace(x=10.0, y=20.0, z=30.0)))


def test_points_are_moved_by_the_transform_of_the_images_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from masa_ros.ros.space_points import FrameTransforms
    tf2_ros: Any = ModuleType('tf2_ros')
    tf2_ros.Buffer = Buffer
    tf2_ros.TransformListener = lambda buffer, node, spin_thread: None
    monkeypatch.setitem(sys.modules, 'tf2_ros', tf2_ros)
    transforms = FrameTransforms(None)

    async def wait(condition: Any, limit_s: float) -> bool:
        return bool(condition())

    def moved(source: str, stamp_ns: int) -> Any:
        made = transforms.move(np.array([1.0, 2, 3]), source, 'camera', stamp_ns, wait)
        with pytest.raises(StopIteration) as end:
            made.send(None)
        return end.value.value
    place, note = moved('map', 7)
    assert place.tolist() == pytest.approx([10 - 2, 20 + 1, 33])
    assert note == ''
    place, note = moved('map', 9)
    assert place.tolist() == pytest.approx([8, 21, 33])
    assert 'newest transform' in note
    assert transforms._buffer.asked == [('camera', 'map', 7), ('camera', 'map', 0)]
    with pytest.raises(ValueError, match="no transform from the frame 'mars' to 'camera'"):
        moved('mars', 7)
