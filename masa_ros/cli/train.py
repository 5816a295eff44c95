"""``masa_ros train``: train a network from a recipe or on a folder of images."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

import yaml


def add_parser(subparsers: Any) -> None:
    """Add the command to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        'train', help='train a model from a recipe or on images',
        description='Train from a YAML recipe, or on images: a folder that masa_ros propose '
        'made, or a folder of images that the model marks first. A run that was broken off goes '
        'on. For several processes: torchrun --no-python masa_ros train ...')
    parser.add_argument('input', type=Path,
                        help='recipe (.yaml), folder of proposals, or folder of images')
    parser.add_argument('settings', nargs='*', metavar='NAME=VALUE',
                        help='settings over the recipe, such as steps=2000 or run=runs/mine')
    parser.add_argument('--out', type=Path, help='run folder when training on images')
    parser.add_argument('--recipe', type=Path,
                        help='recipe (.yaml) to train with on images, such as '
                        'config/train_paper.yaml')
    parser.set_defaults(run=run)
    _mix(parser)


def _mix(parser: argparse.ArgumentParser) -> None:
    """Let settings stand before and after options; argparse by itself wants them together."""
    plain = parser.parse_known_args

    def parse(args: Any = None, namespace: Any = None) -> Any:
        parser.parse_known_args = plain  # type: ignore[method-assign]
        try:
            return parser.parse_known_intermixed_args(args, namespace)
        finally:
            parser.parse_known_args = parse  # type: ignore[method-assign]

    parser.parse_known_args = parse  # type: ignore[method-assign]


def run(args: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    from masa_ros.training.config import load_config, TrainConfig
    from masa_ros.training.train import train

    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s')
    overrides = _overrides(args.settings)
    if args.input.suffix in ('.yaml', '.yml'):
        config = load_config(args.input, overrides)
    elif args.input.is_dir():
        config = _on_images(args.input, args.out, args.recipe, overrides)
    else:
        raise FileNotFoundError(f'{args.input} is neither a recipe (.yaml) nor a folder')
    if not isinstance(config, TrainConfig):
        raise TypeError('a recipe must give a TrainConfig')
    newest = train(config)
    if config.model == 'tiny':
        print(f'trained; use it with --model tiny --checkpoint {newest}')
    else:
        print(f'trained; use it with --model {config.model} '
              f'--set model.adapter_checkpoint={newest.with_name("masa.pth")}')
    return 0


def _on_images(
    folder: Path, out: Path | None, recipe: Path | None, overrides: dict[str, Any],
) -> Any:
    """Recipe for a folder: mark the images where needed, then start from the shipped weights."""
    from masa_ros.models.tiny.weights import SHIPPED
    from masa_ros.structures.settings import from_mapping
    from masa_ros.training.config import load_config, MASA_DEFAULTS, TrainConfig
    from masa_ros.training.corpus import write_corpus
    from masa_ros.training.proposals import read_proposals
    from masa_ros.training.train import join_processes
    from torch import distributed

    place = out or Path('runs') / folder.resolve().name
    # A mistake in the settings must not wait for hours of proposals.
    given = {'run': str(place), 'data.corpus': str(place / 'corpus'), **overrides}
    if recipe is not None:
        config = load_config(recipe, given)
    elif overrides.get('model', 'tiny') == 'tiny':
        start = {'initial_weights': str(SHIPPED)} if SHIPPED.is_file() else {}
        config = from_mapping(TrainConfig, {**start, **given}, 'the command line')
    else:
        config = from_mapping(TrainConfig, {**MASA_DEFAULTS, **given}, 'the command line')
    shards = folder
    if not list(folder.glob('shard-*.tar')):
        from masa_ros.cli.main import main

        shards = place / 'proposals'
        # 1 says that some images were listed and skipped, which is no reason to stop.
        room = [] if config.model == 'tiny' else [
            '--long-side', str(config.views.size), '--most', str(config.pairs.max_instances)]
        if main(['propose', str(folder), '--out', str(shards), *room]) > 1:
            raise ValueError(f'no proposals could be made for {folder}; the lines above say why')
    rank, world, _ = join_processes()
    if world > 1:
        distributed.barrier()  # Every process has its shards.
    if rank == 0:
        # Decoding costs nothing beside an encoder of a hundred million parameters.
        write_corpus(place / 'corpus', read_proposals(shards), packed=config.model != 'tiny')
    if world > 1:
        distributed.barrier()
    return config


def _overrides(entries: list[str]) -> dict[str, Any]:
    values = {}
    for entry in entries:
        name, sign, value = entry.partition('=')
        if not sign:
            raise ValueError(f'{entry!r} is not NAME=VALUE, such as steps=2000')
        values[name] = yaml.safe_load(value)
    return values
