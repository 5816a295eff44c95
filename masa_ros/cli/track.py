"""``masa_ros track``: follow the objects of a recording from its first frame to its last."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
import shutil
import signal
import sys
import time
from typing import Any

from masa_ros.cli.inputs import Input, InputFrame, open_input
from masa_ros.cli.outputs import BAG, file_name, OutputOptions, TrackOutputs
from masa_ros.cli.progress import frame_bar
from masa_ros.cli.settings import add_settings, read_settings
from masa_ros.cli.video import DEFAULT_WIDTH_PX
from masa_ros.pipeline import Pipeline
from masa_ros.ros.bag import out_of_space
from masa_ros.structures.instances import Instances

DONE, INCOMPLETE, FAILED, INTERRUPTED = 0, 1, 2, 130

NO_BOXES = (
    'nothing says where the objects are: the model {model} needs boxes, and {path} comes without. '
    'Give a detector (--detector yolox.onnx), a file of boxes (--detections det.txt), for a bag '
    'a topic of vision_msgs/Detection2DArray (--topics IMAGE:DETECTIONS), or a model that finds '
    'objects by itself (--model)')


def add_parser(subparsers: Any) -> None:
    """Add the command to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        'track', help='track the objects of a bag, a video or an image folder',
        description='Track the objects of a rosbag2 (MCAP or SQLite), a video file or a folder '
        'of images. Every frame is used once, and a second run gives the same ids. Exit code: 0 '
        'done, 1 done but the recording could not be read to its end, 2 error, 130 interrupted '
        '(what was finished is kept).')
    parser.add_argument('input', type=Path, help='bag, video file, image or image folder')
    parser.add_argument('--out', type=Path, help='folder for the results; out/track/NAME when '
                        'missing')
    parser.add_argument('--topics', nargs='+', default=[], metavar='IMAGE[:DETECTIONS]',
                        help='image topics of a bag, each perhaps with its detections')
    parser.add_argument('--detections', default='', metavar='FILE|TOPIC',
                        help='boxes: a file in MOTChallenge format, or a topic of the bag')
    parser.add_argument('--fps', type=float, help='frame rate of a video or image folder')
    parser.add_argument('--max-frames', type=int, metavar='N', help='stop after N frames')
    parser.add_argument('--overlay', action=argparse.BooleanOptionalAction, default=True,
                        help='write the overlay video and the contact sheet')
    parser.add_argument('--overlay-width', type=int, default=DEFAULT_WIDTH_PX, metavar='PX',
                        help='largest width of the video (%(default)s)')
    parser.add_argument('--label-images', action='store_true',
                        help='write label images into the bag')
    parser.add_argument('--images', action='store_true', help='write the images into the bag')
    parser.add_argument('--storage', choices=('mcap', 'sqlite3'), default='mcap',
                        help='storage of the written bag')
    parser.add_argument('--overwrite', action='store_true',
                        help='replace the results of an earlier run')
    add_settings(parser)
    parser.set_defaults(run=run)


@dataclass
class Totals:
    """What a run did."""

    frames: int = 0
    started_s: float = field(default_factory=time.monotonic)
    tracks: set[bytes] = field(default_factory=set)
    rejected: int = 0
    ignored: int = 0
    without_boxes: int = 0
    resets: Counter[str] = field(default_factory=Counter)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    node_config, config = read_settings(args)
    if args.max_frames is not None and args.max_frames < 1:
        raise ValueError(f'--max-frames is {args.max_frames}, expected 1 or more')
    if args.overlay_width < 16:
        raise ValueError(f'--overlay-width is {args.overlay_width}, expected 16 or more')
    out = args.out or Path('out') / 'track' / file_name(args.input.resolve().stem)
    recording = open_input(args.input, node_config, args.topics, args.detections, args.fps,
                           use_bag_detections=not config.detector.enabled,
                           camera_motion=config.tracker.camera_motion)
    with closing(recording), closing(Pipeline(config, reproducible=True)) as pipeline:
        if not (recording.has_detections or pipeline.finds_objects):
            raise ValueError(NO_BOXES.format(model=config.model.name, path=args.input))
        weights = pipeline.model.weights.summary()
        print(f'reading  {recording.description}\n'
              f'model    {pipeline.fingerprint()} on {pipeline.model.device}, {weights}')
        if args.overwrite:
            remove_results(out, recording.streams)
        options = OutputOptions(args.overlay, args.overlay_width, args.label_images,
                                args.images, args.storage)
        with TrackOutputs(out, recording.streams, options, pipeline.fingerprint(),
                          weights) as outputs:
            totals = Totals()
            stopped = _track(recording, pipeline, outputs, totals, args.max_frames,
                             node_config.detections.missing)
        _print_summary(totals, recording, outputs)
    if stopped:
        print(f'masa_ros: {stopped}; the {totals.frames} frames before are in {out}',
              file=sys.stderr)
        return INTERRUPTED if stopped == 'interrupted' else FAILED
    if totals.frames == 0:
        raise ValueError(f'no frame of {args.input} could be used; the lines above say why')
    return INCOMPLETE if recording.incomplete() else DONE


