"""``masa_ros propose``: let a model mark everything in images, to train on."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import closing
import os
from pathlib import Path
from typing import Any

from masa_ros.cli.inputs import open_input
from masa_ros.cli.settings import add_settings, read_settings
from masa_ros.structures.instances import Instances
from masa_ros.training.proposals import NamedImage, ProposalConfig, write_proposals
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

DONE, SOME_SKIPPED = 0, 1


def add_parser(subparsers: Any) -> None:
    """Add the command to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        'propose', help='let a model mark everything in images, to train on',
        description='Write proposals for the images of folders, videos and bags as WebDataset '
        'shards. A run that was broken off goes on; torchrun shares the shards between '
        'processes. Exit code: 0 done, 1 done but some images could not be read (they are '
        'listed).')
    parser.add_argument('inputs', type=Path, nargs='+', help='image folders, videos or bags')
    parser.add_argument('--out', type=Path, required=True, help='folder for the shards')
    parser.add_argument('--every', type=int, default=1, metavar='N', help='use every N-th frame')
    parser.add_argument('--least-quality', type=float, default=ProposalConfig.least_quality,
                        help='lowest predicted IoU of a mask; 0.88 suits SAM')
    parser.add_argument('--shard-images', type=int, default=ProposalConfig.shard_images,
                        help='images of a shard')
    add_settings(parser)
    parser.set_defaults(run=run, model='tiny')


def run(args: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    from masa_ros.detectors import build_detector
    from masa_ros.models import build_model

    if args.every < 1:
        raise ValueError(f'--every is {args.every}, expected 1 or more')
    _, config = read_settings(args)
    detector = build_detector(config.detector)
    model = build_model(config.model)
    if detector is None and not model.can_propose:
        raise ValueError(f'the model {config.model.name} finds nothing by itself; choose one '
                         'that does, such as tiny, or give a detector (--detector FILE)')

    def teacher(image: NDArray[np.uint8]) -> Instances:
        boxes = None if detector is None else detector.detect([image])[0]
        return model.run([image], [boxes])[0]

    settings = ProposalConfig(least_quality=args.least_quality, shard_images=args.shard_images)
    rank, world = int(os.environ.get('RANK', '0')), int(os.environ.get('WORLD_SIZE', '1'))
    skipped: dict[str, str] = {}
    images = proposals = 0
    with tqdm(unit=' images', dynamic_ncols=True, disable=rank > 0) as bar:
        for report in write_proposals(
                args.out, _images(args), teacher, settings, rank, world):
            images, proposals = images + report.images, proposals + report.proposals
            skipped.update(report.skipped)
            bar.update(report.images)
    for name, reason in skipped.items():
        print(f'skipped {name}: {reason}')
    if images == 0:
        raise ValueError(f'no image of {", ".join(str(path) for path in args.inputs)} could be '
                         'used; the lines above say why')
    print(f'{images} images, {proposals} proposals, {len(skipped)} images skipped, in {args.out}')
    return SOME_SKIPPED if skipped else DONE


def _images(args: argparse.Namespace) -> Iterator[NamedImage]:
    """Frames of all inputs, then what could not be read."""
    node_config, _ = read_settings(args)
    for path in args.inputs:
        with closing(open_input(path, node_config, use_bag_detections=False)) as recording:
            for position, item in enumerate(recording):
                if position % args.every == 0:
                    stream = item.frame.stream.strip('/').replace('/', '.')
                    yield NamedImage(
                        f'{stream}/{item.frame.frame_index:07d}', item.frame.image)
            for problem in recording.problems():
                name, _, reason = problem.partition(':')
                yield NamedImage(name, None, reason.strip() or problem)
