"""DAVIS 2016 and 2017: palette PNGs, one value per object."""

from __future__ import annotations

from pathlib import Path

from masa_ros.evaluation.datasets.files import (
    first_existing,
    image_size,
    images_in,
    label_masks,
    objects,
    read_label_image,
)
from masa_ros.evaluation.datasets.sequence import regular_stamps_ns, Sequence
import numpy as np

SOURCE = 'https://davischallenge.org/davis2017/code.html'
RATE_HZ = 24.0
VOID = 255


def read(root: Path, split: str = 'val', *, images: bool = True) -> list[Sequence]:
    """
    Read a split: ``ImageSets/2017/<split>.txt``, ``JPEGImages/480p``, ``Annotations/480p``.

    Without ``ImageSets`` every folder of annotations is read.

    Raises
    ------
    FileNotFoundError
        If something is missing or a video has fewer masks than images.

    """
    masks = first_existing(root, ('Annotations/480p', 'Annotations/Full-Resolution',
                                  'Annotations'), 'Annotations', SOURCE)
    names = [root / 'ImageSets' / year / f'{split}.txt' for year in ('2017', '2016')]
    lists = [path for path in names if path.is_file()]
    videos = (sorted({line.split('/')[3] if '/' in line else line.strip()
                      for line in lists[0].read_text().splitlines() if line.strip()})
              if lists else sorted(path.name for path in masks.iterdir() if path.is_dir()))
    pictures = first_existing(root, (f'JPEGImages/{masks.name}', 'JPEGImages'), 'JPEGImages',
                              SOURCE) if images else None
    return [read_video(masks / video, None if pictures is None else pictures / video)
            for video in videos]


def read_video(masks: Path, images: Path | None, name: str = '') -> Sequence:
    """
    Read one video from a folder of mask PNGs and, optionally, one of images.

    Raises
    ------
    FileNotFoundError
        If there are no masks, or not one for every image.

    """
    if not masks.is_dir() or not images_in(masks):
        raise FileNotFoundError(f'{masks} holds no mask PNGs; get them from {SOURCE}')
    files = images_in(masks)
    paths = images_in(images) if images is not None and images.is_dir() else ()
    if images is not None and len(paths) != len(files):
        raise FileNotFoundError(f'{images} has {len(paths)} images for {len(files)} masks; get '
                                f'both from {SOURCE}')
    truth = []
    for path in files:
        labels = read_label_image(path, SOURCE)
        labels = labels if labels.ndim == 2 else labels[..., 0]
        # The first edition has one object with the value 255, the second none with it.
        if labels.max(initial=0) == VOID and len(np.unique(labels)) <= 2:
            labels = (labels > 0).astype(np.uint8)
        values, planes = label_masks(np.where(labels == VOID, 0, labels))
        truth.append(objects([(0, 0, 0, 0)] * len(values), values, [1] * len(values),
                             {1: 'object'}, planes))
    indices = np.arange(len(files), dtype=np.int64)
    return Sequence(name or masks.name, indices, regular_stamps_ns(indices, RATE_HZ), RATE_HZ,
                    paths, *image_size(files[0]), tuple(truth))
