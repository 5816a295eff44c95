"""The encoder against the reference's outputs and the segment-anything package's own code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from masa_ros.models.sam.architecture import build_vit, TinyVitArchitecture, VitArchitecture
from masa_ros.models.sam.encoder import (
    _attend_by_bias,
    _attend_by_longer_vectors,
    attend,
    encode,
    join_windows,
    partition_windows,
)
import numpy as np
import pytest
import torch
from torch import Tensor

TINY_ROW = [0.558593, -0.808861, 2.371562, 0.395782, 0.540781, 0.721019]
TINY_MEAN = 0.790060


@pytest.mark.data
def test_blocks_and_neck_equal_the_reference(
    golden: Path, fill: Callable[..., Any], seeded: Callable[..., Tensor],
    relative_error: Callable[..., float],
) -> None:
    # small_units.npz: a ViT of width 96 and depth 4; every second channel of the blocks.
    expected = np.load(golden / 'small_units.npz')
    vit = fill(build_vit(VitArchitecture(96, 4, 4, (1, 3), image_size=320, out_channels=32)),
               'vit.')
    with torch.no_grad():
        features = encode(vit, seeded('vit.input', (3, 320, 320)))
    assert len(features.taps) == 2
    assert relative_error(features.taps[0][0, ::2], expected['vit.block1']) < 1e-4
    assert relative_error(features.taps[1][0, ::2], expected['vit.block3']) < 1e-4
    assert relative_error(features.neck[0], expected['vit.neck']) < 1e-4


def test_the_neck_equals_the_package_at_the_real_input_size(small_network: Any) -> None:
    batch = torch.randn(2, 3, 1024, 1024, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = small_network.image_encoder(batch)
        features = encode(small_network.image_encoder, batch)
    assert features.neck.shape == (2, 256, 64, 64)
    assert features.taps[0].shape == (2, 32, 64, 64)
    torch.testing.assert_close(features.neck, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize(('side', 'batch'), [(6, 2), (14, 3)])
def test_attention_equals_the_package(side: int, batch: int) -> None:
    from segment_anything.modeling.image_encoder import Attention
    torch.manual_seed(0)
    attention = Attention(48, 3, use_rel_pos=True, input_size=(side, side))
    torch.nn.init.normal_(attention.rel_pos_h)
    torch.nn.init.normal_(attention.rel_pos_w)
    tokens = torch.randn(batch, side, side, 48)
    with torch.no_grad():
        torch.testing.assert_close(
            attend(attention, tokens), attention(tokens), rtol=0, atol=1e-5)


def test_relative_positions_of_another_size_are_interpolated_as_in_the_package() -> None:
    from segment_anything.modeling.image_encoder import Attention
    torch.manual_seed(0)
    attention = Attention(16, 2, use_rel_pos=True, input_size=(5, 5))
    torch.nn.init.normal_(attention.rel_pos_h)
    torch.nn.init.normal_(attention.rel_pos_w)
    tokens = torch.randn(1, 8, 8, 16)
    with torch.no_grad():
        torch.testing.assert_close(
            attend(attention, tokens), attention(tokens), rtol=0, atol=1e-5)


def test_both_ways_of_adding_positions_agree() -> None:
    # The way of the GPU, tried on the CPU: 2 images, 3 heads, a 5 x 7 grid, 8 channels.
    generator = torch.Generator().manual_seed(3)
    query, key, value = torch.randn(3, 2, 3, 35, 8, generator=generator)
    rows = torch.randn(2, 3, 35, 5, generator=generator)
    columns = torch.randn(2, 3, 35, 7, generator=generator)
    torch.testing.assert_close(
        _attend_by_longer_vectors(query, key, value, rows, columns),
        _attend_by_bias(query, key, value, rows, columns))


def test_windows_join_to_what_they_were_cut_from() -> None:
    tokens = torch.arange(2 * 5 * 7 * 3).view(2, 5, 7, 3).float()
    windows, counts = partition_windows(tokens, 4)
    assert counts == (2, 2)
    assert windows.shape == (8, 4, 4, 3)
    assert torch.equal(windows[1, :, 3], torch.zeros(4, 3))
    assert torch.equal(join_windows(windows, 4, counts)[:, :5, :7], tokens)


def test_a_half_precision_encoder_takes_a_float_batch(make_network: Callable[..., Any]) -> None:
    network = make_network(VitArchitecture(32, 1, 2, (0,), image_size=64))
    batch = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        exact = encode(network.image_encoder, batch).neck
        rough = encode(network.image_encoder.to(torch.bfloat16), batch).neck
    assert rough.dtype == torch.bfloat16
    assert (rough.float() - exact).abs().max() < 0.1 * exact.abs().max()


def test_mobile_sam_gives_the_published_codes_numbers(make_network: Callable[..., Any]) -> None:
    # ChaoningZhang/MobileSAM 34bbbfd, TinyViT run with these weights (test/models/sam/conftest)
    # and this input at 256 pixels; TINY_ROW is neck[0, :6, 3, 5].
    network = make_network(TinyVitArchitecture(image_size=256))
    batch = torch.from_numpy(np.random.RandomState(0).standard_normal((1, 3, 256, 256))).float()
    with torch.no_grad():
        features = encode(network.image_encoder, batch)
    assert [tuple(tap.shape[1:]) for tap in features.taps] == [
        (64, 64, 64), (128, 32, 32), (160, 16, 16), (320, 16, 16)]
    torch.testing.assert_close(
        features.neck[0, :6, 3, 5], torch.tensor(TINY_ROW), rtol=0, atol=1e-4)
    assert features.neck.abs().mean().item() == pytest.approx(TINY_MEAN, abs=1e-5)
