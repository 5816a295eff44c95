"""What the node says on /diagnostics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from masa_ros.ros.monitor import Snapshot
from masa_ros.ros.parameters import DiagnosticsConfig

# A stream without images for this long is a warning.
SILENCE_S = 2.0


@dataclass(frozen=True)
class TopicState:
    """
    What is known about an upstream topic.

    Parameters
    ----------
    name : str
        Its full name.
    kind : str
        Message type that is read; empty while none is.
    publishers : int
        Publishers of that type when last looked at.
    received : int
        Messages since the node was activated.
    silent : bool
        Whether images do not wait for it any more, because nothing comes.
    error : str
        Why nothing is read from it; empty where nothing is wrong.
    unread : str
        Which types that are published on it are not read; empty where there are none.

    """

    name: str
    kind: str = ''
    publishers: int = 0
    received: int = 0
    silent: bool = False
    error: str = ''
    unread: str = ''


@dataclass(frozen=True)
class StreamState:
    """
    What the node knows about its input besides the counters.

    Parameters
    ----------
    lifecycle : str
        Label of the lifecycle state.
    enabled : bool
        Whether images are processed (service ~/enable).
    active_s : float
        Time since activation; 0 when not active.
    camera : str
        Name of the camera; empty for the only one.
    topic, stream : str
        Image topic and name of the stream.
    publishers : int
        Publishers of the image topic.
    reliability : str
        Of the image subscription; empty when there is none.
    resets : int
        Tracker resets since the start.
    waiting : int
        Images that wait for detections or the model.
    tracks : int
        Objects in the newest message.
    finds_objects : bool
        Whether objects can be found without detections from the topic.
    upstream : tuple of TopicState
        Topics of the detections.

    """

    lifecycle: str
    enabled: bool = True
    active_s: float = 0.0
    camera: str = ''
    topic: str = ''
    stream: str = ''
    publishers: int = 0
    reliability: str = ''
    resets: int = 0
    waiting: int = 0
    tracks: int = 0
    finds_objects: bool = True
    upstream: tuple[TopicState, ...] = ()


@dataclass(frozen=True)
class ModelState:
    """
    What the node knows about its model.

    Parameters
    ----------
    loaded : bool
        Whether a model is in memory.
    name, weights, device, fingerprint, description : str
        Of the loaded model, or the name of the one to load.
    trained : bool or None
        ``False`` for random weights.
    error : str
        Why it could not be loaded; empty when it could.
    note : str
        Anything else worth knowing.

    """

    loaded: bool
    name: str
    weights: str = ''
    device: str = ''
    fingerprint: str = ''
    description: str = ''
    trained: bool | None = None
    error: str = ''
    note: str = ''


def diagnostics_message(
    stamp: Any, node: str, streams: Sequence[tuple[Snapshot, Snapshot, StreamState]],
    model: ModelState, config: DiagnosticsConfig,
) -> Any:
    """Build the message from two states of each stream's monitor, one period apart."""
    return DiagnosticArray(
        header=_header(stamp),
        status=[*(_stream_status(node, now, before, stream, config)
                  for now, before, stream in streams),
                *(_detections_status(node, stream) for _, _, stream in streams),
                _model_status(node, model)])


def _header(stamp: Any) -> Any:
    from std_msgs.msg import Header
    return Header(stamp=stamp)


def _stream_status(
    node: str, now: Snapshot, before: Snapshot, stream: StreamState, config: DiagnosticsConfig,
) -> Any:
    level, message = _judge(now, before, stream, config)
    values = {
        'lifecycle state': stream.lifecycle, 'enabled': stream.enabled, 'topic': stream.topic,
        'publishers': stream.publishers, 'reliability': stream.reliability,
        'input rate (Hz)': f'{now.input_rate_hz:.2f}',
        'output rate (Hz)': f'{now.output_rate_hz:.2f}',
        'latency, median (s)': _seconds(now.latency_s),
        'latency, worst (s)': _seconds(now.worst_latency_s),
        'images received': now.received, 'images processed': now.processed,
        'images dropped': sum(now.dropped.values()),
        **{f'dropped: {reason}': count for reason, count in sorted(now.dropped.items())},
        **{f'problem: {name}': count for name, count in sorted(now.problems.items())},
        **{f'time: {name} (ms)': f'{value:.2f}' for name, value in now.stage_times_ms.items()},
        'images waiting': stream.waiting, 'tracker resets': stream.resets,
        'objects': stream.tracks}
    name = f'{node}: stream {stream.camera}' if stream.camera else f'{node}: stream'
    return _status(level, name, message, stream.stream, values)


