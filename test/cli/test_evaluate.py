"""``masa_ros evaluate`` from recording or data set to report."""

from __future__ import annotations

from concurrent.futures import Future
import csv
import json
from pathlib import Path
import pickle

import cv2
from masa_ros.cli.evaluate import is_motchallenge, RayExecutor, tracker_named
from masa_ros.cli.main import main
from masa_ros.evaluation.datasets.motchallenge import read_rows
from masa_ros.evaluation.datasets.sequence import with_ids
from masa_ros.pipeline import PipelineConfig
from masa_ros.ros.bag import BagWriter
from masa_ros.ros.convert import (
    array_to_image,
    instances_to_detections,
    make_header,
)
from masa_ros.structures.instances import Instances, TrackedInstances
from masa_ros.tracking.tracker import TrackerConfig
import numpy as np
import pytest

FRAMES = 8
START_NS = 1_700_000_000_000_000_000
STEP_NS = 100_000_000


def truth(index: int) -> TrackedInstances:
    """Two objects that pass each other."""
    boxes = [[5 + 8 * index, 10, 25 + 8 * index, 40], [75 - 8 * index, 45, 95 - 8 * index, 75]]
    return with_ids(Instances.from_boxes(boxes, [0.9, 0.8], [0, 0], ['car', 'car']), [4, 9])


def picture(index: int) -> np.ndarray:
    """Draw the two objects, red and blue, on a textured ground."""
    image = np.random.RandomState(0).randint(90, 130, (90, 120, 3)).astype(np.uint8)
    for box, color in zip(truth(index).boxes.astype(int), ((220, 30, 30), (30, 30, 220)),
                          strict=True):
        image[box[1]:box[3], box[0]:box[2]] = color
    return image


def mot_folder(root: Path, name: str = 'a') -> Path:
    folder = root / name
    (folder / 'img1').mkdir(parents=True)
    lines: dict[str, list[str]] = {'gt': [], 'det': []}
    for index in range(FRAMES):
        cv2.imwrite(str(folder / 'img1' / f'{index + 1:06d}.png'),
                    cv2.cvtColor(picture(index), cv2.COLOR_RGB2BGR))
        for track_id, (x0, y0, x1, y1) in zip((4, 9), truth(index).boxes.tolist(), strict=True):
            numbers = f'{x0 + 1},{y0 + 1},{x1 - x0},{y1 - y0}'
            lines['gt'].append(f'{index + 1},{track_id},{numbers},1,1,1')
            lines['det'].append(f'{index + 1},-1,{numbers},0.9')
    for kind, text in lines.items():
        (folder / kind).mkdir()
        (folder / kind / f'{kind}.txt').write_text('\n'.join(text))
    return folder


def bag(
    path: Path, shift_ns: int = 0, ids: bool = True, pad_px: int = 0, storage: str = 'mcap',
) -> Path:
    with BagWriter(path, storage, reserve_bytes=1000) as writer:
        for index in range(FRAMES):
            stamp_ns = START_NS + index * STEP_NS
            header = make_header(stamp_ns, 'camera', writer.builder)
            image = np.pad(picture(index), ((0, pad_px), (0, pad_px), (0, 0)))
            writer.write('/image', array_to_image(image, 'rgb8', header, writer.builder),
                         stamp_ns)
            plain = Instances.from_boxes(truth(index).boxes, truth(index).scores)
            writer.write('/boxes', instances_to_detections(plain, header, writer.builder),
                         stamp_ns)
            header = make_header(stamp_ns + shift_ns, 'camera', writer.builder)
            message = instances_to_detections(truth(index), header, writer.builder)
            for detection, track_id in zip(message.detections, ('x', 'y'), strict=True):
                detection.id = track_id if ids else ''
            writer.write('/truth', message, stamp_ns)
    return path


def evaluate(tmp_path: Path, *words: object) -> int:
    return main(['evaluate', *map(str, words), '--cache', str(tmp_path / 'cache'),
                 '--out', str(tmp_path / 'out')])


def results(tmp_path: Path) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = json.loads(
        (tmp_path / 'out' / 'results.json').read_text())['rows']
    return rows


