"""
The video predictor of SAM 2 as a baseline, where the package `sam2` is installed.

It follows masks by its memory of the pixels and is given detections as box prompts: those that no
mask covers start a new object, looked for every few frames. Unlike the trackers it reads the whole
video at once, and it never says that an object has gone but by an empty mask.

References
----------
N. Ravi et al., SAM 2: Segment Anything in Images and Videos, 2024.

"""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from pathlib import Path
import tempfile
from typing import Any

import cv2
from masa_ros.evaluation.datasets.sequence import Sequence, with_ids
from masa_ros.structures.boxes import pairwise_iou
from masa_ros.structures.frame import Frame
from masa_ros.structures.instances import Instances, TrackedInstances
from masa_ros.structures.masks import encode_plane, RoiMask
import numpy as np
from numpy.typing import NDArray

# Frames between two looks for objects that no mask covers.
STEP = 5
NEW_SCORE, COVERED_IOU = 0.6, 0.5


class Sam2Video:
    """
    Tracks a whole sequence with SAM 2.

    Parameters
    ----------
    predictor : object
        With the methods of ``sam2.sam2_video_predictor.SAM2VideoPredictor``: ``init_state``,
        ``add_new_points_or_box`` and ``propagate_in_video``.
    new_score : float
        Detections below start no object.
    step : int
        Frames between two looks for new objects.

    """

    def __init__(self, predictor: Any, new_score: float = NEW_SCORE, step: int = STEP) -> None:
        self._predictor = predictor
        self._new_score = new_score
        self._step = step

    @classmethod
    def from_files(cls, config: str, checkpoint: str) -> Sam2Video:
        """
        Load the predictor.

        Parameters
        ----------
        config : str
            Name of one of the package's configurations, such as
            ``configs/sam2.1/sam2.1_hiera_t.yaml``.
        checkpoint : str
            Its weights file.

        Raises
        ------
        ModuleNotFoundError
            If `sam2` is not installed; the message says how to get it.
        FileNotFoundError
            If the weights are missing.

        """
        try:
            from sam2.build_sam import build_sam2_video_predictor
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                'the baseline sam2 needs the package sam2; install it with pip install '
                'git+https://github.com/facebookresearch/sam2', name=error.name) from error
        if not Path(checkpoint).is_file():
            raise FileNotFoundError(
                f'weights file {checkpoint or "(none named)"} of SAM 2 is missing; get one from '
                'github.com/facebookresearch/sam2 and name it with --sam2 CONFIG=FILE')
        return cls(build_sam2_video_predictor(config, checkpoint))

    def update(self, frame: Frame, instances: Instances) -> TrackedInstances:
        """Refuse: there is no way to go frame by frame."""
        raise ValueError('SAM 2 reads whole videos; it tracks sequences, not single frames')

    def track_sequence(
        self, sequence: Sequence, instances: SequenceOf[Instances],
    ) -> list[TrackedInstances]:
        """
        Track all frames of a sequence.

        Parameters
        ----------
        sequence : Sequence
            With its images.
        instances : sequence of Instances
            Detections of each frame.

        Returns
        -------
        list of TrackedInstances
            Masks and the boxes around them; objects without pixels are left out.

        """
        found: list[dict[int, RoiMask]] = [{} for _ in instances]
        with tempfile.TemporaryDirectory() as folder:
            _write_images(sequence, Path(folder))
            state = self._predictor.init_state(video_path=folder)
            count = 0
            for start in range(0, len(instances), self._step):
                for box in self._uncovered(instances[start], found[start]):
                    count += 1
                    self._predictor.add_new_points_or_box(
                        inference_state=state, frame_idx=start, obj_id=count, box=box)
                if not count:
                    continue
                for position, ids, logits in self._predictor.propagate_in_video(
                        state, start_frame_idx=start, max_frame_num_to_track=self._step):
                    if position < len(found):
                        found[position] = _masks(ids, logits)
        return [_objects(masks) for masks in found]

    def _uncovered(
        self, detections: Instances, masks: dict[int, RoiMask],
    ) -> NDArray[np.float32]:
        """Boxes of detections that no object covers, surest first."""
        covered = _objects(masks).boxes
        chosen: list[NDArray[np.float32]] = []
        for row in np.argsort(-detections.scores, kind='stable').tolist():
            box = detections.boxes[row]
            others = np.concatenate([covered, np.array(chosen, np.float32).reshape(-1, 4)])
            if detections.scores[row] >= self._new_score and \
                    pairwise_iou(box[None], others).max(initial=0) < COVERED_IOU:
                chosen.append(box)
        return np.array(chosen, np.float32).reshape(-1, 4)


def _write_images(sequence: Sequence, folder: Path) -> None:
    """Write the images as numbered JPEG files, as the predictor wants them."""
    for position in range(len(sequence)):
        image = sequence.image(position)[:, :, ::-1]
        cv2.imwrite(str(folder / f'{position:06d}.jpg'), image, [cv2.IMWRITE_JPEG_QUALITY, 95])


def _masks(ids: SequenceOf[int], logits: Any) -> dict[int, RoiMask]:
    """Masks by object id, from ``(N, 1, H, W)`` logits; empty ones left out."""
    values = logits.detach().float().cpu().numpy() if hasattr(logits, 'detach') else logits
    planes = np.asarray(values)[:, 0] > 0
    return {int(key): encode_plane(plane)
            for key, plane in zip(ids, planes, strict=True) if plane.any()}


def _objects(masks: dict[int, RoiMask]) -> TrackedInstances:
    boxes = [(mask.x_offset, mask.y_offset, mask.x_offset + mask.width,
              mask.y_offset + mask.height) for mask in masks.values()]
    found = Instances.from_boxes(np.array(boxes, np.float32).reshape(-1, 4))
    return with_ids(found.with_fields(masks=tuple(masks.values())), list(masks))
