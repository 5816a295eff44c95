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
    open_vocabulary: bool
    """Whether it looks for any class that is named, instead of choosing among its own."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Classes it finds now, in order; empty where they have numbers only, or none."""
        ...

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
            descending score; no masks and no embeddings. A name keeps its class id for the life
            of the detector.

        """
        ...

    def set_classes(self, names: Sequence[str]) -> None:
        """
        Change what is looked for, from the next call of `detect` on.

        May be called from any thread, also while `detect` runs in another.

        Parameters
        ----------
        names : sequence of str
            Class names; none means all that the detector knows.

        Raises
        ------
        ValueError
            If the detector has a fixed set of classes and one is not among them, or if it needs
            names and there are none. What was looked for before stays.

        """

    def reconfigure(self, config: Any) -> None:
        """
        Take over the settings of a `masa_ros.detectors.DetectorConfig` that may change.

        Called between two frames; settings that are not dynamic are the same as at building.
        """

    def close(self) -> None:
        """Free memory."""


class SharingDetector(Detector, Protocol):
    """A detector that can work on the features that the model's own pass makes."""

    shares_features: bool
    """Whether this one does: model and detector have the same backbone with the same weights."""

    def detect_encoded(self, encoded: Any, rows: Sequence[int]) -> list[Instances]:
        """
        Detect objects in images that the model has encoded.

        Parameters
        ----------
        encoded : sequence of masa_ros.models.masa.EncodedBatch
            What the model's ``encode`` gave.
        rows : sequence of int
            Indices of the images that are wanted; the results come in this order.

        """
        ...
