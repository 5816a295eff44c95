"""BDD100K MOT and MOTS: Scalabel JSON with boxes, polygons or run lengths, and bitmask PNGs."""

from __future__ import annotations

from collections import defaultdict
import json
from pathlib import Path
from typing import Any

from masa_ros.evaluation.datasets.files import (
    check_images,
    check_unique,
    first_existing,
    mask_box,
    mask_of,
    objects,
    read_label_image,
)
from masa_ros.evaluation.datasets.sequence import regular_stamps_ns, Sequence
from masa_ros.structures.boxes import as_boxes
from masa_ros.structures.instances import TrackedInstances
from masa_ros.structures.masks import encode_plane, RoiMask
import numpy as np
from numpy.typing import NDArray

SOURCE = 'https://bdd-data.berkeley.edu (MOT 2020 or MOTS 2020 labels and images)'
RATE_HZ = 5.0
HEIGHT_PX, WIDTH_PX = 720, 1280
CLASSES = ('pedestrian', 'rider', 'car', 'truck', 'bus', 'train', 'motorcycle', 'bicycle')
GROUPS = {'human': CLASSES[:2], 'vehicle': CLASSES[2:6], 'bike': CLASSES[6:]}
"""The benchmark's super classes; class ids are positions in `CLASSES` plus 1, as in bitmasks."""
_NAMES = dict(enumerate(CLASSES, start=1))
_NUMBERS = {name: number for number, name in _NAMES.items()}
_NUMBERS.update({'person': 1, 'motor': 7, 'bike': 8})
_IGNORED_BIT, _CROWD_BIT = 1, 2


def read(root: Path, split: str = 'val', *, task: str = 'box_track_20',
         images: bool = True) -> list[Sequence]:
    """
    Read a split.

    Parameters
    ----------
    root : Path
        The ``bdd100k`` folder, or one Scalabel JSON file.
    split : str
        ``train`` or ``val``.
    task : {'box_track_20', 'seg_track_20'}
        MOT or MOTS.
    images : bool
        Whether the images are needed.

    Raises
    ------
    FileNotFoundError
        If labels or images are missing.
    ValueError
        If a file is damaged.

    """
    if root.is_file():
        return read_scalabel([root], None)
    labels = first_existing(
        root, (f'labels/{task}/{split}', f'labels/{task}/polygons/{split}',
               f'labels/{task}/rles/{split}', f'labels/{task}/bitmasks/{split}'),
        f'labels of {task}', SOURCE)
    folder = first_existing(
        root, (f'images/{"track" if task == "box_track_20" else task}/{split}',),
        f'images of {task}', SOURCE) if images else None
    if labels.parent.name == 'bitmasks':
        return [read_bitmasks(video, folder) for video in sorted(labels.iterdir())
                if video.is_dir()]
    files = sorted(labels.glob('*.json'))
    if not files:
        raise FileNotFoundError(f'{labels} holds no JSON files; get them from {SOURCE}')
    return read_scalabel(files, folder)


def read_mots(root: Path, split: str = 'val', *, images: bool = True) -> list[Sequence]:
    """Read the segmentation tracking set; see `read`."""
    return read(root, split, task='seg_track_20', images=images)


def read_scalabel(files: list[Path], images: Path | None) -> list[Sequence]:
    """
    Read Scalabel files: a list of frames, or an object with ``frames``.

    The form of 2020 (``video_name``, ``index``, ``Crowd``) is read too. Labels of other classes,
    and those marked as crowd, become ignored regions. Ids, which are text, are numbered in order
    of appearance within a video.
    """
    videos = defaultdict(list)
    for path in files:
        try:
            content = json.loads(path.read_text())
        except json.JSONDecodeError as error:
            raise ValueError(f'{path} is not JSON ({error}); it may be cut off, get it again '
                             f'from {SOURCE}') from error
        frames = content.get('frames') if isinstance(content, dict) else content
        if not isinstance(frames, list):
            raise ValueError(f'{path} has no list of frames, expected the Scalabel format')
        for frame in frames:
            name = frame.get('videoName') or frame.get('video_name') or path.stem
            videos[str(name)].append(frame)
    sequences = [_sequence(name, videos[name], images) for name in sorted(videos)]
    if images is not None:
        check_images((file for sequence in sequences for file in sequence.image_paths), SOURCE)
    return sequences


def _sequence(name: str, frames: list[dict[str, Any]], images: Path | None) -> Sequence:
    places = [_index(frame, name) for frame in frames]
    order = np.argsort(places, kind='stable')
    frames, indices = [frames[k] for k in order], np.array(places, np.int64)[order]
    numbers: dict[str, int] = {}
    pairs = [_frame(frame, numbers, f'{name}, frame {index}')
             for frame, index in zip(frames, indices, strict=True)]
    size = frames[0].get('size') or {}
    return Sequence(
        name, indices, regular_stamps_ns(indices, RATE_HZ), RATE_HZ,
        () if images is None else tuple(images / name / frame['name'] for frame in frames),
        int(size.get('height', HEIGHT_PX)), int(size.get('width', WIDTH_PX)),
        tuple(truth for truth, _ in pairs),
        tuple(boxes for _, boxes in pairs) if any(len(boxes) for _, boxes in pairs) else ())


def _index(frame: dict[str, Any], name: str) -> int:
    """Position of a frame in its video; the labels of 2020 and those of today name it apart."""
    for key in ('frameIndex', 'index'):
        if isinstance(frame.get(key), int):
            return int(frame[key])
    raise ValueError(f'video {name}: frame {frame.get("name")} has neither frameIndex nor index, '
                     f'expected the Scalabel format; get the labels anew from {SOURCE}')


