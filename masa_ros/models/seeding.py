"""
Random weights in the published form, to try a model without its weights.

The numbers come from a seed and each entry's name, so every machine makes the same ones. They are
scaled so that signals neither die nor explode on their way, but they recognize nothing. The file
carries a mark inside, and everything that loads it says "NOT TRAINED".
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
import json
import math
import os
from pathlib import Path
import zipfile
import zlib

from masa_ros.models.variants import VARIANTS
from masa_ros.models.weights import SEEDED_RECORD
import numpy as np
from numpy.typing import NDArray
import torch
from torch import Tensor

SEEDABLE = ('sam_vit_b', 'sam_vit_l', 'sam_vit_h', 'mobile_sam',
            *(variant.model for variant in VARIANTS.values()))
"""Names of the models that `write` knows."""

_CONSTANTS = ('relative_position_index', 'position_ids')


def seeded_entry(name: str, shape: tuple[int, ...], seed: int = 0) -> NDArray[np.float32]:
    """
    Make the numbers of one entry.

    Parameters
    ----------
    name : str
        Full name of the entry.
    shape : tuple of int
        Its shape.
    seed : int
        Another seed gives other numbers.

    Returns
    -------
    ndarray
        float32: weights of unit gain, small biases, norm scales near 1.

    """
    generator = np.random.default_rng((seed, zlib.crc32(name.encode())))
    noise = generator.standard_normal(shape, dtype=np.float32)
    if name.endswith('running_var'):
        return (0.5 + np.abs(noise)).astype(np.float32)
    if name.endswith('positional_encoding_gaussian_matrix'):
        return noise
    if name.endswith(('bias', 'running_mean', 'pos_embed', 'rel_pos_h', 'rel_pos_w')):
        return 0.1 * noise
    if len(shape) < 2:
        return 1 + 0.1 * noise
    return noise / np.float32(math.sqrt(math.prod(shape[1:])))


def published_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """
    Names and shapes in a model's published file.

    Raises
    ------
    ValueError
        If the model has no published file.

    """
    if name not in SEEDABLE:
        raise ValueError(f'no weights can be made for {name!r}; known are ' + ', '.join(SEEDABLE))
    from masa_ros.models.sam.architecture import ARCHITECTURES, build_network
    if name in ARCHITECTURES:
        state: Mapping[str, Tensor] = build_network(ARCHITECTURES[name]).state_dict()
        return {key: tuple(value.shape) for key, value in state.items()}
    from masa_ros.models.checkpoint import published_entries
    from masa_ros.models.variants import find_variant
    return {key: shape for key, shape in published_entries(find_variant(name)).items()
            if not key.endswith(_CONSTANTS)}


def write(name: str, path: str | Path, seed: int = 0) -> Path:
    """
    Write random weights of a model in the form of its published file.

    Parameters
    ----------
    name : str
        One of `SEEDABLE`.
    path : str or Path
        File to write; it appears when it is complete.
    seed : int
        Another seed gives other numbers.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ValueError
        If the model is not known.

    """
    entries: OrderedDict[str, Tensor] = OrderedDict()
    for key, shape in published_shapes(name).items():
        if key.endswith('num_batches_tracked'):
            entries[key] = torch.zeros(shape, dtype=torch.int64)
        else:
            entries[key] = torch.from_numpy(np.asarray(seeded_entry(key, shape, seed)))
    # SAM's files are plain state dicts; MASA's are what mmengine saves.
    content = {'meta': {}, 'state_dict': entries} if name.startswith('masa_') else entries
    path = Path(path)
    part = path.with_name(path.name + '.part')
    torch.save(content, part)
    with zipfile.ZipFile(part, 'a') as archive:
        inside = archive.namelist()[0].split('/')[0]
        archive.writestr(f'{inside}/{SEEDED_RECORD}', json.dumps({'seed': seed, 'trained': False}))
    os.replace(part, path)
    return path
