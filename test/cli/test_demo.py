"""``masa_ros demo``: truth, scores, report, and the whole thing over DDS."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
import re
import subprocess
import sys
from typing import Any

import cv2
from masa_ros.cli import demo
from masa_ros.cli.demo_recording import (
    DETECTIONS_TOPIC,
    given_recording,
    IMAGE_TOPIC,
    Recording,
    START_NS,
    truth_sequence,
    TRUTH_TOPIC,
)
from masa_ros.cli.main import main
from masa_ros.evaluation.datasets.sequence import with_ids
from masa_ros.rendering import GroundTruth, SceneConfig
from masa_ros.ros.bag import BagReader
from masa_ros.ros.bag_definitions import COMPRESSED_IMAGE
from masa_ros.ros.convert import message_to_tracks
from masa_ros.structures.instances import Instances
from masa_ros.structures.masks import RoiMask
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
LAST_LINE = re.compile(
    r'HOTA (\d+\.\d|n/a)  IDF1 (\d+\.\d|n/a)  MOTA (-?\d+\.\d|n/a)  frames (\d+)  dropped (\d+)')


def perfect_answers(recording: Recording) -> demo.Answers:
    assert recording.truth is not None
    truth = recording.truth
    tracks = dict(zip(truth.stamps_ns.tolist(), truth.truth, strict=True))
    return demo.Answers(tracks, {'track': 1.0}, 'perfect@0')


def test_the_recording_holds_images_boxes_and_truth(street: Recording) -> None:
    with BagReader(street.bag) as reader:
        assert {topic.name: topic.count for topic in reader.topics} == {
            IMAGE_TOPIC: 15, DETECTIONS_TOPIC: 15, TRUTH_TOPIC: 15}
        messages = [message for _, message in reader.messages([TRUTH_TOPIC])]
    assert street.truth is not None
    for message, truth in zip(messages, street.truth.truth, strict=True):
        written = message_to_tracks(message)
        rows = np.isin(written.track_ids, truth.track_ids)
        np.testing.assert_array_equal(written.boxes[rows], truth.boxes)
        assert all(mask is not None and mask.area for mask in written.select(rows).masks)


def test_what_is_hardly_visible_or_tiny_is_a_distractor() -> None:
    boxes = np.array([[0, 0, 20, 20], [30, 0, 50, 20], [60, 0, 63, 20], [0, 0, 0, 0]], np.float32)
    empty = RoiMask(0, 0, 0, 0, np.zeros(0, np.uint32))
    truth = GroundTruth(np.arange(1, 5), np.zeros(4, np.int64), ('dog',) * 4, boxes, boxes,
                        (empty,) * 4, np.array([0.9, 0.1, 0.9, 0.0], np.float32))
    sequence = truth_sequence([truth], np.array([5]), 10.0, SceneConfig())
    assert sequence.truth[0].track_ids.tolist() == [1]
    np.testing.assert_array_equal(sequence.distractors[0], boxes[1:3])


def test_perfect_answers_get_perfect_scores(street: Recording, tmp_path: Path) -> None:
    scores = demo.write_results(street, perfect_answers(street), tmp_path, 15, [0.01, 0.03])
    assert demo.last_line(scores, 15, 15) == (
        'HOTA 100.0  IDF1 100.0  MOTA 100.0  frames 15  dropped 0')
    page = (tmp_path / 'report.html').read_text()
    assert 'perfect@0' in page
    assert '20 ms (median)' in page
    assert (tmp_path / 'overlay.webm').stat().st_size > 10000
    assert (tmp_path / 'tracks.txt').stat().st_size > 1000


def test_scores_are_over_the_frames_that_were_processed(
    street: Recording, tmp_path: Path,
) -> None:
    answers = perfect_answers(street)
    some = demo.Answers(dict(list(answers.tracks.items())[::3]), {}, 'x')
    scores = demo.write_results(street, some, tmp_path, 15, [])
    assert demo.last_line(scores, len(some.tracks), 15) == (
        'HOTA 100.0  IDF1 100.0  MOTA 100.0  frames 5  dropped 10')


def test_without_truth_or_answers_there_are_no_scores(street: Recording, tmp_path: Path) -> None:
    unknown = Recording(street.bag, IMAGE_TOPIC, COMPRESSED_IMAGE, '', 'mine')
    scores = demo.write_results(unknown, perfect_answers(street), tmp_path, 15, [])
    assert demo.last_line(scores, 15, 16) == (
        'HOTA n/a  IDF1 n/a  MOTA n/a  frames 15  dropped 1')
    assert 'no ground truth' in (tmp_path / 'report.html').read_text()
    assert demo.write_results(street, demo.Answers({}, {}, ''), tmp_path, 15, []) is None


def test_a_folder_of_images_becomes_a_bag(tmp_path: Path) -> None:
    folder = tmp_path / 'seq'
    folder.mkdir()
    for index in range(30):
        cv2.imwrite(str(folder / f'{index}.jpg'), np.full((40, 60, 3), 8 * index, np.uint8))
    boxes = tmp_path / 'det.txt'
    boxes.write_text('1,-1,1,1,10,10,0.9\n')
    recording = given_recording(folder, tmp_path / 'bag', [], str(boxes), 10.0, 2.0, False)
    assert recording.detections_topic == DETECTIONS_TOPIC
    assert recording.truth is None
    with BagReader(recording.bag) as reader:
        messages = list(reader.raw([IMAGE_TOPIC]))
    assert [raw.time_ns - START_NS for raw in messages] == [i * 10**8 for i in range(20)]


def test_a_bag_is_played_as_it_is(street: Recording, tmp_path: Path) -> None:
    recording = given_recording(street.bag, tmp_path / 'bag', [], '', None, 60.0, False)
    assert recording.bag == street.bag
    assert recording.image_type == COMPRESSED_IMAGE
    assert recording.detections_topic == DETECTIONS_TOPIC
    assert not (tmp_path / 'bag').exists()
    with_detector = given_recording(street.bag, tmp_path / 'bag', [], '', None, 60.0, True)
    assert with_detector.detections_topic == ''


def test_parameters_of_the_user_go_before_those_of_the_demo(street: Recording) -> None:
    values = demo._node_values(argparse.Namespace(policy='latest'), {'policy': 'every'}, street)
    assert values['policy'] == 'every'
    assert values['compressed'] is True
    assert values['detections.source'] == 'topic'
    assert demo._ros_values({'a': (), 'b': ('x',), 'c': 1}) == {'a': [''], 'b': ['x'], 'c': 1}


def test_a_recording_without_boxes_stops_before_the_node_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    cv2.imwrite(str(tmp_path / '1.jpg'), np.zeros((40, 60, 3), np.uint8))
    assert main(['demo', '--out', str(tmp_path / 'out'), '--input', str(tmp_path / '1.jpg'),
                 '--model', 'classical']) == 2
    shown = capsys.readouterr().err
    assert '--detector' in shown
    assert '--detections' in shown


def test_a_wrong_size_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['demo', '--out', str(tmp_path), '--size', 'big']) == 2
    assert 'expected WIDTHxHEIGHT' in capsys.readouterr().err


def test_files_of_the_user_survive_a_second_demo(tmp_path: Path) -> None:
    (tmp_path / 'mine.txt').write_text('keep me')
    (tmp_path / 'recording').mkdir()
    demo._prepare_folder(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ['mine.txt']


def run_demo(out: Path, *words: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, '-m', 'masa_ros', 'demo', '--out', str(out), *map(str, words)],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=200)


@pytest.mark.ros
def test_the_whole_demo_over_dds(tmp_path: Path) -> None:
    done = run_demo(tmp_path, '--size', '320x180', '--duration', 2, '--objects', 20,
                    '--speed', 0.5, '--detections', 'simulated', '--model', 'classical')
    assert done.returncode == 0, done.stderr
    line = LAST_LINE.fullmatch(done.stdout.splitlines()[-1])
    assert line is not None, done.stdout
    hota, _, _, frames, dropped = line.groups()
    assert int(frames) + int(dropped) == 20
    assert int(frames) >= 10
    assert float(hota) > 30
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {'recording', 'tracks', 'tracks.txt', 'overlay.webm', 'contact_sheet.png',
                     'report.html', 'node.log', 'node.yaml'}
    assert 'active: tracking' in (tmp_path / 'node.log').read_text()


@pytest.mark.ros
def test_the_model_finds_everything_in_a_street_without_detections(tmp_path: Path) -> None:
    done = run_demo(tmp_path, '--size', '480x272', '--duration', 2, '--objects', 20,
                    '--policy', 'every', '--model', 'tiny')
    assert done.returncode == 0, done.stderr
    line = LAST_LINE.fullmatch(done.stdout.splitlines()[-1])
    assert line is not None, done.stdout
    # Figures of chance: all objects found, none kept apart, would give a HOTA below 20.
    assert float(line[1]) > 20
    assert int(line[4]) == 10
    report = (tmp_path / 'report.html').read_text()
    assert 'what matches no true object is left out' in report
    assert 'tiny@' in report


def test_what_is_not_in_the_truth_counts_only_where_detections_say_what_to_look_for(
    street: Recording, tmp_path: Path,
) -> None:
    more = {
        stamp: with_ids(Instances.from_boxes(np.concatenate([tracks.boxes, [[0, 0, 5, 5]]])),
                        [*tracks.track_ids, 999])
        for stamp, tracks in perfect_answers(street).tracks.items()}
    answers = demo.Answers(more, {}, 'x')
    scores = demo.write_results(street, answers, tmp_path, 15, [])
    assert scores is not None
    assert scores['FP'] == 15
    alone = replace(street, detections_topic='')
    scores = demo.write_results(alone, answers, tmp_path, 15, [])
    assert scores is not None
    assert (scores['FP'], scores['FN'], scores['IDSW']) == (0, 0, 0)


def test_a_street_has_no_detections_but_simulated_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(['demo', '--out', str(tmp_path), '--detections', 'det.txt']) == 2
    assert "only 'simulated' ones" in capsys.readouterr().err


@pytest.mark.ros
def test_a_node_that_cannot_start_is_reported(street: Recording, tmp_path: Path) -> None:
    done = run_demo(tmp_path, '--input', street.bag, '--model', 'sam_vit_b',
                    '--checkpoint', tmp_path / 'missing.pth')
    assert done.returncode == 2
    assert 'did not start' in done.stderr
    assert 'missing.pth' in done.stderr
    assert 'Traceback' not in done.stderr
