#!/usr/bin/env python3
"""Check that YAML, TOML and XML files parse and that no file is larger than it should be."""

from __future__ import annotations

from pathlib import Path
import subprocess
import sys
from xml.etree import ElementTree

import yaml

MAX_BYTES = 512 * 1024
# Weights that ship with the package are meant to be large.
LARGE_ALLOWED = ('.pt',)


def main(names: list[str]) -> int:
    """Check the files named, or all that git tracks; returns the exit status."""
    if not names:
        listing = subprocess.run(['git', 'ls-files', '-z'], check=True, capture_output=True)
        names = [name for name in listing.stdout.decode().split('\0') if name]
    problems = [problem for name in names for problem in check(Path(name))]
    print('\n'.join(problems), end='\n' if problems else '')
    return 1 if problems else 0


def check(path: Path) -> list[str]:
    """Problems of one file, as lines of text."""
    if not path.is_file():
        return []
    problems = []
    if path.stat().st_size > MAX_BYTES and path.suffix not in LARGE_ALLOWED:
        problems.append(f'{path}: {path.stat().st_size} bytes, at most {MAX_BYTES} are allowed')
    try:
        if path.suffix in {'.yaml', '.yml'}:
            list(yaml.safe_load_all(path.read_text()))
        elif path.suffix == '.toml':
            parse_toml(path)
        elif path.suffix == '.xml':
            ElementTree.parse(path)
    except (yaml.YAMLError, ValueError, ElementTree.ParseError) as error:
        problems.append(f'{path}: {error}')
    return problems


def parse_toml(path: Path) -> None:
    """Parse a TOML file where Python can (3.11 and newer)."""
    if sys.version_info >= (3, 11):
        import tomllib
        with path.open('rb') as file:
            tomllib.load(file)


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
