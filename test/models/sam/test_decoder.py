"""The batched decoder against the package's own, box by box."""

from __future__ import annotations

from typing import Any

from masa_ros.models.sam.decoder import BoxDecoder
import numpy as np
import pytest
import torch
from torch import Tensor

BOXES = torch.tensor([
    [100.0, 120.0, 400.0, 300.0],
    [0.0, 0.0, 1024.0, 576.0],
    [511.5, 40.25, 513.0, 44.0],
    [-30.0, 500.0, 90.0, 1100.0],
])


@pytest.fixture(scope='module')
def embedding() -> Tensor:
    return torch.randn(256, 64, 64, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope='module')
def expected(small_network: Any, embedding: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and qualities by the package's prompt encoder and mask decoder."""
    with torch.no_grad():
        sparse, dense = small_network.prompt_encoder(points=None, boxes=BOXES, masks=None)
        logits, qualities = small_network.mask_decoder(
            image_embeddings=embedding[None], image_pe=small_network.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse, dense_prompt_embeddings=dense,
            multimask_output=False)
    return logits[:, 0], qualities[:, 0]


def decoder_of(network: Any, dtype: torch.dtype = torch.float32) -> BoxDecoder:
    return BoxDecoder(network.prompt_encoder, network.mask_decoder, dtype)


@torch.no_grad()
def test_logits_and_qualities_equal_the_packages(
    small_network: Any, embedding: Tensor, expected: tuple[Tensor, Tensor],
) -> None:
    decoder = decoder_of(small_network)
    logits, qualities = decoder.decode(decoder.prepare(embedding), BOXES)
    assert logits.shape == (4, 256, 256)
    torch.testing.assert_close(logits, expected[0], rtol=0, atol=2e-5)
    torch.testing.assert_close(qualities, expected[1], rtol=0, atol=1e-5)


@torch.no_grad()
def test_windows_give_the_same_logits_inside_and_zero_outside(
    small_network: Any, embedding: Tensor, expected: tuple[Tensor, Tensor],
) -> None:
    windows = np.array([[5, 6, 26, 20], [0, 0, 64, 36], [31, 2, 33, 3], [7, 8, 7, 8]], np.int64)
    decoder = decoder_of(small_network)
    logits, _ = decoder.decode(decoder.prepare(embedding), BOXES, windows)
    for got, want, (x0, y0, x1, y1) in zip(logits, expected[0], 4 * windows, strict=True):
        torch.testing.assert_close(got[y0:y1, x0:x1], want[y0:y1, x0:x1], rtol=0, atol=2e-5)
        outside = got.clone()
        outside[y0:y1, x0:x1] = 0
        assert not outside.any()


@torch.no_grad()
def test_a_box_gives_the_same_mask_alone_and_among_others(
    quick_network: Any,
) -> None:
    decoder = decoder_of(quick_network)
    image = decoder.prepare(
        torch.randn(256, 16, 16, generator=torch.Generator().manual_seed(5)))
    together, _ = decoder.decode(image, BOXES / 4)
    for row in range(len(BOXES)):
        alone, _ = decoder.decode(image, BOXES[row:row + 1] / 4)
        torch.testing.assert_close(alone[0], together[row], rtol=0, atol=1e-5)


@torch.no_grad()
def test_no_boxes_give_no_masks(small_network: Any, embedding: Tensor) -> None:
    decoder = decoder_of(small_network)
    logits, qualities = decoder.decode(decoder.prepare(embedding), torch.zeros(0, 4))
    assert logits.shape == (0, 256, 256)
    assert qualities.shape == (0,)


@torch.no_grad()
def test_bfloat16_moves_few_pixels(
    small_network: Any, embedding: Tensor, expected: tuple[Tensor, Tensor],
) -> None:
    decoder = decoder_of(small_network, torch.bfloat16)
    logits, _ = decoder.decode(decoder.prepare(embedding), BOXES)
    assert logits.dtype == torch.float32
    assert ((logits > 0) != (expected[0] > 0)).float().mean() < 0.02
    # The float32 network is still there for others to use.
    assert next(small_network.mask_decoder.parameters()).dtype == torch.float32
