"""Which way the cameras of a bag looked; the angles are worked by hand."""

from __future__ import annotations

from pathlib import Path

import cv2
from masa_ros.cli.inputs import open_input
from masa_ros.cli.main import main
from masa_ros.cli.recordings import read_recording
from masa_ros.evaluation.benchmark import fingerprint, read_tracks
from masa_ros.ros.bag import BagFrames, BagReader, BagWriter, calibration_topic
from masa_ros.ros.bag_definitions import TRACKS
from masa_ros.ros.convert import (
    array_to_image,
    instances_to_detections,
    make_header,
    message_to_tracks,
)
from masa_ros.ros.parameters import NodeConfig, OdometryConfig
from masa_ros.structures.instances import Instances, TrackState
import numpy as np
import pytest
from turning_messages import camera_info, LEFT, odometry, OPTICAL, S, STILL, transforms

IMAGES = '/front/image_raw'
# 640 x 480 at a tenth: f 50 and 40 px, centre (32, 24).
HEIGHT, WIDTH = 48, 64


def write(path: Path, turns: bool = True, info: bool = True) -> Path:
    """Ten images at 10 Hz; from the fifth on the robot has turned left by atan(1/4)."""
    with BagWriter(path, reserve_bytes=10) as bag:
        bag.write('/tf_static',
                  transforms(bag.builder, 'base_link', 'camera_optical', OPTICAL, S), S)
        for index in range(10):
            stamp = 10 * S + index * S // 10
            header = make_header(stamp, 'camera_optical', bag.builder)
            image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
            bag.write(IMAGES, array_to_image(image, 'rgb8', header, bag.builder), stamp)
            if info:
                bag.write('/front/camera_info', camera_info(bag.builder), stamp)
            # Seen at the centre until the robot turns, then missed.
            boxes = Instances.from_boxes([[30, 22, 34, 26]] if index < 5 else np.zeros((0, 4)),
                                         [0.9] if index < 5 else [])
            bag.write('/boxes', instances_to_detections(boxes, header, bag.builder), stamp + 10)
            if turns:  # Recorded after the image that it belongs to.
                turn = LEFT if index >= 5 else STILL
                bag.write('/odom', odometry(bag.builder, turn, stamp), stamp + 20)
                bag.write('/tf', transforms(bag.builder, 'map', 'base_link', turn, stamp),
                          stamp + 20)
    return path


@pytest.mark.parametrize('config', [OdometryConfig('/odom'), OdometryConfig('', 'map')])
def test_frames_of_a_bag_know_which_way_the_camera_looked(
    tmp_path: Path, config: OdometryConfig,
) -> None:
    with BagReader(write(tmp_path / 'bag')) as reader:
        views = [item.frame.view for item in BagFrames(reader, {IMAGES: ''}, odometry=config)]
    assert all(view is not None for view in views)
    ahead = [view.rotation @ [0, 0, 1] for view in views if view is not None]
    np.testing.assert_allclose(ahead[4], [1, 0, 0], atol=1e-9)
    np.testing.assert_allclose(ahead[5], np.array([4, 1, 0]) / np.sqrt(17), atol=1e-9)
    assert views[0] is not None
    np.testing.assert_allclose(views[0].matrix, [[50, 0, 32.05], [0, 40, 24.05], [0, 0, 1.0]])


def test_views_are_not_looked_up_unless_asked_for(tmp_path: Path) -> None:
    with BagReader(write(tmp_path / 'bag')) as reader:
        assert all(item.frame.view is None for item in BagFrames(reader, {IMAGES: ''}))


def test_images_whose_rotation_is_not_known_are_counted_with_the_reason(tmp_path: Path) -> None:
    config = NodeConfig(odometry=OdometryConfig('', 'odom'))
    source = open_input(write(tmp_path / 'bag'), config, camera_motion='odometry')
    try:
        assert [item.frame.view for item in source] == [None] * 10
        assert any('10 images without the turning of the camera' in problem
                   and 'not connected' in problem for problem in source.problems())
    finally:
        source.close()


