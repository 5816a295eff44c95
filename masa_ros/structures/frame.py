"""One camera image with its time and origin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class CameraView:
    """
    Which way a camera looked when it took an image.

    Parameters
    ----------
    matrix : ndarray
        ``(3, 3)`` intrinsic matrix in pixels of the image, whose outer corner is (0, 0) as for
        boxes.
    rotation : ndarray
        ``(3, 3)`` from the optical frame (x right, y down, z ahead) to a frame that does not turn
        with the camera.

    Raises
    ------
    ValueError
        If a matrix has another shape, or the intrinsic one cannot be inverted.

    """

    matrix: NDArray[np.float64]
    rotation: NDArray[np.float64]

    def __post_init__(self) -> None:
        shapes = np.shape(self.matrix), np.shape(self.rotation)
        if shapes != ((3, 3), (3, 3)):
            raise ValueError(f'camera matrix and rotation have shapes {shapes[0]} and '
                             f'{shapes[1]}, expected (3, 3) each')
        finite = np.isfinite(self.matrix).all() and np.isfinite(self.rotation).all()
        if not finite or abs(np.linalg.det(self.matrix)) < 1e-9:
            raise ValueError('the camera matrix cannot be inverted; an uncalibrated camera_info '
                             'has only zeros, calibrate the camera')


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
    view : CameraView, optional
        Which way the camera looked, where odometry or the like tells.

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
    view: CameraView | None = None

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
