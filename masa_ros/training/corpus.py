"""
Labelled images in one flat file, decoded once, so that training reads them without cost.

A corpus is a folder of three files: ``images.bin`` (raw RGB bytes, image after image; or JPEG
files, an eighth of the size, where decoding costs little beside the network),
``instances.npz`` (boxes, masks as run lengths, where each belongs) and ``images.json`` (name,
source, size and place of every image). It is a cache: made from images and proposals or labels,
and made again when they change.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
import hashlib
import json
from pathlib import Path

import cv2
from masa_ros.structures.masks import RoiMask
import numpy as np
from numpy.typing import NDArray

JPEG_QUALITY = 95


@dataclass(frozen=True, eq=False)
class LabelledImage:
    """
    An image and the objects or regions known in it; no identities over time.

    Parameters
    ----------
    name : str
        Unique within a corpus, such as a file name.
    source : str
        Data set it comes from; sampling weights go by it.
    image : ndarray
        ``(H, W, 3)`` uint8 RGB.
    boxes : ndarray
        ``(N, 4)`` float32 xyxy in its pixels.
    masks : tuple of RoiMask or None
        ``N`` masks; ``None`` where only the box is known.
    class_ids : ndarray
        ``(N,)`` int64; -1 where there is no class (a region).
    exhaustive : bool
        Whether what is not labelled is background, so that it may be learned as such.
    clip : str
        Recording that the image is a frame of; empty for a photo on its own.
    identities : ndarray or None
        ``(N,)`` int64, equal for an object in all frames of its clip; ``None`` without a clip.

    """

    name: str
    source: str
    image: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    masks: tuple[RoiMask | None, ...]
    class_ids: NDArray[np.int64]
    exhaustive: bool = False
    clip: str = ''
    identities: NDArray[np.int64] | None = None


class Corpus:
    """
    Read access to a corpus folder; images are memory-mapped.

    Raises
    ------
    FileNotFoundError
        If the folder is not a corpus.

    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        index = self.folder / 'images.json'
        if not index.is_file():
            raise FileNotFoundError(
                f'{folder} holds no images.json, so it is not a corpus; make one with '
                'masa_ros train --prepare or masa_ros.training.corpus.write_corpus')
        self.records: list[dict[str, object]] = json.loads(index.read_text())
        with np.load(self.folder / 'instances.npz') as arrays:
            self._boxes = arrays['boxes']
            self._class_ids = arrays['class_ids']
            self._identities = arrays['identities']
            self._first = arrays['first']
            self._regions = arrays['regions']
            self._run_start = arrays['run_start']
            self._runs = arrays['runs']
        self._pixels = np.memmap(self.folder / 'images.bin', np.uint8, 'r')

    def __len__(self) -> int:
        return len(self.records)

    def sources(self) -> list[str]:
        """Source of every image."""
        return [str(record['source']) for record in self.records]

    def digest(self) -> str:
        """Hex digest of names, sizes and labels, to be kept with what was trained on them."""
        sha = hashlib.sha256(json.dumps(self.records, sort_keys=True).encode())
        for array in (self._boxes, self._class_ids, self._identities, self._first, self._runs):
            sha.update(np.ascontiguousarray(array).tobytes())
        return sha.hexdigest()

    def class_ids_of(self, index: int) -> NDArray[np.int64]:
        """Classes of one image's instances, without touching its pixels."""
        return np.asarray(self._class_ids[self._first[index]:self._first[index + 1]])

    def boxes_of(self, index: int) -> NDArray[np.float32]:
        """Boxes of one image's instances, without touching its pixels."""
        return np.asarray(self._boxes[self._first[index]:self._first[index + 1]])

    def identities_of(self, index: int) -> NDArray[np.int64]:
        """Identities of one image's instances within its clip; -1 without a clip."""
        return np.asarray(self._identities[self._first[index]:self._first[index + 1]])

    def clips(self) -> list[str]:
        """Clip of every image."""
        return [str(record['clip']) for record in self.records]

    def has_mask(self, index: int) -> NDArray[np.bool_]:
        """Which instances of one image have a mask."""
        rows = slice(self._first[index], self._first[index + 1])
        return np.asarray(self._regions[rows, 2] > 0)

    def mask(self, index: int, instance: int) -> RoiMask | None:
        """One mask, ``None`` where only the box is known."""
        row = int(self._first[index]) + instance
        x, y, height, width = (int(v) for v in self._regions[row])
        if height == 0:
            return None
        runs = self._runs[self._run_start[row]:self._run_start[row + 1]]
        return RoiMask(x, y, height, width, runs)

    def image(self, index: int) -> NDArray[np.uint8]:
        """Pixels of one image, read-only."""
        record = self.records[index]
        height, width = int(str(record['height'])), int(str(record['width']))
        start = int(str(record['offset']))
        if 'bytes' in record:
            packed = self._pixels[start:start + int(str(record['bytes']))]
            decoded = cv2.imdecode(np.asarray(packed), cv2.IMREAD_COLOR)
            if decoded is None:
                raise ValueError(f'{self.folder}: the image {record["name"]} is damaged; make the '
                                 'corpus again')
            return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)
        return np.asarray(
            self._pixels[start:start + height * width * 3]).reshape(height, width, 3)

    def __getitem__(self, index: int) -> LabelledImage:
        record = self.records[index]
        count = int(self._first[index + 1] - self._first[index])
        return LabelledImage(
            str(record['name']), str(record['source']), self.image(index), self.boxes_of(index),
            tuple(self.mask(index, i) for i in range(count)), self.class_ids_of(index),
            bool(record['exhaustive']), str(record['clip']),
            self.identities_of(index) if record['clip'] else None)


