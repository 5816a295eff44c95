"""KITTI tracking and MOTS, made small here."""

from __future__ import annotations

from pathlib import Path

import cv2
from masa_ros.evaluation.datasets import read_dataset
from masa_ros.evaluation.datasets.sequence import with_ids
from masa_ros.evaluation.scores import of_class, score_sequence
from masa_ros.structures.instances import Instances
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


def score_of(tmp_path: Path, lines: str, class_id: int, *boxes: tuple[float, ...]) -> dict[
        str, float]:
    """Score one track of one class against the first frame."""
    sequence, = read_dataset('kitti', kitti(tmp_path, images=1, lines=lines))
    found = with_ids(Instances.from_boxes(
        list(boxes), [0.9] * len(boxes), [class_id] * len(boxes)), np.arange(len(boxes)) + 1)
    return score_sequence(*of_class(sequence, [found], class_id)).table()


def line(number: int, name: str, truncated: int, occluded: int, *box: float) -> str:
    return f'0 {number} {name} {truncated} {occluded} 0 ' + ' '.join(map(str, box)) + '\n'


CAR, VAN = (0, 0, 20, 30), (30, 0, 60, 30)


@pytest.mark.parametrize(('truncated', 'occluded', 'missed'),
                         [(0, 0, 1), (0, 2, 1), (0, 3, 0), (1, 0, 0), (2, 1, 0)])
def test_who_is_cut_off_or_covered_beyond_telling_is_neither_missed_nor_false(
    tmp_path: Path, truncated: int, occluded: int, missed: int,
) -> None:
    # The limits of the benchmark: truncation 0, occlusion 2 (3 is unknown).
    lines = line(1, 'Car', 0, 0, *CAR) + line(2, 'Car', truncated, occluded, *VAN)
    assert score_of(tmp_path / 'a', lines, 1, CAR)['FN'] == missed
    both = score_of(tmp_path / 'b', lines, 1, CAR, VAN)
    assert (both['FN'], both['FP']) == (0, 0)


@pytest.mark.parametrize(('other', 'scored', 'false'), [
    ('Van', 1, 0), ('Truck', 1, 1), ('Person_sitting', 2, 0), ('Cyclist', 2, 1)])
def test_look_alike_classes_are_neither_right_nor_wrong(
    tmp_path: Path, other: str, scored: int, false: int,
) -> None:
    lines = line(1, ['Car', 'Pedestrian'][scored - 1], 0, 0, *CAR) + line(2, other, 0, 0, *VAN)
    table = score_of(tmp_path, lines, scored, CAR, VAN)
    assert (table['FN'], table['FP'], table['num_gt_ids']) == (0, false, 1)


@pytest.mark.parametrize(('height', 'false'), [(25, 0), (26, 1)])
def test_small_results_that_match_nothing_are_not_false(
    tmp_path: Path, height: int, false: int,
) -> None:
    lines = line(1, 'Car', 0, 0, 0, 0, 20, 20)
    table = score_of(tmp_path, lines, 1, (0, 0, 20, 20), (30, 0, 60, height))
    assert (table['FN'], table['FP']) == (0, false)


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
