"""Who is in the street and where they go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
import math

from masa_ros.rendering.backdrop import StreetLayout
from masa_ros.rendering.camera import Camera
from masa_ros.rendering.drawing import Drawing
from masa_ros.rendering.figures import Cone, Cyclist, Dog, FIGURES, Pedestrian, Pose, Toy, Tree
from masa_ros.rendering.mesh import draw_mesh, Mesh, turn, VEHICLES
from masa_ros.rendering.motion import CameraPath, Path
from masa_ros.rendering.textures import color_from, dim, pattern
import numpy as np
from numpy.typing import NDArray

CLASS_NAMES: tuple[str, ...] = (
    'pedestrian', 'cyclist', 'car', 'van', 'truck', 'dog', 'cone', 'crate', 'toy')
"""Names of the object classes; the index is the class id."""

_SHARES = (0.34, 0.09, 0.22, 0.08, 0.05, 0.05, 0.05, 0.05, 0.07)
# Half of the room that an object needs across and along the street.
_ROOM_M = {'pedestrian': (0.4, 0.4), 'cyclist': (0.4, 1.0), 'car': (1.0, 3.2), 'van': (1.2, 5.5),
           'truck': (1.3, 4.5), 'dog': (0.5, 0.5), 'cone': (0.35, 0.35), 'crate': (0.6, 0.6),
           'toy': (0.5, 0.5)}
_ON_ROAD = ('car', 'van', 'truck')

Body = Mesh | Pedestrian | Cyclist | Dog | Cone | Toy | Tree


@dataclass(frozen=True, eq=False)
class Actor:
    """
    Something that stands or moves in the street.

    Parameters
    ----------
    track_id : int
        Identity from 1; 0 for furniture of the street, which is never an object.
    class_id : int
        Index into `CLASS_NAMES`; -1 for furniture.
    body : object
        Shape.
    path : Path
        Way.
    texture : ndarray or None
        Fabric or dirt laid over it, see `drawing.rasterize`.
    room_m : tuple of float
        Half of the room it needs across and along the street, metres.

    """

    track_id: int
    class_id: int
    body: Body
    path: Path
    texture: NDArray[np.uint8] | None
    room_m: tuple[float, float]

    def draw(self, time_s: float, camera: Camera, sun: NDArray[np.float64]) -> Drawing:
        """Draw it as seen by a camera."""
        if isinstance(self.body, Mesh):
            return draw_mesh(self.body, self.path.positions(time_s), self.path.heading(time_s),
                             camera, sun)
        return self.body.sketch(self._pose(time_s), camera)

    def shadow(self, time_s: float, sun: NDArray[np.float64]) -> NDArray[np.float64]:
        """World points ``(K, 3)`` on the ground around its shadow."""
        if isinstance(self.body, Mesh):
            points = self.body.corners() @ turn(self.path.heading(time_s))
            points = points + self.path.positions(time_s)
        else:
            pose = self._pose(time_s)
            points = pose.place(self.body.limbs(pose.travelled_m).points())
            margin = np.array([[-0.08, 0, 0], [0.08, 0, 0], [0, 0, 0.08], [0, 0, -0.08]])
            points = (points[:, None] + margin[None]).reshape(-1, 3)
        return np.asarray(points - points[:, 1:2] / sun[1] * sun)

    def _pose(self, time_s: float) -> Pose:
        return Pose(self.path.positions(time_s), self.path.heading(time_s),
                    float(self.path.travelled(time_s)), time_s)


def populate(
    num_objects: int, duration_s: float, layout: StreetLayout, view: CameraPath,
    rng: np.random.Generator,
) -> list[Actor]:
    """
    Place objects so that each is in view at some time and none runs into another.

    Parameters
    ----------
    num_objects : int
        How many identities; fewer come out where the street is too full.
    duration_s : float
        Length of the recording.
    layout : StreetLayout
        Where lanes and sidewalks are.
    view : CameraPath
        The camera, which needs room too.
    rng : Generator
        Source of randomness.

    """
    times = np.arange(0, duration_s + 0.2, 0.2)
    occupied = [view.path.positions(times)]
    rooms = [(1.2, 1.6)]
    actors: list[Actor] = []
    for _ in range(num_objects):
        name = str(rng.choice(CLASS_NAMES, p=_SHARES))
        for _attempt in range(25):
            path = _random_path(name, duration_s, layout, view, rng)
            places = path.positions(times)
            if _has_room(places, _ROOM_M[name], occupied, rooms):
                actors.append(Actor(len(actors) + 1, CLASS_NAMES.index(name), _body(name, rng),
                                    path, _fabric(name, rng), _ROOM_M[name]))
                occupied.append(places)
                rooms.append(_ROOM_M[name])
                break
    return actors


def furnish(
    num_props: int, layout: StreetLayout, view: CameraPath, rng: np.random.Generator,
) -> list[Actor]:
    """Trees, lamps and signs at the kerbs; they hide objects but are none."""
    camera = view.at(0)
    props: list[Actor] = []
    places = [(camera.position[0], camera.position[2])]
    for _ in range(num_props):
        side = float(rng.choice([-1, 1]))
        for _attempt in range(20):
            x = side * (layout.kerb_m + 0.5)
            z = camera.position[2] + float(rng.uniform(-5, 45))
            if min(math.hypot(x - px, z - pz) for px, pz in places) > 3.5 and math.hypot(
                    x - places[0][0], z - places[0][1]) > 10:
                places.append((x, z))
                path = Path((x, z), -side * math.pi / 2, 0.0)
                props.append(Actor(0, -1, Tree(rng), path, _foliage(rng), (0.3, 0.3)))
                break
    return props


def _has_room(
    places: NDArray[np.float64], room_m: tuple[float, float],
    occupied: Sequence[NDArray[np.float64]], rooms: Sequence[tuple[float, float]],
) -> bool:
    """Whether a way keeps clear of all others at all times."""
    gaps = np.abs(np.stack(occupied)[..., ::2] - places[None, :, ::2])
    needed = np.array(rooms)[:, None] + np.array(room_m)
    return bool((gaps > needed).any(axis=2).all())


def _random_path(
    name: str, duration_s: float, layout: StreetLayout, view: CameraPath,
    rng: np.random.Generator,
) -> Path:
    """Way that suits the class and passes through the view at a random time."""
    time = float(rng.uniform(-0.1, 1.05) * duration_s)
    spot = _spot_in_view(view.at(float(np.clip(time, 0, duration_s))), rng)
    phase = float(rng.uniform(0, 2 * np.pi))
    side = float(rng.choice([-1, 1]))
    walk_x = side * float(rng.uniform(layout.kerb_m + 0.8, layout.wall_m - 0.5))
    along = 0.0 if rng.random() < 0.5 else math.pi
    if name in _ON_ROAD:
        # Right-hand traffic; one speed for all keeps the distances.
        path = Path((0, 0), 0.0 if side > 0 else math.pi, 7.0, 0.15, 0.4, 0.08, 0.5, phase=phase)
        return path.passing((side * layout.lane_width_m / 2, spot[1]), time)
    if name == 'cyclist':
        path = Path((0, 0), 0.0 if side > 0 else math.pi, float(rng.uniform(3, 5)), 0.1,
                    sway_m=0.12, sway_rate=2.0, phase=phase)
        return path.passing((side * (layout.lane_width_m - 0.3), spot[1]), time)
    if name in ('cone', 'crate') and rng.random() < (1.0 if name == 'cone' else 0.6):
        x = side * float(rng.uniform(layout.kerb_m - 0.5, layout.wall_m - 0.6))
        return Path((x, spot[1]), float(rng.uniform(0, 6.28)), 0.0)
    crossing = rng.random() < {'pedestrian': 0.35, 'toy': 0.6, 'dog': 0.4}.get(name, 0.0)
    speed = float(rng.uniform(0.8, 1.6) * (1.6 if name == 'dog' else 1.0))
    path = Path((0, 0), side * math.pi / 2 if crossing else along, speed,
                float(rng.choice([0.2, 0.9], p=[0.7, 0.3])), float(rng.uniform(0.4, 0.9)),
                0.25, float(rng.uniform(0.5, 1.2)),
                float(rng.uniform(0.2, 0.8)) if name == 'toy' and rng.random() < 0.5 else 0.0,
                phase)
    return path.passing(spot if crossing else (walk_x, spot[1]), time)


def _spot_in_view(camera: Camera, rng: np.random.Generator) -> tuple[float, float]:
    """Random ground point ``(x, z)`` that the camera sees, near ones more often."""
    half_angle = math.atan(camera.width_px / 2 / camera.focal_px)
    bearing = camera.yaw + 0.8 * half_angle * float(rng.uniform(-1, 1))
    distance = 5 + 30 * float(rng.random()) ** 1.5
    return (camera.position[0] + distance * math.sin(bearing),
            camera.position[2] + distance * math.cos(bearing))


def _body(name: str, rng: np.random.Generator) -> Body:
    return VEHICLES[name](rng) if name in VEHICLES else FIGURES[name](rng)


def _foliage(rng: np.random.Generator) -> NDArray[np.uint8]:
    return pattern(rng, 128, 'camouflage', (118, 120, 116), (136, 138, 130))


def _fabric(name: str, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Texture around 128: fine grain on metal, a printed cloth on people and toys."""
    kind = 'plain'
    if name in ('pedestrian', 'toy', 'crate', 'dog') and rng.random() < 0.6:
        kind = str(rng.choice(['stripes', 'checks', 'dots', 'camouflage']))
    tint = dim(color_from(rng, (0.05, 0.3), (0.7, 1.0)), 0.75)
    return pattern(rng, 64, kind, (128, 128, 128), tint)
