"""MOTChallenge folders: MOT15, MOT16, MOT17, MOT20 and everything laid out like them."""

from __future__ import annotations

from configparser import ConfigParser
from configparser import Error as ConfigError
from dataclasses import dataclass
from pathlib import Path

import cv2
from masa_ros.evaluation.datasets.sequence import regular_stamps_ns, Sequence, with_ids
from masa_ros.structures.boxes import as_boxes
from masa_ros.structures.instances import Instances, TrackedInstances
import numpy as np
from numpy.typing import NDArray

SOURCE = 'https://motchallenge.net/data'
PERSON = 1
# Classes whose matched boxes the benchmark removes: person on a vehicle, static person,
# distractor, reflection.
DISTRACTOR_CLASSES = (2, 7, 8, 12)

LEAST_SCORE = 0.25
"""What the weakest of published detections is worth whose scores have no scale."""


@dataclass(frozen=True)
class MotRows:
    """
    Rows of a MOT text file as columns.

    Parameters
    ----------
    frames : ndarray
        ``(R,)`` frame numbers, from 1.
    ids : ndarray
        ``(R,)``; -1 for detections.
    boxes : ndarray
        ``(R, 4)`` float32 xyxy, continuous edges.
    confidences : ndarray
        ``(R,)`` float32: a score, or the "count it" mark of a ground truth.
    class_ids : ndarray
        ``(R,)`` int64; 1 (person) where the file has no class (MOT15).
    visibilities : ndarray
        ``(R,)`` float32 in ``[0, 1]``; 1 where unknown.

    """

    frames: NDArray[np.int64]
    ids: NDArray[np.int64]
    boxes: NDArray[np.float32]
    confidences: NDArray[np.float32]
    class_ids: NDArray[np.int64]
    visibilities: NDArray[np.float32]


def read_rows(path: Path) -> MotRows:
    """
    Read a MOT text file: frame, id, left, top, width, height, confidence, class, visibility.

    Files of MOT15 have world coordinates in the last three columns; they are told by their ten
    columns and read as persons.

    Raises
    ------
    FileNotFoundError
        If the file is missing.
    ValueError
        If a row does not have at least six numbers; the message gives file and line.

    """
    if not path.is_file():
        raise FileNotFoundError(f'{path} is missing; MOTChallenge data comes from {SOURCE}')
    rows = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        text = line.strip()
        if not text or text.startswith('#'):
            continue
        try:
            values = [float(part) for part in text.replace(',', ' ').split()]
        except ValueError:
            values = []
        if len(values) < 6 or not np.isfinite(values).all():
            raise ValueError(f'{path}, line {number}: {text[:60]!r}, expected at least six finite '
                             'numbers: frame, id, left, top, width, height')
        world = len(values) >= 10
        rows.append([*values[:6], values[6] if len(values) > 6 else 1.0,
                     values[7] if len(values) > 7 and not world else PERSON,
                     values[8] if len(values) > 8 and not world else 1.0])
    table = np.array(rows, np.float64).reshape(-1, 9)
    boxes = table[:, 2:6].copy()
    boxes[:, :2] -= 1  # The files count pixels from 1.
    boxes[:, 2:] += boxes[:, :2]
    return MotRows(table[:, 0].astype(np.int64), table[:, 1].astype(np.int64),
                   boxes.astype(np.float32), table[:, 6].astype(np.float32),
                   table[:, 7].astype(np.int64), table[:, 8].astype(np.float32))


def read_sequence(folder: Path) -> Sequence:
    """
    Read one sequence folder: ``seqinfo.ini``, ``img1/``, ``gt/gt.txt``, ``det/det.txt``.

    Images, truth and detections may each be missing. Boxes with mark 0 are left out, those of
    distractor classes become `Sequence.distractors`, as in the benchmark. The lines of
    ``gt/ignore.txt`` (first frame, last frame, left, top, width, height), where there is one,
    become ignored regions.
    Detection scores outside ``[0, 1]`` are brought there by rank, because published ones have no
    fixed scale.

    Raises
    ------
    FileNotFoundError
        If the folder has neither images nor truth nor detections.
    ValueError
        If a file is damaged or the truth uses an id twice in a frame.

    """
    if not folder.is_dir():
        raise FileNotFoundError(f'{folder} is not a folder; MOTChallenge data comes from {SOURCE}')
    info = _read_info(folder)
    images = _images(folder, info)
    truth_path, detection_path = folder / 'gt' / 'gt.txt', folder / 'det' / 'det.txt'
    truth = read_rows(truth_path) if truth_path.is_file() else None
    given = read_rows(detection_path) if detection_path.is_file() else None
    if not images and truth is None and given is None:
        raise FileNotFoundError(
            f'{folder} holds no {info.get("imDir", "img1")}/ images, no gt/gt.txt and no '
            f'det/det.txt; expected a sequence of MOTChallenge ({SOURCE})')
    count = max([int(info.get('seqLength', 0)), len(images)]
                + [int(rows.frames.max(initial=0)) for rows in (truth, given)
                   if rows is not None])
    if images and len(images) < count:
        raise FileNotFoundError(
            f'{folder} has {len(images)} images but {count} frames are expected; download '
            f'{folder.name} again from {SOURCE}')
    indices = np.arange(count, dtype=np.int64)
    rate_hz = float(info.get('frameRate', 30))
    height, width = _size(info, images)
    return Sequence(
        folder.name, indices, regular_stamps_ns(indices, rate_hz), rate_hz, images, height, width,
        truth=() if truth is None else tuple(
            _truth_of(truth, frame, truth_path) for frame in range(1, count + 1)),
        ignored=_ignored(folder, count),
        distractors=() if truth is None else _distractors(truth, count),
        detections=() if given is None else _detections(given, count))


