"""Detectors: each finds boxes in an image, each in its own file."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

from masa_ros.detectors.detector import Detector
from masa_ros.structures.settings import setting

CATALOG: dict[str, tuple[str, str]] = {
    'onnx': ('masa_ros.detectors.onnx', 'build'),
}


@dataclass(frozen=True)
class DetectorConfig:
    """Which detector runs inside the pipeline, if any."""

    name: str = setting(
        'none', 'In-process detector; none where boxes come from a topic, a file or the model.',
        choices=('none', *CATALOG))
    checkpoint: str = setting('', 'Detector file, such as yolox_nano.onnx.')
    style: str = setting(
        'auto', 'Output layout of an ONNX detector; auto reads it from the output shapes.',
        choices=('auto', 'yolox', 'picodet'))
    class_file: str = setting(
        '', 'Text file with one class name per line, in output order; empty leaves names out.')
    classes: tuple[str, ...] = setting(
        (), 'Class names to keep; empty keeps all.', dynamic=True)
    score_threshold: float = setting(
        0.3, 'Lowest score of a detection.', minimum=0.0, maximum=1.0, dynamic=True)
    nms_threshold: float = setting(
        0.6, 'Boxes of one class overlapping more than this IoU are merged into the best.',
        minimum=0.0, maximum=1.0, dynamic=True)
    max_detections: int = setting(
        300, 'Most detections per frame.', minimum=1, maximum=1000, dynamic=True)
    threads: int = setting(
        0, 'CPU threads of the detector; 0 takes half of the cores, at most 4.', minimum=0,
        maximum=256)


def build_detector(config: DetectorConfig) -> Detector | None:
    """
    Build the detector that a configuration names; ``None`` for ``none``.

    Raises
    ------
    ValueError
        If the name is unknown.
    FileNotFoundError
        If its file is not there.

    """
    if config.name == 'none':
        return None
    if config.name not in CATALOG:
        raise ValueError(f'unknown detector {config.name!r}; known ones are none, '
                         + ', '.join(sorted(CATALOG)))
    module, function = CATALOG[config.name]
    detector: Detector = getattr(import_module(module), function)(config)
    return detector