def _frame(
    frame: dict[str, Any], numbers: dict[str, int], where: str,
) -> tuple[TrackedInstances, NDArray[np.float32]]:
    boxes, ids, classes, masks, scores, ignored = [], [], [], [], [], []
    for place, label in enumerate(frame.get('labels') or ()):
        mask = _mask(label)
        box = _box(label, mask)
        if box is None:
            continue
        # The labels of 2020 write Crowd.
        attributes = {key.lower(): value
                      for key, value in (label.get('attributes') or {}).items()}
        number = _NUMBERS.get(label['category'])
        if number is None or attributes.get('crowd') or attributes.get('ignored'):
            ignored.append(box)
            continue
        boxes.append(box)
        # Detections have no ids.
        ids.append(numbers.setdefault(str(label.get('id', f'{where}, {place}')),
                                      len(numbers) + 1))
        classes.append(number)
        masks.append(mask)
        score = label.get('score')
        scores.append(1.0 if score is None else float(score))
    check_unique(ids, where)
    return (objects(boxes, ids, classes, _NAMES,
                    masks if any(mask is not None for mask in masks) else None, scores),
            as_boxes(np.array(ignored)))


def _box(label: dict[str, Any], mask: RoiMask | None) -> tuple[float, ...] | None:
    box = label.get('box2d')
    if box is not None:
        return float(box['x1']), float(box['y1']), float(box['x2']), float(box['y2'])
    if mask is None or not mask.area:
        return None
    return tuple(mask_box(mask).tolist())


def _mask(label: dict[str, Any]) -> RoiMask | None:
    if label.get('rle'):
        return mask_of(label['rle'], 0, 0)
    if label.get('poly2d'):
        parts = [_outline(part) for part in label['poly2d']]
        return mask_of([part.ravel().tolist() for part in parts], HEIGHT_PX, WIDTH_PX)
    return None


def _outline(polygon: dict[str, Any]) -> NDArray[np.float64]:
    """``(K, 2)`` points of a Scalabel polygon; Bezier curves become short straight pieces."""
    vertices = np.array(polygon['vertices'], np.float64)
    kinds = str(polygon.get('types') or 'L' * len(vertices))
    steps = np.linspace(0, 1, 9)[1:, None]
    points: list[NDArray[np.float64]] = []
    row = 0
    while row < len(vertices):
        if kinds[row] == 'C' and row and row + 2 <= len(vertices):
            # Two control points, then the end; the outline is closed, so it may be the first.
            first, second = vertices[row], vertices[row + 1]
            end = vertices[(row + 2) % len(vertices)]
            start = vertices[row - 1]
            points.extend((1 - steps) ** 3 * start + 3 * (1 - steps) ** 2 * steps * first
                          + 3 * (1 - steps) * steps ** 2 * second + steps ** 3 * end)
            row += 3
        else:
            points.append(vertices[row])
            row += 1
    return np.array(points)


def read_bitmasks(folder: Path, images: Path | None) -> Sequence:
    """
    Read one video of bitmasks: PNGs with class, attributes and a 16-bit instance id.

    Channels are red: class; green: bits truncated 8, occluded 4, crowd 2, ignored 1; blue and
    alpha: high and low byte of the id.

    Raises
    ------
    FileNotFoundError
        If there is no bitmask or an image is missing.
    ValueError
        If a PNG does not have four channels.

    """
    files = sorted(folder.glob('*.png'))
    if not files:
        raise FileNotFoundError(f'{folder} holds no bitmask PNGs; get them from {SOURCE}')
    truth, ignored = [], []
    for path in files:
        image = read_label_image(path, SOURCE)
        if image.ndim != 3 or image.shape[2] != 4:
            raise ValueError(f'{path} has shape {image.shape}, expected four channels: class, '
                             'attributes and two of the instance id')
        own, crowd = decode_bitmask(image)
        truth.append(own)
        ignored.append(crowd)
    indices = np.arange(len(files), dtype=np.int64)
    paths = () if images is None else tuple(
        images / folder.name / f'{path.stem}.jpg' for path in files)
    check_images(paths, SOURCE)
    height, width = image.shape[:2]
    return Sequence(folder.name, indices, regular_stamps_ns(indices, RATE_HZ), RATE_HZ, paths,
                    int(height), int(width), tuple(truth),
                    tuple(ignored) if any(len(boxes) for boxes in ignored) else ())


def decode_bitmask(image: NDArray[np.uint8]) -> tuple[TrackedInstances, NDArray[np.float32]]:
    """Objects of a ``(H, W, 4)`` bitmask, and the boxes of its ignored and crowd regions."""
    ids = image[..., 2].astype(np.int64) * 256 + image[..., 3]
    rows: list[tuple[int, int, RoiMask]] = []
    ignored: list[NDArray[np.float32]] = []
    for value in np.unique(ids[image[..., 0] > 0]):
        plane = (ids == value) & (image[..., 0] > 0)
        at = np.unravel_index(int(plane.argmax()), plane.shape)
        mask = encode_plane(plane)
        if image[at][1] & (_IGNORED_BIT | _CROWD_BIT):
            ignored.append(mask_box(mask))
        else:
            rows.append((int(value), int(image[at][0]), mask))
    return (objects([(0, 0, 0, 0)] * len(rows), [row[0] for row in rows],
                    [row[1] for row in rows], _NAMES, [row[2] for row in rows]),
            as_boxes(np.array(ignored)))
