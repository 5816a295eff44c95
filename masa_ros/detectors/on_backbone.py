"""
What the detectors inside MASA files have in common: heads on the features of a Swin backbone.

The features come from a backbone of the detector's own, or from the tracking model where that is
the same with the same weights; then one pass serves both.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from masa_ros.models import weights
from masa_ros.models.backbones.swin import relative_position_index, Swin
from masa_ros.models.preprocess import equal_sizes, prepare, Prepared
from masa_ros.models.variants import InputRule
from masa_ros.structures.instances import Instances
import numpy as np
from numpy.typing import NDArray
import torch
from torch import nn, Tensor

PREFIX = 'detector.'
"""What the names of a detector's entries in a MASA file begin with."""

Backbone = Callable[[Tensor], Sequence[Tensor]]


class DetectorOnBackbone(ABC):
    """
    A detector whose heads take three levels of a backbone.

    Parameters
    ----------
    name : str
        Name of the detector.
    device : torch.device
        Where it runs.
    input_rule : InputRule
        Scaling and padding of images for an own backbone.
    backbone : callable, optional
        Image features, where no model shares its own.
    shared : MasaModel, optional
        Model whose features are used.

    """

    open_vocabulary = True

    def __init__(
        self, name: str, device: torch.device, input_rule: InputRule,
        backbone: Backbone | None = None, shared: Any = None,
    ) -> None:
        self.name = name
        self.shares_features = shared is not None
        self._device = device
        self._input_rule = input_rule
        self._backbone: Any = backbone
        self._shared = shared

    def warm_up(self) -> None:
        """Run once on a dummy image."""
        self.detect([np.zeros((480, 640, 3), np.uint8)])

    @torch.inference_mode()
    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[Instances]:
        """See `masa_ros.detectors.detector.Detector.detect`."""
        if self._shared is not None:
            return self.detect_encoded(self._shared.encode(images), range(len(images)))
        task = self._task()
        prepared = [prepare(image, self._input_rule, self._device) for image in images]
        results: dict[int, Instances] = {}
        for rows in equal_sizes(prepared):
            chosen = [prepared[row] for row in rows]
            levels = self._backbone(torch.stack([image.pixels for image in chosen]))
            sizes = [images[row].shape[:2] for row in rows]
            results.update(zip(rows, self._find(task, levels, chosen, sizes), strict=True))
        return [results[row] for row in range(len(images))]

    @torch.inference_mode()
    def detect_encoded(self, encoded: Any, rows: Sequence[int]) -> list[Instances]:
        """See `masa_ros.detectors.detector.SharingDetector.detect_encoded`."""
        task = self._task()
        results: dict[int, Instances] = {}
        for batch in encoded:
            chosen = [index for index, row in enumerate(batch.rows) if row in rows]
            if chosen:
                found = self._find(
                    task, [level[chosen] for level in batch.encoded.backbone],
                    [batch.prepared[index] for index in chosen],
                    [batch.image_sizes[index] for index in chosen])
                results.update((batch.rows[index], instances)
                               for index, instances in zip(chosen, found, strict=True))
        return [results[row] for row in rows]

    def close(self) -> None:
        """Free memory."""
        self._backbone = self._shared = None

    @abstractmethod
    def _task(self) -> Any:
        """Return what this call looks for, also if it is changed meanwhile."""

    @abstractmethod
    def _find(
        self, task: Any, levels: Sequence[Tensor], prepared: Sequence[Prepared],
        sizes: Sequence[tuple[int, ...]],
    ) -> list[Instances]:
        """Detect in images of one padded size, from their features."""


def find_weights(
    detector: str, variant: str, checkpoint: str, model: Any, how_to_get: str,
) -> tuple[Path, Any]:
    """
    Find the weights of a detector, and whether the model's features are those of these weights.

    Parameters
    ----------
    detector : str
        Name for messages.
    variant : str
        Model whose file holds the detector, such as ``masa_detic``.
    checkpoint : str
        File or folder that the user named; empty takes the model's file, or else the published
        one in the weights folder.
    model : Model or None
        Model of the pipeline.
    how_to_get : str
        What to do where there are no weights.

    Returns
    -------
    path : Path
        File or folder of the weights.
    shared : Model or None
        The model, where its features serve the detector too.

    Raises
    ------
    FileNotFoundError
        If there are no weights.

    """
    own = getattr(model, 'file', None) if getattr(model, 'name', '') == variant else None
    published = weights.folder() / weights.entry_of(variant).file
    path = Path(checkpoint).expanduser() if checkpoint else own or published
    if not path.exists():
        raise FileNotFoundError(
            f'no weights of the detector {detector} at {path}; '
            + ('correct detector.checkpoint' if checkpoint else
               f'detector.checkpoint is empty and the model is not {variant}')
            + f'; {how_to_get}')
    return path, model if own is not None and path.resolve() == own.resolve() else None


def swin_from_entries(entries: Mapping[str, Tensor], device: torch.device) -> nn.Module:
    """Build the image backbone from the entries of a MASA file; sizes are read from the shapes."""
    start = PREFIX + 'backbone.'
    state = {name.removeprefix(start): value.float() for name, value in entries.items()
             if name.startswith(start) and not name.endswith('relative_position_index')}
    tables = {tuple(int(part) for part in name.split('.')[1:4:2]): value
              for name, value in state.items() if name.endswith('relative_position_bias_table')}
    depths = [sum(stage == index for stage, _ in tables) for index in range(4)]
    heads = [tables[(index, 0)].shape[1] for index in range(4)]
    window = (round(tables[(0, 0)].shape[0] ** 0.5) + 1) // 2
    width = state['patch_embed.projection.weight'].shape[0]
    swin = Swin(width, depths, heads, window)
    for name in swin.state_dict():
        if name.endswith('relative_position_index'):
            state[name] = relative_position_index(window)
    swin.load_state_dict(state)
    return swin.to(device).eval().requires_grad_(False)
