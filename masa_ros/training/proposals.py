"""
Proposals of a teacher, made once and kept: what training learns from where nobody drew labels.

They are kept as WebDataset shards, plain tar files with ``KEY.jpg`` and ``KEY.json`` for every
image. Each shard has a ``.json`` beside it with its checksum and the images that could not be
used, and is complete or missing, never half written: a run that was broken off goes on with the
next shard, and several processes share the shards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
import hashlib
import io
import json
from pathlib import Path
import tarfile
from typing import Any

import cv2
from masa_ros.structures.boxes import nms
from masa_ros.structures.instances import Instances
from masa_ros.structures.masks import encode_plane, RoiMask
from masa_ros.structures.settings import setting
from masa_ros.training.corpus import LabelledImage
from masa_ros.training.labels import shrink
import numpy as np
from numpy.typing import NDArray

Teacher = Callable[[NDArray[np.uint8], tuple[int, int]], Instances]
"""Image, and the height and width that it had before it was reduced, to what is in it."""
JPEG_QUALITY = 95


@dataclass(frozen=True)
class ProposalConfig:
    """What of a teacher's output is kept."""

    long_side_px: int = setting(
        640, 'Images are stored no larger than this.', minimum=32, maximum=4096)
    least_quality: float = setting(
        0.0, 'Lowest predicted IoU of a mask; 0.88 for SAM.', minimum=0.0, maximum=1.0)
    least_region_px: int = setting(
        30, 'Parts and holes of a mask smaller than this are removed.', minimum=0,
        maximum=100000)
    nms_threshold: float = setting(
        0.7, 'Of two boxes overlapping more than this IoU the worse is dropped.', minimum=0.0,
        maximum=1.0)
    most: int = setting(128, 'Most proposals of an image.', minimum=1, maximum=1000)
    shard_images: int = setting(200, 'Images of a shard.', minimum=1, maximum=100000)


@dataclass(frozen=True)
class NamedImage:
    """
    An image on its way to the teacher.

    Parameters
    ----------
    name : str
        Unique in the recording or folder.
    image : ndarray or None
        ``(H, W, 3)`` uint8 RGB; ``None`` where it could not be read.
    problem : str
        Why it could not be read.
    read : callable, optional
        Reads the image when its turn has come, so that what is done already costs nothing;
        raises ``ValueError`` where that fails.
    labels : callable, optional
        Like the teacher and instead of it: the instances that are known in the image. Raises
        ``ValueError`` where there are none to be had.

    """

    name: str
    image: NDArray[np.uint8] | None
    problem: str = ''
    read: Callable[[], NDArray[np.uint8]] | None = None
    labels: Teacher | None = None


@dataclass(frozen=True)
class ShardReport:
    """What became of one shard: number, images, proposals, and what was skipped with reasons."""

    number: int
    images: int
    proposals: int
    skipped: dict[str, str]
    reused: bool


def write_proposals(
    folder: str | Path, images: Iterable[NamedImage], teacher: Teacher,
    config: ProposalConfig | None = None, rank: int = 0, world: int = 1,
    progress: Callable[[int], object] | None = None, settings: Mapping[str, Any] | None = None,
) -> Iterator[ShardReport]:
    """
    Run a teacher over images and keep what it proposes.

    Parameters
    ----------
    folder : str or Path
        Where the shards go; complete ones that are there are kept.
    images : iterable of NamedImage
        In an order that is the same each time.
    teacher : callable
        See `Teacher`.
    config : ProposalConfig, optional
        What is kept.
    rank, world : int
        This process makes every ``world``-th shard, starting with ``rank``.
    progress : callable, optional
        Told the number of images that were dealt with since it was told last.
    settings : mapping, optional
        What decides the proposals, to be kept beside them, as JSON knows it.

    Yields
    ------
    ShardReport
        For every shard of this process, made or found.

    Raises
    ------
    ValueError
        If a shard of these images is there that was made with other settings.

    """
    config = config or ProposalConfig()
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    kept: dict[str, Any] = json.loads(json.dumps(dict(settings or {})))
    for number, batch in enumerate(_batches(images, config.shard_images)):
        if number % world != rank:
            continue
        report = _finished(place, number, batch, kept)
        if report is not None and progress is not None:
            progress(len(batch))
        yield report or _write_shard(place, number, batch, teacher, config, progress, kept)


