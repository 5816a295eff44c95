"""Detectors that the models bring along: their own proposals, and SAM's everything mode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from masa_ros.detectors import DetectorConfig
from masa_ros.detectors.prompts import wanted_names
from masa_ros.structures.instances import Flag, Instances
import numpy as np
from numpy.typing import NDArray


def build_proposals(config: DetectorConfig, model: Any = None) -> None:
    """
    Leave the finding of objects to the model.

    Raises
    ------
    ValueError
        If there is a model that cannot find objects, or classes are to be found.

    """
    _refuse_classes(config, 'proposals')
    if model is not None and not model.can_propose:
        raise ValueError(f'detector.name is proposals, but the model {model.name} finds no '
                         'objects by itself; choose tiny, a sam or a masa model, or another '
                         'detector')


def build_grid(config: DetectorConfig, model: Any = None) -> GridDetector | None:
    """
    Find everything by SAM's grid of points.

    Returns
    -------
    GridDetector or None
        ``None`` where the model is a plain SAM, whose own proposals are just that.

    Raises
    ------
    ValueError
        If there is no SAM, neither in the model nor named by ``detector.architecture``, or
        classes are to be found.
    FileNotFoundError
        If its weights are not there.

    """
    from masa_ros.models import build_model, CATALOG, ModelConfig
    _refuse_classes(config, 'grid')
    plain = [name for name in CATALOG if name.startswith('sam_') or name == 'mobile_sam']
    if not config.architecture:
        if model is not None and model.name in plain:
            return None
        if model is not None and _has_sam(model):
            return GridDetector(model.name, config, shared=model)
        raise ValueError('detector.name is grid, which needs SAM, but the tracking model is '
                         f'{model.name if model is not None else "none"}; set '
                         f'detector.architecture to one of {", ".join(plain)}')
    if config.architecture not in plain:
        raise ValueError(f'detector.architecture is {config.architecture!r}, expected for the '
                         f'detector grid one of {", ".join(plain)}')
    own = build_model(ModelConfig(
        name=config.architecture, checkpoint=config.checkpoint, device=config.device,
        max_masks=0, proposal_score=config.score_threshold, max_proposals=config.max_detections))
    return GridDetector(config.architecture, config, own=own)


def _refuse_classes(config: DetectorConfig, detector: str) -> None:
    """
    Refuse class names.

    Raises
    ------
    ValueError
        If there are any.

    """
    if wanted_names(config.classes, config.text):
        raise ValueError(f'the detector {detector} finds everything and knows no classes; use '
                         'grounding_dino or detic to find what you name')


def _has_sam(model: Any) -> bool:
    """Whether a MASA model carries SAM's prompt encoder and mask decoder."""
    network = getattr(model, 'network', None)
    return bool(network is not None and network.variant.has_sam)


class GridDetector:
    """
    SAM's everything mode, on the features of a MASA model or with a SAM of its own.

    Parameters
    ----------
    name : str
        Model that does it.
    config : DetectorConfig
        Limits; see `reconfigure`.
    shared : MasaModel, optional
        Model with SAM inside, whose encoder's pass is used.
    own : SamModel, optional
        A separate SAM.

    """

    open_vocabulary = False
    class_names: tuple[str, ...] = ()

    def __init__(
        self, name: str, config: DetectorConfig, *, shared: Any = None, own: Any = None,
    ) -> None:
        self.name = f'grid ({name})'
        self.shares_features = shared is not None
        self._shared = shared
        self._own = own
        self._sam: Any = _sam_of(shared) if shared is not None else None
        self.reconfigure(config)

    def warm_up(self) -> None:
        """Leave it out: one image takes as long as in real use, which is seconds."""

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[Instances]:
        """See `masa_ros.detectors.detector.Detector.detect`."""
        if self._shared is not None:
            return self.detect_encoded(self._shared.encode(images), range(len(images)))
        return [self._limited(found) for found in self._own.run(images, [None] * len(images))]

    def detect_encoded(self, encoded: Any, rows: Sequence[int]) -> list[Instances]:
        """See `masa_ros.detectors.detector.SharingDetector.detect_encoded`."""
        from masa_ros.models.sam.grid import propose
        from masa_ros.models.sam.preprocess import Geometry
        found: dict[int, Instances] = {}
        for batch in encoded:
            for index, row in enumerate(batch.rows):
                if row in rows:
                    prepared = batch.prepared[index]
                    size = batch.image_sizes[index]
                    geometry = Geometry(size, prepared.size, prepared.pixels.shape[1])
                    found[row] = self._limited(propose(
                        self._sam, batch.encoded.image_embedding[index],
                        np.zeros((*size, 3), np.uint8), geometry))
        return [found[row] for row in rows]

    def set_classes(self, names: Sequence[str]) -> None:
        """
        Refuse class names; see `masa_ros.detectors.detector.Detector.set_classes`.

        Raises
        ------
        ValueError
            If there are any.

        """
        _refuse_classes(DetectorConfig(classes=tuple(names)), 'grid')

    def reconfigure(self, config: DetectorConfig) -> None:
        """Take over the lowest score and the most boxes; classes are refused."""
        _refuse_classes(config, 'grid')
        self._config = config

    def close(self) -> None:
        """Free the memory of an own SAM."""
        self._sam = None
        if self._own is not None:
            self._own.close()

    def _limited(self, found: Instances) -> Instances:
        """Keep the best ones, with the grid's masks where it made some."""
        good = np.flatnonzero(found.scores >= self._config.score_threshold)
        good = good[:self._config.max_detections]
        return Instances.from_boxes(
            found.boxes[good], found.scores[good], flag=Flag.FROM_PROPOSAL).with_fields(
                masks=tuple(found.masks[row] for row in good),
                mask_qualities=found.mask_qualities[good])


def _sam_of(model: Any) -> Any:
    """SAM put together from the parts of a MASA model, for the everything mode."""
    from masa_ros.models.sam.grid import assembled
    return assembled(model.network.detector, model.device)
