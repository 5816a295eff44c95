"""
Writing videos that browsers play, with nothing but OpenCV.

The format is VP8 in WebM: every browser plays it, its encoder (libvpx, BSD) comes with OpenCV's
wheels, and no GPL encoder or further package is needed. Where an OpenCV build has no VP8, MPEG-4
part 2 in ``.mp4`` is written, which media players show but browsers do not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
import os
from pathlib import Path
import sys

import cv2
import numpy as np
from numpy.typing import NDArray

MAX_WIDTH_PX = 1280
_FORMATS = (('.webm', 'VP80'), ('.mp4', 'mp4v'))


class VideoWriter:
    """
    Writes frames at a fixed rate; the size of the first frame is the size of the video.

    Parameters
    ----------
    path : Path
        File to write, without suffix.
    rate_hz : float
        Frames per second.

    """

    def __init__(self, path: Path, rate_hz: float) -> None:
        self.path = path
        """File that is written; its suffix is known after the first frame."""
        self._rate_hz = min(max(rate_hz, 1.0), 240.0)
        self._size = (0, 0)
        self._writer: cv2.VideoWriter | None = None

    def write(self, image: NDArray[np.uint8]) -> None:
        """
        Append an RGB image; one of another size is scaled.

        Raises
        ------
        OSError
            If OpenCV has no encoder for any known format.

        """
        if self._writer is None:
            self._start(image)
        if (image.shape[1], image.shape[0]) != self._size:
            image = np.asarray(
                cv2.resize(image, self._size, interpolation=cv2.INTER_AREA), np.uint8)
        assert self._writer is not None
        self._writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.release()

    def _start(self, image: NDArray[np.uint8]) -> None:
        height, width = image.shape[:2]
        scale = min(1.0, MAX_WIDTH_PX / width)
        # Video encoders halve the colour planes, so sides must be even.
        even = [max(round(side * scale) // 2 * 2, 2) for side in (width, height)]
        self._size = (even[0], even[1])
        for suffix, code in _FORMATS:
            path = self.path.with_name(self.path.name + suffix)
            with _quiet():
                writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*code),
                                         self._rate_hz, self._size)
            if writer.isOpened():
                self.path, self._writer = path, writer
                return
            path.unlink(missing_ok=True)
        raise OSError('this OpenCV can write no video (neither VP8 nor MPEG-4); install the '
                      'opencv-python package from PyPI, or leave the video out')


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep FFmpeg's remark about the tag 'VP80', which WebM has no use for, off the screen."""
    sys.stderr.flush()
    saved = os.dup(2)
    with open(os.devnull, 'w') as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
