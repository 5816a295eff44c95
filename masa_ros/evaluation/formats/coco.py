"""
COCO JSON with tracks: masks as compressed run lengths of the whole image.

The file is a COCO data set (``images``, ``annotations``, ``categories``), so that pycocotools and
most viewers load it. Beyond COCO an annotation carries ``track_id``, ``uuid``, ``score`` and,
where the model gives one, ``mask_quality``, and an image ``frame_index`` and ``stamp_ns``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from masa_ros.evaluation.formats.append import AppendFile
from masa_ros.structures.frame import Frame
from masa_ros.structures.instances import TrackedInstances
from masa_ros.structures.masks import RoiMask
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

_UNKNOWN = 0


def full_image_counts(mask: RoiMask, height_px: int, width_px: int) -> NDArray[np.uint32]:
    """
    Run lengths of the whole image, from those of a region of it.

    Parameters
    ----------
    mask : RoiMask
        Mask; what leaves the image is cut.
    height_px, width_px : int
        Size of the image.

    Returns
    -------
    ndarray
        ``(R,)`` uint32, column by column, background first.

    """
    crop = mask.decode()
    y0, x0 = max(-mask.y_offset, 0), max(-mask.x_offset, 0)
    crop = crop[y0:max(height_px - mask.y_offset, 0), x0:max(width_px - mask.x_offset, 0)]
    # Runs of each column: its first and its one-past-last pixels, as places in the whole image.
    padded = np.zeros((crop.shape[0] + 2, crop.shape[1]), np.int8)
    padded[1:-1] = crop
    steps = np.diff(padded, axis=0)
    columns, starts = np.nonzero(steps.T == 1)
    _, ends = np.nonzero(steps.T == -1)
    base = (columns + max(mask.x_offset, 0)) * height_px + max(mask.y_offset, 0)
    edges = np.stack([base + starts, base + ends], axis=1).reshape(-1)
    # A run that fills a column to the bottom goes on in the next one: drop the seam.
    seam = np.flatnonzero(edges[1:-1:2] == edges[2::2]) if len(edges) else edges
    edges = np.delete(edges, np.concatenate([2 * seam + 1, 2 * seam + 2]))
    bounds = np.concatenate([[0], edges, [height_px * width_px]])
    counts = np.diff(bounds)
    return np.asarray(counts[:-1] if len(counts) > 1 and counts[-1] == 0 else counts, np.uint32)


def encode_mask(mask: RoiMask, height_px: int, width_px: int) -> dict[str, Any]:
    """Return the mask as ``{'size': [height, width], 'counts': text}``, as in COCO's results."""
    counts = full_image_counts(mask, height_px, width_px).tolist()
    size = [height_px, width_px]
    compressed = coco_mask.frPyObjects({'size': size, 'counts': counts}, height_px, width_px)
    return {'size': size, 'counts': compressed['counts'].decode('ascii')}


class CocoWriter:
    """
    Writes a data set frame by frame, one annotation per line.

    The file is valid JSON after `close`, which must be called however the writing ended.

    Parameters
    ----------
    path : Path
        File to write.
    info : dict
        Where the results come from; becomes ``info``.

    """

    def __init__(self, path: Path, info: dict[str, Any]) -> None:
        self._file = AppendFile(path)
        self._images: list[dict[str, Any]] = []
        self._categories: dict[int, str] = {}
        self._count = 0
        self._file.write(f'{{"info": {_json(info)},\n"annotations": [')

    def write(self, frame: Frame, tracks: TrackedInstances) -> None:
        """Append a frame with the objects that were seen in it."""
        image_id = len(self._images) + 1
        seen = tracks.select(tracks.seen)
        lines = [_json(self._annotation(image_id, frame, seen, row)) for row in range(len(seen))]
        if lines:
            self._file.write((',\n' if self._count else '\n') + ',\n'.join(lines))
        self._count += len(lines)
        self._images.append({
            'id': image_id, 'file_name': f'{frame.frame_index + 1:06d}', 'width': frame.width_px,
            'height': frame.height_px, 'frame_index': frame.frame_index,
            'stamp_ns': frame.stamp_ns})

    def close(self) -> None:
        """Write images and categories and finish the file."""
        if self._file.closed:
            return
        images = ',\n'.join(map(_json, self._images))
        categories = ',\n'.join(_json({'id': number, 'name': name})
                                for number, name in sorted(self._categories.items()))
        try:
            self._file.write(f'],\n"images": [\n{images}],\n"categories": [\n{categories}]}}\n')
        finally:
            self._file.close()

    def _annotation(
        self, image_id: int, frame: Frame, tracks: TrackedInstances, row: int,
    ) -> dict[str, Any]:
        class_id = int(tracks.class_ids[row])
        category = class_id + 1 if class_id >= 0 else _UNKNOWN
        label = tracks.labels[row] or self._categories.get(category, '')
        self._categories[category] = label or (f'class {class_id}' if class_id >= 0 else 'object')
        x0, y0, x1, y1 = (round(float(value), 2) for value in tracks.boxes[row])
        mask = tracks.masks[row]
        annotation: dict[str, Any] = {
            'id': self._count + row + 1, 'image_id': image_id, 'category_id': category,
            'bbox': [x0, y0, round(x1 - x0, 2), round(y1 - y0, 2)],
            'score': round(float(tracks.scores[row]), 4),
            'track_id': int(tracks.track_ids[row]), 'uuid': tracks.uuids[row].hex(),
            'area': round((x1 - x0) * (y1 - y0), 2) if mask is None else mask.area,
            'iscrowd': 0,
        }
        if mask is not None:
            annotation['segmentation'] = encode_mask(mask, frame.height_px, frame.width_px)
        quality = float(tracks.mask_qualities[row])
        if quality == quality:
            annotation['mask_quality'] = round(quality, 4)
        return annotation


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, allow_nan=False)