def write_corpus(
    folder: str | Path, images: Iterable[LabelledImage], packed: bool = False,
) -> Corpus:
    """
    Write images one after the other and open the result.

    Parameters
    ----------
    folder : str or Path
        Where it goes.
    images : iterable of LabelledImage
        In any order; names must differ.
    packed : bool
        Store JPEG files instead of pixels.

    Raises
    ------
    ValueError
        If there is no image, or two have the same name.

    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    records: list[dict[str, object]] = []
    boxes, classes, identities, regions, runs = [], [], [], [], []
    first, run_start, offset = [0], [0], 0
    # The index is what makes a folder a corpus, so it goes first and comes back last.
    (folder / 'images.json').unlink(missing_ok=True)
    with (folder / 'images.bin').open('wb') as pixels:
        for item in images:
            height, width = item.image.shape[:2]
            records.append({
                'name': item.name, 'source': item.source, 'height': height, 'width': width,
                'offset': offset, 'exhaustive': item.exhaustive,
                'clip': item.clip})
            content = _jpeg(item.image) if packed else np.ascontiguousarray(item.image).tobytes()
            if packed:
                records[-1]['bytes'] = len(content)
            pixels.write(content)
            offset += len(content)
            boxes.append(item.boxes)
            classes.append(item.class_ids)
            identities.append(np.full(len(item.boxes), -1) if item.identities is None
                              else item.identities)
            first.append(first[-1] + len(item.boxes))
            for mask in item.masks:
                empty = mask is None or mask.area == 0
                regions.append((0, 0, 0, 0) if mask is None or empty else (
                    mask.x_offset, mask.y_offset, mask.height, mask.width))
                if mask is not None and not empty:
                    runs.append(mask.counts)
                run_start.append(run_start[-1] + (
                    0 if mask is None or empty else len(mask.counts)))
    if not records:
        raise ValueError(f'no image to write to {folder}; check the folders of images')
    names = [record['name'] for record in records]
    if len(set(names)) != len(names):
        twice = sorted({str(name) for name in names if names.count(name) > 1})
        raise ValueError(f'images of one corpus share the names {twice[:5]}; names must differ')
    np.savez(
        folder / 'instances.npz',
        boxes=np.concatenate(boxes).astype(np.float32).reshape(-1, 4),
        class_ids=np.concatenate(classes).astype(np.int64),
        identities=np.concatenate(identities).astype(np.int64),
        first=np.array(first, np.int64),
        regions=np.array(regions, np.int32).reshape(-1, 4),
        run_start=np.array(run_start, np.int64),
        runs=np.concatenate(runs).astype(np.uint32) if runs else np.zeros(0, np.uint32))
    (folder / 'images.json').write_text(json.dumps(records))
    return Corpus(folder)


def _jpeg(image: NDArray[np.uint8]) -> bytes:
    """Content of a JPEG file of an RGB image."""
    flags = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    return cv2.imencode('.jpg', cv2.cvtColor(image, cv2.COLOR_RGB2BGR), flags)[1].tobytes()
