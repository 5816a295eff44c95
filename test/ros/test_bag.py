"""Bags in and out without a ROS installation."""

from __future__ import annotations

from pathlib import Path
import shutil
import sqlite3
import subprocess
import sys

from masa_ros.ros.bag import BagFrames, BagReader, BagWriter, is_bag
from masa_ros.ros.bag_definitions import BagMessageBuilder, DETECTIONS, IMAGE, TRACKS
from masa_ros.ros.convert import (
    array_to_image,
    instances_to_detections,
    make_header,
    message_to_tracks,
    rgb_to_compressed,
    TrackInfo,
    tracks_to_message,
)
from masa_ros.structures.instances import Instances, TrackedInstances, TrackState
from masa_ros.structures.masks import encode_crop
import numpy as np
import pytest

BUILDER = BagMessageBuilder()
STEP_NS = 100_000_000
START_NS = 1_700_000_000_000_000_000


def picture(index: int) -> np.ndarray:
    image = np.zeros((48, 64, 3), np.uint8)
    image[...] = (index % 256, 100, 200)
    return image


def stamp(index: int) -> int:
    return START_NS + index * STEP_NS


def boxes_of(index: int) -> Instances:
    return Instances.from_boxes([[index, 2, index + 10, 22]], [0.75], [3], ['car'])


def write_recording(
    path: Path, count: int = 6, storage: str = 'mcap', compressed: bool = False,
    stamps: list[int] | None = None,
) -> Path:
    stamps = stamps or [stamp(i) for i in range(count)]
    with BagWriter(path, storage, reserve_bytes=1000) as bag:
        for index, stamp_ns in enumerate(stamps):
            header = make_header(stamp_ns, 'camera', bag.builder)
            image = (rgb_to_compressed(picture(index), header, 'png', builder=bag.builder)
                     if compressed
                     else array_to_image(picture(index), 'rgb8', header, bag.builder))
            recorded_ns = START_NS + index * STEP_NS + 1000
            bag.write('/camera/image', image, recorded_ns)
            bag.write('/boxes', instances_to_detections(boxes_of(index), header, bag.builder),
                      recorded_ns + 2000)
    return path


def tracks() -> TrackedInstances:
    boxes = Instances.from_boxes([[1, 2, 11, 22], [5, 5, 9, 9]], [0.9, 0.4], [1, -1], ['a', ''])
    mask = encode_crop(np.eye(6, 4, dtype=bool), 3, 4)
    return TrackedInstances(
        **{**boxes.__dict__, 'masks': (mask, None)}, track_ids=np.array([7, 9]),
        uuids=(bytes(range(16)), bytes(16)), first_seen_ns=np.array([stamp(0), stamp(1)]),
        states=np.array([TrackState.TRACKED, TrackState.LOST], np.uint8),
        last_seen_ns=np.array([stamp(2), stamp(1)]), ages=np.array([2, 1]),
        similarities=np.array([0.5, np.nan], np.float32),
        margins=np.array([0.25, np.nan], np.float32))


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
@pytest.mark.parametrize('compressed', [False, True])
def test_images_and_boxes_come_back_as_written(
    tmp_path: Path, storage: str, compressed: bool,
) -> None:
    path = write_recording(tmp_path / 'bag', storage=storage, compressed=compressed)
    with BagReader(path) as reader:
        assert [topic.name for topic in reader.image_topics()] == ['/camera/image']
        assert [topic.name for topic in reader.detection_topics()] == ['/boxes']
        frames = BagFrames(reader, {'/camera/image': '/boxes'})
        assert frames.total == 6
        seen = list(frames)
        assert reader.problem == ''
    assert [item.frame.frame_index for item in seen] == list(range(6))
    for index, item in enumerate(seen):
        np.testing.assert_array_equal(item.frame.image, picture(index))
        assert item.frame.stamp_ns == stamp(index)
        assert item.frame.stream == '/camera/image'
        assert item.frame.frame_id == 'camera'
        assert not item.restarted
        assert item.detections is not None
        np.testing.assert_array_equal(item.detections.boxes, boxes_of(index).boxes)
        assert item.detections.labels == ('car',)
        assert item.detections.scores[0] == pytest.approx(0.75)


