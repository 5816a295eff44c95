from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from masa_ros.structures.masks import encode_crop, encode_plane, label_image, RoiMask
import numpy as np
import pytest


def test_runs_go_down_the_columns_and_start_with_background() -> None:
    # By hand: columns are (0, 1), (1, 1), (0, 0).
    crop = np.array([[0, 1, 0], [1, 1, 0]], bool)
    assert encode_crop(crop).counts.tolist() == [1, 3, 2]


def test_a_mask_that_starts_with_foreground_has_an_empty_first_run() -> None:
    assert encode_crop(np.ones((2, 2), bool)).counts.tolist() == [0, 4]


@given(st.integers(0, 9), st.integers(0, 9), st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_encode_and_decode_are_inverse(height: int, width: int, random: object) -> None:
    rng = np.random.default_rng(random.randint(0, 2**31))  # type: ignore[attr-defined]
    crop = rng.random((height, width)) < 0.5
    mask = encode_crop(crop, 3, 4)
    assert np.array_equal(mask.decode(), crop)
    assert mask.area == crop.sum()


def test_runs_equal_those_of_pycocotools() -> None:
    from pycocotools import mask as coco
    rng = np.random.default_rng(0)
    crop = rng.random((17, 23)) < 0.3
    compressed = coco.frPyObjects(
        {'size': [17, 23], 'counts': encode_crop(crop).counts.tolist()}, 17, 23)
    assert np.array_equal(coco.decode(compressed).astype(bool), crop)


def test_a_plane_is_encoded_in_its_tight_box_with_holes_kept() -> None:
    plane = np.zeros((20, 30), bool)
    plane[5:12, 8:20] = True
    plane[7:9, 10:12] = False
    mask = encode_plane(plane)
    assert (mask.x_offset, mask.y_offset, mask.width, mask.height) == (8, 5, 12, 7)
    assert np.array_equal(mask.paste(20, 30), plane)


def test_an_empty_plane_gives_an_empty_region() -> None:
    mask = encode_plane(np.zeros((4, 5), bool))
    assert (mask.height, mask.width, mask.area) == (0, 0, 0)
    assert not mask.paste(4, 5).any()


def test_pasting_cuts_what_lies_outside_the_image() -> None:
    mask = encode_crop(np.ones((4, 4), bool), -2, 3)
    plane = mask.paste(5, 5)
    assert np.argwhere(plane).tolist() == [[3, 0], [3, 1], [4, 0], [4, 1]]


def test_runs_that_do_not_fill_the_region_are_refused() -> None:
    with pytest.raises(ValueError, match='sum to 5, but the region of 2 x 3 has 6'):
        RoiMask(0, 0, 2, 3, np.array([2, 3], np.uint32))


def test_later_masks_cover_earlier_ones_in_the_label_image() -> None:
    one = encode_crop(np.ones((2, 2), bool), 0, 0)
    two = encode_crop(np.ones((2, 2), bool), 1, 1)
    image = label_image([one, None, two], [7, 8, 9], 3, 3)
    assert image.tolist() == [[7, 7, 0], [7, 9, 9], [0, 9, 9]]
