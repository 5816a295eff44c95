"""What becomes of images and detections before the model sees them."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from masa_ros.ros.intake import Intake, Origin, Work
from masa_ros.ros.monitor import Monitor
from masa_ros.ros.parameters import ClockConfig, DetectionsConfig, NodeConfig
from masa_ros.ros.upstream import TYPES
from masa_ros.ros.upstream.arrival import Arrival
import pytest

ARRAY = 'vision_msgs/msg/Detection2DArray'
SINGLE = 'vision_msgs/msg/Detection2D'


def message(stamp_ms: int) -> Any:
    stamp = SimpleNamespace(sec=stamp_ms // 1000, nanosec=stamp_ms % 1000 * 1_000_000)
    return SimpleNamespace(header=SimpleNamespace(stamp=stamp, frame_id='camera'))


class Case:
    """An intake and everything it does."""

    def __init__(self, **detections: Any) -> None:
        self.config = NodeConfig(detections=DetectionsConfig(**detections))
        sources = len(self.config.detections.topics) or 1
        self.monitor = Monitor()
        self.work: list[Work] = []
        self.complaints: list[str] = []
        self.intake = Intake(self.config, self.monitor, self.work.append,
                             lambda what, text: self.complaints.append(text), sources)

    def images(self, *stamps_ms: int, waits: bool = False) -> None:
        for stamp in stamps_ms:
            self.intake.add_image(message(stamp), stamp / 1e3, waits)

    def boxes(self, *stamps_ms: int, frame_id: str = 'camera', kind: str = ARRAY,
              source: int = 0) -> None:
        for stamp in stamps_ms:
            self.intake.add_detections(
                stamp * 1_000_000, Arrival(TYPES[kind], frame_id, (b'%d' % stamp,)), stamp / 1e3,
                source)

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
    assert [work.detections for work in case.work] == [(), ()]
    assert [work.origin for work in case.work] == [Origin.OWN, Origin.OWN]
    assert [work.epoch for work in case.work] == [0, 0]


def test_an_image_goes_on_with_its_detections() -> None:
    case = Case()
    case.images(100, waits=True)
    assert case.work == []
    case.boxes(100)
    assert case.work[0].detections == (Arrival(TYPES[ARRAY], 'camera', (b'100',)),)
    assert case.work[0].origin == Origin.UPSTREAM


@pytest.mark.parametrize(('missing', 'finds', 'origin'), [
    ('skip', True, None), ('skip', False, None), ('empty', False, Origin.EMPTY),
    ('propose', True, Origin.PROPOSED), ('propose', False, None)])
def test_an_image_without_detections_is_treated_as_the_settings_say(
    missing: str, finds: bool, origin: Origin | None,
) -> None:
    case = Case(missing=missing, wait_s=0.1)
    case.intake.finds_objects = finds
    case.images(100, waits=True)
    case.intake.release(0.21)
    assert [work.origin for work in case.work] == ([] if origin is None else [origin])
    assert case.dropped == ({'without detections': 1} if origin is None else {})


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
    assert [(work.epoch, work.origin) for work in case.work] == [
        (0, Origin.UPSTREAM), (1, Origin.UPSTREAM)]


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


# --- upstream topics ------------------------------------------------------------------------


def test_detections_of_another_camera_are_left_out_or_used_as_set() -> None:
    dropping, using = Case(), Case(other_frames='use')
    for case in (dropping, using):
        case.images(100, waits=True)
        case.boxes(100, frame_id='rear')
        assert case.problems == {'detections of another frame': 1}
        assert "'rear', the images 'camera'" in case.complaints[0]
    assert dropping.work == []
    assert [work.origin for work in using.work] == [Origin.UPSTREAM]


def test_detections_of_another_camera_that_came_before_the_first_image_are_left_out() -> None:
    case = Case(missing='empty')
    case.boxes(100, frame_id='rear')
    case.images(100, waits=True)
    assert [work.origin for work in case.work] == [Origin.EMPTY]
    assert case.problems['detections of another frame'] == 1


@pytest.mark.parametrize('frame_id', ['', '/camera', 'camera'])
def test_a_frame_that_is_empty_or_has_a_slash_fits(frame_id: str) -> None:
    case = Case()
    case.images(100, waits=True)
    case.boxes(100, frame_id=frame_id)
    assert (len(case.work), case.problems) == (1, {})


def payloads(work: Work, source: int = 0) -> tuple[bytes, ...]:
    arrival = work.detections[source]
    assert arrival is not None
    return arrival.payloads


def test_messages_with_one_object_are_gathered_until_the_next_stamp() -> None:
    case = Case()
    case.images(100, waits=True)
    case.boxes(100, 100, kind=SINGLE)
    assert case.work == []
    case.boxes(133, kind=SINGLE)
    assert payloads(case.work[0]) == (b'100', b'100')


def test_messages_with_one_object_are_gathered_for_a_while() -> None:
    case = Case(gather_s=0.05)
    case.images(100, waits=True)
    case.boxes(100, 100, kind=SINGLE)
    assert case.intake.deadline_s == pytest.approx(0.15)
    case.intake.release(0.149)
    assert case.work == []
    case.intake.release(0.151)
    assert [work.origin for work in case.work] == [Origin.UPSTREAM]


def test_an_image_that_can_wait_no_longer_takes_what_was_gathered() -> None:
    case = Case(gather_s=5.0, wait_s=0.1)
    case.images(100, waits=True)
    case.boxes(100, kind=SINGLE)
    case.intake.release(0.21)
    assert [work.origin for work in case.work] == [Origin.UPSTREAM]


def test_more_single_objects_than_allowed_are_counted() -> None:
    case = Case(max_objects=2)
    case.images(100, waits=True)
    case.boxes(100, 100, 100, kind=SINGLE)
    case.intake.release(0.3)
    assert len(payloads(case.work[0])) == 2
    assert case.problems == {'messages with too many objects': 1}


def test_an_image_with_detections_of_one_topic_of_two_is_flagged() -> None:
    case = Case(topics=('a', 'b'), wait_s=0.1)
    case.images(100, waits=True)
    case.boxes(100, source=1)
    assert case.work == []
    case.intake.release(0.21)
    assert [work.origin for work in case.work] == [Origin.PARTIAL]
    assert case.work[0].detections[0] is None
    assert case.problems == {'images with detections of some topics only': 1}
    case.images(133, waits=True)
    case.boxes(133)
    case.boxes(133, source=1)
    assert case.work[1].origin == Origin.UPSTREAM
