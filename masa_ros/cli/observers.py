"""Our detectors, models and tracker as the benchmark runner wants them."""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, field
from functools import cached_property, partial
import hashlib
import json
from pathlib import Path
from typing import Any

from masa_ros.cli.ignored_truth import image_size
from masa_ros.detectors import build_detector, detector_files, DetectorConfig
from masa_ros.detectors.detector import Detector
from masa_ros.detectors.selection import ClassConfig, ClassRules, Vocabulary
from masa_ros.evaluation.baselines import build_baseline, SequenceTracker
from masa_ros.evaluation.benchmark import Observer, ObserverSpec, TrackerSpec
from masa_ros.evaluation.datasets.files import bare
from masa_ros.evaluation.datasets.sequence import Sequence
from masa_ros.evaluation.sam2_video import Sam2Video
from masa_ros.models import build_model, ModelConfig, weight_files
from masa_ros.models.features import FeatureConfig
from masa_ros.models.model import Model
from masa_ros.models.weights import digest_of_contents
from masa_ros.regions import Regions, RegionsConfig
from masa_ros.structures.boxes import valid_boxes
from masa_ros.structures.frame import Frame
from masa_ros.structures.instances import Instances, TrackedInstances
from masa_ros.structures.settings import flatten
from masa_ros.tracking.registration import CAMERA_MOTION
from masa_ros.tracking.second_look import seen_by_mask
from masa_ros.tracking.tracker import Tracker, TrackerConfig
import numpy as np
from numpy.typing import NDArray

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
        settings += [flatten(model), digest_of_contents(weight_files(model)),
                     _source_digest('models')]
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
    classes : ClassConfig
        Which classes of given and detected boxes are used, and under which names.
    regions : RegionsConfig
        Parts of the images that count; as in the pipeline, boxes are judged before the model
        embeds them, and its own proposals by their masks.
    vocabulary : Vocabulary
        Numbers of the classes, where some are settled before.

    """

    source: str
    detector: DetectorConfig
    model: ModelConfig | None
    features: FeatureConfig | None = None
    classes: ClassConfig = field(default_factory=ClassConfig)
    regions: RegionsConfig = field(default_factory=RegionsConfig)
    vocabulary: Vocabulary = field(default_factory=Vocabulary, compare=False, repr=False)

    def __call__(self, sequence: Sequence) -> SequenceOf[Instances]:
        """
        Observe every frame of a sequence.

        Raises
        ------
        ValueError
            If the sequence does not have what the source needs.

        """
        stored = self._stored_boxes(sequence)
        model = self._model()
        if model is None and stored is not None:
            return stored
        detector = self._detector(model)
        try:
            found: list[Instances] = []
            for start in range(0, len(sequence), BATCH):
                positions = range(start, min(start + BATCH, len(sequence)))
                images = [sequence.image(position) for position in positions]
                given = None if stored is None else [stored[position] for position in positions]
                found += self.observe(images, given, model, detector)
            return found
        finally:
            if model is not None:
                model.close()
            if detector is not None:
                detector.close()

    def observe(
        self, images: list[NDArray[np.uint8]], given: list[Instances] | None,
        model: Model | None, detector: Detector | None,
        full_sizes: SequenceOf[tuple[int, int]] | None = None,
    ) -> list[Instances]:
        """
        Boxes of some images, embedded where there is a model, as in the pipeline.

        Parameters
        ----------
        images : list of ndarray
            ``(H, W, 3)`` uint8 RGB each.
        given : list of Instances or None
            Boxes that are known, ready to use; ``None`` where detector or model find them.
        model, detector : optional
            What does the work.
        full_sizes : sequence of tuple of int, optional
            Height and width of the camera's images, where these were made smaller.

        """
        sizes = full_sizes or [(image.shape[0], image.shape[1]) for image in images]
        whole: Any = model
        finder: Any = detector
        encoded = whole.encode(images) if getattr(detector, 'shares_features', False) else None
        boxes = given
        if detector is not None:
            found = (finder.detect(images) if encoded is None
                     else finder.detect_encoded(encoded, range(len(images))))
            boxes = self._outside_ignored(self._chosen(found), images, sizes, by_mask=False)
        if boxes is None:
            proposed = whole.run(images, [None] * len(images))
            return self._outside_ignored(proposed, images, sizes, by_mask=True)
        if model is None:
            return boxes
        return list(whole.run(images, boxes) if encoded is None
                    else whole.run(images, boxes, encoded))

    def _outside_ignored(
        self, found: list[Instances], images: list[NDArray[np.uint8]],
        sizes: SequenceOf[tuple[int, int]], *, by_mask: bool,
    ) -> list[Instances]:
        """Objects outside the ignored part of their images."""
        return [objects.select(self._regions.keeps(
            objects, *image.shape[:2], by_mask=by_mask, full_size=size))
            for objects, image, size in zip(found, images, sizes, strict=True)]

    @cached_property
    def _regions(self) -> Regions:
        return Regions(self.regions)

    def _chosen(self, found: list[Instances]) -> list[Instances]:
        """Keep the classes that the settings ask for, under their new names."""
        if self.classes == ClassConfig():
            return found
        return [self._rules.apply(objects) for objects in found]

    @cached_property
    def _rules(self) -> ClassRules:
        return ClassRules(self.classes, self.vocabulary)

    def _model(self) -> Model | None:
        if self.features is not None:
            # Needs torch, which bare boxes do not.
            from masa_ros.models.self_supervised import SelfSupervisedFeatures
            return SelfSupervisedFeatures(self.features)
        return None if self.model is None else build_model(self.model)

    def _detector(self, model: Model | None) -> Detector | None:
        """Detector, or None where boxes are stored or the model finds the objects."""
        if self.source not in ('detector', 'proposals'):
            return None
        if self.source == 'detector':
            if not self.detector.enabled:
                raise ValueError('no detector is named; give one, for example detector.name=onnx '
                                 'with detector.checkpoint=yolox_nano.onnx')
            detector = build_detector(self.detector, model)
            if detector is not None:
                return detector
        if model is None or not model.can_propose:
            raise ValueError(
                f'{"these features" if model is None else model.name} cannot find objects; '
                'choose a model that can (tiny, a sam or a masa model), or a detector')
        return None

    def _stored_boxes(self, sequence: Sequence) -> list[Instances] | None:
        """Boxes that come with the sequence; None where they have to be found."""
        if self.source == 'truth':
            boxes = self._stored(sequence, sequence.truth, 'ground truth')
        elif self.source == 'given':
            boxes = self._chosen(
                self._stored(sequence, sequence.detections, 'given detections'))
        else:
            return None
        if not self._regions:
            return boxes
        size = image_size(sequence)
        return [objects.select(self._regions.keeps(objects, *size, by_mask=False))
                for objects in boxes]

    @staticmethod
    def _stored(
        sequence: Sequence, stored: SequenceOf[Instances], what: str,
    ) -> list[Instances]:
        if not stored:
            raise ValueError(f'sequence {sequence.name} has no {what}; choose another source of '
                             'detections')
        size = (sequence.height_px or 10 ** 6, sequence.width_px or 10 ** 6)
        return [bare(objects).select(valid_boxes(objects.boxes, *size)) for objects in stored]


def _build(observation: Observation) -> Observer:
    return observation


def observer(name: str, observation: Observation) -> ObserverSpec:
    """Observation under a name; the fingerprint covers settings, weights files and the code."""
    settings: list[Any] = [observation.source, _source_digest('models', 'detectors')]
    if observation.source != 'truth':
        settings.append(flatten(observation.classes))
    regions = Regions(observation.regions)
    if regions:
        settings += [regions.digest(), _file_digest(str(Path(__file__).parents[1] / 'regions.py'))]
    if observation.source == 'detector':
        settings += [flatten(observation.detector),
                     digest_of_contents(detector_files(observation.detector))]
    if observation.model is not None:
        settings += [flatten(observation.model),
                     digest_of_contents(weight_files(observation.model))]
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
