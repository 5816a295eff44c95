"""
The report of a benchmark: one self-contained HTML page, JSON and CSV.

Colours are told apart by colour-blind readers (P. Tol, SRON/EPS/TN/09-002) and never carry a
meaning alone: lines differ in marker and dash too.
"""

from __future__ import annotations

from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Mapping
from collections.abc import Sequence as SequenceOf
import csv
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial
import io
from itertools import pairwise
import json
import math
from pathlib import Path
from typing import Any

import cv2
from jinja2 import Environment
from masa_ros.evaluation.average_precision import score_images, score_tracks
from masa_ros.evaluation.benchmark import Plan, read_tracks, Run
from masa_ros.evaluation.datasets import kitti
from masa_ros.evaluation.datasets.sequence import Sequence
from masa_ros.evaluation.identity_statistics import identity_statistics
from masa_ros.evaluation.moments import recoveries, Recovery, Sighting
from masa_ros.evaluation.published import PublishedTable, TABLES
from masa_ros.evaluation.scores import combine, mean_over_classes, of_class, score_sequence
from masa_ros.evaluation.teta import mean_over, score_teta, teta_frames
from masa_ros.structures.instances import TrackedInstances
import numpy as np
from numpy.typing import NDArray

COLORS = ('#4477aa', '#ee6677', '#228833', '#ccbb44', '#66ccee', '#aa3377', '#7e6148', '#44bb99')
MARKERS, DASHES = 'osv^DXP*', ('-', '--', '-.', ':')
SHARES = ('HOTA', 'AssA', 'DetA', 'IDF1', 'MOTA')
COUNTS = ('IDSW', 'Frag', 'FP', 'FN', 'num_ids', 'num_gt_ids')
GAPS_S = (0.0, 0.5, 1.0, 3.0, math.inf)
"""Borders of the lengths of gaps after which an object was seen again."""
MAX_MOMENTS, MAX_CLIPS = 12, 4
CLIP_FRAMES, CLIP_MARGIN, CLIP_WIDTH_PX = 12, 4, 420
CROP_PX = 132


@dataclass(frozen=True)
class Moment:
    """
    An identity switch in pictures.

    Parameters
    ----------
    title : str
        Tracker, sequence, object, ids and gap.
    crops : tuple
        Pairs of caption and JPEG as a data address.
    clip : str
        Animated WebP of the frames around it with all boxes and ids, as a data address; empty
        for none.

    """

    title: str
    crops: tuple[tuple[str, str], ...]
    clip: str = ''


@dataclass(frozen=True)
class BenchmarkReport:
    """
    All that a report shows.

    Parameters
    ----------
    title : str
        Name of the input.
    about : dict
        What was run on what.
    rows : list of dict
        One per tracker, stride and faults: scores over all sequences.
    details : list of dict
        The same for each sequence, with identity statistics.
    extra : list of dict
        Further scores of a data set (TETA, Track mAP, AR100, class means).
    published : tuple of PublishedTable
        Published figures of the data set.
    plots : list
        Pairs of caption and SVG.
    moments : list of Moment
        The worst moments.

    """

    title: str
    about: dict[str, str]
    rows: list[dict[str, Any]]
    details: list[dict[str, Any]]
    extra: list[dict[str, Any]] = field(default_factory=list)
    published: tuple[PublishedTable, ...] = ()
    plots: list[tuple[str, str]] = field(default_factory=list)
    moments: list[Moment] = field(default_factory=list)

    def text(self) -> str:
        """Return the main table for the terminal."""
        scored = [row for row in self.rows if 'HOTA' in row]
        lines = []
        for row in scored or self.rows:
            name = f'{row["tracker"]}, stride {row["stride"]}'
            if row['faults'] != 'none':
                name += f', {row["faults"]}'
            names = (*SHARES, 'IDSW') if scored else (
                'num_ids', 'ids_per_minute', 'median_track_s', 'flickers_per_minute',
                'median_margin')
            lines.append(f'{name:44s} ' + '  '.join(
                f'{key} {_number(row[key], key)}' for key in names if key in row))
        return '\n'.join(lines)


