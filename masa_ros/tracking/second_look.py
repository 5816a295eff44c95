"""
Second look: where a track should be although nothing was detected there.

Detectors and proposals flicker: an object in plain sight is missed for a frame or two. A model
that makes masks of given boxes can be asked about the predicted box of such a track. The answer
counts only where the mask's predicted quality (here) and the embedding (in the tracker) both say
that the object is there.
"""

from __future__ import annotations

from dataclasses import dataclass

from masa_ros.structures.boxes import pairwise_iou
from masa_ros.structures.instances import Flag, Instances
from masa_ros.structures.masks import RoiMask
import numpy as np
from numpy.typing import NDArray

# A predicted box that overlaps a detection more than this was not missed.
MISSED_IOU = 0.3
# A mask must fill about the predicted box: otherwise it is of something else.
MASK_IOU = 0.5
# Most looks in a frame: each costs as much as a detection.
MOST_LOOKS = 20


@dataclass(frozen=True)
class MissedTracks:
    """
    Tracks that no detection was near, with the boxes where they should be.

    Parameters
    ----------
    track_ids : ndarray
        ``(K,)`` int64.
    instances : Instances
        Predicted boxes with the tracks' last scores, classes and labels, flagged ``RECOVERED``.

    """

    track_ids: NDArray[np.int64]
    instances: Instances

    def __len__(self) -> int:
        return len(self.track_ids)

    @classmethod
    def of(
        cls, track_ids: NDArray[np.int64], boxes: NDArray[np.float32],
        scores: NDArray[np.float32], class_ids: NDArray[np.int64], labels: list[str],
    ) -> MissedTracks:
        """Columns of tracks, of which the surest are looked for."""
        order = np.argsort(-scores, kind='stable')[:MOST_LOOKS]
        return cls(track_ids[order], Instances.from_boxes(
            boxes[order], scores[order], class_ids[order], [labels[row] for row in order],
            flag=Flag.RECOVERED))

    @classmethod
    def none(cls) -> MissedTracks:
        """Nothing was missed."""
        return cls(np.zeros(0, np.int64), Instances())

    def added_to(self, given: Instances) -> Instances:
        """Return detections with the predicted boxes behind them, for the model to look at."""
        own = self.instances
        sources = None if given.detected_by is None else np.concatenate(
            [given.detected_by, np.zeros(len(own), np.uint32)])
        return Instances(
            detected_by=sources,
            boxes=np.concatenate([given.boxes, own.boxes]),
            scores=np.concatenate([given.scores, own.scores]),
            class_ids=np.concatenate([given.class_ids, own.class_ids]),
            labels=(*given.labels, *own.labels),
            flags=np.concatenate([given.flags, own.flags]),
            masks=(*given.masks, *own.masks),
            mask_qualities=np.concatenate([given.mask_qualities, own.mask_qualities]))


def missed(
    boxes: NDArray[np.float32], predicted: NDArray[np.float32], image_size: tuple[int, int],
) -> NDArray[np.bool_]:
    """
    Tell which predicted boxes no detection is near.

    Parameters
    ----------
    boxes : ndarray
        ``(N, 4)`` detections of the frame.
    predicted : ndarray
        ``(K, 4)``.
    image_size : tuple of int
        ``(height, width)``; objects whose centre is outside have left.

    """
    centers = (predicted[:, :2] + predicted[:, 2:]) / 2
    inside = ((centers >= 0) & (centers < image_size[::-1])).all(axis=1)
    overlap = pairwise_iou(predicted, boxes).max(axis=1, initial=0)
    return np.asarray(inside & (overlap < MISSED_IOU))


def seen_by_mask(
    found: Instances, wanted: MissedTracks, least_quality: float,
) -> tuple[Instances, NDArray[np.int64]]:
    """
    Keep the missed tracks that the model's mask confirms.

    Parameters
    ----------
    found : Instances
        What the model made of ``wanted.added_to(given)``.
    wanted : MissedTracks
        The last rows of it.
    least_quality : float
        Predicted IoU that a mask needs.

    Returns
    -------
    Instances
        The detections and the confirmed tracks, boxes of these drawn tightly around their masks.
    ndarray
        ``(N,)`` int64 track that was looked for in each row, 0 for detections.

    """
    first = len(found) - len(wanted)
    boxes = found.boxes.copy()
    kept = np.ones(len(found), bool)
    for row in range(first, len(found)):
        mask = found.masks[row]
        # NaN, where the model says nothing about its mask, is not enough either.
        kept[row] = mask is not None and bool(found.mask_qualities[row] >= least_quality)
        if kept[row] and mask is not None:
            boxes[row] = _around(mask)
    kept[first:] &= pairwise_iou(boxes[first:], found.boxes[first:]).diagonal() >= MASK_IOU
    # What overlaps a detection after all is the detected object, or a neighbour.
    kept[first:] &= pairwise_iou(boxes[first:], boxes[:first]).max(axis=1, initial=0) < MASK_IOU
    ids = np.concatenate([np.zeros(first, np.int64), wanted.track_ids])
    return found.with_fields(boxes=boxes).select(kept), ids[kept]


def _around(mask: RoiMask) -> NDArray[np.float32]:
    """Tight box of a mask."""
    crop = mask.decode()
    rows, columns = np.flatnonzero(crop.any(axis=1)), np.flatnonzero(crop.any(axis=0))
    if not len(rows):
        return np.zeros(4, np.float32)
    return np.array([mask.x_offset + columns[0], mask.y_offset + rows[0],
                     mask.x_offset + columns[-1] + 1, mask.y_offset + rows[-1] + 1], np.float32)
