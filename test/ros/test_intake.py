"""What becomes of images and detections before the model sees them."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from masa_ros.ros.intake import Intake, Work
from masa_ros.ros.monitor import Monitor
from masa_ros.ros.parameters import ClockConfig, DetectionsConfig, NodeConfig
import pytest


def message(stamp_ms: int) -> Any:
    stamp = SimpleNamespace(sec=stamp_ms // 1000, nanosec=stamp_ms % 1000 * 1_000_000)
    return SimpleNamespace(header=SimpleNamespace(stamp=stamp, frame_id='camera'))


class Case:
    """An intake and everything it does."""

    def __init__(self, **detections: Any) -> None:
        self.config = NodeConfig(detections=DetectionsConfig(**detections))
        self.monitor = Monitor()
        self.work: list[Work] = []
        self.complaints: list[str] = []
        self.intake = Intake(self.config, self.monitor, self.work.append,
                             lambda what, text: self.complaints.append(text))

    def images(self, *stamps_ms: int, waits: bool = False) -> None:
        for stamp in stamps_ms:
            self.intake.add_image(message(stamp), stamp / 1e3, waits)

    def boxes(self, *stamps_ms: int) -> None:
        for stamp in stamps_ms:
            self.intake.add_detections(message(stamp), stamp / 1e3)

    def stamps_ms(self) -> list[int]:
        return [work.stamp_ns // 1_000_000 for work in self.work]

    @property
    def dropped(self) -> dict[str, int]:
        return self.monitor.snapshot(0.0).dropped

    @property
    def problems(self) -> dict[str, int]:
        return self.monitor.snapshot(0.0).problems


def test_images_that_wait_for_nothing_go_on_at_once() -> None:
    case = Case()
    case.images(100, 133)
    assert case.stamps_ms() == [100, 133]
    assert [work.detections for work in case.work] == [None, None]
    assert [work.epoch for work in case.work] == [0, 0]


def test_an_image_goes_on_with_its_detections() -> None:
    case = Case()
    case.images(100, waits=True)
    assert case.work == []
    case.boxes(100)
    assert case.work[0].detections.header.stamp.nanosec == 100_000_000


@pytest.mark.parametrize(('missing', 'finds', 'went_on', 'empty'), [
    ('skip', True, False, False), ('skip', False, False, False),
    ('empty', False, True, True), ('propose', True, True, False),
    ('propose', False, False, False)])
def test_an_image_without_detections_is_treated_as_the_settings_say(
    missing: str, finds: bool, went_on: bool, empty: bool,
) -> None:
    case = Case(missing=missing, wait_s=0.1)
    case.intake.finds_objects = finds
    case.images(100, waits=True)
    case.intake.release(0.21)
    assert len(case.work) == went_on
    assert case.dropped == ({} if went_on else {'without detections': 1})
    if went_on:
        assert case.work[0].empty == empty


@pytest.mark.parametrize(('stamps', 'reason'), [
    ((100, 100), 'repeated stamp'), ((100, 90), 'late stamp')])
def test_repeated_and_late_images_are_dropped_and_counted(
    stamps: tuple[int, int], reason: str,
) -> None:
    case = Case()
    case.images(*stamps)
    assert case.stamps_ms() == [100]
    assert case.dropped == {reason: 1}
    assert reason in case.complaints[0]


def test_a_jump_starts_a_new_epoch_and_is_announced() -> None:
    case = Case()
    case.images(5000, 5033, 0, 33)
    assert [work.epoch for work in case.work] == [0, 0, 1, 1]
    assert case.problems == {'clock jumps': 1}
    assert 'the tracker starts anew (reset 1)' in case.complaints[0]


def test_images_waiting_at_a_jump_belong_to_the_time_before() -> None:
    case = Case(missing='empty')
    case.images(5000, 5033, waits=True)
    case.images(0, waits=True)
    assert case.stamps_ms() == [5000, 5033]
    assert [work.epoch for work in case.work] == [0, 0]
    case.boxes(0)
    assert [work.epoch for work in case.work] == [0, 0, 1]


def test_the_first_image_after_a_jump_finds_detections_that_came_before_it() -> None:
    case = Case()
    case.images(5000, waits=True)
    case.boxes(5000, 0)
    case.images(0, waits=True)
    assert [(work.epoch, work.detections is not None) for work in case.work] == [
        (0, True), (1, True)]


def test_a_reset_counts_and_accepts_any_stamp() -> None:
    case = Case()
    case.images(5000)
    assert case.intake.reset() == 1
    case.images(4990)
    assert [work.epoch for work in case.work] == [0, 1]
    assert case.dropped == {}


def test_images_that_waited_go_before_one_that_does_not() -> None:
    case = Case(missing='empty')
    case.images(100, waits=True)
    case.images(133, waits=False)
    assert case.stamps_ms() == [100, 133]


def test_detections_without_image_are_counted() -> None:
    case = Case()
    case.boxes(100)
    case.images(200, waits=True)
    case.boxes(200)
    assert case.problems == {'unused detections': 1}


def test_detections_that_come_too_late_say_which_setting_to_raise() -> None:
    case = Case(wait_s=0.1)
    case.images(100, waits=True)
    case.intake.release(0.3)
    case.boxes(100)
    assert case.problems == {'late detections': 1}
    assert 'raise detections.wait_s, now 0.1 s' in case.complaints[-1]


def test_detections_sent_twice_are_not_called_late() -> None:
    case = Case()
    case.images(100, waits=True)
    case.boxes(100, 100)
    assert 'late detections' not in case.problems


def test_more_waiting_images_than_allowed_say_which_setting_to_raise() -> None:
    case = Case()
    case.images(*range(100, 100 + case.config.queue_size), waits=True)
    assert case.complaints == []
    case.images(500, waits=True)
    assert case.dropped == {'without detections': 1}
    assert 'raise queue_size' in case.complaints[-1]


def test_stopping_counts_what_waited() -> None:
    case = Case()
    case.images(100, 133, waits=True)
    case.intake.stop()
    assert len(case.intake) == 0
    assert case.dropped == {'stopped': 2}


def test_changed_settings_apply_to_the_next_image() -> None:
    case = Case()
    case.images(5000)
    case.intake.reconfigure(replace(case.config, clock=ClockConfig(jump_back_s=10.0)))
    case.images(3000)
    assert case.dropped == {'late stamp': 1}
