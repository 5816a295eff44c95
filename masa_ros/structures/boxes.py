"""
Axis-aligned boxes as ``(N, 4)`` arrays.

Convention: ``xyxy`` in continuous pixel edges of the input image. The top-left pixel covers
``[0, 1) x [0, 1)``, so a box around one pixel is ``(0, 0, 1, 1)`` and a width is ``x1 - x0``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def as_boxes(boxes: ArrayLike) -> NDArray[np.float32]:
    """
    Return boxes as a ``(N, 4)`` float32 array; an empty input becomes ``(0, 4)``.

    Raises
    ------
    ValueError
        If the input cannot be read as rows of four numbers.

    """
    array = np.asarray(boxes, dtype=np.float32)
    if array.size == 0:
        return np.zeros((0, 4), np.float32)
    if array.ndim != 2 or array.shape[1] != 4:
        raise ValueError(
            f'boxes have shape {array.shape}, expected (N, 4): one x0, y0, x1, y1 per row')
    return array


def box_areas(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Areas ``(N,)`` in square pixels of ``(N, 4)`` boxes; inverted boxes have area 0."""
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    return np.asarray(sides[:, 0] * sides[:, 1], dtype=np.float32)


def pairwise_iou(
    boxes: NDArray[np.float32], other: NDArray[np.float32],
) -> NDArray[np.float32]:
    """
    Intersection over union of every pair.

    Parameters
    ----------
    boxes : ndarray
        ``(N, 4)`` xyxy.
    other : ndarray
        ``(M, 4)`` xyxy, in the same pixels.

    Returns
    -------
    ndarray
        ``(N, M)`` float32 in ``[0, 1]``; 0 where both boxes are empty.

    """
    # One contiguous plane per edge: much faster than (N, M, 2) arrays on wide memory.
    first, second = np.ascontiguousarray(boxes.T), np.ascontiguousarray(other.T)
    width = np.minimum.outer(first[2], second[2])
    width -= np.maximum.outer(first[0], second[0])
    height = np.minimum.outer(first[3], second[3])
    height -= np.maximum.outer(first[1], second[1])
    intersection = np.maximum(width, 0, out=width)
    intersection *= np.maximum(height, 0, out=height)
    union = np.add.outer(box_areas(boxes), box_areas(other))
    union -= intersection
    np.maximum(union, np.finfo(np.float32).tiny, out=union)  # Two empty boxes: 0, not NaN.
    return np.asarray(intersection / union, dtype=np.float32)


def clip_boxes(
    boxes: NDArray[np.float32], height_px: int, width_px: int,
) -> NDArray[np.float32]:
    """Boxes ``(N, 4)`` cut to the image; a box outside becomes empty, not inverted."""
    limits = np.array([width_px, height_px, width_px, height_px], np.float32)
    return np.asarray(np.clip(boxes, 0, limits), dtype=np.float32)


def valid_boxes(
    boxes: NDArray[np.float32], height_px: int, width_px: int,
) -> NDArray[np.bool_]:
    """
    Tell which rows can be used.

    Returns
    -------
    ndarray
        ``(N,)`` bool: finite, not inverted, not empty, and sharing area with the image.

    """
    finite = np.asarray(np.isfinite(boxes).all(axis=1))
    clipped = clip_boxes(np.where(finite[:, None], boxes, 0), height_px, width_px)
    upright = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    return np.asarray(finite & upright & (box_areas(clipped) > 0))


def nms(
    boxes: NDArray[np.float32], scores: NDArray[np.float32], iou_threshold: float,
    class_ids: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """
    Greedy non-maximum suppression.

    Parameters
    ----------
    boxes : ndarray
        ``(N, 4)`` xyxy.
    scores : ndarray
        ``(N,)``; ties keep the earlier row.
    iou_threshold : float
        A box is dropped when its IoU with a kept one is above this.
    class_ids : ndarray, optional
        ``(N,)``; when given, only boxes of the same class suppress each other.

    Returns
    -------
    ndarray
        ``(K,)`` int64 rows kept, by descending score.

    """
    order = np.argsort(-scores, kind='stable')
    overlaps = pairwise_iou(boxes[order], boxes[order]) > iou_threshold
    if class_ids is not None:
        ranked = class_ids[order]
        overlaps &= ranked[:, None] == ranked[None, :]
    alive = np.ones(len(order), bool)
    for row in range(len(order)):
        if alive[row]:
            alive[row + 1:] &= ~overlaps[row, row + 1:]
    return np.asarray(order[alive], dtype=np.int64)