def build_report(
    title: str, plan: Plan, runs: SequenceOf[Run], dataset: str = '',
    class_groups: Mapping[str, SequenceOf[int]] | None = None,
) -> BenchmarkReport:
    """
    Put a report together.

    Parameters
    ----------
    title : str
        Name of the input.
    plan : Plan
        What was run.
    runs : sequence of Run
        What came of it.
    dataset : str
        Name of the data set, for its own scores and published figures.
    class_groups : mapping, optional
        Names of parts of the classes, such as base and novel, for TETA of each.

    """
    sequences = {sequence.name: sequence for sequence in plan.sequences}
    views = [_view(run, sequences[run.sequence]) for run in runs]
    rows = [_summary(group) for group in _groups(views)]
    extra = [_extra(dataset, group, class_groups or {})
             for group in _groups(views)] if dataset else []
    scored = [view for view in views if view.run.score is not None]
    return BenchmarkReport(
        title, _about(plan), rows, [_detail(view) for view in views],
        [row for row in extra if row], TABLES.get(dataset, ()), _plots(rows, scored),
        _moments(scored))


@dataclass(frozen=True)
class _View:
    """A run with the frames it was on and what it said."""

    run: Run
    sequence: Sequence
    frames: list[TrackedInstances]
    recoveries: list[Recovery]

    @property
    def key(self) -> tuple[str, int, str]:
        return self.run.tracker, self.run.stride, self.run.faults


def _view(run: Run, whole: Sequence) -> _View:
    frames, _ = read_tracks(run.tracks_file)
    sequence = whole.subset(run.positions)
    found = recoveries(sequence, frames) if run.score is not None else []
    return _View(run, sequence, frames, found)


def _groups(views: SequenceOf[_View]) -> list[list[_View]]:
    groups: dict[tuple[str, int, str], list[_View]] = {}
    for view in views:
        groups.setdefault(view.key, []).append(view)
    return sorted(groups.values(), key=lambda group: (
        group[0].run.stride, group[0].run.faults != 'none', group[0].run.faults))


def _summary(group: list[_View]) -> dict[str, Any]:
    first = group[0].run
    row: dict[str, Any] = {'tracker': first.tracker, 'stride': first.stride,
                           'faults': first.faults, 'boxes': first.observer}
    scores = [view.run.score for view in group if view.run.score is not None]
    if scores:
        row |= combine(scores).table()
        row |= _survived(group)
    row |= _statistics(group)
    row |= _latency(np.concatenate([view.run.update_ms for view in group]))
    return row


def _statistics(group: list[_View]) -> dict[str, float]:
    """Mean of the identity statistics over sequences, weighted by their duration."""
    tables = [identity_statistics(view.frames, view.sequence.stamps_ns).table()
              for view in group]
    weights = np.array([max(table['duration_s'], 1e-9) for table in tables])
    merged = {}
    for key in tables[0]:
        values = np.array([table[key] for table in tables])
        known = np.isfinite(values)
        if key in ('duration_s', 'num_frames', 'num_ids') or key.startswith('refound'):
            merged[key] = float(values.sum())
        else:
            merged[key] = float(np.average(values[known], weights=weights[known])
                                if known.any() else math.nan)
    return merged


def _latency(times_ms: NDArray[np.float32]) -> dict[str, float]:
    if not len(times_ms):
        return {}
    return {f'p{share}_ms': float(np.percentile(times_ms, share)) for share in (50, 95, 99)}


def _survived(group: list[_View]) -> dict[str, float]:
    """Gaps of each length: how many, and after what share an object had its id again."""
    result = {}
    gaps = [recovery for view in group for recovery in view.recoveries
            if recovery.after.position > recovery.before.position + 1]
    for low, high in pairwise(GAPS_S):
        own = [recovery for recovery in gaps if low < recovery.gap_s <= high]
        name = f'kept_{low:g}_to_{high:g}_s' if high < math.inf else f'kept_over_{low:g}_s'
        result[name] = (float(np.mean([not recovery.switched for recovery in own]))
                        if own else math.nan)
        result[f'gaps_{name.removeprefix("kept_")}'] = float(len(own))
    return result


def _detail(view: _View) -> dict[str, Any]:
    return {'sequence': view.run.sequence, **_summary([view])}