def test_tracks_come_back_as_written_without_any_definition_at_hand(tmp_path: Path) -> None:
    with BagWriter(tmp_path / 'bag', reserve_bytes=10) as bag:
        header = make_header(stamp(3), 'camera', bag.builder)
        info = TrackInfo(48, 64, 'front', 5, 1, 0, 'classical@abc', {'track': 1.5})
        bag.write('/tracks', tracks_to_message(tracks(), header, info, builder=bag.builder),
                  stamp(3))
    with BagReader(tmp_path / 'bag') as reader:
        (raw, message), = reader.messages(['/tracks'])
    assert raw.type_name == TRACKS
    assert (message.stream, message.sequence, message.dropped) == ('front', 5, 1)
    back = message_to_tracks(message)
    np.testing.assert_array_equal(back.track_ids, [7, 9])
    assert back.uuids == tracks().uuids
    assert back.masks[1] is None
    assert back.masks[0] is not None
    np.testing.assert_array_equal(back.masks[0].decode(), np.eye(6, 4, dtype=bool))
    np.testing.assert_array_equal(back.states, tracks().states)


def cut_file(path: Path, share: float) -> int:
    """Cut a file to a share of its length, as a killed recorder leaves it."""
    (file,) = path.glob('*.mcap')
    size = int(file.stat().st_size * share)
    with file.open('r+b') as handle:
        handle.truncate(size)
    (path / 'metadata.yaml').unlink()
    return size


