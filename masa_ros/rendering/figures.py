"""Things that bend or are round: people, cyclists, dogs, cones, balls, balloons, trees."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
import math

from masa_ros.rendering.camera import Camera
from masa_ros.rendering.drawing import Drawing, Sketch
from masa_ros.rendering.mesh import turn
from masa_ros.rendering.textures import Color, color_from, dim
import numpy as np
from numpy.typing import NDArray

_SKINS: tuple[Color, ...] = (
    (244, 208, 180), (226, 178, 142), (190, 136, 100), (140, 94, 66), (92, 62, 46))
_HAIRS: tuple[Color, ...] = (
    (38, 30, 26), (88, 58, 36), (160, 116, 62), (204, 176, 120), (150, 150, 152))


@dataclass(frozen=True)
class Pose:
    """
    Where a figure is and how far it has come.

    Parameters
    ----------
    position : ndarray
        ``(3,)`` world point of its foot.
    heading : float
        Direction it looks to, radians; 0 is +z.
    travelled_m : float
        Way covered so far; drives legs and wheels.
    time_s : float
        Time; drives what moves by itself (tails, leaves).

    """

    position: NDArray[np.float64]
    heading: float
    travelled_m: float
    time_s: float

    def place(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Move points ``(K, 3)`` from the figure's frame into the world."""
        return np.asarray(points @ turn(self.heading) + self.position)


class Limbs:
    """Capsules in a figure's own frame, collected and then drawn together."""

    def __init__(self) -> None:
        self._starts: list[tuple[float, float, float]] = []
        self._ends: list[tuple[float, float, float]] = []
        self._radii: list[tuple[float, float]] = []
        self._colors: list[Color] = []

    def add(self, start: tuple[float, float, float], end: tuple[float, float, float],
            radius: float, color: Color, end_radius: float | None = None) -> None:
        """Add one thick line."""
        self._starts.append(start)
        self._ends.append(end)
        self._radii.append((radius, radius if end_radius is None else end_radius))
        self._colors.append(color)

    def draw(self, sketch: Sketch, pose: Pose) -> None:
        """Draw all lines, the farthest first."""
        sketch.capsules(pose.place(np.array(self._starts)), pose.place(np.array(self._ends)),
                        np.array(self._radii), self._colors)

    def points(self) -> NDArray[np.float64]:
        """``(K, 3)`` end points in the figure's frame."""
        return np.array(self._starts + self._ends)