def test_a_bag_that_cannot_tell_is_an_error_that_names_what_it_has(tmp_path: Path) -> None:
    config = OdometryConfig('/odom')
    with (BagReader(write(tmp_path / 'no_turns', turns=False)) as reader,
          pytest.raises(ValueError, match='no nav_msgs/msg/Odometry on .*it has /tf_static')):
        BagFrames(reader, {IMAGES: ''}, odometry=config)
    with (BagReader(write(tmp_path / 'no_info', info=False)) as reader,
          pytest.raises(ValueError, match='no sensor_msgs/msg/CameraInfo on /front/camera_info')):
        BagFrames(reader, {IMAGES: ''}, odometry=config)


def test_odometry_is_refused_for_what_is_no_bag(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='for bags'):
        open_input(tmp_path / 'video.mp4', NodeConfig(), camera_motion='odometry')


def test_the_calibration_is_beside_the_images() -> None:
    assert calibration_topic('/front/image_raw') == '/front/camera_info'
    assert calibration_topic('/front/image_raw/compressed') == '/front/camera_info'
    assert calibration_topic('/image') == '/camera_info'


def test_a_sequence_keeps_its_views_through_a_stride(tmp_path: Path) -> None:
    bag = write(tmp_path / 'bag')
    config = NodeConfig(odometry=OdometryConfig('/odom'))
    seen, = read_recording(bag, config, tmp_path / 'cache', camera_motion='odometry')
    blind, = read_recording(bag, config, tmp_path / 'cache')
    assert len(seen.views) == 10
    assert not blind.views
    assert fingerprint(seen) != fingerprint(blind)
    every_fifth = seen.strided(5)
    assert [every_fifth.view(i) is seen.view(5 * i) for i in range(2)] == [True, True]


@pytest.mark.parametrize(('motion', 'center_px'), [('none', 32.0), ('odometry', 44.5)])
def test_evaluate_and_track_take_the_turning_out(
    tmp_path: Path, motion: str, center_px: float,
) -> None:
    """A track that is missed while the robot turns is looked for 50 px * 1/4 further right."""
    bag = write(tmp_path / 'bag')
    settings = ['--set', f'tracker.camera_motion={motion}', '--set', 'odometry.topic=/odom',
                '--set', 'tracker.coast_seconds=2.0', '--model', 'classical']
    assert main(['evaluate', str(bag), '--boxes', 'given', '--out', str(tmp_path / 'report'),
                 '--cache', str(tmp_path / 'cache'), *settings]) == 0
    kept, = (tmp_path / 'cache' / 'tracks').glob('*.npz')
    assert main(['track', str(bag), '--out', str(tmp_path / 'tracked'), *settings]) == 0
    with BagReader(next((tmp_path / 'tracked').glob('*/metadata.yaml')).parent) as reader:
        topic, = reader.topics_of(TRACKS)
        messages = [message_to_tracks(message) for _, message in reader.messages([topic.name])]
    for last in (read_tracks(kept)[0][-1], messages[-1]):
        assert last.states.tolist() == [TrackState.COASTING]
        assert last.boxes[0, [0, 2]].mean() == pytest.approx(center_px, abs=0.1)


def test_evaluate_refuses_odometry_where_there_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / 'seq'
    (folder / 'gt').mkdir(parents=True)
    (folder / 'gt' / 'gt.txt').write_text('1,1,10,10,20,20,1,1,1\n')
    (folder / 'img1').mkdir()
    cv2.imwrite(str(folder / 'img1' / '000001.jpg'), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    (folder / 'seqinfo.ini').write_text(
        '[Sequence]\nname=seq\nframeRate=10\nseqLength=1\nimWidth=64\nimHeight=48\n'
        'imExt=.jpg\n')
    assert main(['evaluate', str(folder), '--out', str(tmp_path / 'report'), '--set',
                 'tracker.camera_motion=odometry']) != 0
    assert 'how the camera turned' in capsys.readouterr().err
