"""What the trainer asks of a network, and which networks it can train."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from masa_ros.training.config import TrainConfig
from masa_ros.training.dataset import Batch, PairDataset
import torch
from torch import nn, Tensor


@dataclass(frozen=True)
class Step:
    """
    Where a batch goes and what its random choices follow from.

    Parameters
    ----------
    device : torch.device
        Where the network is.
    generator : torch.Generator
        On the CPU, seeded by run, step and process.

    """

    device: torch.device
    generator: torch.Generator


class Trainable(Protocol):
    """
    A network with its losses.

    The network's parameters and buffers are what is learned, averaged, shared between processes
    and saved; what is frozen for good (an encoder of a gigabyte) stays outside of it.
    """

    network: nn.Module
    slow: set[str]
    """Parameters that were learned before and move slowly."""

    def to(self, device: torch.device) -> None:
        """Move everything, the frozen parts too."""
        ...

    def losses(self, network: nn.Module, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Give the weighted losses of a batch; ``network`` is the own one, maybe wrapped."""
        ...

    def validate(self, network: nn.Module, dataset: PairDataset) -> dict[str, float]:
        """Score the own or the averaged network on held-out pairs."""
        ...

    def export(self, network: nn.Module, run: Path) -> Path | None:
        """Write what models load, where that is not the checkpoint itself."""
        ...

    def cached(self, dataset: PairDataset, folder: Path, main: bool) -> PairDataset:
        """Compute what is frozen once for all pairs; see ``data.cached_pairs``."""
        ...


def build_trainable(config: TrainConfig) -> Trainable:
    """
    Build the network that a recipe names, at its start.

    Raises
    ------
    FileNotFoundError
        If weights to start from are not there.
    ValueError
        If they do not fit.

    """
    if config.model == 'tiny':
        from masa_ros.training.tiny import TinyTrainable
        return TinyTrainable(config)
    from masa_ros.training.masa import MasaTrainable
    return MasaTrainable(config)