def _judge(
    now: Snapshot, before: Snapshot, stream: StreamState, config: DiagnosticsConfig,
) -> tuple[bytes, str]:
    """Level and summary of the stream."""
    if stream.lifecycle != 'active':
        return DiagnosticStatus.OK, stream.lifecycle
    if not stream.enabled:
        return DiagnosticStatus.OK, 'paused (service ~/enable)'
    silence = stream.active_s if now.since_last_image_s is None else min(
        now.since_last_image_s, stream.active_s)
    if silence > SILENCE_S:
        return DiagnosticStatus.WARN, (
            f'no image for {silence:.0f} s on {stream.topic} ({stream.publishers} publishers)')
    fresh = [f'{count - before.dropped.get(reason, 0)} {reason}'
             for reason, count in sorted(now.dropped.items())
             if reason not in ('stale',) and count > before.dropped.get(reason, 0)]
    fresh += [f'{count - before.problems.get(name, 0)} {name}'
              for name, count in sorted(now.problems.items())
              if count > before.problems.get(name, 0)]
    latency = now.latency_s
    if latency is not None and latency >= config.latency_error_s:
        return DiagnosticStatus.ERROR, f'images are {latency:.2f} s old when published'
    if fresh:
        text = 'in the last period: ' + ', '.join(fresh)
        if not stream.finds_objects and 'without detections' in text:
            text += (' (the model finds no objects by itself: publish detections on '
                     f'{", ".join(topic.name for topic in stream.upstream)}, or set '
                     'detector.name)')
        return DiagnosticStatus.WARN, text
    if latency is not None and latency >= config.latency_warn_s:
        return DiagnosticStatus.WARN, f'images are {latency:.2f} s old when published'
    if now.foreign_clock:
        return DiagnosticStatus.OK, (
            'tracking; stamps are of another clock, latency unknown (use_sim_time?)')
    return DiagnosticStatus.OK, 'tracking'


def _detections_status(node: str, stream: StreamState) -> Any:
    """Return the state of the upstream topics; what keeps one from being read is an error."""
    level, message = DiagnosticStatus.OK, 'no detections are published'
    reading = [topic for topic in stream.upstream if topic.publishers]
    errors = [topic.error for topic in stream.upstream if topic.error]
    unread = [topic.unread for topic in stream.upstream if topic.unread]
    silent = [topic.name for topic in stream.upstream if topic.silent]
    if errors:
        level, message = DiagnosticStatus.ERROR, '; '.join(errors)
    elif unread:
        level, message = DiagnosticStatus.WARN, '; '.join(unread)
    elif silent:
        level, message = DiagnosticStatus.WARN, f'nothing comes from {", ".join(silent)}'
    elif reading:
        message = 'reading ' + ', '.join(topic.name for topic in reading)
    values: dict[str, Any] = {}
    for topic in stream.upstream:
        values |= {f'{topic.name}: type': topic.kind or 'unknown',
                   f'{topic.name}: publishers': topic.publishers,
                   f'{topic.name}: messages': topic.received}
    name = f'{node}: detections {stream.camera}' if stream.camera else f'{node}: detections'
    return _status(level, name, message, stream.stream, values)


def _model_status(node: str, model: ModelState) -> Any:
    level, message = DiagnosticStatus.OK, 'loaded' if model.loaded else 'not loaded'
    if model.error:
        level, message = DiagnosticStatus.ERROR, f'not loaded: {model.error}'
    elif model.loaded and model.trained is False:
        level, message = DiagnosticStatus.WARN, 'loaded with random weights (not trained)'
    values = {'name': model.name, 'weights': model.weights, 'device': model.device,
              'fingerprint': model.fingerprint, 'description': model.description,
              'note': model.note}
    return _status(level, f'{node}: model', message, model.name, values)


def _seconds(value: float | None) -> str:
    return 'unknown' if value is None else f'{value:.4f}'


def _status(level: bytes, name: str, message: str, hardware: str, values: dict[str, Any]) -> Any:
    return DiagnosticStatus(
        level=level, name=name, message=message, hardware_id=hardware,
        values=[KeyValue(key=key, value=str(value)) for key, value in values.items()])
