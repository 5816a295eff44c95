from __future__ import annotations

import math

from masa_ros.training.views import (
    apply,
    bend,
    blend_transform,
    compose,
    cut_out,
    draw_view,
    FILL,
    jitter_colours,
    large_scale_transforms,
    Layer,
    linear,
    object_transforms,
    photo_transforms,
    Shape,
    translate,
    ViewConfig,
    ViewInstance,
    warp,
    weather,
    window_target,
)
import numpy as np
from numpy.typing import NDArray
import pytest

CONFIG = ViewConfig(size=96, least_pixels=4)
IDENTITY = np.array([[1.0, 0, 0], [0, 1.0, 0]])


def disc(height: int, width: int, centre: tuple[float, float], radius: float) -> NDArray[np.bool_]:
    """Pixels whose centre lies in a disc."""
    rows, columns = np.mgrid[:height, :width] + 0.5
    return np.asarray((columns - centre[0]) ** 2 + (rows - centre[1]) ** 2 < radius ** 2)


def painted_scene() -> tuple[list[Layer], list[tuple[int, int, int]]]:
    """A grey photo with one red disc in it, and a green and a blue disc cut out of others."""
    photo = np.full((120, 160, 3), 60, np.uint8)
    red = disc(120, 160, (80.0, 60.0), 30.0)
    photo[red] = (250, 0, 0)
    layers = [Layer(photo, None, [Shape(1, np.array([50, 30, 110, 90], np.float32), red)])]
    colours = [(250, 0, 0)]
    for identity, colour in ((2, (0, 250, 0)), (3, (0, 0, 250))):
        image = np.zeros((40, 50, 3), np.uint8)
        image[:] = colour
        mask = disc(40, 50, (25.0, 20.0), 18.0)
        shape = Shape(identity, np.array([0, 0, 50, 40], np.float32), mask)
        layers.append(cut_out(image, shape, identity))
        colours.append(colour)
    return layers, colours


def plane(instance: ViewInstance, size: int) -> NDArray[np.bool_]:
    """Visible mask on the whole view."""
    full = np.zeros((size, size), bool)
    assert instance.visible is not None
    height, width = instance.visible.shape
    full[instance.y_offset:instance.y_offset + height,
         instance.x_offset:instance.x_offset + width] = instance.visible
    return full


@pytest.mark.parametrize('seed', range(12))
def test_masks_cover_exactly_the_pixels_of_their_object(seed: int) -> None:
    rng = np.random.default_rng(seed)
    layers, colours = painted_scene()
    pairs = [photo_transforms(rng, 120, 160, CONFIG)]
    pairs += [object_transforms(rng, 40, 50, CONFIG) for layer in layers[1:]]
    for side in range(2):
        view = draw_view(layers, [pair[side] for pair in pairs], CONFIG)
        for instance in view.instances:
            colour = np.array(colours[instance.identity - 1])
            near = np.abs(view.image.astype(int) - colour).max(2)
            mask = plane(instance, CONFIG.size)
            # Inside the mask the object's colour weighs most; a clean pixel of it is nowhere
            # else. Between lie only pixels of the soft rim.
            assert (near[mask] < 215).all()
            assert not ((near < 20) & ~mask).any()


@pytest.mark.parametrize('seed', range(8))
def test_a_point_of_one_view_is_found_in_the_other(seed: int) -> None:
    # The photo stores each pixel's own place, so a view shows where its pixels came from.
    rng = np.random.default_rng(seed)
    columns, rows = np.meshgrid(np.arange(128), np.arange(128))
    photo = np.stack([columns, rows, np.full_like(columns, 200)], -1).astype(np.uint8)
    pair = photo_transforms(rng, 128, 128, CONFIG)
    views = [draw_view([Layer(photo, None, [])], [transform], CONFIG).image
             for transform in pair]
    points = rng.uniform(8, 120, (200, 2))
    for view, transform in zip(views, pair, strict=True):
        places = apply(transform, points)
        inside = ((places > 2) & (places < CONFIG.size - 2)).all(1)
        assert inside.any()
        # Bilinear reading of the view at the place, minus half a pixel to its centre.
        for (x, y), source in zip(places[inside] - 0.5, points[inside], strict=True):
            left, above = int(x), int(y)
            part = view[above:above + 2, left:left + 2, :2].astype(float)
            across = part[:, 0] * (1 - x + left) + part[:, 1] * (x - left)
            value = across[0] * (1 - y + above) + across[1] * (y - above)
            assert np.abs(value + 0.5 - source).max() < 1.0


