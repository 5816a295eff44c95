"""Our detectors, models and tracker as the benchmark runner wants them."""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, replace
from functools import partial
import hashlib
import json
from pathlib import Path
from typing import Any

from masa_ros.detectors import build_detector, DetectorConfig
from masa_ros.evaluation.baselines import build_baseline, SequenceTracker
from masa_ros.evaluation.benchmark import Observer, ObserverSpec, TrackerSpec
from masa_ros.evaluation.datasets.sequence import Sequence
from masa_ros.evaluation.sam2_video import Sam2Video
from masa_ros.models import build_model, ModelConfig
from masa_ros.models.features import FeatureConfig
from masa_ros.models.model import Model
from masa_ros.structures.boxes import valid_boxes
from masa_ros.structures.frame import Frame
from masa_ros.structures.instances import Instances, TrackedInstances
from masa_ros.structures.settings import flatten
from masa_ros.tracking.registration import CAMERA_MOTION
from masa_ros.tracking.second_look import seen_by_mask
from masa_ros.tracking.tracker import Tracker, TrackerConfig

BATCH = 4


class OwnTracker:
    """
    Our tracker as the benchmark wants it.

    Parameters
    ----------
    config : TrackerConfig
        Settings; with ``camera_motion`` the frames must have their images (``registration``) or
        their views (``odometry``).
    model : ModelConfig, optional
        Looks again for missed tracks, where ``second_look_seconds`` asks for it. Unlike in the
        pipeline it then runs once more on such a frame, as the detections were embedded before.

    """

    def __init__(self, config: TrackerConfig, model: ModelConfig | None = None) -> None:
        self._config = config
        self._tracker = Tracker(config, seed='benchmark')
        follower = CAMERA_MOTION.get(config.camera_motion)
        self._follower = None if follower is None else follower()
        looks = model is not None and config.second_look_seconds > 0
        self._model = build_model(model) if model is not None and looks else None

    def update(self, frame: Frame, instances: Instances) -> TrackedInstances:
        """Track one frame."""
        size = frame.height_px, frame.width_px
        if self._follower is not None:
            self._follower.follow(self._tracker, frame)
        looked_for = None
        if self._model is not None:
            missed = self._tracker.missed(instances.boxes, frame.stamp_ns, size)
            if len(missed):
                found = self._model.run([frame.image], [missed.added_to(instances)])[0]
                instances, looked_for = seen_by_mask(
                    found, missed, self._config.second_look_quality)
        return self._tracker.update(instances, frame.frame_index, frame.stamp_ns, size,
                                    looked_for=looked_for)


def _own(
    config: TrackerConfig, model: ModelConfig | None, rate_hz: float,
) -> SequenceTracker:
    return OwnTracker(config, model)


def own_tracker(
    name: str, config: TrackerConfig, model: ModelConfig | None = None,
) -> TrackerSpec:
    """Our tracker with some settings under a name; the model is for second looks."""
    looks = model is not None and config.second_look_seconds > 0
    settings = [flatten(config), _source_digest('tracking')]
    if looks and model is not None:
        settings += [flatten(model), _source_digest('models')]
    return TrackerSpec(name, _digest(settings), partial(_own, config, model),
                       needs_images=looks or config.camera_motion == 'registration')


def _sam2(config: str, checkpoint: str, rate_hz: float) -> SequenceTracker:
    return Sam2Video.from_files(config, checkpoint)


def sam2_tracker(config: str, checkpoint: str) -> TrackerSpec:
    """SAM 2's video predictor."""
    return TrackerSpec('sam2', _digest([config, _file_digest(checkpoint)]),
                       partial(_sam2, config, checkpoint), needs_images=True)


def _baseline(name: str, options: dict[str, Any], rate_hz: float) -> SequenceTracker:
    return build_baseline(name, rate_hz, options)


def baseline_tracker(name: str, kind: str, **options: Any) -> TrackerSpec:
    """Baseline of a kind with some options under a name."""
    return TrackerSpec(name, _digest([kind, options]), partial(_baseline, kind, options),
                       needs_images=kind == 'botsort')


