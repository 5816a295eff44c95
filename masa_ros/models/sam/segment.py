"""All boxes of an image into masks, as many at once as the memory holds."""

from __future__ import annotations

import logging

from masa_ros.models.sam.decoder import BoxDecoder
from masa_ros.models.sam.postprocess import MARGIN, masks_from_logits, Regions
from masa_ros.models.sam.preprocess import Geometry
from masa_ros.structures.masks import RoiMask
import numpy as np
from numpy.typing import NDArray
import torch
from torch import Tensor

_LOG = logging.getLogger(__name__)


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
        self.at_once = at_once

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
        torch.cuda.OutOfMemoryError
            If there is not even room for one box.

        """
        masks: list[RoiMask] = []
        qualities = [np.zeros(0, np.float32)]
        if len(boxes) == 0:
            return masks, qualities[0]
        image = self._decoder.prepare(embedding)
        regions = Regions.around(boxes, geometry, margin)
        prompts = torch.from_numpy(geometry.to_input(boxes)).to(embedding.device)
        while len(masks) < len(boxes):
            rows = slice(len(masks), len(masks) + self.at_once)
            part = regions.select(rows)
            try:
                logits, quality = self._decoder.decode(image, prompts[rows], part.windows)
                made = masks_from_logits(logits, part, geometry)
            except RuntimeError as error:
                self._make_room(error)
                continue
            masks += made
            qualities.append(quality.cpu().numpy())
        return masks, np.concatenate(qualities)

    def _make_room(self, error: RuntimeError) -> None:
        """Halve the number of boxes decoded together, or give up."""
        # On the CPU torch raises a plain RuntimeError that starts with the allocator's name.
        short = (isinstance(error, torch.cuda.OutOfMemoryError)
                 or 'DefaultCPUAllocator' in str(error))
        if not short or self.at_once == 1:
            raise error
        self.at_once //= 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        _LOG.warning('out of memory: masks are now decoded %d at a time', self.at_once)
