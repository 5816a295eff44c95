"""ResNet-50 from torchvision, with the strides of the Caffe models."""

from __future__ import annotations

from torch import nn, Tensor
from torchvision.models import resnet50

WIDTHS = (256, 512, 1024, 2048)
"""Channels of the four outputs, at strides 4, 8, 16 and 32."""


class ResNet50(nn.Module):
    """
    Feature extractor.

    torchvision halves the resolution of a stage in its first 3x3 convolution; the model that the
    weights belong to does it in the 1x1 convolution before.
    """

    def __init__(self) -> None:
        super().__init__()
        network = resnet50(weights=None)
        for stage in (network.layer2, network.layer3, network.layer4):
            stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
        self.conv1, self.bn1 = network.conv1, network.bn1
        self.layer1, self.layer2 = network.layer1, network.layer2
        self.layer3, self.layer4 = network.layer3, network.layer4

    def forward(self, x: Tensor) -> list[Tensor]:
        """Features of normalized images ``(B, 3, H, W)``: four levels from fine to coarse."""
        x = nn.functional.relu(self.bn1(self.conv1(x)))
        x = nn.functional.max_pool2d(x, 3, stride=2, padding=1)
        levels = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            levels.append(x)
        return levels
