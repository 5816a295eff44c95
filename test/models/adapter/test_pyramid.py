"""Feature pyramids against the reference's vectors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from masa_ros.models.adapter.pyramid import FeaturePyramid, SimplePyramid
import numpy as np
import pytest
import torch
from torch import Tensor


@pytest.mark.data
def test_feature_pyramid_with_batch_norm_equals_the_reference(
    golden: Path, seeded: Callable[..., Tensor], fill: Callable[..., Any],
    relative_error: Callable[..., float],
) -> None:
    vectors = np.load(golden / 'small_units.npz')
    shapes = [(16, 18, 22), (32, 9, 11), (64, 5, 6), (128, 3, 3)]
    pyramid = fill(FeaturePyramid([shape[0] for shape in shapes], 32), 'fpn_w.')
    with torch.no_grad():
        levels = pyramid([seeded(f'fpn.{i}', shape) for i, shape in enumerate(shapes)])
    assert len(levels) == 5
    for index, level in enumerate(levels):
        assert relative_error(level[0], vectors[f'fpn.{index}']) < 1e-6


@pytest.mark.data
def test_simple_pyramid_equals_the_reference(
    golden: Path, seeded: Callable[..., Tensor], fill: Callable[..., Any],
    relative_error: Callable[..., float],
) -> None:
    vectors = np.load(golden / 'small_units.npz')
    pyramid = fill(SimplePyramid(64, 32), 'sfpn_w.')
    with torch.no_grad():
        levels = pyramid([seeded(f'sfpn.{i}', (64, 8, 8)) for i in range(4)])
    assert len(levels) == 5
    for index, level in enumerate(levels):
        assert relative_error(level[0], vectors[f'simple_fpn.{index}']) < 1e-6
