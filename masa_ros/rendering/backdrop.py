"""Sky, ground and house fronts of a procedural street: everything that carries no identity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
from masa_ros.rendering.camera import Camera, clip_polygon, index_homography, Plane
from masa_ros.rendering.textures import Color, color_from, dim, periodic_noise, pyramid, shade
import numpy as np
from numpy.typing import NDArray

TILE_M = 64.0
"""The street repeats itself after this many metres."""
WALL_HEIGHT_M = 16.0
_GROUND_PX_PER_M = 32
_WALL_PX_PER_M = 24
_GROUND = Plane((-TILE_M / 2, 0, 0), (1, 0, 0), (0, 0, 1))


@dataclass(frozen=True)
class StreetLayout:
    """
    Where things are across the street, in metres from its middle.

    Parameters
    ----------
    lane_width_m : float
        Width of each of the two lanes.
    sidewalk_m : float
        Width of each sidewalk.
    crosswalk_z_m : float
        Where pedestrians cross, within each tile of `TILE_M`.

    """

    lane_width_m: float
    sidewalk_m: float
    crosswalk_z_m: float

    @property
    def kerb_m(self) -> float:
        """Distance of the kerb from the middle."""
        return self.lane_width_m + 0.4

    @property
    def wall_m(self) -> float:
        """Distance of the house fronts from the middle."""
        return self.kerb_m + self.sidewalk_m


def random_layout(rng: np.random.Generator) -> StreetLayout:
    """Draw the proportions of a street."""
    return StreetLayout(float(rng.uniform(3.0, 3.8)), float(rng.uniform(3.2, 5.5)),
                        float(rng.uniform(8, 24)))


class Backdrop:
    """
    A street without its users.

    Parameters
    ----------
    layout : StreetLayout
        Proportions.
    rng : Generator
        Source of colours and textures.

    """

    def __init__(self, layout: StreetLayout, rng: np.random.Generator) -> None:
        self.haze: Color = dim((205, 214, 224), float(rng.uniform(0.8, 1.05)))
        self._sky = _sky_texture(rng, self.haze)
        self._surfaces = [
            _Surface(_GROUND, _ground_texture(layout, rng), _GROUND_PX_PER_M),
            *(_Surface(Plane((side * layout.wall_m, 0, 0), (0, 0, 1), (0, 1, 0)),
                       _wall_texture(rng), _WALL_PX_PER_M, WALL_HEIGHT_M) for side in (-1, 1))]

    def render(self, camera: Camera) -> NDArray[np.uint8]:
        """``(H, W, 3)`` uint8 view of the empty street."""
        image = self._render_sky(camera)
        for surface in self._surfaces:
            surface.draw(image, camera)
        return image

    def haze_amount(
        self, camera: Camera, reach_m: float, step_px: int,
    ) -> NDArray[np.float32]:
        """
        Share of haze in the view, on a grid coarser by ``step_px``.

        Parameters
        ----------
        camera : Camera
            Point of view.
        reach_m : float
            Distance after which 63 % of the contrast is gone.
        step_px : int
            Grid spacing.

        """
        v, u = np.mgrid[step_px / 2:camera.height_px:step_px, step_px / 2:camera.width_px:step_px]
        pixels = np.stack([u, v, np.ones_like(u)], axis=-1)
        nearest = np.full(u.shape, 1e-3)
        for surface in self._surfaces:
            nearest = np.maximum(nearest, surface.inverse_depth_of(pixels, camera))
        return np.asarray(0.85 * (1 - np.exp(-1 / (nearest * reach_m))), np.float32)

    def _render_sky(self, camera: Camera) -> NDArray[np.uint8]:
        """Piece of the sky texture in the direction of view."""
        height, width = self._sky.shape[:2]
        scale = width / (2 * np.pi) / camera.focal_px
        rotation = cv2.getRotationMatrix2D((0, 0), np.degrees(camera.roll), scale)
        half = np.array([camera.width_px / 2, camera.height_px / 2])
        center = np.array([camera.yaw * scale * camera.focal_px + width / 2,
                           height * 0.75 - camera.pitch * scale * camera.focal_px])
        rotation[:, 2] = center - rotation[:, :2] @ half
        return np.asarray(cv2.warpAffine(
            self._sky, rotation, (camera.width_px, camera.height_px),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE),
            np.uint8)


@dataclass(frozen=True)
class _Surface:
    """A repeating texture on a plane; with an alpha channel where it ends against the sky."""

    plane: Plane
    texture: NDArray[np.uint8]
    pixels_per_metre: float
    height_m: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, '_copies', pyramid(self.texture, 5))

    def draw(self, image: NDArray[np.uint8], camera: Camera) -> None:
        """Paint the surface into the image, each depth zone from the copy that fits it."""
        homography = self.plane.homography(camera)
        inverse_depth = self.plane.inverse_depth(camera)
        outline = self._outline(camera, homography, inverse_depth)
        copies: list[NDArray[np.uint8]] = self._copies  # type: ignore[attr-defined]
        # A texture pixel covers one image pixel at this depth; the factor trades some shimmer
        # for sharpness, because surfaces seen at an angle shrink more along one axis.
        depth = 1.4 * camera.focal_px / self.pixels_per_metre
        near = np.inf
        for level, texture in enumerate(copies):
            far = 1 / depth if level + 1 < len(copies) else 1 / 400
            zone = clip_polygon(outline, inverse_depth - np.array([0, 0, far]))
            if np.isfinite(near):
                zone = clip_polygon(zone, np.array([0, 0, near]) - inverse_depth)
            self._draw_zone(image, zone, homography, texture,
                            self.pixels_per_metre / 2 ** level)
            near, depth = far, depth * 2

    def inverse_depth_of(
        self, pixels: NDArray[np.float64], camera: Camera,
    ) -> NDArray[np.float64]:
        """``1 / depth`` at homogeneous pixels ``(..., 3)``; 0 where the surface is not seen."""
        values = pixels @ self.plane.inverse_depth(camera)
        if self.height_m is not None:
            surface = pixels @ np.linalg.inv(self.plane.homography(camera)).T
            heights = surface[..., 1] / np.where(surface[..., 2] == 0, 1e-9, surface[..., 2])
            values = np.where((heights < 0) | (heights > 0.7 * self.height_m), 0, values)
        return np.asarray(np.maximum(values, 0))

    def _outline(
        self, camera: Camera, homography: NDArray[np.float64],
        inverse_depth: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """Image polygon in which the surface may be seen."""
        width, height = camera.width_px, camera.height_px
        outline = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)
        outline = clip_polygon(outline, inverse_depth - np.array([0, 0, 1 / 400]))
        if self.height_m is None:
            return outline
        # Where the scale is positive, b >= 0 and b <= height are linear in the pixel too.
        to_surface = np.linalg.inv(homography)
        if len(outline) == 0:
            return outline
        to_surface *= np.sign(to_surface[2] @ np.array([*outline.mean(axis=0), 1]))
        outline = clip_polygon(outline, to_surface[1])
        top_m = self.height_m - 0.2  # The texture repeats; stay clear of the next row.
        return clip_polygon(outline, top_m * to_surface[2] - to_surface[1])

    def _draw_zone(
        self, image: NDArray[np.uint8], zone: NDArray[np.float64],
        homography: NDArray[np.float64], texture: NDArray[np.uint8], pixels_per_metre: float,
    ) -> None:
        if len(zone) < 3:
            return
        x0, y0 = np.maximum(np.floor(zone.min(axis=0)).astype(int), 0)
        x1, y1 = np.minimum(np.ceil(zone.max(axis=0)).astype(int), image.shape[1::-1])
        if x1 <= x0 or y1 <= y0:
            return
        view = cv2.warpPerspective(
            texture, index_homography(homography, pixels_per_metre, (int(x0), int(y0))),
            (int(x1 - x0), int(y1 - y0)), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_WRAP)
        mask = np.zeros(view.shape[:2], np.uint8)
        corners = np.round((zone - (x0, y0) - 0.5) * 16).astype(np.int32)
        cv2.fillConvexPoly(mask, corners, 255, shift=4)
        region = image[y0:y1, x0:x1]
        if view.shape[2] == 3:
            cv2.copyTo(view, mask, region)
            return
        opaque = cv2.min(mask, view[..., 3])
        blend_in(region, np.ascontiguousarray(view[..., :3], np.uint8),
                 np.asarray(opaque, np.uint8))


def blend_in(
    region: NDArray[np.uint8], colors: NDArray[np.uint8], alpha: NDArray[np.uint8],
) -> None:
    """Lay ``colors`` over ``region`` in place, ``alpha`` ``(h, w)`` telling how much."""
    weight = cv2.merge([alpha, alpha, alpha])
    kept = cv2.multiply(region, cv2.bitwise_not(weight), scale=1 / 255)
    laid = cv2.multiply(colors, weight, scale=1 / 255)
    region[:] = cv2.add(kept, laid)


def _sky_texture(rng: np.random.Generator, haze: Color) -> NDArray[np.uint8]:
    """All-round sky with clouds and a distant skyline; the horizon is at 3/4 of its height."""
    height, width = 512, 2048
    zenith = np.array(dim((96, 150, 214), float(rng.uniform(0.75, 1.1))), np.float32)
    horizon = np.array(haze, np.float32)
    rise = np.clip((height * 0.75 - np.arange(height)) / (height * 0.75), 0, 1)[:, None, None]
    sky = np.repeat(horizon + (zenith - horizon) * rise ** 0.7, width, axis=1)
    clouds = periodic_noise(rng, height, width, 128, 6, 0.55)
    cover = np.clip(clouds - float(rng.uniform(-0.3, 1.0)), 0, 1)[..., None] * (0.2 + 0.8 * rise)
    sky += (np.array([248, 248, 250], np.float32) - sky) * 0.85 * cover
    bottom = int(height * 0.75)
    for layer, (low, high) in enumerate(((14, 52), (6, 34))):
        color = horizon * (0.86 - 0.12 * layer) * np.array([0.95, 1.0, 0.98])
        x = 0
        while x < width:
            step = int(rng.integers(14, 60))
            top = bottom - int(rng.integers(low, high))
            sky[top:bottom, x:x + step] = color * float(rng.uniform(0.95, 1.05))
            x += step
    sky[bottom:] = horizon * 0.8
    return np.asarray(np.clip(sky, 0, 255), np.uint8)


def _ground_texture(layout: StreetLayout, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Road, kerbs, sidewalks and crosswalk seen from above; rows run along the street."""
    scale = _GROUND_PX_PER_M
    size = int(TILE_M * scale)
    noise = periodic_noise(rng, size, size, 256, 8, 0.75)
    gray = int(rng.integers(84, 124))
    grain = periodic_noise(rng, size, size, 4, 3, 0.9)
    ground = shade((gray, gray, gray + 3), 0.7 * noise + 0.5 * grain, 0.10)

    def columns(left_m: float, right_m: float) -> slice:
        return slice(*(int((x + TILE_M / 2) * scale) for x in (left_m, right_m)))

    paving = _paving(rng, size, scale)
    kerb, wall = layout.kerb_m, layout.wall_m
    for left, right in ((-TILE_M / 2, -kerb), (kerb, TILE_M / 2)):
        ground[:, columns(left, right)] = paving[:, columns(left, right)]
    green = float(rng.uniform(0.75, 1.1))
    soil = shade(dim((104, 118, 70), green), periodic_noise(rng, size, size, 64, 6, 0.8), 0.2)
    for edge in (-wall, wall - 0.5):
        ground[:, columns(edge, edge + 0.5)] = soil[:, columns(edge, edge + 0.5)]
    for edge in (-kerb - 0.2, kerb):
        ground[:, columns(edge, edge + 0.2)] = shade((176, 174, 168), noise, 0.06)[
            :, columns(edge, edge + 0.2)]
    _paint_markings(ground, layout, columns, noise)
    for _ in range(12):
        center = (int(rng.uniform(size / 2 - kerb * scale, size / 2 + kerb * scale)),
                  int(rng.integers(40, size - 40)))
        if rng.random() < 0.5:
            cv2.circle(ground, center, int(0.35 * scale), dim((70, 68, 66), 0.8), -1, cv2.LINE_AA)
            cv2.circle(ground, center, int(0.35 * scale), (120, 118, 114), 1, cv2.LINE_AA)
        else:
            extent = (int(rng.uniform(0.5, 1.5) * scale), int(rng.uniform(0.5, 3) * scale))
            cv2.rectangle(ground, center, (center[0] + extent[0], center[1] + extent[1]),
                          dim((gray, gray, gray), float(rng.uniform(0.75, 0.9))), -1)
    return ground