def _track(
    recording: Input, pipeline: Pipeline, outputs: TrackOutputs, totals: Totals,
    max_frames: int | None, missing: str,
) -> str:
    """Work through the frames; returns why it ended early, or an empty text."""
    total = recording.total
    if max_frames is not None:
        total = min(total, max_frames) if total else max_frames
    skipped_before: Counter[str] = Counter()
    try:
        with _stop_signals() as stop, frame_bar(total=total) as bar:
            for item in recording:
                stream = item.frame.stream
                bar.update()
                boxes = item.detections
                if boxes is None and recording.has_detections:
                    totals.without_boxes += 1
                    if missing == 'skip':
                        continue
                    boxes = Instances() if missing == 'empty' else None
                _process(item, boxes, pipeline, outputs, totals,
                         item.skipped - skipped_before[stream])
                skipped_before[stream] = item.skipped
                if stop:
                    return 'interrupted'
                if totals.frames == max_frames:
                    break
    except OSError as error:
        if not out_of_space(error):
            raise
        return f'no space left for the results ({error.strerror})'
    return ''


def _process(
    item: InputFrame, boxes: Instances | None, pipeline: Pipeline, outputs: TrackOutputs,
    totals: Totals, skipped: int,
) -> None:
    """Track one frame and write it."""
    stream = item.frame.stream
    if item.restarted:
        pipeline.reset(stream)
        totals.resets[stream] += 1
    result = pipeline.process(item.frame, boxes)
    outputs.write(item.frame, result, item.recorded_ns, skipped, totals.resets[stream])
    totals.frames += 1
    totals.rejected += result.rejected_detections
    totals.ignored += result.ignored
    totals.tracks.update(result.tracks.uuids)


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """
    Collect Ctrl-C and SIGTERM instead of ending at once, so that the frame at work is finished.

    The second one ends at once.
    """
    received: list[int] = []

    def note(number: int, frame: Any) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    try:
        before = {number: signal.signal(number, note)
                  for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # Not in the main thread; whoever runs us there handles signals.
        yield received
        return
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def remove_results(folder: Path, streams: list[str]) -> None:
    """Remove what an earlier run wrote, and nothing else."""
    shutil.rmtree(folder / BAG, ignore_errors=True)
    for place in (folder, *(folder / file_name(stream) for stream in streams)):
        for name in ('tracks.txt', 'tracks.json', 'overlay.webm', 'overlay.mp4',
                     'contact_sheet.png'):
            (place / name).unlink(missing_ok=True)


def _print_summary(totals: Totals, recording: Input, outputs: TrackOutputs) -> None:
    seconds = time.monotonic() - totals.started_s
    print(f'tracked  {totals.frames} frames, {len(totals.tracks)} tracks, '
          f'{totals.frames / max(seconds, 1e-9):.1f} frames per second')
    for count, text in ((totals.rejected, 'given boxes could not be used'),
                        (totals.ignored, 'objects were left out in ignored regions'),
                        (totals.without_boxes, 'images had no boxes in time'),
                        (totals.resets.total(), 'jumps of the clock; ids started anew')):
        if count:
            print(f'note     {count} {text}')
    for problem in recording.problems():
        print(f'note     {problem}')
    for path in outputs.paths():
        print(f'wrote    {path}')
