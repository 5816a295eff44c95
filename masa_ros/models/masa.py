"""MASA variants behind the `Model` protocol: boxes or proposals in, masks and embeddings out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from masa_ros.models import build_model, ModelConfig, weights
from masa_ros.models.checkpoint import identify, lacks_sam, load_network, read_entries
from masa_ros.models.cpu import speed_up_linears
from masa_ros.models.masa_network import Encoded, MasaNetwork, ProposalRule
from masa_ros.models.memory import Portions
from masa_ros.models.model import Model, WeightsInfo
from masa_ros.models.preprocess import equal_sizes, prepare, Prepared
from masa_ros.models.variants import find_variant, InputRule, Variant
from masa_ros.structures.instances import Flag, Instances
from masa_ros.structures.masks import RoiMask
import numpy as np
from numpy.typing import NDArray
import torch
from torch import Tensor

_DTYPES = {'float32': torch.float32, 'bfloat16': torch.bfloat16, 'float16': torch.float16}
# A GPU gains from several images at once; a CPU only needs more memory for them.
_IMAGES_AT_ONCE = {'cpu': 1, 'cuda': 8}
_BOXES_AT_ONCE = {'cpu': 16, 'cuda': 128}


def load(
    variant: str,
    *,
    sam: str | Path | None = None,
    masa: str | Path | None = None,
    input_rule: InputRule | None = None,
    **settings: Any,
) -> MasaModel:
    """
    Load a MASA variant from the authors' files.

    Parameters
    ----------
    variant : str
        ``r50``, ``sam_vitb``, ``sam_vitl``, ``sam_vith``, ``gdino`` or ``detic``; the catalog's
        names (``masa_r50``, ...) do as well.
    sam : str or Path, optional
        SAM file. For the SAM variants it is needed only with a MASA file that leaves SAM's
        weights out; for the others it belongs to the setting ``mask_model``.
    masa : str or Path, optional
        MASA file; the one in the weights folder when missing.
    input_rule : InputRule, optional
        Another scaling and padding than the variant's.
    **settings
        Further fields of `ModelConfig`, such as ``device`` or ``max_masks``.

    Raises
    ------
    FileNotFoundError
        If a file is not there; the message says where to get it.
    ValueError
        If the variant is unknown or a file does not fit; the message names the entries.

    """
    config = ModelConfig(
        name=find_variant(variant).model, checkpoint=str(sam or ''),
        adapter_checkpoint=str(masa or ''), **settings)
    return build(config, input_rule)


def build(config: ModelConfig, input_rule: InputRule | None = None) -> MasaModel:
    """Build the MASA model that a configuration names; see `load`."""
    variant = find_variant(config.name)
    files = find_files(variant, config)
    network = load_network(variant, *files)
    mask_model = None
    if config.mask_model != 'none' and not variant.has_sam:
        taken = config.checkpoint and Path(config.checkpoint).expanduser() in files
        mask_model = build_model(replace(
            config, name=config.mask_model, adapter_checkpoint='',
            checkpoint='' if taken else config.checkpoint))
    return MasaModel(network, config, weights.info(files), mask_model, input_rule, files[0])


def find_files(variant: Variant, config: ModelConfig) -> list[Path]:
    """
    Find the MASA file and, where it leaves SAM's weights out, the SAM file.

    Each is the one that the configuration names, or the published one in the weights folder. As
    the published MASA files hold all that their variant needs, ``checkpoint`` may name one too.
    """
    adapter, sam = config.adapter_checkpoint, config.checkpoint
    if sam and not adapter and _is_for_masa(variant, config):
        adapter, sam = sam, ''
    if not variant.file and not adapter:
        raise FileNotFoundError(
            f'no adapter was published for {variant.model}; set adapter_checkpoint to one that '
            'you trained, or choose masa_sam_vit_b or masa_sam_vit_h')
    files = [weights.find(variant.model, adapter) if variant.file else Path(adapter)]
    if variant.has_sam and (sam or lacks_sam(files[0])):
        files.append(weights.find(variant.backbone, sam))
    return files


def _is_for_masa(variant: Variant, config: ModelConfig) -> bool:
    """Whether the file that ``checkpoint`` names stands for the MASA file, not for SAM's."""
    if not variant.has_sam and config.mask_model == 'none':
        return True
    path = Path(config.checkpoint).expanduser()
    return path.is_file() and not identify(read_entries(path)).startswith(
        ('sam_vit_', 'mobile_sam'))


