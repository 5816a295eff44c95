"""Region labels of any folder: PNG maps of segment numbers, and COCO annotation files."""

from __future__ import annotations

from collections.abc import Sequence
import json
from pathlib import Path
from typing import Any

import cv2
from masa_ros.structures.instances import Instances
from masa_ros.structures.masks import encode_plane, RoiMask
import numpy as np
from numpy.typing import NDArray


class SegmentMaps:
    """
    A folder with one label image for every photo: same name, ending in ``.png``.

    One channel holds segment numbers (8 or 16 bit), three hold panoptic colours. Zero is nothing.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise FileNotFoundError(f'{folder} is no folder of segment maps')

    def __call__(self, name: str, image: NDArray[np.uint8]) -> Instances:
        """
        Regions of a photo.

        Raises
        ------
        ValueError
            If its map is missing or cannot be read.

        """
        path = self.folder / f'{Path(name).stem}.png'
        values = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) if path.is_file() else None
        if values is None or values.ndim not in (2, 3):
            raise ValueError(f'its segment map {path} is missing or cannot be read')
        numbers = values.astype(np.int64)
        if values.ndim == 3:  # OpenCV reads blue first; red holds the lowest digit.
            numbers = numbers[..., 2] + 256 * numbers[..., 1] + 65536 * numbers[..., 0]
        # Numbers may be too large for resize, their ranks are not.
        known, ranks = np.unique(numbers, return_inverse=True)
        height, width = image.shape[:2]
        fitted = cv2.resize(ranks.reshape(numbers.shape).astype(np.int32), (width, height),
                            interpolation=cv2.INTER_NEAREST)
        return _instances([encode_plane(np.asarray(fitted == rank)) for rank in range(len(known))
                           if known[rank] > 0], None)


class CocoLabels:
    """
    A COCO annotation file: polygons, run lengths or boxes by file name.

    Crowd annotations are left out.
    """

    def __init__(self, file: str | Path) -> None:
        content = json.loads(Path(file).read_text())
        if not isinstance(content, dict) or not {'images', 'annotations'} <= content.keys():
            raise ValueError(f'{file} holds no images and annotations, so it is not a COCO '
                             'annotation file')
        self.file = Path(file)
        self._images = {Path(image['file_name']).name: image for image in content['images']}
        self._annotations: dict[int, list[dict[str, Any]]] = {}
        for item in content['annotations']:
            if not item.get('iscrowd'):
                self._annotations.setdefault(item['image_id'], []).append(item)

    def __call__(self, name: str, image: NDArray[np.uint8]) -> Instances:
        """
        Objects of a photo.

        Raises
        ------
        ValueError
            If the file does not know the photo, or an annotation cannot be read.

        """
        record = self._images.get(Path(name).name)
        if record is None:
            raise ValueError(f'{self.file} has no image of this name')
        masks, boxes, class_ids = [], [], []
        height, width = image.shape[:2]
        scale = width / record['width'], height / record['height']
        for item in self._annotations.get(record['id'], []):
            plane = _plane(item.get('segmentation'), record, scale, height, width)
            x, y, w, h = item['bbox']
            box = np.array([x, y, x + w, y + h]) * (*scale, *scale)
            if plane is None or plane.any():
                masks.append(None if plane is None else encode_plane(plane))
                boxes.append(box)
                class_ids.append(int(item.get('category_id', -1)))
        found = _instances(masks, class_ids)
        return found.with_fields(boxes=np.where(
            [[mask is None] for mask in masks], np.array(boxes, np.float32).reshape(-1, 4),
            found.boxes).astype(np.float32)) if masks else found


def _plane(
    segmentation: Any, record: dict[str, Any], scale: tuple[float, float], height: int, width: int,
) -> NDArray[np.bool_] | None:
    """Mask of one annotation in an image of another size; ``None`` where there is only a box."""
    from pycocotools import mask as coco

    if not segmentation:
        return None
    if isinstance(segmentation, list):
        scaled = [(np.array(points, np.float64).reshape(-1, 2) * scale).ravel().tolist()
                  for points in segmentation if len(points) >= 6]
        if not scaled:
            return None
        packed = coco.merge(coco.frPyObjects(scaled, height, width))
        return np.asarray(coco.decode(packed), bool)
    if isinstance(segmentation.get('counts'), list):
        segmentation = coco.frPyObjects(segmentation, record['height'], record['width'])
    plane = np.asarray(coco.decode(segmentation), np.uint8)
    return np.asarray(cv2.resize(
        plane, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8) > 0


def _instances(masks: Sequence[RoiMask | None], class_ids: list[int] | None) -> Instances:
    """Instances with the tight boxes of their masks."""
    boxes = [(0, 0, 1, 1) if mask is None else (
        mask.x_offset, mask.y_offset, mask.x_offset + mask.width, mask.y_offset + mask.height)
        for mask in masks]
    return Instances.from_boxes(
        np.array(boxes, np.float32).reshape(-1, 4), class_ids=class_ids).with_fields(
            masks=tuple(masks))
