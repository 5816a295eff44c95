"""Camera motion from pictures that were moved by a known homography."""

from __future__ import annotations

import cv2
from masa_ros.structures.frame import CameraView, Frame
from masa_ros.structures.instances import Instances
from masa_ros.tracking.motion import initial_motion, moved_by_camera
from masa_ros.tracking.registration import ImageRegistration, RotationFollower, view_homography
from masa_ros.tracking.tracker import Tracker
import numpy as np
import pytest

SHIFT = np.array([[1, 0, 12], [0, 1, -5], [0, 0, 1]], float)
ZOOM = np.array([[1.05, 0.02, -16], [-0.02, 1.05, 9], [0, 0, 1]], float)
NO_BOXES = np.zeros((0, 4), np.float32)


def picture(homography: np.ndarray | None = None) -> np.ndarray:
    """Spots of many sizes, 640 x 480, moved."""
    random = np.random.default_rng(0)
    image = np.full((480, 640, 3), 90, np.uint8)
    for x, y, size, *color in random.integers(
            (0, 0, 3, 0, 0, 0), (640, 480, 25, 256, 256, 256), (250, 6)).tolist():
        cv2.rectangle(image, (x, y), (x + size, y + size), color, -1)
    if homography is None:
        return image
    return np.asarray(cv2.warpPerspective(image, homography, (640, 480)), np.uint8)


@pytest.mark.parametrize('homography', [SHIFT, ZOOM])
def test_a_moved_picture_is_registered_to_a_pixel(homography: np.ndarray) -> None:
    registration = ImageRegistration()
    assert registration.update(picture(), NO_BOXES) is None
    found = registration.update(picture(homography), NO_BOXES)
    assert found is not None
    corners = np.array([[50, 50, 1], [590, 50, 1], [50, 430, 1], [590, 430, 1]], float).T
    assert np.abs((found @ corners - homography @ corners)[:2]).max() < 1


def test_a_blank_picture_and_a_cut_give_nothing() -> None:
    registration = ImageRegistration()
    registration.update(np.full((480, 640, 3), 128, np.uint8), NO_BOXES)
    assert registration.update(np.full((480, 640, 3), 128, np.uint8), NO_BOXES) is None
    assert registration.update(picture(), NO_BOXES) is None
    noise = np.random.default_rng(1).integers(0, 256, (480, 640, 3)).astype(np.uint8)
    assert registration.update(noise, NO_BOXES) is None


def test_a_change_of_size_starts_anew() -> None:
    registration = ImageRegistration()
    registration.update(picture(), NO_BOXES)
    assert registration.update(picture()[:240], NO_BOXES) is None


def test_objects_that_move_are_not_taken_for_the_background() -> None:
    registration = ImageRegistration()
    first, second = picture(), picture()
    box = np.array([[100, 100, 500, 400]], np.float32)
    second[100:400, 100:500] = np.roll(first, 15, axis=1)[100:400, 100:500]
    registration.update(first, NO_BOXES)
    found = registration.update(second, box)
    assert found is not None
    np.testing.assert_allclose(found, np.eye(3), atol=0.3)


def test_filters_move_with_the_picture() -> None:
    motion = initial_motion(np.array([[90, 190, 110, 210]], np.float32))
    motion.velocity[:, :2] = [10, 0]
    turn = np.array([[0, -2, 400], [2, 0, 0], [0, 0, 1]], float)  # A quarter turn, twice the size.
    moved = moved_by_camera(motion, turn)
    np.testing.assert_allclose(moved.mean[0, :2], [0, 200])
    np.testing.assert_allclose(moved.mean[0, 2:], motion.mean[0, 2:] + np.log(2))
    np.testing.assert_allclose(moved.velocity[0, :2], [0, 20], atol=1e-12)


def test_a_place_behind_the_camera_stays_where_it_was() -> None:
    motion = initial_motion(np.array([[90, 190, 110, 210]], np.float32))
    tilted = np.array([[1, 0, 0], [0, 1, 0], [-0.02, 0, 1]], float)  # Depth 1 - 0.02 * 100 < 0.
    np.testing.assert_array_equal(moved_by_camera(motion, tilted).mean, motion.mean)


CAMERA = np.array([[500, 0, 320], [0, 500, 240], [0, 0, 1]], float)


