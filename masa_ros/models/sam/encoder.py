"""One pass through SAM's image encoder, giving the global blocks' outputs and the neck's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from masa_ros.models.sam.tiny_vit import TinyVit
import torch
from torch import nn, Tensor
import torch.nn.functional as F


@dataclass(frozen=True)
class EncoderFeatures:
    """
    What the image encoder makes of a batch.

    Parameters
    ----------
    taps : tuple of Tensor
        Multi-level features, each ``(B, C, h, w)``. SAM's ViT: the raw outputs of the global
        attention blocks, in order, all at stride 16. MobileSAM: the outputs of its four stages
        at strides 4, 8, 16 and 16, before each stage's down-sampling.
    neck : Tensor
        ``(B, 256, h, w)`` image embedding that the mask decoder takes, stride 16.

    """

    taps: tuple[Tensor, ...]
    neck: Tensor


def encode(encoder: nn.Module, batch: Tensor) -> EncoderFeatures:
    """
    Run SAM's image encoder once.

    Parameters
    ----------
    encoder : Module
        ``Sam.image_encoder``: an ``ImageEncoderViT`` of the segment-anything package or our
        `TinyVit`. Its parameters' type decides the arithmetic.
    batch : Tensor
        ``(B, 3, S, S)`` normalized and padded images, see `preprocess`; cast to the encoder's
        type. ``S`` is 1024 for the published variants.

    Returns
    -------
    EncoderFeatures
        In the encoder's type.

    """
    batch = batch.to(next(encoder.parameters()).dtype)
    if isinstance(encoder, TinyVit):
        stages = encoder.stages(batch)
        return EncoderFeatures(stages, encoder.neck(stages[-1]))
    return _encode_vit(encoder, batch)


def _encode_vit(encoder: Any, batch: Tensor) -> EncoderFeatures:
    tokens = encoder.patch_embed(batch)
    if encoder.pos_embed is not None:
        tokens = tokens + encoder.pos_embed
    taps = []
    for block in encoder.blocks:
        tokens = _run_block(block, tokens)
        if block.window_size == 0:
            taps.append(tokens.permute(0, 3, 1, 2))
    return EncoderFeatures(tuple(taps), encoder.neck(tokens.permute(0, 3, 1, 2)))


def _run_block(block: Any, tokens: Tensor) -> Tensor:
    """Run one transformer block on ``(B, h, w, C)`` tokens."""
    normalized = block.norm1(tokens)
    window = block.window_size
    if window == 0:
        attended = attend(block.attn, normalized)
    else:
        height, width = normalized.shape[1:3]
        windows, padded = partition_windows(normalized, window)
        attended = join_windows(attend(block.attn, windows), window, padded)
        attended = attended[:, :height, :width]
    tokens = tokens + attended
    updated: Tensor = tokens + block.mlp(block.norm2(tokens))
    return updated


def partition_windows(tokens: Tensor, window: int) -> tuple[Tensor, tuple[int, int]]:
    """
    Cut ``(B, h, w, C)`` tokens into windows, padding with zeros at the right and the bottom.

    Returns
    -------
    windows : Tensor
        ``(B * rows * columns, window, window, C)``.
    counts : tuple of int
        Rows and columns of windows.

    """
    batch, height, width, channels = tokens.shape
    tokens = F.pad(tokens, (0, 0, 0, -width % window, 0, -height % window))
    rows, columns = tokens.shape[1] // window, tokens.shape[2] // window
    windows = tokens.view(batch, rows, window, columns, window, channels)
    return windows.transpose(2, 3).reshape(-1, window, window, channels), (rows, columns)


def join_windows(windows: Tensor, window: int, counts: tuple[int, int]) -> Tensor:
    """Undo `partition_windows`; the padding is still there."""
    rows, columns = counts
    channels = windows.shape[-1]
    tokens = windows.view(-1, rows, columns, window, window, channels).transpose(2, 3)
    return tokens.reshape(-1, rows * window, columns * window, channels)


def attend(attention: Any, tokens: Tensor) -> Tensor:
    """
    Attention with decomposed relative positions, through a fused kernel.

    The package adds the positions to the full matrix of scores in memory, several passes over
    805 MB for each global block of ViT-B. On a CPU the positions go to the kernel as its bias
    (1.5 times faster here). On a GPU even that matrix is avoided for global blocks: the scores
    ``q k + q r_h + q r_w`` are the product of longer vectors, ``[q, q r_h, q r_w]`` and
    ``[k, one-hot row, one-hot column]``, which is exact.

    Parameters
    ----------
    attention : Module
        The package's attention module.
    tokens : Tensor
        ``(B, h, w, C)``: whole images, or windows.

    Returns
    -------
    Tensor
        ``(B, h, w, C)``.

    """
    batch, height, width, channels = tokens.shape
    heads = attention.num_heads
    query, key, value = attention.qkv(tokens).view(
        batch, height * width, 3, heads, channels // heads).permute(2, 0, 3, 1, 4).unbind(0)
    rows, columns = _position_scores(attention, query, height, width)
    if query.is_cuda and height * width > 1024:
        attended = _attend_by_longer_vectors(query, key, value, rows, columns)
    else:
        attended = _attend_by_bias(query, key, value, rows, columns)
    projected: Tensor = attention.proj(
        attended.transpose(1, 2).reshape(batch, height, width, channels))
    return projected


def _position_scores(
    attention: Any, query: Tensor, height: int, width: int,
) -> tuple[Tensor, Tensor]:
    """Scores ``(B, heads, h*w, h)`` of each query for key rows, and ``(..., w)`` for columns."""
    grid = query.reshape(*query.shape[:2], height, width, -1)
    by_row = torch.einsum(
        'bnhwc,hkc->bnhwk', grid, _relative_positions(attention.rel_pos_h, height))
    by_column = torch.einsum(
        'bnhwc,wkc->bnhwk', grid, _relative_positions(attention.rel_pos_w, width))
    return by_row.flatten(2, 3), by_column.flatten(2, 3)


def _relative_positions(table: Tensor, size: int) -> Tensor:
    """``(size, size, C)`` embeddings of (query, key) offsets from a ``(2 * L - 1, C)`` table."""
    if table.shape[0] != 2 * size - 1:
        table = F.interpolate(table.T[None], size=2 * size - 1, mode='linear')[0].T
    steps = torch.arange(size, device=table.device)
    return table[steps[:, None] - steps[None, :] + size - 1]


def _attend_by_bias(
    query: Tensor, key: Tensor, value: Tensor, rows: Tensor, columns: Tensor,
) -> Tensor:
    bias = (rows[..., :, None] + columns[..., None, :]).flatten(3)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=bias)


def _attend_by_longer_vectors(
    query: Tensor, key: Tensor, value: Tensor, rows: Tensor, columns: Tensor,
) -> Tensor:
    height, width, depth = rows.shape[-1], columns.shape[-1], query.shape[-1]
    places = torch.cat((
        torch.eye(height, dtype=key.dtype, device=key.device).repeat_interleave(width, 0),
        torch.eye(width, dtype=key.dtype, device=key.device).repeat(height, 1)), dim=1)
    longer_query = torch.cat((query * depth ** -0.5, rows, columns), dim=-1)
    longer_key = torch.cat((key, places.expand(*key.shape[:2], -1, -1)), dim=-1)
    # Flash kernels want one width for queries, keys and values.
    value = F.pad(value, (0, height + width))
    attended = F.scaled_dot_product_attention(longer_query, longer_key, value, scale=1.0)
    return attended[..., :depth]
