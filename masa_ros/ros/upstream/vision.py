"""``vision_msgs/Detection2DArray``, and ``vision_msgs/Detection2D`` one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from masa_ros.ros.convert import detections_to_instances, LabelTable
from masa_ros.ros.upstream.found import clean_name, Found


def read_array(messages: Sequence[Any], labels: LabelTable) -> Found:
    """Read the detections of one ``vision_msgs/Detection2DArray``."""
    return _read(messages[0].detections, labels)


def read_objects(messages: Sequence[Any], labels: LabelTable) -> Found:
    """Read the detections of all ``vision_msgs/Detection2D`` of one image."""
    return _read(messages, labels)


def _read(detections: Sequence[Any], labels: LabelTable) -> Found:
    problems: Counter[str] = Counter()
    for detection in detections:
        for result in detection.results:
            hypothesis = result.hypothesis
            cleaned = clean_name(hypothesis.class_id, problems)
            if cleaned != hypothesis.class_id:
                hypothesis.class_id = cleaned
    # The converter reads nothing but this field of the message.
    array = SimpleNamespace(detections=detections)
    return Found(detections_to_instances(array, labels), None, problems)
