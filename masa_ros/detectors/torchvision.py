"""
Any detection model of torchvision, by name: Faster R-CNN, RetinaNet, FCOS, SSD, Mask R-CNN.

The weights come from a file with a state dict, such as the published ones that
``masa_ros.detectors.torchvision.weights_url`` names; nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Sequence
import logging
from pathlib import Path
from typing import Any

from masa_ros.detectors import DetectorConfig, import_library
from masa_ros.detectors.prompts import choose_classes, read_names, wanted_names
from masa_ros.structures.boxes import box_areas, clip_boxes, nms
from masa_ros.structures.instances import Instances
import numpy as np
from numpy.typing import NDArray

_LOG = logging.getLogger(__name__)

SEEDED = 'seeded'
"""Value of ``detector.checkpoint`` for random weights from a fixed seed: for tests and timing."""
_BACKGROUND = '__background__'


def build(config: DetectorConfig, model: Any = None) -> TorchvisionDetector:
    """
    Build the torchvision model that a configuration names.

    Raises
    ------
    ValueError
        If torchvision is missing, the architecture is unknown, or the weights do not fit.
    FileNotFoundError
        If the weights or the class file are not there.

    """
    return TorchvisionDetector(config)


def architectures() -> list[str]:
    """Names of torchvision's detection models."""
    models = import_library('torchvision', 'torchvision', 'torchvision', 'models')
    return sorted(models.list_models(module=models.detection))


def weights_url(architecture: str) -> str:
    """Where torchvision publishes the weights of a detection model; empty where nowhere."""
    models = import_library('torchvision', 'torchvision', 'torchvision', 'models')
    published = list(models.get_model_weights(architecture))
    return str(published[0].url) if published else ''