@pytest.fixture(scope='module')
def long_recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recording of several chunks of 1 MiB."""
    return write_recording(tmp_path_factory.mktemp('long') / 'bag', count=400)


@pytest.mark.parametrize('share', [0.999, 0.9, 0.5, 0.3])
def test_a_cut_off_bag_is_read_as_far_as_it_goes(
    tmp_path: Path, long_recording: Path, share: float,
) -> None:
    path = tmp_path / 'bag'
    shutil.copytree(long_recording, path)
    cut_file(path, share)
    with BagReader(path) as reader:
        seen = list(BagFrames(reader, {'/camera/image': '/boxes'}))
        assert 'not complete' in reader.problem
    # Only whole chunks of 1 MiB (about 100 images here) can be read.
    assert 400 * share - 115 <= len(seen) <= 400 * share + 5
    for index, item in enumerate(seen):
        np.testing.assert_array_equal(item.frame.image[0, 0], picture(index)[0, 0])


def test_a_bag_cut_in_its_index_loses_nothing(tmp_path: Path, long_recording: Path) -> None:
    path = tmp_path / 'bag'
    shutil.copytree(long_recording, path)
    (file,) = path.glob('*.mcap')
    with file.open('r+b') as handle:
        handle.truncate(file.stat().st_size - 20)
    with BagReader(path) as reader:
        assert len(list(BagFrames(reader, {'/camera/image': ''}))) == 400
        assert reader.problem


def test_a_damaged_place_ends_the_reading_with_a_reason(
    tmp_path: Path, long_recording: Path,
) -> None:
    path = tmp_path / 'bag'
    shutil.copytree(long_recording, path)
    (file,) = path.glob('*.mcap')
    data = bytearray(file.read_bytes())
    data[len(data) // 2:len(data) // 2 + 40000] = b'\xff' * 40000
    file.write_bytes(data)
    with BagReader(path) as reader:
        frames = BagFrames(reader, {'/camera/image': ''})
        count = len(list(frames))
        assert reader.problem or sum(frames.counts['/camera/image'].skipped.values())
    assert 100 < count < 400


def test_a_database_without_metadata_is_read(tmp_path: Path) -> None:
    path = write_recording(tmp_path / 'bag', storage='sqlite3')
    (path / 'metadata.yaml').unlink()
    with BagReader(path) as reader:
        assert len(list(BagFrames(reader, {'/camera/image': '/boxes'}))) == 6


def test_a_damaged_database_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    path = write_recording(tmp_path / 'bag', count=60, storage='sqlite3')
    (file,) = path.glob('*.db3')
    with file.open('r+b') as handle:
        handle.truncate(file.stat().st_size // 2)
    with BagReader(path) as reader:
        seen = list(BagFrames(reader, {'/camera/image': ''}))
        assert 'damaged' in reader.problem
    assert 10 < len(seen) < 60


def test_the_files_of_a_split_bag_follow_each_other_by_number(tmp_path: Path) -> None:
    folder = tmp_path / 'split'
    folder.mkdir()
    for number, first in ((2, 0), (10, 3)):
        part = write_recording(tmp_path / f'part{number}',
                               stamps=[stamp(first + i) for i in range(3)])
        (file,) = part.glob('*.mcap')
        shutil.move(file, folder / f'split_{number}.mcap')
    with BagReader(folder) as reader:
        seen = [item.frame.stamp_ns for item in BagFrames(reader, {'/camera/image': ''})]
    assert seen == [stamp(i) for i in range(6)]


def test_repeated_and_late_stamps_are_skipped_and_counted(tmp_path: Path) -> None:
    order = [0, 1, 1, 3, 2, 4]
    path = write_recording(tmp_path / 'bag', stamps=[stamp(i) for i in order])
    with BagReader(path) as reader:
        frames = BagFrames(reader, {'/camera/image': ''})
        assert [item.frame.stamp_ns for item in frames] == [stamp(i) for i in (0, 1, 3, 4)]
    counts = frames.counts['/camera/image']
    assert counts.used == 4
    assert dict(counts.skipped) == {'repeated stamp': 1, 'late stamp': 1}


def test_a_clock_that_jumps_back_starts_anew(tmp_path: Path) -> None:
    path = write_recording(tmp_path / 'bag', stamps=[stamp(i) for i in (100, 101, 0, 1)])
    with BagReader(path) as reader:
        frames = BagFrames(reader, {'/camera/image': ''})
        assert [item.restarted for item in frames] == [False, False, True, False]
    assert frames.counts['/camera/image'].resets == 1


def test_images_without_stamps_take_the_time_of_recording(tmp_path: Path) -> None:
    path = write_recording(tmp_path / 'bag', stamps=[0, 0, 0])
    with BagReader(path) as reader:
        stamps = [item.frame.stamp_ns for item in BagFrames(reader, {'/camera/image': ''})]
    assert stamps == [START_NS + i * STEP_NS + 1000 for i in range(3)]


def test_an_image_that_cannot_be_decoded_is_skipped_and_counted(tmp_path: Path) -> None:
    with BagWriter(tmp_path / 'bag', reserve_bytes=10) as bag:
        for index in range(3):
            header = make_header(stamp(index), 'camera', bag.builder)
            image = array_to_image(picture(index), 'rgb8', header, bag.builder)
            if index == 1:
                image = bag.builder.make(IMAGE, **{**image.__dict__, 'step': 5})
            bag.write('/camera/image', image, stamp(index))
    with BagReader(tmp_path / 'bag') as reader:
        frames = BagFrames(reader, {'/camera/image': ''})
        assert [item.frame.frame_index for item in frames] == [0, 1]
    (reason,) = frames.counts['/camera/image'].skipped
    assert 'step' in reason


def test_boxes_within_the_tolerance_belong_to_the_image(tmp_path: Path) -> None:
    with BagWriter(tmp_path / 'bag', reserve_bytes=10) as bag:
        for index, offset in enumerate((0, 4_000_000, 6_000_000)):
            header = make_header(stamp(index), 'camera', bag.builder)
            bag.write('/camera/image', array_to_image(picture(index), 'rgb8', header, bag.builder),
                      stamp(index))
            header = make_header(stamp(index) + offset, 'camera', bag.builder)
            bag.write('/boxes', instances_to_detections(boxes_of(index), header, bag.builder),
                      stamp(index) + 50_000_000)
    with BagReader(tmp_path / 'bag') as reader:
        found = [item.detections for item in BagFrames(reader, {'/camera/image': '/boxes'})]
    assert [item is None for item in found] == [False, False, True]


def test_several_cameras_keep_their_own_count(tmp_path: Path) -> None:
    with BagWriter(tmp_path / 'bag', reserve_bytes=10) as bag:
        for index in range(4):
            header = make_header(stamp(index), 'camera', bag.builder)
            image = array_to_image(picture(index), 'rgb8', header, bag.builder)
            bag.write('/left', image, stamp(index))
            if index % 2:
                bag.write('/right', image, stamp(index) + 10)
    with BagReader(tmp_path / 'bag') as reader:
        seen = [(item.frame.stream, item.frame.frame_index)
                for item in BagFrames(reader, {'/left': '', '/right': ''})]
    assert seen == [('/left', 0), ('/left', 1), ('/right', 0), ('/left', 2), ('/left', 3),
                    ('/right', 1)]


def test_raw_messages_go_from_bag_to_bag_byte_by_byte(tmp_path: Path) -> None:
    path = write_recording(tmp_path / 'bag')
    with BagReader(path) as reader, BagWriter(tmp_path / 'copy', reserve_bytes=10) as copy:
        messages = list(reader.raw(['/camera/image', '/boxes']))
        for raw in messages:
            copy.write_raw(raw.topic, raw.type_name, raw.data, raw.time_ns)
    with BagReader(tmp_path / 'copy') as reader:
        assert list(reader.raw(['/camera/image', '/boxes'])) == messages
    assert {raw.type_name for raw in messages} == {IMAGE, DETECTIONS}


def test_unknown_topics_are_named_with_those_that_exist(tmp_path: Path) -> None:
    path = write_recording(tmp_path / 'bag')
    with BagReader(path) as reader:
        with pytest.raises(ValueError, match=r"'/other'; it has /camera/image"):
            BagFrames(reader, {'/other': ''})
        with pytest.raises(ValueError, match=r"'/camera/image'; it has /boxes"):
            BagFrames(reader, {'/camera/image': '/camera/image'})


def test_what_is_no_bag_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='does not exist'):
        BagReader(tmp_path / 'nothing')
    (tmp_path / 'text.txt').write_text('hello')
    assert not is_bag(tmp_path)
    with pytest.raises(ValueError, match='is no bag'):
        BagReader(tmp_path / 'text.txt')
    (tmp_path / 'empty.mcap').write_bytes(b'')
    with pytest.raises(ValueError, match='nothing can be read'):
        BagReader(tmp_path / 'empty.mcap')
    (tmp_path / 'noise.db3').write_bytes(b'noise' * 1000)
    with pytest.raises(ValueError, match='nothing can be read'):
        BagReader(tmp_path / 'noise.db3')


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    write_recording(tmp_path / 'bag')
    with pytest.raises(FileExistsError, match='exists already'):
        BagWriter(tmp_path / 'bag')
    with pytest.raises(ValueError, match='unknown storage'):
        BagWriter(tmp_path / 'other', 'zip')


def test_an_interrupted_writer_leaves_a_whole_bag(tmp_path: Path) -> None:
    bag = BagWriter(tmp_path / 'bag', reserve_bytes=1000)
    header = make_header(stamp(0), 'camera', bag.builder)
    bag.write('/camera/image', array_to_image(picture(0), 'rgb8', header, bag.builder), 1)
    with pytest.raises(KeyboardInterrupt), bag:
        raise KeyboardInterrupt
    with BagReader(tmp_path / 'bag') as reader:
        assert len(list(reader.messages(['/camera/image']))) == 1
        assert reader.problem == ''
    assert [path.name for path in tmp_path.iterdir()] == ['bag']


def test_what_was_written_before_the_space_ran_out_can_be_read(tmp_path: Path) -> None:
    """A limit on the file size stands in for a full disk; closing then fails too."""
    code = f"""
