"""COCO JSON, against pycocotools."""

from __future__ import annotations

from collections.abc import Callable
import json
from pathlib import Path
from typing import Any

from masa_ros.evaluation.datasets.sequence import with_ids
from masa_ros.evaluation.formats.coco import CocoWriter, encode_mask, full_image_counts
from masa_ros.structures.frame import Frame
from masa_ros.structures.instances import Instances
from masa_ros.structures.masks import encode_crop, RoiMask
import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
import pytest

HEIGHT, WIDTH = 12, 17


def frame(index: int) -> Frame:
    return Frame(np.zeros((HEIGHT, WIDTH, 3), np.uint8), 1000 * index, index)


def random_mask(seed: int) -> RoiMask:
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, HEIGHT + 1), rng.integers(1, WIDTH + 1)
    y, x = rng.integers(0, HEIGHT - height + 1), rng.integers(0, WIDTH - width + 1)
    return encode_crop(rng.random((height, width)) < rng.uniform(0, 1.2), int(x), int(y))


@pytest.mark.parametrize('seed', range(40))
def test_counts_are_those_of_pycocotools(seed: int) -> None:
    mask = random_mask(seed)
    plane = np.asfortranarray(mask.paste(HEIGHT, WIDTH).astype(np.uint8))
    assert encode_mask(mask, HEIGHT, WIDTH)['counts'].encode() == coco_mask.encode(plane)['counts']


WORKED: list[tuple[RoiMask, list[int]]] = [
    # Two full columns from the left border: one run of 24, then the rest of 204.
    (encode_crop(np.ones((HEIGHT, 2), bool)), [0, 24, 180]),
    # One pixel at row 3 of column 2.
    (encode_crop(np.ones((1, 1), bool), 2, 3), [27, 1, 176]),
    # The last pixel of all.
    (encode_crop(np.ones((1, 1), bool), WIDTH - 1, HEIGHT - 1), [203, 1]),
    (RoiMask(0, 0, 0, 0, np.zeros(0, np.uint32)), [204]),
    (encode_crop(np.zeros((3, 3), bool), 2, 2), [204]),
]


@pytest.mark.parametrize(('mask', 'counts'), WORKED)
def test_counts_worked_by_hand(mask: RoiMask, counts: list[int]) -> None:
    np.testing.assert_array_equal(full_image_counts(mask, HEIGHT, WIDTH), counts)


@pytest.mark.parametrize(('x', 'y'), [(-3, -2), (WIDTH - 2, HEIGHT - 3), (-40, 0), (0, 40)])
def test_what_leaves_the_image_is_cut(x: int, y: int) -> None:
    mask = encode_crop(np.random.default_rng(0).random((6, 6)) < 0.6, x, y)
    decoded = coco_mask.decode(encode_mask(mask, HEIGHT, WIDTH))
    np.testing.assert_array_equal(decoded.astype(bool), mask.paste(HEIGHT, WIDTH))


def write(path: Path, act: Callable[[CocoWriter], None]) -> dict[str, Any]:
    writer = CocoWriter(path, {'description': 'test'})
    act(writer)
    writer.close()
    loaded: dict[str, Any] = json.loads(path.read_text())
    return loaded


def tracks(seed: int) -> Any:
    boxes = Instances.from_boxes(
        np.array([[1, 2, 5, 9.5], [0, 0, 3, 3]]), [0.9, 0.25], [2, -1], ['car', ''])
    masked = boxes.with_fields(masks=(random_mask(seed), None),
                               mask_qualities=np.array([0.8, np.nan], np.float32))
    return with_ids(masked, [5, 6])


def test_pycocotools_loads_the_file_and_finds_the_masks(tmp_path: Path) -> None:
    path = tmp_path / 'tracks.json'

    def act(writer: CocoWriter) -> None:
        for index in (0, 3):
            writer.write(frame(index), tracks(index))

    write(path, act)
    data = COCO(str(path))
    assert [image['frame_index'] for image in data.loadImgs([1, 2])] == [0, 3]
    annotations = data.loadAnns(data.getAnnIds(imgIds=[2]))
    assert [item['track_id'] for item in annotations] == [5, 6]
    assert annotations[0]['bbox'] == [1, 2, 4, 7.5]
    assert data.loadCats([3])[0]['name'] == 'car'
    assert data.loadCats([0])[0]['name'] == 'object'
    np.testing.assert_array_equal(
        data.annToMask(annotations[0]).astype(bool), random_mask(3).paste(HEIGHT, WIDTH))
    assert annotations[0]['area'] == random_mask(3).area
    assert annotations[0]['mask_quality'] == pytest.approx(0.8)
    assert 'mask_quality' not in annotations[1]
    assert 'segmentation' not in annotations[1]


def test_files_without_frames_or_objects_are_valid(tmp_path: Path) -> None:
    loaded = write(tmp_path / 'a.json', lambda writer: None)
    assert loaded['images'] == []
    nothing = tracks(0).select(np.zeros(0, int))
    loaded = write(tmp_path / 'b.json', lambda writer: writer.write(frame(0), nothing))
    assert len(loaded['images']) == 1
    assert loaded['annotations'] == []


def test_the_same_objects_make_the_same_bytes(tmp_path: Path) -> None:
    for name in ('a', 'b'):
        write(tmp_path / name, lambda writer: writer.write(frame(0), tracks(0)))
    assert (tmp_path / 'a').read_bytes() == (tmp_path / 'b').read_bytes()
