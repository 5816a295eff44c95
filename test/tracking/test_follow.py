"""Following by pixels: an object is pasted on a background, so its true box is known."""

from __future__ import annotations

import cv2
from masa_ros.tracking.follow import find_picture, follow_box, picture_of, snap_to_picture
import numpy as np
from numpy.typing import NDArray
import pytest

Image = NDArray[np.uint8]
Box = NDArray[np.float32]


def texture(height: int, width: int, seed: int, grain: int) -> Image:
    rough = np.random.default_rng(seed).integers(
        0, 255, (height // grain + 1, width // grain + 1, 3)).astype(np.uint8)
    return np.asarray(
        cv2.resize(rough, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


BACKGROUND = texture(360, 640, 1, 16) // 2 + 60
OBJECT = texture(80, 60, 2, 8)


def scene(x: int, y: int, scale: float = 1.0) -> tuple[Image, Box]:
    """Image with the object at a place, and its true box."""
    image = BACKGROUND.copy()
    pasted = cv2.resize(OBJECT, None, fx=scale, fy=scale)
    height, width = pasted.shape[:2]
    image[y:y + height, x:x + width] = pasted
    return image, np.array([x, y, x + width, y + height], np.float32)


def test_a_box_follows_the_object_over_the_background() -> None:
    before, box = scene(200, 100)
    now, truth = scene(212, 95)
    found = follow_box(before, now, box)
    assert found is not None
    np.testing.assert_allclose(found, truth, atol=1.5)


def test_a_box_grows_with_the_object() -> None:
    before, box = scene(200, 100)
    now, truth = scene(197, 96, 1.1)
    found = follow_box(before, now, box)
    assert found is not None
    np.testing.assert_allclose(found, truth, atol=4)


def test_nothing_is_followed_where_nothing_can_be_told() -> None:
    plain = np.full((360, 640, 3), 90, np.uint8)
    before, box = scene(200, 100)
    noise = np.random.default_rng(5).integers(0, 255, plain.shape).astype(np.uint8)
    assert follow_box(before, noise, box) is None
    assert follow_box(before, before[:180], box) is None  # another size
    assert follow_box(before, before, np.array([700, 10, 760, 50], np.float32)) is None
    assert follow_box(before, before, np.array([10, 10, 12, 12], np.float32)) is None


def test_errors_do_not_add_up_thanks_to_the_picture() -> None:
    before, box = scene(40, 100)
    picture = picture_of(before, box)
    assert picture is not None
    for step in range(1, 26):
        now, truth = scene(40 + 15 * step, 100 + 3 * step, 1 + 0.01 * step)
        followed = follow_box(before, now, box)
        assert followed is not None
        before, box = now, snap_to_picture(now, followed, picture)
    np.testing.assert_allclose(box, truth, atol=4)


def test_a_box_that_is_like_nothing_in_the_picture_stays() -> None:
    picture = picture_of(*scene(40, 100))
    assert picture is not None
    box = np.array([400, 50, 460, 130], np.float32)
    assert snap_to_picture(BACKGROUND, box, picture) is box


@pytest.mark.parametrize('scale', [0.8, 1.0, 1.3])
def test_a_lost_object_is_found_anywhere_in_the_image(scale: float) -> None:
    picture = picture_of(*scene(40, 100))
    assert picture is not None
    image, truth = scene(500, 200, scale)
    found = find_picture(image, picture)
    assert found is not None
    np.testing.assert_allclose(found, truth, atol=10)


def test_an_object_that_is_not_there_is_not_found() -> None:
    picture = picture_of(*scene(40, 100))
    assert picture is not None
    assert find_picture(BACKGROUND, picture) is None
    assert find_picture(np.zeros_like(BACKGROUND), picture) is None
    assert find_picture(np.zeros((10, 10, 3), np.uint8), picture) is None


def test_there_is_no_picture_of_a_speck() -> None:
    image, _ = scene(40, 100)
    assert picture_of(image, np.array([10, 10, 15, 40], np.float32)) is None
    assert picture_of(image, np.array([-90, -90, -10, -10], np.float32)) is None
