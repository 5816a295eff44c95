"""
Detic: finds classes by name, each being a vector of CLIP's text encoder.

The weights are the authors' ``detic_masa.pth``, which holds the detector beside the tracking
adapter. With the model ``masa_detic`` one pass of the image backbone serves both. The vectors of
the 1203 classes of LVIS are in the file; those of others come from a file or from CLIP.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
import threading
from typing import Any

from masa_ros.detectors import DetectorConfig
from masa_ros.detectors.clip_text import ClipText
from masa_ros.detectors.clip_text import HOW_TO_GET as HOW_TO_GET_CLIP
from masa_ros.detectors.detic_network import DeticHeads, heads_from_entries, VECTOR_WIDTH
from masa_ros.detectors.on_backbone import (
    Backbone,
    DetectorOnBackbone,
    find_weights,
    swin_from_entries,
)
from masa_ros.detectors.prompts import read_names, unique_names, wanted_names
from masa_ros.detectors.selection import class_key, Vocabulary
from masa_ros.models.checkpoint import read_entries
from masa_ros.models.masa import resolve_device
from masa_ros.models.preprocess import Prepared
from masa_ros.models.variants import find_variant, InputRule
from masa_ros.structures.boxes import box_areas, clip_boxes, nms
from masa_ros.structures.instances import Instances
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

HOW_TO_GET = ('get the weights on a machine with a network: masa_ros weights fetch masa_detic '
              '(detector and tracking adapter in one file)')


def build(config: DetectorConfig, model: Any = None) -> Detic:
    """
    Load the detector that a configuration names.

    Parameters
    ----------
    config : DetectorConfig
        ``checkpoint`` is a MASA file; empty takes the model's.
    model : Model, optional
        A ``masa_detic`` shares its image backbone where the weights are its own.

    Raises
    ------
    ValueError
        If a file does not fit, or a class has no vector.
    FileNotFoundError
        If a file is not there; the message says how to get it.

    """
    path, shared = find_weights('detic', 'masa_detic', config.checkpoint, model, HOW_TO_GET)
    entries = read_entries(path)
    heads = heads_from_entries(entries, str(path))
    device = resolve_device(shared.device if shared is not None else config.device)
    backbone = swin_from_entries(entries, device) if shared is None else None
    clip = ClipText(config.text_model, VECTOR_WIDTH) if config.text_model else None
    known = _known(config, heads)
    return Detic(heads.to(device), known, config, device, clip=clip, backbone=backbone,
                 shared=shared)


@dataclass(frozen=True, eq=False)
class KnownClasses:
    """
    Classes whose vectors are at hand.

    Parameters
    ----------
    names : tuple of str
        As many as vectors, or none.
    vectors : Tensor
        ``(K, 512)`` of length 1.

    """

    names: tuple[str, ...]
    vectors: Tensor


@dataclass(frozen=True, eq=False)
class _Task:
    """What is looked for: names (empty ones for bare numbers), class numbers, vectors."""

    names: tuple[str, ...]
    numbers: tuple[int, ...]
    vectors: Tensor


class Detic(DetectorOnBackbone):
    """
    Detic behind the `masa_ros.detectors.detector.Detector` protocol.

    Each box is of its best class. Suppression is across classes, as in the authors' setting.

    Parameters
    ----------
    heads : DeticHeads
        On the device.
    known : KnownClasses
        Classes with a vector.
    config : DetectorConfig
        What is looked for, thresholds, limits.
    device : torch.device
        Where it runs.
    clip : callable, optional
        Makes vectors of further names.
    backbone : callable, optional
        Image features, where no model shares its own.
    shared : MasaModel, optional
        Model whose features are used.
    input_rule : InputRule, optional
        Scaling and padding of images for an own backbone.

    """

    def __init__(
        self, heads: DeticHeads, known: KnownClasses, config: DetectorConfig,
        device: torch.device, *, clip: ClipText | None = None, backbone: Backbone | None = None,
        shared: Any = None, input_rule: InputRule | None = None,
    ) -> None:
        super().__init__('detic', device, input_rule or find_variant('detic').input_rule,
                         backbone, shared)
        self._heads: Any = heads
        self._known = known
        self._clip = clip
        self._vocabulary = Vocabulary(known.names)
        self._made: dict[str, Tensor] = {}
        self._lock = threading.Lock()
        self.reconfigure(config)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Classes that are looked for; empty where they have numbers only."""
        return tuple(name for name in self._wanted.names if name)

    def set_classes(self, names: Sequence[str]) -> None:
        """See `masa_ros.detectors.detector.Detector.set_classes`."""
        wanted = unique_names(names)
        if not wanted:
            known = self._known
            self._wanted = _Task(
                known.names or ('',) * len(known.vectors), tuple(range(len(known.vectors))),
                known.vectors)
            return
        with self._lock:
            vectors = self._vectors(wanted)
            numbers = tuple(self._vocabulary.number(name, row)
                            for row, name in enumerate(wanted))
        self._wanted = _Task(wanted, numbers, vectors)

    def reconfigure(self, config: DetectorConfig) -> None:
        """
        Take over classes, thresholds and limits.

        Raises
        ------
        ValueError
            If a class has no vector.

        """
        self.set_classes(wanted_names(config.classes, config.text))
        self._config = config

    def close(self) -> None:
        """Free memory."""
        super().close()
        self._heads = self._clip = None

    def _task(self) -> tuple[_Task, DetectorConfig]:
        """Return what this call looks for, also if it is changed meanwhile."""
        return self._wanted, self._config

    def _find(
        self, task: tuple[_Task, DetectorConfig], levels: Sequence[Tensor],
        prepared: Sequence[Prepared], sizes: Sequence[tuple[int, ...]],
    ) -> list[Instances]:
        """Run the heads over images of one padded size."""
        wanted, config = task
        found = self._heads([level.float() for level in levels],
                            [image.size for image in prepared],
                            wanted.vectors.to(self._device))
        return [self._instances(wanted, config, boxes, scores, image, size)
                for (boxes, scores), image, size in zip(found, prepared, sizes, strict=True)]

    @staticmethod
    def _instances(
        wanted: _Task, config: DetectorConfig, boxes: Tensor, scores: Tensor, image: Prepared,
        size: tuple[int, ...],
    ) -> Instances:
        """Keep the good boxes, each object once."""
        best, classes = (part.cpu().numpy() for part in scores.max(dim=1))
        placed = clip_boxes(image.to_image(boxes), size[0], size[1])
        good = np.flatnonzero((best >= config.score_threshold) & (box_areas(placed) > 0))
        kept = nms(placed[good], best[good], config.nms_threshold)
        rows = good[kept[:config.max_detections]]
        return Instances.from_boxes(
            placed[rows], np.clip(best[rows], 0, 1),
            [wanted.numbers[row] for row in classes[rows]],
            [wanted.names[row] for row in classes[rows]])

    def _vectors(self, names: Sequence[str]) -> Tensor:
        """
        Vectors of names: known ones, remembered ones, or new ones by CLIP.

        Raises
        ------
        ValueError
            If a name has none and there is no CLIP.

        """
        known = {class_key(name): row for row, name in enumerate(self._known.names) if name}
        new = [name for name in names
               if class_key(name) not in known and class_key(name) not in self._made]
        if new and self._clip is None:
            raise ValueError(
                f'the detector detic has no vector for {", ".join(map(repr, new[:6]))}: '
                + ('these are not in detector.class_file' if self._known.names else
                   'detector.class_file is empty, so the classes of its weights have no names')
                + f', and detector.text_model names no CLIP; {HOW_TO_GET_CLIP}')
        if new and self._clip is not None:
            self._made.update(zip(map(class_key, new), self._clip(new), strict=True))
        return torch.stack([
            self._known.vectors[known[class_key(name)]] if class_key(name) in known
            else self._made[class_key(name)] for name in names])