import resource, signal, sys
sys.path[:0] = {sys.path!r}
from test_bag import write_recording
from masa_ros.ros.bag import out_of_space
from pathlib import Path
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2_500_000, 2_500_000))
try:
    write_recording(Path({str(tmp_path / 'bag')!r}), count=400)
except OSError as error:
    sys.exit(17 if out_of_space(error) else 18)
"""
    done = subprocess.run([sys.executable, '-c', code], cwd=Path(__file__).parent, check=False,
                          capture_output=True, text=True)
    assert done.returncode == 17, done.stderr
    with BagReader(tmp_path / 'bag') as reader:
        assert len(list(BagFrames(reader, {'/camera/image': ''}))) > 150
        assert reader.problem


def test_rows_in_the_write_ahead_log_are_read_too(tmp_path: Path) -> None:
    path = write_recording(tmp_path / 'bag', storage='sqlite3')
    (path / 'metadata.yaml').unlink()
    (file,) = path.glob('*.db3')
    connection = sqlite3.connect(file)
    connection.execute('PRAGMA journal_mode=WAL')
    connection.execute('PRAGMA wal_autocheckpoint=0')
    connection.execute('INSERT INTO messages(topic_id, timestamp, data) SELECT topic_id, '
                       f'{stamp(50)}, data FROM messages WHERE topic_id = 1 LIMIT 1')
    connection.commit()
    copy = tmp_path / 'copy'
    shutil.copytree(path, copy)  # As a killed recorder leaves it; closing would merge the log.
    connection.close()
    with BagReader(copy) as reader:
        assert sum(1 for _ in reader.raw(['/camera/image'])) == 7