def turned_left(tangent: float) -> np.ndarray:
    """From a camera that has turned left about the vertical (y is down) to where it started."""
    cosine, sine = np.cos(np.arctan(tangent)), np.sin(np.arctan(tangent))
    return np.array([[cosine, 0, -sine], [0, 1, 0], [sine, 0, cosine]])


def test_a_rotation_about_the_vertical_shifts_the_centre() -> None:
    homography = view_homography(
        CameraView(CAMERA, np.eye(3)), CameraView(CAMERA, turned_left(0.1)))
    x, y, depth = homography @ [320, 240, 1]
    np.testing.assert_allclose([x / depth, y / depth], [370, 240])  # 500 px times tan = 50 px.


def test_a_zoom_scales_about_the_principal_point() -> None:
    zoomed = np.array([[1000, 0, 320], [0, 1000, 240], [0, 0, 1]], float)
    turn = turned_left(0.3)
    x, y, depth = view_homography(
        CameraView(CAMERA, turn), CameraView(zoomed, turn)) @ [330, 250, 1]
    np.testing.assert_allclose([x / depth, y / depth], [340, 260])


def test_a_track_is_carried_along_with_the_turning() -> None:
    tracker, follower = Tracker(), RotationFollower()
    image = np.zeros((480, 640, 3), np.uint8)
    views = [CameraView(CAMERA, np.eye(3)), CameraView(CAMERA, turned_left(0.1)), None,
             CameraView(CAMERA, np.eye(3))]
    boxes = np.array([[310, 220, 330, 260]], np.float32)
    centers = []
    for index, view in enumerate(views):
        frame = Frame(image, 1 + index * 40_000_000, index, view=view)
        follower.follow(tracker, frame)
        follower.follow(tracker, frame)  # A frame that is tried again is followed once.
        if index == 0:
            tracker.update(Instances.from_boxes(boxes), index, frame.stamp_ns, (480, 640))
        centers.append(tracker.state()['mean'][0, :2].tolist())
    # It does not follow to or from the frame of which nothing is known.
    np.testing.assert_allclose(centers, [[320, 240]] + [[370, 240]] * 3)


@pytest.mark.parametrize('camera', [np.zeros((3, 3)), np.eye(4), np.full((3, 3), np.nan)])
def test_a_camera_that_is_not_calibrated_is_an_error(camera: np.ndarray) -> None:
    with pytest.raises(ValueError, match='camera'):
        CameraView(camera, np.eye(3))


def test_a_homography_that_is_none_is_refused() -> None:
    for wrong in (np.eye(2), np.full((3, 3), np.nan)):
        with pytest.raises(ValueError, match='3 x 3 homography'):
            Tracker().follow_camera(wrong)


def test_a_turning_camera_does_not_change_identities() -> None:
    """Two look-alikes 60 px apart; between two frames the picture jumps by 60 px."""
    def ids(registered: bool) -> list[int]:
        tracker, registration = Tracker(seed='turn'), ImageRegistration()
        jump = np.array([[1, 0, 60], [0, 1, 0], [0, 0, 1]], float)
        for index, image in enumerate([picture(), picture(), picture(), picture(jump)]):
            frame = Frame(image, 1 + index * 40_000_000, index)
            boxes = np.array([[200, 200, 230, 260], [260, 200, 290, 260]], np.float32)
            if index == 3:
                boxes[:, [0, 2]] += 60
            if registered:
                registration.follow(tracker, frame)
            tracks = tracker.update(Instances.from_boxes(boxes), index, frame.stamp_ns, (480, 640))
        return [int(i) for i in tracks.track_ids[tracks.seen]]

    assert ids(registered=False) != [1, 2]
    assert ids(registered=True) == [1, 2]


def test_a_frame_that_is_tried_again_is_followed_once() -> None:
    tracker, registration = Tracker(), ImageRegistration()
    boxes = np.array([[200, 200, 230, 260]], np.float32)
    registration.follow(tracker, Frame(picture(), 1, 0))
    tracker.update(Instances.from_boxes(boxes), 0, 1, (480, 640))
    frame = Frame(picture(SHIFT), 40_000_001, 1)
    registration.follow(tracker, frame)
    registration.follow(tracker, frame)
    center = tracker.state()['mean'][0, :2]
    np.testing.assert_allclose(center, [227, 225], atol=1)
