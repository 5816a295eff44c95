"""YouTube-VIS 2019 and 2021."""

from __future__ import annotations

from pathlib import Path

from masa_ros.evaluation.datasets.coco_video import read_video_style
from masa_ros.evaluation.datasets.files import first_existing
from masa_ros.evaluation.datasets.sequence import Sequence

SOURCE = 'https://youtube-vos.org/dataset/vis'
RATE_HZ = 6.0
"""Every fifth frame of 30 Hz is annotated and published."""


def read(root: Path, split: str = 'valid', *, images: bool = True) -> list[Sequence]:
    """
    Read a split; the published validation and test splits have no truth.

    Raises
    ------
    FileNotFoundError
        If annotation or images are missing.
    ValueError
        If the annotation is damaged.

    """
    path = root if root.is_file() else first_existing(
        root, (f'{split}.json', f'annotations/{split}.json', f'{split}/instances.json',
               f'annotations/instances_{split}.json', f'annotations/instances_{split}_sub.json'),
        f'annotation of the split {split}', SOURCE)
    folder = first_existing(
        root, (f'{split}/JPEGImages', f'JPEGImages/{split}', 'JPEGImages'),
        f'images of the split {split}', SOURCE) if images else None
    return read_video_style(path, folder, SOURCE, RATE_HZ)