def test_a_motchallenge_folder_is_scored_for_every_tracker_and_stride(tmp_path: Path) -> None:
    mot_folder(tmp_path / 'data', 'a')
    mot_folder(tmp_path / 'data', 'b')
    assert evaluate(tmp_path, tmp_path / 'data', '--trackers', 'ours,iou', '--strides', '1,2',
                    '--noise', '0.01') == 0
    rows = results(tmp_path)
    assert [(row['tracker'], row['stride'], row['faults']) for row in rows] == [
        ('ours', 1, 'none'), ('iou', 1, 'none'),
        ('ours', 1, '1 % box noise'), ('iou', 1, '1 % box noise'),
        ('ours', 2, 'none'), ('iou', 2, 'none'),
        ('ours', 2, '1 % box noise'), ('iou', 2, '1 % box noise')]
    assert rows[0]['HOTA'] == pytest.approx(1.0)
    assert rows[0]['num_gt_ids'] == 4
    with (tmp_path / 'out' / 'results.csv').open() as file:
        assert [row['sequence'] for row in csv.DictReader(file)][:2] == ['a', 'a']
    page = (tmp_path / 'out' / 'report.html').read_text()
    assert '<svg' in page
    assert 'http' not in page.replace('http://www.w3.org', '').replace(
        'http://purl.org', '').replace('http://creativecommons.org', '').replace(
        'https://matplotlib.org', '')


def test_a_sequence_can_be_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mot_folder(tmp_path / 'data', 'a')
    mot_folder(tmp_path / 'data', 'b')
    assert evaluate(tmp_path, tmp_path / 'data', '--sequences', 'b', '--trackers', 'iou') == 0
    assert results(tmp_path)[0]['num_gt_ids'] == 2
    assert evaluate(tmp_path, tmp_path / 'data', '--sequences', 'c') == 2
    assert 'no sequence c; there are a, b' in capsys.readouterr().err


def test_a_bag_is_scored_against_a_topic_with_ids(tmp_path: Path) -> None:
    path = bag(tmp_path / 'bag')
    assert evaluate(tmp_path, path, '--truth', '/truth', '--detections', '/boxes',
                    '--trackers', 'ours,bytetrack') == 0
    row = results(tmp_path)[0]
    assert row['HOTA'] == pytest.approx(1.0)
    assert row['num_gt_ids'] == 2


def test_a_bag_is_scored_against_a_file_and_a_live_run_beside_it(tmp_path: Path) -> None:
    path, folder = bag(tmp_path / 'bag'), mot_folder(tmp_path / 'data')
    assert evaluate(tmp_path, path, '--truth', folder / 'gt' / 'gt.txt', '--detections',
                    '/boxes', '--results', '/truth', '--trackers', 'iou') == 0
    rows = results(tmp_path)
    assert [row['tracker'] for row in rows] == ['iou', 'live: /truth']
    assert rows[1]['HOTA'] == pytest.approx(1.0)


def test_without_truth_there_are_identity_statistics(tmp_path: Path) -> None:
    path = bag(tmp_path / 'bag')
    assert evaluate(tmp_path, path, '--detections', '/boxes') == 0
    row = results(tmp_path)[0]
    assert 'HOTA' not in row
    assert row['num_ids'] == 2
    assert row['duration_s'] == pytest.approx(0.7)
    assert 'ids / min' in (tmp_path / 'out' / 'report.html').read_text()


def test_shifted_stamps_are_refused_with_the_offset(
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    path = bag(tmp_path / 'bag', shift_ns=5_050_000_000)
    assert evaluate(tmp_path, path, '--truth', '/truth', '--detections', '/boxes') == 2
    assert 'begins +5.050 s from the first image' in capsys.readouterr().err


@pytest.mark.parametrize(('shift_ns', 'frames', 'used', 'apart_ms'), [
    (0, 8, 8, '0.0'), (3_000_000, 8, 8, '3.0'), (3 * STEP_NS, 5, 5, '0.0')])
def test_how_much_of_the_truth_found_its_frame_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], shift_ns: int, frames: int, used: int,
    apart_ms: str,
) -> None:
    """A shift by whole frames leaves partners for all but those at the ends."""
    path = bag(tmp_path / 'bag', shift_ns=shift_ns)
    assert evaluate(tmp_path, path, '--truth', '/truth', '--detections', '/boxes') == 0
    assert (f'{frames} of 8 frames of /image have a truth; {used} of the 8 frames of /truth are '
            f'used, at most {apart_ms} ms apart') in capsys.readouterr().out


def test_a_truth_file_for_fewer_frames_is_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    path, folder = bag(tmp_path / 'bag'), mot_folder(tmp_path / 'data')
    lines = (folder / 'gt' / 'gt.txt').read_text().splitlines()
    (tmp_path / 'gt.txt').write_text('\n'.join(lines[:10]))
    assert evaluate(tmp_path, path, '--truth', tmp_path / 'gt.txt', '--detections',
                    '/boxes') == 0
    assert (f'5 of 8 frames of /image have a truth; 5 of the 5 frames of {tmp_path / "gt.txt"} '
            'are used') in capsys.readouterr().out


