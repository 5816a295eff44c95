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
from queue import Queue
import sys
from threading import Thread

import cv2
import numpy as np
from numpy.typing import NDArray

DEFAULT_WIDTH_PX = 960
_FORMATS = (('.webm', 'VP80'), ('.mp4', 'mp4v'))
_QUEUE_FRAMES = 8


class VideoWriter:
    """
    Writes frames at a fixed rate; the first frame decides the size of the video.

    Encoding takes longer than most of what comes before it, so a thread of its own does it.

    Parameters
    ----------
    path : Path
        File to write, without suffix.
    rate_hz : float
        Frames per second.
    max_width_px : int
        Wider frames are scaled down to this.

    """

    def __init__(self, path: Path, rate_hz: float, max_width_px: int = DEFAULT_WIDTH_PX) -> None:
        self.path = path
        """File that is written; its suffix is known after the first frame."""
        self._rate_hz = min(max(rate_hz, 1.0), 240.0)
        self._max_width_px = max_width_px
        self._size = (0, 0)
        self._writer: cv2.VideoWriter | None = None
        self._queue: Queue[NDArray[np.uint8] | None] = Queue(_QUEUE_FRAMES)
        self._problem: cv2.error | None = None
        self._thread = Thread(target=self._encode, daemon=True)

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
        self._queue.put(image)

    def close(self) -> None:
        """
        Finish the file.

        Raises
        ------
        OSError
            If a frame could not be encoded.

        """
        if self._writer is None or not self._thread.is_alive():
            return
        self._queue.put(None)
        self._thread.join()
        self._writer.release()
        if self._problem is not None:
            raise OSError(f'{self.path} is not complete: {self._problem}') from self._problem

    def _encode(self) -> None:
        while (image := self._queue.get()) is not None:
            # After an error the queue must still be emptied, or `write` would wait forever.
            if self._problem is None:
                try:
                    self._encode_one(image)
                except cv2.error as error:
                    self._problem = error

    def _encode_one(self, image: NDArray[np.uint8]) -> None:
        assert self._writer is not None
        if (image.shape[1], image.shape[0]) != self._size:
            image = np.asarray(
                cv2.resize(image, self._size, interpolation=cv2.INTER_AREA), np.uint8)
        self._writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))

    def _start(self, image: NDArray[np.uint8]) -> None:
        height, width = image.shape[:2]
        scale = min(1.0, self._max_width_px / width)
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
                self._thread.start()
                return
            path.unlink(missing_ok=True)
        raise OSError(f'{self.path}: this OpenCV can write no video there (neither VP8 nor '
                      'MPEG-4); install the opencv-python package from PyPI, or leave the video '
                      'out')


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