def read(root: Path, split: str = '', *, images: bool = True) -> list[Sequence]:
    """
    Read a folder of sequences, or one sequence.

    Parameters
    ----------
    root : Path
        Folder of a data set, of a split, or of one sequence.
    split : str
        Folder below the root, such as ``train``; none when empty.
    images : bool
        Whether the images must be there.

    Raises
    ------
    FileNotFoundError
        If there is no sequence, or one without the images that are needed.

    """
    root = root / split if split else root
    if _is_sequence(root):
        folders = [root]
    else:
        folders = sorted(path for path in root.iterdir() if _is_sequence(path)) \
            if root.is_dir() else []
    if not folders:
        raise FileNotFoundError(
            f'{root} holds no MOTChallenge sequence (a folder with seqinfo.ini, gt/gt.txt or '
            f'det/det.txt); get one from {SOURCE} and give its train or test folder')
    sequences = [read_sequence(path) for path in folders]
    bare = [sequence.name for sequence in sequences if not sequence.image_paths]
    if images and bare:
        raise FileNotFoundError(f'{", ".join(bare)}: no images in img1/; get them from {SOURCE}')
    return sequences


def _is_sequence(path: Path) -> bool:
    return any((path / name).is_file() for name in ('seqinfo.ini', 'gt/gt.txt', 'det/det.txt'))


def _read_info(folder: Path) -> dict[str, str]:
    path = folder / 'seqinfo.ini'
    if not path.is_file():
        return {}
    parser = ConfigParser()
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        parser.read_string(path.read_text())
        return dict(parser['Sequence'])
    except (ConfigError, KeyError) as error:
        raise ValueError(f'{path} is damaged ({error}), expected a [Sequence] section with '
                         'frameRate, seqLength, imWidth and imHeight') from error


def _images(folder: Path, info: dict[str, str]) -> tuple[Path, ...]:
    images = folder / info.get('imDir', 'img1')
    if not images.is_dir():
        return ()
    return tuple(sorted(path for path in images.iterdir()
                        if path.suffix.lower() in ('.jpg', '.jpeg', '.png', '.bmp')))


def _size(info: dict[str, str], images: tuple[Path, ...]) -> tuple[int, int]:
    if 'imHeight' in info and 'imWidth' in info:
        return int(info['imHeight']), int(info['imWidth'])
    image = cv2.imread(str(images[0])) if images else None
    return (0, 0) if image is None else (int(image.shape[0]), int(image.shape[1]))


def _truth_of(rows: MotRows, frame: int, path: Path) -> TrackedInstances:
    chosen = (rows.frames == frame) & (rows.confidences != 0) & ~np.isin(
        rows.class_ids, DISTRACTOR_CLASSES)
    ids = rows.ids[chosen]
    values, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        raise ValueError(f'{path}: id {values[counts > 1][0]} is there twice in frame {frame}, '
                         'expected an id at most once per frame')
    classes = rows.class_ids[chosen]
    return with_ids(Instances.from_boxes(rows.boxes[chosen], class_ids=classes), ids)


def _ignored(folder: Path, count: int) -> tuple[NDArray[np.float32], ...]:
    path = folder / 'gt' / 'ignore.txt'
    if not path.is_file():
        return ()
    regions: list[list[list[float]]] = [[] for _ in range(count)]
    for line in path.read_text().splitlines():
        if not line.strip() or line.startswith('#'):
            continue
        first, last, left, top, width, height = (float(part) for part in line.split(','))
        for frame in range(int(first), min(int(last), count) + 1):
            regions[frame - 1].append([left - 1, top - 1, left - 1 + width, top - 1 + height])
    return tuple(as_boxes(boxes) for boxes in regions)


def _distractors(truth: MotRows, count: int) -> tuple[NDArray[np.float32], ...]:
    chosen = np.isin(truth.class_ids, DISTRACTOR_CLASSES)
    if not chosen.any():
        return ()
    return tuple(truth.boxes[chosen & (truth.frames == frame)]
                 for frame in range(1, count + 1))


def _detections(rows: MotRows, count: int) -> tuple[Instances, ...]:
    scores = unit_scores(rows.confidences)
    per_frame = []
    for frame in range(1, count + 1):
        chosen = rows.frames == frame
        per_frame.append(Instances.from_boxes(
            rows.boxes[chosen], scores[chosen], rows.class_ids[chosen]))
    return tuple(per_frame)


def unit_scores(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """
    Bring scores to ``[0, 1]``; those already there stay as they are, others become ranks.

    The best of ``R`` detections gets 1, the worst little more than `LEAST_SCORE`, since whoever
    published them left out what he did not believe in; equal scores get equal ranks.
    """
    if not len(scores) or (scores.min() >= 0 and scores.max() <= 1):
        return scores
    _, at = np.unique(scores, return_inverse=True)
    counts = np.bincount(at)
    ranks = np.cumsum(counts)[at] / len(scores)
    return np.asarray(LEAST_SCORE + (1 - LEAST_SCORE) * ranks, np.float32)
