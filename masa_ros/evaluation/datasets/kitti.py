"""KITTI tracking (boxes) and KITTI MOTS (run lengths)."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

from masa_ros.evaluation.datasets.files import (
    check_unique,
    first_existing,
    image_size,
    images_in,
    mask_of,
    objects,
)
from masa_ros.evaluation.datasets.sequence import regular_stamps_ns, Sequence
from masa_ros.structures.boxes import as_boxes
import numpy as np

SOURCE = 'https://www.cvlibs.net/datasets/kitti/eval_tracking.php'
MOTS_SOURCE = 'https://www.vision.rwth-aachen.de/page/mots'
RATE_HZ = 10.0
CLASSES = {1: 'Car', 2: 'Pedestrian', 3: 'Van', 4: 'Cyclist', 5: 'Truck', 6: 'Tram', 7: 'Misc',
           8: 'Person'}
_NUMBERS = {name: number for number, name in CLASSES.items()} | {'Person_sitting': 8}
_IGNORE = 10
"""Class of the ignored regions of MOTS."""
Row = tuple[int, int, tuple[float, ...], Any, bool]
"""Id, class (0 is ignored), box, mask, whether it is too far cut off or covered to be asked."""
BENCHMARK = (1, 2)
"""Classes that the benchmark scores."""
ALIKE = {1: (3,), 2: (8,)}
"""A van is neither a right nor a wrong car, a sitting person the same for pedestrians."""
MOST_TRUNCATION, MOST_OCCLUSION, LEAST_HEIGHT_PX = 0, 2, 25.0
"""Limits of the benchmark; see `read`."""


def read(root: Path, split: str = 'training', *, images: bool = True) -> list[Sequence]:
    """
    Read a split of KITTI tracking: ``label_02/*.txt`` and ``image_02/<sequence>/``.

    As in the benchmark, ``DontCare`` boxes become ignored regions, truncated objects and those
    whose occlusion is unknown are neither found nor missed, and what is reported up to 25 pixels
    high and matches nothing is not false.

    Raises
    ------
    FileNotFoundError
        If labels or images are missing.
    ValueError
        If a line is damaged or an id is used twice in a frame.

    """
    base = root / split if (root / split).is_dir() else root
    labels = first_existing(base, ('label_02',), 'label_02/*.txt', SOURCE)
    return [replace(_sequence(path, base, images, _box_rows(path), SOURCE), alike=ALIKE,
                    least_height_px=LEAST_HEIGHT_PX)
            for path in _text_files(labels, SOURCE)]


def read_mots(root: Path, split: str = 'training', *, images: bool = True) -> list[Sequence]:
    """Read KITTI MOTS: ``instances_txt/*.txt`` or ``instances/*.txt``; see `read`."""
    base = root / split if (root / split).is_dir() else root
    labels = first_existing(base, ('instances_txt', 'instances'), 'instances_txt/*.txt',
                            MOTS_SOURCE)
    return [_sequence(path, base, images, _mask_rows(path), MOTS_SOURCE)
            for path in _text_files(labels, MOTS_SOURCE)]


def _text_files(folder: Path, source: str) -> list[Path]:
    files = sorted(folder.glob('*.txt'))
    if not files:
        raise FileNotFoundError(f'{folder} holds no text files; get them from {source}')
    return files


def _box_rows(path: Path) -> dict[int, list[Row]]:
    rows: dict[int, list[Row]] = defaultdict(list)
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        parts = line.split()
        if not parts:
            continue
        try:
            frame, track_id = int(parts[0]), int(parts[1])
            hard = float(parts[3]) > MOST_TRUNCATION or float(parts[4]) > MOST_OCCLUSION
            box = tuple(float(value) for value in parts[6:10])
        except (ValueError, IndexError):
            box = ()
        if len(box) != 4:
            raise ValueError(f'{path}, line {number}: {line[:60]!r}, expected frame, id, class, '
                             'truncation, occlusion, angle and four box edges')
        rows[frame].append((track_id, _NUMBERS.get(parts[2], 0), box, None, hard))
    return rows


def _mask_rows(path: Path) -> dict[int, list[Row]]:
    rows: dict[int, list[Row]] = defaultdict(list)
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        parts = line.split()
        if not parts:
            continue
        if len(parts) != 6:
            raise ValueError(f'{path}, line {number}: {line[:60]!r}, expected frame, id, class, '
                             'height, width and run lengths')
        frame, track_id, class_id, height, width = (int(part) for part in parts[:5])
        mask = mask_of({'size': [height, width], 'counts': parts[5]}, height, width)
        if mask is None or not mask.area:
            continue
        box = (mask.x_offset, mask.y_offset, mask.x_offset + mask.width,
               mask.y_offset + mask.height)
        rows[frame].append((track_id, 0 if class_id == _IGNORE else class_id, box, mask, False))
    return rows


def _sequence(
    path: Path, base: Path, images: bool, rows: dict[int, list[Row]], source: str,
) -> Sequence:
    paths: tuple[Path, ...] = ()
    if images:
        folder = first_existing(base, (f'image_02/{path.stem}', f'images/{path.stem}'),
                                f'images of sequence {path.stem}', source)
        paths = images_in(folder)
    count = max(len(paths), max(rows, default=-1) + 1)
    if paths and len(paths) < count:
        raise FileNotFoundError(f'{folder} has {len(paths)} images but the labels go to frame '
                                f'{count - 1}; get them from {source}')
    truth, hard, ignored, ignored_masks = [], [], [], []
    for frame in range(count):
        own = [row for row in rows.get(frame, ()) if row[1]]
        check_unique([row[0] for row in own], f'{path}, frame {frame}')
        has_masks = any(row[3] is not None for row in own)
        truth.append(objects([row[2] for row in own], [row[0] for row in own],
                             [row[1] for row in own], CLASSES,
                             [row[3] for row in own] if has_masks else None))
        hard.append(np.array([row[4] for row in own], bool))
        regions = [row for row in rows.get(frame, ()) if not row[1]]
        ignored.append(as_boxes([row[2] for row in regions]))
        ignored_masks.append(tuple(row[3] for row in regions if row[3] is not None))
    indices = np.arange(count, dtype=np.int64)
    height, width = image_size(paths[0]) if paths else (0, 0)
    return Sequence(path.stem, indices, regular_stamps_ns(indices, RATE_HZ), RATE_HZ, paths,
                    height, width, tuple(truth),
                    tuple(ignored) if any(len(boxes) for boxes in ignored) else (),
                    hard=tuple(hard) if any(flags.any() for flags in hard) else (),
                    ignored_masks=tuple(ignored_masks) if any(ignored_masks) else ())