@dataclass(frozen=True)
class Observation:
    """
    How a sequence becomes instances.

    Parameters
    ----------
    source : {'truth', 'given', 'detector', 'proposals'}
        Boxes of the truth, those that came with the data set, those of an in-process detector,
        or the model's own proposals.
    detector : DetectorConfig
        For ``detector``.
    model : ModelConfig or None
        Embeds (and segments) the boxes; ``None`` leaves them bare.
    features : FeatureConfig or None
        Self-supervised features that embed the boxes instead.

    """

    source: str
    detector: DetectorConfig
    model: ModelConfig | None
    features: FeatureConfig | None = None

    def __call__(self, sequence: Sequence) -> SequenceOf[Instances]:
        """
        Observe every frame of a sequence.

        Raises
        ------
        ValueError
            If the sequence does not have what the source needs.

        """
        boxes = self._boxes(sequence)
        model = self._model()
        if model is None:
            return boxes
        try:
            found: list[Instances] = []
            for start in range(0, len(sequence), BATCH):
                positions = range(start, min(start + BATCH, len(sequence)))
                found += model.run([sequence.image(position) for position in positions],
                                   [boxes[position] if boxes else None
                                    for position in positions])
            return found
        finally:
            model.close()

    def _model(self) -> Model | None:
        if self.features is not None:
            # Needs torch, which bare boxes do not.
            from masa_ros.models.self_supervised import SelfSupervisedFeatures
            return SelfSupervisedFeatures(self.features)
        return None if self.model is None else build_model(self.model)

    def _boxes(self, sequence: Sequence) -> list[Instances]:
        if self.source == 'truth':
            return self._stored(sequence, sequence.truth, 'ground truth')
        if self.source == 'given':
            return self._stored(sequence, sequence.detections, 'given detections')
        if self.source == 'proposals':
            return []
        detector = build_detector(self.detector)
        if detector is None:
            raise ValueError('no detector is named; give one, for example detector.name=onnx '
                             'with detector.checkpoint=yolox_nano.onnx')
        try:
            found: list[Instances] = []
            for position in range(len(sequence)):
                found += detector.detect([sequence.image(position)])
            return found
        finally:
            detector.close()

    @staticmethod
    def _stored(
        sequence: Sequence, stored: SequenceOf[Instances], what: str,
    ) -> list[Instances]:
        if not stored:
            raise ValueError(f'sequence {sequence.name} has no {what}; choose another source of '
                             'detections')
        size = (sequence.height_px or 10 ** 6, sequence.width_px or 10 ** 6)
        return [_bare(objects).select(valid_boxes(objects.boxes, *size)) for objects in stored]


def _bare(objects: Instances) -> Instances:
    """Boxes, scores and classes only, without the identities of a truth."""
    return replace(Instances.from_boxes(objects.boxes, objects.scores, objects.class_ids,
                                        objects.labels), masks=objects.masks)


def _build(observation: Observation) -> Observer:
    return observation


def observer(name: str, observation: Observation) -> ObserverSpec:
    """Observation under a name; the fingerprint covers settings, weights files and the code."""
    settings: list[Any] = [observation.source, _source_digest('models', 'detectors')]
    if observation.source == 'detector':
        settings += [flatten(observation.detector), _file_digest(observation.detector.checkpoint)]
    if observation.model is not None:
        settings += [flatten(observation.model), _file_digest(observation.model.checkpoint),
                     _file_digest(observation.model.adapter_checkpoint)]
    if observation.features is not None:
        settings += [vars(observation.features), _file_digest(observation.features.checkpoint)]
    return ObserverSpec(name, _digest(settings), partial(_build, observation))


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _file_digest(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest() if path and Path(path).is_file() \
        else ''


def _source_digest(*parts: str) -> str:
    """Digest of the code of some parts, so that kept results do not outlive a change of it."""
    digest = hashlib.sha256()
    for part in parts:
        for path in sorted((Path(__file__).parents[1] / part).rglob('*.py')):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
