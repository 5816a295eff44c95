"""Matrix products through oneDNN."""

from __future__ import annotations

from collections.abc import Iterator

from masa_ros.models.cpu import linear, speed_up_linears
import pytest
import torch
from torch import nn
from torch.nn import functional


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """One thread and two take different ways."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize('shape', [
    (4096, 96), (25, 196, 96), (1, 8, 20, 96), (131, 96), (3, 96), (0, 96), (300, 1)])
@pytest.mark.parametrize('bias', [True, False])
def test_product_is_torchs(threads: int, shape: tuple[int, ...], bias: bool) -> None:
    random = torch.Generator().manual_seed(threads)
    rows = torch.randn(shape, generator=random)
    weight = torch.randn(40, shape[-1], generator=random)
    offset = torch.randn(40, generator=random) if bias else None
    result = linear(rows, weight, offset)
    expected = functional.linear(rows, weight, offset)
    assert result.shape == expected.shape
    assert torch.allclose(result, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16])
def test_other_types_go_torchs_way(dtype: torch.dtype) -> None:
    rows, weight = torch.ones(256, 8, dtype=dtype), torch.ones(4, 8, dtype=dtype)
    assert torch.equal(linear(rows, weight), functional.linear(rows, weight))


def test_strided_rows_are_read_in_their_logical_order(threads: int) -> None:
    rows = torch.randn(64, 512).T  # 512 rows of 64, column by column in memory.
    weight = torch.randn(16, 64)
    assert torch.allclose(linear(rows, weight), rows @ weight.T, atol=1e-4)


def test_layers_keep_names_weights_and_results() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Sequential(nn.Linear(64, 8)))
    rows = torch.randn(1000, 32)
    names, expected = list(network.state_dict()), network(rows)
    speed_up_linears(network)
    assert list(network.state_dict()) == names
    assert torch.allclose(network(rows), expected, rtol=1e-4, atol=1e-5)
    network(rows).sum().backward()
    assert next(network.parameters()).grad is not None