def _known(config: DetectorConfig, heads: DeticHeads) -> KnownClasses:
    """
    Read classes with a vector: from ``class_vectors``, else those stored with the weights.

    Raises
    ------
    FileNotFoundError
        If a file is not there.
    ValueError
        If vectors and names do not fit.

    """
    if not config.class_vectors:
        stored = heads.stored_vectors.contiguous()
        return KnownClasses(read_names(config.class_file, len(stored)), stored)
    path = Path(config.class_vectors).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f'no class vectors at {path}; correct detector.class_vectors')
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f'{path} is no NumPy file of numbers ({error})') from error
    if (not isinstance(values, np.ndarray) or values.ndim != 2
            or values.shape[1] != VECTOR_WIDTH or not len(values)):
        came = values.shape if isinstance(values, np.ndarray) else type(values).__name__
        raise ValueError(f'{path} holds {came}, expected (classes, {VECTOR_WIDTH}): one CLIP text '
                         'vector for each class')
    vectors = torch.from_numpy(values.astype(np.float32))
    if not bool(torch.isfinite(vectors).all()) or not bool(vectors.norm(dim=1).gt(0).all()):
        raise ValueError(f'{path} holds vectors that are zero or not finite')
    return KnownClasses(
        read_names(config.class_file, len(values)), functional.normalize(vectors, dim=1))
