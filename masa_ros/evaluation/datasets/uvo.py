"""UVO: everything in sight, without classes; single images and videos."""

from __future__ import annotations

from pathlib import Path

from masa_ros.evaluation.datasets.coco_video import read_video_style
from masa_ros.evaluation.datasets.files import first_existing
from masa_ros.evaluation.datasets.sequence import Sequence

SOURCE = 'https://sites.google.com/view/unidentified-video-object/dataset'
RATE_HZ = 30.0


def read(root: Path, split: str = 'val', *, images: bool = True) -> list[Sequence]:
    """
    Read the dense video set of a split.

    Raises
    ------
    FileNotFoundError
        If annotation or images are missing.
    ValueError
        If the annotation is damaged.

    """
    path = root if root.is_file() else first_existing(
        root, tuple(f'{folder}UVO_video_{split}_dense{suffix}.json'
                    for folder in ('VideoDenseSet/', 'annotations/', '')
                    for suffix in ('', '_with_label')),
        f'annotation UVO_video_{split}_dense.json', SOURCE)
    folder = first_existing(
        root, ('uvo_videos_dense_frames', 'uvo_videos_frames', 'frames'),
        'frames (make them with the script of the data set)', SOURCE) if images else None
    return read_video_style(path, folder, SOURCE, RATE_HZ)
