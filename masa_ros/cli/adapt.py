"""``masa_ros adapt``: make the tracker better on a user's own recording, without labels."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import closing
import logging
from pathlib import Path
import time
from typing import Any

from masa_ros.cli.inputs import Input, open_input
from masa_ros.cli.settings import add_settings, read_settings
from masa_ros.cli.teacher import Teacher
from masa_ros.models import ModelConfig
from masa_ros.structures.settings import from_mapping
import numpy as np
from numpy.typing import NDArray

BETTER, NOT_BETTER = 0, 1


def add_parser(subparsers: Any) -> None:
    """Add the command to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        'adapt', help='fine-tune the track head on a recording, without labels',
        description='Sample frames of a bag, video or image folder, mark their objects, '
        'fine-tune the track head of tiny or of a MASA variant, and judge it on the end of '
        'the recording. Exit code: 0 better weights were written, 1 it did not get better and '
        'nothing was written.')
    parser.add_argument('input', type=Path, help='bag, video or image folder')
    parser.add_argument('--out', type=Path, required=True, help='folder for the result')
    parser.add_argument('--topics', nargs='+', default=[], metavar='IMAGE',
                        help='image topics of a bag')
    parser.add_argument('--steps', type=int, help='optimizer steps')
    parser.add_argument('--frames', type=int, help='most frames to use')
    parser.add_argument('--cached-pairs', type=int, metavar='N', help='for a MASA variant: pairs '
                        'of views that teach, each of which is encoded once')
    parser.add_argument('--judge-pairs', type=int, metavar='N',
                        help='pairs of far-apart views that judge')
    parser.add_argument('--seed', type=int, help='seed of everything random')
    add_settings(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    from masa_ros.training.adapt import adapt, AdaptConfig

    logging.basicConfig(level=logging.INFO, format='%(message)s')
    node_config, config = read_settings(args)
    name = config.model.name
    if name != 'tiny' and not name.startswith('masa_'):
        raise ValueError(f'the model {name} has no track head to adapt; choose tiny or a MASA '
                         'variant such as masa_sam_vit_b')
    options = ('steps', 'frames', 'seed', 'cached_pairs', 'judge_pairs')
    given = {key: getattr(args, key) for key in options if getattr(args, key) is not None}
    settings = from_mapping(AdaptConfig, given, 'the command line')
    if any((args.out / file).exists() for file in ('latest.pt', 'adapted.pt', 'adapted.pth')):
        raise ValueError(f'{args.out} holds an earlier run; choose another folder')
    if any(':' in topic for topic in args.topics):
        raise ValueError(f'--topics is {" ".join(args.topics)}, expected image topics alone: the '
                         'model or a detector (--detector) marks the objects')
    start, encoder = _start(config.model)
    teacher = Teacher(config)
    teacher.refuse_unused(args, 'masa_ros adapt')
    started = time.monotonic()
    with closing(open_input(args.input, node_config, args.topics,
                            use_bag_detections=False)) as recording:
        result = adapt(_frames(recording), teacher, start, args.out, settings, name, encoder)
        for problem in recording.problems():
            print(f'left out: {problem}')
    print(f'learned from {result.learned_frames} frames, judged on {result.judged_frames} at '
          f'the end of the recording, {time.monotonic() - started:.0f} s\n'
          f'{"":30s}before   after\n'
          f'finds itself in other views   {result.before.views:6.3f}  {result.after.views:6.3f}\n'
          f'finds itself in next frame    {result.before.neighbours:6.3f}  '
          f'{result.after.neighbours:6.3f}\n'
          f'finds itself within a second  {result.before.later:6.3f}  {result.after.later:6.3f}')
    if result.written is None:
        print('not better, so nothing was written')
        return NOT_BETTER
    option = '--checkpoint ' if name == 'tiny' else '--set model.adapter_checkpoint='
    print(f'better; use it with --model {name} {option}{result.written}')
    return BETTER


def _frames(recording: Input) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Name and image of at most ten frames a second."""
    from masa_ros.training.tracklets import at_most_ten_a_second

    for frame in at_most_ten_a_second(item.frame for item in recording):
        yield f'{frame.stream}/{frame.frame_index}', frame.image


def _start(config: ModelConfig) -> tuple[str, str]:
    """Weights to start from, and the SAM file where they leave SAM out."""
    if config.name == 'tiny':
        return config.checkpoint, ''
    from masa_ros.models.masa import find_files
    from masa_ros.models.variants import find_variant

    files = find_files(find_variant(config.name), config)
    return str(files[0]), str(files[1]) if len(files) > 1 else ''
