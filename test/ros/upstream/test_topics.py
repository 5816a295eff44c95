"""The real node reads topics of every upstream type, each published by a process of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
import math
import os
from pathlib import Path
import signal
import subprocess
import sys
from types import SimpleNamespace
from typing import Any, TypeAlias

from masa_ros.ros import convert
from masa_ros.ros.intake import Intake, Work
from masa_ros.ros.monitor import Monitor
from masa_ros.ros.parameters import NodeConfig
from masa_ros.ros.upstream.topics import DetectionTopics
import pytest
import upstream_messages as messages
from upstream_messages import ARRAY, OWN, SINGLE, Thing, TIER4, YOLO

pytestmark = pytest.mark.ros

# The class in conftest.py, which pytest does not let a test module import.
Robot: TypeAlias = Any

TOPIC = '/tracker/input/detections'
IMAGE = '/tracker/input/image'


class Detectors:
    """Detector processes beside the robot."""

    def __init__(self, robot: Robot) -> None:
        self.robot = robot
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, kind: str, topic: str = TOPIC, *more: str) -> subprocess.Popen[bytes]:
        pytest.importorskip(f'{kind.partition("/")[0]}.msg')
        before = self.robot.node.count_publishers(topic)
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name('publisher.py')), topic, kind, *more],
            env={**os.environ, 'ROS_DOMAIN_ID': str(self.robot.domain)})
        self.processes.append(process)
        self.robot.wait_until(
            lambda: self.robot.node.count_publishers(topic) > before, f'a detector on {topic}')
        return process

    def wait_until_read(self, kind: str, topic: str = TOPIC) -> None:
        self.robot.diagnostics('detections', lambda _, values: (
            values.get(f'{topic}: type') == kind and values[f'{topic}: publishers'] != '0'))

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture
def detectors(robot: Robot) -> Iterator[Detectors]:
    made = Detectors(robot)
    yield made
    made.close()


def start(robot: Robot, *arguments: str, **environment: str) -> None:
    robot.start('policy:=every', 'diagnostics.period_s:=0.2', *arguments, **environment)
    robot.listen_tracks()
    robot.listen_diagnostics()


def first_answer(robot: Robot) -> Any:
    """Send images until the detector, which is found some time after its start, answers."""
    robot.image_publisher()
    robot.wait_until(lambda: robot.send_image() is not None and (
        robot.spin(0.1) or len(robot.tracks) > 0), 'tracks from the detector')
    return robot.tracks[-1]


@pytest.mark.parametrize('kind', [ARRAY, SINGLE, YOLO, TIER4, OWN])
def test_a_detector_of_any_type_plugs_in_by_topic_name_alone(
    robot: Robot, detectors: Detectors, kind: str,
) -> None:
    # The node is there first: it learns the type when the publisher comes.
    start(robot)
    detectors.start(kind)
    detectors.wait_until_read(kind)
    answer = first_answer(robot)
    assert len(answer.objects) == 1
    entry = answer.objects[0]
    assert (entry.x0, entry.y0, entry.x1, entry.y1) == (10, 8, 30, 40)
    assert entry.label == 'car'
    assert entry.score == pytest.approx(0.9)
    assert entry.flags & entry.FLAG_FROM_DETECTION
    assert answer.detections == answer.DETECTIONS_UPSTREAM
    assert list(answer.detection_topics) == [TOPIC]
    assert entry.detected_by == 1
    assert 'convert' in answer.stage_names


def test_a_detector_that_was_there_before_the_node(
    robot: Robot, detectors: Detectors,
) -> None:
    detectors.start(YOLO, '/yolo/detections')
    start(robot, "detections.topics:=['/yolo/detections']")
    detectors.wait_until_read(YOLO, '/yolo/detections')
    assert first_answer(robot).objects[0].label == 'car'


# --- types ----------------------------------------------------------------------------------


def test_a_type_that_cannot_be_read_is_an_error_that_lists_those_that_can(robot: Robot) -> None:
    from std_msgs.msg import String
    robot.other_node().create_publisher(String, TOPIC, 10)
    start(robot)
    status, _ = robot.diagnostics('detections', lambda status, _: status.level == b'\x02')
    assert f'{TOPIC} carries std_msgs/msg/String, which is not among' in status.message
    for kind in (ARRAY, SINGLE, YOLO, TIER4, OWN):
        assert kind in status.message


def test_a_second_type_on_a_topic_is_reported_and_read_when_the_first_has_gone(
    robot: Robot, detectors: Detectors,
) -> None:
    first = detectors.start(ARRAY)
    start(robot)
    detectors.wait_until_read(ARRAY)
    detectors.start(YOLO)
    status, values = robot.diagnostics(
        'detections', lambda status, _: status.level == b'\x01' and 'types' in status.message)
    assert f'{ARRAY}, which is read because it was found first' in status.message
    assert f'{YOLO}, which is not' in status.message
    assert values[f'{TOPIC}: type'] == ARRAY
    first.send_signal(signal.SIGINT)
    first.wait()
    detectors.wait_until_read(YOLO)
    assert first_answer(robot).objects[0].label == 'car'


class TwoPublishers:
    """A node, as far as choosing a type needs one, that knows two publishers at once."""

    def get_publishers_info_by_topic(self, _: str) -> list[Any]:
        return [SimpleNamespace(topic_type=kind) for kind in (YOLO, ARRAY)]


def test_two_types_found_at_once_are_an_error_that_names_the_way_out() -> None:
    complaints: list[str] = []

    def complain(_: str, text: str) -> None:
        complaints.append(text)

    config, monitor = NodeConfig(), Monitor()
    intake = Intake(config, monitor, list[Work]().append, complain)
    topics = DetectionTopics(
        TwoPublishers(), [TOPIC], config, intake, monitor, complain, complaints.append)
    topics.match()
    state, = topics.states()
    assert state.kind == ''
    assert state.publishers == 0
    assert f'{ARRAY} and {YOLO}' in state.error
    assert 'detections.types' in state.error
    assert complaints == [state.error]


def test_the_chosen_one_of_two_types_is_read(robot: Robot, detectors: Detectors) -> None:
    detectors.start(ARRAY)
    detectors.start(YOLO)
    start(robot, f"detections.types:=['{YOLO}']")
    detectors.wait_until_read(YOLO)
    assert first_answer(robot).objects[0].label == 'car'


def test_another_detector_of_another_type_takes_over(robot: Robot, detectors: Detectors) -> None:
    first = detectors.start(ARRAY)
    start(robot)
    detectors.wait_until_read(ARRAY)
    first_answer(robot)
    first.send_signal(signal.SIGINT)
    first.wait()
    detectors.start(TIER4)
    detectors.wait_until_read(TIER4)
    robot.tracks.clear()
    answer = first_answer(robot)
    assert answer.objects[0].label == 'car'
    assert robot.stop() == 0


def test_a_message_package_that_is_missing_is_an_error_that_says_where_it_is(
    robot: Robot, detectors: Detectors, tmp_path: Path,
) -> None:
    detectors.start(YOLO)
    (tmp_path / 'yolo_msgs').mkdir()
    (tmp_path / 'yolo_msgs' / '__init__.py').touch()  # a package without messages
    start(robot, PYTHONPATH=os.pathsep.join([str(tmp_path), os.environ['PYTHONPATH']]))
    status, _ = robot.diagnostics('detections', lambda status, _: status.level == b'\x02')
    assert 'yolo_msgs is not installed' in status.message
    assert 'https://github.com/mgonzs13/yolo_ros' in status.message


# --- hostile messages -----------------------------------------------------------------------


@pytest.mark.parametrize('kind', [ARRAY, SINGLE, YOLO, TIER4, OWN])
def test_hostile_messages_are_counted_by_reason_and_survived(robot: Robot, kind: str) -> None:
    pytest.importorskip(f'{kind.partition("/")[0]}.msg')
    start(robot, 'detections.max_objects:=100', 'detections.wait_s:=5.0',
          'detections.gather_s:=1.0', PROPOSES='1')
    publisher = robot.publisher('detections', messages.message_class(kind), TOPIC, 1000)
    robot.image_publisher()

    def send(*things: Thing, frame_id: str = 'camera_optical') -> Any:
        header = robot.send_image()
        for message in messages.make(
                kind, convert.make_header(convert.stamp_to_ns(header.stamp), frame_id), things):
            publisher.publish(message)
        return header

    hostile = HOSTILE if kind != TIER4 else HOSTILE_REGIONS
    for thing, _ in hostile:
        robot.answer(send(thing))
    send(*[Thing()] * 101)
    send(Thing(), frame_id='another_camera')
    if kind != SINGLE:
        send()  # an empty array is an ordinary answer
    answer = robot.answer(send(Thing()))
    assert [(entry.x0, entry.x1) for entry in answer.objects if entry.state <= 1] == [(10, 30)]
    expected = Counter(reason for _, reason in hostile if reason)
    expected |= Counter({'messages with too many objects': 1, 'detections of another frame': 1})
    # Older diagnostics may come first.
    robot.diagnostics('stream', lambda _, values: all(
        values.get(f'problem: {reason}') == str(count) for reason, count in expected.items()))
    assert robot.stop() == 0
    assert 'Traceback' not in robot.output


NAN, INF = math.nan, math.inf
HOSTILE = [
    (Thing((NAN, 8, 30, 40)), 'boxes that are not finite'),
    (Thing((10, 8, INF, 40)), 'boxes that are not finite'),
    (Thing((-1e300, -1e300, 1e300, 1e300)), 'boxes that are not finite'),
    (Thing((30, 8, 10, 40)), 'boxes without area'),
    (Thing((10, 8, 10, 8)), 'boxes without area'),
    (Thing((-50, -50, -10, -10)), 'boxes outside the image'),
    (Thing((1e6, 0, 2e6, 10)), 'boxes outside the image'),
    (Thing(score=NAN), 'boxes without a score'),
    (Thing(score=95.0), 'scores outside 0 to 1'),
    (Thing(score=-1.0), 'scores outside 0 to 1'),
    (Thing(label=''), ''),
    (Thing(label='x' * 10000), 'class names that are too long'),
]
HOSTILE_REGIONS = [
    (Thing((10, 8, 10, 8)), 'boxes without area'),
    (Thing((4e9, 4e9, 4.2e9, 4.2e9)), 'boxes outside the image'),
    (Thing(score=NAN), 'boxes without a score'),
    (Thing(score=95.0), 'scores outside 0 to 1'),
    (Thing(label='no class of Autoware'), ''),
]


# --- several detectors ----------------------------------------------------------------------

TWO = "detections.topics:=['/fast', '/slow']"


def test_two_detectors_at_different_rates_are_merged(robot: Robot, detectors: Detectors) -> None:
    detectors.start(ARRAY, '/fast')
    detectors.start(YOLO, '/slow', '3')
    start(robot, TWO, 'detections.wait_s:=2.0')
    detectors.wait_until_read(ARRAY, '/fast')
    detectors.wait_until_read(YOLO, '/slow')
    robot.image_publisher()
    robot.wait_until(lambda: robot.node.count_subscribers(IMAGE) == 3, 'all to listen')
    headers = []
    for _ in range(30):
        headers.append(robot.send_image())
        robot.spin(0.1)
    answers = [robot.answer(header) for header in headers]
    assert list(answers[0].detection_topics) == ['/fast', '/slow']
    # Every third image was seen by both, as one object; images between do not wait in vain.
    assert [answer.objects[0].detected_by for answer in answers] == [0b11, 0b01, 0b01] * 10
    assert {len(answer.objects) for answer in answers} == {1}
    assert {answer.objects[0].id for answer in answers} == {1}
    assert {answer.detections for answer in answers} == {answers[0].DETECTIONS_UPSTREAM}
    waits = [answer.stage_times_ms[0] for answer in answers[20:]]
    assert max(waits) < 2000


def test_a_detector_that_dies_and_returns(robot: Robot, detectors: Detectors) -> None:
    detectors.start(ARRAY, '/fast')
    dying = detectors.start(TIER4, '/slow')
    start(robot, TWO, 'detections.wait_s:=0.4')
    detectors.wait_until_read(ARRAY, '/fast')
    detectors.wait_until_read(TIER4, '/slow')
    robot.image_publisher()
    robot.wait_until(lambda: robot.node.count_subscribers(IMAGE) == 3, 'all to listen')

    def seen_by(topics: int) -> bool:
        answer = robot.answer(robot.send_image())
        return bool(answer.objects[0].detected_by == topics and (
            answer.detections == (answer.DETECTIONS_UPSTREAM if topics == 3
                                  else answer.DETECTIONS_PARTIAL)))

    robot.wait_until(lambda: seen_by(0b11), 'both detectors')
    dying.kill()  # the middleware does not tell of this for a while
    dying.wait()
    robot.wait_until(lambda: seen_by(0b01), 'one detector, and the message to say so')
    robot.wait_until(lambda: seen_by(0b01) and robot.tracks[-1].stage_times_ms[0] < 300,
                     'images that wait no longer for the dead one')
    robot.diagnostics('detections', lambda status, _: (
        status.level == b'\x01' and status.message == 'nothing comes from /slow'))
    detectors.start(TIER4, '/slow')
    robot.wait_until(lambda: seen_by(0b11), 'both detectors again')
    assert {entry.id for answer in robot.tracks for entry in answer.objects} == {1}


@pytest.mark.parametrize(('missing', 'proposes'), [('empty', '0'), ('propose', '1')])
def test_detections_that_do_not_come_are_replaced_as_set_and_flagged(
    robot: Robot, missing: str, proposes: str,
) -> None:
    start(robot, 'detections.source:=topic', 'detections.wait_s:=0.1',
          f'detections.missing:={missing}', PROPOSES=proposes)
    robot.image_publisher()
    answer = robot.answer(robot.send_image())
    if missing == 'empty':
        assert (answer.detections, len(answer.objects)) == (answer.DETECTIONS_EMPTY, 0)
    else:
        assert answer.detections == answer.DETECTIONS_PROPOSED
        assert answer.objects[0].flags & answer.objects[0].FLAG_FROM_PROPOSAL
        assert answer.objects[0].detected_by == 0
    assert list(answer.detection_topics) == []


def test_boxes_of_another_image_size_are_brought_to_the_image(robot: Robot) -> None:
    start(robot, "detections.sizes:=['32x32 padded']")
    publisher = robot.publisher('detections', messages.message_class(ARRAY), TOPIC)
    robot.image_publisher()  # 64 x 48: a scale of 2, and grey below
    header = robot.send_image()
    publisher.publish(*messages.make(ARRAY, header, [Thing((5, 4, 15, 20))]))
    entry = robot.answer(header).objects[0]
    assert (entry.x0, entry.y0, entry.x1, entry.y1) == (10, 8, 30, 40)


def test_polygons_of_yolo_are_the_masks_of_the_tracks(robot: Robot) -> None:
    start(robot)
    publisher = robot.publisher('detections', messages.message_class(YOLO), TOPIC)
    robot.image_publisher()
    header = robot.send_image()
    triangle = ((10, 8), (29, 8), (10, 39))
    publisher.publish(*messages.make(YOLO, header, [Thing(polygon=triangle)]))
    mask = convert.decode_mask(robot.answer(header).objects[0])
    assert mask is not None
    assert mask.shape == (32, 20)
    assert mask[0].all()
    assert mask[:, 0].all()
    assert not mask[-1, -1]
