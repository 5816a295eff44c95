"""Sizes of the Segment Anything variants, and their networks without weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from segment_anything.modeling import (
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)
import torch
from torch import nn

EMBEDDING_WIDTH = 256
"""Channels of the neck, of the prompts and of the mask decoder, in every variant."""

PIXEL_MEAN = (123.675, 116.28, 103.53)
"""RGB mean that SAM subtracts, in grey levels."""

PIXEL_STD = (58.395, 57.12, 57.375)
"""RGB standard deviation that SAM divides by, in grey levels."""


@dataclass(frozen=True)
class VitArchitecture:
    """
    Sizes of a plain vision transformer with a few global-attention blocks.

    Parameters
    ----------
    width : int
        Channels of a token.
    depth : int
        Number of blocks.
    heads : int
        Attention heads per block.
    global_blocks : tuple of int
        Blocks with attention over the whole image; the other ones use windows. Their outputs are
        what the MASA adapter takes.
    image_size : int
        Side of the square input in pixels. The position embeddings fix it.
    window : int
        Side of an attention window in tokens.
    patch : int
        Side of a token in pixels.
    out_channels : int
        Channels of the neck.

    """

    width: int
    depth: int
    heads: int
    global_blocks: tuple[int, ...]
    image_size: int = 1024
    window: int = 14
    patch: int = 16
    out_channels: int = EMBEDDING_WIDTH


@dataclass(frozen=True)
class TinyVitArchitecture:
    """
    Sizes of MobileSAM's encoder, a convolutional stage and three windowed-attention stages.

    Parameters
    ----------
    widths, depths, heads, windows : tuple of int
        Channels, blocks, attention heads and window side of each of the four stages. The first
        stage is convolutional and uses neither heads nor windows.
    image_size : int
        Side of the square input in pixels.

    """

    widths: tuple[int, int, int, int] = (64, 128, 160, 320)
    depths: tuple[int, int, int, int] = (2, 2, 6, 2)
    heads: tuple[int, int, int, int] = (2, 4, 5, 10)
    windows: tuple[int, int, int, int] = (7, 7, 14, 7)
    image_size: int = 1024


ARCHITECTURES: dict[str, VitArchitecture | TinyVitArchitecture] = {
    'sam_vit_b': VitArchitecture(768, 12, 12, (2, 5, 8, 11)),
    'sam_vit_l': VitArchitecture(1024, 24, 16, (5, 11, 17, 23)),
    'sam_vit_h': VitArchitecture(1280, 32, 16, (7, 15, 23, 31)),
    'mobile_sam': TinyVitArchitecture(),
}
"""The published variants by the names that `ModelConfig` uses."""


def build_vit(architecture: VitArchitecture) -> ImageEncoderViT:
    """
    Build the image encoder with its usual initialization, in evaluation mode.

    Put it under ``torch.device('meta')`` when weights are loaded right after.
    """
    return ImageEncoderViT(
        img_size=architecture.image_size,
        patch_size=architecture.patch,
        embed_dim=architecture.width,
        depth=architecture.depth,
        num_heads=architecture.heads,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=architecture.window,
        global_attn_indexes=architecture.global_blocks,
        out_chans=architecture.out_channels,
    ).eval()


def build_network(architecture: VitArchitecture | TinyVitArchitecture) -> Sam:
    """
    Build a whole SAM on the meta device: names and shapes, but no memory and no weights.

    A random initialization of ViT-H takes half a minute and would be overwritten at once; fill
    the network with `masa_ros.models.sam.checkpoint.assign`.

    Returns
    -------
    Sam
        In evaluation mode, all parameters on ``meta`` and frozen.

    """
    with torch.device('meta'):
        if isinstance(architecture, VitArchitecture):
            encoder: nn.Module = build_vit(architecture)
        else:
            from masa_ros.models.sam.tiny_vit import TinyVit
            encoder = TinyVit(architecture)
        grid = architecture.image_size // 16
        network = Sam(
            image_encoder=encoder,
            prompt_encoder=PromptEncoder(
                embed_dim=EMBEDDING_WIDTH,
                image_embedding_size=(grid, grid),
                input_image_size=(architecture.image_size, architecture.image_size),
                mask_in_chans=16,
            ),
            mask_decoder=MaskDecoder(
                transformer_dim=EMBEDDING_WIDTH,
                transformer=TwoWayTransformer(
                    depth=2, embedding_dim=EMBEDDING_WIDTH, mlp_dim=2048, num_heads=8),
            ),
        )
    # These two are not in the files, so loading would leave them on the meta device.
    network.register_buffer('pixel_mean', torch.tensor(PIXEL_MEAN).view(-1, 1, 1), False)
    network.register_buffer('pixel_std', torch.tensor(PIXEL_STD).view(-1, 1, 1), False)
    network.eval().requires_grad_(False)
    return network