class Pedestrian:
    """
    A walking person.

    Parameters
    ----------
    rng : Generator
        Source of height and clothes.

    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.height_m = float(rng.uniform(1.1, 1.3) if rng.random() < 0.12
                              else rng.uniform(1.55, 1.95))
        self._girth = float(rng.uniform(0.9, 1.25))
        self._skin = _SKINS[rng.integers(len(_SKINS))]
        self._hair = _HAIRS[rng.integers(len(_HAIRS))]
        self._trousers = color_from(rng, (0.1, 0.6), (0.15, 0.6))
        self._shirt = color_from(rng, (0.2, 0.95), (0.3, 0.95))
        self._trim = color_from(rng, (0.2, 0.95), (0.3, 0.95))
        self._striped = bool(rng.random() < 0.4)
        self._skirt = bool(rng.random() < 0.25)
        self._pack = color_from(rng) if rng.random() < 0.35 else None
        self._hat = color_from(rng) if rng.random() < 0.3 else None
        self._phase = float(rng.uniform(0, 2 * np.pi))

    def sketch(self, pose: Pose, camera: Camera) -> Drawing:
        """Draw the person as seen by a camera."""
        sketch = Sketch(camera)
        self.limbs(pose.travelled_m).draw(sketch, pose)
        return sketch.drawing

    def limbs(self, travelled_m: float) -> Limbs:
        """Body parts after walking some way."""
        h = self.height_m
        limbs = Limbs()
        step = 2 * math.pi * travelled_m / (0.8 * h) + self._phase
        for side, swing in ((-1, math.sin(step)), (1, -math.sin(step))):
            self._leg(limbs, side, swing, math.cos(step) * side)
            self._arm(limbs, side, -swing)
        self._torso(limbs)
        bob = 0.012 * h * abs(math.cos(step))
        limbs.add((0, 0.84 * h, 0), (0, 0.88 * h + bob, 0), 0.035 * h, self._skin)
        head = (0.0, 0.925 * h + bob, 0.01 * h)
        limbs.add(head, head, 0.065 * h, self._skin)
        limbs.add((0, 0.945 * h + bob, -0.02 * h), (0, 0.945 * h + bob, -0.02 * h), 0.06 * h,
                  self._hat or self._hair)
        if self._hat:
            limbs.add((-0.03 * h, 0.965 * h + bob, 0), (0.03 * h, 0.965 * h + bob, 0.02 * h),
                      0.055 * h, self._hat)
        return limbs

    def _leg(self, limbs: Limbs, side: int, swing: float, lift: float) -> None:
        h = self.height_m
        hip = (0.045 * h * side, 0.5 * h, 0.0)
        bend = max(lift, 0.0)
        knee = (hip[0], 0.27 * h + 0.03 * h * bend, h * (0.13 * swing + 0.05 * bend))
        ankle = (hip[0], 0.04 * h + 0.05 * h * bend, h * (0.22 * swing - 0.06 * bend))
        bare = self._skin if self._skirt else self._trousers
        limbs.add(hip, knee, 0.05 * h * self._girth, self._trousers, 0.038 * h)
        limbs.add(knee, ankle, 0.037 * h, bare, 0.026 * h)
        limbs.add(ankle, (ankle[0], ankle[1] - 0.015 * h, ankle[2] + 0.06 * h), 0.024 * h,
                  dim(self._trousers, 0.5))

    def _arm(self, limbs: Limbs, side: int, swing: float) -> None:
        h = self.height_m
        shoulder = (0.115 * h * side * self._girth, 0.79 * h, 0.0)
        elbow = (shoulder[0] * 1.15, 0.63 * h, 0.07 * h * swing)
        hand = (shoulder[0] * 1.1, 0.5 * h, h * (0.13 * swing + 0.05))
        limbs.add(shoulder, elbow, 0.034 * h, dim(self._shirt, 0.9), 0.03 * h)
        limbs.add(elbow, hand, 0.027 * h, dim(self._shirt, 0.85), 0.022 * h)
        limbs.add(hand, hand, 0.026 * h, self._skin)

    def _torso(self, limbs: Limbs) -> None:
        h = self.height_m
        for index, level in enumerate(np.linspace(0.5, 0.79, 8)):
            half = h * self._girth * (0.055 + 0.045 * (level - 0.5) / 0.29)
            color = self._trim if self._striped and index % 2 else self._shirt
            limbs.add((-half, level * h, 0), (half, level * h, 0), 0.062 * h * self._girth, color)
        if self._skirt:
            for level in (0.34, 0.4, 0.46):
                limbs.add((-0.07 * h, level * h, 0), (0.07 * h, level * h, 0), 0.07 * h,
                          self._trousers)
        if self._pack:
            limbs.add((0, 0.6 * h, -0.1 * h), (0, 0.74 * h, -0.1 * h), 0.085 * h, self._pack)


class Cyclist:
    """
    A person on a bicycle.

    Parameters
    ----------
    rng : Generator
        Source of clothes and frame colour.

    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.height_m = float(rng.uniform(1.65, 1.85))
        self._rider = color_from(rng)
        self._frame = color_from(rng, (0.5, 1.0), (0.4, 0.9))
        self._helmet = color_from(rng)
        self._legs = color_from(rng, (0.1, 0.6), (0.15, 0.5))
        self._skin = _SKINS[rng.integers(len(_SKINS))]

    def sketch(self, pose: Pose, camera: Camera) -> Drawing:
        """Draw bicycle and rider as seen by a camera."""
        sketch = Sketch(camera)
        for z in (-0.52, 0.52):
            self._wheel(sketch, pose, z)
        limbs = self.limbs(pose.travelled_m)
        limbs.draw(sketch, pose)
        return sketch.drawing

    def _wheel(self, sketch: Sketch, pose: Pose, z: float) -> None:
        """Ring of short thick lines, so that one sees through the wheel."""
        angles = np.linspace(0, 2 * np.pi, 17)
        ring = np.stack([np.zeros(17), 0.34 + 0.32 * np.sin(angles), z + 0.32 * np.cos(angles)],
                        axis=1)
        world = pose.place(ring)
        sketch.capsules(world[:-1], world[1:], np.full((16, 2), 0.028), [(34, 34, 36)] * 16)
        spin = pose.travelled_m / 0.34 + np.array([0, np.pi / 2])
        ends = np.stack([np.zeros(2), 0.31 * np.sin(spin), 0.31 * np.cos(spin)], axis=1)
        hub = np.array([0, 0.34, z])
        sketch.capsules(pose.place(hub - ends), pose.place(hub + ends), np.full((2, 2), 0.008),
                        [(170, 170, 174)] * 2)

    def limbs(self, travelled_m: float) -> Limbs:
        """Frame and body after riding some way."""
        limbs = Limbs()
        pedal, seat, bar = (0.0, 0.32, 0.05), (0.0, 0.9, -0.2), (0.0, 0.98, 0.42)
        rear, front = (0.0, 0.34, -0.52), (0.0, 0.34, 0.52)
        for start, end in ((pedal, seat), (pedal, (0, 0.85, 0.4)), (seat, (0, 0.85, 0.4)),
                           (rear, pedal), (rear, (0, 0.8, -0.17)), (front, bar)):
            limbs.add(start, end, 0.024, self._frame)
        hip, shoulder = (0.0, 0.98, -0.18), (0.0, 1.42, 0.14)
        turn_rad = travelled_m / 1.2
        for side, angle in ((-1, turn_rad), (1, turn_rad + math.pi)):
            foot = (0.09 * side, 0.32 + 0.16 * math.sin(angle), 0.05 + 0.16 * math.cos(angle))
            knee = (0.1 * side, 0.5 * (foot[1] + hip[1]) + 0.06, 0.5 * (foot[2] + hip[2]) + 0.2)
            limbs.add((0.08 * side, *hip[1:]), knee, 0.08, self._legs, 0.055)
            limbs.add(knee, foot, 0.05, self._legs, 0.04)
            limbs.add(foot, (foot[0], foot[1] - 0.02, foot[2] + 0.1), 0.035, (40, 40, 44))
            limbs.add((0.17 * side, shoulder[1], shoulder[2]), (0.2 * side, 1.0, 0.44), 0.045,
                      dim(self._rider, 0.85))
        for share in np.linspace(0, 1, 5):
            half = 0.08 + 0.06 * float(share)
            y = hip[1] + share * (shoulder[1] - hip[1])
            z = hip[2] + share * (shoulder[2] - hip[2])
            limbs.add((-half, y, z), (half, y, z), 0.11, self._rider)
        limbs.add((0, 1.6, 0.24), (0, 1.6, 0.24), 0.105, self._skin)
        limbs.add((0, 1.66, 0.16), (0, 1.66, 0.28), 0.1, self._helmet)
        return limbs