def read_proposals(folder: str | Path, source: str = '') -> Iterator[LabelledImage]:
    """
    Read shards back as labelled images.

    Parameters
    ----------
    folder : str or Path
        With shards.
    source : str
        Source to name; the folder's name when empty.

    Raises
    ------
    FileNotFoundError
        If there is no shard.
    ValueError
        If a shard does not match its checksum.

    """
    place = Path(folder)
    shards = sorted(place.glob('shard-*.tar'))
    if not shards:
        raise FileNotFoundError(f'{place} holds no shard-*.tar; make some with masa_ros propose')
    for shard in shards:
        note = json.loads(shard.with_suffix('.json').read_text())
        if hashlib.sha256(shard.read_bytes()).hexdigest() != note['sha256']:
            raise ValueError(f'{shard} does not match its checksum; remove it and propose again')
        with tarfile.open(shard) as archive:
            for member in archive:
                if member.name.endswith('.json'):
                    yield _read_entry(archive, member, source or place.name)


def clean_mask(mask: NDArray[np.bool_], least_px: int) -> NDArray[np.bool_]:
    """Remove parts, then holes, with fewer pixels than a limit; the largest part stays."""
    for value in (True, False):
        count, parts, stats, _ = cv2.connectedComponentsWithStats(
            (mask == value).astype(np.uint8), connectivity=8 if value else 4)
        areas = stats[1:, cv2.CC_STAT_AREA]
        small = np.flatnonzero(areas < least_px) + 1
        if value and len(small) == count - 1 and len(areas):
            small = np.delete(small, int(areas.argmax()))
        if len(small):
            mask = np.where(np.isin(parts, small), not value, mask)
    return mask


def filter_proposals(
    found: Instances, height: int, width: int, config: ProposalConfig,
) -> Instances:
    """Keep good proposals: quality, clean masks, no duplicates, not too many."""
    quality = np.nan_to_num(found.mask_qualities, nan=1.0)
    found = found.select(quality >= config.least_quality)
    masks: list[RoiMask | None] = []
    boxes = found.boxes.copy()
    for i, mask in enumerate(found.masks):
        plane = None if mask is None else clean_mask(
            mask.paste(height, width), config.least_region_px)
        encoded = None if plane is None or not plane.any() else encode_plane(plane)
        masks.append(encoded)
        if encoded is not None:
            boxes[i] = (encoded.x_offset, encoded.y_offset, encoded.x_offset + encoded.width,
                        encoded.y_offset + encoded.height)
    found = found.with_fields(masks=tuple(masks), boxes=boxes)
    kept = nms(found.boxes, found.scores, config.nms_threshold)[:config.most]
    return found.select(kept)


def _batches(images: Iterable[NamedImage], size: int) -> Iterator[list[NamedImage]]:
    batch: list[NamedImage] = []
    for item in images:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _finished(
    place: Path, number: int, batch: list[NamedImage], settings: dict[str, Any],
) -> ShardReport | None:
    """
    Report of a shard that is complete and of the same images, else ``None``.

    Raises
    ------
    ValueError
        If it was made with other settings.

    """
    shard = place / f'shard-{number:05d}.tar'
    note_file = shard.with_suffix('.json')
    if not (shard.is_file() and note_file.is_file()):
        return None
    note = json.loads(note_file.read_text())
    if (note['names'] != [item.name for item in batch]
            or hashlib.sha256(shard.read_bytes()).hexdigest() != note['sha256']):
        return None
    before = note.get('settings', settings)
    other = [name for name in sorted({*before, *settings})
             if before.get(name) != settings.get(name)]
    if other:
        raise ValueError(f'{shard} was made with other settings ({", ".join(other)}); choose '
                         'another folder, or remove it')
    return ShardReport(number, note['images'], note['proposals'], note['skipped'], True)


