"""Scaling and padding against the segment-anything package's own."""

from __future__ import annotations

from typing import Any

from masa_ros.models.sam.preprocess import Geometry, to_batch
import numpy as np
import pytest
import torch

CPU = torch.device('cpu')


def noise(height: int, width: int) -> Any:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize(('height', 'width'), [
    (480, 640), (720, 1280), (37, 5000), (333, 77), (1, 1), (1024, 1024), (1080, 1920)])
def test_the_batch_equals_the_packages_preprocessing(height: int, width: int) -> None:
    from segment_anything.utils.transforms import ResizeLongestSide
    image = noise(height, width)
    resized = ResizeLongestSide(1024).apply_image(image)
    batch, (geometry,) = to_batch([image], CPU)
    assert geometry == Geometry((height, width), resized.shape[:2])
    mean, std = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
    levels = (batch[0].permute(1, 2, 0).numpy() * std + mean)[:resized.shape[0], :resized.shape[1]]
    # Rounding between the two passes: 2 grey levels at most, and none for most pixels.
    difference = np.abs(levels - resized)
    assert difference.max() < 2.01
    assert difference.mean() < 0.1


def test_the_padding_is_the_mean_color() -> None:
    batch, _ = to_batch([noise(300, 600)], CPU)
    assert batch.shape == (1, 3, 1024, 1024)
    assert batch[0, :, 511].any()
    assert not batch[0, :, 512:].any()


def test_images_of_different_sizes_share_a_batch() -> None:
    images = [noise(30, 60), noise(50, 20)]
    batch, geometries = to_batch(images, CPU)
    assert [item.input_size for item in geometries] == [(512, 1024), (1024, 410)]
    for row, image in zip(batch, images, strict=True):
        assert torch.equal(row, to_batch([image], CPU)[0][0])


def test_an_image_that_is_not_contiguous_is_accepted() -> None:
    image = noise(40, 40)
    assert torch.equal(to_batch([image[::-1]], CPU)[0], to_batch([image[::-1].copy()], CPU)[0])


def test_a_very_flat_image_keeps_one_row() -> None:
    assert Geometry.of_longest_side(1, 5000).input_size == (1, 1024)


def test_boxes_scale_with_each_axis() -> None:
    # 720 x 1280 becomes 576 x 1024: a factor of 0.8 on both axes. 333 x 77: 1024 x 237.
    box = np.array([[10, 20, 30, 40]], np.float32)
    assert Geometry.of_longest_side(720, 1280).to_input(box) == pytest.approx(0.8 * box)
    odd = Geometry.of_longest_side(333, 77).to_input(box)[0]
    assert odd == pytest.approx([10 * 237 / 77, 20 * 1024 / 333, 30 * 237 / 77, 40 * 1024 / 333])


@pytest.mark.gpu
def test_the_gpu_scales_to_within_one_grey_level() -> None:
    image = noise(720, 1280)
    here, _ = to_batch([image], CPU)
    there, _ = to_batch([image], torch.device('cuda'))
    assert (here - there.cpu()).abs().max() * 58.395 < 2.01
