"""All boxes of an image into masks, as many at once as the memory holds."""

from __future__ import annotations

from masa_ros.models.memory import Portions
from masa_ros.models.sam.decoder import BoxDecoder
from masa_ros.models.sam.postprocess import MARGIN, masks_from_logits, Regions
from masa_ros.models.sam.preprocess import Geometry
from masa_ros.structures.masks import RoiMask
import numpy as np
from numpy.typing import NDArray
import torch
from torch import Tensor


class BoxSegmenter:
    """
    Boxes of an image into masks.

    Parameters
    ----------
    decoder : BoxDecoder
        The mask decoder.
    at_once : int
        Boxes decoded together. Each needs about 20 MB in float32. When memory runs out the number
        is halved for good, and a warning says so.

    """

    def __init__(self, decoder: BoxDecoder, at_once: int = 32) -> None:
        self._decoder = decoder
        self._portions = Portions('masks', at_once)

    @property
    def at_once(self) -> int:
        """Boxes that are decoded together now."""
        return self._portions.at_once

    @torch.no_grad()
    def segment(
        self,
        embedding: Tensor,
        boxes: NDArray[np.float32],
        geometry: Geometry,
        margin: float = MARGIN,
    ) -> tuple[list[RoiMask], NDArray[np.float32]]:
        """
        Segment what boxes show.

        Parameters
        ----------
        embedding : Tensor
            ``(256, h, w)`` of the encoder's neck.
        boxes : ndarray
            ``(N, 4)`` xyxy in image pixels, finite. One outside the image gets an empty mask.
        geometry : Geometry
            Of the image.
        margin : float
            See `Regions.around`.

        Returns
        -------
        masks : list of RoiMask
            ``N`` masks over the boxes' regions.
        qualities : ndarray
            ``(N,)`` float32 predicted IoU.

        Raises
        ------
        MemoryError
            If there is not even room for one box.

        """
        masks: list[RoiMask] = []
        qualities = [np.zeros(0, np.float32)]
        if len(boxes) == 0:
            return masks, qualities[0]
        image = self._decoder.prepare(embedding)
        regions = Regions.around(boxes, geometry, margin)
        prompts = torch.from_numpy(geometry.to_input(boxes)).to(embedding.device)

        def decode(rows: slice) -> tuple[list[RoiMask], NDArray[np.float32]]:
            part = regions.select(rows)
            logits, quality = self._decoder.decode(image, prompts[rows], part.windows)
            return masks_from_logits(logits, part, geometry), quality.cpu().numpy()

        for made, quality in self._portions.run(len(boxes), decode):
            masks += made
            qualities.append(quality)
        return masks, np.concatenate(qualities)
