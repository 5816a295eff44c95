"""
Modulated deformable 3x3 convolution, with a faster exact way on the CPU.

`torchvision.ops.deform_conv2d` walks the samples one scalar at a time on a CPU. Here the input
becomes a table with one row of channels per pixel, so that a bilinear sample is a weighted sum of
four rows (one vectorised ``embedding_bag``), and all nine taps end in one matrix product. Tiles
of output positions keep the columns in the processor's cache.

Convention: offsets are ``(dy, dx)`` pairs, kernel positions row-major, as in torchvision.
"""

from __future__ import annotations

from masa_ros.models.cpu import linear
import torch
from torch import nn, Tensor
from torch.nn import functional
from torchvision.ops import deform_conv2d

_TAPS = 9
# Positions per matrix product and thread: 1024 x 9 x 256 float32 columns are 9 MiB, which stays in
# the last-level cache; 512 and 2048 are as good, 4096 costs half as much again. Threads share a
# tile, because each tile makes them wait for each other.
_TILE = 1024
# Columns of 32 MiB and more would come from the system anew for every tile, page by page.
_LARGEST_TILE = 3072
# Tiles are multiples of this; see `linear`.
_STEP = 16


class ModulatedDeformConv2d(nn.Module):
    """
    Deformable 3x3 convolution with sample weights, padding 1 and no bias.

    Parameters
    ----------
    in_channels, out_channels : int
        Widths.
    stride : int
        Step between output positions.

    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, 3, 3))
        bound = (in_channels * _TAPS) ** -0.5
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, x: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
        """
        Convolve.

        Parameters
        ----------
        x : Tensor
            ``(B, C, H, W)``.
        offset : Tensor
            ``(B, 18, h, w)``; see `read_as_size` for sizes other than the output's.
        mask : Tensor
            ``(B, 9, h, w)`` sample weights in ``[0, 1]``.

        Returns
        -------
        Tensor
            ``(B, O, ceil(H / stride), ceil(W / stride))``.

        """
        height = -(-x.shape[2] // self.stride)
        width = -(-x.shape[3] // self.stride)
        return deformable_convolution(
            x, read_as_size(offset, height, width), read_as_size(mask, height, width),
            self.weight, self.stride)


def read_as_size(sampling: Tensor, height: int, width: int) -> Tensor:
    """
    Read an offset or mask tensor as the reference operator reads one of another size.

    The operator never compares sizes: it takes the first ``channels * height * width`` numbers
    of each sample's memory as a tensor of the output's size. Published weights were trained
    with that, so any other reading (resizing, cropping) moves the features.

    Parameters
    ----------
    sampling : Tensor
        ``(B, K, H, W)``.
    height, width : int
        Size of the convolution's output.

    Returns
    -------
    Tensor
        ``(B, K, height, width)``; the input itself where the sizes agree.

    Raises
    ------
    ValueError
        If the tensor holds fewer numbers than the output needs.

    References
    ----------
    open-mmlab/mmcv 2.1, ``modulated_deform_conv``, as called by siyuanliii/masa,
    ``masa/models/masa_adapter``.

    """
    batch, channels, own_height, own_width = sampling.shape
    if (own_height, own_width) == (height, width):
        return sampling
    if own_height * own_width < height * width:
        raise ValueError(
            f'offsets of {own_height} x {own_width} are too few for an output of {height} x '
            f'{width}; each pyramid level must be half the size of the one before')
    flat = sampling.reshape(batch, -1)[:, :channels * height * width]
    return flat.reshape(batch, channels, height, width)


def deformable_convolution(
    x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, stride: int = 1,
) -> Tensor:
    """
    Deformable 3x3 convolution with padding 1, by the fastest exact way for the device.

    Parameters
    ----------
    x : Tensor
        ``(B, C, H, W)``.
    offset, mask : Tensor
        ``(B, 18, h, w)`` and ``(B, 9, h, w)``, of the output's size.
    weight : Tensor
        ``(O, C, 3, 3)``.
    stride : int
        Step between output positions.

    Returns
    -------
    Tensor
        ``(B, O, h, w)``, in the type of `x`.

    """
    learning = torch.is_grad_enabled() and any(
        tensor.requires_grad for tensor in (x, offset, mask, weight))
    if x.device.type == 'cpu' and not learning:
        gathered: Tensor = gather_convolution(x, offset, mask, weight, stride)
        return gathered
    # torchvision computes positions in the type of the input; half precision would round them to
    # a quarter pixel at column 256, and it has no bfloat16.
    precise = torch.promote_types(x.dtype, torch.float32)
    result: Tensor = deform_conv2d(
        x.to(precise), offset.to(precise), weight.to(precise), None, (stride, stride), (1, 1),
        (1, 1), mask.to(precise))
    result = result.to(x.dtype)
    return result


@torch.compiler.disable  # type: ignore[untyped-decorator]
def gather_convolution(
    x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, stride: int = 1,
    tile: int = 0,
) -> Tensor:
    """
    `deformable_convolution` by row gathers and matrix products, for CPUs; no gradients.

    The result has channels-last memory, as the next convolution wants it. A tile of 0 positions
    takes what suits the number of threads.
    """
    tile = tile or min(_TILE * torch.get_num_threads(), _LARGEST_TILE)
    batch, channels, height, width = x.shape
    outputs, positions = weight.shape[0], offset.shape[2] * offset.shape[3]
    # One pixel's channels must lie together; free where the memory is channels-last already.
    rows = x.permute(0, 2, 3, 1).contiguous().view(batch, height * width, channels)
    precise = torch.promote_types(x.dtype, torch.float32)
    kernel = weight.permute(0, 2, 3, 1).reshape(outputs, _TAPS * channels)
    padded = -(-positions // _STEP) * _STEP
    result = x.new_empty(batch, padded, outputs)
    for sample in range(batch):
        corners, shares = _bilinear_corners(
            offset[sample].to(precise), mask[sample].to(precise), height, width, stride)
        # The positions that are too many read the first pixel with weight 0.
        corners = functional.pad(corners, (0, 0, 0, 0, 0, padded - positions))
        shares = functional.pad(shares, (0, 0, 0, 0, 0, padded - positions)).to(x.dtype)
        for start in range(0, padded, tile):
            block = slice(start, start + tile)
            columns = functional.embedding_bag(
                corners[block].reshape(-1, 4), rows[sample],
                per_sample_weights=shares[block].reshape(-1, 4), mode='sum')
            result[sample, block] = linear(columns.view(-1, _TAPS * channels), kernel)
    image = result[:, :positions].view(batch, *offset.shape[2:], outputs)
    return image.permute(0, 3, 1, 2)


def _bilinear_corners(
    offset: Tensor, mask: Tensor, height: int, width: int, stride: int,
) -> tuple[Tensor, Tensor]:
    """
    Rows of the pixel table and their weights for every output position and tap.

    Returns
    -------
    tuple of Tensor
        ``(P, 9, 4)`` int32 rows and ``(P, 9, 4)`` weights, the mask included. Corners outside
        the image have weight 0.

    """
    out_height, out_width = offset.shape[1:]
    moves = offset.view(_TAPS, 2, out_height, out_width)
    taps = torch.arange(_TAPS)
    y = moves[:, 0] + (torch.arange(out_height) * stride - 1)[:, None] + (
        taps // 3)[:, None, None]
    x = moves[:, 1] + (torch.arange(out_width) * stride - 1) + (taps % 3)[:, None, None]
    top, left = y.floor(), x.floor()
    below, right = (y - top).flatten(1).T, (x - left).flatten(1).T
    # Far outside is as good as just outside, and fits an integer.
    row = top.clamp(-2, height).int().flatten(1).T
    column = left.clamp(-2, width).int().flatten(1).T
    weights = mask.flatten(1).T
    corners = torch.empty(*row.shape, 4, dtype=torch.int32)
    shares = torch.empty(*row.shape, 4, dtype=offset.dtype)
    for corner in range(4):
        down, along = divmod(corner, 2)
        r, c = row + down, column + along
        inside = (r >= 0) & (r < height) & (c >= 0) & (c < width)
        share = (below if down else 1 - below) * (right if along else 1 - right) * weights
        corners[..., corner] = torch.where(inside, r * width + c, 0)
        shares[..., corner] = torch.where(inside, share, 0.0)
    return corners, shares
