"""BDD100K: Scalabel JSON and bitmasks, made small here and as published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
from masa_ros.evaluation.datasets import read_dataset
from masa_ros.evaluation.datasets.bdd100k import decode_bitmask, read_bitmasks
from masa_ros.evaluation.datasets.files import read_label_image
import numpy as np
import pytest


def label(name: str, category: str, **attributes: bool) -> dict[str, Any]:
    return {'id': name, 'category': category, 'attributes': attributes,
            'box2d': {'x1': 1, 'y1': 2, 'x2': 5, 'y2': 8}}


def mot(tmp_path: Path) -> Path:
    frames = [
        {'videoName': 'v', 'name': 'v-2.jpg', 'frameIndex': 1,
         'labels': [label('b', 'car'), label('a', 'pedestrian')]},
        {'videoName': 'v', 'name': 'v-1.jpg', 'frameIndex': 0,
         'labels': [label('a', 'pedestrian'), label('c', 'car', crowd=True),
                    label('d', 'trailer')]},
        {'videoName': 'v', 'name': 'v-3.jpg', 'frameIndex': 2, 'labels': None}]
    folder = tmp_path / 'labels' / 'box_track_20' / 'val'
    folder.mkdir(parents=True)
    (folder / 'v.json').write_text(json.dumps(frames))
    (tmp_path / 'images' / 'track' / 'val' / 'v').mkdir(parents=True)
    for number in (1, 2, 3):
        cv2.imwrite(str(tmp_path / 'images' / 'track' / 'val' / 'v' / f'v-{number}.jpg'),
                    np.zeros((72, 128, 3), np.uint8))
    return tmp_path


def test_boxes_are_read_in_order_with_numbered_ids(tmp_path: Path) -> None:
    sequence, = read_dataset('bdd_mot', mot(tmp_path))
    assert [frame.track_ids.tolist() for frame in sequence.truth] == [[1], [2, 1], []]
    assert [frame.labels for frame in sequence.truth] == [
        ('pedestrian',), ('car', 'pedestrian'), ()]
    assert sequence.truth[0].boxes.tolist() == [[1, 2, 5, 8]]
    assert sequence.rate_hz == 5.0


def test_crowds_and_other_classes_are_ignored_regions(tmp_path: Path) -> None:
    sequence, = read_dataset('bdd_mot', mot(tmp_path))
    assert [len(boxes) for boxes in sequence.ignored] == [2, 0, 0]


def test_labels_of_2020_name_things_otherwise(tmp_path: Path) -> None:
    frames = [
        {'video_name': 'v', 'name': 'v-0000002.jpg', 'index': 1, 'labels': [label('a', 'car')]},
        {'video_name': 'v', 'name': 'v-0000001.jpg', 'index': 0, 'labels': [
            label('a', 'car', Crowd=False, Occluded=True), label('b', 'car', Crowd=True)]}]
    path = tmp_path / 'other.json'
    path.write_text(json.dumps(frames))
    sequence, = read_dataset('bdd_mot', path)
    assert sequence.name == 'v'
    assert [frame.track_ids.tolist() for frame in sequence.truth] == [[1], [1]]
    assert [len(boxes) for boxes in sequence.ignored] == [1, 0]


def test_a_frame_without_its_place_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / 'v.json'
    path.write_text(json.dumps([{'name': 'v-1.jpg', 'labels': []}]))
    with pytest.raises(ValueError, match='v-1.jpg has neither frameIndex nor index'):
        read_dataset('bdd_mot', path)


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    root = mot(tmp_path)
    (root / 'images' / 'track' / 'val' / 'v' / 'v-2.jpg').unlink()
    with pytest.raises(FileNotFoundError, match=r'v-2\.jpg; get them from https://bdd-data'):
        read_dataset('bdd_mot', root)


def test_an_empty_folder_says_where_to_get_the_labels(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r'labels/seg_track_20/val.*bdd-data'):
        read_dataset('bdd_mots', tmp_path)


def test_a_curve_of_a_polygon_bulges(tmp_path: Path) -> None:
    # A half disc over a base from (10, 50) to (50, 50); its two controls lie 40 above. A cubic
    # Bezier curve reaches 3/4 of that height, and covers 0.6 of base times control height.
    polygon = {'vertices': [[10, 50], [10, 10], [50, 10], [50, 50]], 'types': 'LCCL',
               'closed': True}
    frame = {'videoName': 'v', 'name': 'v-1.jpg', 'frameIndex': 0, 'labels': [
        {'id': '1', 'category': 'car', 'poly2d': [polygon]}]}
    path = tmp_path / 'v.json'
    path.write_text(json.dumps([frame]))
    sequence, = read_dataset('bdd_mots', path)
    mask = sequence.truth[0].masks[0]
    assert mask is not None
    assert abs(mask.y_offset - 20) <= 1
    assert mask.area == pytest.approx(0.6 * 40 * 40, rel=0.05)


def test_a_bitmask_gives_class_id_and_ignored_regions() -> None:
    image = np.zeros((6, 8, 4), np.uint8)
    image[1:3, 2:5] = (3, 8, 1, 4)  # A truncated car with id 260.
    image[4:6, 0:2] = (1, 2, 0, 9)  # A crowd of pedestrians.
    truth, ignored = decode_bitmask(image)
    assert truth.track_ids.tolist() == [260]
    assert truth.labels == ('car',)
    assert truth.boxes.tolist() == [[2, 1, 5, 3]]
    assert ignored.tolist() == [[0, 4, 2, 6]]


def test_an_empty_bitmask_has_no_objects() -> None:
    truth, ignored = decode_bitmask(np.zeros((6, 8, 4), np.uint8))
    assert len(truth) == 0
    assert ignored.shape == (0, 4)


def test_a_bitmask_of_another_form_is_an_error(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / '1.png'), np.zeros((6, 8), np.uint8))
    with pytest.raises(ValueError, match=r'shape \(6, 8\), expected four channels'):
        read_bitmasks(tmp_path, None)
    with pytest.raises(FileNotFoundError, match='holds no bitmask PNGs'):
        read_bitmasks(tmp_path / 'nothing', None)


@pytest.mark.data
def test_published_samples_are_read(shared: Path) -> None:
    folder = shared / 'data' / 'annotation_samples'
    boxes, = read_dataset('bdd_mot', folder / 'scalabel__eval__box_track__track_sample_anns.json')
    # Counted in the file: 202 frames, 3241 labels.
    assert len(boxes) == 202
    assert sum(map(len, boxes.truth)) + sum(map(len, boxes.ignored)) == 3241
    path = folder / 'bdd100k__label__bitmasks__quasi-video__segtrack_bitmask.png'
    truth, _ = decode_bitmask(read_label_image(path, ''))
    assert truth.track_ids.tolist() == [1, 2, 3]
    assert truth.labels == ('car', 'car', 'car')
