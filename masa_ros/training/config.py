"""Settings of a training run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from masa_ros.models.tiny.network import TinyConfig
from masa_ros.structures.settings import from_mapping, group, setting
from masa_ros.training.dataset import PairConfig
from masa_ros.training.views import ViewConfig
import yaml


@dataclass(frozen=True)
class DataConfig:
    """What is learned from."""

    corpus: str = setting('', 'Folder of the training corpus.')
    validation: str = setting('', 'Folder of the validation corpus; empty skips validation.')
    sources: tuple[str, ...] = setting(
        (), 'Photos to draw, as source=weight, such as bsds500=1; empty takes all sources alike.')
    cutouts: tuple[str, ...] = setting(
        (), 'Objects to cut out and paste, as source=weight; empty takes all sources alike.')
    cached_pairs: int = setting(
        0, 'For a MASA variant whose track head learns alone: so many pairs are drawn once and '
        'their features kept; 0 draws and encodes anew each step.', minimum=0, maximum=1000000)
    workers: int = setting(
        1, 'Processes that draw views; 0 draws in the training process.', minimum=0, maximum=64)


@dataclass(frozen=True)
class LossConfig:
    """What is asked of the network."""

    contrast: str = setting(
        'paper', 'Contrastive loss: paper (cosine over 0.07) or reference (as the official code '
        'has it).', choices=('paper', 'reference'))
    contrast_weight: float = setting(1.0, 'Weight of it.', minimum=0.0, maximum=100.0)
    margin_weight: float = setting(
        1.0, 'Weight of the cosine margin loss.', minimum=0.0, maximum=100.0)
    track_samples: str = setting(
        'boxes', 'What the track head learns from: the boxes of the instances, or proposals '
        'assigned to them (tiny: besides the boxes), as the official code does.',
        choices=('boxes', 'proposals'))
    across_images: bool = setting(
        True, 'Whether instances of other photos of the batch are negatives too.')
    detection_weight: float = setting(
        0.5, 'Weight of objectness and boxes; 0 leaves proposals alone.', minimum=0.0,
        maximum=100.0)
    background_weight: float = setting(
        0.25, 'Weight of unlabelled places on photos that are not labelled exhaustively.',
        minimum=0.0, maximum=1.0)
    mask_weight: float = setting(2.0, 'Weight of the mask losses.', minimum=0.0, maximum=100.0)


@dataclass(frozen=True)
class OptimConfig:
    """How the weights move."""

    optimizer: str = setting('adamw', 'Optimizer.', choices=('adamw', 'sgd'))
    learning_rate: float = setting(1e-3, 'Rate of new layers.', minimum=0.0, maximum=10.0)
    rate_batch: int = setting(
        0, 'Batch that learning_rate is meant for; the rate grows and shrinks with the batch in '
        'proportion. 0 takes it as it is.', minimum=0)
    pretrained_factor: float = setting(
        0.1, 'Rate of layers that started from a detector, relative to new ones.', minimum=0.0,
        maximum=1.0)
    frozen: tuple[str, ...] = setting(
        ('backbone.',), 'Prefixes of parameters that stay as they are.')
    weight_decay: float = setting(0.01, 'Weight decay.', minimum=0.0, maximum=1.0)
    momentum: float = setting(0.9, 'Momentum of sgd.', minimum=0.0, maximum=1.0)
    clip_norm: float = setting(5.0, 'Gradients are clipped to this norm.', minimum=0.0,
                               maximum=1e6)
    warmup_steps: int = setting(200, 'Steps of linear warm-up.', minimum=0, maximum=1000000)
    schedule: str = setting(
        'linear', 'linear: constant, then straight to zero over decay_part; step: a tenth after '
        '8/12 and again after 11/12 of all steps.', choices=('linear', 'step'))
    decay_part: float = setting(
        0.3, 'Last part of the steps over which the linear schedule falls.', minimum=0.0,
        maximum=1.0)
    ema: float = setting(
        0.998, 'Decay of the moving average of weights that is kept and shipped.', minimum=0.0,
        maximum=0.99999)


@dataclass(frozen=True)
class TrainConfig:
    """Everything a run depends on; saved in its checkpoints."""

    run: str = setting('runs/tiny', 'Folder of checkpoints, logs and reports.')
    model: str = setting(
        'tiny', 'What is trained.', choices=(
            'tiny', 'masa_r50', 'masa_sam_vit_b', 'masa_sam_vit_l', 'masa_sam_vit_h',
            'masa_gdino', 'masa_detic'))
    initial_weights: str = setting(
        '', 'Where to start: a checkpoint of this trainer, for tiny also yolox_nano.onnx, for a '
        'MASA variant also a file of the authors; empty for random weights.')
    backbone_weights: str = setting(
        '', 'Frozen encoder of a MASA variant: the SAM file, or a MASA file whose encoder is '
        'taken; empty looks into initial_weights, then into the weights folder.')
    seed: int = setting(0, 'Seed of everything random.', minimum=0)
    steps: int = setting(20000, 'Optimizer steps.', minimum=1)
    batch: int = setting(
        8, 'Photos, that is pairs of views, of one step over all processes.', minimum=1)
    precision: str = setting(
        'bfloat16', 'Arithmetic of the forward pass.', choices=('float32', 'bfloat16'))
    checkpoint_s: float = setting(
        120.0, 'Seconds between checkpoints.', minimum=0.0, maximum=86400.0)
    validate_every: int = setting(
        1000, 'Steps between validations; 0 validates at the end only.', minimum=0)
    mixup_off_part: float = setting(
        0.17, 'Last part of the steps without blended photos.', minimum=0.0, maximum=1.0)
    network: TinyConfig = group(TinyConfig)
    data: DataConfig = group(DataConfig)
    views: ViewConfig = group(ViewConfig)
    pairs: PairConfig = group(PairConfig)
    loss: LossConfig = group(LossConfig)
    optim: OptimConfig = group(OptimConfig)


MASA_DEFAULTS: dict[str, Any] = {
    'views.size': 1024, 'views.large_scale': True, 'views.mixup': 1.0, 'views.paste_max': 0,
    'views.photometric': 0.0, 'pairs.max_instances': 256, 'pairs.max_masks': 0,
    'pairs.track_jitter': 0.0, 'loss.margin_weight': 0.0, 'loss.detection_weight': 1.0,
    'loss.across_images': False, 'optim.optimizer': 'sgd', 'optim.learning_rate': 0.04,
    'optim.rate_batch': 128, 'optim.weight_decay': 1e-4, 'optim.clip_norm': 35.0,
    'optim.schedule': 'step', 'optim.ema': 0.0,
}
"""What a MASA variant is trained with where no recipe says otherwise: the paper's settings."""