def test_the_box_is_tight_around_the_mask() -> None:
    layers, _ = painted_scene()
    view = draw_view(layers[:1], [compose(linear(0.5, 0.5), translate(-10, 0))], CONFIG)
    # The disc of radius 30 at (80, 60) lands at (35, 30) with radius 15.
    np.testing.assert_allclose(view.instances[0].box, [20, 15, 50, 45], atol=1)


def test_a_covered_part_is_missing_from_the_mask_but_not_from_the_box() -> None:
    layers, _ = painted_scene()
    transforms = [translate(-40, -20), translate(10, 20)]
    bare = draw_view(layers[:1], transforms[:1], CONFIG).instances[0]
    view = draw_view(layers[:2], transforms, CONFIG)
    covered, cover = view.instances
    np.testing.assert_array_equal(covered.box, bare.box)
    lost = plane(bare, 96) & ~plane(covered, 96)
    assert lost.any()
    np.testing.assert_array_equal(lost, plane(bare, 96) & plane(cover, 96))


def test_instances_that_leave_or_are_hidden_drop_out() -> None:
    layers, _ = painted_scene()
    away = draw_view(layers[:1], [translate(500, 0)], CONFIG)
    assert away.instances == []
    assert (away.image == FILL).all()
    big = compose(translate(48, 48), linear(5, 5), translate(-25, -20))
    hidden = draw_view(layers[:2], [translate(-32, -12), big], CONFIG)
    assert [item.identity for item in hidden.instances] == [2]


def test_a_box_without_a_mask_moves_as_its_ellipse() -> None:
    photo = np.zeros((100, 100, 3), np.uint8)
    shape = Shape(1, np.array([20, 30, 60, 50], np.float32))
    layer = [Layer(photo, None, [shape])]
    moved = draw_view(layer, [compose(translate(5, 1), linear(1, 1))], CONFIG).instances[0]
    np.testing.assert_allclose(moved.box, [25, 31, 65, 51], atol=1e-4)
    turned = compose(translate(48, 48), linear(1, 1, 90), translate(-40, -40))
    moved = draw_view(layer, [turned], CONFIG).instances[0]
    np.testing.assert_allclose(moved.box, [38, 28, 58, 68], atol=1e-4)


def test_a_mirror_is_exact() -> None:
    image = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
    mirrored = warp(image, compose(translate(8, 0), linear(1, 1, mirror=True)), 6, 8)
    np.testing.assert_array_equal(mirrored, image[:, ::-1])


def test_the_target_of_a_half_covered_window() -> None:
    visible = np.ones((16, 8), bool)
    item = ViewInstance(1, np.array([10, 10, 18, 26], np.float32), visible, 10, 10)
    target = window_target(item, np.array([10, 10, 26, 26]), 8)
    assert (target[:, :4] > 250).sum() >= 24
    assert target[:, 4:].max() < 130
    assert target.mean() == pytest.approx(255 / 2, rel=0.08)


def test_photometric_changes_keep_every_object_in_place() -> None:
    layers, _ = painted_scene()
    view = draw_view(layers[:1], [translate(-32, -12)], CONFIG)
    mask = plane(view.instances[0], 96)
    for seed in range(40):
        rng = np.random.default_rng(seed)
        changed = weather(rng, jitter_colours(rng, view.image, CONFIG))
        assert changed.shape == view.image.shape
        assert changed.dtype == np.uint8
        inner = changed[mask].mean(0) - changed[~mask].mean(0)
        assert inner[0] > 40


def test_a_layer_without_a_mask_cannot_be_cut_out() -> None:
    with pytest.raises(ValueError, match='cannot be cut out'):
        cut_out(np.zeros((4, 4, 3), np.uint8), Shape(1, np.zeros(4, np.float32)), 1)


