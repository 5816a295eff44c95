"""Several cameras in one real node, fed over DDS; its model is the one of fake_tracker.py."""

from __future__ import annotations

from pathlib import Path
import time
from typing import Any, TypeAlias

import cv2
from masa_ros.ros import convert
import numpy as np
import pytest

pytestmark = pytest.mark.ros

# The class in conftest.py, which pytest does not let a test module import.
Robot: TypeAlias = Any

TWO = "cameras:=['front','left']"


class Rig:
    """Cameras of a robot, each with its own images, boxes and answers."""

    def __init__(self, robot: Robot, *names: str) -> None:
        from masa_ros.msg import TrackedObjectArray
        from sensor_msgs.msg import Image
        self.robot = robot
        self.names = names
        for name in names:
            robot.listen(name, TrackedObjectArray, f'/tracker/{name}/output/tracks', 100)
        robot.wait_until(lambda: all(
            robot.node.count_publishers(f'/tracker/{name}/output/tracks') == 1
            for name in names), 'the tracks to be offered')
        self.images = {name: robot.publisher(f'image {name}', Image,
                                             f'/tracker/{name}/input/image') for name in names}

    def send(self, name: str, shade: int = 100, corner: tuple[int, int, int] | None = None,
             **changes: Any) -> Any:
        """Send an image of one camera; returns its header."""
        pixels = np.full((48, 64, 3), shade, np.uint8)
        if corner is not None:
            pixels[0, 0] = corner
        header = convert.make_header(self.robot.clock_ns, f'{name}_optical')
        message = convert.array_to_image(pixels, 'rgb8', header)
        for key, value in changes.items():
            setattr(message, key, value)
        self.images[name].publish(message)
        return header

    def answer(self, name: str, header: Any) -> Any:
        messages = self.robot.received[name]
        self.robot.wait_until(lambda: any(message.header == header for message in messages),
                              f'tracks of {name}')
        return next(message for message in messages if message.header == header)

    def track(self) -> dict[str, Any]:
        """One image of every camera at the same time, and the answers to them."""
        self.robot.tick()
        headers = {name: self.send(name) for name in self.names}
        return {name: self.answer(name, header) for name, header in headers.items()}


def test_each_camera_has_its_own_topics_ids_and_stream(robot: Robot) -> None:
    robot.start(TWO, 'policy:=every', PROPOSES='1')
    rig = Rig(robot, 'front', 'left')
    answers = [rig.track() for _ in range(3)]
    for name in rig.names:
        own = [answer[name] for answer in answers]
        assert [[entry.id for entry in answer.objects] for answer in own] == [[1]] * 3
        assert [answer.sequence for answer in own] == [0, 1, 2]
        assert {answer.stream for answer in own} == {name}
        assert own[0].header.frame_id == f'{name}_optical'
    uuids = {name: bytes(answers[0][name].objects[0].uuid.uuid) for name in rig.names}
    assert uuids['front'] != uuids['left']
    assert {name for name, _ in robot.node.get_topic_names_and_types()
            if name.startswith('/tracker/input') or name.startswith('/tracker/output')} == set()


def test_a_camera_that_stalls_does_not_stop_the_others(robot: Robot) -> None:
    robot.start(TWO, 'policy:=every', PROPOSES='1')
    rig = Rig(robot, 'front', 'left')
    robot.listen_diagnostics()
    for _ in range(5):
        rig.track()
    for _ in range(5):
        robot.tick()
        rig.answer('left', rig.send('left'))
    after = rig.track()
    assert (after['front'].sequence, after['left'].sequence) == (5, 10)
    assert (after['front'].dropped, after['left'].dropped) == (0, 0)
    assert [after[name].objects[0].id for name in rig.names] == [1, 1]


def test_a_bad_image_of_one_camera_costs_the_other_nothing(robot: Robot) -> None:
    robot.start(TWO, 'policy:=every', PROPOSES='1')
    rig = Rig(robot, 'front', 'left')
    robot.listen_diagnostics()
    rig.track()
    for changes in ({'encoding': 'rgb9'}, {'corner': (66, 6, 66)}):  # cannot be read, or tracked
        robot.tick()
        rig.send('front', **changes)
        assert len(rig.answer('left', rig.send('left')).objects) == 1
    after = rig.track()
    assert (after['front'].sequence, after['front'].dropped) == (1, 2)
    assert (after['left'].sequence, after['left'].dropped) == (3, 0)
    _, values = robot.diagnostics('stream front', lambda _, values: (
        values['images dropped'] == '2'))
    assert (values['dropped: bad image'], values['dropped: processing failed']) == ('1', '1')
    _, values = robot.diagnostics('stream left', lambda *_: True)
    assert values['images dropped'] == '0'
    assert 'front: image is dropped' in robot.output


def test_each_camera_takes_its_own_detections(robot: Robot) -> None:
    from masa_ros.structures.instances import Instances
    from vision_msgs.msg import Detection2DArray
    robot.start(TWO, 'policy:=every', 'detections.wait_s:=20.0')
    rig = Rig(robot, 'front', 'left')
    boxes = {'front': [[10.0, 8.0, 30.0, 40.0]],
             'left': [[1.0, 1.0, 9.0, 9.0], [40.0, 8.0, 60.0, 40.0]]}
    makers = {name: robot.publisher(f'boxes {name}', Detection2DArray,
                                    f'/tracker/{name}/input/detections') for name in rig.names}
    robot.tick()
    headers = {name: rig.send(name) for name in rig.names}
    for name in rig.names:
        makers[name].publish(convert.instances_to_detections(
            Instances.from_boxes(boxes[name]), headers[name]))
    for name in rig.names:
        found = [[entry.x0, entry.y0, entry.x1, entry.y1]
                 for entry in rig.answer(name, headers[name]).objects]
        assert found == boxes[name]


