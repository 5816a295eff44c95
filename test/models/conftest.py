"""Weights by the recipe of the reference vectors: a function of each tensor's name and shape."""

from __future__ import annotations

from collections.abc import Callable
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn, Tensor


@pytest.fixture(scope='session')
def make_weight(golden: Path) -> Callable[..., Any]:
    """``(name, shape) -> ndarray`` of golden/recipe.py."""
    spec = importlib.util.spec_from_file_location('golden_recipe', golden / 'recipe.py')
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    make: Callable[..., Any] = module.make
    return make


@pytest.fixture(scope='session')
def fill(make_weight: Callable[..., Any]) -> Callable[[nn.Module, str], nn.Module]:
    """Give a module the recipe's weights for a name prefix, and switch it to inference."""
    def filled(module: nn.Module, prefix: str) -> nn.Module:
        module.load_state_dict({
            name: torch.from_numpy(make_weight(prefix + name, tuple(value.shape)))
            for name, value in module.state_dict().items()})
        return module.eval()
    return filled


@pytest.fixture(scope='session')
def seeded(golden: Path) -> Callable[[str, tuple[int, ...]], Tensor]:
    """Inputs of small_units.npz: standard normal numbers seeded by the tensor's name."""
    import zlib

    def tensor(name: str, shape: tuple[int, ...]) -> Tensor:
        numbers = np.random.RandomState(zlib.crc32(name.encode())).standard_normal((1, *shape))
        return torch.from_numpy(numbers.astype(np.float32))
    return tensor


def _relative_error(value: Tensor, expected: Any) -> float:
    """Largest difference over the largest expected size, so that zeros do not count double."""
    reference = np.asarray(expected, np.float64)
    assert tuple(value.shape) == reference.shape
    difference = np.abs(value.detach().double().numpy() - reference).max()
    return float(difference / np.abs(reference).max())


@pytest.fixture(scope='session')
def relative_error() -> Callable[[Tensor, Any], float]:
    """Largest difference of a tensor from an array, over the array's largest size."""
    return _relative_error
