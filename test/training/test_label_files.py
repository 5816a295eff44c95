from __future__ import annotations

import json
from pathlib import Path

import cv2
from masa_ros.training.label_files import CocoLabels, SegmentMaps
import numpy as np
import pytest

PHOTO = np.zeros((40, 60, 3), np.uint8)


def test_numbers_of_a_map_are_regions(tmp_path: Path) -> None:
    segments = np.zeros((80, 120), np.uint16)
    segments[20:40, 10:50] = 700
    segments[60:70, 60:80] = 3
    cv2.imwrite(str(tmp_path / 'a.png'), segments)
    found = SegmentMaps(tmp_path)('a.jpg', PHOTO)
    # The map has twice the size of the photo.
    assert sorted(found.boxes.tolist()) == [[5, 10, 25, 20], [30, 30, 40, 35]]
    assert sorted(mask.area for mask in found.masks if mask is not None) == [50, 200]


def test_panoptic_colours_are_numbers(tmp_path: Path) -> None:
    colours = np.zeros((40, 60, 3), np.uint8)
    colours[:10, :10] = (0, 1, 0)  # Blue, green, red: 256.
    colours[20:, 20:] = (1, 0, 0)  # 65536.
    cv2.imwrite(str(tmp_path / 'a.png'), colours)
    assert sorted(SegmentMaps(tmp_path)('a.png', PHOTO).boxes.tolist()) == [
        [0, 0, 10, 10], [20, 20, 60, 40]]


def test_a_photo_without_a_map_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='b.png is missing'):
        SegmentMaps(tmp_path)('b.jpg', PHOTO)
    with pytest.raises(FileNotFoundError):
        SegmentMaps(tmp_path / 'none')


def coco(tmp_path: Path, annotations: list[dict[str, object]]) -> CocoLabels:
    file = tmp_path / 'instances.json'
    file.write_text(json.dumps({
        'images': [{'id': 5, 'file_name': 'x/a.jpg', 'height': 80, 'width': 120}],
        'annotations': [{'image_id': 5, **item} for item in annotations]}))
    return CocoLabels(file)


def test_polygons_run_lengths_and_boxes_follow_the_size_of_the_photo(tmp_path: Path) -> None:
    plane = np.zeros((80, 120), np.uint8)
    plane[40:60, 80:100] = 1
    columns = plane.T.reshape(-1)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], columns, [0]])))
    counts = np.diff(np.concatenate([[0], edges, [columns.size]])).tolist()
    labels = coco(tmp_path, [
        {'category_id': 3, 'bbox': [20, 20, 40, 20],
         'segmentation': [[20, 20, 60, 20, 60, 40, 20, 40]]},
        {'category_id': 4, 'bbox': [80, 40, 20, 20],
         'segmentation': {'counts': counts, 'size': [80, 120]}},
        {'category_id': 6, 'bbox': [0, 0, 10, 30]},
        {'category_id': 7, 'bbox': [0, 0, 10, 30], 'iscrowd': 1}])
    found = labels('a.jpg', PHOTO)
    assert found.class_ids.tolist() == [3, 4, 6]
    np.testing.assert_allclose(
        found.boxes, [[10, 10, 30, 20], [40, 20, 50, 30], [0, 0, 5, 15]], atol=1)
    assert found.masks[0] is not None
    assert found.masks[0].area == pytest.approx(200, abs=30)
    assert found.masks[1] is not None
    assert found.masks[1].area == 100
    assert found.masks[2] is None


def test_a_photo_without_objects_has_none_and_an_unknown_one_is_named(tmp_path: Path) -> None:
    labels = coco(tmp_path, [])
    assert len(labels('a.jpg', PHOTO)) == 0
    with pytest.raises(ValueError, match='no image of this name'):
        labels('b.jpg', PHOTO)


def test_another_json_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / 'x.json').write_text('[]')
    with pytest.raises(ValueError, match='not a COCO annotation file'):
        CocoLabels(tmp_path / 'x.json')
