"""
Adaptation of the MASA variants: the features before the track head never change.

So they are computed once, for the pairs that teach and for those that judge, and the rest costs
the track head alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from masa_ros.models.preprocess import prepare
from masa_ros.models.variants import find_variant
from masa_ros.structures.settings import from_mapping
from masa_ros.training.cache import cache_features
from masa_ros.training.config import TrainConfig
from masa_ros.training.corpus import Corpus, LabelledImage
from masa_ros.training.dataset import Batch, collate, PairConfig, PairDataset
from masa_ros.training.masa import export, learned_entries, load_student, MasaStudent
from masa_ros.training.validation import mean_of, retrieved
from masa_ros.training.views import ViewConfig
import numpy as np
from numpy.typing import NDArray
import torch
from torch import nn, Tensor

VIEW_PX = 1024
"""Side of a view; the encoders were made for pictures of this size."""


class MasaLearner:
    """
    Judge and teacher of one variant on one recording.

    Parameters
    ----------
    model : str
        Name of the variant.
    adapter : str
        MASA file to start from.
    encoder : str
        SAM file where the MASA file leaves it out; else empty.
    place : Path
        Folder of the run.

    """

    long_side_px = VIEW_PX

    def __init__(self, model: str, adapter: str, encoder: str, place: Path) -> None:
        self.start = TrainConfig(
            model=model, initial_weights=adapter, backbone_weights=encoder, run=str(place))
        self.variant = find_variant(model)
        self.place = place
        self._student: MasaStudent | None = None
        self._views: list[tuple[Batch, Tensor]] = []
        self._frames: dict[str, Tensor] = {}

    def prepare(self, judges: Corpus, views: ViewConfig, seed: int, pairs: int) -> None:
        """Compute the features of everything that judges."""
        student = load_student(self.start)
        student.to(_device())
        student.encoder.to(_device())
        student.eval()
        share = dict.fromkeys(set(judges.sources()), 1.0)
        drawn = PairDataset(judges, share, share, replace(views, size=VIEW_PX),
                            PairConfig(max_masks=0), seed, pairs)
        kept = cache_features(drawn, student, self.place / 'judge', True)
        for index in range(kept.pairs_kept):
            batch = collate([kept[index]])
            assert batch.track_features is not None
            self._views.append((batch, batch.track_features))
        for number in range(len(judges)):
            item = judges[number]
            self._frames[item.name] = self._pooled(student, item)
        self._student = student

    def recipe(
        self, corpus: Corpus, views: ViewConfig, settings: Mapping[str, Any],
    ) -> TrainConfig:
        """Build the settings of the fine-tuning, in which only the track head moves."""
        config = from_mapping(TrainConfig, {
            'model': self.start.model, 'run': str(self.place), 'precision': 'float32',
            'initial_weights': self.start.initial_weights,
            'backbone_weights': self.start.backbone_weights, 'validate_every': 0,
            'data.corpus': str(corpus.folder), 'data.workers': 0,
            # The tracker compares raw dot products, so they are what has to get better.
            'loss.contrast': 'reference', 'loss.detection_weight': 0.0, 'loss.mask_weight': 0.0,
            'optim.frozen': ['backbone.', 'masa_adapter.', 'rpn_head.', 'roi_head.'],
            'optim.decay_part': 0.5, 'optim.ema': 0.98, 'pairs.max_masks': 0, **settings})
        return replace(config, views=replace(views, size=VIEW_PX))

    @torch.no_grad()
    def judge(
        self, checkpoint: Path | None,
    ) -> tuple[float, Callable[[LabelledImage], NDArray[np.float32]]]:
        """
        Score the track head of a checkpoint of the trainer, or the one at the start.

        Returns
        -------
        views : float
            Part of the objects that find themselves in a far-apart view.
        embed : callable
            Held-out frame to the embeddings of its boxes.

        """
        assert self._student is not None
        head: nn.Module = self._student.track_head
        if checkpoint is not None:
            entries = learned_entries(checkpoint)
            head.load_state_dict({name.removeprefix('track_head.'): value
                                  for name, value in entries.items()
                                  if name.startswith('track_head.')})
        device = _device()
        hits: list[Tensor] = []
        for batch, features in self._views:
            if len(features):
                hits += retrieved(head(features.float().to(device)).cpu(), batch, 1)

        def embed(item: LabelledImage) -> NDArray[np.float32]:
            pooled = self._frames[item.name].to(device).float()
            with torch.no_grad():
                return np.asarray(head(pooled).cpu().numpy(), np.float32)

        return mean_of(hits), embed

    def write(self, checkpoint: Path, path: Path) -> Path:
        """Write the adapted weights as a MASA file."""
        return export(self.start, learned_entries(checkpoint), path)

    def _pooled(self, student: MasaStudent, item: LabelledImage) -> Tensor:
        """Features of the boxes of a whole frame, as the model computes them."""
        image = prepare(item.image, self.variant.input_rule, _device())
        boxes = image.to_network(item.boxes)
        rois = torch.cat([boxes.new_zeros(len(boxes), 1), boxes], 1)
        with torch.no_grad():
            levels = student.levels(image.pixels[None].contiguous(
                memory_format=torch.channels_last))
            return student.pooled(levels, rois).half().cpu()


def _device() -> torch.device:
    return torch.device('cuda' if torch.cuda.is_available() else 'cpu')
