"""A rendered street over time, with the exact truth about every object."""

from __future__ import annotations

from dataclasses import dataclass
import math

import cv2
from masa_ros.rendering.backdrop import Backdrop, random_layout, shadows_on_ground, StreetLayout
from masa_ros.rendering.camera import Camera
from masa_ros.rendering.drawing import Drawing, Layer, rasterize, silhouette_area
from masa_ros.rendering.motion import CameraPath, Path
from masa_ros.rendering.textures import periodic_noise
from masa_ros.rendering.traffic import Actor, CLASS_NAMES, furnish, populate
from masa_ros.structures.masks import encode_crop, RoiMask
from masa_ros.structures.settings import setting
import numpy as np
from numpy.typing import NDArray

_GRID_PX = 4
_FAR_M = 120.0


@dataclass(frozen=True)
class SceneConfig:
    """What a rendered street looks like."""

    width_px: int = setting(640, 'Width of the image.', minimum=64, maximum=4096)
    height_px: int = setting(360, 'Height of the image.', minimum=64, maximum=4096)
    duration_s: float = setting(
        12.0, 'Time over which objects appear.', minimum=0.1, maximum=3600.0)
    num_objects: int = setting(30, 'Identities over the whole time.', minimum=0, maximum=1000)
    num_props: int = setting(
        9, 'Trees, lamps and signs, which hide objects.', minimum=0, maximum=100)
    view: str = setting(
        'random', 'Point of view.', choices=('random', 'street', 'corner', 'across', 'high'))
    camera_motion: float = setting(
        1.0, 'Strength of drift, panning and shaking; 0 is a fixed camera.', minimum=0.0,
        maximum=5.0)
    exposures: int = setting(
        1, 'Pictures averaged into one for motion blur.', minimum=1, maximum=32)
    exposure_s: float = setting(
        0.02, 'Time over which they are taken.', minimum=0.0, maximum=0.2)
    noise: float = setting(
        2.0, 'Standard deviation of the sensor noise, in gray levels.', minimum=0.0,
        maximum=50.0)
    haze_reach_m: float = setting(
        90.0, 'Distance after which 63 % of the contrast is gone.', minimum=1.0,
        maximum=10000.0)
    shadow_strength: float = setting(
        0.45, 'Share of light that a shadow takes.', minimum=0.0, maximum=1.0)
    min_height_px: float = setting(
        8.0, 'Objects smaller than this are drawn but not part of the truth.', minimum=1.0,
        maximum=1000.0)


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """
    The objects of one rendered frame, row by row.

    Parameters
    ----------
    track_ids : ndarray
        ``(N,)`` int64 identities from 1.
    class_ids : ndarray
        ``(N,)`` int64 indices into `CLASS_NAMES`.
    labels : tuple of str
        Class names.
    amodal_boxes : ndarray
        ``(N, 4)`` xyxy around the whole silhouette, hidden parts and those outside the image
        included.
    visible_boxes : ndarray
        ``(N, 4)`` xyxy around the visible pixels; all 0 where nothing is visible.
    masks : tuple of RoiMask
        Visible pixels; of size 0 x 0 where there are none.
    visibilities : ndarray
        ``(N,)`` share of the silhouette, hidden parts and those outside the image included, that
        is visible.

    """

    track_ids: NDArray[np.int64]
    class_ids: NDArray[np.int64]
    labels: tuple[str, ...]
    amodal_boxes: NDArray[np.float32]
    visible_boxes: NDArray[np.float32]
    masks: tuple[RoiMask, ...]
    visibilities: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.track_ids)


@dataclass(frozen=True, eq=False)
class RenderedFrame:
    """
    One picture and what is in it.

    Parameters
    ----------
    image : ndarray
        ``(H, W, 3)`` uint8 RGB.
    truth : GroundTruth
        Objects inside the image, hidden ones included.
    time_s : float
        Time of the middle of the exposure.

    """

    image: NDArray[np.uint8]
    truth: GroundTruth
    time_s: float


