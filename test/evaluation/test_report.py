"""The HTML page."""

from __future__ import annotations

from html.parser import HTMLParser

from masa_ros.evaluation.datasets.sequence import regular_stamps_ns, Sequence, with_ids
from masa_ros.evaluation.report import identity_timelines, render_report, Report, Span, Timeline
from masa_ros.structures.instances import Instances, TrackedInstances
import numpy as np

VOID = {'meta', 'img', 'br', 'rect'}


def objects(*rows: tuple[int, float]) -> TrackedInstances:
    boxes = np.array([[x, 10, x + 20, 50] for _, x in rows], np.float32).reshape(-1, 4)
    return with_ids(Instances.from_boxes(boxes, labels=['car'] * len(rows)),
                    [track_id for track_id, _ in rows])


def sequence(*frames: TrackedInstances) -> Sequence:
    indices = np.arange(len(frames))
    return Sequence('s', indices, regular_stamps_ns(indices, 10.0), 10.0, truth=frames)


def test_a_lost_identity_and_a_miss_show_in_the_timeline() -> None:
    truth = sequence(*[objects((1, 100)), objects((1, 102)), objects((1, 104)), objects((1, 106)),
                       objects((1, 108), (2, 300))])
    found = [objects((5, 101)), objects((5, 102)), objects((9, 400)), objects((8, 107)),
             objects((8, 108), (3, 301))]
    assert identity_timelines(truth, found) == [
        Timeline('car 1', (Span(0, 1, 5), Span(2, 2, -1), Span(3, 4, 8))),
        Timeline('car 2', (Span(4, 4, 3),))]
    assert identity_timelines(truth, found)[0].num_ids == 2


def test_an_object_that_was_away_has_a_gap() -> None:
    truth = sequence(objects((1, 100)), objects(), objects((1, 100)))
    (row,) = identity_timelines(truth, [objects((5, 100))] * 3)
    assert row.spans == (Span(0, 0, 5), Span(2, 2, 5))


class Checker(HTMLParser):
    """Collects links and checks that tags are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or '' for name, value in attrs if name in ('src', 'href')]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def check(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    return checker


def test_the_page_is_well_formed_and_loads_nothing_from_elsewhere() -> None:
    report = Report(
        'Demo', 'a street', [('HOTA', '61.2', 'identity and boxes')], [('model', 'classical')],
        ['A note.'], 'overlay.webm', b'\x89PNG1234',
        [Timeline('car 1', (Span(0, 5, 3), Span(6, 7, -1), Span(8, 19, 4)))], 20,
        [('tracks.txt', 'MOT text')])
    page = render_report(report)
    links = check(page).links
    assert set(links) == {'overlay.webm', 'tracks.txt', 'data:image/png;base64,iVBORzEyMzQ='}
    assert 'http' not in page
    assert '61.2' in page
    assert page.count('<rect') == 3


def test_texts_cannot_break_the_page() -> None:
    page = render_report(Report('<script>alert(1)</script>', '"&', [('a', '<b>', '')]))
    assert '<script>' not in page
    assert '&lt;b&gt;' in page
    check(page)
