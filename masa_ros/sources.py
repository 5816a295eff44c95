"""
Videos and image folders as frames. Bags are read by `masa_ros.ros.bag`.

A source is iterated as often as one likes, each time from the start. What cannot be read is left
out and listed in ``skipped``; nothing is invented for it, and the frames after it keep their
index and stamp.

An image folder may be laid out as MOTChallenge does: ``seqinfo.ini`` with the frame rate, the
images in ``img1/`` numbered from 1, detections in ``det/det.txt`` and truth in ``gt/gt.txt``.
"""

from __future__ import annotations

from collections.abc import Iterator
import configparser
from dataclasses import dataclass
import math
from pathlib import Path
import re
from typing import Protocol

import cv2
from masa_ros.structures.frame import Frame
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

IMAGE_SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.pgm', '.png', '.ppm', '.tif', '.tiff', '.webp')
DEFAULT_RATE_HZ = 25.0
"""Rate of an image folder that names none."""

# What a viewer has to do for each value of the EXIF orientation; 1 is upright.
_ORIENTATIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90}


@dataclass(frozen=True)
class Skipped:
    """
    Something that could not be read.

    Parameters
    ----------
    name : str
        File name.
    reason : str
        What was wrong with it.

    """

    name: str
    reason: str


class Source(Protocol):
    """Frames of one recording, in order of time."""

    stream: str
    rate_hz: float
    """Nominal frame rate; the stamps are what counts."""
    length: int | None
    """Number of frames to expect. A video's container only estimates it, or does not say."""
    skipped: list[Skipped]
    """What the last iteration could not read, so far."""
    detections_file: Path | None
    """Detections that lie beside the images in MOTChallenge format."""
    truth_file: Path | None
    """Ground truth that lies beside the images in MOTChallenge format."""

    def __iter__(self) -> Iterator[Frame]:
        """Read from the start; raises ``ValueError`` if not one frame can be read."""
        ...


def open_source(path: str | Path, fps: float | None = None, stream: str = '') -> Source:
    """
    Open a video file, an image folder or a single image.

    Parameters
    ----------
    path : str or Path
        The file or folder.
    fps : float, optional
        Frames per second; overrides what the recording says, also the stamps of a video.
    stream : str
        Name of the stream; that of the file or folder when missing.

    Raises
    ------
    FileNotFoundError
        If there is nothing at the path.
    ValueError
        If it is neither a video nor a folder with images, or the rate is not positive.

    """
    place = Path(path).expanduser()
    if fps is not None and not (math.isfinite(fps) and fps > 0):
        raise ValueError(f'the frame rate is {fps}, expected a positive number of frames per '
                         'second')
    if place.is_dir():
        return ImageFolder(place, fps, stream)
    if not place.exists():
        raise FileNotFoundError(f'there is no {place}; expected a video file, an image or a '
                                'folder of images')
    if place.suffix.lower() in IMAGE_SUFFIXES:
        return ImageFolder(place, fps, stream)
    return VideoFile(place, fps, stream)