def test_an_id_twice_in_a_frame_of_the_truth_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    path, folder = bag(tmp_path / 'bag'), mot_folder(tmp_path / 'data')
    file = folder / 'gt' / 'gt.txt'
    file.write_text(file.read_text() + '\n3,9,1,1,5,5,1,1,1\n')
    assert evaluate(tmp_path, path, '--truth', file, '--detections', '/boxes') == 2
    assert 'frame 3' in capsys.readouterr().err
    assert evaluate(tmp_path, folder) == 2
    assert 'frame 3' in capsys.readouterr().err


def test_a_live_run_and_trackers_have_the_same_form_in_the_report(tmp_path: Path) -> None:
    """What a node published in real time is scored and described like what runs offline."""
    path = bag(tmp_path / 'bag')
    for truth_words in (['--truth', '/truth'], []):
        assert evaluate(tmp_path, path, '--detections', '/boxes', '--results', '/truth',
                        '--trackers', 'iou', *truth_words) == 0
        offline, live = results(tmp_path)
        assert live['tracker'] == 'live: /truth'
        timed = {name for name in offline if 'ms' in name.split('_')}
        assert set(offline) - timed == set(live) - timed
        whole = json.loads((tmp_path / 'out' / 'results.json').read_text())
        one, other = whole['sequences']
        assert set(one) - timed == set(other) - timed


def test_a_truth_without_ids_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    path = bag(tmp_path / 'bag', ids=False)
    assert evaluate(tmp_path, path, '--truth', '/truth') == 2
    assert 'have no ids' in capsys.readouterr().err


@pytest.mark.parametrize(('storage', 'suffix'), [('mcap', '.mcap'), ('sqlite3', '.db3')])
def test_a_bag_cut_in_half_is_scored_as_far_as_it_goes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], storage: str, suffix: str,
) -> None:
    # Large images, so that the file has more than one chunk.
    whole = bag(tmp_path / 'bag', pad_px=700, storage=storage)
    data = next(whole.glob(f'*{suffix}')).read_bytes()
    cut, folder = tmp_path / f'cut{suffix}', mot_folder(tmp_path / 'data')
    cut.write_bytes(data[:len(data) // 2])
    assert evaluate(tmp_path, cut, '--truth', folder / 'gt' / 'gt.txt', '--trackers',
                    'iou', '--detections', '/boxes') == 0
    assert 0 < results(tmp_path)[0]['num_frames'] < FRAMES  # type: ignore[operator]
    assert 'not complete' in capsys.readouterr().err


def test_a_second_run_uses_what_the_first_kept(tmp_path: Path) -> None:
    folder = mot_folder(tmp_path / 'data')
    evaluate(tmp_path, folder, '--trackers', 'ours')
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / 'cache').rglob('*.npz')}
    evaluate(tmp_path, folder, '--trackers', 'ours,sort')
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / 'cache').rglob('*.npz')}
    assert {path: after[path] for path in kept} == kept
    assert len(after) == len(kept) + 1


@pytest.mark.parametrize(('words', 'message'), [
    (['--trackers', 'fairmot'], "unknown tracker 'fairmot'"),
    (['--strides', '0'], "--strides is '0'"),
    (['--strides', '1,x'], "--strides is '1,x'"),
    (['--noise', '2'], 'noise is 2.0'),
    (['--truth', 'nothing.txt'], 'is not a file'),
    (['--dataset', 'tao'], 'looked for annotations/')])
def test_mistakes_are_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str,
) -> None:
    assert evaluate(tmp_path, mot_folder(tmp_path / 'data'), *words) == 2
    assert message in capsys.readouterr().err


def test_tracks_are_written_for_other_tools(tmp_path: Path) -> None:
    folder = mot_folder(tmp_path / 'data')
    evaluate(tmp_path, folder, '--trackers', 'iou', '--strides', '3')
    rows = read_rows(tmp_path / 'out' / 'tracks' / 'iou-stride3' / 'a.txt')
    # Frames 0, 3 and 6 are given as 1, 2 and 3.
    assert rows.frames.tolist() == [1, 1, 2, 2, 3, 3]
    np.testing.assert_allclose(rows.boxes[2:4], truth(3).boxes)


