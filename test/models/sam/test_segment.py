"""Boxes to masks through the whole path, against the package's predictor."""

from __future__ import annotations

from collections.abc import Callable
import logging
from typing import Any

from masa_ros.models.sam.decoder import BoxDecoder
from masa_ros.models.sam.encoder import encode
from masa_ros.models.sam.preprocess import Geometry, to_batch
from masa_ros.models.sam.segment import BoxSegmenter
import numpy as np
import pytest
import torch
from torch import Tensor

BOXES = np.array([[20, 30, 120, 90], [0, 0, 200, 150], [150, 100, 199, 149]], np.float32)


@pytest.fixture(scope='module')
def segmenter(quick_network: Any) -> BoxSegmenter:
    return BoxSegmenter(BoxDecoder(quick_network.prompt_encoder, quick_network.mask_decoder))


@pytest.fixture(scope='module')
def embedding() -> Tensor:
    return torch.randn(256, 16, 16, generator=torch.Generator().manual_seed(5))


def test_masks_equal_the_predictors_inside_the_regions(
    quick_network: Any, segmenter: BoxSegmenter,
) -> None:
    from segment_anything import SamPredictor
    # 256 pixels wide, so that both ways read the same pixels.
    image = np.random.default_rng(0).integers(0, 256, (150, 256, 3), np.uint8)
    boxes = np.array([[25, 20, 125, 100], [175, 75, 190, 83]], np.float32)
    predictor = SamPredictor(quick_network)
    predictor.set_image(image)
    batch, (geometry,) = to_batch([image], torch.device('cpu'), 256)
    with torch.no_grad():
        embedding = encode(quick_network.image_encoder, batch).neck[0]
    masks, qualities = segmenter.segment(embedding, boxes, geometry)
    for row, box in enumerate(boxes):
        logits, quality, _ = predictor.predict(
            box=box, multimask_output=False, return_logits=True)
        mask = masks[row]
        x0, y0 = mask.x_offset, mask.y_offset
        expected = logits[0, y0:y0 + mask.height, x0:x0 + mask.width]
        differs = (expected > 0) != mask.decode()
        assert not differs.any() or np.abs(expected[differs]).max() < 1e-3
        assert qualities[row] == pytest.approx(quality[0], abs=1e-4)


def test_any_number_at_once_gives_the_same_masks(
    segmenter: BoxSegmenter, quick_network: Any, embedding: Tensor,
) -> None:
    geometry = Geometry.of_longest_side(150, 200, 256)
    together, _ = segmenter.segment(embedding, BOXES, geometry)
    single = BoxSegmenter(
        BoxDecoder(quick_network.prompt_encoder, quick_network.mask_decoder), at_once=1)
    alone, qualities = single.segment(embedding, BOXES, geometry)
    assert qualities.shape == (3,)
    for mask, expected in zip(alone, together, strict=True):
        assert (mask.decode() != expected.decode()).mean() < 1e-3


def test_no_boxes_give_no_masks(segmenter: BoxSegmenter, embedding: Tensor) -> None:
    masks, qualities = segmenter.segment(
        embedding, np.zeros((0, 4), np.float32), Geometry.of_longest_side(150, 200, 256))
    assert masks == []
    assert qualities.shape == (0,)


def test_a_box_outside_the_image_gets_an_empty_mask(
    segmenter: BoxSegmenter, embedding: Tensor,
) -> None:
    boxes = np.array([[300, 300, 400, 400]], np.float32)
    (mask,), qualities = segmenter.segment(
        embedding, boxes, Geometry.of_longest_side(150, 200, 256))
    assert mask.area == 0
    assert np.isfinite(qualities).all()


def run_out_of_memory(
    segmenter: BoxSegmenter, limit: int, error: Callable[[], RuntimeError],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Make the decoder fail for more boxes than ``limit``."""
    decoder: Any = segmenter._decoder
    decode = decoder.decode

    def limited(image: Any, boxes: Tensor, windows: Any) -> Any:
        if len(boxes) > limit:
            raise error()
        return decode(image, boxes, windows)

    monkeypatch.setattr(decoder, 'decode', limited)


@pytest.mark.parametrize('error', [
    lambda: torch.cuda.OutOfMemoryError('CUDA out of memory'),
    lambda: RuntimeError("[enforce fail at alloc_cpu.cpp:75] . DefaultCPUAllocator: can't "
                         'allocate memory')])
def test_short_memory_means_fewer_masks_at_once_and_a_warning(
    quick_network: Any, embedding: Tensor, error: Callable[[], RuntimeError],
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:
    segmenter = BoxSegmenter(
        BoxDecoder(quick_network.prompt_encoder, quick_network.mask_decoder), at_once=8)
    geometry = Geometry.of_longest_side(150, 200, 256)
    expected, _ = segmenter.segment(embedding, BOXES, geometry)
    run_out_of_memory(segmenter, 1, error, monkeypatch)
    with caplog.at_level(logging.WARNING):
        masks, _ = segmenter.segment(embedding, BOXES, geometry)
    assert segmenter.at_once == 1
    assert '1 at a time' in caplog.text
    for mask, other in zip(masks, expected, strict=True):
        assert (mask.decode() != other.decode()).mean() < 1e-3


def test_no_room_for_one_mask_is_an_error(
    quick_network: Any, embedding: Tensor, monkeypatch: pytest.MonkeyPatch,
) -> None:
    segmenter = BoxSegmenter(
        BoxDecoder(quick_network.prompt_encoder, quick_network.mask_decoder))
    run_out_of_memory(segmenter, 0, lambda: torch.cuda.OutOfMemoryError('CUDA'), monkeypatch)
    with pytest.raises(MemoryError, match='single one of the masks: choose a smaller model'):
        segmenter.segment(embedding, BOXES, Geometry.of_longest_side(150, 200, 256))


def test_other_errors_are_not_mistaken_for_short_memory(
    quick_network: Any, embedding: Tensor, monkeypatch: pytest.MonkeyPatch,
) -> None:
    segmenter = BoxSegmenter(
        BoxDecoder(quick_network.prompt_encoder, quick_network.mask_decoder))
    run_out_of_memory(segmenter, 0, lambda: RuntimeError('a bug'), monkeypatch)
    with pytest.raises(RuntimeError, match='a bug'):
        segmenter.segment(embedding, BOXES, Geometry.of_longest_side(150, 200, 256))
    assert segmenter.at_once == 32
