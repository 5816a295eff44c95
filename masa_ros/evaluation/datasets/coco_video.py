"""
Annotation files of videos in the style of COCO.

Two forms exist: one annotation per object and image (TAO, converted BDD100K), and one per object
and video with a list over the frames (YouTube-VIS, UVO).
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from masa_ros.evaluation.datasets.files import (
    check_images,
    check_unique,
    load_json,
    mask_of,
    objects,
    xywh_to_xyxy,
)
from masa_ros.evaluation.datasets.sequence import regular_stamps_ns, Sequence
from masa_ros.structures.boxes import as_boxes
import numpy as np


def read_image_style(
    path: Path, images: Path | None, source: str, rate_hz: float = 30.0,
) -> list[Sequence]:
    """
    Read a file with one annotation per object and image.

    Parameters
    ----------
    path : Path
        JSON with videos, images, annotations and categories.
    images : Path or None
        Folder below which ``file_name`` lies; ``None`` reads the annotation alone.
    source : str
        Where the data comes from, for errors.
    rate_hz : float
        Rate of the recordings that ``frame_index`` counts.

    Returns
    -------
    list of Sequence
        One per video, by id. Crowds become ignored regions.

    Raises
    ------
    FileNotFoundError
        If the file or images are missing.
    ValueError
        If the file is damaged or uses a track id twice in a frame.

    """
    content = load_json(path, ('videos', 'images', 'annotations', 'categories'), source)
    names = {int(entry['id']): str(entry['name']) for entry in content['categories']}
    frames = defaultdict(list)
    for image in content['images']:
        frames[image['video_id']].append(image)
    annotations = defaultdict(list)
    for annotation in content['annotations']:
        annotations[annotation['image_id']].append(annotation)
    sequences = []
    for video in sorted(content['videos'], key=lambda entry: int(entry['id'])):
        own = sorted(frames[video['id']], key=frame_index_of)
        if not own:
            raise ValueError(f'{path}: video {video["id"]} has no images; the file is cut off, '
                             f'get it from {source}')
        sequences.append(_image_style_sequence(video, own, annotations, names, images, rate_hz,
                                               f'{path}, video {video["id"]}'))
    if images is not None:
        check_images((file for sequence in sequences for file in sequence.image_paths), source)
    return sequences


def frame_index_of(image: dict[str, Any]) -> int:
    """Position of an image in its video; both names of it are in use."""
    return int(image['frame_index'] if 'frame_index' in image else image['frame_id'])


def _image_style_sequence(
    video: dict[str, Any], images: list[dict[str, Any]],
    annotations: dict[Any, list[dict[str, Any]]], names: dict[int, str], root: Path | None,
    rate_hz: float, where: str,
) -> Sequence:
    indices = np.array([frame_index_of(image) for image in images], np.int64)
    height, width = int(images[0].get('height', 0)), int(images[0].get('width', 0))
    truth, ignored = [], []
    for image in images:
        own = annotations.get(image['id'], [])
        crowd = [entry for entry in own if entry.get('iscrowd') or entry.get('ignore')]
        single = [entry for entry in own if not (entry.get('iscrowd') or entry.get('ignore'))]
        ids = [int(entry.get('track_id', entry.get('instance_id', -1))) for entry in single]
        check_unique(ids, f'{where}, image {image["id"]}')
        truth.append(objects(
            xywh_to_xyxy([entry['bbox'] for entry in single]), ids,
            [int(entry['category_id']) for entry in single], names,
            [mask_of(entry.get('segmentation'), height, width) for entry in single]
            if any(entry.get('segmentation') for entry in single) else None))
        ignored.append(xywh_to_xyxy([entry['bbox'] for entry in crowd]))
    step = float(np.median(np.diff(indices))) if len(indices) > 1 else 1.0
    return Sequence(
        str(video.get('name', video['id'])), indices, regular_stamps_ns(indices, rate_hz),
        rate_hz / max(step, 1.0),
        () if root is None else tuple(root / image['file_name'] for image in images),
        height, width, tuple(truth),
        tuple(ignored) if any(len(boxes) for boxes in ignored) else (),
        not_exhaustive=frozenset(video.get('not_exhaustive_category_ids', ())),
        absent=frozenset(video.get('neg_category_ids', ())))


def read_video_style(
    path: Path, images: Path | None, source: str, rate_hz: float,
) -> list[Sequence]:
    """
    Read a file with one annotation per object and video, as YouTube-VIS has them.

    See `read_image_style` for the arguments. A file without annotations (a public validation
    split) gives sequences without truth.
    """
    content = load_json(path, ('videos', 'categories'), source)
    names = {int(entry['id']): str(entry['name']) for entry in content['categories']}
    annotations = defaultdict(list)
    for annotation in content.get('annotations') or ():
        annotations[annotation['video_id']].append(annotation)
    sequences = [
        _video_style_sequence(video, annotations[video['id']], names, images, rate_hz,
                              bool(content.get('annotations')), path)
        for video in sorted(content['videos'], key=lambda entry: int(entry['id']))]
    if images is not None:
        check_images((file for sequence in sequences for file in sequence.image_paths), source)
    return sequences


def _video_style_sequence(
    video: dict[str, Any], annotations: list[dict[str, Any]], names: dict[int, str],
    root: Path | None, rate_hz: float, has_truth: bool, path: Path,
) -> Sequence:
    files = video['file_names']
    height, width = int(video['height']), int(video['width'])
    for entry in annotations:
        if len(entry['segmentations']) != len(files):
            raise ValueError(f'{path}: annotation {entry["id"]} has '
                             f'{len(entry["segmentations"])} masks for {len(files)} frames of '
                             f'video {video["id"]}; the file is damaged')
    truth = []
    for position in range(len(files)):
        rows = []
        for entry in annotations:
            mask = mask_of(entry['segmentations'][position], height, width)
            if mask is not None and mask.area and not entry.get('iscrowd'):
                rows.append((int(entry['id']), int(entry['category_id']), mask))
        truth.append(objects(as_boxes([(0, 0, 0, 0)] * len(rows)), [row[0] for row in rows],
                             [row[1] for row in rows], names, [row[2] for row in rows]))
    indices = np.arange(len(files), dtype=np.int64)
    return Sequence(
        str(Path(files[0]).parent) if files else str(video['id']), indices,
        regular_stamps_ns(indices, rate_hz), rate_hz,
        () if root is None else tuple(root / file for file in files), height, width,
        tuple(truth) if has_truth else ())
