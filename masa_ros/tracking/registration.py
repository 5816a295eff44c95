"""
Camera motion between two images, from points that are followed by optical flow.

The tracker predicts where objects go in the picture. When the camera turns, everything in the
picture goes somewhere else at once; taking that out first leaves the motion of the objects.
Where odometry tells which way the camera looked, its rotation alone gives the motion of the
picture. Nothing here is needed to track: `Tracker.follow_camera` takes a homography of any origin.
"""

from __future__ import annotations

import cv2
from masa_ros.structures.boxes import as_boxes
from masa_ros.structures.frame import CameraView, Frame
from masa_ros.tracking.tracker import Tracker
import numpy as np
from numpy.typing import ArrayLike, NDArray

# Longer side of the image that is registered: enough for half a pixel, and quick.
WORK_PX = 480
MAX_POINTS = 300
LEAST_INLIERS = 20
LEAST_SHARE = 0.5
# A point that does not come back to where it started, in pixels of the small image, is not used.
ROUND_TRIP_PX = 1.0
RANSAC_PX = 1.5
# Larger changes of scale between two images are a cut or a mistake.
LARGEST_SCALE = 1.5


class ImageRegistration:
    """
    Follows the background of one stream.

    A similarity transform (shift, turn, scale) is fitted to points outside the objects: with
    parallax no plane fits everything, and more freedom follows the nearest objects instead.
    """

    def __init__(self) -> None:
        self._before: NDArray[np.uint8] | None = None
        self._stamp_ns: int | None = None

    def follow(self, tracker: Tracker, frame: Frame) -> None:
        """Tell a tracker how its camera moved; once per frame, before its update."""
        # A frame that is tried again was already followed.
        if frame.stamp_ns == self._stamp_ns:
            return
        self._stamp_ns = frame.stamp_ns
        homography = self.update(frame.image, tracker.last_boxes)
        if homography is not None:
            tracker.follow_camera(homography)

    def update(self, image: NDArray[np.uint8], boxes: ArrayLike) -> NDArray[np.float64] | None:
        """
        Estimate how the picture has moved since the last call.

        Parameters
        ----------
        image : ndarray
            ``(H, W, 3)`` uint8 RGB.
        boxes : array_like
            ``(N, 4)`` objects in the last image; points on them are not used.

        Returns
        -------
        ndarray or None
            ``(3, 3)`` homography from pixels of the last image to pixels of this one; ``None``
            for the first image, after a change of size, and where too few points agree.

        """
        scale = min(WORK_PX / max(image.shape[:2]), 1.0)
        gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        if scale < 1:
            size = max(round(gray.shape[1] * scale), 1), max(round(gray.shape[0] * scale), 1)
            gray = cv2.resize(gray, size, interpolation=cv2.INTER_AREA)
        small = np.asarray(gray, np.uint8)
        factors = np.array([small.shape[1] / image.shape[1], small.shape[0] / image.shape[0]])
        found = None
        if self._before is not None and self._before.shape == small.shape:
            found = _register(self._before, small, as_boxes(boxes) * np.tile(factors, 2))
        self._before = small
        if found is None:
            return None
        enlarge = np.diag([*(1 / factors), 1.0])
        return np.asarray(enlarge @ found @ np.diag([*factors, 1.0]))


def _register(
    before: NDArray[np.uint8], after: NDArray[np.uint8], boxes: NDArray[np.float64],
) -> NDArray[np.float64] | None:
    """Homography between two small gray images, or None where it is not clear."""
    background = np.full(before.shape, 255, np.uint8)
    for x0, y0, x1, y1 in np.nan_to_num(boxes).clip(0, 10 ** 5).astype(int):
        background[y0:y1 + 1, x0:x1 + 1] = 0
    points = cv2.goodFeaturesToTrack(before, MAX_POINTS, 0.01, 5, mask=background)
    if points is None or len(points) < LEAST_INLIERS:
        return None
    there, ahead, _ = cv2.calcOpticalFlowPyrLK(before, after, points, None)  # type: ignore
    back, returned, _ = cv2.calcOpticalFlowPyrLK(after, before, there, None)  # type: ignore
    good = (ahead.ravel() > 0) & (returned.ravel() > 0)
    good &= np.linalg.norm((back - points).reshape(-1, 2), axis=1) < ROUND_TRIP_PX
    if good.sum() < LEAST_INLIERS:
        return None
    matrix, inliers = cv2.estimateAffinePartial2D(
        points[good], there[good], method=cv2.RANSAC, ransacReprojThreshold=RANSAC_PX)
    if matrix is None or inliers.sum() < max(LEAST_INLIERS, LEAST_SHARE * good.sum()):
        return None
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    if not 1 / LARGEST_SCALE < scale < LARGEST_SCALE:
        return None
    return np.vstack([matrix, [0, 0, 1]])


class RotationFollower:
    """Follows a camera by which way it looked at each frame, as odometry tells."""

    def __init__(self) -> None:
        self._before: CameraView | None = None
        self._stamp_ns: int | None = None

    def follow(self, tracker: Tracker, frame: Frame) -> None:
        """Tell a tracker how its camera turned; once per frame, before its update."""
        if frame.stamp_ns == self._stamp_ns:
            return
        before, self._before, self._stamp_ns = self._before, frame.view, frame.stamp_ns
        if before is not None and frame.view is not None:
            tracker.follow_camera(view_homography(before, frame.view))


def view_homography(before: CameraView, after: CameraView) -> NDArray[np.float64]:
    """
    Homography of a camera that turned, or zoomed, between two images.

    Exact for a rotation about the optical centre, and for everything far away; what translation
    adds for near things depends on their depth and is not in it.

    Returns
    -------
    ndarray
        ``(3, 3)`` from pixels of the first image to pixels of the second.

    """
    turned = after.rotation.T @ before.rotation
    return np.asarray(after.matrix @ turned @ np.linalg.inv(before.matrix))


CAMERA_MOTION: dict[str, type[ImageRegistration] | type[RotationFollower]] = {
    'registration': ImageRegistration, 'odometry': RotationFollower}
"""What follows a camera, by the setting ``tracker.camera_motion``."""
