"""Playing over DDS and recording; the whole is tested by the demo."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
import threading
import time

from masa_ros.ros.bag import BagReader, BagWriter
from masa_ros.ros.bag_definitions import DETECTIONS
from masa_ros.ros.bag_recovery import RawMessage
from masa_ros.ros.convert import instances_to_detections, make_header
from masa_ros.structures.instances import Instances, TrackedInstances, TrackState
from masa_ros.structures.masks import encode_crop
import numpy as np
import pytest

pytestmark = pytest.mark.ros

COUNT = 8


def recorded(path: Path) -> list[RawMessage]:
    with BagWriter(path, reserve_bytes=10) as bag:
        for index in range(COUNT):
            stamp_ns = 5_000_000_000 + index * 50_000_000
            header = make_header(stamp_ns, 'camera', bag.builder)
            boxes = Instances.from_boxes([[index, 0, index + 5, 5]])
            bag.write('/in', instances_to_detections(boxes, header, bag.builder), stamp_ns)
    with BagReader(path) as reader:
        return list(reader.raw(['/in']))


def tracks() -> TrackedInstances:
    boxes = Instances.from_boxes([[1, 2, 11, 22], [5, 5, 9, 9]], [0.9, 0.4], [1, -1], ['a', ''])
    mask = encode_crop(np.eye(6, 4, dtype=bool), 3, 4)
    return TrackedInstances(
        **{**boxes.__dict__, 'masks': (mask, None)}, track_ids=np.array([7, 9]),
        uuids=(bytes(range(16)), bytes(16)), first_seen_ns=np.array([1, 2]),
        states=np.array([TrackState.TRACKED, TrackState.LOST], np.uint8),
        last_seen_ns=np.array([3, 2]), ages=np.array([2, 1]),
        similarities=np.array([0.5, np.nan], np.float32),
        margins=np.array([0.25, np.nan], np.float32))


@pytest.fixture
def echo(request: pytest.FixtureRequest) -> Iterator[str]:
    """Node that sends back what it hears, after some seconds each; gives its namespace."""
    import rclpy
    from rclpy.context import Context
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.node import Node
    from vision_msgs.msg import Detection2DArray

    space = f'/echo_{time.monotonic_ns()}'
    context = Context()
    rclpy.init(args=[], context=context)
    node = Node('echo', context=context)
    publisher = node.create_publisher(Detection2DArray, f'{space}/out', 10)
    delays_s = iter(getattr(request, 'param', ()))

    def answer(message: Detection2DArray) -> None:
        time.sleep(next(delays_s, 0.0))
        publisher.publish(message)

    node.create_subscription(Detection2DArray, f'{space}/in', answer, 10)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()
    yield space
    executor.shutdown(timeout_sec=2.0)
    thread.join(2.0)
    node.destroy_node()
    rclpy.try_shutdown(context=context)


def test_what_is_played_comes_back_in_time_and_is_recorded(echo: str, tmp_path: Path) -> None:
    from masa_ros.ros.playback import Playback

    messages = recorded(tmp_path / 'in')
    with BagWriter(tmp_path / 'out', reserve_bytes=10) as recorder:
        playback = Playback({'/in': (f'{echo}/in', DETECTIONS)}, f'{echo}/out', DETECTIONS,
                            recorder)
        assert playback.wait_until_heard(lambda: True, 20.0)
        result = playback.play(messages, lambda: True, expected='/in')
        playback.close()
    assert result.sent == {'/in': COUNT}
    assert result.received == COUNT
    assert len(result.latencies_s) == COUNT
    assert result.duration_s >= (COUNT - 1) * 0.05
    with BagReader(tmp_path / 'out') as reader:
        assert [raw.data for raw in reader.raw([f'{echo}/out'])] == [
            raw.data for raw in messages]


@pytest.mark.parametrize('echo', [(1.0, 1.75)], indirect=True)
def test_who_has_been_slow_is_waited_for(echo: str, tmp_path: Path) -> None:
    from masa_ros.ros.playback import Playback

    messages = recorded(tmp_path / 'in')[:2]
    with BagWriter(tmp_path / 'out', reserve_bytes=10) as recorder:
        playback = Playback({'/in': (f'{echo}/in', DETECTIONS)}, f'{echo}/out', DETECTIONS,
                            recorder)
        assert playback.wait_until_heard(lambda: True, 20.0)
        # The second answer comes later than that after the first, which took a second.
        result = playback.play(messages, lambda: True, rate=100.0, settle_s=1.5, expected='/in')
        playback.close()
    assert result.received == 2


def test_nobody_there_is_noticed(tmp_path: Path) -> None:
    from masa_ros.ros.playback import Playback

    with BagWriter(tmp_path / 'out', reserve_bytes=10) as recorder:
        playback = Playback({'/in': ('/nobody/in', DETECTIONS)}, '/nobody/out', DETECTIONS,
                            recorder)
        assert not playback.wait_until_heard(lambda: True, 0.3)
        assert not playback.wait_until_heard(lambda: False, 60.0)
        result = playback.play(recorded(tmp_path / 'in'), lambda: True, rate=100.0, settle_s=0.1,
                               expected='/in')
        playback.close()
    assert (result.sent['/in'], result.received) == (COUNT, 0)


def test_playing_stops_when_the_other_side_died(tmp_path: Path) -> None:
    from masa_ros.ros.playback import Playback

    with BagWriter(tmp_path / 'out', reserve_bytes=10) as recorder:
        playback = Playback({'/in': ('/dead/in', DETECTIONS)}, '/dead/out', DETECTIONS, recorder)
        result = playback.play(recorded(tmp_path / 'in'), lambda: False, rate=0.001)
        playback.close()
    assert result.sent['/in'] == 0


def test_types_that_are_not_installed_are_named(tmp_path: Path) -> None:
    from masa_ros.ros.playback import Playback

    with BagWriter(tmp_path / 'out', reserve_bytes=10) as recorder, pytest.raises(
            ValueError, match='no_such_msgs/msg/Nothing is not installed'):
        Playback({}, '/out', 'no_such_msgs/msg/Nothing', recorder)


def test_the_stamp_is_read_from_the_bytes(tmp_path: Path) -> None:
    from masa_ros.ros.playback import header_stamp_ns

    stamps = [header_stamp_ns(raw.data) for raw in recorded(tmp_path / 'in')]
    assert stamps == [5_000_000_000 + index * 50_000_000 for index in range(COUNT)]
    assert header_stamp_ns(bytes([0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 7])) == 5_000_000_007


def test_ros_reads_the_tracks_that_were_written_without_it(tmp_path: Path) -> None:
    from masa_ros.msg import TrackedObjectArray
    from masa_ros.ros.bag_definitions import BagMessageBuilder, TRACKS
    from masa_ros.ros.convert import message_to_tracks, ROS, TrackInfo, tracks_to_message
    from rclpy.serialization import deserialize_message, serialize_message

    builder = BagMessageBuilder()
    info = TrackInfo(48, 64, 'front', 5, 1, 0, 'classical@abc', {'track': 1.5, 'segment': 2.0})
    ours = tracks_to_message(tracks(), make_header(7, 'camera', builder), info, builder=builder)
    data = bytes(builder.store.serialize_cdr(ours, TRACKS))
    read = deserialize_message(data, TrackedObjectArray)
    assert (read.stream, read.sequence, list(read.stage_names)) == ('front', 5, ['track',
                                                                                 'segment'])
    back = message_to_tracks(read)
    assert back.uuids == tracks().uuids
    assert back.track_ids.tolist() == [7, 9]
    theirs = tracks_to_message(tracks(), make_header(7, 'camera'), info, builder=ROS)
    # Bytes between fields are whatever lay there in ROS's own messages, so compare the content.
    again = builder.store.deserialize_cdr(serialize_message(theirs), TRACKS)
    assert bytes(builder.store.serialize_cdr(again, TRACKS)) == data
