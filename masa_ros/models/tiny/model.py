"""
The small network behind the model protocol: finds, segments and embeds objects in one pass.

An image is resized to a fixed number of pixels, whatever its shape, so that a wide picture keeps
its detail and every picture costs the same. Objects that are large in it are looked at once more
at half that size: the network was trained on views of 256 pixels and knows no larger ones.

An embedding is part learned, part measured: the network's vector beside the colours and gradients
of the model `classical`. Each errs where the other does not; together they tell more objects apart
than either (docs/training.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
import math

import cv2
from masa_ros.models import ModelConfig
from masa_ros.models.classical import ClassicalModel
from masa_ros.models.model import Model
from masa_ros.models.tiny.network import TinyNetwork, TrackHead
from masa_ros.models.tiny.weights import load_network
from masa_ros.structures.boxes import clip_boxes
from masa_ros.structures.instances import Flag, Instances
from masa_ros.structures.masks import encode_plane, RoiMask
import numpy as np
from numpy.typing import NDArray
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import nms

INPUT_PIXELS = 512 * 384
"""Area that an image is resized to: 512 x 384 for 4:3, 591 x 332 for 16:9."""
LARGEST_ENLARGEMENT = 1.5
PAD = 114
NMS_THRESHOLD = 0.6
SMALLEST_PROPOSAL_PX = 8.0
PRE_NMS = 1000
NEUTRAL_COUNT = 2.0
"""The neutral embedding, zero, counts as many objects in an image's mean embedding."""
LEARNED_SHARE = 0.6
"""Share of an embedding's squared length, and so of a cosine, that is learned."""
LARGE_PX = 160.0
"""Boxes with a larger mean side, in network pixels, are handled at half size."""
LOOKS, OWN_LOOKS = (0.0, 0.1, -0.1), (0.0,)
"""Parts of its sides that a box is grown by, on each side, for looks at it that are averaged:
given boxes, and the network's own, which fit."""


def build(config: ModelConfig) -> Model:
    """
    Build the model with the weights of the package, or those of ``config.checkpoint``.

    Raises
    ------
    FileNotFoundError
        If the weights are missing.
    ValueError
        If the file or the device cannot be used.

    """
    network, weights = load_network(config.checkpoint)
    return TinyModel(config, network, weights.files, weights.sha256, weights.trained)


