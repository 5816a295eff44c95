"""
MobileSAM's image encoder: TinyViT-5M with the last stage kept at stride 16, and SAM's neck.

Modules carry the names of the published ``mobile_sam.pt``, so its state dict loads as it is. The
classifier (``norm_head``, ``head``) is in the file and never used.

References
----------
Wu et al., TinyViT, ECCV 2022; Zhang et al., Faster Segment Anything, arXiv 2306.14289.
ChaoningZhang/MobileSAM, ``mobile_sam/modeling/tiny_vit_sam.py`` (sizes, names and order of
operations; the outputs were compared with it).

"""

from __future__ import annotations

from typing import Any, TYPE_CHECKING

from segment_anything.modeling.common import LayerNorm2d
import torch
from torch import nn, Tensor
import torch.nn.functional as F

if TYPE_CHECKING:
    from masa_ros.models.sam.architecture import TinyVitArchitecture

_CLASSES = 1000
_EXPANSION = 4


class ConvNorm(nn.Sequential):
    """Convolution without bias (``c``) and batch normalization (``bn``)."""

    def __init__(
        self, inputs: int, outputs: int, size: int = 1, stride: int = 1, groups: int = 1,
    ) -> None:
        super().__init__()
        self.add_module('c', nn.Conv2d(
            inputs, outputs, size, stride, size // 2, groups=groups, bias=False))
        self.add_module('bn', nn.BatchNorm2d(outputs))


class PatchEmbedding(nn.Module):
    """Two strided convolutions to stride 4."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.seq = nn.Sequential(
            ConvNorm(3, width // 2, 3, stride=2), nn.GELU(),
            ConvNorm(width // 2, width, 3, stride=2))

    def forward(self, images: Tensor) -> Tensor:
        """``(B, 3, H, W)`` to ``(B, C, H/4, W/4)``."""
        embedded: Tensor = self.seq(images)
        return embedded


class InvertedBottleneck(nn.Module):
    """Residual block: widen, depthwise 3 x 3, narrow; the activation follows the sum."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = width * _EXPANSION
        self.conv1 = ConvNorm(width, hidden)
        self.conv2 = ConvNorm(hidden, hidden, 3, groups=hidden)
        self.conv3 = ConvNorm(hidden, width)

    def forward(self, maps: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same."""
        hidden = F.gelu(self.conv2(F.gelu(self.conv1(maps))))
        return F.gelu(self.conv3(hidden) + maps)


class Downsampling(nn.Module):
    """Change of width and, unless ``stride`` is 1, half the size."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(inputs, outputs)
        self.conv2 = ConvNorm(outputs, outputs, 3, stride=stride, groups=outputs)
        self.conv3 = ConvNorm(outputs, outputs)

    def forward(self, maps: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, C', H/stride, W/stride)``."""
        narrowed: Tensor = self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(maps)))))
        return narrowed


