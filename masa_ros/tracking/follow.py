"""
Where an object has gone from one image to the next, by its pixels alone.

Used for objects that were asked for and that no detector finds. Points on a grid in the box are
followed forwards and back again by optical flow; those that come back to where they started say
how the box moved and grew (their medians, so that background in the box does little harm). An
object that was lost is looked for in the whole image by a small picture of it. Both only propose a
place; the embedding decides whether the object is there.

References
----------
Z. Kalal, K. Mikolajczyk, J. Matas, "Forward-backward error: automatic detection of tracking
failures", ICPR 2010.

"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

GRID = 10  # Points across and down a box.
INSET = 0.1  # Of the box on each side: its rim is mostly background.
SIDE_PX = 64.0  # Boxes are shrunk to about this side; motion is then a matter of few pixels.
REACH = 1.0  # How far around the box is looked, in box sides.
LEAST_POINTS = 15  # Of the grid's 100 that must come back.
MOST_ERROR = 0.03  # Of the box's side, between the start of a point and its return.
GROWTH = 1.2  # Most in one image, and least as its inverse.

PICTURE_PX = 24  # Side of the small picture of an object.
LEAST_LIKENESS = 0.6  # Correlation of a place with the picture.
SNAP_REACH = 0.25  # How far a followed box is corrected, in box sides.
SNAP_SCALES = (0.95, 1.0, 1.05)
SEARCH_SCALES = (0.75, 1.0, 1.33)
SEARCH_WIDTH_PX = 480  # An image is searched at no more than this width.
SMALLEST_PICTURE_PX = 8


def follow_box(
    before: NDArray[np.uint8], now: NDArray[np.uint8], box: NDArray[np.float32],
) -> NDArray[np.float32] | None:
    """
    Follow a box into the next image.

    Parameters
    ----------
    before, now : ndarray
        ``(H, W, 3)`` uint8 RGB of the same size.
    box : ndarray
        ``(4,)`` in the first one.

    Returns
    -------
    ndarray or None
        ``(4,)`` in the second one; None where too few points could be followed.

    """
    height, width = now.shape[:2]
    sides = box[2:] - box[:2]
    margin = REACH * float(sides.max())
    region = np.array([box[0] - margin, box[1] - margin, box[2] + margin, box[3] + margin])
    x0, y0, x1, y1 = np.clip(
        np.round(region), 0, (width, height, width, height)).astype(int).tolist()
    if before.shape != now.shape or x1 - x0 < 8 or y1 - y0 < 8 or float(sides.min()) < 4:
        return None
    scale = min(1.0, SIDE_PX / float(sides.max()))
    old, new = (_grey(image[y0:y1, x0:x1], scale) for image in (before, now))
    factor = np.array([old.shape[1] / (x1 - x0), old.shape[0] / (y1 - y0)])
    starts = _grid(box).astype(np.float64)
    inside = ((starts >= 0) & (starts < (width, height))).all(axis=1)
    if inside.sum() < LEAST_POINTS:
        return None
    starts = ((starts[inside] - (x0, y0)) * factor - 0.5).astype(np.float32)
    ends, good = _flow(old, new, starts)
    returned, back = _flow(new, old, ends)
    errors = np.abs(returned - starts).max(axis=1)
    good &= back & (errors < MOST_ERROR * scale * float(sides.max()) + 0.3)
    if good.sum() < LEAST_POINTS:
        return None
    corner = np.array([x0, y0]) + 0.5 / factor
    return _moved(box, starts[good] / factor + corner, ends[good] / factor + corner)


def _moved(
    box: NDArray[np.float32], starts: NDArray[np.float64], ends: NDArray[np.float64],
) -> NDArray[np.float32]:
    """Box moved and grown as the points in it."""
    middle, middle_after = np.median(starts, axis=0), np.median(ends, axis=0)
    spread = np.abs(starts - middle).sum(axis=1)
    far = spread > np.median(spread)
    growth = 1.0
    if far.sum() >= 5:
        ratios = np.abs(ends - middle_after).sum(axis=1)[far] / spread[far]
        growth = float(np.clip(np.median(ratios), 1 / GROWTH, GROWTH))
    center, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2 * growth
    center = middle_after + (center - middle) * growth
    return np.concatenate([center - half, center + half]).astype(np.float32)


def _grid(box: NDArray[np.float32]) -> NDArray[np.float32]:
    """``(GRID ** 2, 2)`` points in a box."""
    steps = np.linspace(INSET, 1 - INSET, GRID, dtype=np.float32)
    x, y = np.meshgrid(box[0] + steps * (box[2] - box[0]), box[1] + steps * (box[3] - box[1]))
    return np.stack([x.ravel(), y.ravel()], axis=1)


def _flow(
    first: NDArray[np.uint8], second: NDArray[np.uint8], points: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    follow: Any = cv2.calcOpticalFlowPyrLK  # Its stub knows no call without a first guess.
    moved, status, _ = follow(
        first, second, points.reshape(-1, 1, 2), None, winSize=(11, 11), maxLevel=3)
    return np.asarray(moved, np.float32).reshape(-1, 2), np.asarray(status).ravel() > 0


def _grey(crop: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    grey = cv2.cvtColor(np.ascontiguousarray(crop), cv2.COLOR_RGB2GRAY)
    if scale < 1:
        size = max(8, round(crop.shape[1] * scale)), max(8, round(crop.shape[0] * scale))
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    return np.asarray(grey, np.uint8)


def picture_of(image: NDArray[np.uint8], box: NDArray[np.float32]) -> NDArray[np.uint8] | None:
    """Small picture of an object, for `find_picture`; None where the box is too small."""
    height, width = image.shape[:2]
    x0, y0, x1, y1 = np.clip(np.round(box), 0, (width, height, width, height)).astype(int).tolist()
    if min(x1 - x0, y1 - y0) < SMALLEST_PICTURE_PX:
        return None
    return image[y0:y1, x0:x1].copy()


def snap_to_picture(
    image: NDArray[np.uint8], box: NDArray[np.float32], picture: NDArray[np.uint8],
) -> NDArray[np.float32]:
    """
    Correct a box that was followed, so that small errors do not add up.

    Parameters
    ----------
    image : ndarray
        ``(H, W, 3)`` uint8 RGB.
    box : ndarray
        ``(4,)`` about where the object is.
    picture : ndarray
        What `picture_of` gave of it earlier.

    Returns
    -------
    ndarray
        ``(4,)`` nearby place that is like the picture; the given box where none is.

    """
    height, width = image.shape[:2]
    sides = box[2:] - box[:2]
    margin = SNAP_REACH * sides
    x0, y0, x1, y1 = np.clip(
        np.round(np.concatenate([box[:2] - margin, box[2:] + margin])), 0,
        (width, height, width, height)).astype(int).tolist()
    if x1 - x0 < SMALLEST_PICTURE_PX or y1 - y0 < SMALLEST_PICTURE_PX:
        return box
    shrink = min(1.0, SIDE_PX / float(sides.max()))
    around = _resized(image[y0:y1, x0:x1], shrink)
    factor = np.array([around.shape[1] / (x1 - x0), around.shape[0] / (y1 - y0)] * 2)
    best: tuple[float, NDArray[np.float64]] | None = None
    for scale in SNAP_SCALES:
        size = np.maximum(np.round(sides * scale * factor[:2]), 1).astype(int).tolist()
        if size[0] > around.shape[1] or size[1] > around.shape[0]:
            continue
        template = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
        found = _best_place(around, template)
        if found is not None and (best is None or found[0] > best[0]):
            best = found
    if best is None:
        return box
    return np.asarray(best[1] / factor + (x0, y0, x0, y0), np.float32)


def _best_place(
    image: NDArray[np.uint8], template: NDArray[np.uint8],
) -> tuple[float, NDArray[np.float64]] | None:
    """Likeness and box of the place most like a template; None where it is not like it."""
    if float(template.std()) < 1:
        return None
    likeness = cv2.matchTemplate(image, template, cv2.TM_CCOEFF_NORMED)
    _, value, _, (x, y) = cv2.minMaxLoc(likeness)
    if not value >= LEAST_LIKENESS:
        return None
    rows, columns = template.shape[:2]
    return value, np.array([x, y, x + columns, y + rows], np.float64)


def find_picture(
    image: NDArray[np.uint8], picture: NDArray[np.uint8],
) -> NDArray[np.float32] | None:
    """
    Find the place in an image that looks most like a small picture.

    Parameters
    ----------
    image : ndarray
        ``(H, W, 3)`` uint8 RGB.
    picture : ndarray
        What `picture_of` gave, of the same camera.

    Returns
    -------
    ndarray or None
        ``(4,)`` box; None where nothing is like it.

    """
    # Shrink both so that the picture has about PICTURE_PX, but never to a blur of the image.
    side = max(picture.shape[:2])
    shrink = min(1.0, max(PICTURE_PX / side, 0.05), SEARCH_WIDTH_PX / image.shape[1])
    small = _resized(image, shrink)
    best: tuple[float, NDArray[np.float64]] | None = None
    for scale in SEARCH_SCALES:
        template = _resized(picture, shrink * scale)
        rows, columns = template.shape[:2]
        if (min(rows, columns) < SMALLEST_PICTURE_PX // 2 or rows > small.shape[0]
                or columns > small.shape[1]):
            continue
        found = _best_place(small, template)
        if found is not None and (best is None or found[0] > best[0]):
            best = found
    if best is None:
        return None
    return np.asarray(best[1] * (image.shape[1] / small.shape[1]), np.float32)


def _resized(image: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size, interpolation=way), np.uint8)