def _extra(
    dataset: str, group: list[_View], class_groups: Mapping[str, SequenceOf[int]],
) -> dict[str, Any]:
    """Return the scores that a data set is usually compared by."""
    if any(view.run.score is None for view in group):
        return {}
    sequences = [view.sequence for view in group]
    tracks = [majority_classes(view.frames) for view in group]
    row: dict[str, Any] = {'tracker': group[0].run.tracker, 'stride': group[0].run.stride,
                           'faults': group[0].run.faults}
    if dataset in ('tao', 'bdd_mot', 'bdd_mots'):
        mean, of_classes = score_teta([
            teta_frames(sequence, frames)
            for sequence, frames in zip(sequences, tracks, strict=True)])
        row |= {'TETA': mean.teta, 'LocA (TETA)': mean.loc_a, 'AssocA': mean.assoc_a,
                'ClsA': mean.cls_a}
        for name, classes in class_groups.items():
            part = mean_over(of_classes, classes)
            row |= {f'TETA {name}': part.teta, f'LocA {name}': part.loc_a,
                    f'AssocA {name}': part.assoc_a, f'ClsA {name}': part.cls_a}
    if dataset in ('tao', 'youtube_vis', 'uvo'):
        row |= {f'track {name}': value for name, value in score_tracks(
            sequences, tracks, use_masks=dataset != 'tao', class_agnostic=dataset == 'uvo',
            max_tracks=0 if dataset == 'tao' else 100).items()}
    if dataset == 'uvo':
        images = score_images(sequences, tracks, use_masks=True)
        row |= {'image AR100': images['AR100'], 'image AP': images['AP']}
    if dataset in ('bdd_mot', 'bdd_mots', 'kitti', 'kitti_mots'):
        by_mask = dataset.endswith('mots')
        scored = kitti.BENCHMARK if dataset.startswith('kitti') else ()
        means = _class_means(sequences, tracks, scored, use_masks=by_mask)
        row |= {f'm{"MOTSA" if by_mask and name == "MOTA" else name}': value
                for name, value in means.items() if name in SHARES}
    return row if len(row) > 3 else {}


def _class_means(
    sequences: list[Sequence], tracks: list[list[TrackedInstances]],
    scored: SequenceOf[int], *, use_masks: bool,
) -> dict[str, float]:
    """Means over the classes of the truth, or those of them that the benchmark scores."""
    classes = sorted({int(value) for sequence in sequences for frame in sequence.truth
                      for value in frame.class_ids if not scored or int(value) in scored})
    tables = {str(class_id): combine([
        score_sequence(*of_class(sequence, frames, class_id), use_masks=use_masks)
        for sequence, frames in zip(sequences, tracks, strict=True)]).table()
        for class_id in classes}
    return mean_over_classes(tables)


def majority_classes(frames: SequenceOf[TrackedInstances]) -> list[TrackedInstances]:
    """Give every track the class of most of its boxes, the smallest number on a tie."""
    votes: dict[int, Counter[int]] = {}
    for frame in frames:
        for track_id, class_id in zip(frame.track_ids.tolist(), frame.class_ids.tolist(),
                                      strict=True):
            votes.setdefault(track_id, Counter())[class_id] += 1
    chosen = {track_id: min(own, key=lambda value: (-own[value], value))
              for track_id, own in votes.items()}
    return [frame.with_fields(class_ids=np.array(
        [chosen[track_id] for track_id in frame.track_ids.tolist()], np.int64))
        for frame in frames]


def _about(plan: Plan) -> dict[str, str]:
    frames = sum(map(len, plan.sequences))
    truth = sum(bool(sequence.truth) for sequence in plan.sequences)
    return {
        'Made': datetime.now(timezone.utc).strftime('%Y-%m-%d %H:%M UTC'),
        'Sequences': f'{len(plan.sequences)} with {frames} frames, {truth} with ground truth',
        'Boxes and embeddings': ', '.join(spec.name for spec in plan.observers),
        'Trackers': ', '.join(f'{spec.name} ({spec.fingerprint})' for spec in plan.trackers),
    }


# Plots.

