"""Track head: appearance embeddings of boxes."""

from __future__ import annotations

from masa_ros.models.heads.roi import ROI_SIZE
from torch import nn, Tensor
from torch.nn import functional

EMBEDDING_WIDTH = 256
"""Length of an embedding."""


class _ConvNorm(nn.Module):
    """Convolution ``conv`` without bias, group normalization ``gn``, ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.gn = nn.GroupNorm(32, channels)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.gn(self.conv(x)))


class EmbeddingHead(nn.Module):
    """
    Four convolutions and two linear layers.

    Parameters
    ----------
    channels : int
        Width of the pyramid.
    hidden : int
        Width of the inner linear layer.

    """

    def __init__(self, channels: int = 256, hidden: int = 1024) -> None:
        super().__init__()
        self.convs = nn.ModuleList(_ConvNorm(channels) for _ in range(4))
        self.fcs = nn.ModuleList([nn.Linear(channels * ROI_SIZE ** 2, hidden)])
        self.fc_embed = nn.Linear(hidden, EMBEDDING_WIDTH)
        nn.init.xavier_uniform_(self.fcs[0].weight)  # type: ignore[arg-type]
        nn.init.normal_(self.fc_embed.weight, std=0.01)
        nn.init.zeros_(self.fc_embed.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Embed pooled features ``(N, C, 7, 7)`` as ``(N, 256)``, not normalized."""
        for conv in self.convs:
            features = conv(features)
        hidden = functional.relu(self.fcs[0](features.flatten(1)))
        embeddings: Tensor = self.fc_embed(hidden)
        return embeddings


class TrackHead(nn.Module):
    """Holder that gives the embedding head its published name."""

    def __init__(self, channels: int = 256) -> None:
        super().__init__()
        self.embed_head = EmbeddingHead(channels)

    def forward(self, features: Tensor) -> Tensor:
        """Embed pooled features ``(N, C, 7, 7)`` as ``(N, 256)``."""
        embeddings: Tensor = self.embed_head(features)
        return embeddings
