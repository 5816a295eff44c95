"""``masa_ros demo``: a recording through the real node over DDS, scored and shown."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from collections.abc import Sequence as SequenceOf
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
import os
from pathlib import Path
import shutil
import signal
import subprocess
import sys
import time
from typing import Any

from masa_ros.cli.demo_recording import given_recording, Recording, render_recording
from masa_ros.cli.outputs import Overlay
from masa_ros.cli.settings import add_settings, setting_values
from masa_ros.evaluation.datasets.sequence import Sequence
from masa_ros.evaluation.formats.mot import MotWriter
from masa_ros.evaluation.report import identity_timelines, render_report, Report
from masa_ros.evaluation.scores import score_sequence
from masa_ros.rendering import SceneConfig
from masa_ros.ros.bag import BagFrames, BagReader, BagWriter
from masa_ros.ros.bag_definitions import COMPRESSED_IMAGE, DETECTIONS, TRACKS
from masa_ros.ros.convert import message_to_tracks, stamp_to_ns
from masa_ros.ros.parameters import build_settings
from masa_ros.structures.instances import TrackedInstances
import numpy as np
import yaml

NODE = 'tracker'
START_LIMIT_S = 180.0
STOP_LIMIT_S = 15.0
# After the last image, how long to wait without any answer. A node that answers every image works
# through its queue, and a model may take seconds for one on a busy machine.
SETTLE_S = {'latest': 3.0, 'every': 60.0}
STEPS = 4
SIMULATED = 'simulated'
_WRITTEN = ('recording', 'tracks', 'tracks.txt', 'overlay.webm', 'overlay.mp4',
            'contact_sheet.png', 'report.html', 'node.log', 'node.yaml')


def add_parser(subparsers: Any) -> None:
    """Add the command to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        'demo', help='render a street, track it in a real ROS 2 graph, score it',
        description='Render a street with known truth (or take your recording), play it in real '
        'time over DDS to the tracker node in its own process, record what it answers, score it '
        'and write a report. The last line reads: HOTA 12.3  IDF1 45.6  MOTA 78.9  frames N  '
        'dropped N')
    parser.add_argument('--out', type=Path, default=Path('out/demo'),
                        help='folder for the results (out/demo)')
    parser.add_argument('--input', type=Path, metavar='PATH',
                        help='your bag, video or image folder instead of the rendered street')
    parser.add_argument('--duration', type=float, metavar='SECONDS',
                        help='length: 20 of the street (12 with simulated detections), the first '
                        '60 of your recording')
    parser.add_argument('--rate', type=float, metavar='HZ',
                        help='frame rate of the street (5; 10 with simulated detections)')
    parser.add_argument('--size', default='960x540', help='image size of the street (960x540)')
    parser.add_argument('--objects', type=int, default=45, help='objects in the street (45)')
    parser.add_argument('--seed', type=int, default=20, help='which street (20)')
    parser.add_argument('--speed', type=float, default=1.0,
                        help='pace of the playing; 0.5 is half as fast as real time')
    parser.add_argument('--policy', choices=('latest', 'every'), default='latest',
                        help='what the node does when images come too fast: drop old ones, or '
                        'queue them')
    parser.add_argument('--topics', nargs=1, default=[], metavar='IMAGE[:DETECTIONS]',
                        help='topics of your bag')
    parser.add_argument('--detections', default='', metavar='FILE|TOPIC',
                        help='boxes of your recording: file in MOTChallenge format, or topic; '
                        'simulated plays imperfect detections of the street, as from a detector, '
                        'instead of letting the model find everything itself')
    parser.add_argument('--fps', type=float, help='frame rate of your video or image folder')
    add_settings(parser)
    parser.set_defaults(run=run)


@dataclass(frozen=True)
class Answers:
    """
    What the node sent.

    Parameters
    ----------
    tracks : dict
        Stamp of the image to objects.
    stage_times_ms : dict
        Mean time of each stage.
    fingerprint : str
        Model and settings.

    """

    tracks: dict[int, TrackedInstances]
    stage_times_ms: dict[str, float]
    fingerprint: str


