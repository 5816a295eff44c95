"""Procedural textures, all repeating seamlessly at their borders."""

from __future__ import annotations

import colorsys

import cv2
import numpy as np
from numpy.typing import NDArray

Color = tuple[int, int, int]


def periodic_noise(
    rng: np.random.Generator, height_px: int, width_px: int, cell_px: int, octaves: int = 4,
    gain: float = 0.5,
) -> NDArray[np.float32]:
    """
    Smooth noise with mean 0 and standard deviation 1.

    Parameters
    ----------
    rng : Generator
        Source of randomness.
    height_px, width_px : int
        Size; multiples of ``cell_px``.
    cell_px : int
        Size of the largest features, halved for every octave.
    octaves : int
        Number of layers.
    gain : float
        Strength of a layer relative to the one before.

    """
    total = np.zeros((height_px, width_px), np.float32)
    for octave in range(octaves):
        cell = max(cell_px >> octave, 1)
        grid = rng.standard_normal((height_px // cell, width_px // cell)).astype(np.float32)
        if cell == 1:
            layer = grid
        else:
            padded = np.pad(grid, 2, mode='wrap')
            large = cv2.resize(padded, None, fx=cell, fy=cell, interpolation=cv2.INTER_CUBIC)
            layer = np.asarray(
                large[2 * cell:2 * cell + height_px, 2 * cell:2 * cell + width_px], np.float32)
        total += gain ** octave * layer
        if cell == 1:
            break
    return np.asarray((total - total.mean()) / max(float(total.std()), 1e-6), dtype=np.float32)


def shade(color: Color, noise: NDArray[np.float32], strength: float) -> NDArray[np.uint8]:
    """``(H, W, 3)`` uint8 surface of one colour, lightened and darkened by noise."""
    gain = (1 + strength * noise)[..., None]
    return np.clip(np.array(color, np.float32) * gain, 0, 255).astype(np.uint8)


def pyramid(texture: NDArray[np.uint8], levels: int) -> list[NDArray[np.uint8]]:
    """Return a texture at full, half, quarter, ... size."""
    copies = [texture]
    for _ in range(levels - 1):
        height, width = copies[-1].shape[:2]
        copies.append(np.asarray(cv2.resize(
            copies[-1], (width // 2, height // 2), interpolation=cv2.INTER_AREA), np.uint8))
    return copies


def color_from(
    rng: np.random.Generator, saturation: tuple[float, float] = (0.3, 0.9),
    value: tuple[float, float] = (0.4, 0.95),
) -> Color:
    """Random colour with saturation and brightness in the given ranges."""
    red, green, blue = colorsys.hsv_to_rgb(
        float(rng.random()), float(rng.uniform(*saturation)), float(rng.uniform(*value)))
    return round(255 * red), round(255 * green), round(255 * blue)


def dim(color: Color, factor: float) -> Color:
    """Darker (below 1) or lighter (above 1) version of a colour."""
    red, green, blue = (min(255, max(0, round(factor * channel))) for channel in color)
    return red, green, blue


def pattern(
    rng: np.random.Generator, size_px: int, kind: str, first: Color, second: Color,
) -> NDArray[np.uint8]:
    """
    Square two-coloured tile.

    Parameters
    ----------
    rng : Generator
        Source of randomness.
    size_px : int
        Side of the tile, a multiple of 16.
    kind : str
        ``stripes``, ``checks``, ``dots``, ``camouflage`` or ``plain`` (fabric of one colour).
    first, second : tuple of int
        Colours.

    """
    y, x = np.mgrid[:size_px, :size_px] / size_px
    repeats = int(rng.integers(2, 6))
    if kind == 'stripes':
        mask = ((x * rng.integers(0, 2) + y) * repeats) % 1 < 0.5
    elif kind == 'checks':
        mask = (np.floor(2 * x * repeats) + np.floor(2 * y * repeats)) % 2 < 1
    elif kind == 'dots':
        mask = ((x * repeats) % 1 - 0.5) ** 2 + ((y * repeats) % 1 - 0.5) ** 2 < 0.1
    elif kind == 'camouflage':
        mask = periodic_noise(rng, size_px, size_px, size_px // 4, 3) > 0
    elif kind == 'plain':
        mask = np.ones((size_px, size_px), bool)
    else:
        raise ValueError(f'unknown pattern {kind!r}; known ones are stripes, checks, dots, '
                         'camouflage and plain')
    tile = np.where(mask[..., None], np.array(first), np.array(second)).astype(np.float32)
    grain = periodic_noise(rng, size_px, size_px, 8, 3)[..., None]
    return np.clip(tile * (1 + 0.1 * grain), 0, 255).astype(np.uint8)
