"""Segmentation and embedding models behind one protocol (see model.py)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from masa_ros.models import weights
from masa_ros.models.model import Model
from masa_ros.structures.settings import setting

# Name: (module, function). The function takes a ModelConfig and returns a Model. Modules are
# imported when asked for, so that naming a model costs nothing.
CATALOG: dict[str, tuple[str, str]] = {
    'classical': ('masa_ros.models.classical', 'build'),
    'tiny': ('masa_ros.models.tiny.model', 'build'),
    'sam_vit_b': ('masa_ros.models.sam.model', 'build'),
    'sam_vit_l': ('masa_ros.models.sam.model', 'build'),
    'sam_vit_h': ('masa_ros.models.sam.model', 'build'),
    'mobile_sam': ('masa_ros.models.sam.model', 'build'),
    'masa_r50': ('masa_ros.models.masa', 'build'),
    'masa_sam_vit_b': ('masa_ros.models.masa', 'build'),
    'masa_sam_vit_l': ('masa_ros.models.masa', 'build'),
    'masa_sam_vit_h': ('masa_ros.models.masa', 'build'),
    'masa_gdino': ('masa_ros.models.masa', 'build'),
    'masa_detic': ('masa_ros.models.masa', 'build'),
}


@dataclass(frozen=True)
class ModelConfig:
    """Which model runs, with which weights, where and how."""

    name: str = setting(
        'tiny', 'Model to run.', choices=tuple(CATALOG))
    checkpoint: str = setting(
        '', "Weights file: SAM's for the sam models, the MASA file for the masa models (or SAM's, "
        'for its encoder or the masks); empty takes the published one from the cache folder (see '
        'masa_ros weights).')
    adapter_checkpoint: str = setting(
        '', 'Weights file of the MASA adapter, for the MASA variants; empty takes the cache.')
    device: str = setting(
        'auto', 'Device: auto (a GPU where there is one), cpu, cuda or cuda:<index>.')
    precision: str = setting(
        'float32', 'Arithmetic of the network.', choices=('float32', 'bfloat16', 'float16'))
    compile: bool = setting(  # noqa: A003 - the word every torch user looks for
        False, 'Compile the network with torch.compile at start.')
    max_masks: int = setting(
        100, 'Most masks per frame; objects with the lowest scores go without (flagged).',
        minimum=0, maximum=1000, dynamic=True)
    proposal_score: float = setting(
        0.3, "Lowest score of the model's own proposals.", minimum=0.0, maximum=1.0,
        dynamic=True)
    max_proposals: int = setting(
        300, 'Most proposals per frame.', minimum=1, maximum=1000, dynamic=True)
    proposal_nms: float = setting(
        0.5, 'Proposals overlapping more than this IoU are merged into the best.', minimum=0.0,
        maximum=1.0, dynamic=True)
    mask_model: str = setting(
        'none', 'Model that makes the masks for MASA variants without a mask decoder (R50, Detic, '
        'Grounding-DINO); none leaves masks out (flagged). Its weights file is checkpoint.',
        choices=('none', *(name for name in CATALOG if not name.startswith('masa_'))))


def build_model(config: ModelConfig) -> Model:
    """
    Load the model that a configuration names.

    Raises
    ------
    ValueError
        If the name is unknown.
    FileNotFoundError
        If its weights are not there; the message says where to get them and where to put them.

    """
    if config.name not in CATALOG:
        raise ValueError(f'unknown model {config.name!r}; known ones are '
                         + ', '.join(sorted(CATALOG)))
    module, function = CATALOG[config.name]
    model: Model = getattr(import_module(module), function)(config)
    return model


def load(
    variant: str, *, sam: str | None = None, masa: str | None = None, **settings: Any,
) -> Model:
    """
    Load a MASA variant, or a plain SAM, from published files.

    Parameters
    ----------
    variant : str
        ``r50``, ``sam_vitb``, ``sam_vitl``, ``sam_vith``, ``gdino`` or ``detic``, also as
        ``masa_r50`` and so on; or ``sam_vit_b``, ``sam_vit_l``, ``sam_vit_h``, ``mobile_sam``.
    sam, masa : str, optional
        Weights files of SAM and of MASA; the ones in the weights folder when missing.
    **settings
        Further fields of `ModelConfig`.

    Raises
    ------
    FileNotFoundError
        If a file is not there; the message says where to get it.
    ValueError
        If the variant is unknown or a file does not fit; the message names the entries.

    """
    if variant in CATALOG and not variant.startswith('masa_'):
        if masa is not None:
            raise ValueError(f'{variant} has no MASA part, but a MASA file was given ({masa}); '
                             'leave it out, or choose one of the masa models')
        return build_model(ModelConfig(name=variant, checkpoint=str(sam or ''), **settings))
    function: Callable[..., Model] = import_module('masa_ros.models.masa').load
    return function(variant, sam=sam, masa=masa, **settings)


def weight_files(config: ModelConfig) -> list[Path]:
    """
    Files and folders with what a model may read at its start, as far as they are there.

    For telling whether two runs used the same; more than one of them may stand for the same part.
    """
    names = {config.name, config.name.removeprefix('masa_'), config.mask_model}
    paths = [Path(given).expanduser()
             for given in (config.checkpoint, config.adapter_checkpoint) if given]
    paths += [weights.folder() / entry.file for name, entry in weights.FILES.items()
              if name in names]
    if 'tiny' in names:
        paths.append(Path(__file__).parent / 'tiny' / 'weights.pt')
    return [path for path in paths if path.exists()]
