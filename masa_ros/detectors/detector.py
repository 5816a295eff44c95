"""The protocol of detectors: images in, boxes with classes out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from masa_ros.structures.instances import Instances
import numpy as np
from numpy.typing import NDArray


class Detector(Protocol):
    """Finds boxes with class and score."""

    name: str

    def warm_up(self) -> None:
        """Run once on a dummy image."""

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[Instances]:
        """
        Detect objects in each image.

        Parameters
        ----------
        images : sequence of ndarray
            Each ``(H, W, 3)`` uint8 RGB.

        Returns
        -------
        list of Instances
            Boxes in the pixels of each input image, with scores, class ids and labels, by
            descending score; no masks and no embeddings.

        """
        ...

    def reconfigure(self, config: Any) -> None:
        """
        Take over the settings of a `masa_ros.detectors.DetectorConfig` that may change.

        Called between two frames; settings that are not dynamic are the same as at building.
        """

    def close(self) -> None:
        """Free memory."""
