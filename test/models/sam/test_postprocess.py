"""Regions of masks against SAM's own full-size postprocessing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from masa_ros.models.sam.postprocess import masks_from_logits, Regions, run_lengths
from masa_ros.models.sam.preprocess import Geometry
from masa_ros.structures.masks import encode_crop
import numpy as np
from numpy.typing import NDArray
import pytest
import torch
from torch import Tensor

SIZES = [(480, 640), (720, 1280), (37, 5000), (333, 77), (1, 1), (3, 2), (1024, 1024)]


def blobs(count: int) -> Tensor:
    """Smooth logits with several parts, holes and zero crossings."""
    coarse = torch.randn(count, 1, 16, 16, generator=torch.Generator().manual_seed(2))
    return torch.nn.functional.interpolate(coarse, (256, 256), mode='bicubic')[:, 0]


def some_boxes(count: int, height: int, width: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(height)
    centers = rng.uniform(0, 1, (count, 2)) * (width, height)
    sides = rng.uniform(0.05, 1, (count, 2)) ** 2 * (width, height)
    return np.concatenate((centers - sides / 2, centers + sides / 2), axis=1).astype(np.float32)


def full_size(logits: Tensor, geometry: Geometry) -> Tensor:
    """Return the logits of the whole image by the package's own procedure."""
    from segment_anything.modeling import Sam
    network: Any = SimpleNamespace(image_encoder=SimpleNamespace(img_size=1024))
    planes: Tensor = Sam.postprocess_masks(
        network, logits[:, None], geometry.input_size, geometry.image_size)
    return planes[:, 0]


@pytest.mark.parametrize(('height', 'width'), SIZES)
@pytest.mark.parametrize('margin', [0.1, np.inf])
def test_regions_equal_the_full_size_masks(height: int, width: int, margin: float) -> None:
    geometry = Geometry.of_longest_side(height, width)
    logits, boxes = blobs(6), some_boxes(6, height, width)
    regions = Regions.around(boxes, geometry, margin)
    planes = full_size(logits, geometry)
    for mask, (x0, y0, x1, y1), plane in zip(
            masks_from_logits(logits, regions, geometry), regions.rois.tolist(), planes,
            strict=True):
        assert (mask.x_offset, mask.y_offset, mask.width, mask.height) == (
            x0, y0, x1 - x0, y1 - y0)
        expected = plane[y0:y1, x0:x1]
        differs = (expected > 0).numpy() != mask.decode()
        # Only where the logit is 0 to within rounding.
        assert not differs.any() or expected.numpy()[differs].max() < 1e-4


def test_an_unscaled_geometry_of_another_resize_rule_is_followed() -> None:
    # MASA's own rule gives the same sizes here; a square image cut to another size does not.
    geometry = Geometry((100, 200), (700, 900))
    logits = blobs(3)
    regions = Regions.around(some_boxes(3, 100, 200), geometry, np.inf)
    planes = full_size(logits, geometry) > 0
    for mask, plane in zip(
            masks_from_logits(logits, regions, geometry), planes, strict=True):
        assert np.array_equal(mask.paste(100, 200), plane.numpy())


def test_only_the_windows_are_read() -> None:
    geometry = Geometry.of_longest_side(720, 1280)
    logits, boxes = blobs(20), some_boxes(20, 720, 1280)
    regions = Regions.around(boxes, geometry)
    spoilt = torch.full_like(logits, 1e9)
    for row, (x0, y0, x1, y1) in enumerate((4 * regions.windows).tolist()):
        spoilt[row, y0:y1, x0:x1] = logits[row, y0:y1, x0:x1]
    for mask, expected in zip(masks_from_logits(spoilt, regions, geometry),
                              masks_from_logits(logits, regions, geometry), strict=True):
        assert np.array_equal(mask.counts, expected.counts)


def test_a_region_is_a_tenth_wider_on_each_side_and_stays_inside() -> None:
    # 1280 pixels become 1024: one low-resolution pixel is 5 image pixels.
    geometry = Geometry.of_longest_side(720, 1280)
    boxes = np.array([[100, 200, 300, 500], [10, 10, 12, 12], [1270, 0, 1290, 720]], np.float32)
    assert Regions.around(boxes, geometry).rois.tolist() == [
        [80, 170, 320, 530], [5, 5, 17, 17], [1265, 0, 1280, 720]]


def test_boxes_outside_get_empty_masks() -> None:
    geometry = Geometry.of_longest_side(100, 100)
    boxes = np.array([[200, 200, 300, 300], [-90, 10, -20, 30], [10, 10, 20, 20]], np.float32)
    regions = Regions.around(boxes, geometry)
    masks = masks_from_logits(blobs(3), regions, geometry)
    assert [mask.width for mask in masks] == [0, 0, 12]
    assert regions.windows[:2].tolist() == [[0, 0, 0, 0]] * 2


def test_no_boxes_give_no_masks() -> None:
    geometry = Geometry.of_longest_side(100, 100)
    regions = Regions.around(np.zeros((0, 4), np.float32), geometry)
    assert masks_from_logits(torch.zeros(0, 256, 256), regions, geometry) == []


def test_run_lengths_equal_those_of_each_crop() -> None:
    # Full, empty, beginning with foreground, one column, and a padded canvas around them.
    rng = np.random.default_rng(1)
    crops = [np.ones((4, 3), bool), np.zeros((2, 5), bool), rng.random((5, 5)) > 0.5,
             rng.random((1, 4)) > 0.5, rng.random((5, 1)) > 0.5, np.ones((1, 1), bool)]
    canvas = torch.ones(len(crops), 5, 5, dtype=torch.bool)
    for plane, crop in zip(canvas, crops, strict=True):
        plane[:crop.shape[1], :crop.shape[0]] = torch.from_numpy(crop.T.copy())
    sizes = np.array([crop.shape[::-1] for crop in crops], np.int64)
    for counts, crop in zip(run_lengths(canvas, sizes), crops, strict=True):
        assert counts.tolist() == encode_crop(crop).counts.tolist()
        assert counts.dtype == np.uint32


@pytest.mark.gpu
def test_the_gpu_gives_the_same_masks() -> None:
    geometry = Geometry.of_longest_side(720, 1280)
    logits, boxes = blobs(20), some_boxes(20, 720, 1280)
    regions = Regions.around(boxes, geometry)
    for mask, expected in zip(masks_from_logits(logits.cuda(), regions, geometry),
                              masks_from_logits(logits, regions, geometry), strict=True):
        assert (mask.decode() != expected.decode()).mean() < 1e-4