@pytest.mark.parametrize('seed', range(4))
def test_a_bent_cut_out_keeps_pixels_and_mask_together(seed: int) -> None:
    layers, colours = painted_scene()
    for layer, colour in zip(layers[1:], colours[1:], strict=True):
        bent = bend(np.random.default_rng(seed), layer, 0.3)
        assert bent.alpha is not None
        height, width = layer.image.shape[:2]
        assert bent.image.shape == (height, width + 2 * math.ceil(0.3 * width), 3)
        crop = bent.shapes[0].crop
        assert crop is not None
        assert (bent.image[crop] == colour).all()
        # Rows only slide: each keeps its number of pixels but for the rounding at two ends.
        before = layer.shapes[0].crop
        assert before is not None
        assert np.abs(crop.sum(1) - before.sum(1)).max() <= 1
        assert not np.array_equal(crop.argmax(1), before.argmax(1))
    assert bend(np.random.default_rng(seed), layers[1], 0.0) is layers[1]


@pytest.mark.parametrize('seed', range(8))
def test_points_and_masks_follow_large_scale_jitter_pixel_by_pixel(seed: int) -> None:
    config = ViewConfig(size=96, large_scale=True, least_pixels=4)
    rng = np.random.default_rng(seed)
    # The photo stores each pixel's own place; an object is marked by its third channel.
    columns, rows = np.meshgrid(np.arange(120), np.arange(90))
    mask = disc(90, 120, (60.0, 45.0), 25.0)
    photo = np.stack([columns, rows, np.where(mask, 250, 10)], -1).astype(np.uint8)
    box = np.array([35, 20, 85, 70], np.float32)
    affines, placements = large_scale_transforms(rng, 90, 120, config)
    factors = [math.sqrt(abs(np.linalg.det(placement[:, :2]))) for placement in placements]
    assert all(0.1 * 96 / 120 <= factor <= 2.0 * 96 / 120 for factor in factors)
    for affine, placement in zip(affines, placements, strict=True):
        transform = compose(placement, affine)
        view = draw_view([Layer(photo, None, [Shape(1, box, mask)])], [transform], config)
        back = np.linalg.inv(np.vstack([transform, (0.0, 0.0, 1.0)]))[:2]
        centres = np.stack(np.meshgrid(np.arange(96), np.arange(96)), -1).reshape(-1, 2) + 0.5
        source = apply(back, centres) - 0.5
        inside = ((source >= 1) & (source <= (118, 88))).all(1)
        seen = view.image.reshape(-1, 3).astype(float)
        # The shrunk photo is sampled, not averaged: each pixel shows the place it came from.
        assert np.abs(seen[inside, :2] - source[inside]).max(initial=0) < 1.0
        far = ((source < -1) | (source > (120, 90))).any(1)
        assert (seen[far] == FILL).all()
        for instance in view.instances:
            marked = plane(instance, 96).reshape(-1)
            assert (seen[marked & inside, 2] > 120).all()
            assert (seen[inside & ~marked, 2] < 140).all()


def test_a_mirrored_crop_is_mirrored_within_its_window() -> None:
    config = ViewConfig(size=64, large_scale=True, flip=1.0, resize_min=0.5, resize_max=0.5)
    _, placements = large_scale_transforms(np.random.default_rng(0), 100, 200, config)
    # 200 x 100 becomes 32 x 16 and stays at the top left, as padding goes right and below.
    corners = apply(placements[0], np.array([[0.0, 0.0], [200.0, 100.0]]))
    np.testing.assert_allclose(corners, [[32, 0], [0, 16]], atol=1e-9)


@pytest.mark.parametrize('seed', range(6))
def test_a_blended_photo_covers_the_view_from_its_corner(seed: int) -> None:
    rng = np.random.default_rng(seed)
    placed = blend_transform(rng, (50, 100), (80, 120), 100)
    corners = apply(placed, np.array([[0.0, 0.0], [100.0, 50.0]]))
    low, high = corners.min(0), corners.max(0)
    # Fitted to 100 pixels, then 0.8 to 1.6 times as large; cut only where it is too large.
    assert 80 <= high[0] - low[0] <= 160
    assert (low <= 1e-9).all()
    assert (high[0] - low[0] <= 120) <= (abs(low[0]) < 1e-9)
