"""``masa_ros propose``: let a model mark everything in images, to train on."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import chain
import os
from pathlib import Path
from typing import Any

from masa_ros.cli.inputs import Input, open_input
from masa_ros.cli.settings import add_settings, read_settings, refuse_unused, setting_values
from masa_ros.cli.teacher import Teacher
from masa_ros.pipeline import PipelineConfig
from masa_ros.regions import Regions
from masa_ros.ros.bag import is_bag
from masa_ros.ros.parameters import NodeConfig
from masa_ros.sources import ImageFolder, open_source, read_image
from masa_ros.structures.instances import Instances
from masa_ros.structures.settings import flatten, from_mapping
from masa_ros.training.proposals import NamedImage, ProposalConfig, write_proposals
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

DONE, SOME_SKIPPED = 0, 1
SAM_MODELS = ('sam_vit_b', 'sam_vit_l', 'sam_vit_h', 'mobile_sam')
SAM_QUALITY = 0.88
"""Lowest predicted IoU of SAM's masks in the paper."""
Labels = Callable[[str, NDArray[np.uint8], tuple[int, int]], Instances]
"""Name of a file, its image and the size from before it was reduced, to what is known in it."""
HOW_IT_RUNS = ('model.device', 'model.compile', 'detector.device', 'detector.threads')
"""Settings that may differ between the runs that fill one folder."""


