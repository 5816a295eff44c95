"""Smooth ways through the street, as functions of time."""

from __future__ import annotations

from dataclasses import dataclass
import math

from masa_ros.rendering.camera import Camera
import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Path:
    """
    A straight way with changing speed, swaying and hopping.

    Parameters
    ----------
    start : tuple of float
        ``(x, z)`` in metres at time 0.
    direction : float
        Radians; 0 is along +z, 90 degrees along +x.
    speed : float
        Mean speed in m/s.
    pulse : float
        0 for constant speed, towards 1 for stop and go.
    pulse_rate, sway_rate : float
        Angular frequencies in rad/s.
    sway_m : float
        Amplitude sideways.
    hop_m : float
        Height of hops, one for each metre covered.
    phase : float
        Phase of all periodic parts, radians.

    """

    start: tuple[float, float]
    direction: float
    speed: float
    pulse: float = 0.0
    pulse_rate: float = 1.0
    sway_m: float = 0.0
    sway_rate: float = 0.7
    hop_m: float = 0.0
    phase: float = 0.0

    def travelled(self, time_s: ArrayLike) -> NDArray[np.float64]:
        """Way covered since time 0, metres; grows all the time."""
        time = np.asarray(time_s, np.float64)
        wave = np.sin(self.pulse_rate * time + self.phase) - math.sin(self.phase)
        return np.asarray(self.speed * (time + self.pulse / self.pulse_rate * wave))

    def positions(self, time_s: ArrayLike) -> NDArray[np.float64]:
        """World points ``(..., 3)``."""
        time = np.asarray(time_s, np.float64)
        way = self.travelled(time)
        side = self.sway_m * np.sin(self.sway_rate * time + self.phase)
        sin, cos = math.sin(self.direction), math.cos(self.direction)
        return np.stack([self.start[0] + sin * way + cos * side,
                         self.hop_m * np.abs(np.sin(np.pi * way)),
                         self.start[1] + cos * way - sin * side], axis=-1)

    def heading(self, time_s: float) -> float:
        """Direction of travel at a time, radians."""
        side = self.sway_m * self.sway_rate * math.cos(self.sway_rate * time_s + self.phase)
        return self.direction + math.atan2(side, max(self.speed, 0.3))

    def passing(self, point: tuple[float, float], time_s: float) -> Path:
        """Return the same way, moved so that it passes ``(x, z)`` at a time."""
        here = self.positions(time_s)
        return Path((self.start[0] + point[0] - float(here[0]),
                     self.start[1] + point[1] - float(here[2])), self.direction, self.speed,
                    self.pulse, self.pulse_rate, self.sway_m, self.sway_rate, self.hop_m,
                    self.phase)


@dataclass(frozen=True)
class CameraPath:
    """
    A camera that drifts, pans and shakes.

    Parameters
    ----------
    path : Path
        Way over the ground.
    height_m : float
        Height of the lens.
    yaw, pitch : float
        Mean direction of view, radians.
    pan, pan_rate : float
        Amplitude (radians) and angular frequency (rad/s) of the panning.
    shake : float
        Amplitude of the shaking, radians.
    focal_px, width_px, height_px
        See `Camera`.

    """

    path: Path
    height_m: float
    yaw: float
    pitch: float
    pan: float
    pan_rate: float
    shake: float
    focal_px: float
    width_px: int
    height_px: int

    def at(self, time_s: float) -> Camera:
        """Camera at a time."""
        x, _, z = self.path.positions(time_s)
        # Incommensurable frequencies, so that the shaking does not repeat within a recording.
        wave = [math.sin(rate * time_s + phase) + 0.5 * math.sin(2.7 * rate * time_s + 2 * phase)
                for rate, phase in ((6.1, 0.3), (7.7, 1.9), (4.3, 4.0))]
        yaw = self.yaw + self.pan * math.sin(self.pan_rate * time_s + self.path.phase)
        return Camera((float(x), self.height_m + 0.01 * wave[1], float(z)),
                      yaw + self.shake * wave[0], self.pitch + self.shake * wave[1],
                      0.6 * self.shake * wave[2], self.focal_px, self.width_px, self.height_px)