class TinyModel:
    """
    Proposals, masks and embeddings of the small network.

    Parameters
    ----------
    config : ModelConfig
        Device, precision, limits.
    network : TinyNetwork
        With its weights.
    files, sha256, trained : tuple of str, str, bool or None
        Fields of `WeightsInfo`.

    """

    name = 'tiny'
    can_propose = True

    def __init__(
        self, config: ModelConfig, network: TinyNetwork, files: tuple[str, ...] = (),
        sha256: str = '', trained: bool | None = False,
    ) -> None:
        from masa_ros.models.model import WeightsInfo

        self.config = config
        self.weights = WeightsInfo(files, sha256, trained)
        self.device = _device(config.device)
        network.eval().requires_grad_(False)
        network.to(self.device).to(  # type: ignore[call-overload]
            memory_format=torch.channels_last)
        self._network = network
        self._classical = ClassicalModel(replace(config, max_masks=0))
        self._features = torch.compile(network.features) if config.compile else network.features

    def warm_up(self) -> None:
        """Run once on a dummy image."""
        self.run([np.full((384, 512, 3), PAD, np.uint8)],
                 [Instances.from_boxes([[100, 100, 200, 200]])])

    @torch.inference_mode()
    def run(
        self,
        images: Sequence[NDArray[np.uint8]],
        detections: Sequence[Instances | None],
    ) -> list[Instances]:
        """See `masa_ros.models.model.Model.run`."""
        return [self._run_one(image, found)
                for image, found in zip(images, detections, strict=True)]

    def reconfigure(self, config: ModelConfig) -> None:
        """Take over the limits of masks and proposals."""
        self.config = config

    def close(self) -> None:
        """Free the network."""
        del self._network, self._features

    def _run_one(self, image: NDArray[np.uint8], detections: Instances | None) -> Instances:
        height, width = image.shape[:2]
        pixels, factors = fit_image(image)
        dtype = getattr(torch, self.config.precision)
        mixed = torch.autocast(
            torch.device(self.device).type, dtype, self.config.precision != 'float32')
        tensor = torch.from_numpy(pixels).to(self.device).permute(2, 0, 1)[None].float()
        with mixed:
            passes = _Passes(self._features, tensor)
            looks = OWN_LOOKS if detections is None else LOOKS
            if detections is None:
                detections = self._propose(passes, factors, height, width)
            boxes = torch.from_numpy((detections.boxes * factors).astype(np.float32))
            wanted = np.sort(np.argsort(-detections.scores, kind='stable')[
                :self.config.max_masks])
            embeddings, logits, quality = self._describe(passes, boxes, wanted, looks)
        scale = self._network.config.embedding_scale
        learned = set_apart(embeddings, scale * math.sqrt(LEARNED_SHARE))
        measured = self._measured(image, detections, scale * math.sqrt(1 - LEARNED_SHARE))
        embeddings = np.concatenate([learned, measured], axis=1)
        grow = np.tile(boxes[wanted, 2:] - boxes[wanted, :2], 2) * self._network.mask_head.margin
        windows = (boxes[wanted].numpy() + grow * (-1, -1, 1, 1)) / factors
        return _with_masks(detections.with_fields(embeddings=embeddings), wanted, logits,
                           quality, windows, height, width)

    def _measured(
        self, image: NDArray[np.uint8], detections: Instances, length: float,
    ) -> NDArray[np.float32]:
        """Colours and gradients as the model `classical` measures them, without its masks."""
        found = self._classical.run([image], [detections])[0].embeddings
        if found is None:
            raise RuntimeError('the model classical gave no embeddings')
        norms = np.linalg.norm(found, axis=1, keepdims=True)
        return np.asarray(found * (length / np.maximum(norms, 1e-6)), np.float32)

    def _describe(
        self, passes: _Passes, boxes: Tensor, wanted: NDArray[np.int64],
        looks: tuple[float, ...],
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Embeddings of all boxes, mask logits and qualities of the wanted ones."""
        network = self._network
        side = network.config.mask_size
        embeddings = np.zeros((len(boxes), network.config.embedding_size), np.float32)
        logits = np.zeros((len(wanted), side, side), np.float32)
        quality = np.zeros(len(wanted), np.float32)
        large = ((boxes[:, 2:] - boxes[:, :2]).prod(1).sqrt() > LARGE_PX).numpy()
        for half in (False, True):
            rows, masked = np.flatnonzero(large == half), np.flatnonzero(large[wanted] == half)
            if not len(rows):
                continue
            levels = passes.levels(half)
            scale = 0.5 if half else 1.0
            rois = F.pad(boxes * scale, (1, 0)).to(self.device)
            embeddings[rows] = embed(
                network.track_head, levels, rois[rows], looks).cpu().numpy()
            found, expected = network.mask_head(levels, rois[wanted[masked]])
            logits[masked] = found.float().cpu().numpy()
            quality[masked] = expected.float().sigmoid().cpu().numpy()
        return embeddings, logits, quality

    def _propose(
        self, passes: _Passes, factors: NDArray[np.float32], height: int, width: int,
    ) -> Instances:
        """Choose the network's own boxes, best first."""
        parts = []
        for half in (False, True):
            boxes, objectness = self._network.proposal_head(passes.pyramid(half))
            scores, order = objectness[0].sigmoid().topk(min(PRE_NMS, objectness.shape[1]))
            order = order[scores >= self.config.proposal_score]
            found = boxes[0, order].cpu() * (2 if half else 1)
            found = torch.from_numpy(
                clip_boxes(found.numpy() / factors, height, width) * factors)
            sides = found[:, 2:] - found[:, :2]
            middle = sides.prod(1).sqrt()
            # Each pass answers for the sizes it knows, with some overlap.
            fits = middle > LARGE_PX / 1.5 if half else middle < LARGE_PX * 1.5
            fits &= sides.amin(1) >= SMALLEST_PROPOSAL_PX if len(sides) else fits
            parts.append((found[fits], scores.cpu()[:len(order)][fits]))
        found, scores = (torch.cat([part[k] for part in parts]) for k in range(2))
        kept = nms(found, scores.float(), NMS_THRESHOLD)[:self.config.max_proposals]
        return Instances.from_boxes(
            found[kept].numpy() / factors, scores[kept].float().numpy(),
            flag=Flag.FROM_PROPOSAL)


class _Passes:
    """Features of an image at full and at half size, each computed when first asked for."""

    def __init__(
        self, features: Callable[[Tensor], tuple[list[Tensor], list[Tensor]]], image: Tensor,
    ) -> None:
        self._features, self._image = features, image
        self._made: dict[bool, tuple[list[Tensor], list[Tensor]]] = {}

    def pyramid(self, half: bool) -> list[Tensor]:
        """Levels for proposals."""
        return self._pass(half)[0]

    def levels(self, half: bool) -> list[Tensor]:
        """Levels for masks and embeddings."""
        return self._pass(half)[1]

    def _pass(self, half: bool) -> tuple[list[Tensor], list[Tensor]]:
        if half not in self._made:
            image = self._image
            if half:
                image = F.avg_pool2d(image, 2)
                height, width = image.shape[2:]
                image = F.pad(image, (0, -width % 32, 0, -height % 32), value=float(PAD))
            self._made[half] = self._features(image)
        return self._made[half]


def embed(
    head: TrackHead, levels: list[Tensor], rois: Tensor, looks: Sequence[float],
) -> Tensor:
    """
    Look at boxes more than once, as they are, somewhat larger and somewhat smaller.

    A detector's boxes sit loosely, now too large, now cutting something off. The mean of several
    looks depends less on it than one.

    Parameters
    ----------
    head : TrackHead
        Embeds.
    levels : list of Tensor
        Features, finest first.
    rois : Tensor
        ``(N, 5)`` image index and box.
    looks : sequence of float
        Parts of its sides that each box is grown by, on each side.

    Returns
    -------
    Tensor
        ``(N, D)`` float32, of the head's length.

    """
    sides = rois[:, 3:] - rois[:, 1:3]
    grow = torch.cat([rois[:, :1] * 0, -sides, sides], 1)
    seen = head(levels, torch.cat([rois + part * grow for part in looks])).float()
    mean = seen.reshape(len(looks), len(rois), seen.shape[1]).mean(0)
    return F.normalize(mean, dim=1) * head.scale


def set_apart(embeddings: NDArray[np.float32], length: float) -> NDArray[np.float32]:
    """
    Subtract what the objects of one image have in common.

    Persons in one street share light, blur and being persons; none of it tells them apart, yet it
    fills half of a cosine. The mean of the image's embeddings holds it. It is shrunk towards zero
    where there are few objects, so that one alone keeps its direction.

    Parameters
    ----------
    embeddings : ndarray
        ``(N, D)``.
    length : float
        Norm of the result.

    Returns
    -------
    ndarray
        ``(N, D)`` float32.

    """
    if not len(embeddings):
        return embeddings
    apart = embeddings - embeddings.sum(0) / (len(embeddings) + NEUTRAL_COUNT)
    norms = np.linalg.norm(apart, axis=1, keepdims=True)
    return np.asarray(apart * (length / np.maximum(norms, 1e-6)), np.float32)


def fit_image(image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """
    Resize an image to the network's number of pixels and pad it right and below.

    Parameters
    ----------
    image : ndarray
        ``(H, W, 3)`` uint8 RGB.

    Returns
    -------
    pixels : ndarray
        Sides a multiple of 32.
    factors : ndarray
        ``(4,)`` float32 that image boxes are multiplied by to get network boxes.

    """
    height, width = image.shape[:2]
    scale = min(math.sqrt(INPUT_PIXELS / (height * width)), LARGEST_ENLARGEMENT)
    new_height, new_width = max(round(height * scale), 1), max(round(width * scale), 1)
    shrinks = scale < 1
    resized = cv2.resize(image, (new_width, new_height),
                         interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    pixels = np.full((-(-new_height // 32) * 32, -(-new_width // 32) * 32, 3), PAD, np.uint8)
    pixels[:new_height, :new_width] = resized
    factors = np.array([new_width / width, new_height / height] * 2, np.float32)
    return pixels, factors


def paste_mask(
    logits: NDArray[np.float32], window: NDArray[np.floating], height: int, width: int,
) -> RoiMask | None:
    """
    Enlarge mask logits over a window of the image and cut them at zero.

    Parameters
    ----------
    logits : ndarray
        ``(s, s)`` float32.
    window : ndarray
        ``(4,)`` xyxy in image pixels that the logits cover.
    height, width : int
        Size of the image.

    Returns
    -------
    RoiMask or None
        The mask in its tight box; ``None`` when no pixel is left.

    """
    side = len(logits)
    x0, y0 = max(math.floor(window[0]), 0), max(math.floor(window[1]), 0)
    x1, y1 = min(math.ceil(window[2]), width), min(math.ceil(window[3]), height)
    if x1 <= x0 or y1 <= y0:
        return None
    scale_x = max(float(window[2] - window[0]), 1e-3) / side
    scale_y = max(float(window[3] - window[1]), 1e-3) / side
    # Pixel (c + 0.5) of the image lies at cell (c + 0.5 - window) / scale, whose centre is - 0.5.
    inverse = np.array([
        [1 / scale_x, 0, (x0 + 0.5 - window[0]) / scale_x - 0.5],
        [0, 1 / scale_y, (y0 + 0.5 - window[1]) / scale_y - 0.5]])
    plane = cv2.warpAffine(logits, inverse, (x1 - x0, y1 - y0),
                           flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                           borderMode=cv2.BORDER_REPLICATE)
    mask = encode_plane(plane > 0)
    if mask.area == 0:
        return None
    return RoiMask(mask.x_offset + x0, mask.y_offset + y0, mask.height, mask.width, mask.counts)


def _with_masks(
    instances: Instances, wanted: NDArray[np.int64], logits: NDArray[np.float32],
    quality: NDArray[np.float32], windows: NDArray[np.floating], height: int, width: int,
) -> Instances:
    """Fill in the masks of the wanted rows; the others are flagged."""
    masks: list[RoiMask | None] = [None] * len(instances)
    qualities = np.full(len(instances), np.nan, np.float32)
    for k, row in enumerate(wanted):
        masks[row] = paste_mask(logits[k], windows[k], height, width)
        if masks[row] is not None:
            qualities[row] = quality[k]
    flags = instances.flags.copy()
    flags[[mask is None for mask in masks]] |= int(Flag.MASK_SKIPPED)
    return instances.with_fields(masks=tuple(masks), mask_qualities=qualities, flags=flags)


def _device(name: str) -> str:
    """Name of the device to use."""
    if name == 'auto':
        return 'cuda' if torch.cuda.is_available() else 'cpu'
    try:
        chosen = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f'device {name!r} is unknown; use auto, cpu, cuda or cuda:<index>'
                         ) from error
    if chosen.type == 'cuda' and not torch.cuda.is_available():
        raise ValueError(f'device is {name!r} but no CUDA device is there; use cpu or auto')
    return name
