"""The real node in its own process, fed over DDS; its model is the one of fake_tracker.py."""

from __future__ import annotations

import array
from collections import Counter
import math
from pathlib import Path
import signal
from typing import Any, TypeAlias

from masa_ros.ros import convert
import numpy as np
import pytest

pytestmark = pytest.mark.ros

# The class in conftest.py, which pytest does not let a test module import.
Robot: TypeAlias = Any

BOX = [10.0, 8.0, 30.0, 40.0]


# --- images in, tracks out ------------------------------------------------------------------


def test_objects_get_masks_and_keep_their_ids(front: Robot) -> None:
    answers = [front.track([[10 + 2 * step, 8, 30 + 2 * step, 40], [40, 20, 60, 30]])
               for step in range(4)]
    ids = [sorted(entry.id for entry in answer.objects) for answer in answers]
    assert ids == [[1, 2]] * 4
    assert len({bytes(entry.uuid.uuid) for answer in answers for entry in answer.objects}) == 2
    last = answers[-1]
    assert last.header == front.header()
    assert (last.height, last.width, last.stream) == (48, 64, 'front')
    assert [answer.sequence - answers[0].sequence for answer in answers] == [0, 1, 2, 3]
    assert [answer.dropped for answer in answers[1:]] == [0, 0, 0]
    assert last.stage_names == ['wait', 'decode', 'convert', 'detect', 'segment', 'track']
    assert last.fingerprint.startswith('fake@')
    entry = min(last.objects, key=lambda entry: entry.id)
    assert (entry.x0, entry.y0, entry.x1, entry.y1) == (16, 8, 36, 40)
    mask = convert.decode_mask(entry)
    assert mask is not None
    assert mask.shape == (32, 20)
    assert mask.all()
    assert entry.age_frames == 3
    assert entry.flags & entry.FLAG_FROM_DETECTION
    assert convert.stamp_to_ns(entry.first_seen) == convert.stamp_to_ns(answers[0].header.stamp)


def test_an_image_without_objects_gives_an_empty_array(front: Robot) -> None:
    answer = front.track(np.zeros((0, 4)))
    assert len(answer.objects) == 0
    assert (answer.height, answer.width) == (48, 64)


def test_a_model_that_proposes_needs_no_detections(robot: Robot) -> None:
    robot.start('~/input/image:=/front/image_raw', PROPOSES='1')
    robot.listen_tracks()
    robot.image_publisher(topic='/front/image_raw')
    answer = robot.answer(robot.send_image())
    assert [(entry.x0, entry.x1) for entry in answer.objects] == [(32, 64)]
    assert answer.objects[0].flags & answer.objects[0].FLAG_FROM_PROPOSAL
    assert answer.stream == '/front/image_raw'  # nobody named it otherwise


def test_every_encoding_comes_through(robot: Robot) -> None:
    robot.start('policy:=every', 'queue_size:=100', PROPOSES='1')
    robot.listen_tracks()
    headers = []
    for encoding, layout in convert._LAYOUTS.items():
        step = 6 * layout.channels * np.dtype(layout.kind).itemsize
        rows = 4 * layout.planar_rows[0] // layout.planar_rows[1]
        headers.append(robot.send_image(
            np.zeros((4, 6), np.uint8), 'mono8', encoding=encoding, step=step + 2,
            data=array.array('B', bytes(rows * (step + 2)))))
    assert [robot.answer(header).width for header in headers] == [6] * len(convert.ENCODINGS)


