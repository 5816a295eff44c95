"""From serialized detection messages of several topics to one frame's instances."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from masa_ros.detectors.merge import merge_detections
from masa_ros.detectors.selection import ClassConfig, ClassRules, Vocabulary
from masa_ros.ros.convert import LabelTable
from masa_ros.ros.parameters import DetectionsConfig
from masa_ros.ros.upstream.arrival import Arrival
from masa_ros.ros.upstream.cdr import read_message
from masa_ros.ros.upstream.found import Found
from masa_ros.ros.upstream.placement import (
    DetectorSize,
    to_image,
    usable,
    without_bad_masks,
)
from masa_ros.structures.instances import Instances
import numpy as np


@dataclass(frozen=True)
class Detections:
    """
    What the upstream topics say about one image.

    Parameters
    ----------
    instances : Instances
        Boxes in the pixels of the image; `Instances.detected_by` says which topics gave them.
    problems : Counter
        What could not be used, by reason.

    """

    instances: Instances
    problems: Counter[str]


class DetectionReader:
    """
    Reads, places, checks and merges the detections of one image; used from one thread.

    Parameters
    ----------
    topics : int
        Number of topics.
    config : DetectionsConfig
        Settings.
    classes : ClassConfig
        Renaming and choice of classes, which come before boxes of several topics are compared.

    """

    def __init__(
        self, topics: int, config: DetectionsConfig, classes: ClassConfig | None = None,
    ) -> None:
        self._topics = topics
        self._labels = tuple(LabelTable(config.class_names) for _ in range(topics))
        self._vocabulary = Vocabulary(config.class_names)
        self._config = config
        self.reconfigure(config, classes or ClassConfig())

    def reconfigure(self, config: DetectionsConfig, classes: ClassConfig) -> None:
        """Take over changed settings; numbers that were given to names stay."""
        if config.class_names != self._config.class_names:
            self._labels = tuple(LabelTable(config.class_names) for _ in range(self._topics))
            self._vocabulary = Vocabulary(config.class_names)
        self._rules = ClassRules(classes, self._vocabulary)
        self._sizes = tuple(config.size_of(index) for index in range(self._topics))
        self._config = config

    def read(
        self, parts: Sequence[Arrival | None], height_px: int, width_px: int,
    ) -> Detections:
        """
        Make one frame's instances of what came from each topic.

        Parameters
        ----------
        parts : sequence of Arrival or None
            One per topic; ``None`` where nothing came for this image.
        height_px, width_px : int
            Size of the image.

        """
        problems: Counter[str] = Counter()
        origins, indices = [], []
        for index, part in enumerate(parts):
            found = None if part is None else self._deserialize(part, index, problems)
            if found is None:
                continue
            problems.update(found.problems)
            instances = self._place(found, index, height_px, width_px, problems)
            origins.append(self._rules.apply(instances) if self._topics > 1 else instances)
            indices.append(index)
        return Detections(self._merge(origins, indices), problems)

    def _deserialize(
        self, part: Arrival, index: int, problems: Counter[str],
    ) -> Found | None:
        try:
            kind = part.kind.message_class()
            messages = [read_message(part.kind.name, payload, kind) for payload in part.payloads]
            found = part.kind.reader()(messages, self._labels[index])
        except Exception:
            # Whatever a sender puts on the wire: its message is lost, the image is not.
            problems['messages that cannot be read'] += 1
            return None
        if len(found.instances) > self._config.max_objects:
            problems['messages with too many objects'] += 1
            return None
        return found

    def _place(
        self, found: Found, index: int, height_px: int, width_px: int, problems: Counter[str],
    ) -> Instances:
        """Boxes that can be used, in the pixels of the image."""
        instances = found.instances
        if not self._config.use_masks:
            instances = instances.with_fields(masks=(None,) * len(instances))
        size = self._sizes[index]
        if size is None:
            size = DetectorSize(*(found.size or (height_px, width_px)))
        instances = without_bad_masks(instances, size.height_px, size.width_px, problems)
        return usable(to_image(instances, size, height_px, width_px), height_px, width_px,
                      problems)

    def _merge(self, origins: Sequence[Instances], indices: Sequence[int]) -> Instances:
        """Boxes of all topics, each object once, with the topics that saw it."""
        bits = np.array([1 << index for index in indices], np.uint32)
        if len(origins) == 1:
            return origins[0].with_fields(
                detected_by=np.full(len(origins[0]), bits[0], np.uint32))
        merged = merge_detections(origins, self._config.merge_iou)
        seen_by = merged.seen_by.astype(np.uint32)
        return merged.instances.with_fields(
            detected_by=(seen_by * bits).sum(axis=1, dtype=np.uint32))
