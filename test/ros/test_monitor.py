"""Counters, rates over a window, and what /diagnostics makes of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from masa_ros.ros.monitor import LOG_EVERY_S, Monitor, Snapshot, WINDOW_S
from masa_ros.ros.parameters import DiagnosticsConfig
import pytest


def test_the_rate_is_that_of_the_last_seconds() -> None:
    monitor = Monitor()
    for step in range(100):
        monitor.received(step * 0.1)
    monitor.received(9.9 + 2.5)
    # In the window (7.4 to 12.4 s): 2.5 s with 10 Hz, then one image after 2.5 s.
    assert monitor.snapshot(12.4).input_rate_hz == pytest.approx(26 / 5.0, rel=0.02)
    assert monitor.snapshot(100.0).input_rate_hz == 0.0


def test_latency_is_the_median_and_the_worst_of_the_last_seconds() -> None:
    monitor = Monitor()
    monitor.processed(0.0, 9.0, {})
    for latency in (0.1, 0.3, 0.2):
        monitor.processed(10.0, latency, {'track': 10 * latency})
    state = monitor.snapshot(10.0)
    assert (state.latency_s, state.worst_latency_s) == (0.2, 0.3)
    assert state.stage_times_ms == {'track': pytest.approx(2.0)}
    assert state.processed == 4


@pytest.mark.parametrize('latency', [1.7e9, -1.7e9])
def test_stamps_of_another_clock_are_no_latency(latency: float) -> None:
    monitor = Monitor()
    monitor.processed(1.0, latency, {})
    state = monitor.snapshot(1.0)
    assert state.foreign_clock
    assert state.latency_s is None


def test_drops_are_reported_once() -> None:
    monitor = Monitor()
    monitor.dropped('stale', 2)
    monitor.dropped('late stamp')
    assert monitor.take_drops() == 3
    assert monitor.take_drops() == 0
    monitor.dropped('stale')
    assert monitor.take_drops() == 1
    assert monitor.snapshot(0.0).dropped == {'stale': 3, 'late stamp': 1}


def test_nothing_dropped_leaves_no_trace() -> None:
    monitor = Monitor()
    monitor.dropped('stale', 0)
    monitor.problem('jumps', 0)
    assert monitor.snapshot(0.0).dropped == monitor.snapshot(0.0).problems == {}


def test_a_repeated_message_is_logged_now_and_then_each_by_itself() -> None:
    monitor = Monitor()
    due = [monitor.should_log('bad image', now) for now in (0.0, 0.1, LOG_EVERY_S, 5.1)]
    assert due == [True, False, True, False]
    assert monitor.should_log('late stamp', 5.1)


def test_texts_that_were_logged_are_forgotten_in_time() -> None:
    monitor = Monitor()
    assert all(monitor.should_log(f'click at {step}', step * 0.1) for step in range(5000))
    assert len(monitor._logged) <= 501


def test_memory_does_not_grow_with_the_number_of_images() -> None:
    monitor = Monitor()
    for step in range(20_000):
        monitor.received(step * 0.01)
        monitor.processed(step * 0.01, 0.01, {})
    assert len(monitor._arrivals) <= WINDOW_S * 100 + 1
    assert len(monitor._done) <= WINDOW_S * 100 + 1


# --- diagnostics ---------------------------------------------------------------------------


def judge(stream: dict[str, Any] | None = None, before: dict[str, Any] | None = None,
          **now: Any) -> tuple[int, str]:
    from masa_ros.ros.diagnostics import (
        diagnostics_message,
        ModelState,
        StreamState,
        TopicState,
    )
    quiet = Snapshot(10, 10, {}, {}, 10.0, 10.0, 0.1, 0.2, False, {'track': 1.0}, 0.1)
    state = StreamState(**{'lifecycle': 'active', 'active_s': 10.0, 'topic': '/image',
                           **(stream or {})})
    state = replace(state, upstream=tuple(TopicState(str(name)) for name in state.upstream))
    message = diagnostics_message(
        _stamp(), 'tracker', [(replace(quiet, **now), replace(quiet, **(before or {})), state)],
        ModelState(True, 'classical'), DiagnosticsConfig())
    status = message.status[0]
    return status.level[0], status.message


def _stamp() -> Any:
    from masa_ros.ros.convert import ns_to_stamp
    return ns_to_stamp(0)


OK, WARN, ERROR = 0, 1, 2


@pytest.mark.ros
@pytest.mark.parametrize(('case', 'level', 'text'), [
    ({}, OK, 'tracking'),
    ({'stream': {'lifecycle': 'inactive'}}, OK, 'inactive'),
    ({'stream': {'enabled': False}}, OK, 'paused'),
    ({'since_last_image_s': 3.2}, WARN, 'no image for 3 s on /image (0 publishers)'),
    ({'since_last_image_s': None, 'stream': {'active_s': 7.0}}, WARN, 'no image for 7 s'),
    ({'since_last_image_s': None, 'stream': {'active_s': 1.0}}, OK, 'tracking'),
    ({'since_last_image_s': 90.0, 'stream': {'active_s': 1.0}}, OK, 'tracking'),
    ({'latency_s': 0.6}, WARN, 'images are 0.60 s old'),
    ({'latency_s': 1.1}, ERROR, 'images are 1.10 s old'),
    ({'latency_s': None, 'foreign_clock': True}, OK, 'another clock'),
    ({'dropped': {'bad image': 3}, 'before': {'dropped': {'bad image': 1}}}, WARN,
     'in the last period: 2 bad image'),
    ({'dropped': {'bad image': 3}, 'before': {'dropped': {'bad image': 3}}}, OK, 'tracking'),
    ({'dropped': {'stale': 3}}, OK, 'tracking'),  # what the policy latest is for
    ({'problems': {'clock jumps': 1}}, WARN, '1 clock jumps'),
    ({'dropped': {'without detections': 5},
      'stream': {'finds_objects': False, 'upstream': ('/boxes',)}}, WARN,
     'publish detections on /boxes'),
])
def test_the_level_says_whether_somebody_should_look(
    case: dict[str, Any], level: int, text: str,
) -> None:
    found, message = judge(**case)
    assert found == level
    assert text in message


@pytest.mark.ros
def test_the_model_that_failed_and_the_untrained_one_are_told() -> None:
    from masa_ros.ros.diagnostics import diagnostics_message, ModelState, StreamState
    quiet = Monitor().snapshot(0.0)

    def model_status(state: ModelState) -> Any:
        return diagnostics_message(_stamp(), 'tracker', [(quiet, quiet, StreamState('active'))],
                                   state, DiagnosticsConfig()).status[-1]
    failed = model_status(ModelState(False, 'sam_vit_b', error='no weights'))
    assert (failed.level[0], failed.message) == (ERROR, 'not loaded: no weights')
    random = model_status(ModelState(True, 'sam_vit_b', trained=False))
    assert (random.level[0], 'not trained' in random.message) == (WARN, True)
    assert model_status(ModelState(True, 'classical')).level[0] == OK
