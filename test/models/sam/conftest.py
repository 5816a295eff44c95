"""Small Segment Anything networks with seeded weights."""

from __future__ import annotations

from collections.abc import Callable
import math
from typing import Any
import zlib

from masa_ros.models.sam.architecture import (
    build_network,
    TinyVitArchitecture,
    VitArchitecture,
)
import numpy as np
import pytest
import torch
from torch import Tensor

SMALL = VitArchitecture(width=32, depth=2, heads=2, global_blocks=(1,))
"""The real input size and decoder on a tiny encoder."""

QUICK = VitArchitecture(width=32, depth=2, heads=2, global_blocks=(1,), image_size=256)
"""The same on small images, 16 times quicker."""


def random_state(shapes: dict[str, Tensor]) -> dict[str, Tensor]:
    """Moderate random weights for each name; the same on every run."""
    state = {}
    for name, value in shapes.items():
        noise = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(value.shape)
        if value.dtype == torch.int64:
            noise = np.zeros(value.shape)
        elif name.endswith('running_var'):
            noise = 0.5 + np.abs(noise) / 2
        elif value.ndim >= 2 and 'gaussian' not in name:
            noise = noise / math.sqrt(value[0].numel())
        elif value.ndim == 1:
            noise = 0.1 * noise + name.endswith('weight')
        state[name] = torch.from_numpy(np.asarray(noise)).to(value.dtype)
    return state


@pytest.fixture(scope='session')
def make_network() -> Callable[[VitArchitecture | TinyVitArchitecture], Any]:
    """Build a network of any sizes with random weights."""
    def make(architecture: VitArchitecture | TinyVitArchitecture) -> Any:
        network = build_network(architecture)
        network.load_state_dict(random_state(network.state_dict()), assign=True)
        return network
    return make


@pytest.fixture(scope='session')
def small_network(make_network: Callable[..., Any]) -> Any:
    """SAM with two narrow encoder blocks, 1024 pixels and the full-size decoder."""
    return make_network(SMALL)


@pytest.fixture(scope='session')
def quick_network(make_network: Callable[..., Any]) -> Any:
    """SAM with two narrow encoder blocks, 256 pixels and the full-size decoder."""
    return make_network(QUICK)
