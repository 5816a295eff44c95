"""Messages of every upstream type from one description of the objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

ARRAY = 'vision_msgs/msg/Detection2DArray'
SINGLE = 'vision_msgs/msg/Detection2D'
YOLO = 'yolo_msgs/msg/DetectionArray'
TIER4 = 'tier4_perception_msgs/msg/DetectedObjectsWithFeature'
OWN = 'masa_ros/msg/TrackedObjectArray'
AUTOWARE_NUMBERS = {'unknown': 0, 'car': 1, 'bus': 3, 'pedestrian': 7}


@dataclass(frozen=True)
class Thing:
    """An object: corners, class, score, and corners of its mask."""

    box: tuple[float, float, float, float] = (10, 8, 30, 40)
    label: str = 'car'
    number: int = 2
    score: float = 0.9
    polygon: tuple[tuple[float, float], ...] = ()
    image_size: tuple[int, int] = (48, 64)
    """Height and width."""


def message_class(kind: str) -> Any:
    package, _, name = kind.split('/')
    return getattr(import_module(f'{package}.msg'), name)


def make(kind: str, header: Any, things: Sequence[Thing]) -> list[Any]:
    """One message with all objects, or one for each where the type is so."""
    if kind == SINGLE:
        return [vision(header, thing) for thing in things]
    array = message_class(kind)(header=header)
    if kind == ARRAY:
        array.detections = [vision(header, thing) for thing in things]
    elif kind == YOLO:
        array.detections = [yolo(thing) for thing in things]
    elif kind == TIER4:
        array.feature_objects = [tier4(thing) for thing in things]
    else:
        array.height, array.width = things[0].image_size if things else (48, 64)
        array.objects = [own(thing) for thing in things]
    return [array]


def vision(header: Any, thing: Thing) -> Any:
    from vision_msgs.msg import Detection2D, ObjectHypothesisWithPose
    detection = Detection2D(header=header)
    x0, y0, x1, y1 = thing.box
    detection.bbox.center.position.x = (x0 + x1) / 2
    detection.bbox.center.position.y = (y0 + y1) / 2
    detection.bbox.size_x, detection.bbox.size_y = float(x1 - x0), float(y1 - y0)
    result = ObjectHypothesisWithPose()
    result.hypothesis.class_id, result.hypothesis.score = thing.label, thing.score
    detection.results = [result]
    return detection


def yolo(thing: Thing) -> Any:
    from yolo_msgs.msg import Detection, Point2D
    detection = Detection(class_id=thing.number, class_name=thing.label, score=thing.score)
    x0, y0, x1, y1 = thing.box
    center, size = detection.bbox.center.position, detection.bbox.size
    center.x, center.y = (x0 + x1) / 2, (y0 + y1) / 2
    size.x, size.y = float(x1 - x0), float(y1 - y0)
    if thing.polygon:
        detection.mask.height, detection.mask.width = thing.image_size
        detection.mask.data = [Point2D(x=float(x), y=float(y)) for x, y in thing.polygon]
    return detection


def tier4(thing: Thing) -> Any:
    from autoware_perception_msgs.msg import ObjectClassification
    from tier4_perception_msgs.msg import DetectedObjectWithFeature
    entry = DetectedObjectWithFeature()
    roi = entry.feature.roi
    roi.x_offset, roi.y_offset = int(thing.box[0]), int(thing.box[1])
    roi.width = int(thing.box[2] - thing.box[0])
    roi.height = int(thing.box[3] - thing.box[1])
    entry.object.existence_probability = thing.score
    entry.object.classification = [ObjectClassification(
        label=AUTOWARE_NUMBERS.get(thing.label, 0), probability=1.0)]
    return entry


def own(thing: Thing) -> Any:
    from masa_ros.msg import TrackedObject
    x0, y0, x1, y1 = map(float, thing.box)
    return TrackedObject(
        state=TrackedObject.STATE_TRACKED, class_id=thing.number, label=thing.label,
        score=thing.score, x0=x0, y0=y0, x1=x1, y1=y1)
