"""Settings of the model, detector and tracker from the command line and a YAML file."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from masa_ros.detectors import read_choice
from masa_ros.pipeline import PipelineConfig
from masa_ros.ros.parameters import build_settings, described, NodeConfig, unknown_name_error
from masa_ros.structures.settings import flatten
import yaml


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add the options that `read_settings` reads."""
    group = parser.add_argument_group('what does the work')
    group.add_argument('--model', help='model, such as tiny (the default), classical or sam_vit_b')
    group.add_argument('--checkpoint', metavar='FILE', help='weights of the model')
    group.add_argument('--device', help='auto, cpu, cuda or cuda:<index>')
    group.add_argument('--detector', metavar='NAME[:WHAT]', help='who finds the boxes: an .onnx '
                       'file, torchvision:ARCHITECTURE, grounding_dino, detic, proposals or grid; '
                       'see docs/detectors.md')
    group.add_argument('--proposals', choices=('own', 'grid'), help='who finds objects of any '
                       "kind: the model's own proposals, or SAM's grid of points (slow); the same "
                       'as --detector proposals and --detector grid')
    group.add_argument('--text', help='classes to find, separated by dots, such as '
                       '"car . traffic cone"; alone it takes the detector that goes with the '
                       'model (detic for masa_detic, else grounding_dino)')
    group.add_argument('--classes', metavar='FILE', help='text file with the class names of the '
                       'detector, one per line')
    group.add_argument('--ignore', metavar='REGION', action='append', default=[],
                       help='leave out objects in a part of the image: an image file (where it is '
                       'not black) or a polygon such as "0,600 300,500 640,600"; may be repeated')
    group.add_argument('--interest', metavar='REGION', action='append', default=[],
                       help='leave out objects outside: the same, the other way round')
    group.add_argument('--config', metavar='FILE', help='YAML file of settings, such as '
                       'config/tracker.yaml; options given here go before it')
    group.add_argument('--set', metavar='NAME=VALUE', action='append', default=[],
                       dest='assignments', help='any setting of config/tracker.yaml, such as '
                       'model.max_masks=20; may be repeated')


def read_settings(args: argparse.Namespace) -> tuple[NodeConfig, PipelineConfig]:
    """
    Read the settings of the node and of the pipeline.

    Raises
    ------
    FileNotFoundError
        If the YAML file is missing.
    ValueError
        If a name is unknown or a value not allowed.

    """
    return build_settings(setting_values(args))


def setting_values(args: argparse.Namespace) -> dict[str, Any]:
    """
    Return the values that the user gave, by full name; see `read_settings`.

    Raises
    ------
    FileNotFoundError
        If the YAML file is missing.
    ValueError
        If a name is unknown.

    """
    values = {**(read_yaml(Path(args.config)) if args.config else {}), **_typed_values(args)}
    known = described()
    for name in values:
        if name not in known:
            raise ValueError(unknown_name_error(name, known))
    return values


def refuse_unused(args: argparse.Namespace, who: str, used: Sequence[str]) -> None:
    """
    Let no setting be taken without a word that a command has no use for.

    A settings file may be shared with the node and with other commands, so what is of no use in it
    is named and left out; what was typed for this command is refused. A value that is the default
    says nothing.

    Parameters
    ----------
    args : Namespace
        Options of `add_settings`.
    who : str
        The command, and in which case.
    used : sequence of str
        Settings, or groups of them, that it uses.

    Raises
    ------
    ValueError
        If a setting of the command line is of no use.

    """
    node_config, config = read_settings(args)
    chosen = {**flatten(node_config), **flatten(config)}
    typed = _typed_values(args)
    useless = [name for name in setting_values(args)
               if chosen[name] != described()[name][0]
               and not any(name == entry or name.startswith(f'{entry}.') for entry in used)]
    refused = [name for name in useless if name in typed]
    if refused:
        raise ValueError(f'{who} has no use for {", ".join(refused)}; of the settings it uses '
                         + ', '.join(used))
    if useless:
        print(f'left out: {who} has no use for these settings of {args.config}: '
              + ', '.join(useless))


def _typed_values(args: argparse.Namespace) -> dict[str, Any]:
    """Return what ``--set`` and the other options say, by full name."""
    values: dict[str, Any] = {}
    for text in args.assignments:
        name, equals, value = text.partition('=')
        if not equals:
            raise ValueError(f'--set {text!r}: expected NAME=VALUE, such as model.max_masks=20')
        values[name.strip()] = yaml.safe_load(value)
    options = {'model.name': args.model, 'model.checkpoint': args.checkpoint,
               'model.device': args.device}
    if args.proposals:
        if args.detector:
            raise ValueError('--proposals and --detector both say who finds the boxes; give one')
        options['detector.name'] = {'own': 'proposals', 'grid': 'grid'}[args.proposals]
    if args.detector:
        options |= {f'detector.{name}': value
                    for name, value in read_choice(args.detector).items()}
    if args.detector or args.text:
        options |= {'detector.text': args.text, 'detector.class_file': args.classes}
    elif args.classes:
        raise ValueError('--classes names the classes of a detector; give it with --detector')
    for kind in ('ignore', 'interest'):
        options |= _regions(kind, getattr(args, kind))
    values.update({name: value for name, value in options.items() if value is not None})
    return values


def _regions(kind: str, texts: Sequence[str]) -> dict[str, Any]:
    """Read ``--ignore`` or ``--interest``: one image file, and any number of polygons."""
    polygons = [text for text in texts if ' ' in text.strip() and ',' in text
                and not Path(text).suffix.lower().lstrip('.').isalpha()]
    files = [text for text in texts if text not in polygons]
    if len(files) > 1:
        raise ValueError(f'--{kind} has {len(files)} files ({", ".join(files)}), expected one; '
                         'draw all regions into it, or give polygons')
    found: dict[str, Any] = {}
    if files:
        found[f'regions.{kind}_image'] = files[0]
    if polygons:
        found[f'regions.{kind}_polygons'] = polygons
    return found


def read_yaml(path: Path) -> dict[str, Any]:
    """
    Read settings from a YAML file as ``{'group.name': value}``.

    A parameter file of ROS (``/**: ros__parameters: ...``) works as well as plain groups.

    Raises
    ------
    FileNotFoundError
        If it is missing.
    ValueError
        If it is no YAML, or holds no mapping.

    """
    if not path.is_file():
        raise FileNotFoundError(f'the settings file {path} is missing')
    try:
        content = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f'{path} is not YAML: {error}') from error
    if not isinstance(content, Mapping):
        raise ValueError(f'{path} holds a {type(content).__name__}, expected groups of settings')
    nodes = [value['ros__parameters'] for value in content.values()
             if isinstance(value, Mapping) and 'ros__parameters' in value]
    values: dict[str, Any] = {}
    for part in nodes or [content]:
        values.update(_flat(part))
    return values


def _flat(content: Mapping[Any, Any], prefix: str = '') -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f'{prefix}{key}.'))
        else:
            flat[f'{prefix}{key}'] = value
    return flat
