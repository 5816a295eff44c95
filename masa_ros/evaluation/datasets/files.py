"""What the readers share: JSON with good errors, masks from run lengths and polygons."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Sequence as SequenceOf
import json
from pathlib import Path
from typing import Any

import cv2
from masa_ros.evaluation.datasets.sequence import with_ids
from masa_ros.structures.boxes import as_boxes, box_areas
from masa_ros.structures.instances import Instances, TrackedInstances
from masa_ros.structures.masks import encode_plane, RoiMask
import numpy as np
from numpy.typing import NDArray


def first_existing(root: Path, candidates: Iterable[str], what: str, source: str) -> Path:
    """
    Return the first path below a folder that exists.

    Raises
    ------
    FileNotFoundError
        If none does; the message lists them and says where to get the data.

    """
    names = list(candidates)
    for name in names:
        if (root / name).exists():
            return root / name
    raise FileNotFoundError(f'{root} holds no {what}; looked for {", ".join(names)}. '
                            f'Get it from {source}')


def load_json(path: Path, keys: Iterable[str], source: str) -> Any:
    """
    Read a JSON file and check its top.

    Raises
    ------
    FileNotFoundError
        If the file is missing.
    ValueError
        If it is not JSON or lacks one of the keys.

    """
    if not path.is_file():
        raise FileNotFoundError(f'{path} is missing; get it from {source}')
    try:
        content = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f'{path} is not JSON ({error}); it may be cut off, download it again '
                         f'from {source}') from error
    missing = [key for key in keys if not isinstance(content, dict) or key not in content]
    if missing:
        raise ValueError(f'{path} has no {", ".join(missing)}, expected the format of {source}')
    return content


def check_images(paths: Iterable[Path], source: str) -> None:
    """
    Check that all images are there.

    Raises
    ------
    FileNotFoundError
        If some are not; the message names the first and says how many.

    """
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise FileNotFoundError(f'{len(missing)} images are missing, the first is {missing[0]}; '
                                f'get them from {source}')


def mask_of(segmentation: Any, height_px: int, width_px: int) -> RoiMask | None:
    """
    Mask of a COCO segmentation: polygons, compressed or plain run lengths; ``None`` for none.

    Raises
    ------
    ValueError
        If the size of the run lengths is not that of the image, or they are damaged.

    """
    if not segmentation:
        return None
    from pycocotools import mask as coco_mask
    if isinstance(segmentation, list):
        parts = [part for part in segmentation if len(part) >= 6]
        if not parts:
            return None
        encoded = coco_mask.merge(coco_mask.frPyObjects(parts, height_px, width_px))
    else:
        size = list(segmentation['size'])
        if height_px and size != [height_px, width_px]:
            raise ValueError(f'a mask is {size[0]} x {size[1]} in an image of {height_px} x '
                             f'{width_px}, expected the same size')
        counts = segmentation['counts']
        encoded = (coco_mask.frPyObjects(segmentation, *size) if isinstance(counts, list)
                   else {'size': size, 'counts': counts.encode() if isinstance(counts, str)
                         else counts})
    return encode_plane(np.asarray(coco_mask.decode(encoded), bool))


def mask_box(mask: RoiMask) -> NDArray[np.float32]:
    """``(4,)`` tight xyxy box of a mask made by `encode_plane`."""
    return np.array([mask.x_offset, mask.y_offset, mask.x_offset + mask.width,
                     mask.y_offset + mask.height], np.float32)


def masked(instances: Instances, masks: SequenceOf[RoiMask | None]) -> Instances:
    """Instances with masks; a box without area becomes the tight box of its mask."""
    boxes = instances.boxes.copy()
    for row in np.flatnonzero(box_areas(boxes) == 0):
        mask = masks[int(row)]
        if mask is not None and mask.area:
            boxes[row] = mask_box(mask)
    return instances.with_fields(boxes=boxes, masks=tuple(masks))


def bare(objects: Instances) -> Instances:
    """Boxes, masks, scores and classes only, without the identities of a truth."""
    return masked(Instances.from_boxes(
        objects.boxes, objects.scores, objects.class_ids, objects.labels), objects.masks)


def label_masks(image: NDArray[Any]) -> tuple[list[int], list[RoiMask]]:
    """Values, but 0, of a label image and the mask of each."""
    values = [int(value) for value in np.unique(image) if value]
    return values, [encode_plane(image == value) for value in values]


def read_label_image(path: Path, source: str) -> NDArray[Any]:
    """
    Read a PNG as it is stored, palettes as numbers.

    Raises
    ------
    FileNotFoundError
        If it is missing or unreadable.

    """
    from PIL import Image
    try:
        with Image.open(path) as image:
            return np.array(image)
    except OSError as error:
        raise FileNotFoundError(f'{path} is missing or not an image ({error}); get it from '
                                f'{source}') from error


def objects(
    boxes: Any, track_ids: Any, class_ids: Any, names: Mapping[int, str],
    masks: SequenceOf[RoiMask | None] | None = None, scores: Any = None,
) -> TrackedInstances:
    """Truth of one frame from columns; ``names`` gives the labels of the classes."""
    found = Instances.from_boxes(as_boxes(boxes), scores, class_ids,
                                 [names.get(int(value), '') for value in class_ids])
    if masks is not None:
        found = masked(found, masks)
    return with_ids(found, track_ids)


def check_unique(ids: SequenceOf[int], where: str) -> None:
    """
    Check that no id is used twice in a frame.

    Raises
    ------
    ValueError
        If one is.

    """
    values, counts = np.unique(np.asarray(ids, np.int64), return_counts=True)
    if (counts > 1).any():
        raise ValueError(f'{where}: id {values[counts > 1][0]} is there twice, expected an id '
                         'at most once per frame')


def xywh_to_xyxy(boxes: Any) -> NDArray[np.float32]:
    """``(N, 4)`` corners of boxes given as left, top, width, height."""
    array = as_boxes(boxes).copy()
    array[:, 2:] += array[:, :2]
    return array


def images_in(folder: Path) -> tuple[Path, ...]:
    """Images of a folder by name."""
    return tuple(sorted(path for path in folder.iterdir()
                        if path.suffix.lower() in ('.jpg', '.jpeg', '.png', '.bmp')))


def image_size(path: Path) -> tuple[int, int]:
    """``(height, width)`` of an image file; zeros where it cannot be read."""
    image = cv2.imread(str(path))
    return (0, 0) if image is None else (int(image.shape[0]), int(image.shape[1]))
