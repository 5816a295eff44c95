"""Image and detections find each other; stamps in milliseconds, worked by hand."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from masa_ros.ros.join import DetectionJoin
import pytest

MS = 1_000_000


class Case:
    """A join that is told milliseconds and answers ``(image, detections)`` in milliseconds."""

    def __init__(self, tolerance_ms: float = 5, wait_ms: float = 500, capacity: int = 10) -> None:
        self.join: DetectionJoin[float, float] = DetectionJoin(
            tolerance_ms / 1e3, wait_ms / 1e3, capacity)

    def image(self, stamp: float, now: float = 0) -> list[tuple[float, float | None]]:
        released = self.join.add_image(round(stamp * MS), stamp, now / 1e3)
        return [(entry.image, entry.parts[0]) for entry in released]

    def boxes(self, stamp: float, now: float = 0) -> list[tuple[float, float | None]]:
        released = self.join.add_detections(round(stamp * MS), stamp, now / 1e3)
        return [(entry.image, entry.parts[0]) for entry in released]

    def later(self, now: float) -> list[tuple[float, float | None]]:
        return [(entry.image, entry.parts[0]) for entry in self.join.release(now / 1e3)]


def test_detections_after_the_image() -> None:
    case = Case()
    assert case.image(100) == []
    assert case.boxes(100) == [(100, 100)]


def test_detections_before_the_image() -> None:
    case = Case()
    assert case.boxes(100) == []
    assert case.image(100) == [(100, 100)]


def test_stamps_that_went_through_float_seconds_are_equal() -> None:
    case = Case(tolerance_ms=0)
    case.image(100)
    assert case.boxes(100.0002) == [(100, 100.0002)]


def test_without_tolerance_stamps_must_be_equal() -> None:
    case = Case(tolerance_ms=0)
    case.image(100)
    assert case.boxes(99.9) == []
    assert case.later(500) == [(100, None)]


def test_detections_cut_to_milliseconds_belong_to_the_image_at_once() -> None:
    case = Case()
    case.image(100.7)
    assert case.boxes(100) == [(100.7, 100)]


def test_newer_detections_wait_for_the_image_they_may_belong_to() -> None:
    case = Case()
    case.image(100)
    assert case.boxes(103) == []  # there may be an image of 103
    assert case.image(133) == [(100, 103)]


def test_newer_detections_are_taken_when_the_wait_is_over() -> None:
    case = Case()
    case.image(100)
    case.boxes(103)
    assert case.later(500) == [(100, 103)]


def test_the_equal_stamp_wins_over_a_near_one() -> None:
    case = Case(tolerance_ms=50)
    case.boxes(90)
    case.boxes(101)
    case.boxes(100)
    assert case.image(100) == [(100, 100)]


def test_detections_of_a_later_image_are_left_to_it() -> None:
    case = Case(tolerance_ms=50)
    case.image(100)
    case.image(133)
    assert case.boxes(133) == []  # 100 may still get its own
    assert case.boxes(166) == [(100, None), (133, 133)]


def test_a_detector_slower_than_the_camera_does_not_hold_images_back() -> None:
    case = Case()
    for stamp in (100, 133, 166, 200):
        assert case.image(stamp) == []
    assert case.boxes(166, now=120) == [(100, None), (133, None), (166, 166)]
    assert case.boxes(200, now=140) == [(200, 200)]


def test_an_image_waits_no_longer_than_allowed() -> None:
    case = Case(wait_ms=200)
    case.image(100, now=1000)
    case.image(133, now=1033)
    assert case.later(1199) == []
    assert case.later(1200) == [(100, None)]
    assert case.later(1233) == [(133, None)]


def test_the_deadline_is_that_of_the_oldest_image() -> None:
    case = Case(wait_ms=200)
    assert case.join.deadline_s is None
    case.image(100, now=1000)
    case.image(133, now=1033)
    assert case.join.deadline_s == pytest.approx(1.2)
    case.later(1200)
    assert case.join.deadline_s == pytest.approx(1.233)


def test_with_no_wait_only_detections_that_are_there_count() -> None:
    case = Case(wait_ms=0)
    case.boxes(133)
    assert case.image(100) == [(100, None)]
    assert case.image(133) == [(133, 133)]


def test_more_images_than_allowed_push_the_oldest_out() -> None:
    case = Case(capacity=2)
    case.image(100)
    case.image(133)
    assert case.join.pushed_out == 0
    assert case.image(166) == [(100, None)]
    assert (len(case.join), case.join.pushed_out) == (2, 1)


def test_detections_without_image_are_counted_and_forgotten() -> None:
    case = Case(capacity=3)
    for stamp in range(100, 200, 10):
        case.boxes(stamp)
    assert case.join.unused_detections == 7
    case.image(300)
    case.boxes(300)
    assert case.join.unused_detections == 10


def test_repeated_detections_count_as_unused() -> None:
    case = Case()
    case.image(100)
    case.boxes(100)
    case.boxes(100)
    case.image(200)
    assert case.boxes(200) == [(200, 200)]
    assert case.join.unused_detections == 1


def test_detections_out_of_order_find_their_image() -> None:
    case = Case(wait_ms=100)
    case.boxes(133)
    case.boxes(100)
    assert case.image(100) == [(100, 100)]
    assert case.image(133) == [(133, 133)]


def test_clearing_gives_back_what_waited_and_allows_any_stamp() -> None:
    case = Case()
    case.image(1000)
    case.boxes(2000 - 1500)
    assert [entry.image for entry in case.join.clear()] == [1000]
    assert case.join.unused_detections == 1
    assert len(case.join) == 0
    case.image(50)
    assert case.boxes(50) == [(50, 50)]


def test_detections_that_overtook_the_first_image_after_a_jump_are_kept() -> None:
    case = Case()
    case.image(9000)
    case.boxes(9033)
    case.boxes(50)
    case.boxes(83)
    assert [entry.image for entry in case.join.restart(50 * MS)] == []  # released as missed
    assert case.image(50) == [(50, 50)]
    assert case.image(83) == [(83, 83)]
    assert case.join.unused_detections == 1  # that of 9033


@settings(max_examples=200, deadline=None)
@given(
    kept_images=st.sets(st.integers(0, 30)), kept_boxes=st.sets(st.integers(0, 30)),
    lead=st.integers(-5, 5), tolerance=st.sampled_from([0, 3, 20]))
def test_every_image_leaves_once_in_order_and_with_its_own_detections(
    kept_images: set[int], kept_boxes: set[int], lead: int, tolerance: float,
) -> None:
    # Frames every 33 ms; some images and some detections are lost; detections come some frames
    # before or after their image.
    case = Case(tolerance_ms=tolerance, capacity=100)
    events = [(frame, 'image') for frame in kept_images]
    events += [(frame + lead, 'boxes') for frame in kept_boxes]
    released: list[tuple[float, float | None]] = []
    for place, kind in sorted(events):
        now = 33.0 * place
        if kind == 'image':
            released += case.image(33.0 * place, now)
        else:
            released += case.boxes(33.0 * (place - lead), now)
    released += case.later(1e6)
    assert [image for image, _ in released] == [33.0 * frame for frame in sorted(kept_images)]
    for image, boxes in released:
        expected = image if round(image / 33) in kept_boxes else None
        assert boxes == expected
    used = sum(boxes is not None for _, boxes in released)
    assert case.join.unused_detections <= len(kept_boxes) - used


@pytest.mark.parametrize('offset', [-4, 4])
def test_a_constant_offset_within_the_tolerance_is_joined(offset: float) -> None:
    case = Case()
    released = []
    for frame in range(5):
        released += case.image(100 + 33 * frame)
        released += case.boxes(100 + 33 * frame + offset)
    released += case.later(1e6)
    assert released == [(100 + 33 * frame, 100 + 33 * frame + offset) for frame in range(5)]


# --- several sources ------------------------------------------------------------------------


class Pair:
    """A join of two sources; answers ``(image, first, second)`` in milliseconds."""

    def __init__(self, wait_ms: float = 500) -> None:
        self.join: DetectionJoin[float, float] = DetectionJoin(0.005, wait_ms / 1e3, 10, 2)
        self.late: list[tuple[bool, ...]] = []

    def image(self, stamp: float, now: float | None = None) -> list[Any]:
        now = stamp if now is None else now
        return self.answer(self.join.add_image(round(stamp * MS), stamp, now / 1e3))

    def boxes(self, source: int, stamp: float, now: float | None = None) -> list[Any]:
        now = stamp if now is None else now
        return self.answer(
            self.join.add_detections(round(stamp * MS), stamp, now / 1e3, source))

    def later(self, now: float) -> list[Any]:
        return self.answer(self.join.release(now / 1e3))

    def answer(self, released: list[Any]) -> list[Any]:
        self.late = [entry.late for entry in released]
        return [(entry.image, *entry.parts) for entry in released]


def test_an_image_waits_for_both_sources() -> None:
    case = Pair()
    assert case.image(100) == []
    assert case.boxes(1, 100) == []
    assert case.boxes(0, 100) == [(100, 100, 100)]
    assert case.late == [(False, False)]


def test_a_source_that_skipped_the_image_is_not_waited_for() -> None:
    case = Pair()
    case.image(100)
    case.image(133)
    case.boxes(0, 100)
    assert case.boxes(1, 133) == [(100, 100, None)]
    assert case.late == [(False, False)]


def test_a_source_that_is_late_is_told() -> None:
    case = Pair(wait_ms=50)
    case.image(100)
    case.boxes(0, 100)
    assert case.later(151) == [(100, 100, None)]
    assert case.late == [(False, True)]
    case.boxes(1, 100, 160)
    assert case.join.is_late(100 * MS, 1)


def test_images_between_the_detections_of_a_slow_source_do_not_wait_for_it() -> None:
    # Images every 100 ms; the second source detects in every fourth and takes 50 ms.
    case = Pair()
    released = []
    for frame in range(33):
        stamp = 100.0 * frame
        released += case.image(stamp)
        released += case.boxes(0, stamp, stamp + 10)
        waited = frame > 20 and bool(len(case.join))
        assert not waited or frame % 4 == 0  # by then its rhythm is known
        if frame % 4 == 0:
            released += case.boxes(1, stamp, stamp + 50)
    expected = [(100.0 * frame, 100.0 * frame, 100.0 * frame if frame % 4 == 0 else None)
                for frame in range(33)]
    assert released == expected


def test_a_silent_source_is_waited_for_again_once_it_is_heard() -> None:
    case = Pair(wait_ms=300)
    for frame in range(3):
        stamp = 500.0 * frame
        case.image(stamp)
        case.boxes(0, stamp)
        case.boxes(1, stamp)
    for frame in range(3, 6):  # the second one dies: three images wait for it in vain
        stamp = 500.0 * frame
        case.image(stamp)
        assert case.boxes(0, stamp) == []
        assert case.later(stamp + 301) == [(stamp, stamp, None)]
    case.image(3000)
    assert case.join.is_silent(1, 3.0)
    assert case.boxes(0, 3000) == [(3000, 3000, None)]
    assert case.late == [(False, True)]  # nobody waits, but it is said
    case.boxes(1, 3000, 3100)
    assert not case.join.is_silent(1, 3.1)
    case.image(3500)
    assert case.boxes(0, 3500) == []
    assert case.boxes(1, 3500) == [(3500, 3500, 3500)]


def test_a_source_that_is_late_every_time_is_not_silent() -> None:
    case = Pair(wait_ms=100)
    for frame in range(8):
        stamp = 500.0 * frame
        case.image(stamp)
        case.boxes(0, stamp)
        case.later(stamp + 101)
        case.boxes(1, stamp, stamp + 200)
    assert not case.join.is_silent(1, 4.0)
