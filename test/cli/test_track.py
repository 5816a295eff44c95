"""``masa_ros track`` from recording to files."""

from __future__ import annotations

import json
from pathlib import Path
import signal
import subprocess
import sys
import time

import cv2
from masa_ros.cli.demo_recording import DETECTIONS_TOPIC, IMAGE_TOPIC, Recording
from masa_ros.cli.main import main
from masa_ros.cli.outputs import BAG, file_name, frame_rate, spread
from masa_ros.evaluation.datasets.motchallenge import read_rows
from masa_ros.evaluation.scores import score_sequence
from masa_ros.ros.bag import BagReader, BagWriter
from masa_ros.ros.bag_definitions import TRACKS
from masa_ros.ros.convert import message_to_tracks, stamp_to_ns
from masa_ros.sources import open_source
from masa_ros.structures.instances import TrackedInstances
import numpy as np
from pycocotools.coco import COCO
import pytest

ROOT = Path(__file__).resolve().parents[2]


def track(*words: object) -> int:
    return main(['track', *map(str, words)])


def tracks_of(bag: Path) -> list[tuple[int, TrackedInstances]]:
    with BagReader(bag) as reader:
        topics = [topic.name for topic in reader.topics_of(TRACKS)]
        return [(stamp_to_ns(message.header.stamp), message_to_tracks(message))
                for _, message in reader.messages(topics)]


