"""Projection, planes and clipping, against cases worked by hand."""

from __future__ import annotations

from masa_ros.rendering.camera import Camera, clip_polygon, index_homography, Plane
import numpy as np
import pytest

LEVEL = Camera((0.0, 2.0, 0.0), 0.0, 0.0, 0.0, 500.0, 640, 360)


def test_a_point_straight_ahead_is_in_the_middle() -> None:
    pixels = LEVEL.to_image(LEVEL.to_camera(np.array([[0, 2, 10.0]])))
    np.testing.assert_allclose(pixels, [[320, 180]])


def test_right_is_right_and_the_ground_is_below() -> None:
    # One metre to the right and two below, ten ahead: 500 / 10 pixels per metre.
    pixels = LEVEL.to_image(LEVEL.to_camera(np.array([[1, 0, 10.0]])))
    np.testing.assert_allclose(pixels, [[370, 280]])


def test_turning_right_moves_things_to_the_left_and_looking_up_moves_them_down() -> None:
    point = np.array([[0, 2, 10.0]])
    right = Camera((0, 2, 0), 0.1, 0, 0, 500, 640, 360)
    up = Camera((0, 2, 0), 0, 0.1, 0, 500, 640, 360)
    assert right.to_image(right.to_camera(point))[0, 0] < 320
    assert up.to_image(up.to_camera(point))[0, 1] > 180


@pytest.mark.parametrize('angles', [(0.3, -0.2, 0.1), (-1.2, 0.05, -0.4)])
def test_axes_are_orthonormal(angles: tuple[float, float, float]) -> None:
    axes = Camera((0, 0, 0), *angles, 500, 640, 360).axes()
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-12)


def test_a_plane_maps_its_points_where_the_camera_sees_them() -> None:
    camera = Camera((1, 2.5, -3), 0.2, -0.1, 0.05, 500, 640, 360)
    ground = Plane((-5, 0, 0), (1, 0, 0), (0, 0, 1))
    mapped = ground.homography(camera) @ np.array([7.0, 12.0, 1.0])
    expected = camera.to_camera(np.array([[2.0, 0, 12.0]]))
    np.testing.assert_allclose(mapped[:2] / mapped[2], camera.to_image(expected)[0])
    np.testing.assert_allclose(mapped[2], expected[0, 2])


def test_inverse_depth_of_a_plane_is_that_of_its_points() -> None:
    camera = Camera((1, 2.5, -3), 0.2, -0.1, 0.05, 500, 640, 360)
    point = camera.to_camera(np.array([[2.0, 0, 12.0]]))
    pixel = [*camera.to_image(point)[0], 1.0]
    ground = Plane((0, 0, 0), (1, 0, 0), (0, 0, 1))
    assert ground.inverse_depth(camera) @ pixel == pytest.approx(1 / point[0, 2])


def test_the_sky_is_not_on_the_ground() -> None:
    ground = Plane((0, 0, 0), (1, 0, 0), (0, 0, 1))
    assert ground.inverse_depth(LEVEL) @ [320, 10, 1] < 0


def test_a_camera_in_the_plane_sees_nothing_of_it() -> None:
    edge_on = Camera((0, 0, 0), 0, 0, 0, 500, 640, 360)
    ground = Plane((0, 0, 0), (1, 0, 0), (0, 0, 1))
    assert ground.inverse_depth(edge_on) @ [320, 200, 1] < 0


def test_texture_indices_point_at_pixel_centers() -> None:
    # Identity map at 2 pixels per metre: image pixel 3 has its center at 3.5 m, that is edge
    # coordinate 7.0 of the texture, index 6.5.
    matrix = index_homography(np.eye(3), 2.0)
    mapped = matrix @ [3, 0, 1]
    np.testing.assert_allclose(mapped[:2] / mapped[2], [6.5, 0.5])


def test_clipping_a_square_by_its_diagonal_leaves_a_triangle() -> None:
    square = np.array([[0, 0], [2, 0], [2, 2], [0, 2]], float)
    half = clip_polygon(square, np.array([1.0, 1.0, -2.0]))
    assert sorted(map(tuple, np.unique(half, axis=0))) == [(0, 2), (2, 0), (2, 2)]


def test_clipping_keeps_all_or_nothing_where_the_line_is_outside() -> None:
    square = np.array([[0, 0], [2, 0], [2, 2], [0, 2]], float)
    np.testing.assert_array_equal(clip_polygon(square, np.array([0, 0, 1.0])), square)
    assert clip_polygon(square, np.array([0, 0, -1.0])).shape == (0, 2)
    assert clip_polygon(np.zeros((0, 2)), np.array([0, 0, -1.0])).shape == (0, 2)