def _plots(
    rows: list[dict[str, Any]], views: list[_View],
) -> list[tuple[str, str]]:
    if not views:
        return []
    found: list[tuple[str, str]] = []
    names = list(dict.fromkeys(row['tracker'] for row in rows))
    style = {name: {'color': COLORS[i % 8], 'marker': MARKERS[i % 8],
                    'linestyle': DASHES[i % 4], 'markersize': 5}
             for i, name in enumerate(names)}
    clean = [row for row in rows if row['faults'] == 'none' and 'HOTA' in row]
    if len({row['stride'] for row in clean}) > 1:
        found += [(f'{metric} when only every n-th frame is used', _svg(
            partial(_by_stride, rows=clean, names=names, style=style, metric=metric)))
            for metric in ('HOTA', 'IDSW')]
    stride = max({view.run.stride for view in views}, key=lambda value: _switches(views, value))
    found.append((f'Identity switches over time at stride {stride}, sequences laid on one another',
                  _svg(lambda axes: _over_time(axes, views, style, stride))))
    found.append(('Sequences by the mean number of objects in a frame',
                  _svg(lambda axes: _by_objects(axes, views, style))))
    if any(math.isfinite(row[key]) for row in clean for key in row if key.startswith('kept_')):
        found.append(('Share of objects that had their id again after a gap of that length',
                      _svg(lambda axes: _by_gap(axes, clean, names))))
    if any('p50_ms' in row for row in clean):
        found.append(('Time of a tracker update (median, 95th and 99th percentile)',
                      _svg(lambda axes: _latencies(axes, clean, names))))
    return found


def _svg(draw: Callable[[Any], None]) -> str:
    """Draw a plot and return it as an SVG element that can stand in a page."""
    from matplotlib.figure import Figure
    figure = Figure(figsize=(6.2, 3.1), layout='constrained')
    axes = figure.add_subplot()
    axes.spines[['top', 'right']].set_visible(False)
    axes.grid(color='#dddddd', linewidth=0.6)
    axes.set_axisbelow(True)
    draw(axes)
    stream = io.StringIO()
    figure.savefig(stream, format='svg', metadata={'Date': None})
    text = stream.getvalue()
    return text[text.index('<svg'):]


def _by_stride(
    axes: Any, rows: list[dict[str, Any]], names: list[str], style: dict[str, Any], metric: str,
) -> None:
    for name in names:
        own = sorted((row for row in rows if row['tracker'] == name),
                     key=lambda row: int(row['stride']))
        axes.plot([row['stride'] for row in own], [row[metric] for row in own], label=name,
                  **style[name])
    axes.set(xlabel='stride', ylabel=metric, xticks=sorted({row['stride'] for row in rows}))
    axes.margins(y=0.08)
    if metric in SHARES:
        axes.set_ylim(None, 1.02)
    _legend(axes)


def _switches(views: list[_View], stride: int) -> int:
    return sum(recovery.switched for view in views for recovery in view.recoveries
               if view.run.stride == stride and view.run.faults == 'none')


def _over_time(
    axes: Any, views: list[_View], style: dict[str, Any], stride: int,
) -> None:
    for name, own_style in style.items():
        own = [view for view in views if view.run.tracker == name and view.run.stride == stride
               and view.run.faults == 'none']
        times = sorted(
            float(view.sequence.stamps_ns[recovery.after.position]
                  - view.sequence.stamps_ns[0]) * 1e-9
            for view in own for recovery in view.recoveries if recovery.switched)
        end = max((float(view.sequence.stamps_ns[-1] - view.sequence.stamps_ns[0]) * 1e-9
                   for view in own), default=0.0)
        axes.step([0.0, *times, end], [0, *range(1, len(times) + 1), len(times)], where='post',
                  label=name, color=own_style['color'], linestyle=own_style['linestyle'])
    axes.set(xlabel='seconds from the start of the sequence', ylabel='identity switches so far')
    _legend(axes)


def _by_objects(axes: Any, views: list[_View], style: dict[str, Any]) -> None:
    stride = views[0].run.stride
    for name, own_style in style.items():
        own = [view for view in views if view.run.tracker == name and view.run.stride == stride
               and view.run.faults == 'none' and view.run.score is not None]
        axes.scatter([np.mean([len(frame) for frame in view.sequence.truth]) for view in own],
                     [view.run.score.table()['HOTA'] for view in own if view.run.score],
                     label=name, color=own_style['color'], marker=own_style['marker'], s=26)
    axes.set(xlabel='objects per frame', ylabel='HOTA')
    _legend(axes)