def add_parser(subparsers: Any) -> None:
    """Add the command to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        'propose', help='let a model mark everything in images, to train on',
        description='Write proposals for the images of folders, videos and bags as WebDataset '
        'shards. A run that was broken off goes on; torchrun shares the shards between '
        'processes (torchrun --no-python masa_ros propose ...). Exit code: 0 done, 1 done but '
        'some images could not be read (they are listed).')
    parser.add_argument('inputs', type=Path, nargs='+', help='image folders, videos or bags')
    parser.add_argument('--out', type=Path, required=True, help='folder for the shards')
    parser.add_argument('--every', type=int, default=1, metavar='N', help='use every N-th frame')
    parser.add_argument('--segments', type=Path, metavar='FOLDER',
                        help='take PNG maps of segment numbers, named as the images, instead of '
                        'asking a model')
    parser.add_argument('--coco', type=Path, metavar='FILE', help='take polygons, masks and boxes '
                        'of a COCO annotation file instead of asking a model')
    parser.add_argument('--least-quality', type=float, help='lowest predicted IoU of a mask; '
                        f'{SAM_QUALITY} for SAM and 0 for other models unless given')
    parser.add_argument('--most', type=int, default=ProposalConfig.most,
                        help='most proposals of an image')
    parser.add_argument('--long-side', type=int, default=ProposalConfig.long_side_px,
                        metavar='PX', help='images are stored no larger than this; 1024 for '
                        'training a MASA variant')
    parser.add_argument('--shard-images', type=int, default=ProposalConfig.shard_images,
                        help='images of a shard')
    add_settings(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    if args.every < 1:
        raise ValueError(f'--every is {args.every}, expected 1 or more')
    node_config, config = read_settings(args)
    rank, world = int(os.environ.get('RANK', '0')), int(os.environ.get('WORLD_SIZE', '1'))
    labels = _labels(args, config)
    quality = args.least_quality
    if quality is None:
        quality = SAM_QUALITY if config.model.name in SAM_MODELS else 0.0
    settings = from_mapping(ProposalConfig, {
        'least_quality': quality, 'shard_images': args.shard_images, 'most': args.most,
        'long_side_px': args.long_side}, 'the command line')
    room = settings.most
    if 'model.max_proposals' in setting_values(args):
        room = min(room, config.model.max_proposals)
    teacher = _no_teacher if labels else _teacher(args, config, room, world)
    skipped: dict[str, str] = {}
    images = proposals = 0
    items, total = _images(args, node_config, labels)
    with tqdm(unit=' images', dynamic_ncols=True, disable=rank > 0,
              total=None if total is None else -(-total // world)) as bar:
        for report in write_proposals(
                args.out, items, teacher, settings, rank, world, bar.update,
                _what_decides(args, config, settings)):
            images, proposals = images + report.images, proposals + report.proposals
            skipped.update(report.skipped)
    for name, reason in skipped.items():
        print(f'skipped {name}: {reason}')
    if images == 0 and world == 1:
        raise ValueError(f'no image of {", ".join(str(path) for path in args.inputs)} could be '
                         'used; the lines above say why')
    print(f'{images} images, {proposals} proposals, {len(skipped)} images skipped, in {args.out}')
    # To torchrun any other code is a failure, for which it stops all processes.
    return SOME_SKIPPED if skipped and world == 1 else DONE


def _teacher(
    args: argparse.Namespace, config: PipelineConfig, most: int, world: int,
) -> Teacher:
    """Build the model, and the detector where one is asked for, that mark the images."""
    chosen = replace(
        config.model, max_masks=max(config.model.max_masks, most),
        max_proposals=max(config.model.max_proposals, most))
    if world > 1 and chosen.device == 'auto':
        chosen = replace(chosen, device=_own_device())
    teacher = Teacher(replace(config, model=chosen))
    teacher.refuse_unused(args, 'masa_ros propose')
    return teacher


def _what_decides(
    args: argparse.Namespace, config: PipelineConfig, settings: ProposalConfig,
) -> dict[str, Any]:
    """Name all that decides what is marked, as far as it is not the default."""
    if args.segments or args.coco:
        chosen: dict[str, Any] = {'--segments': str(args.segments or ''),
                                  '--coco': str(args.coco or '')}
    else:
        groups = ('model.', 'detector.', 'classes.')
        default = flatten(PipelineConfig())
        chosen = {name: value for name, value in flatten(config).items()
                  if name.startswith(groups) and name not in HOW_IT_RUNS
                  and value != default[name]}
    regions = Regions(config.regions)
    return {**chosen, **flatten(settings), **({'regions': regions.digest()} if regions else {})}


def _own_device() -> str:
    """Name the GPU of this process, so that they do not all crowd on the first one."""
    import torch

    local = int(os.environ.get('LOCAL_RANK', '0'))
    return f'cuda:{local % torch.cuda.device_count()}' if torch.cuda.is_available() else 'cpu'


def _no_teacher(_: NDArray[np.uint8], __: tuple[int, int]) -> Instances:
    """Stand in for a model where labels are given."""
    return Instances()


def _labels(args: argparse.Namespace, config: PipelineConfig) -> Labels | None:
    """Labels of files that the user named, instead of a model, outside ignored regions."""
    from masa_ros.training.label_files import CocoLabels, SegmentMaps

    if args.segments and args.coco:
        raise ValueError('give --segments or --coco, not both')
    if not args.segments and not args.coco:
        return None
    refuse_unused(args, 'masa_ros propose with --segments or --coco', ('regions',))
    read = SegmentMaps(args.segments) if args.segments else CocoLabels(args.coco)
    regions = Regions(config.regions)

    def labels(
        name: str, image: NDArray[np.uint8], full_size: tuple[int, int],
    ) -> Instances:
        found = read(name, image)
        return found.select(regions.keeps(
            found, *image.shape[:2], by_mask=True, full_size=full_size))

    return labels


def _images(
    args: argparse.Namespace, config: NodeConfig, labels: Labels | None,
) -> tuple[Iterator[NamedImage], int | None]:
    """Images of all inputs in order, and their number where it is known."""
    sources: list[Iterator[NamedImage]] = []
    total: int | None = 0
    for path in args.inputs:
        folder = None if is_bag(path) else open_source(path)
        if isinstance(folder, ImageFolder):
            files = folder.files[::args.every]
            sources.append(_files(folder.stream, files, labels))
            count: int | None = len(files)
        elif labels is not None:
            raise ValueError(f'{path} is no folder of images, which labels belong to')
        else:
            recording = open_input(path, config, use_bag_detections=False)
            sources.append(_frames(recording, args.every))
            count = None if recording.total is None else -(-recording.total // args.every)
        total = None if total is None or count is None else total + count
    return chain.from_iterable(sources), total


def _files(stream: str, files: list[Path], labels: Labels | None) -> Iterator[NamedImage]:
    """Images of a folder, read when their turn has come."""
    for file in files:
        known = None if labels is None else partial(labels, file.name)
        yield NamedImage(f'{stream}/{file.name}', None, read=partial(read_image, file),
                         labels=known)


def _frames(recording: Input, every: int) -> Iterator[NamedImage]:
    """Frames of a bag or video, then what could not be read."""
    with closing(recording):
        for position, item in enumerate(recording):
            if position % every == 0:
                stream = item.frame.stream.strip('/').replace('/', '.')
                yield NamedImage(f'{stream}/{item.frame.frame_index:07d}', item.frame.image)
        for problem in recording.problems():
            name, _, reason = problem.partition(':')
            yield NamedImage(name, None, reason.strip() or problem)
