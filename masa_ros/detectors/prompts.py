"""What a user asks a detector for: class names, given as a list or as one text."""

from __future__ import annotations

from collections.abc import Sequence
import json
from pathlib import Path
import re

from masa_ros.detectors.selection import class_key

_SEPARATORS = re.compile(r'[.,;\n]')


def split_text(text: str) -> tuple[str, ...]:
    """
    Split a text such as ``car . traffic cone`` into class names.

    Dots, commas, semicolons and line ends separate names; a name that comes again (in upper or
    lower case) is left out.
    """
    return unique_names(_SEPARATORS.split(text))


def unique_names(names: Sequence[str]) -> tuple[str, ...]:
    """Names without surrounding or double spaces, each once, empty ones left out."""
    found: dict[str, str] = {}
    for name in names:
        tidy = ' '.join(str(name).split())
        if tidy:
            found.setdefault(class_key(tidy), tidy)
    return tuple(found.values())


def wanted_names(classes: Sequence[str], text: str) -> tuple[str, ...]:
    """Names of the settings ``detector.classes`` and ``detector.text`` together."""
    return unique_names([*classes, *split_text(text)])


def choose_classes(names: Sequence[str], known: Sequence[str], detector: str) -> list[bool]:
    """
    Tell which classes of a detector with a fixed set are wanted.

    Parameters
    ----------
    names : sequence of str
        Wanted names; none means all.
    known : sequence of str
        Names of the detector's classes in order; empty ones have none.
    detector : str
        Name for the message.

    Returns
    -------
    list of bool
        One for each of `known`.

    Raises
    ------
    ValueError
        If a name is not known.

    """
    wanted = {class_key(name): name for name in unique_names(names)}
    keys = [class_key(name) for name in known]
    unknown = sorted(name for key, name in wanted.items() if key not in keys)
    if unknown:
        named = [name for name in known if name]
        listed = ', '.join(named[:100]) + (f' and {len(named) - 100} more'
                                           if len(named) > 100 else '')
        raise ValueError(
            f'detector.classes names {", ".join(unknown)}, which the detector {detector} does '
            f'not know; known classes are {listed or "none: detector.class_file is empty"}')
    return [not wanted or key in wanted for key in keys]


def read_names(class_file: str, num_classes: int | None) -> tuple[str, ...]:
    """
    Class names in output order; empty where no file is given.

    Parameters
    ----------
    class_file : str
        Text file with one name per line, or a JSON file of LVIS or COCO annotations.
    num_classes : int or None
        How many there must be; any number when missing.

    Raises
    ------
    FileNotFoundError
        If the file is not there.
    ValueError
        If it does not have one name per class, or is JSON of another kind.

    """
    if not class_file:
        return ()
    path = Path(class_file).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f'class file {path} is not there; correct detector.class_file or '
                                'leave it empty')
    names = _lvis_names(path) if path.suffix == '.json' else tuple(
        line.strip() for line in path.read_text(encoding='utf-8').splitlines() if line.strip())
    if num_classes is not None and len(names) != num_classes:
        raise ValueError(f'class file {path} has {len(names)} names, but the detector gives '
                         f'{num_classes} classes; each class needs one line, in output order')
    return names


def _lvis_names(path: Path) -> tuple[str, ...]:
    """Names in order of their numbers, from annotations or from LVIS' list of categories."""
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
        entries = content['categories'] if isinstance(content, dict) else content
        ordered = sorted(entries, key=lambda entry: int(entry['id']))
        return tuple(str(entry['name']).replace('_', ' ') for entry in ordered)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f'class file {path} is no JSON with categories of id and name '
                         f'({error!r}); write one name per line instead') from error
