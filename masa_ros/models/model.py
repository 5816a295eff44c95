"""The protocol every model follows: images and boxes in, masks and embeddings out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from masa_ros.structures.instances import Instances
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class WeightsInfo:
    """
    Which weights a model runs; part of every report, log and fingerprint.

    Parameters
    ----------
    files : tuple of str
        File names, without folders; empty for a model without weights.
    sha256 : str
        Hex digest of the file, or of several files' digests in that order; empty without files.
    trained : bool or None
        Whether the weights were learned from data: ``False`` for random (seeded) ones, ``None``
        for a model that has none to learn, and for a file that is neither a published nor a
        seeded one, of which nobody can tell.

    """

    files: tuple[str, ...] = ()
    sha256: str = ''
    trained: bool | None = None

    def summary(self) -> str:
        """One line for logs, such as ``sam_vit_b_01ec64.pth (sha256 ec2df62732, trained)``."""
        if not self.files:
            return 'no weights needed'
        states = {True: 'trained', False: 'NOT TRAINED (random weights)',
                  None: 'not a published file, training unknown'}
        return f'{" + ".join(self.files)} (sha256 {self.sha256[:10]}, {states[self.trained]})'


class Model(Protocol):
    """
    Segments and describes objects.

    A model is built and used from one thread. Images of one call may differ in size.
    """

    name: str
    weights: WeightsInfo
    device: str
    can_propose: bool
    """Whether it finds objects by itself when no detections are given."""

    def warm_up(self) -> None:
        """Run once on a dummy image, so that the first real frame is not slow."""

    def run(
        self,
        images: Sequence[NDArray[np.uint8]],
        detections: Sequence[Instances | None],
    ) -> list[Instances]:
        """
        Segment and embed the objects of several images in one pass.

        Parameters
        ----------
        images : sequence of ndarray
            Each ``(H, W, 3)`` uint8 RGB.
        detections : sequence of Instances or None
            Boxes to use for each image, in its pixels, already checked with
            `masa_ros.structures.boxes.valid_boxes`; ``None`` asks for the model's own proposals.

        Returns
        -------
        list of Instances
            One per image. Given detections come back row by row in the same order with masks,
            mask qualities and embeddings filled in; boxes, scores, classes and labels untouched.

        Raises
        ------
        ValueError
            If proposals are asked of a model that has none.

        """
        ...

    def reconfigure(self, config: Any) -> None:
        """
        Take over the settings of a `masa_ros.models.ModelConfig` that may change while running.

        Called between two frames; settings that are not dynamic are the same as at building.
        """

    def close(self) -> None:
        """Free the memory of the device; the model cannot be used afterwards."""
