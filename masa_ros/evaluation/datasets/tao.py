"""TAO with LVIS categories, and its base and novel classes for open-vocabulary tracking."""

from __future__ import annotations

from pathlib import Path

from masa_ros.evaluation.datasets.coco_video import read_image_style
from masa_ros.evaluation.datasets.files import first_existing, load_json
from masa_ros.evaluation.datasets.sequence import Sequence

SOURCE = 'https://motchallenge.net/tao_download.php (annotations and frames)'
_FOLDERS = {'val': 'validation', 'validation': 'validation', 'train': 'train', 'test': 'test'}


def read(root: Path, split: str = 'val', *, images: bool = True) -> list[Sequence]:
    """
    Read a split: ``annotations/<split>.json`` and the images below ``frames/``.

    Raises
    ------
    FileNotFoundError
        If annotation or images are missing.
    ValueError
        If the annotation is damaged.

    """
    path = annotation_file(root, split)
    frames = first_existing(root, ('frames', 'images'), 'frames', SOURCE) if images else None
    return read_image_style(path, frames, SOURCE)


def annotation_file(root: Path, split: str = 'val') -> Path:
    """Return the annotation file of a split; a file given as the root is taken as it is."""
    if root.is_file():
        return root
    name = _FOLDERS.get(split, split)
    return first_existing(
        root, (f'annotations/{name}_482_classes.json', f'annotations/{name}.json',
               f'annotations/{name}_with_freeform.json', f'annotations/tao_{split}.json',
               f'annotations/tao_{split}_lvis_v1_classes.json',
               f'annotations/tao_{split}_lvis_v05_classes.json'),
        f'annotation of the split {split}', SOURCE)


def base_and_novel(path: Path) -> tuple[list[int], list[int]]:
    """
    Split the categories of an annotation file for open-vocabulary tracking.

    Returns
    -------
    tuple of list
        Ids of the base classes (LVIS frequency ``c`` or ``f``) and of the novel ones (``r``).

    Raises
    ------
    ValueError
        If the file does not state frequencies.

    """
    categories = load_json(path, ('categories',), SOURCE)['categories']
    if not any('frequency' in entry for entry in categories):
        raise ValueError(f'{path} states no LVIS frequency of its categories, which tells base '
                         'from novel; use an annotation with LVIS v1 categories')
    return ([int(entry['id']) for entry in categories if entry.get('frequency') in ('c', 'f')],
            [int(entry['id']) for entry in categories if entry.get('frequency') == 'r'])
