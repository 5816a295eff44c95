"""The report of a benchmark."""

from __future__ import annotations

from base64 import b64decode
from dataclasses import replace
import io
import json
import math
from pathlib import Path
import re

import cv2
from masa_ros.evaluation.baselines import build_baseline, SequenceTracker
from masa_ros.evaluation.benchmark import Faults, ObserverSpec, Plan, run_benchmark, TrackerSpec
from masa_ros.evaluation.benchmark_report import (
    BenchmarkReport,
    build_report,
    majority_classes,
    render_report,
    write_report,
)
from masa_ros.evaluation.datasets.sequence import regular_stamps_ns, Sequence, with_ids
from masa_ros.evaluation.published import TABLES
from masa_ros.structures.frame import Frame
from masa_ros.structures.instances import Instances, TrackedInstances
from masa_ros.structures.masks import encode_crop
import numpy as np
from PIL import Image
import pytest


class Forgetful:
    """Gives every object a new id after half a second."""

    def update(self, frame: Frame, instances: Instances) -> TrackedInstances:
        start = 1 + 100 * int(frame.stamp_ns * 1e-9 / 0.5)
        return with_ids(instances, start + np.arange(len(instances)))


def forgetful(rate_hz: float) -> SequenceTracker:
    return Forgetful()


def greedy(rate_hz: float) -> SequenceTracker:
    return build_baseline('iou', rate_hz)


def plan(tmp_path: Path, with_truth: bool = True) -> Plan:
    indices = np.arange(12, dtype=np.int64)
    paths = tuple(tmp_path / f'{i}.png' for i in indices)
    for path in paths:
        cv2.imwrite(str(path), np.full((60, 80, 3), 128, np.uint8))
    truth = tuple(with_ids(Instances.from_boxes(
        [[t, 5, t + 20, 30], [50, 30 + t, 70, 45 + t]], class_ids=[1, 3]), [1, 2])
        for t in range(12))
    sequence = Sequence('<a> & b', indices, regular_stamps_ns(indices, 10.0), 10.0, paths, 60, 80,
                        truth if with_truth else ())
    boxes = tuple(Instances.from_boxes(frame.boxes, class_ids=frame.class_ids)
                  for frame in truth)
    return Plan((sequence,), (ObserverSpec('boxes', 'v', lambda: lambda own: boxes),),
                (TrackerSpec('forgetful', 'v', forgetful), TrackerSpec('iou', 'v', greedy)),
                (1, 5), (Faults(),), tmp_path / 'cache')


def report(tmp_path: Path, dataset: str = '', with_truth: bool = True) -> BenchmarkReport:
    whole = plan(tmp_path, with_truth)
    return build_report('<title>', whole, run_benchmark(whole), dataset)


@pytest.fixture(scope='module')
def scored(tmp_path_factory: pytest.TempPathFactory) -> BenchmarkReport:
    """Report of a folder with truth; plots take a while."""
    return report(tmp_path_factory.mktemp('scored'))


def test_rows_hold_scores_statistics_and_times(scored: BenchmarkReport) -> None:
    rows = scored.rows
    assert [(row['tracker'], row['stride']) for row in rows] == [
        ('forgetful', 1), ('iou', 1), ('forgetful', 5), ('iou', 5)]
    # Twelve frames at 10 Hz: new ids at 0.5 and 1.0 s, for two objects.
    assert rows[0]['IDSW'] == 4
    assert rows[0]['num_ids'] == 6
    assert rows[1]['IDSW'] == 0
    assert rows[1]['p99_ms'] >= rows[1]['p50_ms'] > 0


def test_every_switch_is_a_moment_with_pictures(scored: BenchmarkReport) -> None:
    moments = scored.moments
    # Four switches at stride 1; at stride 5 every frame is half a second: two objects, two more.
    assert len(moments) == 8
    assert 'object 1 went from id 1 to 101 (a new one) after 0.10 s' in moments[0].title
    assert all(address.startswith('data:image/jpeg;base64,')
               for moment in moments for _, address in moment.crops)


def test_the_first_moments_have_a_clip_that_moves(scored: BenchmarkReport) -> None:
    clips = [moment.clip for moment in scored.moments]
    assert [bool(clip) for clip in clips] == [True] * 4 + [False] * 4
    data = b64decode(clips[0].removeprefix('data:image/webp;base64,'))
    with Image.open(io.BytesIO(data)) as clip:
        assert clip.size == (420, 315)
        assert clip.n_frames > 4  # type: ignore[attr-defined]


def test_names_are_escaped_and_nothing_is_loaded(scored: BenchmarkReport) -> None:
    page = render_report(scored)
    assert '&lt;title&gt;' in page
    assert '<title>&lt;title&gt;' in page
    assert '&lt;a&gt; &amp; b' in page
    assert re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', page) == []
    assert page.count('<svg') == len(scored.plots) > 3