def run(args: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    values = setting_values(args)
    _, config = build_settings(values)
    out: Path = args.out
    _prepare_folder(out)
    started = time.monotonic()
    recording = _recording(args, config.detector.enabled)
    _check_boxes(recording, config.model.name, config.detector.enabled)
    result = _play(args, recording, out, _node_values(args, values, recording))
    answers = read_answers(out / 'tracks')
    sent = result.sent[recording.image_topic]
    _say(4, 'scoring and drawing')
    scores = write_results(recording, answers, out, sent, result.latencies_s)
    seen = sum(int(tracks.seen.sum()) for tracks in answers.tracks.values())
    print(f'report: {out / "report.html"}\nvideo:  {next(out.glob("overlay.*"), "none")}\n'
          f'took {time.monotonic() - started:.0f} s')
    print(last_line(scores, len(answers.tracks), sent), flush=True)
    if not seen:
        print(f'masa_ros: the node tracked nothing; see {out / "node.log"}', file=sys.stderr)
        return 1
    return 0


def last_line(scores: dict[str, float] | None, frames: int, sent: int) -> str:
    """``HOTA 12.3  IDF1 45.6  MOTA 78.9  frames N  dropped N``."""
    names = ('HOTA', 'IDF1', 'MOTA')
    figures = [f'{name} {100 * scores[name]:.1f}' if scores else f'{name} n/a' for name in names]
    return '  '.join([*figures, f'frames {frames}', f'dropped {max(sent - frames, 0)}'])


def _say(step: int, text: str) -> None:
    print(f'[{step}/{STEPS}] {text}', flush=True)


def _prepare_folder(out: Path) -> None:
    """Make the folder and remove what an earlier demo left."""
    out.mkdir(parents=True, exist_ok=True)
    for name in _WRITTEN:
        path = out / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _recording(args: argparse.Namespace, with_detector: bool) -> Recording:
    bag = args.out / 'recording'
    if args.input is not None:
        _say(1, f'reading {args.input}')
        return given_recording(args.input, bag, args.topics, args.detections, args.fps,
                               args.duration or 60.0, with_detector)
    width, cross, height = args.size.partition('x')
    if not (cross and width.isdigit() and height.isdigit()):
        raise ValueError(f'--size is {args.size!r}, expected WIDTHxHEIGHT such as 960x540')
    _say(1, 'rendering a street')
    if args.detections not in ('', SIMULATED):
        raise ValueError(f'--detections is {args.detections!r}, but the rendered street has only '
                         f'{SIMULATED!r} ones; give your recording with --input')
    simulated = args.detections == SIMULATED
    scene = SceneConfig(width_px=int(width), height_px=int(height), num_objects=args.objects,
                        duration_s=args.duration or (12.0 if simulated else 20.0), view='high')
    return render_recording(bag, scene, args.seed, args.rate or (10.0 if simulated else 5.0),
                            simulated)


def _check_boxes(recording: Recording, model: str, with_detector: bool) -> None:
    """Stop before the node waits for boxes that never come."""
    if model == 'classical' and not with_detector and not recording.detections_topic:
        raise ValueError(
            f'{recording.description}: nothing says where the objects are, and the model '
            f'{model} needs boxes. Give a detector (with make: ARGS="--detector yolox.onnx"), a '
            'file of boxes (--detections det.txt; simulated for the street), or a bag with a '
            'topic of vision_msgs/Detection2DArray (--topics IMAGE:DETECTIONS)')


def _node_values(
    args: argparse.Namespace, values: dict[str, Any], recording: Recording,
) -> dict[str, Any]:
    """Parameters of the node: the demo's, then what the user gave."""
    return {
        'policy': args.policy, 'compressed': recording.image_type == COMPRESSED_IMAGE,
        'detections.source': 'topic' if recording.detections_topic else 'none',
        'stream': recording.image_topic, **values}


def _play(
    args: argparse.Namespace, recording: Recording, out: Path, values: dict[str, Any],
) -> Any:
    """Play the recording to a node of its own; returns a `PlaybackResult`."""
    _stay_local()
    try:
        from masa_ros.ros.playback import Playback
    except ImportError as error:
        raise ValueError(
            f'the demo needs ROS 2 ({error}); run it with make demo, or source a ROS 2 '
            'installation and the built package') from error
    # Other demos on this machine have other numbers, so they do not hear each other.
    space = f'/masa_ros_demo_{os.getpid()}'
    inputs = {recording.image_topic: (f'{space}/image', recording.image_type)}
    if recording.detections_topic:
        inputs[recording.detections_topic] = (f'{space}/detections', DETECTIONS)
    output = f'{space}/{NODE}/output/tracks'
    _say(2, 'starting the tracker node')
    with BagWriter(out / 'tracks') as recorder, _node(space, values, out) as node, closing(
            Playback(inputs, output, TRACKS, recorder)) as playback:
        if not playback.wait_until_heard(lambda: _is_well(node, out), START_LIMIT_S):
            raise ValueError(f'the tracker node did not start:\n{_tail(out / "node.log")}')
        with BagReader(recording.bag) as reader:
            total = next(topic.count for topic in reader.image_topics()
                         if topic.name == recording.image_topic)
            _say(3, f'playing {total} images over DDS')
            limit = (args.duration or 60.0) if args.input else float('inf')
            messages = _first_seconds(reader.raw(list(inputs)), limit)
            result = playback.play(
                messages, lambda: node.poll() is None, args.speed,
                SETTLE_S[str(values['policy'])], expected=recording.image_topic)
        if node.poll() is not None:
            raise ValueError(f'the tracker node died (exit code {node.returncode}):\n'
                             f'{_tail(out / "node.log")}')
    return result


def _first_seconds(messages: Iterator[Any], limit_s: float) -> Iterator[Any]:
    """Messages of the first seconds of a recording."""
    first_ns: int | None = None
    for message in messages:
        first_ns = message.time_ns if first_ns is None else first_ns
        if message.time_ns - first_ns >= limit_s * 1e9:
            return
        yield message


def _stay_local() -> None:
    """Keep the demo's messages on this machine, unless the user has other plans."""
    os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    if os.environ.get('ROS_DISTRO') == 'humble':
        os.environ.setdefault('ROS_LOCALHOST_ONLY', '1')


@contextmanager
def _node(space: str, values: dict[str, Any], out: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run the tracker node in a process of its own; stopped like with Ctrl-C."""
    parameters = out / 'node.yaml'
    parameters.write_text(yaml.safe_dump({'/**': {'ros__parameters': _ros_values(values)}}))
    command = [
        sys.executable, '-m', 'masa_ros.ros.node', '--ros-args', '-r', f'__node:={NODE}',
        '-r', f'__ns:={space}', '-r', f'~/input/image:={space}/image',
        '-r', f'~/input/detections:={space}/detections', '--params-file', str(parameters)]
    with (out / 'node.log').open('wb') as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT,
                                   start_new_session=True)
        try:
            yield process
        finally:
            _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        process.send_signal(number)
        try:
            process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            continue


def _ros_values(values: dict[str, Any]) -> dict[str, Any]:
    """Values as a parameter file takes them: an empty list has no type there."""
    return {name: [''] if value in ([], ()) else list(value) if isinstance(value, tuple)
            else value for name, value in values.items()}


def _is_well(node: subprocess.Popen[bytes], out: Path) -> bool:
    """Whether the node runs and has not given up loading its model."""
    text = (out / 'node.log').read_bytes()
    return node.poll() is None and b'stays unconfigured' not in text


def _tail(path: Path, lines: int = 15) -> str:
    """Last lines of a log."""
    return '\n'.join(path.read_text(errors='replace').splitlines()[-lines:])


def read_answers(bag: Path) -> Answers:
    """Read what the node sent from the bag in which it was recorded."""
    tracks: dict[int, TrackedInstances] = {}
    times: dict[str, list[float]] = {}
    fingerprint = ''
    with BagReader(bag) as reader:
        topics = [topic.name for topic in reader.topics_of(TRACKS)]
        for _, message in reader.messages(topics):
            tracks[stamp_to_ns(message.header.stamp)] = message_to_tracks(message)
            fingerprint = message.fingerprint
            for name, value in zip(message.stage_names, message.stage_times_ms, strict=True):
                times.setdefault(name, []).append(float(value))
    return Answers(tracks, {name: float(np.mean(found)) for name, found in times.items()},
                   fingerprint)


def score_answers(
    truth: Sequence, answers: Answers,
) -> tuple[dict[str, float], Sequence, list[TrackedInstances]]:
    """Score the frames that were processed; returns also those frames, truth and tracks."""
    rows = [row for row, stamp in enumerate(truth.stamps_ns.tolist()) if stamp in answers.tracks]
    processed = truth.subset(rows)
    frames = [answers.tracks[stamp] for stamp in processed.stamps_ns.tolist()]
    return score_sequence(processed, frames).table(), processed, frames


def write_results(
    recording: Recording, answers: Answers, out: Path, sent: int,
    latencies_s: SequenceOf[float],
) -> dict[str, float] | None:
    """Write text, video, contact sheet and report; returns the scores, if there is a truth."""
    _write_pictures(recording, answers, out)
    scores, timelines, num_frames = None, [], 0
    if recording.truth is not None and answers.tracks:
        scores, processed, frames = score_answers(_comparable(recording), answers)
        timelines = identity_timelines(processed, frames)
        num_frames = len(processed)
    video = next((path.name for path in sorted(out.glob('overlay.*'))), '')
    sheet = out / 'contact_sheet.png'
    report = Report(
        'masa_ros demo', recording.description, _figures(scores, len(answers.tracks), sent),
        _facts(answers, scores, latencies_s), _notes(scores, recording), video,
        sheet.read_bytes() if sheet.is_file() else b'', timelines, num_frames,
        [(name, text) for name, text in (
            ('recording', 'the bag that was played'), ('tracks', 'the bag that was recorded'),
            ('tracks.txt', 'the tracks in MOTChallenge format'),
            ('node.yaml', 'parameters of the node'), ('node.log', 'what the node said'))
         if (out / name).exists()])
    (out / 'report.html').write_text(render_report(report), encoding='utf-8')
    return scores


def _write_pictures(recording: Recording, answers: Answers, out: Path) -> None:
    """Draw the answers over their images."""
    if not answers.tracks:
        return
    overlay, text = Overlay(out), MotWriter(out / 'tracks.txt')
    with closing(overlay), closing(text), BagReader(recording.bag) as reader:
        for item in BagFrames(reader, {recording.image_topic: ''}):
            tracks = answers.tracks.get(item.frame.stamp_ns)
            if tracks is not None:
                overlay.write(item.frame, tracks)
                text.write(item.frame.frame_index, tracks)


def _figures(
    scores: dict[str, float] | None, frames: int, sent: int,
) -> list[tuple[str, str, str]]:
    figures = [('frames', str(frames), 'images that the node processed'),
               ('dropped', str(max(sent - frames, 0)), 'images that came while it was busy')]
    if scores is None:
        return figures
    texts = (('HOTA', 'detection and identity together'), ('AssA', 'identity only'),
             ('DetA', 'detection only'), ('IDF1', 'share of boxes with the right identity'),
             ('MOTA', 'misses, false boxes and id switches'))
    return [*((name, f'{100 * scores[name]:.1f}', text) for name, text in texts), *figures]


def _facts(
    answers: Answers, scores: dict[str, float] | None, latencies_s: SequenceOf[float],
) -> list[tuple[str, str]]:
    facts = [('model and settings', answers.fingerprint)]
    facts += [(f'{name} time, mean', f'{value:.1f} ms')
              for name, value in answers.stage_times_ms.items()]
    if latencies_s:
        low, high = 1e3 * np.percentile(np.array(latencies_s), [50, 95])
        facts.append(('image published to tracks received',
                      f'{low:.0f} ms (median), {high:.0f} ms (95 % are faster)'))
    if scores:
        facts += [('identity switches', f'{scores["IDSW"]:.0f}'),
                  ('missed, false boxes', f'{scores["FN"]:.0f}, {scores["FP"]:.0f}'),
                  ('objects, tracks', f'{scores["num_gt_ids"]:.0f}, {scores["num_ids"]:.0f}')]
    return facts


def _comparable(recording: Recording) -> Sequence:
    """
    Truth to score what was found against.

    A model that finds everything finds houses, windows and the road as well, which the truth of
    the street does not name. Where nothing said what to look for, the whole image is a region in
    which what matches no truth counts neither as right nor as wrong.
    """
    truth = recording.truth
    if truth is None:
        raise ValueError(f'{recording.description} has no truth to score against')
    if recording.detections_topic or truth.ignored:
        return truth
    whole = np.array([[0, 0, truth.width_px, truth.height_px]], np.float32)
    return replace(truth, ignored=(whole,) * len(truth))


def _notes(scores: dict[str, float] | None, recording: Recording) -> list[str]:
    if scores is None:
        return ['The recording has no ground truth, so there are no scores.']
    notes = ['Scores are over the frames that the node processed. Objects of which less than a '
             'fifth is visible count neither as right nor as wrong.']
    if not recording.detections_topic:
        notes.append('The model found everything by itself, also what the truth does not name, '
                     'such as houses and windows: what matches no true object is left out.')
    return notes
