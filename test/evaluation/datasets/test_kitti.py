"""KITTI tracking and MOTS, made small here."""

from __future__ import annotations

from pathlib import Path

import cv2
from masa_ros.evaluation.datasets import read_dataset
import numpy as np
from pycocotools import mask as coco_mask
import pytest

LINES = (
    '0 2 Car 0 0 -1.5 10.5 20 30 40 1.5 1.6 3.9 1 1 10 -1.6\n'
    '0 -1 DontCare -1 -1 -10 0 0 9 9 -1 -1 -1 -1000 -1000 -1000 -10\n'
    '2 2 Car 0 1 -1.5 12 20 32 40 1.5 1.6 3.9 1 1 10 -1.6\n')


def kitti(tmp_path: Path, images: int = 3, lines: str = LINES) -> Path:
    base = tmp_path / 'training'
    (base / 'label_02').mkdir(parents=True)
    (base / 'label_02' / '0000.txt').write_text(lines)
    (base / 'image_02' / '0000').mkdir(parents=True)
    for number in range(images):
        cv2.imwrite(str(base / 'image_02' / '0000' / f'{number:06d}.png'),
                    np.zeros((48, 64, 3), np.uint8))
    return tmp_path


def test_boxes_are_read_and_dont_care_is_ignored(tmp_path: Path) -> None:
    sequence, = read_dataset('kitti', kitti(tmp_path))
    assert [frame.track_ids.tolist() for frame in sequence.truth] == [[2], [], [2]]
    assert sequence.truth[0].boxes.tolist() == [[10.5, 20, 30, 40]]
    assert sequence.truth[0].labels == ('Car',)
    assert sequence.ignored[0].tolist() == [[0, 0, 9, 9]]
    assert sequence.rate_hz == 10.0


def test_labels_beyond_the_images_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='2 images but the labels go to frame 2'):
        read_dataset('kitti', kitti(tmp_path, images=2))


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r'0000\.txt, line 1: .*four box edges'):
        read_dataset('kitti', kitti(tmp_path, lines='0 2 Car 0 0 -1.5 10\n'))


def test_an_id_twice_in_a_frame_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='frame 0: id 2 is there twice'):
        read_dataset('kitti', kitti(tmp_path, lines=LINES.splitlines()[0] + '\n' + LINES))


def test_masks_of_mots_are_read(tmp_path: Path) -> None:
    mask = np.zeros((48, 64), np.uint8)
    mask[10:20, 5:9] = 1
    text = coco_mask.encode(np.asfortranarray(mask))['counts'].decode()
    (tmp_path / 'instances_txt').mkdir()
    (tmp_path / 'instances_txt' / '0000.txt').write_text(
        f'0 1005 1 48 64 {text}\n0 10000 10 48 64 {text}\n')
    sequence, = read_dataset('kitti_mots', tmp_path, images=False)
    assert sequence.truth[0].track_ids.tolist() == [1005]
    assert sequence.truth[0].boxes.tolist() == [[5, 10, 9, 20]]
    assert len(sequence.ignored[0]) == 1


def test_a_wrong_folder_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r'label_02.*cvlibs'):
        read_dataset('kitti', tmp_path)
    (tmp_path / 'label_02').mkdir()
    with pytest.raises(FileNotFoundError, match='holds no text files'):
        read_dataset('kitti', tmp_path)
