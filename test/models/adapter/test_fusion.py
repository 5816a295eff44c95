"""Fusion blocks against the reference's vectors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from masa_ros.models.adapter.fusion import DeformFusionBlock, Fusion
import numpy as np
import pytest
import torch
from torch import Tensor

SIZES = {
    'even': [(16, 24), (8, 12), (4, 6), (2, 3), (1, 2)],
    'odd': [(18, 22), (9, 11), (5, 6), (3, 3), (2, 2)],
}


@pytest.mark.data
@pytest.mark.parametrize('sizes', ['even', 'odd'])
@pytest.mark.parametrize('kind', ['deform_fusion', 'dyhead'])
def test_fusion_blocks_equal_the_reference(
    golden: Path, seeded: Callable[..., Tensor], fill: Callable[..., Any],
    relative_error: Callable[..., float], kind: str, sizes: str,
) -> None:
    vectors = np.load(golden / 'small_units.npz')
    fusion = fill(Fusion(attention=kind == 'dyhead'), f'{kind}.')
    levels = [seeded(f'pyr.{sizes}.{i}', (256, *size)) for i, size in enumerate(SIZES[sizes])]
    with torch.no_grad():
        fused = fusion(levels)
    for index, level in enumerate(fused):
        # Float64 arithmetic is 3.6e-6 from the reference's float32, so that is its rounding.
        assert relative_error(level[0], vectors[f'{kind}.{sizes}.{index}']) < 1e-5


@pytest.mark.data
def test_a_batch_gives_what_its_samples_give_alone(
    fill: Callable[..., Any], seeded: Callable[..., Tensor],
) -> None:
    fusion = fill(Fusion(attention=True), 'dyhead.')
    one = [seeded(f'a{i}', (256, *size)) for i, size in enumerate(SIZES['odd'])]
    two = [seeded(f'b{i}', (256, *size)) for i, size in enumerate(SIZES['odd'])]
    with torch.no_grad():
        both = fusion([torch.cat(pair) for pair in zip(one, two, strict=True)])
        alone = fusion(two)
    for level, expected in zip(both, alone, strict=True):
        assert torch.allclose(level[1:], expected, rtol=1e-4, atol=1e-5)


def test_new_blocks_start_without_offsets_and_with_half_weights() -> None:
    steering = DeformFusionBlock(32).spatial_conv_offset(torch.randn(1, 32, 4, 4))
    assert steering.abs().max().item() == 0
