"""Region labels of published data sets as labelled images: segment maps, polygons, boxes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
import json
from pathlib import Path

import cv2
from masa_ros.rendering.scene import Scene, SceneConfig
from masa_ros.sources import read_image
from masa_ros.structures.boxes import pairwise_iou, valid_boxes
from masa_ros.structures.instances import Instances
from masa_ros.structures.masks import encode_plane, RoiMask
from masa_ros.training.corpus import LabelledImage
import numpy as np
from numpy.typing import NDArray

# Objects of the 12 CamVid classes: pole, sign, car, pedestrian, bicyclist. The rest is
# background that is a region worth knowing, such as sky, road or a tree.
CAMVID_OBJECTS = {2: -1, 6: -1, 8: 2, 9: 0, 10: 1}
CAMVID_UNLABELLED = 11


def shrink(image: NDArray[np.uint8], long_side: int) -> NDArray[np.uint8]:
    """Reduce an image so that its long side is at most ``long_side``; never enlarge."""
    height, width = image.shape[:2]
    factor = long_side / max(height, width)
    if factor >= 1:
        return image
    size = (max(round(width * factor), 1), max(round(height * factor), 1))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def labelled(
    name: str, source: str, image: NDArray[np.uint8], masks: list[RoiMask],
    class_ids: list[int], exhaustive: bool,
) -> LabelledImage:
    """Build a labelled image whose boxes are the tight boxes of its masks."""
    boxes = np.array(
        [(m.x_offset, m.y_offset, m.x_offset + m.width, m.y_offset + m.height) for m in masks],
        np.float32).reshape(-1, 4)
    return LabelledImage(
        name, source, image, boxes, tuple(masks), np.array(class_ids, np.int64), exhaustive)


def segment_map(
    name: str, source: str, image: NDArray[np.uint8], segments: NDArray[np.integer],
    smallest: float = 0.001, exhaustive: bool = True,
) -> LabelledImage:
    """
    Read a map whose pixel value is the number of its segment.

    Parameters
    ----------
    name, source : str
        As in `LabelledImage`.
    image : ndarray
        ``(H, W, 3)`` uint8 RGB.
    segments : ndarray
        ``(h, w)`` integers; enlarged or reduced to the image. Value 0 is no segment.
    smallest : float
        Segments below this part of the image are left out.
    exhaustive : bool
        Whether the map covers all there is.

    """
    segments = _fit(segments, image)
    masks = []
    for value in np.unique(segments):
        mask = segments == value
        if value > 0 and mask.sum() >= smallest * mask.size:
            masks.append(encode_plane(mask))
    return labelled(name, source, image, masks, [-1] * len(masks), exhaustive)


def semantic_map(
    name: str, source: str, image: NDArray[np.uint8], classes: NDArray[np.integer],
    smallest: float = 0.0008,
) -> LabelledImage:
    """Read a map of CamVid's classes: every connected part of a class is one region."""
    classes = _fit(classes, image)
    masks, ids = [], []
    for value in np.unique(classes):
        if value == CAMVID_UNLABELLED:
            continue
        count, parts = cv2.connectedComponents((classes == value).astype(np.uint8))
        for part in range(1, count):
            mask = parts == part
            least = smallest if value in CAMVID_OBJECTS else 10 * smallest
            if mask.sum() >= least * mask.size:
                masks.append(encode_plane(mask))
                ids.append(CAMVID_OBJECTS.get(int(value), -1))
    return labelled(name, source, image, masks, ids, False)


def polygons(
    name: str, source: str, image: NDArray[np.uint8], text: str,
) -> LabelledImage:
    """
    Read polygons in relative coordinates, one object a line: class, x1, y1, x2, y2, ...

    Raises
    ------
    ValueError
        If a line is not a class and at least three points.

    """
    height, width = image.shape[:2]
    masks, ids = [], []
    for number, line in enumerate(text.splitlines(), 1):
        values = [float(v) for v in line.split()]
        if not values:
            continue
        if len(values) < 7 or len(values) % 2 == 0:
            raise ValueError(f'{name}, line {number}: {len(values)} numbers, expected a class '
                             'and at least three points')
        points = np.array(values[1:]).reshape(-1, 2) * (width, height)
        plane = np.zeros((height, width), np.uint8)
        # fillPoly takes pixel indices; with 8 fraction bits the half pixel is kept.
        cv2.fillPoly(plane, [np.round((points - 0.5) * 256).astype(np.int32)], 1, shift=8)
        if plane.any():
            masks.append(encode_plane(plane > 0))
            ids.append(int(values[0]))
    return labelled(name, source, image, masks, ids, False)


