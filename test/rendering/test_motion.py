"""Ways through the street."""

from __future__ import annotations

import math

from masa_ros.rendering.motion import CameraPath, Path
import numpy as np
import pytest


def test_a_plain_path_is_a_straight_line() -> None:
    path = Path((1, 2), math.pi / 2, 3.0)
    np.testing.assert_allclose(path.positions([0, 2]), [[1, 0, 2], [7, 0, 2]], atol=1e-12)
    assert path.heading(5.0) == pytest.approx(math.pi / 2)


def test_stop_and_go_never_goes_back() -> None:
    path = Path((0, 0), 0.4, 1.5, pulse=0.9, pulse_rate=0.8, phase=1.0)
    assert (np.diff(path.travelled(np.linspace(0, 30, 500))) > 0).all()


def test_a_path_can_be_moved_to_pass_a_point() -> None:
    path = Path((0, 0), 0.4, 1.5, 0.5, 0.8, 0.3, 0.7, phase=1.0).passing((4, -2), 3.0)
    np.testing.assert_allclose(path.positions(3.0)[[0, 2]], [4, -2])


def test_heading_follows_the_swaying() -> None:
    path = Path((0, 0), 0.4, 1.5, sway_m=0.3, sway_rate=2.0, phase=0.5)
    step = (path.positions(2.001) - path.positions(1.999))
    assert path.heading(2.0) == pytest.approx(math.atan2(step[0], step[2]), abs=1e-3)


def test_hops_stay_above_the_ground() -> None:
    path = Path((0, 0), 0, 1.0, hop_m=0.5)
    heights = path.positions(np.linspace(0, 5, 200))[:, 1]
    assert heights.min() >= 0
    assert heights.max() == pytest.approx(0.5, abs=0.01)


def test_a_camera_without_motion_stays_where_it_is() -> None:
    still = CameraPath(Path((1, 2), 0, 0.0), 2.0, 0.3, -0.1, 0.0, 0.4, 0.0, 500, 640, 360)
    assert still.at(0).axes() == pytest.approx(still.at(7).axes())
    assert still.at(7).position == pytest.approx((1, 2, 2), abs=0.02)
