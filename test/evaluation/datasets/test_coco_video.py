"""TAO, YouTube-VIS and UVO, made small here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
from masa_ros.evaluation.datasets import read_dataset
from masa_ros.evaluation.datasets.tao import base_and_novel
import numpy as np
from pycocotools import mask as coco_mask
import pytest

CATEGORIES = [{'id': 3, 'name': 'cat', 'frequency': 'f'},
              {'id': 7, 'name': 'yak', 'frequency': 'r'}]


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.zeros((8, 10, 3), np.uint8))


def tao(tmp_path: Path, **changes: Any) -> Path:
    content = {
        'videos': [{'id': 1, 'name': 'val/a', 'not_exhaustive_category_ids': [7],
                    'neg_category_ids': [3]}],
        'images': [{'id': 12, 'video_id': 1, 'frame_index': 30, 'file_name': 'val/a/2.jpg',
                    'height': 8, 'width': 10},
                   {'id': 11, 'video_id': 1, 'frame_index': 0, 'file_name': 'val/a/1.jpg',
                    'height': 8, 'width': 10}],
        'annotations': [
            {'id': 1, 'image_id': 11, 'track_id': 5, 'category_id': 3, 'bbox': [1, 2, 3, 4],
             'segmentation': [[1, 2, 4, 2, 4, 6, 1, 6]]},
            {'id': 2, 'image_id': 12, 'track_id': 5, 'category_id': 3, 'bbox': [2, 2, 3, 4],
             'segmentation': []},
            {'id': 3, 'image_id': 12, 'track_id': 6, 'category_id': 7, 'bbox': [0, 0, 2, 2],
             'iscrowd': 1}],
        'tracks': [], 'categories': CATEGORIES, **changes}
    (tmp_path / 'annotations').mkdir(parents=True, exist_ok=True)
    (tmp_path / 'annotations' / 'validation.json').write_text(json.dumps(content))
    for name in ('1', '2'):
        picture(tmp_path / 'frames' / 'val' / 'a' / f'{name}.jpg')
    return tmp_path


def test_tao_is_read_in_order_of_frames(tmp_path: Path) -> None:
    sequence, = read_dataset('tao', tao(tmp_path))
    assert sequence.name == 'val/a'
    assert sequence.frame_indices.tolist() == [0, 30]
    assert sequence.rate_hz == 1.0
    assert [frame.track_ids.tolist() for frame in sequence.truth] == [[5], [5]]
    assert sequence.truth[0].boxes.tolist() == [[1, 2, 4, 6]]
    assert sequence.truth[0].labels == ('cat',)
    assert sequence.truth[0].masks[0] is not None
    assert sequence.truth[0].masks[0].area == 12
    assert sequence.ignored[1].tolist() == [[0, 0, 2, 2]]
    assert sequence.not_exhaustive == {7}
    assert sequence.absent == {3}


def test_base_and_novel_classes_follow_the_frequency(tmp_path: Path) -> None:
    path = tao(tmp_path) / 'annotations' / 'validation.json'
    assert base_and_novel(path) == ([3], [7])


def test_an_annotation_without_frequencies_cannot_be_split(tmp_path: Path) -> None:
    root = tao(tmp_path, categories=[{'id': 3, 'name': 'cat'}, {'id': 7, 'name': 'yak'}])
    with pytest.raises(ValueError, match='states no LVIS frequency'):
        base_and_novel(root / 'annotations' / 'validation.json')


def test_a_missing_image_of_tao_is_named(tmp_path: Path) -> None:
    root = tao(tmp_path)
    (root / 'frames' / 'val' / 'a' / '2.jpg').unlink()
    with pytest.raises(FileNotFoundError, match=r'1 images are missing, .*2\.jpg; get them from'):
        read_dataset('tao', root)
    assert len(read_dataset('tao', root, images=False)) == 1


def test_a_folder_without_annotation_lists_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r'annotations/validation\.json.*Get it from'):
        read_dataset('tao', tmp_path)


def test_a_cut_off_annotation_is_an_error(tmp_path: Path) -> None:
    path = tao(tmp_path) / 'annotations' / 'validation.json'
    path.write_text(path.read_text()[:100])
    with pytest.raises(ValueError, match=r'is not JSON .* cut off'):
        read_dataset('tao', tmp_path)


def test_an_annotation_of_another_form_is_an_error(tmp_path: Path) -> None:
    (tao(tmp_path) / 'annotations' / 'validation.json').write_text('{"images": []}')
    with pytest.raises(ValueError, match='has no videos, annotations, categories'):
        read_dataset('tao', tmp_path)


def test_a_track_twice_in_an_image_is_an_error(tmp_path: Path) -> None:
    row = {'image_id': 11, 'track_id': 5, 'category_id': 3, 'bbox': [0, 0, 1, 1]}
    root = tao(tmp_path, annotations=[row, row])
    with pytest.raises(ValueError, match='image 11: id 5 is there twice'):
        read_dataset('tao', root)


def rle(mask: np.ndarray) -> dict[str, Any]:
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {'size': list(encoded['size']), 'counts': encoded['counts'].decode()}


def youtube(tmp_path: Path, name: str, folder: str, frames: int = 2) -> Path:
    mask = np.zeros((8, 10), bool)
    mask[2:5, 3:7] = True
    plain = {'size': [8, 10], 'counts': [80 - 8, 8]}
    content = {
        'videos': [{'id': 4, 'height': 8, 'width': 10,
                    'file_names': [f'v/{i:05d}.jpg' for i in range(frames)]}],
        'annotations': [
            {'id': 9, 'video_id': 4, 'category_id': 3, 'iscrowd': 0,
             'segmentations': [rle(mask), None], 'bboxes': [[3, 2, 4, 3], None]},
            {'id': 10, 'video_id': 4, 'category_id': 7, 'iscrowd': 0,
             'segmentations': [None, plain], 'bboxes': [None, [9, 0, 1, 8]]}],
        'categories': CATEGORIES}
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    for i in range(frames):
        picture(tmp_path / folder / 'v' / f'{i:05d}.jpg')
    return tmp_path


@pytest.mark.parametrize(('dataset', 'name', 'folder'), [
    ('youtube_vis', 'valid.json', 'valid/JPEGImages'),
    ('youtube_vis', 'valid/instances.json', 'valid/JPEGImages'),
    ('uvo', 'VideoDenseSet/UVO_video_val_dense.json', 'uvo_videos_dense_frames')])
def test_masks_over_videos_are_read(
    tmp_path: Path, dataset: str, name: str, folder: str,
) -> None:
    sequence, = read_dataset(dataset, youtube(tmp_path, name, folder))
    assert sequence.name == 'v'
    assert [frame.track_ids.tolist() for frame in sequence.truth] == [[9], [10]]
    assert sequence.truth[0].boxes.tolist() == [[3, 2, 7, 5]]
    # Plain run lengths, column by column: the last 8 of 80 pixels are the last column.
    assert sequence.truth[1].boxes.tolist() == [[9, 0, 10, 8]]


def test_a_split_without_annotations_has_no_truth(tmp_path: Path) -> None:
    root = youtube(tmp_path, 'valid.json', 'valid/JPEGImages')
    content = json.loads((root / 'valid.json').read_text())
    (root / 'valid.json').write_text(json.dumps({**content, 'annotations': None}))
    sequence, = read_dataset('youtube_vis', root)
    assert sequence.truth == ()


def test_fewer_masks_than_frames_are_an_error(tmp_path: Path) -> None:
    root = youtube(tmp_path, 'valid.json', 'valid/JPEGImages', frames=3)
    with pytest.raises(ValueError, match='annotation 9 has 2 masks for 3 frames'):
        read_dataset('youtube_vis', root)


def test_an_unknown_data_set_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown data set 'mot'; known ones are tao, bdd_mot"):
        read_dataset('mot', tmp_path)
