"""Rotations of coordinate frames; all angles are worked by hand."""

from __future__ import annotations

from masa_ros.ros.rotations import between, quaternion_matrix, RotationTree, UnknownRotationError
import numpy as np
import pytest

S = 1_000_000_000
NONE = (0.0, 0.0, 0.0, 1.0)
# REP 103: body x ahead, y left, z up; optical x right, y down, z ahead.
OPTICAL = (-0.5, 0.5, -0.5, 0.5)


def yaw(degrees: float) -> tuple[float, float, float, float]:
    half = np.radians(degrees) / 2
    return (0.0, 0.0, float(np.sin(half)), float(np.cos(half)))


def test_a_quarter_turn_about_z_takes_x_to_y() -> None:
    np.testing.assert_allclose(quaternion_matrix(yaw(90)) @ [1, 0, 0], [0, 1, 0], atol=1e-12)


def test_the_optical_axis_looks_ahead_and_down_is_down() -> None:
    tree = RotationTree()
    tree.add('base_link', 'camera_optical', OPTICAL)
    turn = tree.rotation('camera_optical', 'base_link', 0)
    np.testing.assert_allclose(turn @ [0, 0, 1], [1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(turn @ [0, 1, 0], [0, 0, -1], atol=1e-12)


def test_what_moves_is_interpolated_and_goes_on_for_a_while() -> None:
    tree = RotationTree(tolerance_s=0.1)
    tree.add('odom', 'base_link', yaw(10), 10 * S)
    tree.add('odom', 'base_link', yaw(20), 10 * S + S // 10)
    for offset_ns, degrees in ((0, 10), (S // 20, 15), (S // 10, 20), (S // 8, 22.5),
                               (-S // 20, 10)):
        np.testing.assert_allclose(
            tree.rotation('base_link', 'odom', 10 * S + offset_ns),
            quaternion_matrix(yaw(degrees)), atol=1e-9)
    for offset_s in (-0.15, 0.25):
        with pytest.raises(UnknownRotationError, match='tolerance_s'):
            tree.rotation('base_link', 'odom', round((10 + offset_s) * S))


def test_a_slow_source_does_not_turn_on_without_end() -> None:
    tree = RotationTree(tolerance_s=0.1)
    tree.add('odom', 'base_link', yaw(0), 10 * S)
    tree.add('odom', 'base_link', yaw(40), 11 * S)
    np.testing.assert_allclose(tree.rotation('base_link', 'odom', 11 * S + S // 20),
                               quaternion_matrix(yaw(40)), atol=1e-9)


def test_a_quaternion_and_its_negative_are_one_rotation() -> None:
    found = between(np.array(yaw(10)), -np.array(yaw(20)), 0.5)
    np.testing.assert_allclose(quaternion_matrix(found), quaternion_matrix(yaw(15)), atol=1e-9)


def test_frames_on_two_branches_are_connected_through_their_root() -> None:
    tree = RotationTree()
    tree.add('/map', 'odom', yaw(30), 5 * S)
    tree.add('odom', 'base_link', yaw(50), 5 * S)
    tree.add('map', 'dock', yaw(60))
    for fixed, degrees in (('odom', 50), ('map', 80), ('dock', 20)):
        np.testing.assert_allclose(tree.rotation('base_link', fixed, 5 * S),
                                   quaternion_matrix(yaw(degrees)), atol=1e-9)
    np.testing.assert_allclose(tree.rotation('map', 'base_link', 5 * S),
                               quaternion_matrix(yaw(-80)), atol=1e-9)


def test_frames_that_are_not_connected_are_named() -> None:
    tree = RotationTree()
    tree.add('odom', 'base_link', NONE, S)
    with pytest.raises(UnknownRotationError, match=r"'camera' and 'odom' are not connected"):
        tree.rotation('camera', 'odom', S)
    np.testing.assert_array_equal(tree.rotation('camera', 'camera', S), np.eye(3))


def test_a_circle_of_frames_ends() -> None:
    tree = RotationTree()
    tree.add('a', 'b', NONE)
    tree.add('b', 'a', NONE)
    with pytest.raises(UnknownRotationError, match='ancestor'):
        tree.rotation('a', 'c', 0)


@pytest.mark.parametrize('wrong', [(0, 0, 0, 0), (np.nan, 0, 0, 1), (np.inf, 0, 0, 1)])
def test_what_is_no_rotation_is_left_out(wrong: tuple[float, ...]) -> None:
    tree = RotationTree()
    tree.add('odom', 'base_link', wrong, S)
    assert len(tree) == 0


def test_a_quaternion_that_is_not_of_unit_length_is_taken_for_its_direction() -> None:
    tree = RotationTree()
    tree.add('odom', 'base_link', (0, 0, 2, 2))
    np.testing.assert_allclose(tree.rotation('base_link', 'odom', 0),
                               quaternion_matrix(yaw(90)), atol=1e-12)


def test_what_is_old_is_forgotten_and_a_clock_that_goes_back_starts_anew() -> None:
    tree = RotationTree(tolerance_s=0.1, keep_s=10)
    for second in range(20):
        tree.add('odom', 'base_link', yaw(second), second * S)
    with pytest.raises(UnknownRotationError, match='tolerance_s'):
        tree.rotation('base_link', 'odom', 5 * S)
    tree.add('odom', 'base_link', yaw(90), 2 * S)
    np.testing.assert_allclose(tree.rotation('base_link', 'odom', 2 * S),
                               quaternion_matrix(yaw(90)), atol=1e-9)
    with pytest.raises(UnknownRotationError, match='tolerance_s'):
        tree.rotation('base_link', 'odom', 19 * S)


def test_late_and_repeated_messages_find_their_place() -> None:
    tree = RotationTree(tolerance_s=0.1)
    for stamp, degrees in ((3, 30), (1, 10), (2, 99), (2, 20)):
        tree.add('odom', 'base_link', yaw(degrees), stamp * S // 10)
    np.testing.assert_allclose(tree.rotation('base_link', 'odom', S // 4),
                               quaternion_matrix(yaw(25)), atol=1e-9)


def test_a_frame_that_gets_another_parent_is_asked_there() -> None:
    tree = RotationTree()
    tree.add('odom', 'base_link', yaw(10), S)
    tree.add('map', 'base_link', yaw(70), S)
    np.testing.assert_allclose(tree.rotation('base_link', 'map', S),
                               quaternion_matrix(yaw(70)), atol=1e-9)