class Dog:
    """
    A trotting dog.

    Parameters
    ----------
    rng : Generator
        Source of size and coat.

    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.height_m = float(rng.uniform(0.45, 0.85))
        self._coat = _HAIRS[rng.integers(len(_HAIRS))]
        self._patch = dim(self._coat, float(rng.choice([0.5, 1.7])))
        self._phase = float(rng.uniform(0, 2 * np.pi))

    def sketch(self, pose: Pose, camera: Camera) -> Drawing:
        """Draw the dog as seen by a camera."""
        sketch = Sketch(camera)
        self.limbs(pose.travelled_m).draw(sketch, pose)
        return sketch.drawing

    def limbs(self, travelled_m: float) -> Limbs:
        """Body parts after running some way."""
        h = self.height_m
        limbs = Limbs()
        step = 2 * math.pi * travelled_m / (1.1 * h) + self._phase
        for side in (-1, 1):
            for z, shift in ((0.38 * h, 0.0), (-0.38 * h, math.pi)):
                swing = 0.22 * h * math.sin(step + shift + (side > 0) * math.pi)
                knee = (0.11 * h * side, 0.28 * h, z + 0.4 * swing)
                limbs.add((0.11 * h * side, 0.5 * h, z), knee, 0.08 * h, self._coat, 0.05 * h)
                limbs.add(knee, (knee[0], 0.04 * h, z + swing), 0.05 * h, self._coat, 0.035 * h)
        for index, z in enumerate(np.linspace(-0.4, 0.4, 5)):
            limbs.add((-0.04 * h, 0.58 * h, z * h), (0.04 * h, 0.58 * h, z * h), 0.17 * h,
                      self._patch if index == 2 else self._coat)
        limbs.add((0, 0.62 * h, 0.42 * h), (0, 0.85 * h, 0.58 * h), 0.11 * h, self._coat)
        limbs.add((0, 0.88 * h, 0.62 * h), (0, 0.83 * h, 0.82 * h), 0.11 * h, self._coat, 0.06 * h)
        limbs.add((0, 0.83 * h, 0.86 * h), (0, 0.83 * h, 0.87 * h), 0.04 * h, (28, 26, 26))
        for side in (-1, 1):
            limbs.add((0.09 * h * side, 0.95 * h, 0.58 * h), (0.11 * h * side, 0.82 * h, 0.56 * h),
                      0.05 * h, self._patch)
        wag = 0.12 * h * math.sin(2.5 * step)
        limbs.add((0, 0.65 * h, -0.5 * h), (wag, 0.85 * h, -0.75 * h), 0.05 * h, self._coat,
                  0.025 * h)
        return limbs


class Cone:
    """
    A striped traffic cone.

    Parameters
    ----------
    rng : Generator
        Source of size and colour.

    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.height_m = float(rng.uniform(0.5, 0.95))
        self._color = color_from(rng, (0.8, 1.0), (0.8, 1.0)) if rng.random() < 0.4 else (
            240, 96, 32)
        self._bands = int(rng.integers(1, 4))

    def sketch(self, pose: Pose, camera: Camera) -> Drawing:
        """Draw the cone as seen by a camera."""
        sketch = Sketch(camera)
        h = self.height_m
        base = 0.3 * h
        for y, color in ((0.0, dim(self._color, 0.6)), (0.05, dim(self._color, 0.75))):
            square = np.array([[-base, y, -base], [base, y, -base], [base, y, base],
                               [-base, y, base]])
            sketch.polygon(pose.place(square), color)
        parts = 2 * self._bands + 1
        for index in range(parts):
            low, high = 0.05 + 0.95 * index / parts, 0.05 + 0.95 * (index + 1) / parts
            r_low, r_high = 0.22 * h * (1.12 - low), 0.22 * h * (1.12 - high)
            color = (240, 240, 236) if index % 2 else self._color
            outline = np.array([[-r_low, low * h], [0, low * h - 0.2 * r_low], [r_low, low * h],
                                [r_high, high * h], [-r_high, high * h]])
            sketch.upright(pose.position, outline, color)
            sketch.upright(pose.position, outline * np.array([0.35, 1]) + np.array(
                [0.5 * r_low, 0]), dim(color, 0.8))
        return sketch.drawing

    def limbs(self, travelled_m: float) -> Limbs:
        """Axis of the cone, for its shadow."""
        limbs = Limbs()
        r = 0.22 * self.height_m
        limbs.add((-r, 0, 0), (r, 0, 0), r, self._color)
        limbs.add((0, 0, 0), (0, self.height_m, 0), 0.1, self._color)
        return limbs