def relative_boxes(text: str, height: int, width: int) -> tuple[
        NDArray[np.float32], NDArray[np.int64]]:
    """Read lines of class, centre x, centre y, width, height in relative units."""
    rows = np.array([line.split()[:5] for line in text.splitlines() if line.strip()],
                    np.float64).reshape(-1, 5)
    centre, half = rows[:, 1:3], rows[:, 3:5] / 2
    boxes = np.concatenate([centre - half, centre + half], 1) * (width, height, width, height)
    return boxes.astype(np.float32), rows[:, 0].astype(np.int64)


def read_labels(root: str | Path, sources: tuple[str, ...]) -> Iterator[LabelledImage]:
    """
    Read the development data set: a pool of photos and labels for a part of them.

    Parameters
    ----------
    root : str or Path
        Folder with ``pool``, ``labels`` and ``images``.
    sources : tuple of str
        Prefixes of the pool files to read, such as ``bsds500``.

    Yields
    ------
    LabelledImage
        Photos without labels have no instances.

    """
    root = Path(root)
    for entry in json.loads((root / 'pool/index.json').read_text()):
        source = entry['file'].rsplit('_', 1)[0]
        if source in sources:
            image = read_image(root / 'pool' / entry['file'])
            yield _with_labels(root, source, entry['file'], Path(entry['path']), image)


def add_detections(item: LabelledImage, found: Instances) -> LabelledImage:
    """
    Add a detector's boxes for objects that have no label yet; they have no mask.

    Parameters
    ----------
    item : LabelledImage
        What is known; a detection that overlaps a known object by half is dropped.
    found : Instances
        What a detector found in the image.

    Raises
    ------
    ValueError
        If the image is a frame of a clip, where a box would need an identity.

    """
    usable = valid_boxes(found.boxes, *item.image.shape[:2])
    usable &= ~(pairwise_iou(found.boxes, item.boxes) > 0.5).any(axis=1)
    found = found.select(usable)
    if item.identities is not None:
        raise ValueError(f'{item.name} is a frame of a clip, where a detection would need an '
                         'identity; detections can be added to single photos')
    return replace(
        item, boxes=np.concatenate([item.boxes, found.boxes]),
        masks=(*item.masks, *(None,) * len(found)),
        class_ids=np.concatenate([item.class_ids, found.class_ids]))


def add_proposals(
    item: LabelledImage, proposed: Instances, prompted: Instances, least_quality: float = 0.7,
) -> LabelledImage:
    """
    Add what a network sees in a photo to what is known of it: a round of self-training.

    Parameters
    ----------
    item : LabelledImage
        A photo and its labels, which stay.
    proposed : Instances
        The network's own proposals with masks; one that overlaps a known object by half, or whose
        mask is not good enough, is dropped.
    prompted : Instances
        The network's masks of ``item.boxes``, in that order, for those known as a box alone.
    least_quality : float
        Lowest predicted IoU of a mask that is learned from.

    Raises
    ------
    ValueError
        If the image is a frame of a clip, where a proposal would need an identity, or
        ``prompted`` does not belong to it.

    """
    if item.identities is not None:
        raise ValueError(f'{item.name} is a frame of a clip, where a proposal would need an '
                         'identity; proposals can be added to single photos')
    if len(prompted) != len(item.boxes):
        raise ValueError(f'{item.name} has {len(item.boxes)} boxes, but masks of '
                         f'{len(prompted)} were given; prompt the network with its boxes')
    masks = [_good_mask(prompted, i, least_quality) if mask is None else mask
             for i, mask in enumerate(item.masks)]
    unknown = ~(pairwise_iou(proposed.boxes, item.boxes) > 0.5).any(axis=1)
    proposed = proposed.select(np.array([
        i for i in np.flatnonzero(unknown)
        if _good_mask(proposed, int(i), least_quality) is not None], np.int64))
    tight = [(mask.x_offset, mask.y_offset, mask.x_offset + mask.width,
              mask.y_offset + mask.height) for mask in proposed.masks if mask is not None]
    return replace(
        item, boxes=np.concatenate([item.boxes, np.array(tight, np.float32).reshape(-1, 4)]),
        masks=(*masks, *proposed.masks),
        class_ids=np.concatenate([item.class_ids, np.full(len(tight), -1, np.int64)]))


