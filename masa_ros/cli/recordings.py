"""Bags, videos and folders as sequences with ground truth, for ``masa_ros evaluate``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
import hashlib
import json
from pathlib import Path
import sys
from typing import Any, NamedTuple

import cv2
from masa_ros.cli.inputs import open_input
from masa_ros.cli.outputs import file_name
from masa_ros.evaluation.datasets.files import (
    check_unique,
    load_json,
    mask_of,
    objects,
    xywh_to_xyxy,
)
from masa_ros.evaluation.datasets.motchallenge import read_rows
from masa_ros.evaluation.datasets.sequence import Sequence, with_ids
from masa_ros.ros.bag import BagReader, is_bag
from masa_ros.ros.bag_definitions import TRACKS
from masa_ros.ros.convert import (
    detection_ids,
    detections_to_instances,
    LabelTable,
    message_to_tracks,
    stamp_to_ns,
)
from masa_ros.ros.parameters import NodeConfig
from masa_ros.structures.frame import CameraView
from masa_ros.structures.instances import Instances, TrackedInstances
import numpy as np
from numpy.typing import NDArray

TOLERANCE_S = 0.02


@dataclass(frozen=True)
class Truth:
    """
    Objects with ids, by the stamp or by the index of their frame.

    Parameters
    ----------
    name : str
        Where they come from, for errors.
    by_stamp : mapping
        Stamp in nanoseconds to objects; empty when they go by index.
    by_index : mapping
        Frame index, from 0, to objects.

    """

    name: str
    by_stamp: Mapping[int, TrackedInstances] = field(default_factory=dict)
    by_index: Mapping[int, TrackedInstances] = field(default_factory=dict)


class _Row(NamedTuple):
    """A frame of a recording whose image is in the cache."""

    frame_index: int
    stamp_ns: int
    image: Path
    detections: Instances | None
    view: CameraView | None


def read_recording(
    path: Path, config: NodeConfig, cache: Path, *, topics: tuple[str, ...] = (),
    detections: str = '', fps: float | None = None, camera_motion: str = 'none',
) -> list[Sequence]:
    """
    Read a recording once and keep its images as files in the cache.

    Parameters
    ----------
    path : Path
        Bag, video, image or image folder.
    config : NodeConfig
        Tolerance, class names and bit depth.
    cache : Path
        Folder for the images.
    topics, detections, fps, camera_motion
        See `masa_ros.cli.inputs.open_input`.

    Returns
    -------
    list of Sequence
        One per stream, and per piece where the clock jumped; without truth.

    """
    parts: dict[str, list[_Row]] = defaultdict(list)
    pieces: dict[str, int] = defaultdict(int)
    folder = cache / 'frames' / _digest(path)
    size: dict[str, tuple[int, int]] = {}
    with closing(open_input(path, config, topics, detections, fps,
                            camera_motion=camera_motion)) as recording:
        for item in recording:
            frame = item.frame
            pieces[frame.stream] += item.restarted and bool(parts)
            name = frame.stream or path.stem
            if pieces[frame.stream]:
                name += f'#{pieces[frame.stream] + 1}'
            image = folder / file_name(name) / f'{frame.frame_index:06d}.png'
            if not image.is_file():
                image.parent.mkdir(parents=True, exist_ok=True)
                # Fast compression: the files are read again soon.
                cv2.imwrite(str(image), frame.image[:, :, ::-1],
                            [cv2.IMWRITE_PNG_COMPRESSION, 1])
            parts[name].append(_Row(frame.frame_index, frame.stamp_ns, image, item.detections,
                                    frame.view))
            size[name] = (frame.height_px, frame.width_px)
        has_detections = recording.has_detections
        for problem in recording.problems():
            print(f'masa_ros: {problem}', file=sys.stderr)
    if not parts:
        raise ValueError(f'no frame of {path} could be used')
    return [_sequence(name, rows, size[name], has_detections) for name, rows in parts.items()]


def _sequence(
    name: str, rows: list[_Row], size: tuple[int, int], has_detections: bool,
) -> Sequence:
    indices = np.array([row.frame_index for row in rows], np.int64)
    stamps = np.array([row.stamp_ns for row in rows], np.int64)
    step_ns = float(np.median(np.diff(stamps))) if len(stamps) > 1 else 1e9 / 30
    return Sequence(
        name, indices, stamps, 1e9 / step_ns, tuple(row.image for row in rows), *size,
        detections=(tuple(row.detections or Instances() for row in rows) if has_detections
                    else ()),
        views=(tuple(row.view for row in rows) if any(row.view is not None for row in rows)
               else ()))


def _digest(path: Path) -> str:
    files = sorted(path.rglob('*')) if path.is_dir() else [path]
    stamps = [(str(file), file.stat().st_size, file.stat().st_mtime_ns)
              for file in files if file.is_file()]
    return hashlib.sha256(json.dumps(stamps).encode()).hexdigest()[:16]


# Truth.

def read_truth(source: str, recording: Path) -> Truth:
    """
    Read objects with ids from a topic of the recording or a file.

    Parameters
    ----------
    source : str
        Topic of ``vision_msgs/Detection2DArray`` with ids or of our ``TrackedObjectArray``; or
        a file: MOT text (goes by frame number) or COCO JSON with tracks (by ``stamp_ns`` where
        it has them, else by ``frame_index``).
    recording : Path
        The bag of the topic.

    Raises
    ------
    FileNotFoundError
        If it is neither a file nor a topic.
    ValueError
        If it cannot be read or has no ids.

    """
    path = Path(source)
    if path.is_file():
        return _coco_truth(path) if path.suffix == '.json' else _mot_truth(path)
    if not is_bag(recording):
        raise FileNotFoundError(f'the ground truth {source} is not a file, and {recording} is no '
                                'bag that could have it as a topic')
    with closing(BagReader(recording)) as reader:
        kinds = {topic.name: topic.type_name for topic in
                 (*reader.detection_topics(), *reader.topics_of(TRACKS))}
        if source not in kinds:
            raise ValueError(f'{recording} has no objects with ids on {source!r}; topics that '
                             f'could have them: {", ".join(sorted(kinds)) or "none"}')
        labels = LabelTable(())
        numbers: dict[str, int] = {}
        table: dict[int, TrackedInstances] = {}
        for _, message in reader.messages([source]):
            stamp_ns = stamp_to_ns(message.header.stamp)
            if kinds[source] == TRACKS:
                found = message_to_tracks(message)
                table[stamp_ns] = found.select(found.seen)
            else:
                ids = detection_ids(message)
                if not all(ids):
                    raise ValueError(f'{recording}: detections on {source} have no ids, so they '
                                     'cannot be a ground truth of identities')
                table[stamp_ns] = with_ids(
                    detections_to_instances(message, labels),
                    [numbers.setdefault(text, len(numbers) + 1) for text in ids])
            check_unique(table[stamp_ns].track_ids.tolist(), f'{source} at {stamp_ns} ns')
    return Truth(source, by_stamp=table)


def _mot_truth(path: Path) -> Truth:
    rows = read_rows(path)
    table = {}
    for frame in np.unique(rows.frames).tolist():
        chosen = (rows.frames == frame) & (rows.confidences != 0)
        check_unique(rows.ids[chosen].tolist(), f'{path}, frame {frame}')
        table[frame - 1] = with_ids(Instances.from_boxes(
            rows.boxes[chosen], class_ids=rows.class_ids[chosen]), rows.ids[chosen])
    return Truth(str(path), by_index=table)


def _coco_truth(path: Path) -> Truth:
    content = load_json(path, ('images', 'annotations', 'categories'), 'the tool that wrote it')
    names = {int(entry['id']): str(entry['name']) for entry in content['categories']}
    rows: dict[Any, list[Any]] = defaultdict(list)
    for entry in content['annotations']:
        if 'track_id' not in entry:
            raise ValueError(f'{path}: annotation {entry.get("id")} has no track_id, so it '
                             'cannot be a ground truth of identities')
        rows[entry['image_id']].append(entry)
    tables: tuple[dict[int, TrackedInstances], dict[int, TrackedInstances]] = ({}, {})
    for position, image in enumerate(content['images']):
        own = rows[image['id']]
        ids = [int(entry['track_id']) for entry in own]
        check_unique(ids, f'{path}, image {image["id"]}')
        masks = [mask_of(entry.get('segmentation'), image['height'], image['width'])
                 for entry in own]
        found = objects(xywh_to_xyxy([entry['bbox'] for entry in own]), ids,
                        [int(entry['category_id']) for entry in own], names,
                        masks if any(mask is not None for mask in masks) else None)
        if 'stamp_ns' in image:
            tables[0][int(image['stamp_ns'])] = found
        else:
            tables[1][int(image.get('frame_index', position))] = found
    return Truth(str(path), *tables)


def with_truth(sequence: Sequence, truth: Truth, tolerance_s: float = TOLERANCE_S) -> Sequence:
    """
    Put truth on the frames of a sequence; frames without any count as not annotated.

    Raises
    ------
    ValueError
        If no frame, or less than half of the truth, finds a partner: then the stamps are shifted
        or it belongs to another recording. The message says by how much.

    """
    found = aligned(sequence, truth, tolerance_s)
    annotated = np.array([frame is not None for frame in found], bool)
    return replace(sequence, annotated=annotated, truth=tuple(
        frame if frame is not None else with_ids(Instances(), []) for frame in found))


def alignment_text(sequence: Sequence, truth: Truth, tolerance_s: float = TOLERANCE_S) -> str:
    """Say how many frames have a truth, how many frames of the truth are used, and how near."""
    used, far_ns = 0, 0
    if truth.by_index:
        indices = set(sequence.frame_indices.tolist())
        used, known = len(indices & truth.by_index.keys()), len(truth.by_index)
    else:
        known, partners = len(truth.by_stamp), set()
        stamps = np.array(sorted(truth.by_stamp), np.int64)
        for stamp_ns in sequence.stamps_ns.tolist():
            partner = _nearest(stamps, stamp_ns, tolerance_s)
            if partner is not None:
                partners.add(partner)
                far_ns = max(far_ns, abs(partner - stamp_ns))
        used = len(partners)
    apart = '' if truth.by_index else f', at most {far_ns * 1e-6:.1f} ms apart'
    return (f'{int(sequence.annotated.sum())} of {len(sequence)} frames of {sequence.name} have a '
            f'truth; {used} of the {known} frames of {truth.name} are used{apart}')


def aligned(
    sequence: Sequence, truth: Truth, tolerance_s: float = TOLERANCE_S,
) -> list[TrackedInstances | None]:
    """Objects of each frame, ``None`` where there are none for it; see `with_truth`."""
    if truth.by_index:
        found = [truth.by_index.get(int(index)) for index in sequence.frame_indices]
        known = len(truth.by_index)
    else:
        stamps = np.array(sorted(truth.by_stamp), np.int64)
        at = [_nearest(stamps, int(stamp), tolerance_s) for stamp in sequence.stamps_ns]
        found = [None if stamp is None else truth.by_stamp[stamp] for stamp in at]
        known = len(stamps)
    matched = sum(frame is not None for frame in found)
    if 2 * matched < min(known, len(sequence)) or not matched:
        raise ValueError(
            f'only {matched} of the {len(sequence)} frames of {sequence.name} find themselves in '
            f'{truth.name}, which covers {known}; {_offset(sequence, truth)}')
    return found


def _nearest(stamps: NDArray[np.int64], stamp_ns: int, tolerance_s: float) -> int | None:
    if not len(stamps):
        return None
    place = int(np.searchsorted(stamps, stamp_ns))
    near = stamps[max(place - 1, 0):place + 1]
    best = int(near[np.argmin(np.abs(near - stamp_ns))])
    return best if abs(best - stamp_ns) <= tolerance_s * 1e9 else None


def _offset(sequence: Sequence, truth: Truth) -> str:
    if truth.by_index or not truth.by_stamp:
        return 'they do not belong together'
    offset_s = (min(truth.by_stamp) - int(sequence.stamps_ns[0])) * 1e-9
    return (f'it begins {offset_s:+.3f} s from the first image, so the stamps are shifted or '
            'they do not belong together (--tolerance says how far apart stamps may be)')