class Scene:
    """
    A street that can be rendered at any time; equal seeds give equal pixels.

    Parameters
    ----------
    seed : int
        Decides everything that the configuration leaves open.
    config : SceneConfig
        Settings.

    """

    def __init__(self, seed: int, config: SceneConfig | None = None) -> None:
        self.config = config or SceneConfig()
        self._seed = seed
        rng = np.random.default_rng(seed)
        self.layout = random_layout(rng)
        self.view = random_view(self.config, self.layout, rng)
        self._backdrop = Backdrop(self.layout, rng)
        self.actors = populate(self.config.num_objects, self.config.duration_s, self.layout,
                               self.view, rng)
        self._props = furnish(self.config.num_props, self.layout, self.view, rng)
        azimuth = float(rng.uniform(0, 2 * np.pi))
        self._sun = _unit(np.array([math.cos(azimuth), rng.uniform(0.8, 1.6), math.sin(azimuth)]))
        self._tint = rng.normal(1, 0.03, 3)
        self._light = float(rng.uniform(0.92, 1.1))
        self._light_phase = float(rng.uniform(0, 2 * np.pi))
        self._grain = np.stack([
            np.round(self.config.noise * periodic_noise(rng, 256, 256, 2, 2))
            for _ in range(3)], axis=-1).astype(np.int16)

    def render(self, time_s: float) -> RenderedFrame:
        """
        Take a picture.

        Parameters
        ----------
        time_s : float
            Time of the middle of the exposure, best between 0 and the configured duration.

        """
        config = self.config
        image, truth = self._expose(time_s)
        if config.exposures > 1:
            total = image.astype(np.float32)
            offsets = np.linspace(-0.5, 0.5, config.exposures) * config.exposure_s
            for offset in offsets[np.abs(offsets) > 1e-9]:
                total += self._expose(time_s + float(offset))[0]
            count = 1 + int((np.abs(offsets) > 1e-9).sum())
            image = np.round(total / count).astype(np.uint8)
        return RenderedFrame(self._develop(image, time_s), truth, time_s)

    def _expose(self, time_s: float) -> tuple[NDArray[np.uint8], GroundTruth]:
        """Picture without sensor effects, and the truth."""
        camera = self.view.at(time_s)
        image = self._backdrop.render(camera)
        visible = self._in_front(camera, time_s)
        self._light_ground(image, camera, time_s, visible)
        labels = np.zeros(image.shape[:2], np.uint16)
        drawn: list[tuple[Actor, Drawing, Layer]] = []
        for depth, actor in visible:
            drawing = actor.draw(time_s, camera, self._sun)
            layer = rasterize(drawing, camera.width_px, camera.height_px, actor.texture)
            if layer is None:
                continue
            haze = 0.85 * (1 - math.exp(-depth / self.config.haze_reach_m))
            _lay_over(image, layer, haze, self._backdrop.haze)
            drawn.append((actor, drawing, layer))
            label = len(drawn) if actor.track_id else 0
            labels[layer.region()][layer.coverage >= 128] = label
        return image, self._truth(drawn, labels)

    def _in_front(self, camera: Camera, time_s: float) -> list[tuple[float, Actor]]:
        """Actors between the house fronts that may be seen, the farthest first."""
        everybody = [*self._props, *self.actors]
        if not everybody:
            return []
        places = np.stack([actor.path.positions(time_s) for actor in everybody])
        depths = camera.to_camera(places)[:, 2]
        inside = np.abs(places[:, 0]) < self.layout.wall_m - 0.2
        order = np.argsort(-depths, kind='stable')
        return [(float(depths[i]), everybody[i]) for i in order
                if inside[i] and -everybody[i].room_m[1] < depths[i] < _FAR_M]

    def _light_ground(
        self, image: NDArray[np.uint8], camera: Camera, time_s: float,
        visible: list[tuple[float, Actor]],
    ) -> None:
        """Lay shadows and haze over the empty street, in place."""
        config = self.config
        haze = self._backdrop.haze_amount(camera, config.haze_reach_m, _GRID_PX)[..., None]
        shadows = shadows_on_ground(
            camera, [actor.shadow(time_s, self._sun) for depth, actor in visible if depth < 60],
            _GRID_PX)
        shape = haze.shape[1::-1]
        light = cv2.resize(shadows, shape, interpolation=cv2.INTER_LINEAR)[..., None]
        light = (1 - config.shadow_strength * (1 - light)) * (1 - haze)
        size = (image.shape[1], image.shape[0])
        gain = cv2.resize(np.repeat(np.round(255 * light), 3, axis=2).astype(np.uint8), size)
        glow = cv2.resize(np.round(haze * np.array(self._backdrop.haze)).astype(np.uint8), size)
        image[:] = cv2.add(cv2.multiply(image, gain, scale=1 / 255), glow)

    def _truth(
        self, drawn: list[tuple[Actor, Drawing, Layer]], labels: NDArray[np.uint16],
    ) -> GroundTruth:
        """Collect what is known about the objects, by identity."""
        height, width = labels.shape
        rows = []
        for index, (actor, drawing, layer) in enumerate(drawn, start=1):
            bounds = drawing.bounds()
            if not actor.track_id or bounds is None:
                continue
            if bounds[3] - bounds[1] < self.config.min_height_px:
                continue
            mask = _encode_visible(labels[layer.region()] == index, layer.x0, layer.y0)
            silhouette = float((layer.coverage >= 128).sum())
            if bounds.min() < 0 or bounds[2] > width or bounds[3] > height:
                silhouette = max(silhouette_area(drawing), silhouette)
            box = np.array([mask.x_offset, mask.y_offset, mask.x_offset + mask.width,
                            mask.y_offset + mask.height])
            rows.append((actor, bounds, box, mask, mask.area / max(silhouette, 1.0)))
        rows.sort(key=lambda row: row[0].track_id)
        class_ids = np.array([row[0].class_id for row in rows], np.int64)
        return GroundTruth(
            np.array([row[0].track_id for row in rows], np.int64), class_ids,
            tuple(CLASS_NAMES[i] for i in class_ids),
            np.array([row[1] for row in rows], np.float32).reshape(-1, 4),
            np.array([row[2] for row in rows], np.float32).reshape(-1, 4),
            tuple(row[3] for row in rows),
            np.minimum(np.array([row[4] for row in rows], np.float32), 1))

    def _develop(self, image: NDArray[np.uint8], time_s: float) -> NDArray[np.uint8]:
        """Brightness of the hour, colour cast and grain of the sensor."""
        flicker = 1 + 0.05 * math.sin(0.8 * time_s + self._light_phase)
        levels = np.arange(256)[:, None] * self._light * flicker * self._tint
        table = np.clip(np.round(levels), 0, 255).astype(np.uint8)[None]
        developed = np.asarray(cv2.LUT(image, table), np.uint8)
        if self.config.noise == 0:
            return developed
        rng = np.random.default_rng((self._seed, round(1e6 * time_s) & 0xffffffff))
        size = self._grain.shape[0]
        shift = rng.integers(0, size, 2)
        rows = (np.arange(image.shape[0]) + shift[0]) % size
        columns = (np.arange(image.shape[1]) + shift[1]) % size
        grain = self._grain[rows][:, columns]
        return np.asarray(cv2.add(developed, grain, dtype=cv2.CV_8U), np.uint8)


