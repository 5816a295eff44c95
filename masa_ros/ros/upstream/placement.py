"""Detections made on another image size, brought to the pixels of the image."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
import re

from masa_ros.structures.boxes import box_areas, clip_boxes
from masa_ros.structures.instances import Instances
from masa_ros.structures.masks import encode_crop, RoiMask
import numpy as np
from numpy.typing import NDArray

SAME = 'image'
"""Stands for the size of the image itself, or the one that the message says."""
MODES = ('stretched', 'padded', 'centered')
MAX_SIDE = 2**15
MAX_MASK_PIXELS = 2**26


@dataclass(frozen=True)
class DetectorSize:
    """
    Size of the image that a detector looks at, and how the camera's image got there.

    Parameters
    ----------
    height_px, width_px : int
        Its size.
    mode : str
        ``stretched`` to fill it; ``padded`` at the right and at the bottom to keep the shape;
        ``centered``, padded at all sides.

    """

    height_px: int
    width_px: int
    mode: str = 'stretched'

    def geometry(
        self, height_px: int, width_px: int,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return scale and offset ``(2,)``: image pixel = (pixel - offset) * scale."""
        own = np.array([self.width_px, self.height_px], np.float64)
        image = np.array([width_px, height_px], np.float64)
        if self.mode == 'stretched':
            return image / own, np.zeros(2)
        scale = np.full(2, (image / own).max())
        return scale, (own - image / scale) / 2 if self.mode == 'centered' else np.zeros(2)


def read_size(text: str) -> DetectorSize | None:
    """
    Read ``640x480`` (width and height), with a mode behind it or not; None for ``image``.

    Raises
    ------
    ValueError
        If the text says something else.

    """
    if text == SAME:
        return None
    found = re.fullmatch(r'(\d{1,5})x(\d{1,5})(?: (\w+))?', text.strip())
    mode = found.group(3) or MODES[0] if found else ''
    sides = (int(found.group(1)), int(found.group(2))) if found else (0, 0)
    if not (mode in MODES and all(0 < side <= MAX_SIDE for side in sides)):
        raise ValueError(
            f'detections.sizes has {text!r}, expected {SAME} or width x height such as 640x480, '
            f'which may be followed by one of {", ".join(MODES)}')
    return DetectorSize(sides[1], sides[0], mode)


def to_image(
    instances: Instances, size: DetectorSize, height_px: int, width_px: int,
) -> Instances:
    """Boxes and masks in the pixels of an image of another size."""
    if (size.height_px, size.width_px) == (height_px, width_px):
        return instances
    scale, offset = size.geometry(height_px, width_px)
    with np.errstate(over='ignore', invalid='ignore'):
        boxes = ((instances.boxes - np.tile(offset, 2)) * np.tile(scale, 2)).astype(np.float32)
    return instances.with_fields(boxes=boxes, masks=tuple(
        None if mask is None else _scaled_mask(mask, scale, offset, height_px, width_px)
        for mask in instances.masks))


def _scaled_mask(
    mask: RoiMask, scale: NDArray[np.float64], offset: NDArray[np.float64], height_px: int,
    width_px: int,
) -> RoiMask:
    """Mask whose pixels are the nearest ones of the other size."""
    first = (np.array([mask.x_offset, mask.y_offset]) - offset) * scale
    last = first + np.array([mask.width, mask.height]) * scale
    x0, y0 = np.clip(np.floor(first), 0, (width_px, height_px)).astype(int).tolist()
    x1, y1 = np.clip(np.ceil(last), 0, (width_px, height_px)).astype(int).tolist()
    columns = np.floor((np.arange(x0, x1) + 0.5) / scale[0] + offset[0]) - mask.x_offset
    rows = np.floor((np.arange(y0, y1) + 0.5) / scale[1] + offset[1]) - mask.y_offset
    inside = ((rows >= 0) & (rows < mask.height))[:, None] & (
        (columns >= 0) & (columns < mask.width))
    if not np.any(inside):
        return encode_crop(np.zeros((0, 0), bool))
    crop = mask.decode()[np.clip(rows, 0, mask.height - 1).astype(int)][
        :, np.clip(columns, 0, mask.width - 1).astype(int)]
    return encode_crop(crop & inside, x0, y0)


def without_bad_masks(
    instances: Instances, height_px: int, width_px: int, problems: Counter[str],
) -> Instances:
    """Instances whose masks lie in an image of that size; others lose them, counted."""
    masks = list(instances.masks)
    for row, mask in enumerate(masks):
        if mask is None:
            continue
        inside = (mask.x_offset >= 0 and mask.y_offset >= 0
                  and mask.x_offset + mask.width <= width_px
                  and mask.y_offset + mask.height <= height_px)
        if not inside or mask.height * mask.width > MAX_MASK_PIXELS:
            problems['masks outside the image'] += 1
            masks[row] = None
    return instances.with_fields(masks=tuple(masks))


def usable(
    instances: Instances, height_px: int, width_px: int, problems: Counter[str],
) -> Instances:
    """
    Leave out boxes that cannot be used, counted by reason; scores are cut to 0 to 1.

    Parameters
    ----------
    instances : Instances
        Boxes in the pixels of the image.
    height_px, width_px : int
        Size of the image.
    problems : Counter
        Gets the reasons.

    """
    boxes = instances.boxes
    finite = np.asarray(np.isfinite(boxes).all(axis=1))
    upright = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    area = box_areas(clip_boxes(np.where(finite[:, None], boxes, 0), height_px, width_px))
    bad: NDArray[np.bool_] = np.zeros(len(boxes), bool)
    for reason, wrong in (
            ('boxes that are not finite', ~finite),
            ('boxes without area', ~upright),
            ('boxes outside the image', ~(area > 0)),
            ('boxes without a score', ~np.isfinite(instances.scores))):
        fresh = wrong & ~bad
        if fresh.any():
            problems[reason] += int(fresh.sum())
            bad |= fresh
    kept = instances.select(~bad) if bad.any() else instances
    scores = np.clip(kept.scores, 0, 1)
    changed = int((scores != kept.scores).sum())
    if changed:
        problems['scores outside 0 to 1'] += changed
        kept = kept.with_fields(scores=scores)
    return kept
