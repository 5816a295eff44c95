"""``masa_ros weights``: list, fetch and verify public weight files, or make random ones."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
import sys
from typing import Any

from masa_ros.models import weights
from masa_ros.models.weights import WeightsFile


def add_parser(subparsers: Any) -> None:
    """Add the command to ``masa_ros``."""
    parser = subparsers.add_parser(
        'weights', help='list, fetch and verify the weights of the models',
        description=f'Public weight files, kept in {weights.folder()} (MASA_ROS_WEIGHTS names '
        'another folder).')
    _add_actions(parser)


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``masa_ros weights`` alone; returns the exit code."""
    parser = argparse.ArgumentParser(prog='masa_ros weights')
    _add_actions(parser)
    parsed = parser.parse_args(argv)
    try:
        return int(parsed.run(parsed))
    except (OSError, ValueError) as error:
        print(f'masa_ros weights: error: {error}', file=sys.stderr)
        return 2


def _add_actions(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(metavar='ACTION', required=True)
    known = ', '.join(weights.FILES)

    listing = actions.add_parser('list', help='show all public files and which are here')
    listing.set_defaults(run=_list)

    fetching = actions.add_parser(
        'fetch', help='download files; an interrupted download is continued',
        epilog=f'Names: {known}.')
    fetching.add_argument('names', nargs='+', metavar='NAME', help='model or file name')
    fetching.set_defaults(run=_fetch)

    verifying = actions.add_parser(
        'verify', help='read files and compare them with what is published',
        epilog=f'Names: {known}. Without names: every file that is here.')
    verifying.add_argument('names', nargs='*', metavar='NAME', help='model or file name')
    verifying.set_defaults(run=_verify)

    seeding = actions.add_parser(
        'seed', help='write random weights in the published form (NOT TRAINED, for trials)')
    seeding.add_argument('name', metavar='MODEL', help='sam_vit_b, masa_r50, ...')
    seeding.add_argument('path', metavar='PATH', type=Path, help='file to write')
    seeding.add_argument('--seed', type=int, default=0, help='other numbers (default: 0)')
    seeding.add_argument('--force', action='store_true', help='replace an existing file')
    seeding.set_defaults(run=_seed)


def _list(_: argparse.Namespace) -> int:
    rows = [('NAME', 'FILE', 'SIZE', 'STATE', 'LICENCE')]
    rows += [(entry.name, entry.file, _size(entry), _state(entry), entry.licence)
             for entry in weights.FILES.values()]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    print(f'folder: {weights.folder()}')
    for row in rows:
        print('  '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
              .rstrip())
    return 0


def _size(entry: WeightsFile) -> str:
    return weights.readable_size(entry.size_bytes) if entry.size_bytes else '?'


def _state(entry: WeightsFile) -> str:
    """Say whether a file is here; its contents are not read."""
    path = weights.folder() / entry.file
    part = path.with_name(path.name + '.part')
    if path.is_file():
        if weights.is_seeded(path):
            return 'here, NOT TRAINED (random)'
        if entry.size_bytes and path.stat().st_size != entry.size_bytes:
            return 'here, WRONG SIZE'
        return 'here'
    if part.is_file():
        return f'{weights.readable_size(part.stat().st_size)} fetched'
    return '-'


def _fetch(arguments: argparse.Namespace) -> int:
    entries = [weights.entry_of(name) for name in arguments.names]
    for entry in entries:
        if entry.licence.startswith('not stated'):
            print(f'{entry.file}: licence of the weights {entry.licence}', file=sys.stderr)
        with _Bar(entry) as bar:
            path = weights.fetch(entry, bar.show)
        print(path)
    return 0


class _Bar:
    """Progress bar that appears with the first bytes."""

    def __init__(self, entry: WeightsFile) -> None:
        self._entry = entry
        self._bar: Any = None

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, done: int, total: int) -> None:
        """Show bytes there and bytes in all (0: unknown)."""
        if self._bar is None:
            from tqdm import tqdm
            self._bar = tqdm(
                desc=self._entry.file, unit='B', unit_scale=True, total=total or None,
                initial=done)
        self._bar.total = total or None
        self._bar.n = done
        self._bar.update(0)


def _verify(arguments: argparse.Namespace) -> int:
    folder = weights.folder()
    entries = [weights.entry_of(name) for name in arguments.names] or [
        entry for entry in weights.FILES.values() if (folder / entry.file).is_file()]
    if not entries:
        print(f'no weights in {folder}; get some with masa_ros weights fetch NAME')
    failed = False
    for entry in entries:
        path = folder / entry.file
        try:
            if not path.is_file():
                verdict, failed = 'not here', True
            elif weights.is_seeded(path):
                verdict, failed = 'random weights, NOT TRAINED', True
            else:
                verdict = weights.check(entry, path)
        except ValueError as error:
            verdict, failed = f'WRONG: {error}', True
        print(f'{entry.file}: {verdict}')
    return 1 if failed else 0


def _seed(arguments: argparse.Namespace) -> int:
    path: Path = arguments.path
    if path.exists() and not arguments.force:
        raise ValueError(f'{path} exists; choose another path, or --force to replace it')
    if not path.absolute().parent.is_dir():
        raise ValueError(f'there is no folder {path.absolute().parent}; make it first')
    # torch is only needed here.
    from masa_ros.models import seeding
    seeding.write(arguments.name, path, arguments.seed)
    print(f'{path}: random weights of {arguments.name}, seed {arguments.seed}. NOT TRAINED: they '
          'show that things run and how fast, never how well.')
    return 0
