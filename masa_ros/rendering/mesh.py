"""Solid objects made of a few flat faces: vehicles, boxes, small robots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
import math

from masa_ros.rendering.camera import Camera, NEAR_M
from masa_ros.rendering.drawing import Drawing, Sketch
from masa_ros.rendering.textures import Color, color_from, dim
import numpy as np
from numpy.typing import NDArray

GLASS: Color = (58, 74, 92)
_RUBBER: Color = (30, 30, 32)


@dataclass(frozen=True, eq=False)
class Mesh:
    """
    Flat polygons in the object's own frame: x right, y up, z forward, metres, y = 0 the ground.

    Parameters
    ----------
    points : ndarray
        ``(P, 3)`` corners of all polygons, one after the other.
    starts : ndarray
        ``(Q + 1,)`` where each polygon begins; the last entry is P.
    normals, centers : ndarray
        ``(Q, 3)`` outward normal and middle of the face that each polygon lies on.
    colors : ndarray
        ``(Q, 3)`` RGB.
    groups : ndarray
        ``(Q,)`` convex-ish parts; the farther part is drawn first.
    wheels : ndarray
        ``(Q,)`` bool; wheels are seen from inside too.
    lit : ndarray
        ``(Q,)`` bool; lamps keep their colour whatever the sun does.

    """

    points: NDArray[np.float64]
    starts: NDArray[np.int64]
    normals: NDArray[np.float64]
    centers: NDArray[np.float64]
    colors: NDArray[np.float64]
    groups: NDArray[np.int64]
    wheels: NDArray[np.bool_]
    lit: NDArray[np.bool_]

    def corners(self) -> NDArray[np.float64]:
        """``(8, 3)`` corners of the box around the mesh."""
        low, high = self.points.min(axis=0), self.points.max(axis=0)
        choose = np.array([[(i >> axis) & 1 for axis in range(3)] for i in range(8)], bool)
        return np.asarray(np.where(choose, high, low))


def turn(heading: float) -> NDArray[np.float64]:
    """``(3, 3)`` matrix from object to world rows; heading 0 looks along +z, 90 degrees +x."""
    sin, cos = math.sin(heading), math.cos(heading)
    return np.array([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]])


def draw_mesh(
    mesh: Mesh, position: NDArray[np.float64], heading: float, camera: Camera,
    sun: NDArray[np.float64],
) -> Drawing:
    """
    Draw the faces that look at the camera, shaded by the sun.

    Parameters
    ----------
    mesh : Mesh
        Shape.
    position : ndarray
        ``(3,)`` world position of its origin.
    heading : float
        Direction of its z axis, radians.
    camera : Camera
        Point of view.
    sun : ndarray
        ``(3,)`` unit vector towards the sun.

    """
    to_world = turn(heading)
    points = camera.to_camera(mesh.points @ to_world + position)
    normals = mesh.normals @ to_world
    rays = mesh.centers @ to_world + position - np.array(camera.position)
    facing = (rays * normals).sum(axis=1) < 0
    gain = np.where(mesh.lit, 1.0, 0.68 + 0.36 * np.maximum(normals @ sun, 0))
    colors = np.clip(mesh.colors * gain[:, None], 0, 255).astype(int).tolist()
    sketch = Sketch(camera)
    pixels = camera.to_image(points)
    near = points[:, 2] < NEAR_M
    for polygon in _painters_order(mesh, facing, rays):
        part = slice(mesh.starts[polygon], mesh.starts[polygon + 1])
        if near[part].any():
            sketch.camera_polygon(points[part], colors[polygon])
        else:
            sketch.drawing.add(pixels[part], colors[polygon])
    return sketch.drawing


def _painters_order(
    mesh: Mesh, facing: NDArray[np.bool_], rays: NDArray[np.float64],
) -> list[int]:
    """Return the polygons to draw: inner wheels, faces, outer wheels, group by group."""
    distance = (rays ** 2).sum(axis=1)
    groups = sorted(set(mesh.groups.tolist()),
                    key=lambda group: -float(distance[mesh.groups == group].mean()))
    order: list[int] = []
    for group in groups:
        member = mesh.groups == group
        for chosen in (mesh.wheels & ~facing, ~mesh.wheels & facing, mesh.wheels & facing):
            order.extend(np.flatnonzero(member & chosen).tolist())
    return order


class MeshBuilder:
    """Collects faces; every face is turned outwards from the middle of its solid."""

    def __init__(self) -> None:
        self._polygons: list[NDArray[np.float64]] = []
        self._normals: list[NDArray[np.float64]] = []
        self._centers: list[NDArray[np.float64]] = []
        self._colors: list[Color] = []
        self._groups: list[int] = []
        self._kinds: list[str] = []
        self.group = 0

    def build(self) -> Mesh:
        """Return the finished mesh."""
        sizes = [len(polygon) for polygon in self._polygons]
        return Mesh(
            np.concatenate(self._polygons), np.concatenate([[0], np.cumsum(sizes)]),
            np.array(self._normals), np.array(self._centers),
            np.array(self._colors, np.float64), np.array(self._groups),
            np.array([kind == 'wheel' for kind in self._kinds]),
            np.array([kind == 'lamp' for kind in self._kinds]))

    def solid(
        self, bottom: Sequence[tuple[float, float, float]],
        top: Sequence[tuple[float, float, float]], color: Color, roof: Color | None = None,
    ) -> list[NDArray[np.float64]]:
        """
        Add a convex solid between two outlines with equal numbers of corners.

        Returns
        -------
        list of ndarray
            The side faces ``(4, 3)``: face i joins corners i and i + 1, its corners being bottom
            i, bottom i + 1, top i + 1, top i.

        """
        low, high = np.array(bottom, np.float64), np.array(top, np.float64)
        middle = np.concatenate([low, high]).mean(axis=0)
        sides = []
        for i in range(len(low)):
            j = (i + 1) % len(low)
            side = np.stack([low[i], low[j], high[j], high[i]])
            self._face(side, color, middle)
            sides.append(side)
        self._face(high, roof or color, middle)
        self._face(low, dim(color, 0.4), middle)
        return sides

    def box(
        self, x: tuple[float, float], y: tuple[float, float], z: tuple[float, float],
        color: Color, roof: Color | None = None, taper: float = 0.0, lean: float = 0.0,
    ) -> list[NDArray[np.float64]]:
        """
        Add a box whose top may be narrower (``taper``) and shorter (``lean``), in metres a side.

        Returns
        -------
        list of ndarray
            Front (+z), right (+x), back and left faces, corners as seen from outside: bottom
            left, bottom right, top right, top left.

        """
        (x0, x1), (y0, y1), (z0, z1) = x, y, z
        # Seen from the front, +x is on the left hand side.
        outline = ((x1, z1), (x0, z1), (x0, z0), (x1, z0))
        bottom = [(px, y0, pz) for px, pz in outline]
        top = [(px - math.copysign(taper, px), y1,
                pz - (lean if pz == z1 else -lean)) for px, pz in outline]
        front, left, back, right = self.solid(bottom, top, color, roof)
        return [front, right, back, left]

    def decal(
        self, face: NDArray[np.float64], outline: Sequence[tuple[float, float]], color: Color,
        kind: str = 'decal',
    ) -> None:
        """Add a flat shape on a face; the outline is ``(u, v)`` from 0 to 1, v upwards."""
        uv = np.array(outline)
        u, v = uv[:, :1], uv[:, 1:]
        points = ((1 - u) * (1 - v) * face[0] + u * (1 - v) * face[1] + u * v * face[2]
                  + (1 - u) * v * face[3])
        index = next(i for i, polygon in enumerate(self._polygons) if polygon is face)
        self._append(points, color, self._normals[index], self._centers[index], kind)

    def panel(self, face: NDArray[np.float64], left: float, bottom: float, right: float,
              top: float, color: Color, kind: str = 'decal') -> None:
        """Add a rectangle on a face."""
        self.decal(face, [(left, bottom), (right, bottom), (right, top), (left, top)], color, kind)

    def wheel(self, x: float, z: float, radius: float, rim: Color) -> None:
        """Add a wheel at the side ``x`` of the vehicle."""
        angles = np.linspace(0, 2 * np.pi, 14, endpoint=False)
        normal = np.array([math.copysign(1.0, x), 0, 0])
        center = np.array([x, radius, z])
        for share, color in ((1.0, _RUBBER), (0.58, rim), (0.2, dim(rim, 0.6))):
            circle = np.stack([np.zeros(14), radius * share * np.sin(angles),
                               radius * share * np.cos(angles)], axis=1)
            self._append(circle + center, color, normal, center, 'wheel')

    def _face(self, points: NDArray[np.float64], color: Color,
              middle: NDArray[np.float64]) -> None:
        normal = np.cross(points[1] - points[0], points[2] - points[0])
        normal = normal / max(float(np.linalg.norm(normal)), 1e-9)
        center = points.mean(axis=0)
        if normal @ (center - middle) < 0:
            normal = -normal
        self._append(points, color, normal, center, 'face')

    def _append(self, points: NDArray[np.float64], color: Color, normal: NDArray[np.float64],
                center: NDArray[np.float64], kind: str) -> None:
        self._polygons.append(points)
        self._colors.append(color)
        self._normals.append(normal)
        self._centers.append(center)
        self._groups.append(self.group)
        self._kinds.append(kind)


def car(rng: np.random.Generator) -> Mesh:
    """Build a passenger car of random make and colour."""
    build = MeshBuilder()
    length, width = float(rng.uniform(3.6, 4.8)), float(rng.uniform(1.65, 1.85))
    belt, height = float(rng.uniform(0.82, 0.98)), float(rng.uniform(1.4, 1.7))
    paint = _paint(rng)
    half, side = length / 2, width / 2
    lower = build.box((-side, side), (0.28, belt), (-half, half), paint, taper=0.05, lean=0.1)
    hood, trunk = float(rng.uniform(0.85, 1.25)), float(rng.choice([0.1, 0.3, 0.75]))
    cabin = build.box(
        (-side + 0.08, side - 0.08), (belt, height), (-half + trunk, half - hood), paint,
        roof=paint if rng.random() < 0.7 else dim(paint, 0.4), taper=0.14,
        lean=float(rng.uniform(0.25, 0.5)))
    for face in (cabin[0], cabin[2]):
        build.panel(face, 0.07, 0.1, 0.93, 0.9, GLASS)
        build.decal(face, [(0.1, 0.12), (0.45, 0.12), (0.2, 0.88), (0.1, 0.88)], dim(GLASS, 1.4))
    for face in (cabin[1], cabin[3]):
        build.panel(face, 0.08, 0.12, 0.48, 0.88, dim(GLASS, 0.85))
        build.panel(face, 0.52, 0.12, 0.92, 0.88, dim(GLASS, 0.85))
    _lamps(build, lower[0], lower[2], rng)
    stripe = color_from(rng) if rng.random() < 0.35 else dim(paint, 0.75)
    for face in (lower[1], lower[3]):
        build.panel(face, 0.02, 0.28, 0.98, 0.4, stripe)
        for u in (0.33, 0.62):
            build.panel(face, u, 0.15, u + 0.006, 0.95, dim(paint, 0.55))
    if rng.random() < 0.15:
        build.box((-0.3, 0.3), (height, height + 0.16), (-0.1, 0.14), (240, 190, 40))
    rim = dim((170, 172, 178), float(rng.uniform(0.4, 1.2)))
    for x in (-side - 0.01, side + 0.01):
        for z in (half - 0.75, -half + 0.7):
            build.wheel(x, z, 0.32, rim)
    return build.build()


def van(rng: np.random.Generator) -> Mesh:
    """Build a delivery van or a bus with windows, bands and a painted side."""
    build = MeshBuilder()
    bus = bool(rng.random() < 0.4)
    length = float(rng.uniform(8.5, 10.5) if bus else rng.uniform(4.8, 6.0))
    width, height = (2.45, 3.0) if bus else (1.95, float(rng.uniform(2.0, 2.6)))
    paint, second = _paint(rng), color_from(rng)
    half, side = length / 2, width / 2
    body = build.box((-side, side), (0.35, height), (-half, half), paint,
                     roof=dim(paint, 1.1), taper=0.05, lean=0.1 if bus else 0.25)
    build.panel(body[0], 0.06, 0.45, 0.94, 0.88, GLASS)
    build.decal(body[0], [(0.08, 0.47), (0.35, 0.47), (0.2, 0.86), (0.08, 0.86)], dim(GLASS, 1.4))
    build.panel(body[2], 0.12, 0.5, 0.88, 0.85, dim(GLASS, 0.8))
    for face, front in ((body[1], 1.0), (body[3], 0.0)):
        build.panel(face, 0, 0.12, 1, 0.3, second)
        if bus:
            for index in range(7):
                build.panel(face, 0.03 + index * 0.135, 0.45, 0.15 + index * 0.135, 0.82, GLASS)
        else:
            cab = (0.78, 0.95) if front else (0.05, 0.22)
            build.panel(face, cab[0], 0.5, cab[1], 0.85, GLASS)
            _sign(build, face, (0.12, 0.68) if front else (0.32, 0.88), second, rng)
    _lamps(build, body[0], body[2], rng)
    for x in (-side - 0.01, side + 0.01):
        for z in (half - length * 0.19, -half + length * 0.2):
            build.wheel(x, z, 0.45 if bus else 0.36, (150, 150, 154))
    return build.build()


def truck(rng: np.random.Generator) -> Mesh:
    """Build a lorry: a cab and a cargo box with a painted side."""
    build = MeshBuilder()
    length, width, height = float(rng.uniform(6, 8)), 2.3, float(rng.uniform(2.7, 3.2))
    cab_paint, box_paint = _paint(rng), color_from(rng, (0.05, 0.5), (0.6, 0.95))
    half, side = length / 2, width / 2
    cargo = build.box((-side, side), (0.75, height), (-half, half - 1.9), box_paint)
    for face in (cargo[1], cargo[3]):
        _sign(build, face, (0.1, 0.9), color_from(rng), rng)
    build.panel(cargo[2], 0.49, 0.05, 0.51, 0.95, dim(box_paint, 0.5))
    rim = (140, 140, 144)
    for x in (-side, side):
        build.wheel(x, -half + 1.1, 0.45, rim)
        build.wheel(x, -half + 2.1, 0.45, rim)
    build.group = 1
    cab = build.box((-side + 0.08, side - 0.08), (0.45, 2.35), (half - 1.8, half), cab_paint,
                    taper=0.06, lean=0.12)
    build.panel(cab[0], 0.08, 0.5, 0.92, 0.9, GLASS)
    build.panel(cab[0], 0.2, 0.15, 0.8, 0.4, (44, 46, 50))
    for face in (cab[1], cab[3]):
        build.panel(face, 0.25, 0.52, 0.85, 0.88, GLASS)
    _lamps(build, cab[0], cargo[2], rng)
    for x in (-side - 0.01, side + 0.01):
        build.wheel(x, half - 0.9, 0.45, rim)
    return build.build()


def crate(rng: np.random.Generator) -> Mesh:
    """Build a box with tape, a litter bin, or a small delivery robot on wheels."""
    build = MeshBuilder()
    kind = rng.choice(['crate', 'robot', 'bin'])
    color = color_from(rng, (0.35, 0.9), (0.45, 0.9))
    if kind == 'crate':
        size = float(rng.uniform(0.5, 1.1))
        faces = build.box((-size / 2, size / 2), (0, size * 0.9), (-size / 2, size / 2), color)
        for face in faces:
            build.panel(face, 0.42, 0, 0.58, 1, dim(color, 0.65))
            build.panel(face, 0.62, 0.6, 0.92, 0.9, (236, 232, 220))
    elif kind == 'bin':
        faces = build.box((-0.3, 0.3), (0, 1.0), (-0.3, 0.3), color, taper=-0.06, lean=-0.06)
        build.box((-0.38, 0.38), (1.0, 1.12), (-0.38, 0.38), dim(color, 0.6))
        for face in faces:
            build.panel(face, 0.3, 0.35, 0.7, 0.7, (230, 232, 228))
    else:
        faces = build.box((-0.35, 0.35), (0.25, 0.75), (-0.5, 0.5), (232, 234, 236), color, 0.04,
                          0.06)
        for face in faces:
            build.panel(face, 0, 0.3, 1, 0.5, color)
        build.panel(faces[0], 0.15, 0.55, 0.85, 0.9, (30, 34, 40))
        for x in (-0.36, 0.36):
            for z in (-0.33, 0.0, 0.33):
                build.wheel(x, z, 0.15, (90, 92, 96))
    return build.build()


def _paint(rng: np.random.Generator) -> Color:
    """Car colour: often white, gray or black, otherwise strong."""
    if rng.random() < 0.35:
        gray = int(rng.choice([52, 120, 176, 226]))
        return gray, gray, min(255, gray + 4)
    return color_from(rng, (0.5, 0.95), (0.4, 0.85))


def _lamps(build: MeshBuilder, front: NDArray[np.float64], back: NDArray[np.float64],
           rng: np.random.Generator) -> None:
    """Head and tail lamps, grille and number plates."""
    build.panel(front, 0.28, 0.3, 0.72, 0.62, (40, 42, 46))
    build.panel(front, 0.38, 0.08, 0.62, 0.24, (238, 238, 230))
    build.panel(back, 0.38, 0.2, 0.62, 0.4, (240, 216, 90))
    high = float(rng.uniform(0.5, 0.65))
    for left in (0.04, 0.8):
        build.panel(front, left, high, left + 0.16, high + 0.25, (255, 250, 226), 'lamp')
        build.panel(back, left, high, left + 0.16, high + 0.28, (206, 30, 34), 'lamp')


def _sign(build: MeshBuilder, face: NDArray[np.float64], span: tuple[float, float],
          color: Color, rng: np.random.Generator) -> None:
    """Something painted on a side: a grid of squares, a disc or slanted bars."""
    left, right = span
    width = right - left
    kind = rng.integers(3)
    if kind == 0:
        for row in range(3):
            for column in range(6):
                if rng.random() < 0.6:
                    u, v = left + width * column / 6, 0.35 + 0.18 * row
                    build.panel(face, u, v, u + width / 6, v + 0.18,
                                dim(color, float(rng.uniform(0.6, 1.4))))
    elif kind == 1:
        angles = np.linspace(0, 2 * np.pi, 20, endpoint=False)
        for radius, shade in ((0.26, color), (0.14, (244, 242, 236))):
            build.decal(face, [(left + width * (0.5 + radius * math.cos(a)),
                                0.6 + radius * math.sin(a)) for a in angles], shade)
    else:
        for index in range(4):
            u = left + width * index / 4
            build.decal(face, [(u, 0.35), (u + 0.12 * width, 0.35), (u + 0.24 * width, 0.9),
                               (u + 0.12 * width, 0.9)], dim(color, 0.7 + 0.2 * index))


VEHICLES: dict[str, Callable[[np.random.Generator], Mesh]] = {
    'car': car, 'van': van, 'truck': truck, 'crate': crate}
