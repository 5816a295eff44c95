"""
Two views of one scene with exact correspondence.

A scene is a stack of layers: a photo at the bottom, cut-out objects above it. Each view moves
every layer by its own affine transform, so that an object's pixels, mask and box move together
and whoever covers whom is known exactly. Nothing here knows identities over time: a pair of
views replaces them.

Convention: transforms are ``(2, 3)``, map layer to view in continuous pixel edges (the centre of
pixel ``(row, column)`` is ``(column + 0.5, row + 0.5)``), x before y.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
import math

import cv2
from masa_ros.structures.settings import setting
import numpy as np
from numpy.typing import NDArray

FILL = 114
"""Grey of what lies outside the photo, as the detector the network starts from was trained."""

Transform = NDArray[np.float64]


@dataclass(frozen=True)
class ViewConfig:
    """How far two views of one scene may differ."""

    size: int = setting(320, 'Side of a view in pixels.', minimum=64, maximum=2048)
    zoom_min: float = setting(
        0.6, 'Smallest common scale, 1 being photo pixels.', minimum=0.05, maximum=4.0)
    zoom_max: float = setting(1.6, 'Largest common scale.', minimum=0.05, maximum=4.0)
    view_zoom: float = setting(
        1.4, 'Each view changes the scale by up to this factor.', minimum=1.0, maximum=4.0)
    aspect: float = setting(
        1.1, 'Each view stretches one axis by up to this factor.', minimum=1.0, maximum=2.0)
    rotation_deg: float = setting(10.0, 'Rotation of a view.', minimum=0.0, maximum=180.0)
    shear_deg: float = setting(2.0, 'Shear of a view.', minimum=0.0, maximum=30.0)
    translation: float = setting(
        0.1, 'Shift of a view, part of its side.', minimum=0.0, maximum=1.0)
    large_scale: bool = setting(
        False, 'Each view moves, resizes, crops and mirrors the photo on its own, as the official '
        'code does; otherwise both look at about the same place. Takes affine_*, resize_*, '
        'rotation, shear, translation and flip, not zoom_*, view_* and aspect.')
    affine_min: float = setting(
        0.5, 'With large_scale: smallest scale of the random affine.', minimum=0.05, maximum=4.0)
    affine_max: float = setting(
        1.5, 'With large_scale: largest scale of the random affine.', minimum=0.05, maximum=4.0)
    resize_min: float = setting(
        0.1, 'With large_scale: smallest long side of the photo, part of the view.',
        minimum=0.02, maximum=4.0)
    resize_max: float = setting(
        2.0, 'With large_scale: largest long side of the photo, part of the view.', minimum=0.02,
        maximum=4.0)
    flip: float = setting(
        0.5, 'Probability that both views are mirrored; with large_scale of each on its own.',
        minimum=0.0, maximum=1.0)
    view_flip: float = setting(
        0.1, 'Probability that only one view is mirrored.', minimum=0.0, maximum=1.0)
    paste_max: int = setting(
        10, 'Most cut-out objects put on a photo.', minimum=0, maximum=100)
    paste_motion: float = setting(
        0.25, "Standard deviation of an object's motion, part of the side.", minimum=0.0,
        maximum=1.0)
    paste_min: float = setting(
        0.07, 'Smallest long side of a cut-out, part of the view.', minimum=0.01, maximum=1.0)
    paste_most: float = setting(
        0.6, 'Largest long side of a cut-out, part of the view.', minimum=0.01, maximum=2.0)
    bend: float = setting(
        0.0, 'Rows of a cut-out are shifted against each other by up to this part of its width, '
        'anew in each view, so that its outline cannot be learned by heart.', minimum=0.0,
        maximum=1.0)
    same_class: float = setting(
        0.5, 'Probability that all cut-outs of a scene share a class, which makes them hard to '
        'tell apart.', minimum=0.0, maximum=1.0)
    mixup: float = setting(
        0.1, 'Probability that a second photo is blended in.', minimum=0.0, maximum=1.0)
    hue: int = setting(5, 'Hue jitter, 8-bit units.', minimum=0, maximum=90)
    saturation: int = setting(30, 'Saturation jitter, 8-bit units.', minimum=0, maximum=255)
    value: int = setting(30, 'Brightness jitter, 8-bit units.', minimum=0, maximum=255)
    photometric: float = setting(
        0.3, 'Probability of one of motion blur, noise, snow, fog, brightness, compression, low '
        'resolution in a view.', minimum=0.0, maximum=1.0)
    least_inside: float = setting(
        0.3, 'An instance with less than this part inside the view drops out.', minimum=0.0,
        maximum=1.0)
    least_visible: float = setting(
        0.3, 'An instance covered so that less than this part of it shows drops out.',
        minimum=0.0, maximum=1.0)
    least_pixels: int = setting(
        36, 'An instance that shows fewer pixels drops out.', minimum=1, maximum=10000)


@dataclass(frozen=True, eq=False)
class Shape:
    """
    One instance of a layer.

    Parameters
    ----------
    identity : int
        Equal in both views.
    box : ndarray
        ``(4,)`` xyxy in layer pixels.
    crop : ndarray or None
        Bool mask whose top-left pixel is ``(x_offset, y_offset)``; ``None`` where only the box
        is known.
    x_offset, y_offset : int
        Place of the crop in the layer.

    """

    identity: int
    box: NDArray[np.float32]
    crop: NDArray[np.bool_] | None = None
    x_offset: int = 0
    y_offset: int = 0


@dataclass(frozen=True, eq=False)
class Layer:
    """
    Pixels and the instances in them.

    Parameters
    ----------
    image : ndarray
        ``(h, w, 3)`` uint8 RGB.
    alpha : ndarray or None
        ``(h, w)`` uint8 opacity; ``None`` for a photo that covers everything.
    shapes : sequence of Shape
        Instances, in layer pixels.

    """

    image: NDArray[np.uint8]
    alpha: NDArray[np.uint8] | None
    shapes: Sequence[Shape]


@dataclass(frozen=True, eq=False)
class ViewInstance:
    """
    One instance as a view shows it.

    Parameters
    ----------
    identity : int
        Equal in both views.
    box : ndarray
        ``(4,)`` xyxy in view pixels, around all of it that is inside the view, covered or not.
    visible : ndarray or None
        Bool crop of the pixels that show, in the view; ``None`` where only the box is known.
    x_offset, y_offset : int
        Place of the crop in the view.

    """

    identity: int
    box: NDArray[np.float32]
    visible: NDArray[np.bool_] | None
    x_offset: int
    y_offset: int


@dataclass(frozen=True, eq=False)
class View:
    """One rendered view: ``(size, size, 3)`` uint8 RGB and its instances."""

    image: NDArray[np.uint8]
    instances: list[ViewInstance]


def compose(*steps: Transform) -> Transform:
    """Chain ``(2, 3)`` transforms; the last argument is applied first."""
    result = np.eye(3)
    for step in steps:
        result = result @ np.vstack([step, (0.0, 0.0, 1.0)])
    return result[:2]


def translate(x: float, y: float) -> Transform:
    """Shift by ``(x, y)`` pixels."""
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y]])


def linear(
    scale_x: float, scale_y: float, rotation_deg: float = 0.0, shear_deg: float = 0.0,
    mirror: bool = False,
) -> Transform:
    """Mirror, scale and shear along x, then rotate, all about the origin."""
    angle = math.radians(rotation_deg)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    shear = np.array([[1.0, math.tan(math.radians(shear_deg))], [0.0, 1.0]])
    scale = np.diag([-scale_x if mirror else scale_x, scale_y])
    return np.hstack([turn @ shear @ scale, np.zeros((2, 1))])


def apply(transform: Transform, points: NDArray[np.floating]) -> NDArray[np.float64]:
    """Move ``(N, 2)`` points."""
    return np.asarray(points @ transform[:, :2].T + transform[:, 2])


def warp(
    image: NDArray[np.uint8], transform: Transform, height: int, width: int, fill: int = 0,
    interpolation: int = cv2.INTER_LINEAR,
) -> NDArray[np.uint8]:
    """Resample an image under a transform given in continuous pixel edges."""
    # OpenCV counts from pixel centres, half a pixel away from edges.
    shifted = compose(translate(-0.5, -0.5), transform, translate(0.5, 0.5))
    return np.asarray(cv2.warpAffine(
        image, shifted, (width, height), flags=interpolation, borderMode=cv2.BORDER_CONSTANT,
        borderValue=(fill,) * 3), np.uint8)


def draw_view(
    layers: Sequence[Layer], transforms: Sequence[Transform], config: ViewConfig,
) -> View:
    """
    Render layers, lowest first, each under its transform, and find what shows of each instance.

    Parameters
    ----------
    layers : sequence of Layer
        The first one is the photo.
    transforms : sequence of ndarray
        ``(2, 3)``, layer to view, one for each layer.
    config : ViewConfig
        Size of the view and what is too little to keep.

    Returns
    -------
    View
        Instances in the order of layers and shapes; those that leave the view or are covered
        too much are missing.

    """
    size = config.size
    canvas = warp(layers[0].image, transforms[0], size, size, FILL)
    top = np.zeros((size, size), np.uint8)  # Which layer shows at each pixel.
    for depth, (layer, transform) in enumerate(
            zip(layers[1:], transforms[1:], strict=True), 1):
        _paste(canvas, top, depth, layer, transform)
    instances = []
    for depth, (layer, transform) in enumerate(zip(layers, transforms, strict=True)):
        for shape in layer.shapes:
            seen = _see(shape, transform, depth, top, config)
            if seen is not None:
                instances.append(seen)
    return View(canvas, instances)


def _paste(
    canvas: NDArray[np.uint8], top: NDArray[np.uint8], depth: int, layer: Layer,
    transform: Transform,
) -> None:
    """Blend one cut-out into the canvas."""
    height, width = layer.image.shape[:2]
    window = _reach(transform, np.array([0, 0, width, height], np.float32), len(canvas))
    if window is None or layer.alpha is None:
        return
    x0, y0, x1, y1 = window
    local = compose(translate(-x0, -y0), transform)
    pixels = warp(layer.image, local, y1 - y0, x1 - x0)
    alpha = warp(layer.alpha, local, y1 - y0, x1 - x0)
    weight = (alpha.astype(np.float32) / 255)[:, :, None]
    below = canvas[y0:y1, x0:x1]
    canvas[y0:y1, x0:x1] = np.round(pixels * weight + below * (1 - weight)).astype(np.uint8)
    top[y0:y1, x0:x1][alpha > 127] = depth


def _see(
    shape: Shape, transform: Transform, depth: int, top: NDArray[np.uint8], config: ViewConfig,
) -> ViewInstance | None:
    """Move one instance into a view; ``None`` when too little of it is left."""
    if shape.crop is None:
        return _see_box(shape, transform, depth, top, config)
    height, width = shape.crop.shape
    region = np.array([shape.x_offset, shape.y_offset, shape.x_offset + width,
                       shape.y_offset + height], np.float32)
    window = _reach(transform, region, config.size)
    if window is None:
        return None
    x0, y0, x1, y1 = window
    local = compose(translate(-x0, -y0), transform, translate(shape.x_offset, shape.y_offset))
    mask = warp(shape.crop.astype(np.uint8) * 255, local, y1 - y0, x1 - x0) > 127
    inside = int(mask.sum())
    whole = float(shape.crop.sum()) * abs(np.linalg.det(transform[:, :2]))
    visible = mask & (top[y0:y1, x0:x1] <= depth)
    shown = int(visible.sum())
    if (inside < config.least_inside * whole or shown < config.least_visible * inside
            or shown < config.least_pixels):
        return None
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = np.array([x0 + columns[0], y0 + rows[0], x0 + columns[-1] + 1, y0 + rows[-1] + 1],
                   np.float32)
    return ViewInstance(shape.identity, box, visible, x0, y0)


def _see_box(
    shape: Shape, transform: Transform, depth: int, top: NDArray[np.uint8], config: ViewConfig,
) -> ViewInstance | None:
    """
    Move a box without a mask.

    The object is taken as the ellipse in its box: the box of the moved corners would grow with
    every rotation, the box of the moved ellipse hardly does.
    """
    x0, y0, x1, y1 = (float(v) for v in shape.box)
    centre = apply(transform, np.array([[(x0 + x1) / 2, (y0 + y1) / 2]]))[0]
    axes = transform[:, :2] * ((x1 - x0) / 2, (y1 - y0) / 2)
    half = np.sqrt((axes ** 2).sum(1))
    full = np.concatenate([centre - half, centre + half])
    box = np.clip(full, 0, config.size)
    sides = box[2:] - box[:2]
    whole = float(np.prod(2 * half))
    if sides.min() < 2 or sides.prod() < max(config.least_inside * whole, config.least_pixels):
        return None
    low, high = np.floor(box[:2]).astype(int), np.ceil(box[2:]).astype(int)
    shows = float((top[low[1]:high[1], low[0]:high[0]] <= depth).mean())
    if shows < config.least_visible:
        return None
    return ViewInstance(shape.identity, box.astype(np.float32), None, 0, 0)


def _reach(
    transform: Transform, region: NDArray[np.float32], size: int,
) -> tuple[int, int, int, int] | None:
    """Whole pixels of the view that a region of a layer can touch."""
    x0, y0, x1, y1 = (float(v) for v in region)
    corners = apply(transform, np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]))
    low = np.clip(np.floor(corners.min(0)) - 1, 0, size).astype(int)
    high = np.clip(np.ceil(corners.max(0)) + 1, 0, size).astype(int)
    if (high <= low).any():
        return None
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def window_target(
    instance: ViewInstance, window: NDArray[np.floating], side: int,
) -> NDArray[np.uint8]:
    """
    Resample a visible mask on a square grid over a window of the view.

    Returns
    -------
    ndarray
        ``(side, side)`` uint8, 255 where a cell is covered; cells at the rim lie between.

    """
    if instance.visible is None:
        raise ValueError('an instance without a mask has no mask target')
    x0, y0, x1, y1 = (float(v) for v in window)
    fine = 2 * side
    scale = linear(fine / max(x1 - x0, 1e-3), fine / max(y1 - y0, 1e-3))
    to_grid = compose(
        scale, translate(-x0, -y0), translate(instance.x_offset, instance.y_offset))
    grid = warp(instance.visible.astype(np.uint8) * 255, to_grid, fine, fine)
    return np.asarray(cv2.resize(grid, (side, side), interpolation=cv2.INTER_AREA), np.uint8)


def cut_out(image: NDArray[np.uint8], shape: Shape, identity: int) -> Layer:
    """Make a layer of one instance that has a mask; its rim is softened by one pixel."""
    if shape.crop is None:
        raise ValueError('an instance without a mask cannot be cut out')
    height, width = shape.crop.shape
    x, y = shape.x_offset, shape.y_offset
    pixels = image[y:y + height, x:x + width]
    # A soft rim drawn inwards keeps the old background out of the new picture.
    blurred = cv2.blur(np.pad(shape.crop, 1).astype(np.uint8) * 255, (3, 3))
    alpha = np.array(blurred[1:-1, 1:-1], np.uint8)
    alpha[~shape.crop] = 0
    box = np.array([0, 0, width, height], np.float32)
    return Layer(pixels, alpha, [Shape(identity, box, alpha > 127)])


def bend(rng: np.random.Generator, layer: Layer, amount: float) -> Layer:
    """
    Shift the rows of a cut-out against each other along a smooth random curve.

    Parameters
    ----------
    rng : Generator
        Source of the curve.
    layer : Layer
        Of `cut_out`: one shape that fills it.
    amount : float
        Largest shift, part of the width.

    Returns
    -------
    Layer
        Wider on both sides by the largest shift; pixels, opacity and mask moved alike.

    """
    height, width = layer.image.shape[:2]
    if layer.alpha is None or amount == 0:
        return layer
    margin = math.ceil(amount * width)
    knots = rng.uniform(-1, 1, 4) * amount * width
    shift = np.interp(np.linspace(0, 3, height), np.arange(4), knots)
    columns = np.arange(width + 2 * margin)[None] - margin - shift[:, None]
    rows = np.repeat(np.arange(height)[:, None], width + 2 * margin, axis=1)
    places = columns.astype(np.float32), rows.astype(np.float32)
    image = cv2.remap(layer.image, *places, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    alpha = np.asarray(cv2.remap(layer.alpha, *places, cv2.INTER_LINEAR,
                                 borderMode=cv2.BORDER_CONSTANT, borderValue=0), np.uint8)
    box = np.array([0, 0, width + 2 * margin, height], np.float32)
    shapes = [Shape(shape.identity, box, alpha > 127) for shape in layer.shapes]
    return Layer(np.asarray(image, np.uint8), alpha, shapes)


def photo_transforms(
    rng: np.random.Generator, height: int, width: int, config: ViewConfig,
) -> tuple[Transform, Transform]:
    """Draw the transforms of a photo into two views that look at about the same place."""
    size = config.size
    zoom = math.exp(rng.uniform(math.log(config.zoom_min), math.log(config.zoom_max)))
    reach = size / zoom
    centre = [rng.uniform(min(reach, side) / 2, side - min(reach, side) / 2)
              for side in (width, height)]
    mirror = rng.random() < config.flip
    pair = []
    for _ in range(2):
        factor = _spread(rng, config.view_zoom) * zoom
        stretch = _spread(rng, config.aspect)
        single = rng.random() < config.view_flip
        shift = rng.uniform(-config.translation, config.translation, 2) * size
        pair.append(compose(
            translate(size / 2 + shift[0], size / 2 + shift[1]),
            linear(factor * stretch, factor, rng.uniform(-1, 1) * config.rotation_deg,
                   rng.uniform(-1, 1) * config.shear_deg, mirror != single),
            translate(-centre[0], -centre[1])))
    return pair[0], pair[1]


def large_scale_transforms(
    rng: np.random.Generator, height: int, width: int, config: ViewConfig,
) -> tuple[tuple[Transform, Transform], tuple[Transform, Transform]]:
    """
    Draw two views on their own: random affine, large-scale jitter, crop and mirror.

    The affine turns, scales and shears the photo about its middle. Then it is resized to a random
    part of the view, a random window of the view's size is cut from it, and that is mirrored.
    What the affine pushes over the rim of the photo still shows where there is room.

    Returns
    -------
    affines : tuple
        First half of each view's transform.
    placements : tuple
        Second half, which a blended photo shares.

    References
    ----------
    Steps and values of siyuanliii/masa; MASA_REFERENCE section 6, augmentations 1 and 4 to 6.

    """
    affines, placements = [], []
    for _ in range(2):
        scale = rng.uniform(config.affine_min, config.affine_max)
        shift = rng.uniform(-config.translation, config.translation, 2) * (width, height)
        affines.append(compose(
            translate(width / 2 + shift[0], height / 2 + shift[1]),
            linear(1, 1, shear_deg=rng.uniform(-1, 1) * config.shear_deg),
            linear(1, 1, rng.uniform(-1, 1) * config.rotation_deg), linear(scale, scale),
            translate(-width / 2, -height / 2)))
        factor = config.size * rng.uniform(config.resize_min, config.resize_max) / max(
            height, width)
        window = np.minimum(config.size, np.array([width, height]) * factor)
        corner = rng.uniform(0, 1, 2) * (np.array([width, height]) * factor - window)
        placement = compose(translate(-corner[0], -corner[1]), linear(factor, factor))
        if rng.random() < config.flip:
            placement = compose(translate(window[0], 0), linear(1, 1, mirror=True), placement)
        placements.append(placement)
    return (affines[0], affines[1]), (placements[0], placements[1])


def blend_transform(
    rng: np.random.Generator, partner: tuple[int, int], photo: tuple[int, int], size: int,
) -> Transform:
    """
    Place a blended photo on another: fitted to the view, scaled by 0.8 to 1.6, mirrored, cropped.

    Parameters
    ----------
    rng : Generator
        Source of the choices.
    partner, photo : tuple of int
        Height and width of the blended photo, and of the one under it.
    size : int
        Side of a view.

    """
    height, width = partner
    factor = size / max(height, width) * rng.uniform(0.8, 1.6)
    extent = np.array([width, height]) * factor
    room = np.maximum(extent - (photo[1], photo[0]), 0)
    corner = rng.uniform(0, 1, 2) * room
    mirror = rng.random() < 0.5
    placed = compose(translate(-corner[0], -corner[1]), linear(factor, factor))
    if mirror:
        placed = compose(
            translate(-corner[0] + extent[0], -corner[1]), linear(factor, factor, mirror=True))
    return placed


def object_transforms(
    rng: np.random.Generator, height: int, width: int, config: ViewConfig,
) -> tuple[Transform, Transform]:
    """Draw the transforms of a cut-out that moves on its own between two views."""
    size = config.size
    wanted = size * math.exp(rng.uniform(math.log(config.paste_min),
                                         math.log(config.paste_most)))
    # Enlarging a small cut-out further would only teach blur.
    zoom = min(wanted / max(height, width), 2.0)
    place = rng.uniform(0, size, 2)
    mirror = rng.random() < config.flip
    pair = []
    for step in range(2):
        factor = _spread(rng, config.view_zoom) * zoom
        stretch = _spread(rng, config.aspect)
        single = rng.random() < config.view_flip
        if step:
            place = np.clip(place + rng.normal(0, config.paste_motion * size, 2), 0, size)
        pair.append(compose(
            translate(place[0], place[1]),
            linear(factor * stretch, factor, rng.uniform(-1, 1) * config.rotation_deg,
                   rng.uniform(-1, 1) * config.shear_deg, mirror != single),
            translate(-width / 2, -height / 2)))
    return pair[0], pair[1]


def _spread(rng: np.random.Generator, factor: float) -> float:
    """Draw a factor between ``1 / sqrt(factor)`` and ``sqrt(factor)``, so two differ by it."""
    return math.exp(rng.uniform(-0.5, 0.5) * math.log(factor))


def jitter_colours(
    rng: np.random.Generator, image: NDArray[np.uint8], config: ViewConfig,
) -> NDArray[np.uint8]:
    """Shift hue, saturation and value, each with probability one half."""
    limits = np.array([config.hue, config.saturation, config.value])
    shift = rng.uniform(-1, 1, 3) * limits * (rng.random(3) < 0.5)
    if not shift.any():
        return image
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    line = np.arange(256)
    tables = np.stack([
        (line + round(shift[0])) % 180, np.clip(line + shift[1], 0, 255),
        np.clip(line + shift[2], 0, 255)], -1).astype(np.uint8)
    return np.asarray(
        cv2.cvtColor(cv2.LUT(hsv, tables[None]), cv2.COLOR_HSV2RGB), np.uint8)


def weather(rng: np.random.Generator, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Apply one of the photometric extras; no pixel changes its place by more than a blur."""
    kind = rng.integers(7)
    if kind == 0:
        return _motion_blur(rng, image)
    if kind == 1:
        noise = rng.standard_normal(image.shape, np.float32) * rng.uniform(3, 14)
        return _to_bytes(image + noise)
    if kind == 2:
        return _snow(rng, image)
    if kind == 3:
        thickness = rng.uniform(0.1, 0.5)
        return _to_bytes(image * (1 - thickness) + rng.uniform(180, 255) * thickness)
    if kind == 4:
        gamma = math.exp(rng.uniform(-0.6, 0.6))
        table = _to_bytes(255 * (np.arange(256) / 255) ** gamma)
        return np.asarray(cv2.LUT(image, table), np.uint8)
    if kind == 5:
        quality = int(rng.integers(20, 70))
        packed = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        return np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8)
    height, width = image.shape[:2]
    factor = rng.uniform(0.35, 0.8)
    small = cv2.resize(image, (max(round(width * factor), 1), max(round(height * factor), 1)),
                       interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (width, height)), np.uint8)


def _motion_blur(rng: np.random.Generator, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Average along a short line through each pixel."""
    length = int(rng.integers(1, 5)) * 2 + 1
    angle = rng.uniform(0, math.pi)
    kernel = np.zeros((length, length), np.float32)
    middle = length // 2
    for step in np.linspace(-middle, middle, 4 * length):
        kernel[round(middle + step * math.sin(angle)), round(middle + step * math.cos(angle))] = 1
    return np.asarray(cv2.filter2D(image, -1, kernel / kernel.sum()), np.uint8)


def _snow(rng: np.random.Generator, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Scatter bright flakes, blurred a little."""
    height, width = image.shape[:2]
    flakes = (rng.random((height, width), np.float32) < rng.uniform(0.002, 0.015))
    layer = cv2.GaussianBlur(flakes.astype(np.float32) * 4, (0, 0), rng.uniform(0.6, 1.4))
    weight = np.clip(layer, 0, 1)[:, :, None]
    return _to_bytes(image * (1 - weight) + 250 * weight)


def _to_bytes(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Round and clip to 8 bits."""
    return np.clip(np.round(values), 0, 255).astype(np.uint8)