class WindowAttention(nn.Module):
    """Attention inside a window with one learned bias for each absolute offset."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.attention_biases = nn.Parameter(torch.zeros(heads, window * window))
        self.window = window

    def forward(self, windows: Tensor) -> Tensor:
        """``(B, window * window, C)`` tokens, not yet normalized, to the same shape."""
        batch, tokens, channels = windows.shape
        # Each head has its query, key and value side by side, unlike in most transformers.
        query, key, value = self.qkv(self.norm(windows)).view(
            batch, tokens, self.heads, -1).transpose(1, 2).chunk(3, dim=-1)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=self._bias())
        projected: Tensor = self.proj(attended.transpose(1, 2).reshape(batch, tokens, channels))
        return projected

    def _bias(self) -> Tensor:
        """``(heads, tokens, tokens)``: the bias of offset (dy, dx) is entry dy * window + dx."""
        steps = torch.arange(self.window, device=self.attention_biases.device)
        rows, columns = steps.repeat_interleave(self.window), steps.repeat(self.window)
        offsets = ((rows[:, None] - rows).abs() * self.window
                   + (columns[:, None] - columns).abs())
        return self.attention_biases[:, offsets]


class Mlp(nn.Module):
    """Normalization and two linear layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, width * _EXPANSION)
        self.fc2 = nn.Linear(width * _EXPANSION, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """``(B, N, C)`` to the same."""
        hidden: Tensor = self.fc2(F.gelu(self.fc1(self.norm(tokens))))
        return hidden


class AttentionBlock(nn.Module):
    """Window attention, a depthwise convolution across windows, and the MLP."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.attn = WindowAttention(width, heads, window)
        self.local_conv = ConvNorm(width, width, 3, groups=width)
        self.mlp = Mlp(width)

    def forward(self, maps: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same."""
        maps = self.local_conv(maps + self._attend(maps))
        tokens = maps.flatten(2).transpose(1, 2)
        mixed: Tensor = self.mlp(tokens)
        return maps + mixed.transpose(1, 2).reshape(maps.shape)

    def _attend(self, maps: Tensor) -> Tensor:
        batch, channels, height, width = maps.shape
        side = self.window
        # Padding before the normalization, as published: padded tokens take part in attention.
        padded = F.pad(maps, (0, -width % side, 0, -height % side))
        rows, columns = padded.shape[2] // side, padded.shape[3] // side
        windows = padded.view(batch, channels, rows, side, columns, side).permute(
            0, 2, 4, 3, 5, 1).reshape(-1, side * side, channels)
        mixed: Tensor = self.attn(windows)
        attended = mixed.view(batch, rows, columns, side, side, channels).permute(
            0, 5, 1, 3, 2, 4).reshape(padded.shape)
        return attended[:, :, :height, :width]


class Stage(nn.Module):
    """Blocks of one resolution, and the way down to the next."""

    def __init__(self, blocks: list[nn.Module], downsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, maps: Tensor) -> Tensor:
        """Run the blocks only."""
        for block in self.blocks:
            maps = block(maps)
        return maps


class TinyVit(nn.Module):
    """
    MobileSAM's image encoder.

    Parameters
    ----------
    architecture : TinyVitArchitecture
        Sizes; the published ones are its defaults.

    """

    def __init__(self, architecture: TinyVitArchitecture) -> None:
        super().__init__()
        widths = architecture.widths
        self.img_size = architecture.image_size
        self.patch_embed = PatchEmbedding(widths[0])
        strides = (2, 2, 1)
        stages = []
        for i, depth in enumerate(architecture.depths):
            blocks: list[nn.Module] = [
                InvertedBottleneck(widths[i]) if i == 0 else
                AttentionBlock(widths[i], architecture.heads[i], architecture.windows[i])
                for _ in range(depth)]
            down = Downsampling(widths[i], widths[i + 1], strides[i]) if i < 3 else None
            stages.append(Stage(blocks, down))
        self.layers = nn.ModuleList(stages)
        self.norm_head = nn.LayerNorm(widths[3])
        self.head = nn.Linear(widths[3], _CLASSES)
        self.neck = nn.Sequential(
            nn.Conv2d(widths[3], 256, 1, bias=False), LayerNorm2d(256),
            nn.Conv2d(256, 256, 3, padding=1, bias=False), LayerNorm2d(256))

    def stages(self, images: Tensor) -> tuple[Tensor, ...]:
        """
        Return the outputs of the four stages before down-sampling.

        Parameters
        ----------
        images : Tensor
            ``(B, 3, S, S)`` normalized.

        Returns
        -------
        tuple of Tensor
            ``(B, C, S/4, S/4)``, then strides 8, 16 and 16.

        """
        maps = self.patch_embed(images)
        outputs = []
        stage: Any
        for stage in self.layers:
            maps = stage(maps)
            outputs.append(maps)
            if stage.downsample is not None:
                maps = stage.downsample(maps)
        return tuple(outputs)

    def forward(self, images: Tensor) -> Tensor:
        """``(B, 3, S, S)`` to the image embedding ``(B, 256, S/16, S/16)``."""
        embedding: Tensor = self.neck(self.stages(images)[-1])
        return embedding