def _by_gap(axes: Any, rows: list[dict[str, Any]], names: list[str]) -> None:
    stride = min(row['stride'] for row in rows)
    keys = [key for key in rows[0] if key.startswith('kept_')]
    for i, name in enumerate(names):
        own = [row for row in rows if row['tracker'] == name and row['stride'] == stride]
        if own:
            at = np.arange(len(keys)) + (i - (len(names) - 1) / 2) * 0.8 / len(names)
            bars = axes.bar(
                at, np.nan_to_num([own[0][key] for key in keys]), width=0.72 / len(names),
                label=name, color=COLORS[i % 8], hatch=('', '//', '..', 'xx')[i % 4],
                edgecolor='white', linewidth=0.5)
            # A bar of no height may stand for none of some or for none at all.
            axes.bar_label(bars, [_share(own[0], key) for key in keys],
                           fontsize=7 if len(names) < 5 else 5, padding=1,
                           rotation=0 if len(names) < 5 else 90)
    labels = [key.removeprefix('kept_').replace('_', ' ') for key in keys]
    axes.set(ylabel='share with the same id', xlabel='length of the gap', ylim=(0, 1.4))
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.set_xticks(range(len(keys)), labels)
    _legend(axes)


def _share(row: dict[str, Any], key: str) -> str:
    """Write the share of a bar as a fraction, such as ``3/4``; a dash for no gaps."""
    count = int(row[key.replace('kept_', 'gaps_')])
    return f'{round(row[key] * count)}/{count}' if count else '–'


def _latencies(axes: Any, rows: list[dict[str, Any]], names: list[str]) -> None:
    stride = min(row['stride'] for row in rows)
    own = [row for name in names for row in rows
           if row['tracker'] == name and row['stride'] == stride and 'p50_ms' in row]
    at = np.arange(len(own))
    for share, marker in ((50, 'o'), (95, '|'), (99, 'x')):
        axes.scatter([row[f'p{share}_ms'] for row in own], at, marker=marker,
                     color=COLORS[0], label=f'{share} %')
    axes.set(xscale='log', xlabel='milliseconds')
    axes.set_yticks(at, [row['tracker'] for row in own])
    axes.invert_yaxis()
    _legend(axes)