def load_config(path: str | Path, overrides: Mapping[str, Any] | None = None) -> TrainConfig:
    """
    Read a YAML file and settings given by dotted names over it.

    Raises
    ------
    FileNotFoundError
        If the file is missing.
    ValueError
        On an unknown setting or a value out of its limits.

    """
    values = yaml.safe_load(Path(path).read_text()) or {}
    config = from_mapping(TrainConfig, values, str(path))
    if overrides:
        merged = {**_dotted(values), **overrides}
        config = from_mapping(TrainConfig, merged, f'{path} and the command line')
    return config


def source_weights(entries: tuple[str, ...], present: list[str]) -> dict[str, float]:
    """
    Read ``source=weight`` entries; without any, every source that is present counts alike.

    Raises
    ------
    ValueError
        If an entry has another form.

    """
    if not entries:
        return {name: float(present.count(name)) for name in sorted(set(present))}
    weights = {}
    for entry in entries:
        name, sign, number = entry.partition('=')
        try:
            weights[name] = float(number)
        except ValueError:
            weights[name] = -1.0
        if not sign or weights[name] < 0:
            raise ValueError(f'{entry!r} is not source=weight, such as bsds500=1.5')
    return weights


def _dotted(values: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
    """Flatten nested mappings to dotted names."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(_dotted(value, f'{prefix}{key}.'))
        else:
            flat[f'{prefix}{key}'] = value
    return flat