def test_published_detections_are_tracked(tmp_path: Path) -> None:
    folder = mot_folder(tmp_path / 'data')
    for index in range(FRAMES):
        path = tmp_path / 'given' / f'{index + 1:06d}.pth'
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(pickle.dumps({
            'det_bboxes': np.column_stack([truth(index).boxes, [0.9, 0.9]])[:1],
            'det_labels': np.array([0])}))
    assert evaluate(tmp_path, folder, '--given', tmp_path / 'given', '--trackers', 'iou') == 0
    row = results(tmp_path)[0]
    assert (row['FN'], row['FP']) == (FRAMES, 0)


def test_annotations_alone_are_enough_for_boxes_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    folder = mot_folder(tmp_path / 'data')
    evaluate(tmp_path, folder, '--boxes', 'given', '--model', 'classical')
    (folder / 'img1').rename(tmp_path / 'elsewhere')
    assert evaluate(tmp_path, folder) == 2
    assert 'no images in img1/' in capsys.readouterr().err
    assert evaluate(tmp_path, folder, '--boxes-only', '--trackers', 'ours,iou,bytetrack') == 0
    assert 'given boxes, no embeddings' in capsys.readouterr().out
    assert [row['HOTA'] for row in results(tmp_path)[:2]] == pytest.approx([1.0, 1.0])
    assert '<svg' in (tmp_path / 'out' / 'report.html').read_text()
    assert evaluate(tmp_path, folder, '--boxes-only', '--boxes', 'truth') == 0
    assert 'boxes of the truth, no embeddings' in capsys.readouterr().out


@pytest.mark.parametrize(('words', 'message'), [
    (['--trackers', 'ours,botsort'], 'gives botsort no images'),
    (['--features', 'dino_vits16'], 'gives --features no images'),
    (['--boxes', 'detector'], '--boxes detector finds nothing'),
    (['--boxes', 'proposals'], '--boxes proposals finds nothing')])
def test_what_needs_images_is_refused_for_boxes_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str,
) -> None:
    assert evaluate(tmp_path, mot_folder(tmp_path / 'data'), '--boxes-only', *words) == 2
    assert message in capsys.readouterr().err


def test_a_recording_is_no_annotation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    assert evaluate(tmp_path, bag(tmp_path / 'bag'), '--boxes-only') == 2
    assert 'is for annotations of data sets' in capsys.readouterr().err


@pytest.mark.parametrize('lines', ['', '1,4,1,1,0,0,1,1,1\n2,4,5,5,0,10,1,1,1\n'])
def test_an_empty_truth_and_boxes_without_area_are_scored(tmp_path: Path, lines: str) -> None:
    folder = mot_folder(tmp_path / 'data')
    (folder / 'gt' / 'gt.txt').write_text(lines)
    for boxes in ('given', 'truth'):
        assert evaluate(tmp_path, folder, '--trackers', 'ours,iou,bytetrack', '--boxes',
                        boxes) == 0
    json.loads((tmp_path / 'out' / 'results.json').read_text(),
               parse_constant=lambda text: pytest.fail(text))


LOWER = '0,42 120,42 120,90 0,90'
RIGHT = '60,0 120,0 120,90 60,90'


@pytest.mark.parametrize('boxes', ['given', 'truth'])
def test_objects_in_ignored_regions_count_neither_as_found_nor_as_missed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], boxes: str,
) -> None:
    folder = mot_folder(tmp_path / 'data')
    words = folder, '--trackers', 'iou', '--boxes', boxes
    # The second object is in rows 45 to 75.
    assert evaluate(tmp_path, *words, '--ignore', LOWER) == 0
    row = results(tmp_path)[0]
    assert (row['num_gt_ids'], row['FN'], row['FP'], row['HOTA']) == (1, 0, 0, 1)
    assert '8 of 16 boxes of the truth are in ignored regions' in capsys.readouterr().out
    assert '(regions ' in str(row['boxes'])
    # Kept results are not taken for other regions, nor for none.
    settings = tmp_path / 'settings.yaml'
    settings.write_text(f'regions:\n  ignore_polygons: ["{RIGHT}"]\n')
    assert evaluate(tmp_path, *words, '--config', settings) == 0
    # From column 60 on are, of 20 columns: of the first 13 and 20 in the last two frames, of
    # the second 20, 20, 19 and 11 in the first four.
    assert '6 of 16 boxes of the truth' in capsys.readouterr().out
    row = results(tmp_path)[0]
    assert (row['num_gt_ids'], row['FN'], row['FP'], row['HOTA']) == (2, 0, 0, 1)
    rows = read_rows(tmp_path / 'out' / 'tracks' / 'iou-stride1' / 'a.txt')
    assert len(rows.frames) == 10
    assert evaluate(tmp_path, *words) == 0
    rows = read_rows(tmp_path / 'out' / 'tracks' / 'iou-stride1' / 'a.txt')
    assert len(rows.frames) == 16
    assert 'in ignored regions' not in capsys.readouterr().out