def test_every_share_after_a_gap_has_its_count(scored: BenchmarkReport) -> None:
    for row in scored.rows:
        kept = [key for key in row if key.startswith('kept_')]
        assert kept
        for key in kept:
            count = row[key.replace('kept_', 'gaps_')]
            assert (count == 0) == np.isnan(row[key])
            assert count == 0 or (row[key] * count) % 1 == pytest.approx(0)


def test_nothing_stays_folded_on_paper(scored: BenchmarkReport) -> None:
    page = render_report(scored)
    assert page.count('<details') == 1
    assert "addEventListener('beforeprint'" in page
    assert 'size: A4' in page


def test_without_truth_only_identities_are_shown(tmp_path: Path) -> None:
    found = report(tmp_path, with_truth=False)
    assert found.plots == []
    assert found.moments == []
    page = render_report(found)
    assert 'Scores against' not in page
    assert 'ids / min' in page
    assert 'ids_per_minute' in found.text()


@pytest.mark.parametrize(('dataset', 'columns'), [
    ('tao', ['TETA', 'AssocA', 'track AP50']), ('bdd_mot', ['TETA', 'mHOTA', 'mIDF1'])])
def test_a_data_set_has_its_own_scores_and_published_figures(
    tmp_path: Path, dataset: str, columns: list[str],
) -> None:
    found = report(tmp_path, dataset)
    for column in columns:
        assert found.extra[1][column] == pytest.approx(1.0)
        assert found.extra[0][column] < 1
    page = render_report(found)
    assert page.count('Published: ') >= 3
    assert 'MASA-SAM-B' in page


@pytest.mark.parametrize('name', sorted(TABLES))
def test_every_published_table_has_a_figure_for_each_column(name: str) -> None:
    for table in TABLES[name]:
        assert all(len(values) == len(table.columns) for values in table.rows.values())
        assert all(math.isnan(value) or 0 < value < 100
                   for values in table.rows.values() for value in values)


def test_base_and_novel_classes_have_their_own_teta(tmp_path: Path) -> None:
    whole = plan(tmp_path)
    found = build_report('t', whole, run_benchmark(whole), 'tao', {'base': [1], 'novel': [3]})
    row = found.extra[0]
    assert row['TETA'] == pytest.approx((row['TETA base'] + row['TETA novel']) / 2)


def test_segmentation_tracks_are_scored_by_their_masks(tmp_path: Path) -> None:
    """Boxes are those of the truth, but one of the two classes has masks of the wrong half."""
    whole = plan(tmp_path)
    sequence = whole.sequences[0]
    upper = [encode_crop(np.ones((10, 20), bool), *map(int, frame.boxes[0, :2]))
             for frame in sequence.truth]
    lower = [encode_crop(np.ones((15, 20), bool), *map(int, frame.boxes[1, :2]))
             for frame in sequence.truth]
    wrong = [encode_crop(np.ones((5, 20), bool), 50, int(frame.boxes[1, 1]))
             for frame in sequence.truth]
    truth = tuple(frame.with_fields(masks=(one, two))
                  for frame, one, two in zip(sequence.truth, upper, lower, strict=True))
    boxes = tuple(Instances.from_boxes(frame.boxes, class_ids=frame.class_ids).with_fields(
        masks=(one, two)) for frame, one, two in zip(truth, upper, wrong, strict=True))
    chosen = replace(whole, sequences=(replace(sequence, truth=truth),), strides=(1,),
                     observers=(ObserverSpec('masks', 'm', lambda: lambda own: boxes),),
                     trackers=whole.trackers[1:])
    row = build_report('t', chosen, run_benchmark(chosen), 'bdd_mots').extra[0]
    # The first class is perfect, MOTSA 1; all of the second are false and missed, MOTSA -1.
    assert row['mMOTSA'] == pytest.approx(0)
    assert row['mIDF1'] == pytest.approx(0.5)


def test_files_are_valid(tmp_path: Path, scored: BenchmarkReport) -> None:
    paths = write_report(scored, tmp_path / 'out' / 'x')
    assert [path.name for path in paths] == ['report.html', 'results.json', 'results.csv']
    content = json.loads(paths[1].read_text(), parse_constant=lambda text: pytest.fail(text))
    assert len(content['sequences']) == 4


def test_a_track_has_the_class_of_most_of_its_boxes() -> None:
    def one(class_id: int) -> TrackedInstances:
        return with_ids(Instances.from_boxes([[0, 0, 1, 1]], class_ids=[class_id]), [1])

    assert [int(frame.class_ids[0]) for frame in majority_classes([one(5), one(2), one(5)])] == [
        5, 5, 5]
    # The smallest number on a tie.
    assert int(majority_classes([one(5), one(2)])[0].class_ids[0]) == 2
    assert majority_classes([]) == []
