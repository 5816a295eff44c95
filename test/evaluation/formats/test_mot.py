"""MOTChallenge text, against the published format and our own reader."""

from __future__ import annotations

from pathlib import Path

from masa_ros.evaluation.datasets.motchallenge import read_rows
from masa_ros.evaluation.datasets.sequence import with_ids
from masa_ros.evaluation.formats.mot import format_rows, MotWriter
from masa_ros.structures.instances import Instances, TrackState
import numpy as np

TRACKS = with_ids(Instances.from_boxes(
    np.array([[0, 0, 10, 20], [99.5, 50.25, 120, 80]]), [0.9, 0.5], [0, -1]), [3, 12])


def test_a_line_counts_frames_pixels_and_classes_from_one() -> None:
    assert format_rows(0, TRACKS) == (
        '1,3,1.00,1.00,10.00,20.00,0.9000,1,-1\n'
        '1,12,100.50,51.25,20.50,29.75,0.5000,-1,-1\n')


def test_only_what_was_seen_is_written() -> None:
    lost = TRACKS.with_fields(states=np.array([TrackState.LOST, TrackState.TENTATIVE], np.uint8))
    assert format_rows(4, lost) == '5,12,100.50,51.25,20.50,29.75,0.5000,-1,-1\n'


def test_an_empty_frame_has_no_lines() -> None:
    assert format_rows(0, TRACKS.select(np.zeros(0, int))) == ''


def test_our_reader_reads_it_back(tmp_path: Path) -> None:
    writer = MotWriter(tmp_path / 'tracks.txt')
    for index in (0, 1, 7):
        writer.write(index, TRACKS)
    writer.close()
    rows = read_rows(tmp_path / 'tracks.txt')
    np.testing.assert_array_equal(rows.frames, [1, 1, 2, 2, 8, 8])
    np.testing.assert_array_equal(rows.ids, [3, 12] * 3)
    np.testing.assert_array_equal(rows.boxes[:2], TRACKS.boxes)


def test_what_is_written_so_far_can_be_read(tmp_path: Path) -> None:
    writer = MotWriter(tmp_path / 'tracks.txt')
    writer.write(0, TRACKS)
    assert len(read_rows(tmp_path / 'tracks.txt').ids) == 2
    writer.close()
