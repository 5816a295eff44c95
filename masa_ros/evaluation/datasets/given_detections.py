"""
Detections that others published for a data set, put onto its sequences.

Three forms are read: COCO result files (one JSON list with image ids), the reference's public
detections (one pickle per frame, named like the image with the suffix ``.pth``), and results for
BDD100K as Scalabel files (JSON of a video, or of all).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
import io
import json
from pathlib import Path
import pickle
from typing import Any

from masa_ros.evaluation.datasets.bdd100k import read_scalabel
from masa_ros.evaluation.datasets.coco_video import frame_index_of
from masa_ros.evaluation.datasets.files import bare, load_json, mask_of, masked, xywh_to_xyxy
from masa_ros.evaluation.datasets.sequence import Sequence
from masa_ros.structures.boxes import as_boxes
from masa_ros.structures.instances import Instances
import numpy as np

# All that arrays in a pickle need; anything else could run code.
_ALLOWED = {
    ('numpy', 'ndarray'), ('numpy', 'dtype'),
    ('numpy.core.multiarray', '_reconstruct'), ('numpy._core.multiarray', '_reconstruct'),
    ('numpy.core.multiarray', 'scalar'), ('numpy._core.multiarray', 'scalar'),
    ('_codecs', 'encode'),
}


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles containers and numpy arrays only."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise ValueError(f'the file asks for {module}.{name}, expected lists, dictionaries '
                             'and numpy arrays only; it was refused because it could run code')
        return super().find_class(module, name)


def read_pickle(path: Path) -> Any:
    """
    Read a pickle of containers and numpy arrays.

    Raises
    ------
    FileNotFoundError
        If it is missing.
    ValueError
        If it is damaged or holds anything else.

    """
    if not path.is_file():
        raise FileNotFoundError(f'{path} is missing; unpack public_dets_masa.zip of the '
                                'reference beside the data set')
    try:
        return _ArrayUnpickler(io.BytesIO(path.read_bytes())).load()
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from error
    except Exception as error:
        raise ValueError(f'{path} is not a pickle of detections ({error})') from error


def give(
    sequences: list[Sequence], source: Path, annotation: Path | None = None,
) -> list[Sequence]:
    """
    Give sequences published detections, whatever their form.

    Parameters
    ----------
    sequences : list of Sequence
        With their image paths.
    source : Path
        Folder of pickles, COCO result file, Scalabel file or folder of them.
    annotation : Path, optional
        Annotation file that tells the image ids of a COCO result file.

    Raises
    ------
    FileNotFoundError
        If there is nothing, or nothing that fits the images.
    ValueError
        If a file is damaged, or image ids are not known.

    """
    if source.is_dir() and any(source.glob('*.json')):
        return from_scalabel(sequences, sorted(source.glob('*.json')))
    if source.is_dir():
        first = next((path for sequence in sequences for path in sequence.image_paths), None)
        roots = [] if first is None else [
            root for root in first.parents
            if (source / first.relative_to(root)).with_suffix('.pth').is_file()]
        if not roots:
            raise FileNotFoundError(f'{source} has no detections (.pth) for {first}; expected '
                                    'files laid out like the images')
        return [from_pickles(sequence, source, roots[0]) for sequence in sequences]
    if not source.is_file():
        raise FileNotFoundError(f'{source} is neither a folder of detections nor a JSON file')
    if _is_scalabel(source):
        return from_scalabel(sequences, [source])
    if annotation is None:
        raise ValueError(f'{source} names images by number, and this data set has no annotation '
                         'file that tells them')
    return from_coco_results(sequences, source, image_ids(annotation))


def _is_scalabel(path: Path) -> bool:
    """Tell frames with labels from a COCO result file, a list of single detections."""
    try:
        content = json.loads(path.read_text())
    except ValueError:
        return False
    frames = content.get('frames') if isinstance(content, dict) else content
    return isinstance(frames, list) and bool(frames) and 'labels' in frames[0]


def from_scalabel(sequences: list[Sequence], files: list[Path]) -> list[Sequence]:
    """
    Give sequences detections, or boxes that a tracker reported, from Scalabel files.

    Parameters
    ----------
    sequences : list of Sequence
        Sequences of BDD100K.
    files : list of Path
        Frames with labels that have ``box2d``, ``category`` and ``score``; ids do not matter.

    Raises
    ------
    FileNotFoundError
        If a sequence has no detections at all.
    ValueError
        If a file is damaged.

    """
    found = {sequence.name: sequence for sequence in read_scalabel(files, None)}
    missing = [sequence.name for sequence in sequences if sequence.name not in found]
    if missing:
        raise FileNotFoundError(
            f'{files[0].parent} has no detections for {len(missing)} of {len(sequences)} '
            f'sequences, such as {missing[0]}; choose others with --sequences or get the rest')
    changed = []
    for sequence in sequences:
        own = found[sequence.name]
        frames = dict(zip(own.frame_indices.tolist(), own.truth, strict=True))
        nothing = Instances.from_boxes([])
        changed.append(replace(sequence, detections=tuple(
            bare(frames.get(index, nothing)) for index in sequence.frame_indices.tolist())))
    return changed


def image_ids(annotation: Path) -> dict[tuple[str, int], int]:
    """Image id of each video name and frame index of an annotation file."""
    content = load_json(annotation, ('videos', 'images'), 'where the data set comes from')
    names = {video['id']: str(video.get('name', video['id'])) for video in content['videos']}
    return {(names[image['video_id']], frame_index_of(image)): int(image['id'])
            for image in content['images']}


def from_pickles(sequence: Sequence, folder: Path, image_root: Path) -> Sequence:
    """
    Give a sequence the reference's public detections.

    Parameters
    ----------
    sequence : Sequence
        With its image paths.
    folder : Path
        Folder of the detections, laid out like the images.
    image_root : Path
        What to take off the image paths.

    Raises
    ------
    FileNotFoundError
        If a frame has no file.
    ValueError
        If a file is damaged.

    """
    found = []
    for image in sequence.image_paths:
        path = (folder / image.relative_to(image_root)).with_suffix('.pth')
        content = read_pickle(path)
        if not isinstance(content, dict) or 'det_bboxes' not in content:
            raise ValueError(f'{path} has no det_bboxes, expected det_bboxes and det_labels')
        rows = np.asarray(content['det_bboxes'], np.float32)
        rows = rows.reshape(-1, rows.shape[-1] if rows.ndim == 2 else 5)
        scores = rows[:, 4] if rows.shape[1] > 4 else np.ones(len(rows), np.float32)
        objects = Instances.from_boxes(as_boxes(rows[:, :4]), scores, content['det_labels'])
        masks = content.get('det_masks')
        if masks is not None:
            objects = masked(objects, [mask_of(mask, 0, 0) for mask in masks])
        found.append(objects)
    return replace(sequence, detections=tuple(found))


def from_coco_results(
    sequences: list[Sequence], path: Path, image_ids: Mapping[tuple[str, int], int],
) -> list[Sequence]:
    """
    Give sequences the detections of a COCO result file.

    Parameters
    ----------
    sequences : list of Sequence
        Sequences of a data set.
    path : Path
        JSON list of ``image_id``, ``bbox`` (left, top, width, height), ``score``,
        ``category_id``, and perhaps ``segmentation``.
    image_ids : mapping
        Image id of each sequence name and frame index.

    Raises
    ------
    ValueError
        If the file is not such a list.

    """
    try:
        rows = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f'{path} is not JSON ({error}); it may be cut off') from error
    if not isinstance(rows, list) or (rows and 'image_id' not in rows[0]):
        raise ValueError(f'{path} is not a list of detections with image_id, bbox, score and '
                         'category_id')
    per_image = defaultdict(list)
    for row in rows:
        per_image[row['image_id']].append(row)
    changed = []
    for sequence in sequences:
        frames = []
        for index in sequence.frame_indices.tolist():
            own = per_image.get(image_ids.get((sequence.name, index), -1), [])
            objects = Instances.from_boxes(
                xywh_to_xyxy([row['bbox'] for row in own]), [row['score'] for row in own],
                [row['category_id'] for row in own])
            if any(row.get('segmentation') for row in own):
                objects = masked(objects, [
                    mask_of(row.get('segmentation'), sequence.height_px, sequence.width_px)
                    for row in own])
            frames.append(objects)
        changed.append(replace(sequence, detections=tuple(frames)))
    return changed