def resolve_device(name: str) -> torch.device:
    """
    Find the device that a setting names.

    Raises
    ------
    ValueError
        If it is no device, or not there.

    """
    if name == 'auto':
        return torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(
            f'device is {name!r}, expected auto, cpu, cuda or cuda:<index>') from None
    if device.type not in _IMAGES_AT_ONCE:
        raise ValueError(f'device is {name!r}, expected auto, cpu, cuda or cuda:<index>')
    if device.type == 'cuda' and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f'device is {name!r}, but torch sees {torch.cuda.device_count()} CUDA '
                         'devices; set device to auto or cpu')
    return device


@dataclass(frozen=True, eq=False)
class EncodedBatch:
    """
    What one pass of backbone and adapter made of images of one size.

    Parameters
    ----------
    rows : list of int
        Positions of the images among those given.
    prepared : list of Prepared
        Their network input.
    image_sizes : list of tuple
        Height and width of each image.
    encoded : Encoded
        The features, one batch row for each image.

    """

    rows: list[int]
    prepared: list[Prepared]
    image_sizes: list[tuple[int, int]]
    encoded: Encoded


class MasaModel:
    """
    A MASA variant.

    Parameters
    ----------
    network : MasaNetwork
        With its weights, on the CPU.
    config : ModelConfig
        Device, precision, limits.
    weights_info : WeightsInfo
        Which files the weights came from.
    mask_model : Model, optional
        Who makes the masks where the variant has no mask decoder; nobody when missing, and then
        every object is flagged ``MASK_SKIPPED``.
    input_rule : InputRule, optional
        Another scaling and padding than the variant's.
    file : Path, optional
        MASA file of the weights, which may hold a detector for the same backbone.

    """

    can_propose = True

    def __init__(
        self, network: MasaNetwork, config: ModelConfig, weights_info: WeightsInfo,
        mask_model: Model | None = None, input_rule: InputRule | None = None,
        file: Path | None = None,
    ) -> None:
        self.name = network.variant.model
        self.file = file
        self.weights = weights_info
        self.config = config
        self.input_rule = input_rule or network.variant.input_rule
        self._device = resolve_device(config.device)
        self.device = str(self._device)
        self._mask_model = mask_model
        self.network = place(network, self._device, _DTYPES[config.precision])
        self._forward: Callable[[Tensor], Encoded] = (
            torch.compile(self.network) if config.compile else self.network)
        self._portions = Portions('images', _IMAGES_AT_ONCE[self._device.type])
        self._segmenter: Any = None
        self._sam: Any = None
        if network.variant.has_sam:
            from masa_ros.models.sam.decoder import BoxDecoder
            from masa_ros.models.sam.segment import BoxSegmenter
            parts: Any = network.detector
            self._segmenter = BoxSegmenter(BoxDecoder(
                parts['prompt_encoder'], parts['mask_decoder'], _DTYPES[config.precision],
                config.compile), _BOXES_AT_ONCE[self._device.type])

    def warm_up(self) -> None:
        """Run once on a dummy image."""
        image = np.zeros((720, 1280, 3), np.uint8)
        self.run([image], [None])
        self.run([image], [Instances.from_boxes([[100, 100, 400, 300]])])

    @torch.inference_mode()
    def encode(self, images: Sequence[NDArray[np.uint8]]) -> list[EncodedBatch]:
        """
        Run backbone and adapter, for a detector that shares them and for `run`.

        Parameters
        ----------
        images : sequence of ndarray
            Each ``(H, W, 3)`` uint8 RGB.

        """
        return list(self._encoded(images))

    @torch.inference_mode()
    def run(
        self, images: Sequence[NDArray[np.uint8]], detections: Sequence[Instances | None],
        encoded: Sequence[EncodedBatch] | None = None,
    ) -> list[Instances]:
        """
        Segment and embed the objects of several images; see `masa_ros.models.model.Model.run`.

        What `encode` gave for the same images saves their second pass.

        Raises
        ------
        ValueError
            If an image is no RGB image, or a box is not finite or inverted.

        """
        if len(images) != len(detections):
            raise ValueError(f'{len(images)} images but {len(detections)} sets of detections')
        for found in detections:
            if found is not None:
                check_boxes(found.boxes)
        results: list[Instances | None] = [None] * len(images)
        for batch in self._encoded(images) if encoded is None else encoded:
            made = self._run_batch(batch, [detections[row] for row in batch.rows])
            for row, instances in zip(batch.rows, made, strict=True):
                results[row] = instances
        finished = [instances for instances in results if instances is not None]
        return finished if self._segmenter else self._masks_from_outside(images, finished)

    @torch.inference_mode()
    def segment_points(
        self, image: NDArray[np.uint8], points: NDArray[np.float32],
        on_object: NDArray[np.bool_],
    ) -> Instances | None:
        """
        See `masa_ros.models.sam.model.SamModel.segment_points`.

        Returns
        -------
        Instances or None
            As there; ``None`` where there is no SAM, neither in the variant nor as the model of
            the masks.

        """
        if not self._segmenter:
            other: Any = getattr(self._mask_model, 'segment_points', None)
            return None if other is None else other(image, points, on_object)
        from masa_ros.models.sam import grid
        from masa_ros.models.sam.preprocess import Geometry
        if self._sam is None:
            parts: Any = self.network.detector
            self._sam = grid.assembled(parts, self._device)
        batch = self.encode([image])[0]
        prepared, size = batch.prepared[0], batch.image_sizes[0]
        assert batch.encoded.image_embedding is not None
        return grid.segment_points(
            self._sam, batch.encoded.image_embedding[0],
            Geometry(size, prepared.size, prepared.pixels.shape[1]), points, on_object)

    def reconfigure(self, config: ModelConfig) -> None:
        """Take over the limits and thresholds that may change, from the next call on."""
        self.config = config

    def close(self) -> None:
        """Free the memory of the device; the model cannot be used afterwards."""
        self.network.to('meta')
        self._segmenter = self._sam = None
        if self._mask_model is not None:
            self._mask_model.close()
        if self._device.type == 'cuda':
            torch.cuda.empty_cache()

    def _encoded(self, images: Sequence[NDArray[np.uint8]]) -> Iterator[EncodedBatch]:
        """Encode one batch after the other, so that only one takes memory at a time."""
        prepared = [prepare(image, self.input_rule, self._device) for image in images]
        for group in equal_sizes(prepared):
            yield from self._portions.run(len(group), lambda part, group=group: (  # type: ignore
                self._encode_batch(group[part], prepared, images)))

    def _encode_batch(
        self, rows: list[int], prepared: Sequence[Prepared], images: Sequence[NDArray[np.uint8]],
    ) -> EncodedBatch:
        chosen = [prepared[row] for row in rows]
        pixels = torch.stack([image.pixels for image in chosen])
        encoded = self._forward(pixels.contiguous(memory_format=torch.channels_last))
        sizes = [(images[row].shape[0], images[row].shape[1]) for row in rows]
        return EncodedBatch(rows, chosen, sizes, encoded)

    def _run_batch(
        self, batch: EncodedBatch, detections: Sequence[Instances | None],
    ) -> list[Instances]:
        """Boxes, embeddings and, with SAM, masks of images of one size."""
        encoded, prepared, sizes = batch.encoded, batch.prepared, batch.image_sizes
        instances = list(detections)
        if any(found is None for found in detections):
            proposals = self._proposals(encoded, prepared)
            instances = [proposal if found is None else found
                         for found, proposal in zip(detections, proposals, strict=True)]
        complete = [found for found in instances if found is not None]
        boxes = [image.to_network(_within_reach(found.boxes, size))
                 for image, found, size in zip(prepared, complete, sizes, strict=True)]
        results = []
        for row, (found, embeddings) in enumerate(
                zip(complete, self.network.embed(encoded, boxes), strict=True)):
            found = found.with_fields(embeddings=embeddings.cpu().numpy())
            if self._segmenter:
                found = self._segment(found, encoded, row, prepared[row], sizes[row])
            results.append(found)
        return results

    def _proposals(self, encoded: Encoded, prepared: Sequence[Prepared]) -> list[Instances]:
        """Boxes of anything, in image pixels."""
        rule = ProposalRule(
            self.config.proposal_score, self.config.proposal_nms, self.config.max_proposals)
        found = self.network.propose(encoded, [image.size for image in prepared], rule)
        return [
            Instances.from_boxes(
                image.to_image(boxes), scores.cpu().numpy(), flag=Flag.FROM_PROPOSAL)
            for image, (boxes, scores) in zip(prepared, found, strict=True)]

    def _segment(
        self, found: Instances, encoded: Encoded, row: int, image: Prepared,
        size: tuple[int, ...],
    ) -> Instances:
        """Masks from SAM's decoder for the best scored objects."""
        from masa_ros.models.sam.preprocess import Geometry
        assert encoded.image_embedding is not None
        wanted = self._wanted(found)
        geometry = Geometry((size[0], size[1]), image.size, image.pixels.shape[1])
        masks, qualities = self._segmenter.segment(
            encoded.image_embedding[row], found.boxes[wanted], geometry)
        return _with_masks(found, wanted, masks, qualities)

    def _masks_from_outside(
        self, images: Sequence[NDArray[np.uint8]], instances: Sequence[Instances],
    ) -> list[Instances]:
        """Masks from another model, or none."""
        if self._mask_model is None:
            nobody = np.zeros(0, np.int64)
            return [_with_masks(found, nobody, [], nobody) for found in instances]
        wanted = [self._wanted(found) for found in instances]
        segmented = self._mask_model.run(
            images, [found.select(rows) for found, rows in zip(instances, wanted, strict=True)])
        return [_with_masks(found, rows, made.masks, made.mask_qualities)
                for found, rows, made in zip(instances, wanted, segmented, strict=True)]

    def _wanted(self, found: Instances) -> NDArray[np.int64]:
        """Rows that get a mask: the best scored ones, in their order."""
        best = np.argsort(-found.scores, kind='stable')[:self.config.max_masks]
        return np.asarray(np.sort(best), np.int64)