class TorchvisionDetector:
    """
    One of torchvision's detection models.

    Parameters
    ----------
    config : DetectorConfig
        Names the architecture and the weights; see `build` for what is refused.

    """

    open_vocabulary = False

    def __init__(self, config: DetectorConfig) -> None:
        self._check_architecture(config.architecture)
        from masa_ros.models.masa import resolve_device
        self._device = resolve_device(config.device)
        entries = _read(config)
        self._network: Any = _network(config, entries)
        self._network.to(self._device).eval()
        classes = _number_of_classes(self._network)
        self._names = (read_names(config.class_file, None) if config.class_file
                       else _published_names(config.architecture, classes))
        self._check_names(config, classes)
        self.name = f'torchvision {config.architecture}'
        self._config = config
        self._keep = np.ones(classes, bool)
        self.reconfigure(config)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Classes that are looked for; empty where they have numbers only."""
        return tuple(name for name, keep in zip(self._names, self._keep, strict=False)
                     if keep and name)

    def warm_up(self) -> None:
        """Run once on a dummy image."""
        self.detect([np.zeros((480, 640, 3), np.uint8)])

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[Instances]:
        """See `masa_ros.detectors.detector.Detector.detect`."""
        import torch
        keep, config = self._keep, self._config
        results = []
        for image in images:
            pixels = torch.from_numpy(np.ascontiguousarray(image)).to(self._device)
            with torch.inference_mode():
                found = self._network([pixels.permute(2, 0, 1).float() / 255])[0]
            results.append(self._instances(
                image.shape, config, keep, found['boxes'].cpu().numpy(),
                found['scores'].cpu().numpy(), found['labels'].cpu().numpy()))
        return results

    def set_classes(self, names: Sequence[str]) -> None:
        """See `masa_ros.detectors.detector.Detector.set_classes`."""
        keep = choose_classes(names, self._names, 'torchvision')
        if self._names:
            self._keep = np.array(keep, bool)

    def reconfigure(self, config: DetectorConfig) -> None:
        """
        Take over thresholds, limits and the classes to keep.

        Raises
        ------
        ValueError
            If a class to keep is not known.

        """
        self.set_classes(wanted_names(config.classes, config.text))
        self._config = config
        # torchvision drops boxes itself; what it keeps must not be less than what is wanted.
        parts: list[Any] = [self._network, getattr(self._network, 'roi_heads', None)]
        for part in parts:
            if hasattr(part, 'score_thresh'):
                part.score_thresh = config.score_threshold
            if hasattr(part, 'nms_thresh'):
                part.nms_thresh = config.nms_threshold
            if hasattr(part, 'detections_per_img'):
                part.detections_per_img = config.max_detections

    def close(self) -> None:
        """Free memory."""
        self._network = None

    @staticmethod
    def _check_architecture(name: str) -> None:
        known = architectures()
        if name not in known:
            raise ValueError(f'detector.architecture is {name!r}, expected one of torchvision: '
                             + ', '.join(known))

    def _check_names(self, config: DetectorConfig, classes: int) -> None:
        if self._names and len(self._names) == classes - 1:
            # Files usually leave the background out, which is class 0.
            self._names = ('', *self._names)
        if self._names and len(self._names) != classes:
            raise ValueError(
                f'class file {config.class_file} has {len(self._names)} names, but the weights '
                f'have {classes} classes, background (the first) included; each class needs one '
                'line, in output order, with or without the background')

    def _instances(
        self, shape: Sequence[int], config: DetectorConfig, keep: NDArray[np.bool_],
        boxes: NDArray[np.float32], scores: NDArray[np.float32], classes: NDArray[np.int64],
    ) -> Instances:
        boxes = clip_boxes(boxes, shape[0], shape[1])
        inside = (classes >= 0) & (classes < len(keep))
        good = np.flatnonzero(
            (scores >= config.score_threshold) & inside & (box_areas(boxes) > 0))
        good = good[keep[classes[good]]]
        # Not every architecture has a suppression of its own that can be set.
        kept = nms(boxes[good], scores[good], config.nms_threshold, classes[good])
        good = good[kept[:config.max_detections]]
        labels = [self._names[row] for row in classes[good]] if self._names else None
        return Instances.from_boxes(
            boxes[good], np.clip(scores[good], 0, 1), classes[good], labels)


def _read(config: DetectorConfig) -> dict[str, Any] | None:
    """Entries of the weights file; ``None`` for random weights."""
    from masa_ros.models.checkpoint import read_entries
    if config.checkpoint == SEEDED:
        _LOG.warning('the detector torchvision runs with random weights, as detector.checkpoint '
                     'is %s: its boxes mean nothing', SEEDED)
        return None
    path = Path(config.checkpoint).expanduser()
    if not config.checkpoint or not path.is_file():
        where = weights_url(config.architecture)
        raise FileNotFoundError(
            (f'no detector weights at {path}' if config.checkpoint
             else 'detector.checkpoint is empty')
            + f'; set it to a state dict of {config.architecture}'
            + (f', such as {where}, downloaded on a machine with a network' if where else '')
            + f', or to {SEEDED} for random weights')
    return read_entries(path)


def _network(config: DetectorConfig, entries: dict[str, Any] | None) -> Any:
    """Architecture with the weights of a file, or with seeded ones."""
    import torch
    from torchvision import models
    arguments: dict[str, Any] = {'weights': None, 'weights_backbone': None}
    if entries is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return models.get_model(config.architecture, **arguments)
    fitting = _fitting_classes(config.architecture, entries)
    network = models.get_model(config.architecture, num_classes=fitting, **arguments)
    try:
        network.load_state_dict(entries)
    except RuntimeError as error:
        problem = ' '.join(str(error).split())[:400]
        raise ValueError(f'{config.checkpoint} does not fit {config.architecture}: {problem}. '
                         'Correct detector.checkpoint or detector.architecture') from error
    return network


def _fitting_classes(architecture: str, entries: dict[str, Any]) -> int:
    """
    Count the classes of a weights file, background included.

    The layers that give class scores are those whose shape changes with the number of classes.
    """
    import torch
    from torchvision import models

    def shapes(classes: int) -> dict[str, tuple[int, ...]]:
        with torch.device('meta'):
            network = models.get_model(
                architecture, weights=None, weights_backbone=None, num_classes=classes)
        return {name: tuple(value.shape) for name, value in network.state_dict().items()}

    few, more = shapes(2), shapes(3)
    for name, shape in few.items():
        if shape != more[name] and name in entries and entries[name].ndim == len(shape):
            per_class = more[name][0] - shape[0]
            rest = shape[0] - 2 * per_class
            if per_class > 0:
                return max(1, (int(entries[name].shape[0]) - rest) // per_class)
    return 91


def _number_of_classes(network: Any) -> int:
    """Count the classes of a network, background included."""
    heads = getattr(network, 'roi_heads', None)
    if heads is not None:
        return int(heads.box_predictor.cls_score.out_features)
    head = network.head.classification_head
    if hasattr(head, 'num_classes'):
        return int(head.num_classes)
    return int(head.num_columns)


def _published_names(architecture: str, classes: int) -> tuple[str, ...]:
    """Names that torchvision publishes with its weights, where the number of classes fits."""
    from torchvision import models
    for weights in models.get_model_weights(architecture):
        names = tuple('' if name in (_BACKGROUND, 'N/A') else name
                      for name in weights.meta.get('categories', ()))
        if len(names) == classes:
            return names
    return ()
