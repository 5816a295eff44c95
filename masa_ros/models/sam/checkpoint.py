"""Published Segment Anything files into networks, every name and shape checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from masa_ros.models.checkpoint import identify, read_entries
from masa_ros.models.sam.architecture import (
    ARCHITECTURES,
    build_network,
    TinyVitArchitecture,
    VitArchitecture,
)
import torch
from torch import Tensor

_NAMED_AT_MOST = 5
# Entries that only files of other families have.
_FOREIGN = {
    'image_encoder.trunk.': 'SAM 2',
    'detector.backbone.vision_backbone.': 'SAM 3',
    'vision_encoder.': 'a SAM converted for the transformers library',
    'mask_decoder.hf_token.': 'HQ-SAM',
    'image_encoder.input_stem.': 'EfficientViT-SAM',
}


def load_network(
    variant: str, path: str | Path,
    architecture: VitArchitecture | TinyVitArchitecture | None = None,
) -> Any:
    """
    Build a SAM with the weights of a published file.

    Parameters
    ----------
    variant : str
        Name in `ARCHITECTURES`.
    path : str or Path
        The file. It is read without running code from it.
    architecture : optional
        Other sizes than the variant's.

    Returns
    -------
    Sam
        The package's network in evaluation mode, frozen, float32, on the CPU.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it cannot be read safely, or lacks, adds or reshapes an entry. The message names the
        entries and the kind of file that it looks like.

    """
    network = build_network(architecture or ARCHITECTURES[variant])
    assign(network, read_entries(path), f'{path} as {variant}')
    return network


def assign(network: Any, entries: Mapping[str, Tensor], where: str) -> None:
    """
    Fill a network on the meta device with entries of exactly its names and shapes.

    Parameters
    ----------
    network : Sam
        From `build_network`.
    entries : mapping of str to Tensor
        Weights; they are copied, and turned into float32.
    where : str
        What is loaded, for the error message.

    Raises
    ------
    ValueError
        See `load_network`.

    """
    expected = network.state_dict()
    # The pixel statistics are constants that some tools save too.
    extra = [name for name in entries
             if name not in expected and name not in ('pixel_mean', 'pixel_std')]
    missing = [name for name in expected if name not in entries]
    reshaped = [f'{name} is {tuple(entries[name].shape)}, expected {tuple(value.shape)}'
                for name, value in expected.items()
                if name in entries and entries[name].shape != value.shape]
    if extra or missing or reshaped:
        raise ValueError(
            f'{where}: the file does not fit{_likeness(entries)}; ' + '; '.join(
                f'{len(names)} {what}: {_some(names)}' for what, names in (
                    ('missing', missing), ('unexpected', extra), ('of another shape', reshaped))
                if names))
    network.load_state_dict(
        {name: _entry(name, entries[name], value.dtype, where)
         for name, value in expected.items()}, assign=True)
    network.requires_grad_(False)


def _entry(name: str, value: Tensor, dtype: torch.dtype, where: str) -> Tensor:
    """Copy one entry out of the file, checked."""
    if value.is_floating_point() != dtype.is_floating_point:
        raise ValueError(f'{where}: {name} holds {value.dtype}, expected {dtype}')
    copied = value.to(dtype, copy=True)
    # A finite sum tells it in one pass; only a sum that overflows needs the second look.
    if not torch.isfinite(copied.sum()) and not torch.isfinite(copied).all():
        raise ValueError(f'{where}: {name} holds numbers that are not finite; the file is damaged')
    return copied


def _likeness(entries: Mapping[str, Tensor]) -> str:
    """Say what kind of file it looks like, as the end of a clause; empty when unknown."""
    for prefix, kind in _FOREIGN.items():
        if any(name.startswith(prefix) for name in entries):
            return f': it looks like {kind}'
    found = identify(entries)
    return f': it looks like a {found} file' if found else ''


def _some(names: list[str]) -> str:
    text = ', '.join(names[:_NAMED_AT_MOST])
    rest = len(names) - _NAMED_AT_MOST
    return f'{text} and {rest} more' if rest > 0 else text
