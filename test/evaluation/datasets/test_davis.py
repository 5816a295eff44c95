"""DAVIS, made small here and the shared videos."""

from __future__ import annotations

from pathlib import Path

import cv2
from masa_ros.evaluation.datasets import read_dataset
from masa_ros.evaluation.datasets.davis import read_video
import numpy as np
from PIL import Image
import pytest


def davis(tmp_path: Path, masks: int = 2) -> Path:
    for kind in ('Annotations', 'JPEGImages'):
        (tmp_path / kind / '480p' / 'bear').mkdir(parents=True)
    (tmp_path / 'ImageSets' / '2017').mkdir(parents=True)
    (tmp_path / 'ImageSets' / '2017' / 'val.txt').write_text('bear\n')
    labels = np.zeros((6, 8), np.uint8)
    labels[1:3, 1:4], labels[4:6, 5:8], labels[0, 0] = 1, 2, 255
    for number in range(masks):
        picture = Image.fromarray(labels)
        picture.putpalette(list(range(256)) * 3)
        picture.save(tmp_path / 'Annotations' / '480p' / 'bear' / f'{number:05d}.png')
    for number in range(2):
        cv2.imwrite(str(tmp_path / 'JPEGImages' / '480p' / 'bear' / f'{number:05d}.jpg'),
                    np.zeros((6, 8, 3), np.uint8))
    return tmp_path


def test_palette_values_are_ids_and_void_is_left_out(tmp_path: Path) -> None:
    sequence, = read_dataset('davis', davis(tmp_path))
    assert [frame.track_ids.tolist() for frame in sequence.truth] == [[1, 2], [1, 2]]
    assert sequence.truth[0].boxes.tolist() == [[1, 1, 4, 3], [5, 4, 8, 6]]
    assert (sequence.height_px, sequence.width_px, sequence.rate_hz) == (6, 8, 24.0)


def test_fewer_masks_than_images_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='has 2 images for 1 masks'):
        read_dataset('davis', davis(tmp_path, masks=1))


def test_a_wrong_folder_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r'holds no Annotations; .*davischallenge'):
        read_dataset('davis', tmp_path)


@pytest.mark.data
def test_the_first_edition_has_one_object(shared: Path) -> None:
    root = shared / 'data' / 'sequences' / 'davis_car-roundabout'
    sequence = read_video(root / 'mask', root / 'img1', 'car-roundabout')
    assert len(sequence) == 75
    assert {tuple(frame.track_ids.tolist()) for frame in sequence.truth} == {(1,)}