class Toy:
    """
    A ball, balloon, kite or wobbling blob: an outline that faces the camera.

    Parameters
    ----------
    rng : Generator
        Source of shape and colours.

    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.kind = str(rng.choice(['ball', 'balloon', 'kite', 'blob']))
        self._radius = float(rng.uniform(0.22, 0.38) if self.kind == 'ball'
                             else rng.uniform(0.3, 0.6))
        self.lift_m = float(rng.uniform(1.2, 2.6)) if self.kind in ('balloon', 'kite') else 0.0
        self.height_m = 2 * self._radius + self.lift_m
        self._colors = [color_from(rng, (0.5, 1.0), (0.5, 1.0)) for _ in range(3)]
        self._exponent = float(rng.uniform(1.6, 4.0))
        self._spikes = int(rng.integers(4, 8))
        self._waves = rng.normal(0, 0.09, (4, 2))
        self._phase = float(rng.uniform(0, 6))

    def sketch(self, pose: Pose, camera: Camera) -> Drawing:
        """Draw the toy as seen by a camera."""
        sketch = Sketch(camera)
        center = np.array([0.0, self.lift_m + self._radius])
        outline = self._outline(pose)
        if self.lift_m:
            sketch.upright(pose.position, np.array(
                [[-0.008, 0.5], [0.008, 0.5], [0.012, self.lift_m], [-0.004, self.lift_m]]),
                (120, 118, 116))
        sketch.upright(pose.position, center + outline, self._colors[0])
        middle = outline.mean(axis=0)
        sectors = 6 if self.kind == 'ball' else self._spikes
        edges = np.linspace(0, len(outline), 2 * sectors + 1).astype(int)
        for left, right in zip(edges[:-1:2], edges[1::2], strict=True):
            arc = np.concatenate([outline[left:right + 1], middle[None]])
            sketch.upright(pose.position, center + arc, self._colors[1])
        sketch.upright(pose.position, center + middle + 0.3 * (outline - middle), self._colors[2])
        return sketch.drawing

    def _outline(self, pose: Pose) -> NDArray[np.float64]:
        """``(K, 2)`` metres around the middle of the toy."""
        angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
        if self.kind == 'ball':
            spin = angle - pose.travelled_m / self._radius
            return np.asarray(self._radius * np.stack([np.cos(spin), np.sin(spin)], axis=1))
        if self.kind == 'kite':
            spin = angle + 0.5 * math.sin(1.3 * pose.time_s + self._phase)
            radius = np.where(np.arange(48) % (48 // self._spikes) < 24 // self._spikes, 1, 0.55)
            return np.asarray(self._radius * radius[:, None]
                              * np.stack([np.cos(spin), np.sin(spin)], axis=1))
        cos, sin = np.cos(angle), np.sin(angle)
        radius = (np.abs(cos) ** self._exponent + np.abs(sin) ** self._exponent) ** (
            -1 / self._exponent)
        if self.kind == 'blob':
            for index, (a, b) in enumerate(self._waves):
                wobble = (index + 2) * angle + pose.time_s * (2 + index) + self._phase
                radius = radius * (1 + a * np.cos(wobble) + b * np.sin(wobble))
        return np.asarray(self._radius * np.stack([radius * cos, radius * sin], axis=1))

    def limbs(self, travelled_m: float) -> Limbs:
        """Outline as a disc, for its shadow."""
        limbs = Limbs()
        r, y = self._radius, self.lift_m + self._radius
        limbs.add((-r, y, 0), (r, y, 0), r, self._colors[0])
        limbs.add((0, y - r, 0), (0, y + r, 0), r, self._colors[0])
        return limbs


class Tree:
    """
    A tree, a bush, a lamp post or a sign at the side of the street.

    Parameters
    ----------
    rng : Generator
        Source of kind, size and colours.

    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.kind = str(rng.choice(['tree', 'lamp', 'sign', 'bush'], p=[0.4, 0.25, 0.2, 0.15]))
        self.height_m = {'tree': float(rng.uniform(3.5, 6)), 'lamp': 4.6, 'sign': 2.5,
                         'bush': float(rng.uniform(0.7, 1.2))}[self.kind]
        green = (int(rng.integers(50, 110)), int(rng.integers(100, 150)),
                 int(rng.integers(40, 80)))
        self._color = green if self.kind in ('tree', 'bush') else (96, 100, 104)
        self._face = color_from(rng, (0.7, 1.0), (0.6, 0.9))
        count = 60 if self.kind == 'tree' else 24
        spread = 0.26 if self.kind == 'tree' else 0.5
        middle = 0.74 if self.kind == 'tree' else 0.45
        self._leaves = rng.normal(0, [spread, 0.11, spread], (count, 3)) * self.height_m * 0.75
        self._leaves[:, 1] += middle * self.height_m
        self._sizes = rng.uniform(0.04, 0.1, count) * self.height_m * (
            1 if self.kind == 'tree' else 2)
        self._shades = np.clip(0.75 + 0.5 * (self._leaves[:, 1] / self.height_m - middle)
                               + rng.normal(0, 0.09, count) + 0.15, 0.55, 1.35)

    def sketch(self, pose: Pose, camera: Camera) -> Drawing:
        """Draw it as seen by a camera."""
        sketch = Sketch(camera)
        self._post(pose).draw(sketch, pose)
        if self.kind in ('tree', 'bush'):
            sway = np.array([0.03 * math.sin(1.7 * pose.time_s), 0, 0])
            leaves = pose.place(self._leaves + sway * self._leaves[:, 1:2] / self.height_m)
            colors = [dim(self._color, float(value)) for value in self._shades]
            sketch.capsules(leaves, leaves, np.stack([self._sizes] * 2, axis=1), colors)
        elif self.kind == 'sign':
            angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
            disc = np.stack([0.3 * np.cos(angle), 0.3 * np.sin(angle)], axis=1)
            for share, color in ((1.0, self._face), (0.72, (240, 240, 236))):
                sketch.upright(pose.position, share * disc + np.array([0, 2.3]), color)
        return sketch.drawing

    def _post(self, pose: Pose) -> Limbs:
        limbs = Limbs()
        h = self.height_m
        if self.kind == 'tree':
            limbs.add((0, 0, 0), (0, 0.7 * h, 0), 0.03 * h, (92, 72, 52), 0.018 * h)
        elif self.kind == 'lamp':
            limbs.add((0, 0, 0), (0, h, 0), 0.07, self._color, 0.04)
            limbs.add((0, h, 0), (0, h + 0.1, 0.9), 0.035, self._color)
            limbs.add((0, h + 0.06, 0.7), (0, h + 0.1, 1.0), 0.08, (238, 232, 200))
        elif self.kind == 'sign':
            limbs.add((0, 0, 0), (0, 2.1, 0), 0.035, self._color)
        else:
            limbs.add((0, 0, 0), (0, 0.3, 0), 0.1, self._color)
        return limbs

    def limbs(self, travelled_m: float) -> Limbs:
        """Post and crown, for the shadow."""
        limbs = Limbs()
        h = self.height_m
        limbs.add((0, 0, 0), (0, h, 0), 0.05, self._color)
        if self.kind in ('tree', 'bush'):
            for x, y in ((-0.25, 0.7), (0.25, 0.7), (0, 0.95), (0, 0.45)):
                limbs.add((x * h, y * h, 0), (x * h, y * h, 0.2 * h), 0.1, self._color)
        return limbs


FIGURES: dict[str, Callable[
    [np.random.Generator], Pedestrian | Cyclist | Dog | Cone | Toy]] = {
    'pedestrian': Pedestrian, 'cyclist': Cyclist, 'dog': Dog, 'cone': Cone, 'toy': Toy}