def random_view(
    config: SceneConfig, layout: StreetLayout, rng: np.random.Generator,
) -> CameraPath:
    """Choose a place and a direction to look from."""
    kind = config.view if config.view != 'random' else str(
        rng.choice(['street', 'corner', 'across', 'high']))
    side = float(rng.choice([-1, 1]))
    sidewalk = layout.kerb_m + 0.35 * layout.sidewalk_m
    x, height, yaw, pitch = {
        'street': (0.0, 1.7, 0.05, -0.03), 'corner': (side * sidewalk, 2.1, -side * 0.62, -0.05),
        'across': (side * (layout.wall_m - 0.8), 2.4, -side * 1.3, -0.08),
        'high': (side * sidewalk, 5.5, -side * 0.5, -0.26)}[kind]
    motion = config.camera_motion
    forward = 0.9 if kind == 'street' else 0.35
    path = Path((x, 0.0), 0.0, forward * motion * float(rng.uniform(0.5, 1.2)), 0.4, 0.5,
                phase=float(rng.uniform(0, 2 * np.pi)))
    return CameraPath(
        path, height * float(rng.uniform(0.9, 1.1)), yaw + float(rng.normal(0, 0.08)), pitch,
        0.12 * motion * float(rng.uniform(0.5, 1.2)), float(rng.uniform(0.35, 0.6)),
        0.0015 * motion, 0.8 * config.width_px, config.width_px, config.height_px)


def _unit(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(vector / np.linalg.norm(vector))


def _lay_over(
    image: NDArray[np.uint8], layer: Layer, haze: float, haze_color: tuple[int, int, int],
) -> None:
    """Blend an object over the image, in place, paled by the haze in front of it."""
    region = image[layer.region()]
    coverage = cv2.merge([layer.coverage] * 3)
    colors = cv2.addWeighted(
        layer.colors, 1 - haze, cv2.multiply(
            coverage, np.array([*haze_color, 0], np.float64), scale=1 / 255), haze, 0)
    kept = cv2.multiply(region, cv2.bitwise_not(coverage), scale=1 / 255)
    region[:] = cv2.add(kept, colors)


def _encode_visible(mask: NDArray[np.bool_], x0: int, y0: int) -> RoiMask:
    """Run lengths of a mask inside its tight box."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        return RoiMask(0, 0, 0, 0, np.zeros(0, np.uint32))
    crop = mask[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1]
    return encode_crop(crop, x0 + int(columns[0]), y0 + int(rows[0]))
