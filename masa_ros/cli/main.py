"""
``masa_ros``: one command for everything that needs no robot.

A module of a command has a function ``add_parser(subparsers)`` that adds its parser and sets
``run``, a function that takes the parsed arguments and returns the exit code. Only the module of
the command that is asked for is imported, so that ``--help`` is quick.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module, metadata
import os
from pathlib import Path
import re
import sys

COMMANDS: dict[str, tuple[str, str]] = {
    'track': ('masa_ros.cli.track', 'track the objects of a bag, a video or an image folder'),
    'demo': ('masa_ros.cli.demo', 'render a street, track it in a real ROS 2 graph, score it'),
    'evaluate': ('masa_ros.cli.evaluate', 'score trackers on data sets and recordings'),
    'weights': ('masa_ros.cli.weights', 'list, fetch and verify the weights of the models'),
    'train': ('masa_ros.cli.train', 'train a model from a recipe or on images'),
    'adapt': ('masa_ros.cli.adapt', 'fine-tune the track head on a recording, without labels'),
    'propose': ('masa_ros.cli.propose', 'let a model mark everything in images, to train on'),
    'embed': ('masa_ros.cli.embed', 'draw what the embeddings of a model tell apart'),
}
"""Name: (module, help)."""

FAILED = 2
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run the command line; returns the exit code.

    What the user can mend ends with one line and exit code 2; ``--debug`` shows where it came
    from.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = build_parser(arguments)
    parsed = parser.parse_args(arguments)
    try:
        code = int(parsed.run(parsed))
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print('masa_ros: interrupted', file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has gone; Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (ValueError, OSError, ImportError, MemoryError) as error:
        if parsed.debug:
            raise
        print(f'masa_ros: error: {_one_line(error)}', file=sys.stderr)
    except Exception as error:
        if parsed.debug:
            raise
        print(f'masa_ros: unexpected error: {type(error).__name__}: {_one_line(error)}\n'
              'This is a fault of masa_ros; masa_ros --debug ... shows where.', file=sys.stderr)
    return FAILED


def build_parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """Parser in which the command named in the arguments is complete, the others by name only."""
    parser = argparse.ArgumentParser(
        prog='masa_ros', description='Segment and track anything, for ROS 2.')
    parser.add_argument('--version', action='version', version=f'masa_ros {version()}')
    parser.add_argument('--debug', action='store_true', help='show where an error came from')
    subparsers = parser.add_subparsers(metavar='COMMAND', required=True)
    wanted = next((word for word in arguments if not word.startswith('-')), None)
    for name, (module, text) in COMMANDS.items():
        if name == wanted:
            import_module(module).add_parser(subparsers)
        else:
            subparsers.add_parser(name, help=text)
    return parser


def version() -> str:
    """Version of the package: from package.xml beside the code or installed, else from pip."""
    prefixes = [*os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep), sys.prefix]
    files = [Path(__file__).resolve().parents[2] / 'package.xml',
             *(Path(prefix) / 'share' / 'masa_ros' / 'package.xml'
               for prefix in prefixes if prefix)]
    for file in files:
        if file.is_file():
            found = re.search(r'<version>([^<]+)</version>', file.read_text())
            if found:
                return found.group(1)
    try:
        return metadata.version('masa_ros')
    except metadata.PackageNotFoundError:
        return 'of unknown version'


def _one_line(error: BaseException) -> str:
    return ' '.join(str(error).split()) or type(error).__name__


if __name__ == '__main__':
    sys.exit(main())
