from __future__ import annotations

from dataclasses import replace

from masa_ros.rendering.scene import SceneConfig
from masa_ros.structures.instances import Instances
from masa_ros.structures.masks import RoiMask
from masa_ros.training.labels import (
    add_detections,
    add_proposals,
    polygons,
    relative_boxes,
    rendered_clip,
    segment_map,
    semantic_map,
    shrink,
)
import numpy as np
import pytest

PHOTO = np.zeros((40, 60, 3), np.uint8)


def test_pictures_are_only_made_smaller() -> None:
    assert shrink(PHOTO, 30).shape == (20, 30, 3)
    assert shrink(PHOTO, 600) is PHOTO
    assert shrink(np.zeros((1, 5000, 3), np.uint8), 100).shape == (1, 100, 3)


def test_a_segment_map_gives_one_mask_for_each_number() -> None:
    segments = np.ones((40, 60), np.uint8)
    segments[10:20, 5:25] = 2
    segments[0, 0] = 9  # A speck.
    item = segment_map('a', 'b', PHOTO, segments, smallest=0.01)
    assert item.exhaustive
    np.testing.assert_array_equal(item.boxes, [[0, 0, 60, 40], [5, 10, 25, 20]])


def test_a_map_of_another_size_is_fitted_without_new_numbers() -> None:
    segments = np.array([[1, 2], [2, 1]], np.uint8)
    item = segment_map('a', 'b', PHOTO, segments)
    assert [mask.area for mask in item.masks if mask is not None] == [1200, 1200]


def test_two_cars_in_a_semantic_map_are_two_objects() -> None:
    classes = np.full((40, 60), 11, np.uint8)
    classes[5:15, 5:15] = 8
    classes[5:15, 30:50] = 8
    item = semantic_map('a', 'b', PHOTO, classes)
    np.testing.assert_array_equal(item.class_ids, [2, 2])
    np.testing.assert_array_equal(item.boxes, [[5, 5, 15, 15], [30, 5, 50, 15]])


def test_a_polygon_fills_its_pixels() -> None:
    item = polygons('a', 'b', PHOTO, '7 0.25 0.25 0.75 0.25 0.75 0.75 0.25 0.75\n\n')
    assert item.class_ids.tolist() == [7]
    np.testing.assert_allclose(item.boxes, [[15, 10, 45, 30]], atol=1)


def test_a_broken_polygon_names_its_line() -> None:
    with pytest.raises(ValueError, match='line 2: 4 numbers'):
        polygons('a', 'b', PHOTO, '7 0.1 0.1 0.9 0.1 0.9 0.9\n7 0.25 0.25 0.75')


def test_relative_boxes_become_pixels() -> None:
    boxes, ids = relative_boxes('3 0.5 0.5 0.5 0.25', 40, 60)
    np.testing.assert_allclose(boxes, [[15, 15, 45, 25]])
    assert ids.tolist() == [3]
    assert relative_boxes('', 40, 60)[0].shape == (0, 4)


def test_a_detection_of_a_labelled_object_is_not_added_again() -> None:
    item = polygons('a', 'b', PHOTO, '7 0.25 0.25 0.75 0.25 0.75 0.75 0.25 0.75')
    found = Instances.from_boxes(
        [[14, 11, 44, 30], [0, 0, 10, 10], [90, 90, 99, 99]], class_ids=[7, 1, 1])
    more = add_detections(item, found)
    np.testing.assert_array_equal(more.class_ids, [7, 1])
    assert more.masks[1] is None
    assert len(add_detections(item, Instances()).boxes) == 1


def test_a_network_adds_masks_to_boxes_and_regions_that_nobody_drew() -> None:
    known = replace(
        polygons('a', 'b', PHOTO, '7 0.1 0.1 0.5 0.1 0.5 0.5 0.1 0.5'),
        boxes=np.array([[6, 4, 30, 20], [40, 0, 50, 10]], np.float32), class_ids=np.array([7, 3]))
    drawn = known.masks[0]
    known = replace(known, masks=(drawn, None))
    square = RoiMask(40, 0, 10, 10, np.array([0, 100], np.uint32))
    # The first is known already, the second new, the third new but of a poor mask.
    proposed = Instances.from_boxes(
        [[6, 4, 30, 20], [30, 20, 52, 38], [0, 30, 8, 38]]).with_fields(
            masks=(square, RoiMask(32, 22, 10, 10, np.array([0, 100], np.uint32)), square),
            mask_qualities=np.array([0.9, 0.9, 0.5], np.float32))
    prompted = Instances.from_boxes(known.boxes).with_fields(
        masks=(square, square), mask_qualities=np.array([0.9, 0.8], np.float32))
    more = add_proposals(known, proposed, prompted)
    # What was drawn stays, the box gets its mask, the new region the tight box of its own.
    assert more.masks[0] is drawn
    assert more.masks[1] is square
    np.testing.assert_array_equal(
        more.boxes, [[6, 4, 30, 20], [40, 0, 50, 10], [32, 22, 42, 32]])
    np.testing.assert_array_equal(more.class_ids, [7, 3, -1])
    poor = prompted.with_fields(mask_qualities=np.array([0.9, 0.6], np.float32))
    assert add_proposals(known, Instances(), poor).masks[1] is None
    with pytest.raises(ValueError, match='2 boxes, but masks of 0'):
        add_proposals(known, proposed, Instances())


def test_rendered_frames_share_identities() -> None:
    config = SceneConfig(width_px=160, height_px=96, num_objects=8, num_props=0, duration_s=2.0)
    frames = list(rendered_clip(5, 3, config))
    assert len({frame.name for frame in frames}) == 3
    assert len({frame.clip for frame in frames}) == 1
    known = [set(frame.identities.tolist()) for frame in frames if frame.identities is not None]
    assert len(known) == 3
    assert set.union(*known)
    for frame in frames:
        for box, mask in zip(frame.boxes, frame.masks, strict=True):
            assert mask is not None
            assert mask.area > 0
            np.testing.assert_array_equal(
                box, [mask.x_offset, mask.y_offset, mask.x_offset + mask.width,
                      mask.y_offset + mask.height])
