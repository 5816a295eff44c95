"""Segment Anything behind the `Model` protocol: masks of boxes, pooled encoder features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import logging
from typing import Any

from masa_ros.models import ModelConfig, weights
from masa_ros.models.masa import check_boxes, resolve_device
from masa_ros.models.memory import Portions
from masa_ros.models.model import WeightsInfo
from masa_ros.models.preprocess import check_image
from masa_ros.models.sam import grid
from masa_ros.models.sam.checkpoint import load_network
from masa_ros.models.sam.decoder import BoxDecoder
from masa_ros.models.sam.encoder import encode
from masa_ros.models.sam.preprocess import Geometry, to_batch
from masa_ros.models.sam.segment import BoxSegmenter
from masa_ros.structures.boxes import valid_boxes
from masa_ros.structures.instances import Flag, Instances
from masa_ros.structures.masks import RoiMask
import numpy as np
from numpy.typing import NDArray
import torch
from torch import Tensor
from torchvision.ops import roi_align

_LOG = logging.getLogger(__name__)

_DTYPES = {'float32': torch.float32, 'bfloat16': torch.bfloat16, 'float16': torch.float16}
_ROI_SIZE = 7
# A GPU gains from several images at once; a CPU only needs more memory for them.
_IMAGES_AT_ONCE = {'cpu': 1, 'cuda': 8}
_BOXES_AT_ONCE = {'cpu': 16, 'cuda': 128}


def build(config: ModelConfig) -> SamModel:
    """
    Build the SAM that a configuration names.

    Raises
    ------
    FileNotFoundError
        If its weights are not there; the message says where to get them.
    ValueError
        If the weights do not fit, or the device does not exist.

    """
    path = weights.find(config.name, config.checkpoint)
    network = load_network(config.name, path)
    return SamModel(network, config, weights.info([path]))


class SamModel:
    """
    A SAM variant. Its embeddings are the encoder's features averaged over each box.

    Parameters
    ----------
    network : Sam
        With its weights, on the CPU, in float32.
    config : ModelConfig
        Device, precision, limits.
    weights_info : WeightsInfo
        Which file the weights came from.
    grid_settings : GridSettings, optional
        Thresholds of the everything mode, which finds objects when no boxes are given.

    """

    can_propose = True

    def __init__(
        self, network: Any, config: ModelConfig, weights_info: WeightsInfo,
        grid_settings: grid.GridSettings | None = None,
    ) -> None:
        self.name = config.name
        self.weights = weights_info
        self.config = config
        self._device = resolve_device(config.device)
        self.device = str(self._device)
        dtype = _DTYPES[config.precision]
        self._network: Any = network.to(self._device)
        self._side = int(network.image_encoder.img_size)
        # Prompts and the decoder of the everything mode stay in float32.
        self._network.image_encoder.to(dtype)
        self._encode: Callable[[Tensor], Tensor] = (
            torch.compile(self._embedding) if config.compile else self._embedding)
        self._segmenter: Any = BoxSegmenter(
            BoxDecoder(network.prompt_encoder, network.mask_decoder, dtype, config.compile),
            _BOXES_AT_ONCE[self._device.type])
        self._portions = Portions('images', _IMAGES_AT_ONCE[self._device.type])
        self._grid_settings = grid_settings
        self._warned = False

    def warm_up(self) -> None:
        """Run once on a dummy image with a box; the everything mode is too slow for it."""
        self.run([np.zeros((720, 1280, 3), np.uint8)],
                 [Instances.from_boxes([[100, 100, 400, 300]])])

    @torch.inference_mode()
    def run(
        self, images: Sequence[NDArray[np.uint8]], detections: Sequence[Instances | None],
    ) -> list[Instances]:
        """
        Segment and embed the objects of several images; see `masa_ros.models.model.Model.run`.

        Raises
        ------
        ValueError
            If the numbers of images and detections differ, an image is no RGB image, or a box is
            not finite or inverted.

        """
        if len(images) != len(detections):
            raise ValueError(f'{len(images)} images but {len(detections)} sets of detections')
        for image, found in zip(images, detections, strict=True):
            check_image(image)
            if found is not None:
                check_boxes(found.boxes)

        def encode_part(part: slice) -> tuple[slice, Tensor, list[Geometry]]:
            batch, geometries = to_batch(images[part], self._device, self._side)
            return part, self._encode(batch), geometries

        results = []
        for part, embeddings, geometries in self._portions.run(len(images), encode_part):
            for image, found, embedding, geometry in zip(
                    images[part], detections[part], embeddings, geometries, strict=True):
                results.append(
                    self._propose(image, embedding, geometry) if found is None
                    else self._segment(found, embedding, geometry))
        return results

    @torch.inference_mode()
    def segment_points(
        self, image: NDArray[np.uint8], points: NDArray[np.float32],
        on_object: NDArray[np.bool_],
    ) -> Instances:
        """
        Cut out the object that points are on; for prompts (`masa_ros.prompts`).

        Parameters
        ----------
        image : ndarray
            ``(H, W, 3)`` uint8 RGB.
        points : ndarray
            ``(K, 2)`` in its pixels.
        on_object : ndarray
            ``(K,)`` bool; the other points are beside the object.

        Returns
        -------
        Instances
            One object with mask, or none.

        """
        check_image(image)
        batch, geometries = to_batch([image], self._device, self._side)
        return grid.segment_points(
            self._network, self._encode(batch)[0], geometries[0], points, on_object)

    def reconfigure(self, config: ModelConfig) -> None:
        """Take over the limits and thresholds that may change, from the next call on."""
        self.config = config

    def close(self) -> None:
        """Free the memory of the device; the model cannot be used afterwards."""
        self._network.to('meta')
        self._segmenter = None
        if self._device.type == 'cuda':
            torch.cuda.empty_cache()

    def _embedding(self, batch: Tensor) -> Tensor:
        return encode(self._network.image_encoder, batch).neck

    def _segment(self, found: Instances, embedding: Tensor, geometry: Geometry) -> Instances:
        """Given boxes with masks for the best scored ones, and embeddings for all."""
        usable = np.flatnonzero(valid_boxes(found.boxes, *geometry.image_size))
        best = usable[np.argsort(-found.scores[usable], kind='stable')]
        rows = np.sort(best[:self.config.max_masks])
        masks, qualities = self._segmenter.segment(embedding, found.boxes[rows], geometry)
        placed: list[RoiMask | None] = [None] * len(found)
        for row, mask in zip(rows, masks, strict=True):
            placed[row] = mask
        quality = np.full(len(found), np.nan, np.float32)
        quality[rows] = qualities
        return self._described(
            found.with_fields(masks=tuple(placed), mask_qualities=quality), embedding, geometry)

    def _propose(
        self, image: NDArray[np.uint8], embedding: Tensor, geometry: Geometry,
    ) -> Instances:
        """Everything in the image, by the grid of points."""
        if not self._warned:
            self._warned = True
            _LOG.warning(
                '%s finds objects by a grid of points, which takes seconds a frame on a GPU and '
                'minutes on a CPU; give detections, or choose a masa_sam model', self.name)
        found = grid.propose(self._network, embedding, image, geometry, self._grid_settings)
        found = found.select(found.scores >= self.config.proposal_score)
        found = found.select(np.arange(min(len(found), self.config.max_proposals)))
        late = np.arange(len(found)) >= self.config.max_masks
        return self._described(found.with_fields(
            masks=tuple(None if skipped else mask
                        for mask, skipped in zip(found.masks, late, strict=True)),
            mask_qualities=np.where(late, np.nan, found.mask_qualities).astype(np.float32),
        ), embedding, geometry)

    def _described(self, found: Instances, embedding: Tensor, geometry: Geometry) -> Instances:
        """Instances with embeddings, and a flag where there is no mask."""
        flags = found.flags.copy()
        flags[np.array([mask is None for mask in found.masks], bool)] |= int(Flag.MASK_SKIPPED)
        return found.with_fields(
            flags=flags, embeddings=_pooled(embedding, found.boxes, geometry).cpu().numpy())


def _pooled(embedding: Tensor, boxes: NDArray[np.float32], geometry: Geometry) -> Tensor:
    """Features ``(N, 256)`` averaged over each box: RoIAlign to 7 x 7 cells, then their mean."""
    # Nothing is there to pool outside the image, and far coordinates cost memory.
    height, width = geometry.image_size
    within = np.clip(boxes, 0, np.array([width, height, width, height], np.float32))
    prompts = torch.from_numpy(geometry.to_input(within)).to(embedding.device)
    cells = roi_align(
        embedding[None].float(), [prompts], _ROI_SIZE, embedding.shape[-1] / geometry.side,
        aligned=True)
    pooled: Tensor = cells.mean(dim=(2, 3))
    return pooled
