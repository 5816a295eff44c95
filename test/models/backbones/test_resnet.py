"""ResNet-50 with the strides of the Caffe models."""

from __future__ import annotations

from masa_ros.models.backbones.resnet import ResNet50, WIDTHS
import torch
from torch import nn


def test_stages_halve_in_their_first_1x1_convolution() -> None:
    network = ResNet50()
    strides = {name: module.stride for name, module in network.named_modules()
               if isinstance(module, nn.Conv2d) and module.stride != (1, 1)}
    expected = {'conv1'} | {f'layer{i}.0.{part}' for i in (2, 3, 4)
                            for part in ('conv1', 'downsample.0')}
    assert set(strides) == expected


def test_levels_have_strides_4_to_32() -> None:
    levels = ResNet50().eval()(torch.zeros(1, 3, 64, 96))
    assert [tuple(level.shape) for level in levels] == [
        (1, width, 64 // stride, 96 // stride)
        for width, stride in zip(WIDTHS, (4, 8, 16, 32), strict=True)]
