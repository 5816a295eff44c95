"""``tier4_perception_msgs/DetectedObjectsWithFeature`` of Autoware's 2D detectors."""

from __future__ import annotations

from collections.abc import Sequence
import math
from typing import Any

from masa_ros.ros.convert import LabelTable
from masa_ros.ros.upstream.found import Found
from masa_ros.structures.instances import Instances
import numpy as np

# Constants of autoware_perception_msgs/ObjectClassification, in the order of their numbers.
CLASSES = ('unknown', 'car', 'truck', 'bus', 'trailer', 'motorcycle', 'bicycle', 'pedestrian',
           'animal', 'hazard', 'over_drivable', 'under_drivable')


def read_array(messages: Sequence[Any], labels: LabelTable) -> Found:
    """
    Read the detections of one ``tier4_perception_msgs/DetectedObjectsWithFeature``.

    The box is the region of interest. The class is the most probable one. The score is the
    existence probability, where Autoware's detectors put it; where that is 0, the probability of
    the class.
    """
    objects = messages[0].feature_objects
    rows = len(objects)
    boxes = np.empty((rows, 4), np.float32)
    scores = np.empty(rows, np.float32)
    class_ids = np.full(rows, -1, np.int64)
    names = [''] * rows
    for row, entry in enumerate(objects):
        roi = entry.feature.roi
        boxes[row] = (roi.x_offset, roi.y_offset, roi.x_offset + roi.width,
                      roi.y_offset + roi.height)
        certainty = 0.0
        if entry.object.classification:
            best = max(entry.object.classification,
                       key=lambda item: -math.inf if math.isnan(item.probability)
                       else item.probability)
            certainty = best.probability
            class_ids[row] = best.label
            names[row] = CLASSES[best.label] if best.label < len(CLASSES) else ''
        scores[row] = entry.object.existence_probability or certainty
    return Found(Instances.from_boxes(boxes, scores, class_ids, names))
