"""Deformable convolution against the reference's vectors and against torchvision."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from masa_ros.models.adapter.deform_conv import (
    deformable_convolution,
    gather_convolution,
    ModulatedDeformConv2d,
    read_as_size,
)
import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.ops import deform_conv2d


@pytest.mark.data
@pytest.mark.parametrize(('case', 'size', 'offset_size', 'stride'), [
    ('same', (6, 9), (6, 9), 1), ('stride2', (11, 18), (6, 9), 2),
    ('bigger_offset', (6, 9), (11, 17), 1), ('bigger_offset_even', (4, 6), (8, 12), 1),
])
def test_reference_operator_is_reproduced_also_where_offsets_have_another_size(
    golden: Path, seeded: Callable[..., Tensor], fill: Callable[..., Any],
    relative_error: Callable[..., float], case: str, size: tuple[int, int],
    offset_size: tuple[int, int], stride: int,
) -> None:
    expected = np.load(golden / 'small_units.npz')[f'op.{case}.y']
    conv = fill(ModulatedDeformConv2d(8, 5, stride), f'op.{case}.')
    x = seeded(f'op.{case}.x', (8, *size))
    offset = seeded(f'op.{case}.offset', (18, *offset_size))
    mask = seeded(f'op.{case}.mask', (9, *offset_size)).sigmoid()
    with torch.no_grad():
        assert relative_error(conv(x, offset, mask), expected) < 3e-6
    # With gradients the other implementation runs; it must agree.
    assert relative_error(conv(x, offset, mask), expected) < 3e-6


def torchvision_result(
    x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, stride: int,
) -> Tensor:
    result: Tensor = deform_conv2d(x, offset, weight, None, stride, 1, 1, mask)
    return result


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize(('size', 'stride', 'spread'), [
    ((1, 1), 1, 1.0), ((1, 7), 2, 3.0), ((13, 5), 1, 0.0), ((17, 23), 2, 2.0),
    ((17, 23), 1, 40.0), ((32, 31), 1, 1e9), ((40, 64), 1, 5.0),
])
def test_gathers_equal_torchvision_for_odd_sizes_and_far_offsets(
    size: tuple[int, int], stride: int, spread: float, dtype: torch.dtype,
) -> None:
    random = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=dtype)
    out = tuple(-(-side // stride) for side in size)
    x, weight = normal(2, 12, *size), normal(7, 12, 3, 3)
    offset, mask = spread * normal(2, 18, *out), normal(2, 9, *out).sigmoid()
    expected = torchvision_result(x, offset, mask, weight, stride)
    for tile in (1, 50, 512):
        result = gather_convolution(x, offset, mask, weight, stride, tile)
        assert result.shape == expected.shape
        scale = max(expected.abs().max().item(), 1.0)
        assert (result - expected).abs().max().item() < 1e-5 * scale


def test_whole_pixel_offsets_shift_an_ordinary_convolution_by_hand() -> None:
    x = torch.arange(20.0).reshape(1, 1, 4, 5)
    weight = torch.zeros(1, 1, 3, 3)
    weight[0, 0, 1, 1] = 1  # The centre tap copies the input.
    offset = torch.zeros(1, 18, 4, 5)
    offset[:, 8], offset[:, 9] = 1, -2  # Tap 4: one row down, two columns left.
    result = deformable_convolution(x, offset, torch.full((1, 9, 4, 5), 0.5), weight)
    # Output (0, 2) reads pixel (1, 0) = 5, halved by the mask; column 0 reads outside.
    assert result[0, 0, 0, 2].item() == 2.5
    assert result[0, 0, :, :2].abs().max().item() == 0
    assert result[0, 0, 3].abs().max().item() == 0  # Below the last row.


def test_non_contiguous_channels_last_input_gives_the_same_numbers() -> None:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(1, 6, 9, 11, generator=random)
    offset, mask = torch.randn(1, 18, 9, 11, generator=random), torch.rand(
        1, 9, 9, 11, generator=random)
    weight = torch.randn(4, 6, 3, 3, generator=random)
    plain = deformable_convolution(x, offset, mask, weight)
    last = torch.channels_last
    other = deformable_convolution(
        x.to(memory_format=last), offset.to(memory_format=last), mask, weight)
    assert torch.allclose(plain, other, rtol=1e-5, atol=1e-6)


def test_bigger_sampling_is_read_from_the_start_of_each_samples_memory() -> None:
    sampling = torch.arange(2 * 3 * 4 * 4.0).reshape(2, 3, 4, 4)
    read = read_as_size(sampling.to(memory_format=torch.channels_last), 2, 2)
    # 3 x 2 x 2 = 12 numbers: all from the first 16-number plane of each sample.
    assert read[0].flatten().tolist() == list(range(12))
    assert read[1].flatten().tolist() == list(range(48, 60))


def test_too_small_sampling_is_refused() -> None:
    with pytest.raises(ValueError, match='offsets of 2 x 2 are too few'):
        read_as_size(torch.zeros(1, 18, 2, 2), 3, 3)


def test_gradients_flow_when_they_are_asked_for() -> None:
    conv = ModulatedDeformConv2d(4, 3)
    offset = torch.zeros(1, 18, 5, 5, requires_grad=True)
    conv(torch.rand(1, 4, 5, 5), offset, torch.rand(1, 9, 5, 5)).sum().backward()
    assert offset.grad is not None
    assert offset.grad.abs().sum() > 0
    assert conv.weight.grad is not None


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_stays_close_and_keeps_its_type(dtype: torch.dtype) -> None:
    random = torch.Generator().manual_seed(1)
    x = torch.randn(1, 32, 20, 300, generator=random)
    offset = torch.randn(1, 18, 20, 300, generator=random).to(dtype)
    mask = torch.rand(1, 9, 20, 300, generator=random)
    weight = torch.randn(8, 32, 3, 3, generator=random)
    result = deformable_convolution(x.to(dtype), offset, mask.to(dtype), weight.to(dtype))
    expected = torchvision_result(x, offset.float(), mask, weight, 1)
    assert result.dtype == dtype
    # Eight (bfloat16) or eleven bits of mantissa; positions must not be rounded at column 299.
    limit = 0.02 if dtype == torch.bfloat16 else 0.003
    assert ((result.float() - expected).abs().max() / expected.abs().max()).item() < limit
