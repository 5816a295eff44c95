"""MOTChallenge folders, made small here."""

from __future__ import annotations

from pathlib import Path

import cv2
from masa_ros.evaluation.datasets.motchallenge import read, read_rows, read_sequence, unit_scores
import numpy as np
import pytest

INFO = '[Sequence]\nname=a\nimDir=img1\nframeRate=25\nseqLength=3\nimWidth=64\nimHeight=48\n'


def folder(tmp_path: Path, images: int = 3) -> Path:
    root = tmp_path / 'a'
    for name in ('img1', 'gt', 'det'):
        (root / name).mkdir(parents=True)
    (root / 'seqinfo.ini').write_text(INFO)
    for number in range(1, images + 1):
        cv2.imwrite(str(root / 'img1' / f'{number:06d}.jpg'), np.zeros((48, 64, 3), np.uint8))
    (root / 'gt' / 'gt.txt').write_text(
        '1,1,11,21,10,20,1,1,0.5\n1,2,1,1,5,5,0,1,1\n1,3,31,1,5,5,0,8,1\n3,1,12,21,10,20,1,1,1\n')
    (root / 'det' / 'det.txt').write_text('1,-1,11,21,10,20,35.5\n2,-1,1,1,5,5,-2\n')
    return root


def test_a_sequence_is_read_as_published(tmp_path: Path) -> None:
    sequence = read_sequence(folder(tmp_path))
    assert (len(sequence), sequence.rate_hz) == (3, 25.0)
    assert (sequence.height_px, sequence.width_px) == (48, 64)
    assert sequence.stamps_ns.tolist() == [0, 40_000_000, 80_000_000]
    assert [frame.track_ids.tolist() for frame in sequence.truth] == [[1], [], [1]]
    # Pixels count from 1 in the file.
    assert sequence.truth[0].boxes.tolist() == [[10, 20, 20, 40]]


def test_distractors_are_kept_apart_and_uncounted_persons_left_out(tmp_path: Path) -> None:
    sequence = read_sequence(folder(tmp_path))
    assert sequence.distractors[0].tolist() == [[30, 0, 35, 5]]
    assert sequence.ignored == ()


def test_ignored_regions_of_a_span_of_frames(tmp_path: Path) -> None:
    root = folder(tmp_path)
    (root / 'gt' / 'ignore.txt').write_text('# comment\n1,2,11,11,20,10\n')
    sequence = read_sequence(root)
    assert [len(boxes) for boxes in sequence.ignored] == [1, 1, 0]
    assert sequence.ignored[0].tolist() == [[10, 10, 30, 20]]


def test_scores_without_a_scale_become_ranks(tmp_path: Path) -> None:
    sequence = read_sequence(folder(tmp_path))
    # Two detections: the better one gets 1, the other half of the way from 0.25.
    assert [frame.scores.tolist() for frame in sequence.detections] == [[1.0], [0.625], []]
    assert unit_scores(np.array([0.1, 0.9], np.float32)).tolist() == pytest.approx([0.1, 0.9])
    assert unit_scores(np.zeros(0, np.float32)).tolist() == []


def test_world_coordinates_of_mot15_are_no_classes(tmp_path: Path) -> None:
    path = tmp_path / 'gt.txt'
    path.write_text('1,1,1,1,2,2,1,-5.0,11.9,0.7\n')
    rows = read_rows(path)
    assert rows.class_ids.tolist() == [1]
    assert rows.visibilities.tolist() == [1.0]


def test_a_missing_image_is_an_error_that_counts(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='2 images but 3 frames are expected'):
        read_sequence(folder(tmp_path, images=2))


def test_an_id_used_twice_in_a_frame_is_an_error(tmp_path: Path) -> None:
    root = folder(tmp_path)
    (root / 'gt' / 'gt.txt').write_text('2,7,1,1,2,2,1,1,1\n2,7,5,5,2,2,1,1,1\n')
    with pytest.raises(ValueError, match='id 7 is there twice in frame 2'):
        read_sequence(root)


@pytest.mark.parametrize('line', ['1,2,x', '1,1,nan,1,1,1', '1,1,1'])
def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / 'gt.txt'
    path.write_text(f'1,1,1,1,1,1\n{line}\n')
    with pytest.raises(ValueError, match=r'gt\.txt, line 2: .*at least six finite numbers'):
        read_rows(path)


def test_an_empty_truth_is_a_sequence_without_objects(tmp_path: Path) -> None:
    root = folder(tmp_path)
    (root / 'gt' / 'gt.txt').write_text('')
    assert [len(frame) for frame in read_sequence(root).truth] == [0, 0, 0]


def test_a_folder_of_sequences_and_a_single_one_are_told_apart(tmp_path: Path) -> None:
    root = folder(tmp_path / 'train')
    assert [sequence.name for sequence in read(tmp_path, 'train')] == ['a']
    assert [sequence.name for sequence in read(root)] == ['a']


def test_a_wrong_folder_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r'no MOTChallenge sequence .*motchallenge\.net'):
        read(tmp_path)


def test_missing_images_matter_only_when_they_are_needed(tmp_path: Path) -> None:
    root = folder(tmp_path)
    for path in (root / 'img1').iterdir():
        path.unlink()
    assert len(read(root, images=False)[0]) == 3
    with pytest.raises(FileNotFoundError, match='a: no images in img1/'):
        read(root)


@pytest.mark.data
def test_the_shared_sequences_are_read(shared: Path) -> None:
    sequences = {name: read_sequence(shared / 'data' / 'sequences' / name)
                 for name in ('TUD-Campus', 'ETH-Sunnyday-a', 'kitti_drive_0052')}
    # Frames, persons and rates as in the README beside them.
    assert {name: (len(sequence), sequence.rate_hz,
                   len({int(i) for frame in sequence.truth for i in frame.track_ids}))
            for name, sequence in sequences.items()} == {
        'TUD-Campus': (71, 25.0, 8), 'ETH-Sunnyday-a': (110, 14.0, 12),
        'kitti_drive_0052': (78, 10.0, 7)}
    assert len(sequences['kitti_drive_0052'].ignored[0]) == 2
