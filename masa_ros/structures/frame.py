"""One camera image with its time and origin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Frame:
    """
    One camera image, ready for the pipeline.

    Parameters
    ----------
    image : ndarray
        ``(H, W, 3)`` uint8, RGB, C-contiguous.
    stamp_ns : int
        Acquisition time in nanoseconds, as the sensor driver gave it.
    frame_index : int
        Position in the sequence, from 0. Gaps are allowed (dropped frames), going back is not.
    stream : str
        Name of the camera or recording; each stream has its own ids.
    frame_id : str
        ROS coordinate frame of the camera (optical frame), passed through untouched.

    Raises
    ------
    ValueError
        If the image is not ``(H, W, 3)`` uint8 or has no pixels.

    """

    image: NDArray[np.uint8]
    stamp_ns: int
    frame_index: int
    stream: str = ''
    frame_id: str = ''

    def __post_init__(self) -> None:
        image: Any = self.image
        if (not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != 3
                or image.dtype != np.uint8 or image.size == 0):
            came = (f'{image.dtype} array of shape {image.shape}'
                    if isinstance(image, np.ndarray) else type(image).__name__)
            raise ValueError(
                f'frame image is a {came}, expected a non-empty (height, width, 3) uint8 RGB '
                'array; convert it before building the Frame')

    @property
    def height_px(self) -> int:
        """Image height."""
        return int(self.image.shape[0])

    @property
    def width_px(self) -> int:
        """Image width."""
        return int(self.image.shape[1])