def _write_shard(
    place: Path, number: int, batch: list[NamedImage], teacher: Teacher, config: ProposalConfig,
    progress: Callable[[int], object] | None, settings: dict[str, Any],
) -> ShardReport:
    """Run the teacher over one shard's images."""
    shard = place / f'shard-{number:05d}.tar'
    scratch = shard.with_suffix('.writing')
    skipped: dict[str, str] = {}
    images = proposals = 0
    with tarfile.open(scratch, 'w') as archive:
        for key, item in enumerate(batch):
            if progress is not None:
                progress(1)
            try:
                image, found = _mark(item, teacher, config)
            except ValueError as error:
                skipped[item.name] = str(error)
                continue
            key_name = f'{number:05d}{key:05d}'
            packed = cv2.imencode('.jpg', cv2.cvtColor(image, cv2.COLOR_RGB2BGR),
                                  [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
            _add(archive, f'{key_name}.jpg', packed)
            _add(archive, f'{key_name}.json', json.dumps(_entry(item.name, found)).encode())
            images, proposals = images + 1, proposals + len(found)
    note = {'sha256': hashlib.sha256(scratch.read_bytes()).hexdigest(), 'images': images,
            'proposals': proposals, 'skipped': skipped, 'names': [item.name for item in batch],
            'settings': settings}
    scratch.replace(shard)
    shard.with_suffix('.json').write_text(json.dumps(note))
    return ShardReport(number, images, proposals, skipped, False)


def _mark(
    item: NamedImage, teacher: Teacher, config: ProposalConfig,
) -> tuple[NDArray[np.uint8], Instances]:
    """
    Read one image and mark it.

    Raises
    ------
    ValueError
        If it cannot be used; the message says why.

    """
    source = item.image if item.image is not None or item.read is None else item.read()
    if source is None:
        raise ValueError(item.problem)
    image = shrink(source, config.long_side_px)
    height, width = source.shape[:2]
    if item.labels is not None:
        # What people drew is neither cleaned nor thinned out.
        found = item.labels(image, (height, width))
        return image, found.select(np.arange(min(len(found), config.most)))
    found = teacher(image, (height, width))
    return image, filter_proposals(found, image.shape[0], image.shape[1], config)


def _entry(name: str, found: Instances) -> dict[str, Any]:
    """JSON of one image's proposals; masks as run lengths of their region, COCO's order."""
    return {'name': name, 'proposals': [
        {'box': [round(float(v), 2) for v in found.boxes[i]],
         'score': round(float(found.scores[i]), 4), 'class_id': int(found.class_ids[i]),
         **({} if mask is None else {
             'region': [mask.x_offset, mask.y_offset, mask.height, mask.width],
             'counts': mask.counts.tolist()})}
        for i, mask in enumerate(found.masks)]}


def _read_entry(archive: tarfile.TarFile, member: tarfile.TarInfo, source: str) -> LabelledImage:
    """One labelled image of an open shard."""
    entry = json.loads(_content(archive, member.name))
    packed = np.frombuffer(_content(archive, member.name.replace('.json', '.jpg')), np.uint8)
    decoded = cv2.imdecode(packed, cv2.IMREAD_COLOR)
    if decoded is None:
        raise ValueError(f'{archive.name!r}: the image of {entry["name"]} is damaged')
    image = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
    found = entry['proposals']
    masks = tuple(
        _mask(item['region'], item['counts']) if 'counts' in item else None for item in found)
    return LabelledImage(
        f'{source}/{entry["name"]}', source, np.asarray(image, np.uint8),
        np.array([item['box'] for item in found], np.float32).reshape(-1, 4), masks,
        np.array([item['class_id'] for item in found], np.int64))


def _mask(region: list[int], counts: list[int]) -> RoiMask:
    x, y, height, width = region
    return RoiMask(x, y, height, width, np.array(counts, np.uint32))


def _content(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    if file is None:
        raise ValueError(f'{archive.name!r} holds no {name}')
    return file.read()


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))
