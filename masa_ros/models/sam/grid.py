"""
SAM's "everything" mode: a grid of points prompts the decoder, and filters keep the good masks.

It is the package's ``SamAutomaticMaskGenerator``, unchanged, on image features that are already
there. The baseline that the MASA proposals are measured against, and slow.
"""

from __future__ import annotations

from collections.abc import Mapping
import copy
from dataclasses import dataclass
from typing import Any

from masa_ros.models.sam.preprocess import Geometry
from masa_ros.structures.instances import Flag, Instances
from masa_ros.structures.masks import encode_plane, RoiMask
import numpy as np
from numpy.typing import NDArray
from segment_anything import SamAutomaticMaskGenerator, SamPredictor
from segment_anything.modeling import Sam
import torch
from torch import Tensor


@dataclass(frozen=True)
class GridSettings:
    """
    Thresholds of the everything mode; the defaults are the package's.

    Parameters
    ----------
    points_per_side : int
        Points along a side of the image.
    points_at_once : int
        Points decoded together.
    predicted_iou : float
        Masks must be rated better than this.
    stability : float
        Masks must keep at least this IoU when their threshold moves by 1 up and down.
    box_nms : float
        Of masks whose boxes overlap by more, only the best stays.

    """

    points_per_side: int = 32
    points_at_once: int = 64
    predicted_iou: float = 0.88
    stability: float = 0.95
    box_nms: float = 0.7


class _KnownImage(SamPredictor):  # type: ignore[misc]
    """The package's predictor on features that were computed elsewhere."""

    def __init__(self, network: Any, embedding: Tensor, geometry: Geometry) -> None:
        super().__init__(network)
        self._embedding = embedding
        self._geometry = geometry
        self.transform = _Scaling(geometry)

    def set_image(self, image: NDArray[np.uint8], image_format: str = 'RGB') -> None:
        """Take the known features instead of running the encoder."""
        self.original_size = self._geometry.image_size
        self.input_size = self._geometry.input_size
        self.features = self._embedding[None].float()
        self.is_image_set = True


class _Scaling:
    """Coordinates of the image in input pixels, in the form that the generator calls."""

    def __init__(self, geometry: Geometry) -> None:
        self._factors = geometry.factors

    def apply_coords(
        self, coords: NDArray[np.float64], original_size: tuple[int, ...],
    ) -> NDArray[np.float64]:
        """Scale ``(N, 2)`` points."""
        return coords * self._factors


def assembled(parts: Mapping[str, Any], device: str | torch.device) -> Any:
    """
    Put SAM together from the parts that a MASA model carries.

    Parameters
    ----------
    parts : mapping of str to Module
        ``backbone``, ``prompt_encoder`` and ``mask_decoder``. The decoder is copied in float32 (4
        million weights), as everything in this file computes in it.
    device : str or torch.device
        Where it runs.

    """
    sam = Sam(parts['backbone'], parts['prompt_encoder'],
              copy.deepcopy(parts['mask_decoder']).to(torch.float32))
    return sam.to(device).eval()


@torch.no_grad()
def segment_points(
    network: Any, embedding: Tensor, geometry: Geometry, points: NDArray[np.float32],
    on_object: NDArray[np.bool_],
) -> Instances:
    """
    Cut out the object that points are on.

    Parameters
    ----------
    network, embedding, geometry
        As for `propose`.
    points : ndarray
        ``(K, 2)`` in image pixels.
    on_object : ndarray
        ``(K,)`` bool; the others are beside it.

    Returns
    -------
    Instances
        The best of SAM's masks with its tight box; no row where it is empty.

    """
    predictor = _KnownImage(network, embedding, geometry)
    predictor.set_image(np.zeros((1, 1, 3), np.uint8))
    # Points count from the centre of the top-left pixel here.
    masks, qualities, _ = predictor.predict(
        points.astype(np.float64) - 0.5, on_object.astype(np.int64), multimask_output=True)
    best = int(np.argmax(qualities))
    mask = encode_plane(masks[best])
    if not mask.width:
        return Instances()
    box = [[mask.x_offset, mask.y_offset, mask.x_offset + mask.width,
            mask.y_offset + mask.height]]
    quality = np.array(qualities[best:best + 1], np.float32)
    return Instances.from_boxes(box, np.clip(quality, 0, 1), flag=Flag.NONE).with_fields(
        masks=(mask,), mask_qualities=quality)


@torch.no_grad()
def propose(
    network: Any, embedding: Tensor, image: NDArray[np.uint8], geometry: Geometry,
    settings: GridSettings | None = None,
) -> Instances:
    """
    Find everything in an image by a grid of points.

    Parameters
    ----------
    network : Sam
        With its prompt encoder and mask decoder in float32.
    embedding : Tensor
        ``(256, h, w)`` of the image, from the encoder's neck.
    image : ndarray
        ``(H, W, 3)`` uint8; only its size is used.
    geometry : Geometry
        Of the image.
    settings : GridSettings, optional
        Thresholds.

    Returns
    -------
    Instances
        Masks with their tight boxes, by descending predicted IoU, which is also the score.

    """
    settings = settings or GridSettings()
    generator = SamAutomaticMaskGenerator(
        network, points_per_side=settings.points_per_side,
        points_per_batch=settings.points_at_once, pred_iou_thresh=settings.predicted_iou,
        stability_score_thresh=settings.stability, box_nms_thresh=settings.box_nms,
        output_mode='uncompressed_rle')
    generator.predictor = _KnownImage(network, embedding, geometry)
    height, width = geometry.image_size
    found: list[tuple[float, RoiMask]] = []
    for record in generator.generate(image):
        counts = np.array(record['segmentation']['counts'], np.uint32)
        mask = encode_plane(RoiMask(0, 0, height, width, counts).decode())
        if mask.width:
            found.append((float(record['predicted_iou']), mask))
    found.sort(key=lambda item: -item[0])
    boxes = [[mask.x_offset, mask.y_offset, mask.x_offset + mask.width,
              mask.y_offset + mask.height] for _, mask in found]
    qualities = np.array([quality for quality, _ in found], np.float32)
    return Instances.from_boxes(
        boxes, np.clip(qualities, 0, 1), flag=Flag.FROM_PROPOSAL).with_fields(
            masks=tuple(mask for _, mask in found), mask_qualities=qualities)