def _legend(axes: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        axes.legend(handles, labels, fontsize=7, frameon=False, ncols=1 + len(labels) // 7)


# Worst moments.

def _moments(views: list[_View]) -> list[Moment]:
    """Switches of the first tracker, quick ones first: those are hardest to excuse."""
    if not views or not all(view.sequence.image_paths for view in views):
        return []
    first = [view for view in views if view.run.tracker == views[0].run.tracker
             and view.run.faults == 'none']
    found = [(view, recovery) for view in first for recovery in view.recoveries
             if recovery.switched]
    found.sort(key=lambda pair: (pair[0].run.stride, pair[1].gap_s))
    return [_moment(view, recovery, number < MAX_CLIPS)
            for number, (view, recovery) in enumerate(found[:MAX_MOMENTS])]


def _moment(view: _View, recovery: Recovery, with_clip: bool) -> Moment:
    before, after = recovery.before, recovery.after
    crops = [(f'frame {_index(view, before)}, id {before.track_id}', _crop(view, before))]
    thief = _last_of(view, after.track_id, after.position)
    if thief is not None:
        crops.append((f'id {after.track_id} in frame {_index(view, thief)}', _crop(view, thief)))
    stated = ('' if math.isnan(after.similarity)
              else f', similarity {after.similarity:.2f}')
    crops.append((f'frame {_index(view, after)}, id {after.track_id}{stated}',
                  _crop(view, after)))
    return Moment(
        f'{view.run.tracker}, {view.run.sequence}, stride {view.run.stride}: object '
        f'{recovery.gt_id} went from id {before.track_id} to {after.track_id} '
        f'({"a new one" if thief is None else "of another object or time"}) after '
        f'{recovery.gap_s:.2f} s', tuple(crops), _clip(view, recovery) if with_clip else '')


def _clip(view: _View, recovery: Recovery) -> str:
    """Animated picture of the frames around a switch, the two ids in color, others in grey."""
    from PIL import Image
    first = max(recovery.before.position - CLIP_MARGIN, 0)
    last = min(recovery.after.position + CLIP_MARGIN, len(view.frames) - 1)
    positions = np.unique(np.linspace(first, last, CLIP_FRAMES).round().astype(int)).tolist()
    pictures = []
    for position in positions:
        image = view.sequence.image(position)
        scale = CLIP_WIDTH_PX / image.shape[1]
        small = np.asarray(cv2.resize(
            image, (CLIP_WIDTH_PX, round(image.shape[0] * scale)),
            interpolation=cv2.INTER_AREA), np.uint8)
        frame = view.frames[position]
        frame = frame.select(frame.seen)
        for box, track_id in zip(frame.boxes, frame.track_ids.tolist(), strict=True):
            _draw_box(small, box * scale, track_id, recovery)
        pictures.append(Image.fromarray(small))
    stream = io.BytesIO()
    pictures[0].save(stream, 'WEBP', save_all=True, append_images=pictures[1:], duration=400,
                     loop=0, quality=60)
    return 'data:image/webp;base64,' + b64encode(stream.getvalue()).decode('ascii')


def _draw_box(
    image: NDArray[np.uint8], box: NDArray[np.float32], track_id: int, recovery: Recovery,
) -> None:
    concerned = {recovery.before.track_id: (68, 119, 170),
                 recovery.after.track_id: (238, 102, 119)}
    color = concerned.get(track_id, (150, 150, 150))
    x0, y0, x1, y1 = (round(float(value)) for value in box)
    cv2.rectangle(image, (x0, y0), (x1, y1), color, 2 if track_id in concerned else 1)
    if track_id in concerned:
        for line, thickness in (((255, 255, 255), 3), ((0, 0, 0), 1)):
            cv2.putText(image, str(track_id), (x0 + 2, max(y0 - 3, 10)),
                        cv2.FONT_HERSHEY_SIMPLEX, 0.42, line, thickness, cv2.LINE_AA)


def _index(view: _View, sighting: Sighting) -> int:
    return int(view.sequence.frame_indices[sighting.position])


def _last_of(view: _View, track_id: int, position: int) -> Sighting | None:
    """Return the last time a track was seen before a frame."""
    for earlier in range(position - 1, -1, -1):
        frame = view.frames[earlier]
        rows = np.flatnonzero((frame.track_ids == track_id) & frame.seen)
        if len(rows):
            return Sighting(earlier, track_id, frame.boxes[rows[0]], math.nan)
    return None


def _crop(view: _View, sighting: Sighting) -> str:
    """JPEG of a box with its surroundings, the box drawn in, as a data address."""
    image = view.sequence.image(sighting.position)
    height, width = image.shape[:2]
    x0, y0, x1, y1 = (float(value) for value in sighting.box)
    half = max(x1 - x0, y1 - y0, 8.0) * 0.75
    left, top = int((x0 + x1) / 2 - half), int((y0 + y1) / 2 - half)
    side = int(2 * half)
    canvas = np.full((side, side, 3), 235, np.uint8)
    a, b = max(left, 0), max(top, 0)
    c, d = min(left + side, width), min(top + side, height)
    if c > a and d > b:
        canvas[b - top:d - top, a - left:c - left] = image[b:d, a:c]
    scale = CROP_PX / side
    small = cv2.resize(canvas, (CROP_PX, CROP_PX), interpolation=cv2.INTER_AREA)
    corners = [(round((x0 - left) * scale), round((y0 - top) * scale)),
               (round((x1 - left) * scale), round((y1 - top) * scale))]
    for color, thickness in (((255, 255, 255), 3), ((0, 0, 0), 1)):
        cv2.rectangle(small, corners[0], corners[1], color, thickness)
    _, data = cv2.imencode('.jpg', small[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
    return 'data:image/jpeg;base64,' + b64encode(data.tobytes()).decode('ascii')


# Files.

def write_report(report: BenchmarkReport, folder: Path) -> list[Path]:
    """
    Write ``report.html``, ``results.json`` and ``results.csv``.

    Returns
    -------
    list of Path
        The files.

    """
    folder.mkdir(parents=True, exist_ok=True)
    page, data, table = (folder / name for name in
                         ('report.html', 'results.json', 'results.csv'))
    page.write_text(render_report(report), encoding='utf-8')
    data.write_text(json.dumps(_finite({
        'title': report.title, 'about': report.about, 'rows': report.rows,
        'sequences': report.details, 'extra': report.extra}), indent=1) + '\n')
    names = list(dict.fromkeys(name for row in report.details for name in row))
    with table.open('w', newline='') as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(report.details)
    return [page, data, table]


def _finite(value: Any) -> Any:
    """Replace NaN, which JSON does not have, by null."""
    if isinstance(value, dict):
        return {key: _finite(own) for key, own in value.items()}
    if isinstance(value, list):
        return [_finite(own) for own in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _number(value: Any, key: str = '') -> str:
    """Text of a figure: counts without, everything else with three decimals."""
    if not isinstance(value, float):
        return str(value)
    if not math.isfinite(value):
        return '–'
    whole = key in COUNTS or key.startswith('refound') or key == 'num_frames'
    return f'{value:.0f}' if whole else f'{value:.3f}'


SCORE_COLUMNS = (*SHARES, *COUNTS, 'p50_ms', 'p95_ms')
IDENTITY_COLUMNS = (
    'num_ids', 'ids_per_minute', 'objects_per_frame', 'median_track_s', 'short_share',
    'fragments_per_track', 'flickers_per_minute', 'refound_after_1_s', 'refound_after_3_s',
    'median_margin', 'low_margin')
HEADINGS = {
    'num_ids': 'ids', 'num_gt_ids': 'objects', 'p50_ms': 'ms', 'p95_ms': 'ms (95 %)',
    'ids_per_minute': 'ids / min', 'objects_per_frame': 'objects / frame',
    'median_track_s': 'median track s', 'short_share': '< 1 s',
    'fragments_per_track': 'pieces / track', 'flickers_per_minute': 'flickers / min',
    'refound_after_1_s': 'back > 1 s', 'refound_after_3_s': 'back > 3 s',
    'median_margin': 'margin', 'low_margin': 'margin (10 %)'}
LESS_IS_BETTER = ('IDSW', 'Frag', 'FP', 'FN', 'p50_ms', 'p95_ms')


def render_report(report: BenchmarkReport) -> str:
    """HTML text of a report."""
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters['number'] = _number
    conditions = list(dict.fromkeys((row['stride'], row['faults']) for row in report.rows))
    blocks = []
    for stride, faults in conditions:
        rows = [row for row in report.rows if (row['stride'], row['faults']) == (stride, faults)]
        name = f'stride {stride}' + ('' if faults == 'none' else f', {faults}')
        blocks.append((name, rows, _best(rows)))
    return environment.from_string(_PAGE).render(
        report=report, blocks=blocks, scored=any('HOTA' in row for row in report.rows),
        score_columns=SCORE_COLUMNS, identity_columns=IDENTITY_COLUMNS, headings=HEADINGS,
        extra_columns=list(dict.fromkeys(
            key for row in report.extra for key in row
            if key not in ('tracker', 'stride', 'faults'))))


def _best(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Best value of every column that has a better side, where rows can be compared."""
    if len(rows) < 2:
        return {}
    best = {}
    for key in (*SHARES, *LESS_IS_BETTER):
        values = [row[key] for row in rows if key in row and math.isfinite(row[key])]
        if values:
            best[key] = min(values) if key in LESS_IS_BETTER else max(values)
    return best


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ report.title }}: tracking benchmark</title>
<style>
:root { color-scheme: light; }
body { font: 15px/1.45 system-ui, sans-serif; color: #1d1d1f; background: #fff;
  max-width: 1120px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin: 0 0 .6rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
h3 { font-size: .95rem; margin: 1.2rem 0 .3rem; }
p.note { color: #555; font-size: .85rem; max-width: 75ch; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; font-size: .88rem; }
dt { color: #555; } dd { margin: 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .82rem; font-variant-numeric: tabular-nums; }
th, td { padding: .22rem .45rem; text-align: right; border-bottom: 1px solid #e3e3e6;
  white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } thead th { border-bottom: 2px solid #888; }
td.best { font-weight: 700; text-decoration: underline; text-underline-offset: 3px; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(440px, 1fr));
  gap: 1rem 1.5rem; }
figure { margin: 0; break-inside: avoid; } figcaption { font-size: .82rem; color: #333; }
figure svg { width: 100%; height: auto; }
.moment { break-inside: avoid; margin: .8rem 0; } .moment p { margin: 0 0 .3rem;
  font-size: .85rem; }
.strip { display: flex; gap: .6rem; flex-wrap: wrap; }
.strip img { display: block; border: 1px solid #bbb; } .strip figure { max-width: 425px; }
details { margin-top: .5rem; } summary { cursor: pointer; font-size: .9rem; }
@page { size: A4; margin: 14mm; }
@media print { body { margin: 0; padding: 0; max-width: none; font-size: 10pt; }
  table { font-size: 7pt; break-inside: avoid; } th, td { padding: .1rem .25rem; }
  .scroll { overflow: visible; } h2, h3 { break-after: avoid; }
  .plots { grid-template-columns: 1fr 1fr; }
  .strip { flex-wrap: nowrap; gap: 2mm; } .strip figcaption { font-size: 6.5pt; }
  .strip img { width: auto; height: 33mm; } }
</style>
</head>
<body>
<h1>{{ report.title }}</h1>
<dl>{% for name, text in report.about.items() %}<dt>{{ name }}</dt><dd>{{ text }}</dd>{% endfor %}
</dl>
{% macro table(rows, columns, best) %}
<div class="scroll"><table><thead><tr><th>tracker</th>
{% for key in columns %}<th>{{ headings.get(key, key) }}</th>{% endfor %}</tr></thead><tbody>
{% for row in rows %}<tr><td>{{ row.tracker }}</td>
{% for key in columns %}
<td{% if key in best and row.get(key) == best[key] %} class="best"{% endif %}>
{{- row[key] | number(key) if key in row else '' }}</td>
{% endfor %}</tr>{% endfor %}
</tbody></table></div>
{% endmacro %}
{% if scored %}
<h2>Scores against the ground truth</h2>
<p class="note">All sequences together. Shares from 0 to 1, more is better; switches (IDSW),
fragmentations (Frag), false and missed boxes are counts. Times are of the tracker alone. The best
of a column is bold and underlined.</p>
{% for name, rows, best in blocks %}<h3>{{ name }}</h3>{{ table(rows, score_columns, best) }}
{% endfor %}
{% endif %}
{% if report.extra %}
<h2>Scores of this data set</h2>
{{ table(report.extra, ['stride', 'faults'] + extra_columns, {}) }}
{% endif %}
{% for table in report.published %}
<h3>Published: {{ table.title }} (percent)</h3>
<div class="scroll"><table><thead><tr><th>method</th>
{% for key in table.columns %}<th>{{ key }}</th>{% endfor %}</tr></thead><tbody>
{% for name, values in table.rows.items() %}<tr><td>{{ name }}</td>
{% for value in values %}<td>{{ '–' if value != value else '%.1f' | format(value) }}</td>
{% endfor %}</tr>{% endfor %}
</tbody></table></div><p class="note">{{ table.source }}. Figures compare only on the same
detections.</p>
{% endfor %}
{% if report.plots %}
<h2>Plots</h2><div class="plots">
{% for caption, svg in report.plots %}
<figure><figcaption>{{ caption }}</figcaption>{{ svg | safe }}</figure>
{% endfor %}</div>
{% endif %}
{% if report.moments %}
<h2>Worst moments</h2>
<p class="note">Identity switches of the first tracker, quick ones first: the object before, the
last look of the id it got (where that id was in use), the object after.</p>
{% for moment in report.moments %}<div class="moment"><p>{{ moment.title }}</p><div class="strip">
{% for caption, address in moment.crops %}<figure><img src="{{ address }}" width="132" height="132"
alt="{{ caption }}"><figcaption>{{ caption }}</figcaption></figure>{% endfor %}
{% if moment.clip %}<figure><img src="{{ moment.clip }}" class="clip" alt="clip of the moment">
<figcaption>the frames around it</figcaption></figure>{% endif %}</div></div>
{% endfor %}
{% endif %}
<h2>Identities, without looking at the truth</h2>
<p class="note">For comparing configurations on one recording. Not accuracy: merging everything
into one id looks calm here, so compare at an equal number of objects per frame.</p>
{% for name, rows, best in blocks %}<h3>{{ name }}</h3>{{ table(rows, identity_columns, {}) }}
{% endfor %}
<details><summary>Every sequence</summary>
{% for row in report.details %}{% if loop.first %}
<div class="scroll"><table><thead><tr><th>sequence</th><th>tracker</th><th>stride</th>
<th>faults</th>{% for key in score_columns if key in row %}<th>{{ headings.get(key, key) }}</th>
{% endfor %}</tr></thead><tbody>{% endif %}
<tr><td>{{ row.sequence }}</td><td>{{ row.tracker }}</td><td>{{ row.stride }}</td>
<td>{{ row.faults }}</td>{% for key in score_columns if key in report.details[0] %}
<td>{{ row[key] | number(key) if key in row else '' }}</td>{% endfor %}</tr>
{% if loop.last %}</tbody></table></div>{% endif %}{% endfor %}
</details>
<script>
const details = document.querySelector('details');
addEventListener('beforeprint', () => { details.open = true; });
</script>
</body>
</html>
"""
