"""
Average precision and recall: of whole tracks (Track mAP, YouTube-VIS AP) and of single images.

Tracks are scored by `trackeval`, images by `pycocotools`; this module only brings our structures
into their form.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence as SequenceOf
from contextlib import redirect_stdout
from dataclasses import replace
import io
from typing import Any

from masa_ros.evaluation.datasets.sequence import Sequence
from masa_ros.structures.instances import TrackedInstances
from masa_ros.structures.masks import RoiMask
import numpy as np


def score_tracks(
    sequences: SequenceOf[Sequence], tracks: SequenceOf[SequenceOf[TrackedInstances]], *,
    use_masks: bool = False, class_agnostic: bool = False, max_tracks: int = 0,
) -> dict[str, float]:
    """
    Mean average precision of whole tracks by their spatio-temporal overlap.

    Parameters
    ----------
    sequences : sequence of Sequence
        With their truth. Classes that are not exhaustively annotated in a sequence do not count
        against it; predictions of classes that were not checked there are left out (TAO).
    tracks : sequence
        For each sequence one `TrackedInstances` per frame.
    use_masks : bool
        Overlap of masks (YouTube-VIS, UVO) instead of boxes (TAO Track mAP).
    class_agnostic : bool
        Whether all objects are of one class (UVO).
    max_tracks : int
        Tracks of a class that count in a sequence, those of the highest mean score; 0 for all.

    Returns
    -------
    dict
        ``AP`` (mean over IoU 0.5 to 0.95), ``AP50``, ``AP75``, ``AR`` (with `max_tracks` of 100:
        ``AR100``) over the classes with truth; -1 where there is none.

    Raises
    ------
    ValueError
        If the number of sequences or frames differs, or truth is missing.

    """
    from trackeval.metrics import TrackMAP
    metric = TrackMAP({'USE_TIME_RANGES': False, 'USE_AREA_RANGES': False, 'PRINT_CONFIG': False,
                       'MAX_DETECTIONS': 0})
    results: dict[int, dict[str, Any]] = defaultdict(dict)
    recall_name = f'AR{max_tracks or ""}'
    if class_agnostic:
        sequences = [replace(sequence, truth=tuple(map(_of_one_class, sequence.truth)),
                             not_exhaustive=frozenset(), absent=frozenset())
                     for sequence in sequences]
        tracks = [[_of_one_class(frame) for frame in frames] for frames in tracks]
    classes = sorted({int(class_id) for sequence in sequences for frame in sequence.truth
                      for class_id in frame.class_ids})
    for number, (sequence, frames) in enumerate(zip(sequences, tracks, strict=True)):
        if len(sequence.truth) != len(frames):
            raise ValueError(f'sequence {sequence.name} has truth for {len(sequence.truth)} '
                             f'frames and results for {len(frames)}, expected both for each')
        true = _tracks(sequence, sequence.truth, use_masks)
        found = _tracks(sequence, frames, use_masks)
        present = {track.class_id for track in true}
        for class_id in classes:
            if (sequence.absent or sequence.not_exhaustive) and class_id not in (
                    present | sequence.absent | sequence.not_exhaustive):
                continue
            data = _class_data(class_id, true, found, use_masks, max_tracks)
            data['not_exhaustively_labeled'] = class_id in sequence.not_exhaustive
            results[class_id][str(number)] = metric.eval_sequence(data)
    tables = [metric.combine_sequences(results[class_id]) for class_id in classes]
    if not tables:
        return dict.fromkeys(('AP', 'AP50', 'AP75', recall_name), -1.0)
    precision = _class_mean([table['AP_all'] for table in tables])
    recall = _class_mean([table['AR_all'] for table in tables])
    return {'AP': float(np.mean(precision)), 'AP50': float(precision[0]),
            'AP75': float(precision[5]), recall_name: float(np.mean(recall))}


def _class_mean(rows: list[Any]) -> Any:
    values = np.array(rows, float)
    present = values[(values > -1).all(axis=1)]
    return present.mean(axis=0) if len(present) else np.full(values.shape[1], -1.0)


def _of_one_class(frame: TrackedInstances) -> TrackedInstances:
    return frame.with_fields(class_ids=np.zeros(len(frame), np.int64))


class _Track:
    """One track over the annotated frames of a sequence."""

    def __init__(self) -> None:
        self.shapes: dict[int, Any] = {}
        self.scores: list[float] = []
        self.classes: Counter[int] = Counter()

    @property
    def class_id(self) -> int:
        """Class of most boxes, the smallest number where two are as frequent."""
        return min(self.classes, key=lambda value: (-self.classes[value], value))


def _tracks(
    sequence: Sequence, frames: SequenceOf[TrackedInstances], use_masks: bool,
) -> list[_Track]:
    tracks: dict[int, _Track] = defaultdict(_Track)
    for position in np.flatnonzero(sequence.annotated):
        frame = frames[int(position)]
        frame = frame.select(frame.seen)
        for row, track_id in enumerate(frame.track_ids.tolist()):
            track = tracks[track_id]
            if use_masks:
                shape = _encoded(frame.masks[row], sequence.height_px, sequence.width_px)
            else:
                x0, y0, x1, y1 = (float(value) for value in frame.boxes[row])
                shape = np.array([x0, y0, x1 - x0, y1 - y0])
            if shape is not None:
                track.shapes[int(position)] = shape
            track.scores.append(float(frame.scores[row]))
            track.classes[int(frame.class_ids[row])] += 1
    return [tracks[track_id] for track_id in sorted(tracks)]


def _class_data(
    class_id: int, true: list[_Track], found: list[_Track], use_masks: bool, max_tracks: int,
) -> dict[str, Any]:
    own = [track for track in true if track.class_id == class_id]
    guesses = sorted((track for track in found if track.class_id == class_id),
                     key=lambda track: -float(np.mean(track.scores)))[:max_tracks or None]
    # The library takes id 0 for "no match", so ids start from 1.
    return {
        'gt_tracks': [track.shapes for track in own],
        'gt_track_ids': list(range(1, len(own) + 1)),
        'gt_track_iscrowd': [0] * len(own),
        'dt_tracks': [track.shapes for track in guesses],
        'dt_track_ids': list(range(1, len(guesses) + 1)),
        'dt_track_scores': np.array([np.mean(track.scores) for track in guesses]),
        'iou_type': 'mask' if use_masks else 'bbox', 'boxformat': 'xywh'}


def _encoded(mask: RoiMask | None, height_px: int, width_px: int) -> Any:
    from pycocotools import mask as coco_mask
    if mask is None or not mask.area:
        return None
    plane = mask.paste(height_px, width_px)
    return coco_mask.encode(np.asfortranarray(plane.astype(np.uint8)))


def score_images(
    sequences: SequenceOf[Sequence], frames: SequenceOf[SequenceOf[TrackedInstances]], *,
    use_masks: bool = False, class_agnostic: bool = True,
) -> dict[str, float]:
    """
    Average precision and recall of single images, as UVO's AR100.

    Parameters
    ----------
    sequences, frames : sequence
        As for `score_tracks`; identities do not matter.
    use_masks : bool
        Overlap of masks instead of boxes.
    class_agnostic : bool
        Whether classes are ignored.

    Returns
    -------
    dict
        ``AP``, ``AP50``, ``AP75``, ``AR1``, ``AR10``, ``AR100``; -1 without truth.

    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval
    images: list[dict[str, Any]] = []
    truth: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for sequence, own in zip(sequences, frames, strict=True):
        if len(sequence.truth) != len(own):
            raise ValueError(f'sequence {sequence.name} has truth for {len(sequence.truth)} '
                             f'frames and results for {len(own)}, expected both for each')
        for position in np.flatnonzero(sequence.annotated):
            image_id = len(images) + 1
            size = (sequence.height_px, sequence.width_px)
            images.append({'id': image_id, 'height': size[0], 'width': size[1]})
            truth += _annotations(sequence.truth[int(position)], image_id, size, use_masks,
                                  class_agnostic, len(truth))
            frame = own[int(position)]
            found += _annotations(frame.select(frame.seen), image_id, size, use_masks,
                                  class_agnostic, len(found))
    names = ('AP', 'AP50', 'AP75', 'AR1', 'AR10', 'AR100')
    if not truth:
        return dict.fromkeys(names, -1.0)
    if not found:
        return dict.fromkeys(names, 0.0)
    categories = [{'id': value} for value in sorted({row['category_id'] for row in truth})]
    with redirect_stdout(io.StringIO()):  # The library talks to the terminal.
        coco = COCO()
        coco.dataset = {'info': {}, 'images': images, 'annotations': truth,
                        'categories': categories}
        coco.createIndex()
        results = coco.loadRes(found)
        evaluation = COCOeval(coco, results, 'segm' if use_masks else 'bbox')
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    values = evaluation.stats
    return dict(zip(names, (float(values[i]) for i in (0, 1, 2, 6, 7, 8)), strict=True))


def _annotations(
    objects: TrackedInstances, image_id: int, size: tuple[int, int], use_masks: bool,
    class_agnostic: bool, start: int,
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for row in range(len(objects)):
        x0, y0, x1, y1 = (float(value) for value in objects.boxes[row])
        entry: dict[str, Any] = {
            'id': start + len(rows) + 1, 'image_id': image_id, 'iscrowd': 0,
            'category_id': 1 if class_agnostic else int(objects.class_ids[row]),
            'score': float(objects.scores[row])}
        if use_masks:
            encoded = _encoded(objects.masks[row], *size)
            mask = objects.masks[row]
            if encoded is None or mask is None:
                continue
            entry.update(segmentation=encoded, area=float(mask.area))
        else:
            entry.update(bbox=[x0, y0, x1 - x0, y1 - y0], area=(x1 - x0) * (y1 - y0))
        rows.append(entry)
    return rows
