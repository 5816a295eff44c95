"""Start the small network from the published YOLOX-Nano detector (Apache-2.0)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from masa_ros.models.tiny.network import TinyNetwork
import torch
from torch import nn, Tensor


def load_yolox_nano(network: TinyNetwork, path: str | Path) -> list[str]:
    """
    Copy backbone, pyramid and proposal branch from a YOLOX-Nano ONNX file.

    The file stores convolutions in execution order with batch norm folded in. Its first layer
    sees BGR pixels rearranged in four phases; the copy is rewritten as one 6 x 6 convolution
    with stride 2 on RGB pixels.

    Parameters
    ----------
    network : TinyNetwork
        Changed in place.
    path : str or Path
        ``yolox_nano.onnx`` of the OpenCV model zoo.

    Returns
    -------
    list of str
        Names of the parameters that were set.

    Raises
    ------
    FileNotFoundError
        If the file is missing.
    ValueError
        If the file does not hold the expected convolutions.

    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f'{path} is not there; get yolox_nano.onnx from the OpenCV model zoo '
            '(models/object_detection_yolox) and pass its place as initial_weights')
    stored = _convolutions(path)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    taken: list[str] = []
    targets = list(_execution_order(network))
    if len(stored) < len(targets):
        raise ValueError(f'{path} holds {len(stored)} convolutions, expected at least '
                         f'{len(targets)}; it is not YOLOX-Nano')
    for k, (target, (weight, bias)) in enumerate(zip(targets, stored, strict=False)):
        if target is None:
            continue
        if k == 0 and weight.shape == (16, 12, 3, 3):
            weight = _unfold_focus(weight)
        if target.bias is None or weight.shape != target.weight.shape:
            raise ValueError(
                f'{path}: convolution {k} is {tuple(weight.shape)}, expected '
                f'{tuple(target.weight.shape)}; it is not YOLOX-Nano')
        with torch.no_grad():
            target.weight.copy_(weight)
            target.bias.copy_(bias)
        taken += [names[id(target.weight)], names[id(target.bias)]]
    return taken


def _convolutions(path: str | Path) -> list[tuple[Tensor, Tensor]]:
    """Weight and bias of every convolution of an ONNX file, in graph order."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(path)).graph
    values = {item.name: item for item in graph.initializer}
    return [
        (torch.from_numpy(numpy_helper.to_array(values[node.input[1]]).copy()),
         torch.from_numpy(numpy_helper.to_array(values[node.input[2]]).copy()))
        for node in graph.node if node.op_type == 'Conv']


def _unfold_focus(weight: Tensor) -> Tensor:
    """Turn a 3x3 convolution over four pixel phases of BGR into a 6x6 one over RGB."""
    unfolded = weight.new_zeros(16, 3, 6, 6)
    # Order of the phases in the file: (row, column) = (0, 0), (1, 0), (0, 1), (1, 1).
    for phase, (row, column) in enumerate(((0, 0), (1, 0), (0, 1), (1, 1))):
        bgr = weight[:, 3 * phase:3 * phase + 3]
        unfolded[:, :, row::2, column::2] = bgr.flip(1)
    return unfolded


def _execution_order(network: TinyNetwork) -> Iterator[nn.Conv2d | None]:
    """Convolutions in the order of the file; None for those of the class branch, not used."""
    backbone, pyramid, head = network.backbone, network.pyramid, network.proposal_head
    parts: tuple[nn.Module, ...] = (
        backbone.stem, backbone.stage2, backbone.stage3, backbone.stage4,
        backbone.stage5, pyramid.lateral5, pyramid.top4, pyramid.lateral4, pyramid.top3,
        pyramid.down3, pyramid.bottom4, pyramid.down4, pyramid.bottom5)
    for part in parts:
        yield from _inside(part)
    for i in range(3):
        yield from _inside(head.stems[i])
        yield from (None,) * 5  # Two separable convolutions and the class scores.
        yield from _inside(head.towers[i])
        yield from _inside(head.boxes[i])
        yield from _inside(head.objectness[i])


def _inside(module: nn.Module) -> Iterator[nn.Conv2d]:
    """Convolutions of a module in execution order."""
    if isinstance(module, nn.Conv2d):
        yield module
    else:  # Children are declared in execution order.
        for part in module.children():
            yield from _inside(part)
