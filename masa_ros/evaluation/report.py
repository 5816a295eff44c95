"""
One self-contained HTML page about a tracked recording: figures, picture, identities over time.

Nothing is loaded from elsewhere, and colours are chosen to be told apart by colour-blind readers
(P. Tol, "Colour schemes", SRON/EPS/TN/09-002) and never carry a meaning alone.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, field

from jinja2 import Environment
from masa_ros.evaluation.datasets.sequence import Sequence
from masa_ros.structures.boxes import pairwise_iou
from masa_ros.structures.instances import TrackedInstances
import numpy as np
from scipy.optimize import linear_sum_assignment

TRACK_COLORS = ('#4477aa', '#ee6677', '#228833', '#ccbb44', '#66ccee', '#aa3377', '#7e6148',
                '#44bb99')
_MATCH_IOU = 0.5


@dataclass(frozen=True)
class Span:
    """
    A stretch of frames in which one object kept one track id.

    Parameters
    ----------
    first, last : int
        Frames, both included.
    track_id : int
        The id; -1 where the object was there but not tracked.

    """

    first: int
    last: int
    track_id: int


@dataclass(frozen=True)
class Timeline:
    """
    Which ids an object of the truth got over time.

    Parameters
    ----------
    label : str
        Name of the row.
    spans : tuple of Span
        In order of time.

    """

    label: str
    spans: tuple[Span, ...]

    @property
    def num_ids(self) -> int:
        """Count the different ids it got."""
        return len({span.track_id for span in self.spans} - {-1})


@dataclass(frozen=True)
class Report:
    """
    What the page shows.

    Parameters
    ----------
    title, subtitle : str
        Heading and the line below it.
    figures : sequence of tuple
        ``(name, value, explanation)``, shown large.
    facts : sequence of tuple
        ``(name, value)``, shown in a table.
    notes : sequence of str
        What the reader should know.
    video : str
        File name beside the page.
    contact_sheet : bytes
        Content of a PNG or JPEG file; becomes part of the page.
    timelines : sequence of Timeline
        Rows of the diagram.
    num_frames : int
        Length of the diagram.
    files : sequence of tuple
        ``(file name, what it is)``.

    """

    title: str
    subtitle: str
    figures: SequenceOf[tuple[str, str, str]]
    facts: SequenceOf[tuple[str, str]] = ()
    notes: SequenceOf[str] = ()
    video: str = ''
    contact_sheet: bytes = b''
    timelines: SequenceOf[Timeline] = ()
    num_frames: int = 0
    files: SequenceOf[tuple[str, str]] = field(default_factory=tuple)


def identity_timelines(
    sequence: Sequence, frames: SequenceOf[TrackedInstances],
) -> list[Timeline]:
    """
    Follow every object of the truth through the ids that it was given.

    Parameters
    ----------
    sequence : Sequence
        With its truth.
    frames : sequence of TrackedInstances
        Result of each frame.

    Returns
    -------
    list of Timeline
        By first appearance; objects with several ids show where an identity was lost.

    """
    histories: dict[int, list[tuple[int, int]]] = {}
    labels: dict[int, str] = {}
    for position, (truth, found) in enumerate(zip(sequence.truth, frames, strict=True)):
        found = found.select(found.seen)
        overlap = pairwise_iou(truth.boxes, found.boxes)
        rows, columns = linear_sum_assignment(
            np.where(overlap >= _MATCH_IOU, overlap, 0), maximize=True)
        given = {int(row): int(found.track_ids[column])
                 for row, column in zip(rows, columns, strict=True)
                 if overlap[row, column] >= _MATCH_IOU}
        for row, track_id in enumerate(truth.track_ids.tolist()):
            histories.setdefault(track_id, []).append((position, given.get(row, -1)))
            labels.setdefault(track_id, f'{truth.labels[row] or "object"} {track_id}')
    return [Timeline(labels[key], _spans(history)) for key, history in histories.items()]


def _spans(history: list[tuple[int, int]]) -> tuple[Span, ...]:
    spans: list[Span] = []
    for position, track_id in history:
        last = spans[-1] if spans else None
        if last and last.track_id == track_id and last.last == position - 1:
            spans[-1] = Span(last.first, position, track_id)
        else:
            spans.append(Span(position, position, track_id))
    return tuple(spans)


def render_report(report: Report) -> str:
    """HTML text of a report."""
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    sheet = b64encode(report.contact_sheet).decode('ascii')
    kind = 'png' if report.contact_sheet.startswith(b'\x89PNG') else 'jpeg'
    return environment.from_string(_PAGE).render(
        report=report, sheet=f'data:image/{kind};base64,{sheet}' if sheet else '',
        color=lambda track_id: TRACK_COLORS[track_id % len(TRACK_COLORS)])


_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ report.title }}</title>
<style>
  :root { color-scheme: light dark; --line: #8886; --soft: #8882; }
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto;
         padding: 0 1rem; }
  h1 { margin-bottom: 0; } h2 { margin-top: 2.5rem; }
  .figures { display: flex; flex-wrap: wrap; gap: 1rem; margin: 1.5rem 0; }
  .figures div { flex: 1 1 9rem; border: 1px solid var(--line); border-radius: .5rem;
                 padding: .6rem 1rem; }
  .figures strong { display: block; font-size: 1.9rem; font-variant-numeric: tabular-nums; }
  .figures small { display: block; opacity: .8; }
  table { border-collapse: collapse; } th { text-align: left; font-weight: 600; }
  td, th { padding: .2rem 1.2rem .2rem 0; vertical-align: top; }
  video, img { max-width: 100%; border-radius: .4rem; }
  svg { width: 100%; height: auto; } svg text { font: 11px system-ui, sans-serif;
        fill: currentColor; }
  svg .id { fill: #fff; paint-order: stroke; stroke: #0008; stroke-width: 2px; }
  .scroll { overflow-x: auto; }
</style>
</head>
<body>
<h1>{{ report.title }}</h1>
<p>{{ report.subtitle }}</p>
<div class="figures">
{% for name, value, text in report.figures %}
  <div><span>{{ name }}</span><strong>{{ value }}</strong><small>{{ text }}</small></div>
{% endfor %}
</div>
{% for note in report.notes %}
<p>{{ note }}</p>
{% endfor %}
{% if report.video %}
<h2>Video</h2>
<video controls muted loop src="{{ report.video }}"></video>
{% endif %}
{% if sheet %}
<h2>Frames</h2>
<img alt="Contact sheet of tracked frames" src="{{ sheet }}">
{% endif %}
{% if report.timelines %}
<h2>Identities over time</h2>
<p>One row for each object of the ground truth, from its first frame to its last. A bar is a time
in which it kept one track id (the number); a new number in a row is a lost identity, a thin line a
time in which it was there but not tracked.</p>
{% set left, right, step = 110, 690, 16 %}
{% set scale = right / report.num_frames %}
<svg viewBox="0 0 {{ left + right + 10 }} {{ step * (report.timelines | length) + 24 }}"
     role="img" aria-label="Track ids of each object over time">
{% for row in report.timelines %}
{% set y = step * loop.index0 + 4 %}
  <text x="{{ left - 6 }}" y="{{ y + 10 }}" text-anchor="end">{{ row.label }}</text>
{% for span in row.spans %}
{% set x = left + span.first * scale %}
{% set width = (span.last - span.first + 1) * scale %}
{% if span.track_id < 0 %}
  <rect x="{{ '%.1f' % x }}" y="{{ y + 5 }}" width="{{ '%.1f' % width }}" height="2" fill="#999"/>
{% else %}
  <rect x="{{ '%.1f' % x }}" y="{{ y }}" width="{{ '%.1f' % width }}" height="12" rx="2"
        fill="{{ color(span.track_id) }}"><title>track {{ span.track_id }}, frames
        {{ span.first }} to {{ span.last }}</title></rect>
{% if width > 16 %}
  <text class="id" x="{{ '%.1f' % (x + 3) }}" y="{{ y + 10 }}">{{ span.track_id }}</text>
{% endif %}
{% endif %}
{% endfor %}
{% endfor %}
{% set base = step * (report.timelines | length) + 16 %}
{% for mark in range(0, report.num_frames, [report.num_frames // 10, 1] | max) %}
  <text x="{{ '%.1f' % (left + mark * scale) }}" y="{{ base }}">{{ mark }}</text>
{% endfor %}
</svg>
{% endif %}
{% if report.facts %}
<h2>How it was made</h2>
<div class="scroll"><table>
{% for name, value in report.facts %}
  <tr><th scope="row">{{ name }}</th><td>{{ value }}</td></tr>
{% endfor %}
</table></div>
{% endif %}
{% if report.files %}
<h2>Files</h2>
<ul>
{% for name, text in report.files %}
  <li><a href="{{ name }}">{{ name }}</a>: {{ text }}</li>
{% endfor %}
</ul>
{% endif %}
</body>
</html>
"""
