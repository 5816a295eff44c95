"""Recordings of every kind as frames."""

from __future__ import annotations

from pathlib import Path

import cv2
from masa_ros.cli.demo_recording import DETECTIONS_TOPIC, IMAGE_TOPIC, Recording
from masa_ros.cli.inputs import choose_topics, open_input, read_detections
from masa_ros.ros.bag import BagReader, BagWriter
from masa_ros.ros.convert import array_to_image, instances_to_detections, make_header
from masa_ros.ros.parameters import NodeConfig
from masa_ros.structures.instances import Instances
import numpy as np
import pytest


def make_bag(path: Path, images: list[str], boxes: list[str]) -> Path:
    with BagWriter(path, reserve_bytes=10) as bag:
        header = make_header(1_000_000_000, 'camera', bag.builder)
        for name in images:
            pixels = np.zeros((4, 6, 3), np.uint8)
            bag.write(name, array_to_image(pixels, 'rgb8', header, bag.builder), 1)
        for name in boxes:
            bag.write(name, instances_to_detections(
                Instances.from_boxes([[0, 0, 2, 2]]), header, bag.builder), 2)
    return path


def choose(path: Path, topics: tuple[str, ...] = (), detections: str = '',
           automatic: bool = True) -> dict[str, str]:
    with BagReader(path) as reader:
        return choose_topics(reader, topics, detections, automatic)


def test_one_camera_takes_the_only_boxes(tmp_path: Path) -> None:
    path = make_bag(tmp_path / 'bag', ['/camera/image'], ['/yolo/boxes'])
    assert choose(path) == {'/camera/image': '/yolo/boxes'}
    assert choose(path, automatic=False) == {'/camera/image': ''}


def test_each_camera_takes_the_boxes_beside_it(tmp_path: Path) -> None:
    path = make_bag(tmp_path / 'bag', ['/left/image', '/right/image', '/back/image'],
                    ['/right/boxes', '/left/boxes'])
    assert choose(path) == {'/left/image': '/left/boxes', '/right/image': '/right/boxes',
                            '/back/image': ''}


def test_depth_images_and_compressed_copies_are_left_out(tmp_path: Path) -> None:
    path = make_bag(tmp_path / 'bag', ['/c/image', '/c/image/compressed', '/c/depth/image'], [])
    assert choose(path) == {'/c/image': ''}
    assert choose(path, ('/c/depth/image',)) == {'/c/depth/image': ''}


def test_topics_can_be_named_with_their_boxes(tmp_path: Path) -> None:
    path = make_bag(tmp_path / 'bag', ['/a', '/b'], ['/x', '/y'])
    assert choose(path, ('/b:/x',)) == {'/b': '/x'}
    assert choose(path, ('/b',), '/y') == {'/b': '/y'}


def test_topics_that_do_not_fit_are_explained(tmp_path: Path) -> None:
    path = make_bag(tmp_path / 'bag', ['/a', '/b'], ['/x'])
    with pytest.raises(ValueError, match='not clear'):
        choose(path, (), '/x')
    with pytest.raises(ValueError, match=r"no detections on '/z'; it has /x"):
        choose(path, (), '/z')
    path = make_bag(tmp_path / 'boxes', [], ['/x'])
    with pytest.raises(ValueError, match='has no images'):
        choose(path)


def test_a_bag_gives_frames_with_boxes_and_times(street: Recording) -> None:
    source = open_input(street.bag, NodeConfig())
    assert source.streams == [IMAGE_TOPIC]
    assert source.total == 15
    assert source.has_detections
    assert DETECTIONS_TOPIC in source.description
    items = list(source)
    source.close()
    assert [item.frame.frame_index for item in items] == list(range(15))
    assert all(item.detections is not None for item in items)
    assert [item.frame.stamp_ns for item in items] == [item.recorded_ns for item in items]
    assert not source.incomplete()
    assert source.problems() == []


def folder_of_images(path: Path, count: int = 3) -> Path:
    (path / 'img1').mkdir(parents=True)
    for index in range(count):
        cv2.imwrite(str(path / 'img1' / f'{index + 1:06d}.png'), np.full((20, 30, 3), index))
    return path


def test_a_folder_takes_the_boxes_that_lie_in_it(tmp_path: Path) -> None:
    folder = folder_of_images(tmp_path / 'seq')
    (folder / 'det').mkdir()
    (folder / 'det' / 'det.txt').write_text('1,-1,1,1,10,10,0.5\n3,-1,2,2,10,10,0.5\n')
    source = open_input(folder, NodeConfig())
    found = [item.detections for item in source]
    assert [None if item is None else len(item) for item in found] == [1, 0, 1]
    assert open_input(folder, NodeConfig(), use_bag_detections=False).has_detections is False


def test_a_file_of_boxes_can_be_named(tmp_path: Path) -> None:
    folder = folder_of_images(tmp_path / 'seq')
    file = tmp_path / 'boxes.txt'
    file.write_text('2,-1,1,1,10,10,0.5,3,-1\n')
    source = open_input(folder, NodeConfig(), detections=str(file))
    found = [item.detections for item in source]
    assert [len(item) for item in found if item is not None] == [0, 1, 0]
    assert found[1] is not None
    assert found[1].class_ids.tolist() == [2]


def test_boxes_count_pixels_and_classes_from_zero_and_unknown_scores_are_ranked(
    tmp_path: Path,
) -> None:
    file = tmp_path / 'det.txt'
    file.write_text('1,-1,11,21,10,20,55,-1,-1\n1,-1,1,1,5,5,20,1,-1\n')
    boxes = read_detections(file)[0]
    np.testing.assert_array_equal(boxes.boxes, [[10, 20, 20, 40], [0, 0, 5, 5]])
    np.testing.assert_array_equal(boxes.class_ids, [-1, 0])
    np.testing.assert_allclose(boxes.scores, [1.0, 0.625])


def test_options_that_do_not_fit_the_recording_are_refused(
    tmp_path: Path, street: Recording,
) -> None:
    with pytest.raises(ValueError, match='--fps is for videos'):
        open_input(street.bag, NodeConfig(), fps=5.0)
    with pytest.raises(ValueError, match='--topics is for bags'):
        open_input(folder_of_images(tmp_path / 'seq'), NodeConfig(), topics=['/a'])
    with pytest.raises(FileNotFoundError):
        open_input(tmp_path / 'nothing', NodeConfig())
