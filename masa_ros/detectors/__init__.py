"""Detectors: each finds boxes in an image, each in its own file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from masa_ros.detectors.detector import Detector
from masa_ros.models import weights
from masa_ros.structures.settings import setting

# Name: (module, function). The function takes a DetectorConfig and the model of the pipeline (or
# None) and returns a Detector, or None where the model itself finds the objects. Modules are
# imported when asked for, each with its own library.
CATALOG: dict[str, tuple[str, str]] = {
    'proposals': ('masa_ros.detectors.own', 'build_proposals'),
    'grid': ('masa_ros.detectors.own', 'build_grid'),
    'onnx': ('masa_ros.detectors.onnx', 'build'),
    'torchvision': ('masa_ros.detectors.torchvision', 'build'),
    'grounding_dino': ('masa_ros.detectors.grounding_dino', 'build'),
    'detic': ('masa_ros.detectors.detic', 'build'),
}
_TAKES_ARCHITECTURE = ('torchvision', 'grid')


@dataclass(frozen=True)
class DetectorConfig:
    """Which detector runs inside the pipeline, if any."""

    name: str = setting(
        'none', 'In-process detector: none where boxes come from a topic, a file or the model; '
        "proposals are the model's own; grid is SAM's everything mode; onnx is a file of your "
        'own; torchvision has fixed classes; grounding_dino and detic find what you name.',
        choices=('none', *CATALOG))
    architecture: str = setting(
        '', 'Model of the detector torchvision, such as fasterrcnn_resnet50_fpn, or SAM model of '
        'the detector grid where the tracking model is none.')
    checkpoint: str = setting(
        '', 'Weights of the detector: an ONNX file, a state dict for torchvision, a folder or '
        'gdino_masa.pth for grounding_dino, detic_masa.pth for detic. Empty takes the tracking '
        "model's own file where it holds the detector too, else the one that masa_ros weights "
        'fetch got.')
    text_model: str = setting(
        '', 'Folder of the text side: the BERT vocabulary for grounding_dino (vocab.txt), the '
        'CLIP text model for detic. Empty looks beside the weights, then for a fetched '
        'vocabulary.')
    device: str = setting(
        'auto', 'Device: auto (a GPU where there is one), cpu, cuda or cuda:<index>. Where '
        "features are shared it is the model's.")
    style: str = setting(
        'auto', 'Output layout of an ONNX detector; auto reads it from the output shapes and '
        'names.', choices=('auto', 'yolox', 'picodet', 'boxes'))
    class_file: str = setting(
        '', 'Text file with one class name per line, in output order; empty takes the names that '
        'come with the detector, if any.')
    class_vectors: str = setting(
        '', 'NumPy file (.npy) with one CLIP text vector per line of class_file, for detic; '
        'empty takes those of its weights file (LVIS) or computes them (text_model).')
    text: str = setting(
        '', 'Classes to find as one text, separated by dots, such as car . traffic cone; adds to '
        'classes.', dynamic=True)
    classes: tuple[str, ...] = setting(
        (), 'Class names to find; empty finds all that the detector knows.', dynamic=True)
    score_threshold: float = setting(
        0.3, 'Lowest score of a detection.', minimum=0.0, maximum=1.0, dynamic=True)
    text_threshold: float = setting(
        0.25, 'Lowest mean score over the words of a class, for grounding_dino.',
        minimum=0.0, maximum=1.0, dynamic=True)
    nms_threshold: float = setting(
        0.6, 'Boxes of one class overlapping more than this IoU are merged into the best.',
        minimum=0.0, maximum=1.0, dynamic=True)
    max_detections: int = setting(
        300, 'Most detections per frame.', minimum=1, maximum=1000, dynamic=True)
    threads: int = setting(
        0, 'CPU threads of an ONNX detector; 0 takes half of the cores, at most 4.', minimum=0,
        maximum=256)

    @property
    def enabled(self) -> bool:
        """Whether a detector is named, or classes to find by text, which need one."""
        return self.name != 'none' or bool(self.text)


def build_detector(config: DetectorConfig, model: Any = None) -> Detector | None:
    """
    Build the detector that a configuration names.

    Parameters
    ----------
    config : DetectorConfig
        The settings.
    model : Model, optional
        Model of the pipeline, whose features or proposals a detector may use.

    Returns
    -------
    Detector or None
        ``None`` for ``none``, and where the model finds the objects itself.

    Raises
    ------
    ValueError
        If the name is unknown, a library is missing, or settings do not fit.
    FileNotFoundError
        If a file is not there.

    """
    if not config.enabled:
        return None
    config = named(config, getattr(model, 'name', ''))
    if config.name not in CATALOG:
        raise ValueError(f'unknown detector {config.name!r}; known ones are none, '
                         + ', '.join(sorted(CATALOG)))
    module, function = CATALOG[config.name]
    detector: Detector | None = getattr(import_module(module), function)(config, model)
    return detector


def named(config: DetectorConfig, model: str = '') -> DetectorConfig:
    """Name the detector that classes to find by text stand for, if nothing else is named."""
    if config.name == 'none' and config.enabled:
        return replace(config, name=text_detector(model))
    return config


def detector_files(config: DetectorConfig) -> list[Path]:
    """
    Files and folders with what a detector may read at its start, as far as they are there.

    Those of the model, which it may share, are not among them.
    """
    given = [Path(path).expanduser() for path in (
        config.checkpoint, config.text_model, config.class_file, config.class_vectors) if path]
    published = {'grounding_dino': ('masa_gdino', 'bert_vocabulary'), 'detic': ('masa_detic',),
                 'grid': (config.architecture,)}.get(config.name, ())
    given += [weights.folder() / entry.file for name, entry in weights.FILES.items()
              if name in published]
    if config.checkpoint and config.name == 'grounding_dino':
        given.append(Path(config.checkpoint).expanduser().with_name('vocab.txt'))
    return [path for path in given if path.exists()]


def text_detector(model: str) -> str:
    """Name the detector that finds classes by text beside a model, sharing its features."""
    return 'detic' if model == 'masa_detic' else 'grounding_dino'


def read_choice(text: str) -> dict[str, str]:
    """
    Read a detector from one text, as the command line takes it.

    Parameters
    ----------
    text : str
        ``NAME``, ``NAME:WHAT`` (the architecture for torchvision and grid, else the weights), or
        the path of an ``.onnx`` file.

    Returns
    -------
    dict of str to str
        Fields of a `DetectorConfig`.

    Raises
    ------
    ValueError
        If it names no detector.

    """
    name, colon, what = text.partition(':')
    if name in CATALOG or name == 'none':
        field = 'architecture' if name in _TAKES_ARCHITECTURE else 'checkpoint'
        return {'name': name, **({field: what} if colon else {})}
    if Path(text).suffix.lower() == '.onnx':
        return {'name': 'onnx', 'checkpoint': text}
    raise ValueError(f'unknown detector {text!r}; expected an .onnx file, none, '
                     + ', '.join(CATALOG) + ', or one of these with :WHAT, such as '
                     'torchvision:fasterrcnn_resnet50_fpn')


def import_library(name: str, detector: str, extra: str, part: str = '') -> ModuleType:
    """
    Import the library of one detector, or a module in it.

    Parameters
    ----------
    name : str
        Package.
    detector : str
        Who needs it.
    extra : str
        What to give pip to install it.
    part : str
        Module inside the package.

    Raises
    ------
    ValueError
        If it cannot be imported; the message says what to install.

    """
    try:
        return import_module(f'{name}.{part}' if part else name)
    except ImportError as error:
        raise ValueError(f'the detector {detector} needs the Python package {name}, which cannot '
                         f'be imported ({error}); install it: pip install {extra}') from error


def no_classes_error(detector: str, names: Sequence[str] = ()) -> ValueError:
    """Error of a detector that has to be told what to look for."""
    return ValueError(
        f'the detector {detector} finds what it is told, and was told nothing'
        + (f' usable ({", ".join(map(repr, names))})' if names else '')
        + '; set detector.text, such as "car . traffic cone", or detector.classes')