class VideoFile:
    """
    Frames of a video file, decoded by OpenCV (FFmpeg).

    Stamps are the container's presentation times, from 0; where it has none, or they do not
    increase, the nominal rate continues from the frame before. A rotation that the file asks for
    (phones) is applied.

    Parameters
    ----------
    path : Path
        The file.
    fps : float, optional
        Rate to use instead of the file's times.
    stream : str
        Name; the file's without suffix when missing.

    """

    detections_file: Path | None = None
    truth_file: Path | None = None

    def __init__(self, path: Path, fps: float | None = None, stream: str = '') -> None:
        self.path = path
        self.stream = stream or path.stem
        self.skipped: list[Skipped] = []
        self._fixed_rate = fps is not None
        capture = self._open()
        count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        rate = capture.get(cv2.CAP_PROP_FPS)
        capture.release()
        usable = math.isfinite(rate) and rate > 0
        self.rate_hz = fps or (rate if usable else DEFAULT_RATE_HZ)
        self.length: int | None = int(count) if math.isfinite(count) and count > 0 else None
        self._duration_s = count / rate if usable and self.length else 0.0

    def __iter__(self) -> Iterator[Frame]:
        """Read from the start."""
        self.skipped.clear()
        period_ns = 1e9 / self.rate_hz
        capture = self._open()
        stamp_ns, index = 0, 0
        try:
            while True:
                read, pixels = capture.read()
                if not read or pixels is None:
                    break
                earliest_ns = 0 if index == 0 else stamp_ns + 1
                fallback_ns = 0 if index == 0 else stamp_ns + round(period_ns)
                stamp_ns = round(index * period_ns if self._fixed_rate
                                 else 1e6 * capture.get(cv2.CAP_PROP_POS_MSEC))
                if stamp_ns < earliest_ns:
                    stamp_ns = fallback_ns
                image = cv2.cvtColor(np.asarray(pixels, np.uint8), cv2.COLOR_BGR2RGB)
                yield Frame(np.asarray(image, np.uint8), stamp_ns, index, self.stream)
                index += 1
        finally:
            capture.release()
        if index == 0:
            raise ValueError(f'{self.path} opens as a video, but not one frame can be decoded; '
                             'convert it with ffmpeg, or check that it is complete')
        self._check_end(stamp_ns / 1e9 + 1 / self.rate_hz, index)

    def _open(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(str(self.path), cv2.CAP_FFMPEG)
        if not capture.isOpened():
            raise ValueError(f'{self.path} cannot be read as a video; expected a file such as '
                             '.mp4, .mkv or .avi that is complete (an .mp4 that was cut off has '
                             'lost its index), or a folder of images')
        return capture

    def _check_end(self, read_s: float, num_frames: int) -> None:
        """List a file that ends long before the time it announces."""
        missing_s = self._duration_s - read_s
        if not self._fixed_rate and missing_s > max(2.5 / self.rate_hz, 0.01 * self._duration_s):
            self.skipped.append(Skipped(
                self.path.name, f'ends after {num_frames} frames and {read_s:.2f} s of the '
                f'{self._duration_s:.2f} s it announces; it may be cut off'))


class ImageFolder:
    """
    Images of a folder in natural order (``2.png`` before ``10.png``).

    Stamps start at 0 and follow the frame rate: the one given, or that of ``seqinfo.ini``, or
    `DEFAULT_RATE_HZ`. In a MOTChallenge folder whose files are numbered from 1, the number gives
    the frame index, so that detections and truth fit although images are missing.

    Images of any kind become 8-bit RGB: 16-bit ones lose their lower byte, transparency is
    dropped, a rotation in the metadata (EXIF) is applied.

    Parameters
    ----------
    path : Path
        Folder, or a single image.
    fps : float, optional
        Frame rate.
    stream : str
        Name; the folder's when missing.

    """

    def __init__(self, path: Path, fps: float | None = None, stream: str = '') -> None:
        self.skipped: list[Skipped] = []
        self.files = [path] if path.is_file() else []
        root = path
        rate = None
        if not self.files:
            root, images, rate = _sequence_folder(path)
            self.files = _images_in(images)
            if not self.files:
                raise ValueError(_no_images(path, images))
        self.stream = stream or (path.stem if path.is_file() else root.resolve().name)
        self.rate_hz = fps or rate or DEFAULT_RATE_HZ
        self.detections_file = _existing(root / 'det' / 'det.txt')
        self.truth_file = _existing(root / 'gt' / 'gt.txt')
        self._indices = list(range(len(self.files)))
        if rate is not None or self.detections_file or self.truth_file:
            self._indices = _numbers(self.files) or self._indices
        self.length: int | None = len(self.files)

    def __iter__(self) -> Iterator[Frame]:
        """Read from the start."""
        self.skipped.clear()
        for index, file in zip(self._indices, self.files, strict=True):
            try:
                image = read_image(file)
            except ValueError as error:
                self.skipped.append(Skipped(file.name, str(error)))
                continue
            yield Frame(image, round(index * 1e9 / self.rate_hz), index, self.stream)
        if len(self.skipped) == len(self.files):
            raise ValueError(f'none of the {len(self.files)} images in {self.files[0].parent} can '
                             f'be read; {self.skipped[0].name}: {self.skipped[0].reason}')


def read_image(path: Path) -> NDArray[np.uint8]:
    """
    Read an image file as ``(H, W, 3)`` uint8 RGB.

    Raises
    ------
    ValueError
        If it is missing, empty, damaged, cut off, or no image.

    """
    try:
        with Image.open(path) as opened:
            return _to_rgb(opened)
    except Exception as error:
        # On damaged files the decoders raise nearly anything (SyntaxError, struct.error, ...).
        raise ValueError(f'cannot be decoded: {error}') from error


def _to_rgb(opened: Image.Image) -> NDArray[np.uint8]:
    turn = _ORIENTATIONS.get(opened.getexif().get(ExifTags.Base.Orientation, 1))
    picture = opened if turn is None else opened.transpose(turn)
    if picture.mode.startswith('I'):
        # Pillow would clip these at 255 instead of scaling them.
        grey = np.clip(np.asarray(picture).astype(np.int64) >> 8, 0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if picture.mode == 'F':
        raise ValueError('it has floating point values, whose range is unknown')
    return np.array(picture.convert('RGB'), np.uint8)


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key that takes digits as numbers: ``a2`` before ``a10``."""
    return tuple((0, int(part), part) if part.isdecimal() else (1, 0, part)
                 for part in re.split(r'(\d+)', name) if part)


def _sequence_folder(path: Path) -> tuple[Path, Path, float | None]:
    """Folder of the sequence, folder of its images, and its frame rate where it is written."""
    for root in (path, path.parent):
        info = root / 'seqinfo.ini'
        if info.is_file():
            section = _read_sequence_info(info)
            images = root / section.get('imDir', 'img1')
            if root == path or images.resolve() == path.resolve():
                return root, images, _rate(section.get('frameRate'), info)
    if not _images_in(path) and (path / 'img1').is_dir():
        return path, path / 'img1', None
    return path, path, None


def _read_sequence_info(info: Path) -> configparser.SectionProxy | dict[str, str]:
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(info.read_text(encoding='utf-8-sig'))
    except (configparser.Error, UnicodeDecodeError) as error:
        raise ValueError(f'{info} cannot be read: {error}; expected a [Sequence] section with '
                         'name, imDir and frameRate') from error
    return parser['Sequence'] if parser.has_section('Sequence') else {}


def _rate(text: str | None, info: Path) -> float | None:
    if text is None:
        return None
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not (math.isfinite(rate) and rate > 0):
        raise ValueError(f'{info} gives the frame rate {text!r}, expected a positive number')
    return rate


def _images_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    # Hidden files are what other systems leave beside images (._0001.jpg).
    found = [file for file in folder.iterdir()
             if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith('.')
             and file.is_file()]
    return sorted(found, key=lambda file: natural_key(file.name))


def _no_images(path: Path, images: Path) -> str:
    """Explain an empty folder, pointing at folders that are not."""
    message = (f'{images} holds no images ({", ".join(IMAGE_SUFFIXES)})' if images.is_dir()
               else f'{path / "seqinfo.ini"} names the image folder {images}, which is not there')
    others = [folder.name for folder in sorted(path.iterdir())
              if folder.is_dir() and _images_in(folder)]
    if others:
        message += f'; its folders {", ".join(others[:5])} do: name one of them'
    elif (path / 'metadata.yaml').is_file():
        message += '; it looks like a bag, which is opened by masa_ros.ros.bag'
    return message


def _existing(path: Path) -> Path | None:
    return path if path.is_file() else None


def _numbers(files: list[Path]) -> list[int] | None:
    """Frame indices from files numbered from 1; None where they are not."""
    stems = [file.stem for file in files]
    if not all(stem.isdecimal() for stem in stems):
        return None
    indices = [int(stem) - 1 for stem in stems]
    return indices if indices[0] >= 0 and len(set(indices)) == len(indices) else None