@pytest.fixture(scope='module')
def result(street: Recording, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp('track') / 'out'
    assert track(street.bag, '--out', out, '--label-images', '--images') == 0
    return out


def test_every_file_is_there_and_nothing_else(result: Path) -> None:
    assert sorted(path.name for path in result.iterdir()) == [
        'bag', 'contact_sheet.png', 'overlay.webm', 'tracks.json', 'tracks.txt']


def test_the_bag_holds_one_message_of_each_kind_per_frame(
    result: Path, street: Recording,
) -> None:
    with BagReader(result / BAG) as reader:
        assert {topic.name: topic.count for topic in reader.topics} == {
            f'/tracker/output/{name}': 15
            for name in ('tracks', 'detections', 'label_image', 'image')}
        assert reader.problem == ''
    assert street.truth is not None
    assert [stamp for stamp, _ in tracks_of(result / BAG)] == street.truth.stamps_ns.tolist()


def test_text_json_and_bag_tell_the_same(result: Path) -> None:
    rows = read_rows(result / 'tracks.txt')
    data = COCO(str(result / 'tracks.json'))
    for index, (_, tracks) in enumerate(tracks_of(result / BAG)):
        seen = tracks.select(tracks.seen)
        chosen = rows.frames == index + 1
        np.testing.assert_array_equal(rows.ids[chosen], seen.track_ids)
        np.testing.assert_allclose(rows.boxes[chosen], seen.boxes, atol=0.011)
        annotations = data.loadAnns(data.getAnnIds(imgIds=[index + 1]))
        assert [item['track_id'] for item in annotations] == seen.track_ids.tolist()
        assert [bytes.fromhex(item['uuid']) for item in annotations] == list(seen.uuids)
        for item, mask in zip(annotations, seen.masks, strict=True):
            assert mask is not None
            np.testing.assert_array_equal(data.annToMask(item).astype(bool), mask.paste(180, 320))


def test_the_pictures_show_every_frame(result: Path) -> None:
    source = open_source(result / 'overlay.webm')
    frames = list(source)
    assert len(frames) == 15
    assert source.rate_hz == pytest.approx(10, rel=0.01)
    assert frames[0].image.shape == (180, 320, 3)
    sheet = cv2.imread(str(result / 'contact_sheet.png'))
    assert sheet is not None
    assert sheet.std() > 20


def test_tracking_follows_the_objects(result: Path, street: Recording) -> None:
    assert street.truth is not None
    frames = [tracks for _, tracks in tracks_of(result / BAG)]
    scores = score_sequence(street.truth, frames).table()
    assert scores['HOTA'] > 0.4
    assert scores['IDF1'] > 0.5


def test_a_second_run_gives_the_same_ids_and_texts(
    result: Path, street: Recording, tmp_path: Path,
) -> None:
    assert track(street.bag, '--out', tmp_path / 'again', '--no-overlay') == 0
    for name in ('tracks.txt', 'tracks.json'):
        assert (tmp_path / 'again' / name).read_bytes() == (result / name).read_bytes()
    pairs = zip(tracks_of(result / BAG), tracks_of(tmp_path / 'again' / BAG), strict=True)
    for (_, one), (_, other) in pairs:
        assert one.uuids == other.uuids
        np.testing.assert_array_equal(one.track_ids, other.track_ids)
    assert not (tmp_path / 'again' / 'overlay.webm').exists()


def test_objects_in_an_ignored_region_are_left_out(
    result: Path, street: Recording, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    assert street.truth is not None
    right, bottom = street.truth.width_px, street.truth.height_px
    middle = right // 2
    assert track(street.bag, '--out', tmp_path / 'out', '--no-overlay', '--ignore',
                 f'{middle},0 {right},0 {right},{bottom} {middle},{bottom}') == 0
    assert 'in ignored regions' in capsys.readouterr().out
    centers = [(entry.boxes[entry.seen, 0] + entry.boxes[entry.seen, 2]) / 2
               for _, entry in tracks_of(tmp_path / 'out' / BAG)]
    assert sum(map(len, centers)) > 0
    assert max(float(found.max(initial=0)) for found in centers) <= middle + 1
    everywhere = [(entry.boxes[entry.seen, 0] + entry.boxes[entry.seen, 2]) / 2
                  for _, entry in tracks_of(result / BAG)]
    assert max(float(found.max(initial=0)) for found in everywhere) > middle + 1


def test_results_are_only_replaced_when_asked(
    street: Recording, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    words = (street.bag, '--out', tmp_path, '--max-frames', 2, '--no-overlay')
    (tmp_path / 'mine.txt').write_text('keep me')
    assert track(*words) == 0
    assert track(*words) == 2
    assert '--overwrite' in capsys.readouterr().err
    assert track(*words, '--overwrite') == 0
    assert (tmp_path / 'mine.txt').read_text() == 'keep me'
    assert len(tracks_of(tmp_path / BAG)) == 2


def test_several_cameras_get_a_folder_and_ids_each(street: Recording, tmp_path: Path) -> None:
    with BagReader(street.bag) as reader, BagWriter(tmp_path / 'two', reserve_bytes=10) as bag:
        for raw in reader.raw([IMAGE_TOPIC, DETECTIONS_TOPIC]):
            for side in ('left', 'right'):
                bag.write_raw(f'/{side}{raw.topic}', raw.type_name, raw.data, raw.time_ns)
    out = tmp_path / 'out'
    assert track(tmp_path / 'two', '--out', out, '--no-overlay', '--max-frames', 8) == 0
    folders = [out / 'left_camera_image_compressed', out / 'right_camera_image_compressed']
    texts = [(folder / 'tracks.txt').read_bytes() for folder in folders]
    assert texts[0] == texts[1] != b''
    uuids = [{item['uuid'] for item in json.loads((folder / 'tracks.json').read_text())[
        'annotations']} for folder in folders]
    assert not uuids[0] & uuids[1]
    with BagReader(out / BAG) as reader:
        assert sum(topic.name.endswith('/tracker/output/tracks') for topic in reader.topics) == 2


def test_a_video_with_a_file_of_boxes(result: Path, tmp_path: Path) -> None:
    out = tmp_path / 'out'
    assert track(result / 'overlay.webm', '--detections', result / 'tracks.txt', '--out', out) == 0
    frames = set(read_rows(result / 'tracks.txt').frames.tolist())
    assert set(read_rows(out / 'tracks.txt').frames.tolist()) <= frames
    with BagReader(out / BAG) as reader:
        assert reader.topics_of(TRACKS)[0].count == 15


def test_without_boxes_the_way_out_is_named(
    result: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    assert track(result / 'overlay.webm', '--out', tmp_path / 'out', '--model', 'classical') == 2
    shown = capsys.readouterr().err
    assert all(word in shown for word in ('--detector', '--detections', '--topics', '--model'))
    assert not (tmp_path / 'out').exists()


def test_images_without_boxes_are_left_out_or_taken_for_empty(
    street: Recording, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    with BagReader(street.bag) as reader, BagWriter(tmp_path / 'part', reserve_bytes=10) as bag:
        for count, raw in enumerate(reader.raw([IMAGE_TOPIC, DETECTIONS_TOPIC])):
            if raw.topic == IMAGE_TOPIC or count < 20:
                bag.write_raw(raw.topic, raw.type_name, raw.data, raw.time_ns)
    words = (tmp_path / 'part', '--no-overlay')
    assert track(*words, '--out', tmp_path / 'skip') == 0
    assert '5 images had no boxes in time' in capsys.readouterr().out
    assert len(tracks_of(tmp_path / 'skip' / BAG)) == 10
    assert track(*words, '--out', tmp_path / 'empty', '--set', 'detections.missing=empty') == 0
    assert len(tracks_of(tmp_path / 'empty' / BAG)) == 15


def test_a_cut_off_bag_gives_what_it_has_and_says_so(
    street: Recording, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    with BagReader(street.bag) as reader, BagWriter(tmp_path / 'long', reserve_bytes=10) as bag:
        messages = list(reader.raw([IMAGE_TOPIC, DETECTIONS_TOPIC]))
        for again in range(8):
            shift = again * 1_500_000_000
            for raw in messages:
                sec = int.from_bytes(raw.data[4:8], 'little') * 10**9
                stamp = sec + int.from_bytes(raw.data[8:12], 'little') + shift
                data = (raw.data[:4] + (stamp // 10**9).to_bytes(4, 'little')
                        + (stamp % 10**9).to_bytes(4, 'little') + raw.data[12:])
                bag.write_raw(raw.topic, raw.type_name, data, raw.time_ns + shift)
    (file,) = (tmp_path / 'long').glob('*.mcap')
    with file.open('r+b') as handle:
        handle.truncate(int(file.stat().st_size * 0.8))
    assert track(tmp_path / 'long', '--out', tmp_path / 'out', '--no-overlay') == 1
    assert 'not complete' in capsys.readouterr().out
    assert 20 < len(tracks_of(tmp_path / 'out' / BAG)) < 120


def test_a_bag_of_which_nothing_can_be_read_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / 'bad.mcap').write_bytes(b'\x89MCAP0\r\n' + bytes(100))
    assert track(tmp_path / 'bad.mcap', '--out', tmp_path / 'out') == 2
    assert 'nothing can be read' in capsys.readouterr().err


def start(*words: object, limit: str = '') -> subprocess.Popen[str]:
    code = f'import resource, signal, sys\nfrom masa_ros.cli.main import main\n{limit}\n' \
           f'sys.exit(main({[str(word) for word in words]!r}))'
    return subprocess.Popen([sys.executable, '-c', code], cwd=ROOT, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def endless(street: Recording, folder: Path) -> Path:
    """Folder of many images (links to one) with boxes for each."""
    (folder / 'img1').mkdir(parents=True)
    image = np.random.default_rng(0).integers(0, 255, (180, 320, 3), np.uint8)
    cv2.imwrite(str(folder / 'img1' / '000001.png'), image)
    for index in range(2, 3000):
        (folder / 'img1' / f'{index:06d}.png').symlink_to(folder / 'img1' / '000001.png')
    (folder / 'det').mkdir()
    (folder / 'det' / 'det.txt').write_text(
        ''.join(f'{i},-1,{10 + i % 100},20,60,90,0.9\n' for i in range(1, 3000)))
    return folder


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_whole_files(
    street: Recording, tmp_path: Path, number: signal.Signals,
) -> None:
    process = start('track', endless(street, tmp_path / 'seq'), '--out', tmp_path / 'out')
    text = tmp_path / 'out' / 'tracks.txt'
    end = time.monotonic() + 150
    while time.monotonic() < end and not (text.exists() and text.stat().st_size > 500):
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 130, errors
    assert 'interrupted; the ' in errors
    frames = read_rows(text).frames.max()
    assert len(tracks_of(tmp_path / 'out' / BAG)) == frames
    assert len(json.loads((tmp_path / 'out' / 'tracks.json').read_text())['images']) == frames
    assert len(list(open_source(tmp_path / 'out' / 'overlay.webm'))) == frames
    assert not (tmp_path / 'out' / '.reserve').exists()


def test_a_full_disk_leaves_readable_files(street: Recording, tmp_path: Path) -> None:
    """A limit on the file size, reached by the JSON, stands in for a full disk."""
    limit = ('signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n'
             'import masa_ros.cli.outputs; masa_ros.cli.outputs._RESERVE_BYTES = 1000\n'
             'resource.setrlimit(resource.RLIMIT_FSIZE, (30000, resource.RLIM_INFINITY))\n'
             'import masa_ros.evaluation.formats.coco as c; close = c.CocoWriter.close\n'
             'def roomy(self):\n'
             '    resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1)); close(self)\n'
             'c.CocoWriter.close = roomy')
    process = start('track', endless(street, tmp_path / 'seq'), '--out', tmp_path / 'out',
                    '--no-overlay', limit=limit)
    _, errors = process.communicate(timeout=250)
    assert process.returncode == 2, errors
    assert 'no space left for the results' in errors
    assert 'Traceback' not in errors
    data = json.loads((tmp_path / 'out' / 'tracks.json').read_text())
    assert len(data['annotations']) > 50
    assert len(read_rows(tmp_path / 'out' / 'tracks.txt').ids) > 50


def test_small_helpers() -> None:
    assert file_name('/camera/image_raw') == 'camera_image_raw'
    assert file_name('../..') == 'stream'
    assert frame_rate([0, 100_000_000, 200_000_000, 900_000_000]) == pytest.approx(10)
    assert frame_rate([5]) == 10
    assert spread(list(range(25)), 3) == [0, 12, 24]
    assert spread([1, 2], 3) == [1, 2]
