"""Published detections on the frames of a data set."""

from __future__ import annotations

import json
from pathlib import Path
import pickle

from masa_ros.evaluation.datasets.given_detections import (
    from_coco_results,
    from_pickles,
    give,
    read_pickle,
)
from masa_ros.evaluation.datasets.sequence import Sequence
import numpy as np
import pytest


def sequence(tmp_path: Path) -> Sequence:
    return Sequence('v', np.array([0, 30]), np.array([0, 10 ** 9]), 1.0,
                    (tmp_path / 'frames' / 'v' / '1.jpg', tmp_path / 'frames' / 'v' / '2.jpg'))


def write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content))


def test_pickles_with_and_without_scores_are_read(tmp_path: Path) -> None:
    folder = tmp_path / 'dets' / 'v'
    write(folder / '1.pth', {'det_bboxes': np.array([[1, 2, 3, 4, 0.5]], np.float32),
                             'det_labels': np.array([6])})
    write(folder / '2.pth', {'det_bboxes': np.array([[1, 2, 3, 4]], np.float64),
                             'det_labels': np.array([2])})
    given = from_pickles(sequence(tmp_path), tmp_path / 'dets', tmp_path / 'frames')
    assert [frame.scores.tolist() for frame in given.detections] == [[0.5], [1.0]]
    assert [frame.class_ids.tolist() for frame in given.detections] == [[6], [2]]


def test_frames_without_detections_are_read(tmp_path: Path) -> None:
    for name in ('1', '2'):
        write(tmp_path / 'dets' / 'v' / f'{name}.pth',
              {'det_bboxes': np.zeros((0, 5)), 'det_labels': np.zeros(0, int)})
    given = from_pickles(sequence(tmp_path), tmp_path / 'dets', tmp_path / 'frames')
    assert [len(frame) for frame in given.detections] == [0, 0]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r'1\.pth is missing; unpack public_dets'):
        from_pickles(sequence(tmp_path), tmp_path / 'dets', tmp_path / 'frames')


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ('code of the file ran',)


def test_a_pickle_that_would_run_code_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    write(tmp_path / 'bad.pth', {'det_bboxes': Harmful()})
    with pytest.raises(ValueError, match=r'asks for builtins\.print.*could run code'):
        read_pickle(tmp_path / 'bad.pth')
    assert capsys.readouterr().out == ''


def test_a_damaged_pickle_is_an_error(tmp_path: Path) -> None:
    (tmp_path / 'bad.pth').write_bytes(pickle.dumps([1, 2, 3])[:-4])
    with pytest.raises(ValueError, match='is not a pickle of detections'):
        read_pickle(tmp_path / 'bad.pth')


def test_coco_results_are_put_on_their_frames(tmp_path: Path) -> None:
    path = tmp_path / 'results.json'
    path.write_text(json.dumps([
        {'image_id': 8, 'bbox': [1, 2, 3, 4], 'score': 0.25, 'category_id': 7}]))
    given, = from_coco_results([sequence(tmp_path)], path, {('v', 0): 7, ('v', 30): 8})
    assert [len(frame) for frame in given.detections] == [0, 1]
    assert given.detections[1].boxes.tolist() == [[1, 2, 4, 6]]


def test_a_file_of_another_form_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / 'results.json'
    path.write_text('{"images": []}')
    with pytest.raises(ValueError, match='is not a list of detections'):
        from_coco_results([], path, {})


def test_the_root_of_the_images_is_found(tmp_path: Path) -> None:
    for name in ('1', '2'):
        write(tmp_path / 'dets' / 'frames' / 'v' / f'{name}.pth',
              {'det_bboxes': np.array([[1, 2, 3, 4, 0.5]]), 'det_labels': np.array([6])})
    given, = give([sequence(tmp_path)], tmp_path / 'dets')
    assert [len(frame) for frame in given.detections] == [1, 1]


def test_detections_of_other_images_are_refused(tmp_path: Path) -> None:
    (tmp_path / 'dets').mkdir()
    with pytest.raises(FileNotFoundError, match=r'no detections \(\.pth\) for .*1\.jpg'):
        give([sequence(tmp_path)], tmp_path / 'dets')
    with pytest.raises(FileNotFoundError, match='neither a folder'):
        give([sequence(tmp_path)], tmp_path / 'nothing')


def test_image_ids_come_from_the_annotation(tmp_path: Path) -> None:
    results, annotation = tmp_path / 'results.json', tmp_path / 'annotation.json'
    results.write_text(json.dumps([
        {'image_id': 8, 'bbox': [1, 2, 3, 4], 'score': 0.25, 'category_id': 7}]))
    annotation.write_text(json.dumps({
        'videos': [{'id': 1, 'name': 'v'}],
        'images': [{'id': 8, 'video_id': 1, 'frame_id': 30}]}))
    given, = give([sequence(tmp_path)], results, annotation)
    assert [len(frame) for frame in given.detections] == [0, 1]
    with pytest.raises(ValueError, match='names images by number'):
        give([sequence(tmp_path)], results)


def scalabel(score: float) -> dict[str, object]:
    return {'category': 'car', 'box2d': {'x1': 1, 'y1': 2, 'x2': 5, 'y2': 8}, 'score': score}


@pytest.mark.parametrize('one_file', [True, False])
def test_scalabel_results_are_put_on_their_frames(tmp_path: Path, one_file: bool) -> None:
    frames = [{'video_name': 'v', 'name': 'v/v-31.jpg', 'index': 30, 'labels': [
                  scalabel(0.5), {**scalabel(0.25), 'id': 3, 'category': 'pedestrian'}]},
              {'video_name': 'v', 'name': 'v/v-2.jpg', 'index': 1, 'labels': [scalabel(0.75)]}]
    path = tmp_path / 'results' / 'v.json'
    path.parent.mkdir()
    path.write_text(json.dumps(frames))
    given, = give([sequence(tmp_path)], path if one_file else path.parent)
    # Frame 0 has no results, frame 1 is none of the sequence.
    assert [frame.scores.tolist() for frame in given.detections] == [[], [0.5, 0.25]]
    assert given.detections[1].labels == ('car', 'pedestrian')
    assert given.detections[1].class_ids.tolist() == [3, 1]
    assert given.detections[1].boxes[0].tolist() == [1, 2, 5, 8]


def test_scalabel_results_of_other_videos_are_refused(tmp_path: Path) -> None:
    path = tmp_path / 'w.json'
    path.write_text(json.dumps([{'name': 'w-1.jpg', 'frameIndex': 0, 'labels': []}]))
    with pytest.raises(FileNotFoundError, match='no detections for 1 of 1 sequences, such as v'):
        give([sequence(tmp_path)], path)