def _good_mask(found: Instances, row: int, least_quality: float) -> RoiMask | None:
    """Give the mask of one instance if it has pixels and its predicted IoU is high enough."""
    mask = found.masks[row]
    good = mask is not None and mask.area > 0 and found.mask_qualities[row] >= least_quality
    return mask if good else None


def rendered_clip(
    seed: int, num_frames: int, config: SceneConfig, least_visible: float = 0.2,
) -> Iterator[LabelledImage]:
    """
    Render frames of one street, spread over its time, with masks and identities.

    Parameters
    ----------
    seed : int
        Decides the street.
    num_frames : int
        Pictures to take.
    config : SceneConfig
        Size, objects, duration.
    least_visible : float
        Objects that show less than this part of themselves are left out.

    """
    scene = Scene(seed, config)
    for number in range(num_frames):
        frame = scene.render((number + 0.5) * config.duration_s / num_frames)
        truth = frame.truth
        rows = [i for i in range(len(truth))
                if truth.visibilities[i] >= least_visible and truth.masks[i].area > 0]
        yield LabelledImage(
            f'rendered{seed}_{number}', 'rendered', frame.image, truth.visible_boxes[rows],
            tuple(truth.masks[i] for i in rows), np.full(len(rows), -1, np.int64), False,
            f'rendered{seed}', truth.track_ids[rows])


def _with_labels(
    root: Path, source: str, name: str, origin: Path, image: NDArray[np.uint8],
) -> LabelledImage:
    """Attach the labels that exist for one photo of the pool."""
    labels = root / 'labels'
    if source == 'bsds500':
        return segment_map(name, source, image, _map(labels / f'bsds500/{origin.stem}.png'))
    if source == 'camvid' and (labels / f'camvid/{origin.name}').is_file():
        return semantic_map(name, source, image, _map(labels / f'camvid/{origin.name}'))
    if source == 'kitti2015' and (labels / f'kitti2015_obj_map/{origin.stem}.png').is_file():
        segments = _map(labels / f'kitti2015_obj_map/{origin.stem}.png')
        found = segment_map(name, source, image, segments, 0.0005, exhaustive=False)
        return labelled(name, source, image, [m for m in found.masks if m is not None],
                        [2] * len(found.masks), False)
    polygon_file = root / f'images/coco128_train/instance_polygons/{origin.stem}.txt'
    if source == 'coco128train' and polygon_file.is_file():
        return polygons(name, source, image, polygon_file.read_text())
    box_file = root / f'images/coco128_train/boxes/{origin.stem}.txt'
    boxes, class_ids = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    if source == 'coco128train' and box_file.is_file():
        boxes, class_ids = relative_boxes(box_file.read_text(), *image.shape[:2])
    return LabelledImage(
        name, source, image, boxes, (None,) * len(boxes), class_ids, False)


def _map(path: Path) -> NDArray[np.integer]:
    """Read a one-channel PNG of numbers."""
    values = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if values is None or values.ndim != 2:
        raise ValueError(f'{path} is not a one-channel label image')
    return np.asarray(values)


def _fit(values: NDArray[np.integer], image: NDArray[np.uint8]) -> NDArray[np.integer]:
    """Resize a label map to its image without mixing values."""
    height, width = image.shape[:2]
    if values.shape == (height, width):
        return values
    return np.asarray(cv2.resize(values, (width, height), interpolation=cv2.INTER_NEAREST))