def place(network: MasaNetwork, device: torch.device, dtype: torch.dtype) -> MasaNetwork:
    """
    Move a network to its device and arithmetic, with channels-last convolutions.

    SAM's prompt encoder stays in float32: it encodes positions.
    """
    network.to(device)
    for name, child in network.named_children():
        if name == 'detector':
            for part, inner in child.named_children():
                inner.to(torch.float32 if part == 'prompt_encoder' else dtype)
        else:
            child.to(dtype)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if device.type == 'cpu':
        speed_up_linears(network)
    return network


def check_boxes(boxes: NDArray[np.float32]) -> None:
    """
    Refuse boxes that no result can be given for.

    Raises
    ------
    ValueError
        If a box is not finite or inverted; the message gives its row.

    """
    finite = np.asarray(np.isfinite(boxes).all(axis=1))
    upright = np.asarray((boxes[:, 2:] >= boxes[:, :2]).all(axis=1))
    bad = np.flatnonzero(~(finite & upright))
    if len(bad):
        row = int(bad[0])
        what = 'inverted' if finite[row] else 'not finite'
        raise ValueError(
            f'{len(bad)} of {len(boxes)} boxes cannot be used; row {row} is {what}: '
            f'{boxes[row].tolist()}. Drop them with masa_ros.structures.boxes.valid_boxes')


def _within_reach(boxes: NDArray[np.float32], size: tuple[int, ...]) -> NDArray[np.float32]:
    """Boxes cut at one image size beyond each border, as nothing is there to pool."""
    extent = np.array([size[1], size[0]] * 2, np.float32)
    return np.asarray(np.clip(boxes, -extent, 2 * extent), np.float32)


def _with_masks(
    found: Instances, rows: NDArray[np.int64], masks: Sequence[RoiMask | None],
    qualities: NDArray[Any],
) -> Instances:
    """Instances with the masks of some rows; the others are flagged."""
    placed: list[RoiMask | None] = [None] * len(found)
    quality = np.full(len(found), np.nan, np.float32)
    for row, mask in zip(rows, masks, strict=True):
        placed[row] = mask
    quality[rows] = qualities
    flags = found.flags.copy()
    missing = np.array([mask is None for mask in placed], bool)
    flags[missing] |= int(Flag.MASK_SKIPPED)
    return found.with_fields(masks=tuple(placed), mask_qualities=quality, flags=flags)
