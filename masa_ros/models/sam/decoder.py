"""
Boxes through SAM's mask decoder in batches, with what depends on the image alone done once.

The arithmetic is that of the package's ``MaskDecoder`` with one mask per prompt, rearranged
without approximation; results differ by rounding only. There are always seven tokens per box (one
for the predicted IoU, four for masks, two for the box corners) against 4096 image tokens, so:

- the first layer's image-side projections are the same for every box and are computed once;
- elsewhere the projections of the image tokens are moved to the few prompt tokens:
  ``q (W k) = (q W) k``, ``a (W v) = (a v) W`` and ``(a v) W = a (v W)``;
- only mask token 0 is decoded, and only in the cells of the image grid that its box needs.

"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from segment_anything.modeling import MaskDecoder, PromptEncoder
import torch
from torch import Tensor
import torch.nn.functional as F


@dataclass(frozen=True)
class PreparedImage:
    """
    What the decoder needs of one image, whatever the boxes.

    Parameters
    ----------
    tokens : Tensor
        ``(T, 256)`` image embedding plus the constant "no mask" prompt, row by row.
    keys, values : Tensor
        ``(heads, T, C)`` of the first attention from prompt tokens to image tokens.

    """

    tokens: Tensor
    keys: Tensor
    values: Tensor


class BoxDecoder:
    """
    SAM's mask decoder for box prompts.

    Parameters
    ----------
    prompt_encoder : PromptEncoder
        The package's; stays in float32 because positions need its precision.
    mask_decoder : MaskDecoder
        The package's; copied when another type is asked for.
    dtype : torch.dtype
        Arithmetic of the decoder.
    compiled : bool
        Compile the attention layers; the number of boxes is then padded to powers of two so that
        few shapes occur.

    """

    def __init__(
        self,
        prompt_encoder: PromptEncoder,
        mask_decoder: MaskDecoder,
        dtype: torch.dtype = torch.float32,
        compiled: bool = False,
    ) -> None:
        self._prompts: Any = prompt_encoder
        parameter = next(mask_decoder.parameters())
        self._decoder: Any = (
            mask_decoder if parameter.dtype == dtype else deepcopy(mask_decoder).to(dtype))
        self._transformer: Any = self._decoder.transformer
        self._dtype = dtype
        self._compiled = compiled
        self._attend = torch.compile(self._run_layers) if compiled else self._run_layers
        with torch.no_grad():
            positions = prompt_encoder.get_dense_pe()[0].flatten(1).T
            self._positions = positions.to(dtype)
            self._output_tokens = torch.cat(
                (self._decoder.iou_token.weight, self._decoder.mask_tokens.weight))

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the image embedding."""
        height, width = self._prompts.image_embedding_size
        return int(height), int(width)

    def prepare(self, embedding: Tensor) -> PreparedImage:
        """
        Do the work that depends on the image alone.

        Parameters
        ----------
        embedding : Tensor
            ``(256, h, w)`` of the encoder's neck.

        """
        tokens = (embedding.to(self._dtype).flatten(1).T
                  + self._prompts.no_mask_embed.weight.to(self._dtype))
        attention = self._transformer.layers[0].cross_attn_token_to_image
        heads = attention.num_heads
        keys = _split(attention.k_proj(tokens + self._positions), heads)
        values = _split(attention.v_proj(tokens), heads)
        return PreparedImage(tokens, keys, values)

    def decode(
        self,
        image: PreparedImage,
        boxes: Tensor,
        windows: NDArray[np.int64] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """
        Predict one mask for each box.

        Parameters
        ----------
        image : PreparedImage
            From `prepare`.
        boxes : Tensor
            ``(N, 4)`` float32 xyxy in pixels of the encoder's input; need not lie inside.
        windows : ndarray, optional
            ``(N, 4)`` cells ``x0, y0, x1, y1`` of the embedding grid where the mask is wanted,
            such as `postprocess.Regions.windows`; everywhere when missing.

        Returns
        -------
        logits : Tensor
            ``(N, 4h, 4w)`` float32; positive inside the object, 0 outside the windows.
        qualities : Tensor
            ``(N,)`` float32 predicted IoU.

        """
        count = len(boxes)
        rows, columns = self.grid
        if count == 0:
            return boxes.new_zeros((0, 4 * rows, 4 * columns)), boxes.new_zeros(0)
        if self._compiled:
            boxes = F.pad(boxes, (0, 0, 0, (1 << (count - 1).bit_length()) - count))
        corners = self._prompts._embed_boxes(boxes.float()).to(self._dtype)
        prompt = torch.cat((self._output_tokens.expand(len(boxes), -1, -1), corners), dim=1)
        tokens, image_tokens = self._attend(image.tokens, image.keys, image.values, prompt)
        tokens, image_tokens = tokens[:count], image_tokens[:count]
        qualities = self._decoder.iou_prediction_head(tokens[:, 0])[:, 0].float()
        kernels = self._decoder.output_hypernetworks_mlps[0](tokens[:, 1])
        if windows is None:
            windows = np.tile(np.array([0, 0, columns, rows], np.int64), (count, 1))
        return self._logits(image_tokens, kernels, windows), qualities

    def _run_layers(
        self, image: Tensor, keys: Tensor, values: Tensor, prompt: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Two-way transformer: ``(N, 7, 256)`` tokens and ``(N, T, 256)`` image tokens out."""
        positions = self._positions
        first, second = self._transformer.layers
        queries = first.norm1(first.self_attn(prompt, prompt, prompt))
        queries = first.norm2(queries + _attend_shared(
            first.cross_attn_token_to_image, queries + prompt, keys, values))
        queries = first.norm3(queries + first.mlp(queries))
        images = first.norm4(_update_image(
            first.cross_attn_image_to_token, image[None], positions, queries + prompt, queries))

        seeking = queries + prompt
        queries = second.norm1(queries + second.self_attn(seeking, seeking, queries))
        queries = second.norm2(queries + _attend_own(
            second.cross_attn_token_to_image, queries + prompt, images, positions))
        queries = second.norm3(queries + second.mlp(queries))
        images = second.norm4(_update_image(
            second.cross_attn_image_to_token, images, positions, queries + prompt, queries))

        attended = _attend_own(
            self._transformer.final_attn_token_to_image, queries + prompt, images, positions)
        return self._transformer.norm_final_attn(queries + attended), images

    def _logits(self, image: Tensor, kernels: Tensor, windows: NDArray[np.int64]) -> Tensor:
        """Upscale the cells of each window and project them on the mask's kernel."""
        rows, columns = self.grid
        box, cell = _cells(windows, columns, image.device)
        enlarged = self._upscale(image[box, cell])
        values = (enlarged * kernels[box][:, None, :]).sum(-1).float()
        canvas = values.new_zeros(len(windows), rows * columns, 16)
        canvas[box, cell] = values
        # Cell (y, x), first upscaling (i, j), second (k, l): pixel (4y + 2i + k, 4x + 2j + l).
        canvas = canvas.view(-1, rows, columns, 2, 2, 2, 2).permute(0, 1, 3, 5, 2, 4, 6)
        return canvas.reshape(-1, 4 * rows, 4 * columns)

    def _upscale(self, cells: Tensor) -> Tensor:
        """``(M, 256)`` cells to ``(M, 16, 32)``: both transposed convolutions, cell by cell."""
        first, norm, activation, second, activation_again = self._decoder.output_upscaling
        hidden = _deconvolve(first, cells)
        hidden = activation(F.layer_norm(
            hidden, hidden.shape[-1:], norm.weight, norm.bias, norm.eps))
        enlarged: Tensor = activation_again(_deconvolve(second, hidden))
        return enlarged.flatten(1, -2)


def _deconvolve(convolution: Any, cells: Tensor) -> Tensor:
    """Transposed 2 x 2 convolution of stride 2: ``(..., C)`` cells to ``(..., 4, C')``."""
    weight = convolution.weight.permute(2, 3, 1, 0).flatten(0, 2)
    bias = convolution.bias.repeat(4)
    return F.linear(cells, weight, bias).view(
        *cells.shape[:-1], 4, convolution.out_channels)


def _cells(
    windows: NDArray[np.int64], columns: int, device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Box and cell number of every cell of every window."""
    boxes, cells = [], []
    for row, (x0, y0, x1, y1) in enumerate(windows):
        block = (np.arange(y0, y1)[:, None] * columns + np.arange(x0, x1)[None]).ravel()
        cells.append(block)
        boxes.append(np.full(len(block), row))
    index = torch.from_numpy(np.stack((np.concatenate(boxes), np.concatenate(cells)))).to(device)
    return index[0], index[1]


def _split(tokens: Tensor, heads: int) -> Tensor:
    """``(..., T, heads * C)`` to ``(..., heads, T, C)``."""
    return tokens.view(*tokens.shape[:-1], heads, -1).transpose(-3, -2)


def _attend_shared(attention: Any, tokens: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Prompt tokens ``(N, t, 256)`` of all boxes attend to one image ``(heads, T, C)``."""
    count, length, _ = tokens.shape
    queries = _split(attention.q_proj(tokens).flatten(0, 1), attention.num_heads)
    attended = F.scaled_dot_product_attention(queries[None], keys[None], values[None])[0]
    merged = attended.transpose(0, 1).reshape(count, length, -1)
    projected: Tensor = attention.out_proj(merged)
    return projected


def _attend_own(attention: Any, tokens: Tensor, images: Tensor, positions: Tensor) -> Tensor:
    """Prompt tokens ``(N, t, 256)`` attend to their own image tokens ``(N, T, 256)``."""
    count, length, width = tokens.shape
    heads = attention.num_heads
    queries = _split(attention.q_proj(tokens), heads)
    queries = queries * queries.shape[-1] ** -0.5
    # The bias of the key projection adds the same to every key's score: softmax cancels it.
    sought = (queries @ attention.k_proj.weight.view(heads, -1, width)).flatten(1, 2)
    weights = _scores(sought, images, positions).softmax(-1)
    gathered = (weights @ images).view(count, heads, length, width)
    value_weight = attention.v_proj.weight.view(heads, -1, width)
    merged = (gathered @ value_weight.transpose(1, 2)).transpose(1, 2).flatten(2)
    projected: Tensor = attention.out_proj(merged + attention.v_proj.bias)
    return projected


def _update_image(
    attention: Any, images: Tensor, positions: Tensor, keys: Tensor, values: Tensor,
) -> Tensor:
    """Add to image tokens ``(N or 1, T, 256)`` what they see in the prompt tokens."""
    heads = attention.num_heads
    count, length, width = keys.shape
    keys = _split(attention.k_proj(keys), heads)
    keys = keys * keys.shape[-1] ** -0.5
    sought = (keys @ attention.q_proj.weight.view(heads, -1, width)).flatten(1, 2)
    offset = (keys * attention.q_proj.bias.view(heads, 1, -1)).sum(-1).flatten(1)
    scores = _scores(sought, images, positions) + offset[..., None]
    weights = scores.view(count, heads, length, -1).softmax(2).flatten(1, 2)

    values = _split(attention.v_proj(values), heads)
    output_weight = attention.out_proj.weight.view(width, heads, -1).transpose(0, 1)
    # The weights of a head sum to 1, so an equal share of the bias in each row adds up to it.
    offered = (values @ output_weight.transpose(1, 2)).flatten(1, 2)
    offered = offered + attention.out_proj.bias / heads
    return torch.baddbmm(images.expand(count, -1, -1), weights.transpose(1, 2), offered)


def _scores(sought: Tensor, images: Tensor, positions: Tensor) -> Tensor:
    """``(N, t, T)`` products of ``sought`` with image tokens plus their position codes."""
    count, rows, _ = sought.shape
    if len(images) == 1:
        product = sought.flatten(0, 1) @ (images[0] + positions).T
        return product.view(count, rows, -1)
    placed = (sought.flatten(0, 1) @ positions.T).view(count, rows, -1)
    return torch.baddbmm(placed, sought, images.transpose(1, 2))


def chunks(count: int, size: int) -> Sequence[slice]:
    """Slices of at most ``size`` that cover ``count`` rows."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]
