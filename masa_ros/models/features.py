"""Which self-supervised features there are to compare with; naming them costs no torch."""

from __future__ import annotations

from dataclasses import dataclass

# Name: (architecture of timm, whether it is a transformer).
BACKBONES = {
    'dino_vits16': ('vit_small_patch16_224', True), 'dino_vitb16': ('vit_base_patch16_224', True),
    'dino_resnet50': ('resnet50', False), 'moco_resnet50': ('resnet50', False)}


@dataclass(frozen=True)
class FeatureConfig:
    """
    Which features.

    Parameters
    ----------
    name : str
        One of `BACKBONES`.
    checkpoint : str
        Weights file; empty for random numbers.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``cuda:<index>``.

    """

    name: str
    checkpoint: str = ''
    device: str = 'auto'
