"""Sizes, padding and coordinate frames of the network's input."""

from __future__ import annotations

from masa_ros.models.preprocess import equal_sizes, PIXEL_MEAN, prepare, scale_on_device
from masa_ros.models.variants import find_variant
import numpy as np
import pytest
import torch

CPU = torch.device('cpu')


@pytest.mark.parametrize(('variant', 'size', 'scaled', 'padded'), [
    # The reference's own figures for 427 x 640.
    ('r50', (427, 640), (683, 1024), (704, 1024)),
    ('sam_vitb', (427, 640), (683, 1024), (1024, 1024)),
    ('gdino', (427, 640), (800, 1199), (800, 1216)),
    ('detic', (720, 1280), (750, 1333), (768, 1344)),
    ('r50', (1, 1), (1024, 1024), (1024, 1024)),
    ('r50', (37, 5000), (8, 1024), (32, 1024)),
    ('gdino', (5000, 37), (1333, 10), (1344, 32)),
    ('sam_vith', (1, 9000), (1, 1024), (1024, 1024)),
    ('sam_vith', (2160, 3840), (576, 1024), (1024, 1024)),
])
def test_images_are_scaled_and_padded_by_the_variants_rule(
    variant: str, size: tuple[int, int], scaled: tuple[int, int], padded: tuple[int, int],
) -> None:
    prepared = prepare(np.zeros((*size, 3), np.uint8), find_variant(variant).input_rule, CPU)
    assert prepared.size == scaled
    assert tuple(prepared.pixels.shape) == (3, *padded)
    assert prepared.scale == (scaled[1] / size[1], scaled[0] / size[0])


def test_padding_is_the_mean_colour_and_comes_after_normalization() -> None:
    image = np.broadcast_to(np.array([255, 0, 0], np.uint8), (100, 300, 3))
    pixels = prepare(np.ascontiguousarray(image), find_variant('r50').input_rule, CPU).pixels
    assert pixels.shape == (3, 352, 1024)
    assert pixels[:, 341:].abs().max().item() == 0
    assert pixels[0, 340, 5].item() == pytest.approx((255 - PIXEL_MEAN[0]) / 58.395)
    assert pixels[2, 340, 5].item() == pytest.approx(-103.53 / 57.375)


def test_boxes_go_to_network_pixels_and_back() -> None:
    prepared = prepare(np.zeros((427, 640, 3), np.uint8), find_variant('r50').input_rule, CPU)
    boxes = np.array([[10, 20, 300.5, 400], [-5, 0, 640, 427]], np.float32)
    there = prepared.to_network(boxes)
    assert there[0].tolist() == pytest.approx([16, 20 * 683 / 427, 480.8, 400 * 683 / 427])
    assert np.allclose(prepared.to_image(there), boxes, atol=1e-4)
    assert prepared.to_network(np.zeros((0, 4), np.float32)).shape == (0, 4)


@pytest.mark.parametrize(('source', 'size'), [
    ((427, 640), (683, 1024)), ((427, 640), (30, 40)), ((1080, 1920), (576, 1024)),
    ((1, 1), (1024, 1024)), ((2, 3), (7, 900)), ((37, 5000), (8, 1024)), ((480, 640), (240, 320)),
])
def test_scaling_on_the_device_equals_opencvs(
    source: tuple[int, int], size: tuple[int, int],
) -> None:
    import cv2
    image = np.random.default_rng(0).integers(0, 256, (*source, 3), np.uint8)
    exact = cv2.resize(image.astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR)
    rounded = cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)
    floating = scale_on_device(image, size, True, CPU).permute(1, 2, 0).numpy()
    integers = scale_on_device(image, size, False, CPU).permute(1, 2, 0).numpy()
    assert np.abs(floating - exact).max() < 1e-4
    assert np.array_equal(integers, rounded)


def test_images_of_equal_padded_size_go_together() -> None:
    rule = find_variant('r50').input_rule
    prepared = [prepare(np.zeros((*size, 3), np.uint8), rule, CPU)
                for size in ((720, 1280), (480, 640), (360, 640), (90, 160))]
    assert equal_sizes(prepared) == [[0, 2, 3], [1]]


@pytest.mark.parametrize('image', [
    np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8),
    'photo.jpg'])
def test_what_is_no_rgb_image_is_refused(image: object) -> None:
    with pytest.raises(ValueError, match='expected a non-empty'):
        prepare(image, find_variant('r50').input_rule, CPU)  # type: ignore[arg-type]


def test_unknown_variant_is_named_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r'unknown MASA variant .yolo.; known ones are r50'):
        find_variant('yolo')
    assert find_variant('masa_sam_vit_h') is find_variant('sam_vith')
