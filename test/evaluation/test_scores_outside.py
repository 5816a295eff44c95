"""Our scores against trackeval's own reader of MOTChallenge files, distractors included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from masa_ros.evaluation.datasets.motchallenge import read_rows, read_sequence
from masa_ros.evaluation.datasets.sequence import with_ids
from masa_ros.evaluation.scores import score_sequence
from masa_ros.structures.instances import Instances, TrackedInstances
import numpy as np
import pytest

FRAMES = 20


def write_files(root: Path, seed: int) -> tuple[Path, Path]:
    """Write persons, static persons (7), reflections (12), uncounted rows, and noisy results."""
    random = np.random.RandomState(seed)
    classes = np.array([1, 1, 1, 7, 12, 1, 8])
    counted = np.array([1, 1, 1, 0, 0, 0, 0])
    start = random.randint(0, 300, (len(classes), 2))
    step = random.randint(-5, 6, (len(classes), 2))
    truth, results = [], []
    ids = np.arange(1, len(classes) + 1)
    for frame in range(1, FRAMES + 1):
        for row in np.flatnonzero(random.random_sample(len(classes)) > 0.15):
            x, y = start[row] + frame * step[row]
            truth.append(f'{frame},{row + 1},{x},{y},40,80,{counted[row]},{classes[row]},1')
            if random.random_sample() > 0.2:
                if random.random_sample() < 0.1:
                    ids[row] += 10
                shift = random.randint(-8, 9, 2)
                x, y = x + shift[0], y + shift[1]
                results.append(f'{frame},{ids[row]},{x},{y},40,80,1,-1,-1,-1')
        x, y = random.randint(0, 400, 2)
        results.append(f'{frame},{1000 + frame},{x},{y},30,60,1,-1,-1,-1')
    folder = root / 'gt' / 'a'
    (folder / 'gt').mkdir(parents=True)
    (root / 'trackers' / 'x' / 'data').mkdir(parents=True)
    (folder / 'gt' / 'gt.txt').write_text('\n'.join(truth) + '\n')
    (folder / 'seqinfo.ini').write_text(f'[Sequence]\nname=a\nseqLength={FRAMES}\n')
    path = root / 'trackers' / 'x' / 'data' / 'a.txt'
    path.write_text('\n'.join(results) + '\n')
    return folder, path


def results_of(path: Path) -> list[TrackedInstances]:
    rows = read_rows(path)
    return [with_ids(Instances.from_boxes(rows.boxes[rows.frames == frame]),
                     rows.ids[rows.frames == frame]) for frame in range(1, FRAMES + 1)]


def outside(root: Path) -> dict[str, float]:
    """Score the files by the reader of trackeval with the rules of MOT17."""
    trackeval = pytest.importorskip('trackeval')
    quiet: dict[str, Any] = {'PRINT_CONFIG': False}
    evaluator = trackeval.Evaluator({
        **quiet, 'PRINT_RESULTS': False, 'OUTPUT_SUMMARY': False, 'OUTPUT_DETAILED': False,
        'PLOT_CURVES': False, 'TIME_PROGRESS': False})
    dataset = trackeval.datasets.MotChallenge2DBox({
        **quiet, 'GT_FOLDER': str(root / 'gt'), 'TRACKERS_FOLDER': str(root / 'trackers'),
        'SKIP_SPLIT_FOL': True, 'SEQ_INFO': {'a': FRAMES}, 'BENCHMARK': 'MOT17'})
    metrics = [trackeval.metrics.HOTA(), trackeval.metrics.CLEAR(quiet),
               trackeval.metrics.Identity(quiet)]
    found, _ = evaluator.evaluate([dataset], metrics)
    table = found['MotChallenge2DBox']['x']['a']['pedestrian']
    return {'HOTA': float(table['HOTA']['HOTA'].mean()), 'AssA': float(
        table['HOTA']['AssA'].mean()), 'MOTA': float(table['CLEAR']['MOTA']),
        'IDSW': float(table['CLEAR']['IDSW']), 'FP': float(table['CLEAR']['CLR_FP']),
        'FN': float(table['CLEAR']['CLR_FN']), 'IDF1': float(table['Identity']['IDF1'])}


@pytest.mark.parametrize('seed', range(5))
def test_files_score_as_in_the_benchmark(
    tmp_path: Path, seed: int, capsys: pytest.CaptureFixture[str],
) -> None:
    folder, results = write_files(tmp_path, seed)
    expected = outside(tmp_path)
    found = score_sequence(read_sequence(folder), results_of(results)).table()
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-9)
    assert 0 < expected['HOTA'] < 1