def _paint_markings(
    ground: NDArray[np.uint8], layout: StreetLayout, columns: object,
    noise: NDArray[np.float32],
) -> None:
    """Paint lane lines and zebra stripes, worn where the noise is high."""
    scale = _GROUND_PX_PER_M
    paint = np.zeros(ground.shape[:2], bool)
    assert callable(columns)
    rows = np.arange(ground.shape[0]) / scale
    paint[np.ix_(rows % 8 < 4, np.arange(ground.shape[1])[columns(-0.08, 0.08)])] = True
    for edge in (-layout.lane_width_m, layout.lane_width_m - 0.12):
        paint[:, columns(edge, edge + 0.12)] = True
    start = int(layout.crosswalk_z_m * scale)
    crossing = slice(start, start + int(3.2 * scale))
    paint[crossing] = False
    x = -layout.kerb_m + 0.3
    while x < layout.kerb_m - 0.5:
        paint[crossing, columns(x, x + 0.5)] = True
        x += 1.0
    ground[paint & (noise < 1.3)] = (222, 222, 214)


def _paving(rng: np.random.Generator, size: int, scale: int) -> NDArray[np.uint8]:
    """Slabs of slightly different brightness with dark joints."""
    slab = int(rng.choice([16, 32]))
    tone = int(rng.integers(130, 170))
    brightness = rng.normal(0, 1, (size // slab, size // slab)).astype(np.float32)
    slabs = np.kron(brightness, np.ones((slab, slab), np.float32))
    grain = periodic_noise(rng, size, size, 128, 7, 0.8)
    paving = shade((tone, tone - 4, tone - 12), 0.6 * slabs + 0.5 * grain, 0.07)
    paving[::slab] = paving[::slab] // 10 * 7
    paving[:, ::slab] = paving[:, ::slab] // 10 * 7
    return paving


def _wall_texture(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Paint a row of house fronts with alpha, ground floor in row 0 (b runs upwards)."""
    scale = _WALL_PX_PER_M
    height, width = int(WALL_HEIGHT_M * scale), int(TILE_M * scale)
    wall = np.zeros((height, width, 4), np.uint8)
    noise = periodic_noise(rng, height, width, 64, 5, 0.7)
    x = 0
    while x < width:
        span = int(rng.uniform(7, 14) * scale)
        span = width - x if width - x - span < 6 * scale else span
        top = int(rng.uniform(6.5, WALL_HEIGHT_M - 0.5) * scale)
        house = _house(rng, top, span, noise[:top, x:x + span])
        wall[:top, x:x + span, :3] = house
        wall[:top, x:x + span, 3] = 255
        x += span
    return wall


def _house(
    rng: np.random.Generator, height: int, width: int, noise: NDArray[np.float32],
) -> NDArray[np.uint8]:
    """One front: plaster or brick, a window grid, a shop or doors below, a cornice on top."""
    scale = _WALL_PX_PER_M
    color = color_from(rng, (0.06, 0.34), (0.5, 0.88))
    front = shade(color, noise, 0.06)
    if rng.random() < 0.4:
        rows = np.arange(height)[:, None] // 4
        joints = (np.arange(height)[:, None] % 4 == 0) | (
            (np.arange(width)[None, :] + 6 * (rows % 2)) % 12 == 0)
        front[joints] = (front[joints] * 0.82).astype(np.uint8)
    trim = dim(color, float(rng.choice([0.6, 1.35])))
    pitch_x, pitch_y = int(rng.uniform(1.9, 2.8) * scale), int(3.1 * scale)
    size = (int(pitch_x * rng.uniform(0.4, 0.62)), int(pitch_y * rng.uniform(0.45, 0.6)))
    for row, y in enumerate(range(int(3.9 * scale), height - size[1] - 12, pitch_y)):
        for x in range((width % pitch_x + pitch_x - size[0]) // 2, width - size[0], pitch_x):
            _window(rng, front, (x, y), size, trim, lintel=row % 2 == 0)
    _ground_floor(rng, front, width, trim)
    cv2.rectangle(front, (0, height - 8), (width, height - 4), trim, -1)
    front[:, 0] = front[:, 0] // 2
    return front


def _window(
    rng: np.random.Generator, front: NDArray[np.uint8], corner: tuple[int, int],
    size: tuple[int, int], trim: Color, lintel: bool,
) -> None:
    (x, y), (width, height) = corner, size
    glass = dim((110, 128, 146), float(rng.uniform(0.45, 1.25)))
    if rng.random() < 0.12:
        glass = (236, 214, 150)
    cv2.rectangle(front, (x - 2, y - 2), (x + width + 2, y + height + 2), trim, -1)
    cv2.rectangle(front, (x, y), (x + width, y + height), glass, -1)
    shine = np.array([[x, y + height], [x + width // 2, y + height], [x, y + height // 2]])
    cv2.fillConvexPoly(front, shine, dim(glass, 1.25))
    cv2.line(front, (x + width // 2, y), (x + width // 2, y + height), trim, 2)
    if lintel:
        cv2.rectangle(front, (x - 4, y - 6), (x + width + 4, y - 3), dim(trim, 0.85), -1)


def _ground_floor(
    rng: np.random.Generator, front: NDArray[np.uint8], width: int, trim: Color,
) -> None:
    scale = _WALL_PX_PER_M
    cv2.rectangle(front, (0, 0), (width, int(0.5 * scale)), dim(trim, 0.7), -1)
    if rng.random() < 0.6:
        shop = color_from(rng, (0.5, 0.9), (0.45, 0.9))
        left, right = int(0.6 * scale), width - int(0.6 * scale)
        cv2.rectangle(front, (left, int(0.6 * scale)), (right, int(2.5 * scale)), (52, 60, 70), -1)
        for x in range(left, right, int(1.8 * scale)):
            cv2.rectangle(front, (x, int(0.6 * scale)), (x + 4, int(2.5 * scale)), trim, -1)
        for index, x in enumerate(range(left, right, 10)):
            stripe = shop if index % 2 else (238, 236, 228)
            cv2.rectangle(front, (x, int(2.5 * scale)), (min(x + 9, right), int(3.2 * scale)),
                          stripe, -1)
    else:
        for x in range(int(1.2 * scale), width - int(1.5 * scale), int(rng.uniform(3, 6) * scale)):
            door = color_from(rng, (0.3, 0.8), (0.25, 0.6))
            cv2.rectangle(front, (x, 0), (x + int(1.1 * scale), int(2.3 * scale)), door, -1)
            cv2.rectangle(front, (x + 3, int(1.3 * scale)),
                          (x + int(1.1 * scale) - 3, int(2.1 * scale)), dim(door, 1.4), -1)


def shadows_on_ground(
    camera: Camera, footprints: Sequence[NDArray[np.float64]], step_px: int,
) -> NDArray[np.float32]:
    """
    How much light reaches the ground, on a grid coarser by ``step_px``.

    Parameters
    ----------
    camera : Camera
        Point of view.
    footprints : sequence of ndarray
        ``(K, 3)`` world points on the ground, each set the outline of one shadow in any order.
    step_px : int
        Grid spacing.

    Returns
    -------
    ndarray
        ``(H / step, W / step)`` float32 from 0 (in shadow) to 1 (lit).

    """
    small = replace(camera, focal_px=camera.focal_px / step_px,
                    width_px=camera.width_px // step_px, height_px=camera.height_px // step_px)
    light = np.full((small.height_px, small.width_px), 255, np.uint8)
    for footprint in footprints:
        points = small.to_camera(footprint)
        if points[:, 2].min() < 1:
            continue
        pixels = np.round(small.to_image(points) * 16).astype(np.int32)
        cv2.fillConvexPoly(light, cv2.convexHull(pixels), 0, cv2.LINE_AA, 4)
    return np.asarray(cv2.blur(light, (3, 3)) / np.float32(255), np.float32)