@pytest.mark.parametrize(('setting', 'message'), [
    ('regions.ignore_image=none.png', 'regions.ignore_image: none.png is not there'),
    ('regions.interest_polygons=["900,0 999,0 999,99"]',
     'sequence a: the regions leave nothing of an image of 120 x 90'),
    ('regions.ignore_polygons=["1,2 3,4"]', 'expected at least three corners')])
def test_mistakes_about_regions_are_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], setting: str, message: str,
) -> None:
    folder = mot_folder(tmp_path / 'data')
    assert evaluate(tmp_path, folder, '--trackers', 'iou', '--set', setting) == 2
    assert message in capsys.readouterr().err


def test_presets_of_ours_are_trackers() -> None:
    assert tracker_named('tao_bench', PipelineConfig()).name == 'tao_bench'
    own = tracker_named('ours', PipelineConfig(tracker=TrackerConfig(match_score=0.77)))
    assert own.fingerprint != tracker_named('ours', PipelineConfig()).fingerprint


def test_motchallenge_folders_are_known_by_their_files(tmp_path: Path) -> None:
    folder = mot_folder(tmp_path / 'data')
    assert is_motchallenge(folder)
    assert is_motchallenge(tmp_path / 'data')
    assert not is_motchallenge(folder / 'img1')
    assert not is_motchallenge(tmp_path / 'nothing')


class RayStandIn:
    """What `RayExecutor` uses of Ray, run on the spot."""

    def __init__(self, call: object = None) -> None:
        self._function: object = call

    def remote(self, *args: object) -> RayStandIn | Future[object]:
        if self._function is None:
            return RayStandIn(args[0])
        done: Future[object] = Future()
        try:
            done.set_result(self._function(*args))  # type: ignore[operator]
        except ArithmeticError as error:
            done.set_exception(error)
        answer = RayStandIn()
        answer.future = lambda: done  # type: ignore[attr-defined]
        return answer


def test_ray_works_as_an_executor() -> None:
    executor = RayExecutor(RayStandIn())
    assert executor.submit(divmod, 7, 2).result() == (3, 1)
    with pytest.raises(ZeroDivisionError):
        executor.submit(divmod, 7, 0).result()


def test_trackers_run_on_other_features_too(tmp_path: Path) -> None:
    pytest.importorskip('timm', reason='the extra "features" is not installed')
    mot_folder(tmp_path / 'data')
    assert evaluate(tmp_path, tmp_path / 'data', '--trackers', 'iou,ours,tao_bench', '--features',
                    'dino_vits16') == 0
    names = [row['tracker'] for row in results(tmp_path)]
    assert names == ['iou', 'ours', 'tao_bench', 'ours on dino_vits16 (random numbers)',
                     'tao_bench on dino_vits16 (random numbers)']


@pytest.mark.parametrize(('words', 'message'), [
    (('--features', 'simclr'), 'known ones are'),
    (('--trackers', 'iou', '--features', 'dino_vits16'), 'no tracker that looks at embeddings'),
    (('--sam2', 'tiny'), 'NAME=FILE'),
    (('--sam2', 'tiny=missing.pt'), 'facebookresearch/sam2'),
])
def test_mistakes_about_baselines_are_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str,
) -> None:
    mot_folder(tmp_path / 'data')
    assert evaluate(tmp_path, tmp_path / 'data', *words) != 0
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_ray_gives_the_same_scores(tmp_path: Path) -> None:
    pytest.importorskip('ray', reason='the extra "ray" is not installed')
    for name in ('a', 'b', 'c'):
        mot_folder(tmp_path / 'data', name)
    words = (tmp_path / 'data', '--trackers', 'ours,iou', '--model', 'classical')
    assert evaluate(tmp_path / 'one', *words) == 0
    assert evaluate(tmp_path / 'two', *words, '--ray', 'local') == 0
    one, two = results(tmp_path / 'one'), results(tmp_path / 'two')
    assert [row['HOTA'] for row in one] == [row['HOTA'] for row in two]
