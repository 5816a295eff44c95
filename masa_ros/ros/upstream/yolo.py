"""``yolo_msgs/DetectionArray`` of yolo_ros: boxes, and masks as polygons."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from masa_ros.ros.convert import LabelTable, upright_boxes
from masa_ros.ros.upstream.found import clean_name, Found
from masa_ros.ros.upstream.polygons import polygon_mask
from masa_ros.structures.instances import Instances
from masa_ros.structures.masks import RoiMask
import numpy as np


def read_array(messages: Sequence[Any], labels: LabelTable) -> Found:
    """
    Read the detections of one ``yolo_msgs/DetectionArray``.

    The class is the name where there is one, with the number that came with it. Oriented boxes
    become the upright boxes around them. A mask is the polygon that yolo_ros sends: the outer
    border of the largest part, so holes and further parts are not in it.
    """
    detections = messages[0].detections
    problems: Counter[str] = Counter()
    rows = len(detections)
    boxes = np.empty((rows, 5), np.float64)
    scores = np.empty(rows, np.float64)
    class_ids = np.empty(rows, np.int64)
    names = [''] * rows
    masks: list[RoiMask | None] = [None] * rows
    size: tuple[int, int] | None = None
    for row, detection in enumerate(detections):
        box = detection.bbox
        center = box.center
        boxes[row] = (center.position.x, center.position.y, box.size.x, box.size.y, center.theta)
        scores[row] = detection.score
        names[row] = clean_name(detection.class_name, problems)
        class_ids[row] = detection.class_id
        if not names[row]:
            class_ids[row], names[row] = labels.read(str(detection.class_id))
        mask = detection.mask
        if mask.height > 0 and mask.width > 0:
            size = size or (int(mask.height), int(mask.width))
        if len(mask.data):
            points = mask.data if isinstance(mask.data, np.ndarray) else np.array(
                [(point.x, point.y) for point in mask.data], np.float64)
            masks[row], reason = polygon_mask(points, int(mask.height), int(mask.width))
            if reason:
                problems[reason] += 1
    with np.errstate(over='ignore', invalid='ignore'):
        corners = upright_boxes(boxes).astype(np.float32)
        instances = Instances.from_boxes(corners, scores, class_ids, names)
    return Found(instances.with_fields(masks=tuple(masks)), size, problems)
