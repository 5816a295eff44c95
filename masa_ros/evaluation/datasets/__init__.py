"""Readers of published data sets, one file each, all giving `Sequence` objects."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from masa_ros.evaluation.datasets.sequence import Sequence

# Name: (module, function, split). Modules are imported when asked for.
DATASETS: dict[str, tuple[str, str, str]] = {
    'tao': ('tao', 'read', 'val'),
    'bdd_mot': ('bdd100k', 'read', 'val'),
    'bdd_mots': ('bdd100k', 'read_mots', 'val'),
    'uvo': ('uvo', 'read', 'val'),
    'youtube_vis': ('youtube_vis', 'read', 'valid'),
    'davis': ('davis', 'read', 'val'),
    'kitti': ('kitti', 'read', 'training'),
    'kitti_mots': ('kitti', 'read_mots', 'training'),
    'motchallenge': ('motchallenge', 'read', ''),
}


def read_dataset(name: str, root: Path, split: str = '', *, images: bool = True) -> list[Sequence]:
    """
    Read a data set.

    Parameters
    ----------
    name : str
        One of `DATASETS`.
    root : Path
        Its folder as published, or for those in one file that file.
    split : str
        Part of it; the usual one for evaluation when empty.
    images : bool
        Whether the images must be there. Scoring saved results needs none.

    Raises
    ------
    ValueError
        If the name is unknown or a file is damaged.
    FileNotFoundError
        If something is missing; the message says what and where to get it.

    """
    if name not in DATASETS:
        raise ValueError(f'unknown data set {name!r}; known ones are {", ".join(DATASETS)}')
    module, function, usual = DATASETS[name]
    reader = getattr(import_module(f'masa_ros.evaluation.datasets.{module}'), function)
    sequences: list[Sequence] = reader(Path(root), split or usual, images=images)
    return sequences
