"""
Swin Transformer as mmdetection builds it, with its names and its order of channels.

torchvision's and timm's versions order the four pixels of a merged patch differently and pad
otherwise, so published detector weights do not fit them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn, Tensor
from torch.nn import functional

_MASKED = -100.0


class _WindowAttention(nn.Module):
    """Multi-head attention inside windows, with a learned bias for each relative position."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.relative_position_bias_table = nn.Parameter(
            torch.zeros((2 * window - 1) ** 2, heads))
        self.register_buffer('relative_position_index', relative_position_index(window))
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, windows: Tensor, mask: Tensor | None) -> Tensor:
        """
        Attend within each of ``(B * K, n, C)`` windows of ``n`` tokens.

        Parameters
        ----------
        windows : Tensor
            Tokens by window; the ``K`` windows of an image follow each other.
        mask : Tensor or None
            ``(K, n, n)`` to add to the scores.

        """
        count, tokens, width = windows.shape
        qkv = self.qkv(windows).reshape(count, tokens, 3, self.heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        index = self.relative_position_index.flatten()  # type: ignore[operator]
        bias = self.relative_position_bias_table[index].view(tokens, tokens, -1)
        bias = bias.permute(2, 0, 1)[None]
        if mask is not None:
            bias = bias + mask[:, None]
            bias = bias.repeat(count // len(mask), 1, 1, 1)
        attended = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=bias.to(query.dtype))
        projected: Tensor = self.proj(attended.transpose(1, 2).reshape(count, tokens, width))
        return projected


def relative_position_index(window: int) -> Tensor:
    """Row of the bias table for each pair of a window's tokens, ``(window ** 2,) * 2`` int64."""
    y, x = torch.meshgrid(torch.arange(window), torch.arange(window), indexing='ij')
    place = (y * (2 * window - 1) + x).flatten()
    middle = (window - 1) * 2 * window
    return place[:, None] - place[None, :] + middle


class _ShiftedWindows(nn.Module):
    """Window attention over an image, the windows optionally shifted by half their side."""

    def __init__(self, width: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.window = window
        self.shift = shift
        self.w_msa = _WindowAttention(width, heads, window)

    def forward(self, tokens: Tensor) -> Tensor:
        """Attend over ``(B, H, W, C)`` tokens, padded with zeros to whole windows."""
        height, width = tokens.shape[1:3]
        tokens = functional.pad(tokens, (0, 0, 0, -width % self.window, 0, -height % self.window))
        padded = tokens.shape
        mask = None
        if self.shift:
            tokens = tokens.roll((-self.shift, -self.shift), dims=(1, 2))
            mask = self._mask(padded[1], padded[2], tokens.device)
        attended = self._join(self.w_msa(self._cut(tokens), mask), padded)
        if self.shift:
            attended = attended.roll((self.shift, self.shift), dims=(1, 2))
        whole: Tensor = attended[:, :height, :width]
        return whole

    def _cut(self, tokens: Tensor) -> Tensor:
        """Cut ``(B, H, W, C)`` into ``(B * K, window ** 2, C)``."""
        batch, height, width, channels = tokens.shape
        side = self.window
        grid = tokens.view(batch, height // side, side, width // side, side, channels)
        return grid.transpose(2, 3).reshape(-1, side * side, channels)

    def _join(self, windows: Tensor, shape: Sequence[int]) -> Tensor:
        """Put ``(B * K, window ** 2, C)`` back together as `shape`."""
        batch, height, width, channels = shape
        side = self.window
        grid = windows.view(batch, height // side, width // side, side, side, channels)
        return grid.transpose(2, 3).reshape(batch, height, width, channels)

    def _mask(self, height: int, width: int, device: torch.device) -> Tensor:
        """
        Keep apart what the cyclic shift brought together.

        Returns
        -------
        Tensor
            ``(K, window ** 2, window ** 2)``, 0 or -100.

        """
        rows = self._bands(height, device)
        columns = self._bands(width, device)
        regions = self._cut((rows[:, None] * 3 + columns)[None, :, :, None].float())[..., 0]
        apart = regions[:, None, :] != regions[:, :, None]
        return apart.float() * _MASKED

    def _bands(self, length: int, device: torch.device) -> Tensor:
        """Region number along one side: 0, then 1 in the last window, 2 in its wrapped part."""
        place = torch.arange(length, device=device)
        return (place >= length - self.window).int() + (place >= length - self.shift).int()


class _FeedForward(nn.Module):
    """Two linear layers with GELU between them, under the published names."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Sequential(nn.Linear(width, hidden), nn.GELU()), nn.Linear(hidden, width))

    def forward(self, tokens: Tensor) -> Tensor:
        result: Tensor = self.layers(tokens)
        return result


class _Block(nn.Module):
    """Attention and feed-forward, each after a layer normalization and around a shortcut."""

    def __init__(self, width: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = _ShiftedWindows(width, heads, window, shift)
        self.norm2 = nn.LayerNorm(width)
        self.ffn = _FeedForward(width, 4 * width)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = torch.add(tokens, self.attn(self.norm1(tokens)))
        return torch.add(tokens, self.ffn(self.norm2(tokens)))


class _PatchMerging(nn.Module):
    """Halve the resolution and double the width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * width)
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Merge ``(B, H, W, C)`` into ``(B, ceil(H / 2), ceil(W / 2), 2 C)``."""
        batch, height, width, channels = tokens.shape
        tokens = functional.pad(tokens, (0, 0, 0, width % 2, 0, height % 2))
        grid = tokens.view(batch, -(-height // 2), 2, -(-width // 2), 2, channels)
        # The four pixels follow each other within a channel, not the other way round.
        merged = grid.permute(0, 1, 3, 5, 2, 4).flatten(3)
        reduced: Tensor = self.reduction(self.norm(merged))
        return reduced


class _Stage(nn.Module):
    """Blocks of one resolution; every second one shifts its windows."""

    def __init__(self, width: int, depth: int, heads: int, window: int, last: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            _Block(width, heads, window, window // 2 if index % 2 else 0)
            for index in range(depth))
        self.downsample = None if last else _PatchMerging(width)

    def forward(self, tokens: Tensor) -> Tensor:
        for block in self.blocks:
            tokens = block(tokens)
        return tokens


class _PatchEmbedding(nn.Module):
    """Cut the image into patches of 4 x 4 pixels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(3, width, 4, stride=4)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Turn ``(B, 3, H, W)`` into ``(B, ceil(H / 4), ceil(W / 4), C)``."""
        x = functional.pad(x, (0, -x.shape[3] % 4, 0, -x.shape[2] % 4))
        tokens: Tensor = self.norm(self.projection(x).permute(0, 2, 3, 1))
        return tokens


class Swin(nn.Module):
    """
    Swin Transformer with the outputs of its last three stages.

    Parameters
    ----------
    width : int
        Channels of the first stage; each further one doubles them.
    depths, heads : sequence of int
        Blocks and attention heads of the four stages.
    window : int
        Side of an attention window, in tokens.

    References
    ----------
    "Swin Transformer", ICCV 2021; open-mmlab/mmdetection, ``mmdet/models/backbones/swin.py``.

    """

    def __init__(
        self, width: int = 128, depths: Sequence[int] = (2, 2, 18, 2),
        heads: Sequence[int] = (4, 8, 16, 32), window: int = 12,
    ) -> None:
        super().__init__()
        self.patch_embed = _PatchEmbedding(width)
        last = len(depths) - 1
        self.stages = nn.ModuleList(
            _Stage(width << index, depth, heads[index], window, index == last)
            for index, depth in enumerate(depths))
        self.norm1 = nn.LayerNorm(width * 2)
        self.norm2 = nn.LayerNorm(width * 4)
        self.norm3 = nn.LayerNorm(width * 8)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Features of normalized images ``(B, 3, H, W)`` at strides 8, 16 and 32."""
        tokens = self.patch_embed(x)
        levels = []
        norms = (None, self.norm1, self.norm2, self.norm3)
        for stage, norm in zip(self.stages, norms, strict=True):
            tokens = stage(tokens)
            if norm is not None:
                levels.append(norm(tokens).permute(0, 3, 1, 2))
            if stage.downsample is not None:
                tokens = stage.downsample(tokens)  # type: ignore[operator]
        return levels