def test_calibrations_come_out_with_the_headers_of_the_images(robot: Robot) -> None:
    from sensor_msgs.msg import CameraInfo
    robot.start(TWO, 'policy:=every', PROPOSES='1')
    rig = Rig(robot, 'front', 'left')
    robot.listen('info', CameraInfo, '/tracker/front/output/camera_info')
    info = robot.publisher('info front', CameraInfo, '/tracker/front/input/camera_info')
    message = CameraInfo(height=48, width=64)
    message.k[0] = 500.0

    def passed_on() -> bool:
        info.publish(message)
        robot.spin(0.1)
        rig.track()
        return bool(robot.received['info'])
    robot.wait_until(passed_on, 'a calibration')
    got = robot.received['info'][-1]
    assert (got.k[0], got.width, got.header.frame_id) == (500.0, 64, 'front_optical')
    assert convert.stamp_to_ns(got.header.stamp) > 0


def test_a_single_camera_passes_its_calibration_on_too(robot: Robot) -> None:
    from sensor_msgs.msg import CameraInfo
    robot.start(PROPOSES='1')
    robot.listen_tracks()
    robot.listen('info', CameraInfo, '/tracker/output/camera_info')
    info = robot.publisher('info', CameraInfo, '/tracker/input/camera_info')

    widths: dict[int, int] = {}

    def passed_on() -> bool:
        header = robot.tick()
        widths[convert.stamp_to_ns(header.stamp)] = len(widths)
        info.publish(CameraInfo(header=header, width=len(widths) - 1))
        robot.spin(0.1)
        robot.answer(robot.send_image(header=header))
        return bool(robot.received['info'])
    robot.wait_until(passed_on, 'a calibration')
    message = robot.received['info'][-1]
    assert message.width == widths[convert.stamp_to_ns(message.header.stamp)]


def test_every_camera_may_ignore_another_part_of_its_image(robot: Robot, tmp_path: Path) -> None:
    picture = np.zeros((48, 64), np.uint8)
    picture[:, 32:] = 255
    path = tmp_path / 'right_half.png'
    path.write_bytes(cv2.imencode('.png', picture)[1].tobytes())
    robot.start(TWO, 'policy:=every', f'camera.left.regions.ignore_image:={path}', PROPOSES='1')
    rig = Rig(robot, 'front', 'left')
    answers = rig.track()
    assert [len(answers[name].objects) for name in rig.names] == [1, 0]
    done, reason = robot.set_parameter('camera.left.regions.ignore_polygons', ['1,2 3,4'])
    assert not done
    assert 'at least three corners' in reason
    assert robot.set_parameter(
        'camera.front.regions.ignore_polygons', ['30,0 64,0 64,48 30,48'])[0]
    assert [len(rig.track()[name].objects) for name in rig.names][1] == 0
    last = rig.track()['front']
    assert [entry for entry in last.objects if entry.state <= entry.STATE_TRACKED] == []
    assert 'settings changed' in robot.output


def test_a_missing_region_file_leaves_the_node_unconfigured_and_says_so(robot: Robot) -> None:
    robot.start('regions.ignore_image:=/none/bonnet.png', wait=False, PROPOSES='1')
    robot.wait_until(lambda: 'cannot be loaded' in robot.output, 'the reason')
    assert 'regions.ignore_image: /none/bonnet.png is not there' in robot.output
    assert robot.state() == 'unconfigured'


@pytest.mark.parametrize(('names', 'text'), [
    ("['front','front']", 'a name twice'), ("['a b']", 'letters, digits'),
    ("['input']", 'letters, digits')])
def test_wrong_names_of_cameras_end_the_start_with_a_reason(
    robot: Robot, names: str, text: str,
) -> None:
    robot.start(f'cameras:={names}', wait=False)
    assert robot.wait() == 1
    assert text in robot.output
    assert 'Traceback' not in robot.output


def test_cameras_cannot_change_later(robot: Robot) -> None:
    robot.start(TWO, 'autostart:=false', wait=False)
    done, reason = robot.set_parameter('cameras', ['front'])
    assert not done
    assert 'only be given when the node is started' in reason


@pytest.mark.timeout(180)
def test_six_cameras_go_on_when_one_stalls(robot: Robot) -> None:
    """Five cameras at 10 Hz go on at their pace while the sixth says nothing."""
    names = ['c0', 'c1', 'c2', 'c3', 'c4', 'c5']
    robot.start(f'cameras:={names}', PROPOSES='1')
    rig = Rig(robot, *names)
    for _ in range(5):
        rig.track()
        robot.spin(0.05)
    before = {name: len(robot.received[name]) for name in names}
    waits: list[float] = []
    for _ in range(10):
        started = time.monotonic()
        robot.tick()
        headers = {name: rig.send(name) for name in names[:5]}
        answers = [rig.answer(name, header) for name, header in headers.items()]
        waits += [dict(zip(answer.stage_names, answer.stage_times_ms, strict=True))['wait']
                  for answer in answers]
        robot.spin(max(0.0, 0.1 - (time.monotonic() - started)))
    assert [len(robot.received[name]) - before[name] for name in names] == [10] * 5 + [0]
    # Were the silent one waited for every time, all images would wait 50 ms for it.
    assert float(np.median(waits)) < 45