def test_compressed_images_and_those_cut_off(robot: Robot) -> None:
    from sensor_msgs.msg import CompressedImage
    robot.start('compressed:=true', 'policy:=every', PROPOSES='1')
    robot.listen_tracks()
    robot.listen_diagnostics()
    publisher = robot.publisher('compressed', CompressedImage, '/tracker/input/image')
    pixels = np.random.default_rng(0).integers(0, 255, (48, 64, 3)).astype(np.uint8)
    for kind in ('jpeg', 'png'):
        message = convert.rgb_to_compressed(pixels, robot.tick(), kind)
        publisher.publish(message)
        assert robot.answer(message.header).width == 64
        message = convert.rgb_to_compressed(pixels, robot.tick(), kind)
        message.data = message.data[:len(message.data) // 2]
        publisher.publish(message)
    robot.diagnostics('stream', lambda _, values: values.get('dropped: bad image') == '2')
    assert 'cut off' in robot.output


# --- mirrors --------------------------------------------------------------------------------


def test_mirrors_are_sent_to_those_who_listen(front: Robot) -> None:
    from sensor_msgs.msg import Image
    from vision_msgs.msg import Detection2DArray
    front.listen('detections', Detection2DArray, '/tracker/output/detections')
    front.listen('label_image', Image, '/tracker/output/label_image')
    front.listen('overlay', Image, '/tracker/output/overlay')

    def mirrored() -> bool:
        front.track([BOX])
        return all(front.received[name] for name in ('detections', 'label_image', 'overlay'))
    front.wait_until(mirrored, 'the mirrors')
    detection = front.received['detections'][-1].detections[0]
    assert detection.id == '1'
    assert (detection.bbox.center.position.x, detection.bbox.size_y) == (20, 32)
    labels = front.received['label_image'][-1]
    assert labels.encoding == 'mono16'
    plane = np.frombuffer(labels.data, np.uint16).reshape(48, 64)
    assert (plane == 1).sum() == 20 * 32
    overlay = front.received['overlay'][-1]
    assert overlay.header.frame_id == 'camera_optical'
    assert (overlay.encoding, overlay.height, overlay.width) == ('rgb8', 48, 64)
    assert (convert.image_to_rgb(overlay) != 100).any()


# --- hostile frames -------------------------------------------------------------------------


def test_frames_that_cannot_be_used_are_counted_and_survived(front: Robot) -> None:
    first = front.track([BOX])
    before = front.counters()
    bad: list[dict[str, Any]] = [
        {'step': 1}, {'step': 10**6}, {'encoding': 'rgb9'}, {'encoding': ''}, {'height': 0},
        {'width': 0}, {'data': array.array('B')}, {'height': 47}, {'width': 65},
        {'height': 2**31, 'width': 2**31, 'step': 2**32 - 1}]
    for changes in bad:
        front.send_boxes([BOX], front.send_image(**changes))
    strange = np.full((48, 64, 3), 100, np.uint8)
    strange[0, 0] = (66, 6, 66)
    front.send_boxes([BOX], front.send_image(strange))
    second = front.track([
        [math.nan, 8, 30, 40], [math.inf, 0, 5, 5], [30, 8, 10, 40], [100, 100, 120, 120],
        [5, 5, 5, 9], BOX])
    header = front.send_image()
    front.send_boxes([BOX, BOX], header, scores=[math.nan, 0.9])
    last = front.answer(header)
    for answer in (first, second, last):
        assert [entry.id for entry in answer.objects] == [1]
    assert (second.dropped, last.dropped) == (len(bad) + 1, 0)
    counted = front.counters() - before
    assert counted['images received'] == len(bad) + 3
    assert counted['images processed'] == 2
    assert counted['dropped: bad image'] == len(bad)
    assert counted['dropped: processing failed'] == 1
    assert {name: count for name, count in counted.items() if name.startswith('problem')} == {
        'problem: boxes that are not finite': 2, 'problem: boxes without area': 2,
        'problem: boxes outside the image': 1, 'problem: boxes without a score': 1}
    assert 'the model does not like this picture' in front.output


# --- time -----------------------------------------------------------------------------------


def test_a_looped_recording_starts_anew_and_says_so(front: Robot) -> None:
    before = [front.track([BOX]) for _ in range(3)]
    front.clock_ns -= 50_000_000_000
    after = [front.track([BOX]) for _ in range(2)]
    resets = before[0].resets
    assert [answer.resets - resets for answer in before + after] == [0, 0, 0, 1, 1]
    assert [answer.objects[0].id for answer in before + after] == [1] * 5
    assert bytes(before[0].objects[0].uuid.uuid) != bytes(after[0].objects[0].uuid.uuid)
    assert [answer.sequence - before[0].sequence for answer in before + after] == [0, 1, 2, 3, 4]
    assert after[0].objects[0].age_frames == 0
    assert f'the tracker starts anew (reset {resets + 1})' in front.output


def test_repeated_and_late_images_are_left_out(front: Robot) -> None:
    first = front.track([BOX])
    before = front.counters()
    front.send_image(header=front.header())
    front.clock_ns -= 50_000_000
    front.send_image(header=front.header())
    front.clock_ns += 50_000_000
    last = front.track([BOX])
    assert (last.sequence - first.sequence, last.dropped) == (1, 2)
    counted = front.counters() - before
    assert (counted['dropped: repeated stamp'], counted['dropped: late stamp']) == (1, 1)


def test_an_image_without_its_detections_is_left_out_after_the_wait(front: Robot) -> None:
    first = front.track([BOX])
    before = front.counters()
    lost = front.send_image()
    front.wait_until(lambda: (front.counters() - before)['dropped: without detections'] == 1,
                     'the image to be left out')
    last = front.track([BOX])
    assert (last.sequence - first.sequence, last.dropped) == (1, 1)
    assert all(message.header.stamp != lost.stamp for message in front.tracks)


def test_missing_detections_can_be_taken_for_an_empty_image(robot: Robot) -> None:
    robot.start('detections.wait_s:=0.1', 'detections.missing:=empty')
    robot.listen_tracks()
    robot.track([BOX])
    answer = robot.answer(robot.send_image())
    assert [entry for entry in answer.objects if entry.state <= entry.STATE_TRACKED] == []


# --- policies -------------------------------------------------------------------------------


@pytest.mark.parametrize('policy', ['latest', 'every'])
def test_images_faster_than_the_model_are_dropped_or_kept_as_set(
    robot: Robot, policy: str,
) -> None:
    robot.start(f'policy:={policy}', PROPOSES='1', SLOW_S='0.1')
    robot.listen_tracks()
    robot.listen_diagnostics()
    headers = [robot.send_image() for _ in range(12)]
    last = robot.answer(headers[-1])  # the newest is always processed
    counted = robot.counters()
    if policy == 'every':
        assert last.sequence == 11
        assert counted['images dropped'] == 0
    else:
        # While one is at work the others of the burst come, and only the last of them stays.
        assert last.sequence < 6
        assert counted['dropped: stale'] > 0
    assert counted['images processed'] == len(robot.tracks) == last.sequence + 1
    assert sum(message.dropped for message in robot.tracks) == counted['images dropped']
    assert counted['images received'] == counted['images processed'] + counted['images dropped']


# --- lifecycle ------------------------------------------------------------------------------


def test_transitions_do_what_they_say(robot: Robot) -> None:
    from std_srvs.srv import Trigger
    robot.start('autostart:=false', wait=False, PROPOSES='1')
    assert robot.state() == 'unconfigured'
    answer = robot.call(Trigger, '/tracker/reset', Trigger.Request())
    assert not answer.success
    assert 'configure first' in answer.message
    assert robot.lifecycle('configure')
    assert robot.state() == 'inactive'
    assert robot.node.count_subscribers('/tracker/input/image') == 0
    robot.listen_tracks()
    assert robot.lifecycle('activate')
    first = robot.answer(robot.send_image())
    assert robot.lifecycle('deactivate')
    robot.wait_until(lambda: robot.node.count_subscribers('/tracker/input/image') == 0,
                     'the image subscription to go')
    count = len(robot.tracks)
    robot.send_image()
    robot.spin(0.3)
    assert len(robot.tracks) == count
    assert robot.lifecycle('activate')
    robot.wait_until_read()
    again = robot.answer(robot.send_image())
    assert (again.resets, again.objects[0].id) == (first.resets + 1, 1)
    assert bytes(again.objects[0].uuid.uuid) != bytes(first.objects[0].uuid.uuid)
    assert robot.lifecycle('deactivate')
    assert robot.lifecycle('cleanup')
    assert robot.state() == 'unconfigured'
    assert robot.lifecycle('configure')
    assert robot.lifecycle('activate')
    robot.wait_until_read()
    assert robot.answer(robot.send_image()).objects[0].id == 1
    assert robot.lifecycle('active_shutdown')
    assert robot.state() == 'finalized'
    assert robot.stop() == 0


def test_a_model_that_cannot_be_loaded_leaves_the_node_to_be_configured_again(
    robot: Robot, tmp_path: Path,
) -> None:
    weights = tmp_path / 'weights.pth'
    robot.start(wait=False, FAIL_FILE=str(weights))
    robot.listen_diagnostics()
    status, _ = robot.diagnostics('model', lambda status, _: status.level == b'\x02')
    assert f'weights {weights} are not there; put them there' in status.message
    assert 'ros2 lifecycle set /tracker configure' in robot.output
    assert robot.state() == 'unconfigured'
    assert not robot.lifecycle('configure')
    weights.write_bytes(b'')
    assert robot.lifecycle('configure')
    robot.diagnostics('model', lambda status, _: status.message == 'loaded')
    assert robot.lifecycle('activate')


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_the_node_ends_cleanly_when_told_to(robot: Robot, number: int) -> None:
    robot.start(PROPOSES='1', SLOW_S='0.2')
    robot.listen_tracks()
    for _ in range(3):
        robot.send_image()
    assert robot.process is not None
    robot.process.send_signal(number)
    robot.process.send_signal(number)  # launch repeats what came from the terminal
    robot.spin(0.1)
    assert robot.stop(number) == 0
    assert 'Traceback' not in robot.output


# --- parameters and services ----------------------------------------------------------------


def test_wrong_parameters_end_the_start_with_a_reason(robot: Robot) -> None:
    robot.start('queue_size:=0', wait=False)
    assert robot.process is not None
    assert robot.process.wait(20) == 1
    assert 'queue_size' in robot.output
    assert 'Traceback' not in robot.output


def test_a_params_file_with_an_unknown_key_is_refused(robot: Robot, tmp_path: Path) -> None:
    path = tmp_path / 'params.yaml'
    path.write_text('/**:\n  ros__parameters:\n    detections:\n      tolerance: 0.1\n')
    robot.start('--params-file', str(path), wait=False)
    assert robot.process is not None
    assert robot.process.wait(20) == 1
    assert "'detections.tolerance'; did you mean 'detections.tolerance_s'" in robot.output


def test_settings_change_at_run_time_and_others_say_when_they_can(front: Robot) -> None:
    before = front.track([BOX])
    assert front.set_parameter('tracker.match_threshold', 0.61) == (True, '')
    after = front.track([BOX])
    assert after.fingerprint != before.fingerprint
    assert after.objects[0].id == before.objects[0].id
    done, reason = front.set_parameter('model.device', 'cuda')
    assert not done
    assert 'only change while the node is unconfigured' in reason
    done, reason = front.set_parameter('diagnostics.latency_warn_s', 5.0)
    assert not done
    assert 'latency_error_s' in reason


def test_services_reset_and_pause(front: Robot) -> None:
    from std_srvs.srv import SetBool, Trigger
    first = front.track([BOX])
    assert front.call(Trigger, '/tracker/reset', Trigger.Request()).success
    second = front.track([BOX])
    assert second.resets == first.resets + 1
    assert bytes(first.objects[0].uuid.uuid) != bytes(second.objects[0].uuid.uuid)
    assert front.call(SetBool, '/tracker/enable', SetBool.Request(data=False)).success
    front.diagnostics('stream', lambda status, _: 'paused' in status.message)
    count = len(front.tracks)
    front.send_boxes([BOX], front.send_image())
    front.spin(0.3)
    assert len(front.tracks) == count
    assert front.call(SetBool, '/tracker/enable', SetBool.Request(data=True)).success
    front.wait_until_read()
    third = front.track([BOX])
    assert third.resets == second.resets
    assert bytes(third.objects[0].uuid.uuid) == bytes(second.objects[0].uuid.uuid)


# --- quality of service ---------------------------------------------------------------------


@pytest.mark.parametrize('reliability', ['best_effort', 'reliable'])
def test_the_subscription_follows_the_camera(robot: Robot, reliability: str) -> None:
    from rclpy.qos import QoSProfile, ReliabilityPolicy
    robot.start(PROPOSES='1')
    robot.listen_tracks()
    robot.listen_diagnostics()
    robot.image_publisher(QoSProfile(
        depth=5, reliability=ReliabilityPolicy[reliability.upper()]))
    robot.diagnostics('stream', lambda _, values: (
        (values['reliability'], values['publishers']) == (reliability, '1')))
    robot.wait_until_read()
    robot.wait_until(lambda: robot.send_image() and robot.spin(0.2) is None
                     and len(robot.tracks) > 0, 'tracks')


def test_publishers_that_do_not_fit_are_reported(robot: Robot) -> None:
    from rclpy.qos import QoSProfile, ReliabilityPolicy
    from sensor_msgs.msg import CompressedImage, Image
    robot.start('reliability:=reliable')
    robot.listen_diagnostics()
    robot.node.create_publisher(Image, '/tracker/input/image', QoSProfile(
        depth=5, reliability=ReliabilityPolicy.BEST_EFFORT))
    robot.wait_until(
        lambda: 'does not fit this subscription (reliability)' in robot.output, 'a warning')
    other = robot.other_node().create_publisher(CompressedImage, '/tracker/input/image', 5)
    robot.wait_until(
        lambda: '/tracker/input/image carries sensor_msgs/msg/CompressedImage, but this node '
        'reads sensor_msgs/msg/Image there' in robot.output, 'another warning')
    assert robot.counters()['problem: mismatches'] >= 2
    other.destroy()


def test_qos_overrides_are_honoured(robot: Robot) -> None:
    from rclpy.qos import ReliabilityPolicy
    topic = '/tracker/input/image'
    robot.start(f'qos_overrides.{topic}.subscription.reliability:=reliable',
                f'qos_overrides.{topic}.subscription.depth:=17',
                'qos_overrides./tracker/output/tracks.publisher.reliability:=best_effort')
    robot.wait_until(lambda: robot.node.count_subscribers(topic) == 1, 'the subscription')
    reader = robot.node.get_subscriptions_info_by_topic(topic)[0].qos_profile
    assert reader.reliability == ReliabilityPolicy.RELIABLE
    writer = robot.node.get_publishers_info_by_topic('/tracker/output/tracks')[0].qos_profile
    assert writer.reliability == ReliabilityPolicy.BEST_EFFORT


def test_an_override_that_is_no_policy_leaves_the_node_inactive_and_says_so(
    robot: Robot,
) -> None:
    robot.start('qos_overrides./tracker/input/image.subscription.depth:=7',
                'qos_overrides./tracker/input/image.subscription.reliability:=sometimes',
                wait=False)
    robot.wait_until(lambda: 'cannot subscribe' in robot.output, 'the reason')
    assert '`sometimes`' in robot.output
    assert robot.state() == 'inactive'


# --- the default model ----------------------------------------------------------------------


def test_the_default_model_tracks_given_boxes(robot: Robot, root: Path) -> None:
    robot.start('--params-file', str(root / 'config' / 'tracker.yaml'), model='real')
    robot.listen_tracks()
    pixels = np.full((96, 128, 3), 40, np.uint8)
    pixels[30:60, 20:50] = (200, 30, 30)
    answers = [robot.track([[20, 30, 50, 60]], np.roll(pixels, step, axis=1))
               for step in range(3)]
    assert Counter(entry.id for answer in answers for entry in answer.objects) == {1: 3}
    assert answers[0].fingerprint.startswith('tiny@')
    mask = convert.decode_mask(answers[0].objects[0])
    assert mask is not None
    assert mask.mean() > 0.8
