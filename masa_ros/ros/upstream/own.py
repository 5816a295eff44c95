"""``masa_ros/TrackedObjectArray`` taken for detections: boxes, classes and masks without ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from masa_ros.ros.convert import LabelTable, object_mask
from masa_ros.ros.upstream.found import clean_name, Found
from masa_ros.structures.instances import Instances, TrackState
from masa_ros.structures.masks import RoiMask
import numpy as np


def read_array(messages: Sequence[Any], labels: LabelTable) -> Found:
    """
    Read the objects of one ``masa_ros/TrackedObjectArray`` that were seen in its image.

    Predicted and lost ones are left out, as a detection is an observation. A mask whose runs do
    not fit its region is counted, the box stays.
    """
    message = messages[0]
    objects = [entry for entry in message.objects if entry.state <= TrackState.TRACKED]
    problems: Counter[str] = Counter()
    masks: list[RoiMask | None] = []
    for entry in objects:
        mask = None
        try:
            mask = object_mask(entry)
        except ValueError:
            problems['masks whose runs do not fit'] += 1
        masks.append(mask)
    instances = Instances.from_boxes(
        [(entry.x0, entry.y0, entry.x1, entry.y1) for entry in objects],
        [entry.score for entry in objects], [entry.class_id for entry in objects],
        [clean_name(entry.label, problems) for entry in objects])
    size = (int(message.height), int(message.width))
    return Found(
        instances.with_fields(
            masks=tuple(masks),
            mask_qualities=np.array([entry.mask_quality for entry in objects], np.float32)),
        size if min(size) > 0 else None, problems)
