"""Frame in, tracked instances out: the one thing the node and the commands call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
import hashlib
import json
import threading
import time
from typing import Any

from masa_ros.detectors import build_detector, detector_files, DetectorConfig, named
from masa_ros.detectors.detector import Detector
from masa_ros.detectors.prompts import unique_names, wanted_names
from masa_ros.detectors.selection import ClassConfig, ClassRules, Vocabulary
from masa_ros.models import build_model, ModelConfig
from masa_ros.models import weights as weight_digests
from masa_ros.models.model import Model
from masa_ros.prompts import Added, concatenated, Prompt, PromptedObjects, PromptsConfig, Wanted
from masa_ros.regions import Regions, RegionsConfig
from masa_ros.structures.boxes import clip_boxes, valid_boxes
from masa_ros.structures.frame import Frame
from masa_ros.structures.instances import Flag, Instances, TrackedInstances
from masa_ros.structures.settings import describe, flatten, group
from masa_ros.tracking.registration import CAMERA_MOTION, ImageRegistration, RotationFollower
from masa_ros.tracking.second_look import MissedTracks, seen_by_mask
from masa_ros.tracking.tracker import Tracker, TrackerConfig
import numpy as np
from numpy.typing import NDArray

_NO_DETECTOR = (
    'no detector runs in this process, so there are no classes to choose; set detector.name, such '
    'as grounding_dino, and start again')


@dataclass(frozen=True)
class PipelineConfig:
    """Everything that decides what comes out for given images; the fingerprint covers it."""

    model: ModelConfig = group(ModelConfig)
    detector: DetectorConfig = group(DetectorConfig)
    classes: ClassConfig = group(ClassConfig)
    regions: RegionsConfig = group(RegionsConfig)
    tracker: TrackerConfig = group(TrackerConfig)
    prompts: PromptsConfig = group(PromptsConfig)


@dataclass(frozen=True)
class FrameResult:
    """
    What the pipeline made of one frame.

    Parameters
    ----------
    tracks : TrackedInstances
        The objects with their identities, boxes in the frame's pixels.
    stage_times_ms : dict
        Wall time of each stage: ``detect``, ``segment``, ``track``. In a batch of several frames
        the first two are the batch's time divided by its size.
    rejected_detections : int
        Given boxes that could not be used (not finite, inverted, or outside the image, or with
        a score that is no number).
    used_detections : bool
        Whether boxes came from outside or from the detector; ``False`` for own proposals.
    ignored : int
        Objects left out because they are in an ignored part of the image.

    """

    tracks: TrackedInstances
    stage_times_ms: dict[str, float]
    rejected_detections: int
    used_detections: bool
    ignored: int = 0


@dataclass(frozen=True)
class _Seen:
    """What detector and model found in a frame, before tracking."""

    instances: Instances
    looked_for: NDArray[np.int64]
    rejected: int
    ignored: int
    used_detections: bool
    times_ms: dict[str, float]


class Pipeline:
    """
    Detect (optional), segment and embed, then track; one tracker for each stream.

    Parameters
    ----------
    config : PipelineConfig
        All settings.
    model, detector : optional
        Ready-made parts; built from the configuration when missing.
    reproducible : bool
        Make the UUIDs a function of the settings and of the first frame of each stream, so that
        running over a recording again gives the same ones. Random otherwise.

    """

    def __init__(
        self,
        config: PipelineConfig | None = None,
        *,
        model: Model | None = None,
        detector: Detector | None = None,
        reproducible: bool = False,
    ) -> None:
        self._reproducible = reproducible
        self._config = config or PipelineConfig()
        self._model = model or build_model(self._config.model)
        self._detector = detector or build_detector(self._config.detector, self._model)
        self._detector_digest = weight_digests.digest_of_contents(detector_files(
            named(self._config.detector, self._model.name)))
        self._vocabulary = Vocabulary()
        self._rules = ClassRules(self._config.classes, self._vocabulary)
        self._lock = threading.RLock()
        self._trackers: dict[str, Tracker] = {}
        self._followers: dict[str, ImageRegistration | RotationFollower] = {}
        self._regions = Regions(self._config.regions)
        self._own_regions: dict[str, Regions] = {}
        self._prompted = PromptedObjects(self._config.prompts)

    @property
    def config(self) -> PipelineConfig:
        """Return the settings in force."""
        return self._config

    @property
    def model(self) -> Model:
        """Return the model in use."""
        return self._model

    @property
    def detector(self) -> Detector | None:
        """Return the in-process detector, if there is one."""
        return self._detector

    @property
    def finds_objects(self) -> bool:
        """Whether frames can be processed without detections from outside."""
        return self._detector is not None or self._model.can_propose

    def fingerprint(self) -> str:
        """``<model>@<12 hex digits>`` over settings and weights; equal means same behaviour."""
        return f'{self._model.name}@{hashlib.sha256(self.description().encode()).hexdigest()[:12]}'

    def description(self) -> str:
        """JSON text of settings and weights that the fingerprint is made from."""
        weights = self._model.weights
        return json.dumps(
            {'settings': flatten(self._config), 'weights': weights.summary(),
             'sha256': weights.sha256,
             **({'sha256 of the detector': self._detector_digest}
                if self._detector_digest else {}),
             **{f'regions of {stream}': regions.digest()
                for stream, regions in {'': self._regions, **self._own_regions}.items()
                if regions}}, sort_keys=True)

    def warm_up(self) -> None:
        """Run every part once, so that the first real frame is not slow."""
        if self._detector is not None:
            self._detector.warm_up()
        self._model.warm_up()

    def process(self, frame: Frame, detections: Instances | None = None) -> FrameResult:
        """Process one frame; see `process_batch`."""
        return self.process_batch([frame], [detections])[0]

    def process_batch(
        self, frames: Sequence[Frame], detections: Sequence[Instances | None],
    ) -> list[FrameResult]:
        """
        Process one frame of each of several streams in one pass.

        Parameters
        ----------
        frames : sequence of Frame
            At most one per stream.
        detections : sequence of Instances or None
            Boxes from outside for each frame, in its pixels; ``None`` runs the in-process
            detector, or the model's own proposals where there is no detector.

        Returns
        -------
        list of FrameResult
            One per frame, in the order given.

        Raises
        ------
        ValueError
            If two frames share a stream, or the model has no proposals and no boxes are given.

        """
        results = self.process_each(frames, detections)
        for result in results:
            if isinstance(result, Exception):
                raise result
        return [result for result in results if isinstance(result, FrameResult)]

    def process_each(
        self, frames: Sequence[Frame], detections: Sequence[Instances | None],
    ) -> list[FrameResult | Exception]:
        """
        Process a batch like `process_batch`, but let one bad frame not spoil the others.

        Returns
        -------
        list of FrameResult or Exception
            For each frame its result, or why it has none. Where the batch fails as a whole its
            frames are tried one by one.

        Raises
        ------
        ValueError
            If two frames share a stream.

        """
        streams = [frame.stream for frame in frames]
        if len(set(streams)) != len(streams):
            raise ValueError(f'a batch holds two frames of one stream ({streams}); process them '
                             'one after the other')
        if not frames:
            return []
        try:
            seen = self._see(frames, detections)
        except Exception as error:
            if len(frames) == 1:
                return [error]
            return [self.process_each([frame], [boxes])[0]
                    for frame, boxes in zip(frames, detections, strict=True)]
        return [self._track(frame, one) for frame, one in zip(frames, seen, strict=True)]

    def _see(
        self, frames: Sequence[Frame], detections: Sequence[Instances | None],
    ) -> list[_Seen]:
        """Detect, segment and embed: everything before the trackers, which remember."""
        started = time.perf_counter()
        encoded = self._encode(frames, detections)
        given, rejected = self._observations(frames, detections, encoded)
        ignored = [0] * len(frames)
        for i, (frame, boxes) in enumerate(zip(frames, given, strict=True)):
            if boxes is not None:
                given[i], ignored[i] = self._without_ignored(frame, boxes, by_mask=False)
        wanted = [self._prompted.look_for(frame, self._trackers.get(frame.stream))
                  for frame in frames]
        starts = [0] * len(frames)
        for i, boxes in enumerate(given):
            if boxes is not None:
                wanted[i], starts[i] = wanted[i].without(boxes.boxes), len(boxes)
                given[i] = concatenated(boxes, wanted[i].instances)
        missed = [self._missed(frame, boxes) for frame, boxes in zip(frames, given, strict=True)]
        given = [boxes if boxes is None else tracks.added_to(boxes)
                 for boxes, tracks in zip(given, missed, strict=True)]
        detected = time.perf_counter()
        images = [frame.image for frame in frames]
        instances = (self._model.run(images, given) if encoded is None
                     else self._sharing_model.run(images, given, encoded))
        for i, (frame, boxes) in enumerate(zip(frames, given, strict=True)):
            if boxes is None:
                instances[i], ignored[i] = self._without_ignored(
                    frame, instances[i], by_mask=True)
                wanted[i], starts[i] = wanted[i].without(instances[i].boxes), len(instances[i])
                instances[i] = self._look_for(frame, instances[i], wanted[i])
                instances[i], missed[i] = self._look_again(frame, instances[i])
        segmented = time.perf_counter()
        times_ms = {'detect': 1e3 * (detected - started) / len(frames),
                    'segment': 1e3 * (segmented - detected) / len(frames)}
        quality = self._config.tracker.second_look_quality
        seen = [_Seen(*seen_by_mask(_with_given_masks(found, boxes), tracks, quality), bad,
                      left_out, boxes is not None, times_ms)
                for found, tracks, bad, left_out, boxes in zip(
                    instances, missed, rejected, ignored, given, strict=True)]
        for one, first, asked in zip(seen, starts, wanted, strict=True):
            one.looked_for[first:first + len(asked)] = asked.track_ids
        return seen

    def _track(self, frame: Frame, seen: _Seen) -> FrameResult | Exception:
        """Give the objects of one frame their identities."""
        before = time.perf_counter()
        try:
            tracks = self._tracker(frame).update(
                _flag_truncated(seen.instances, frame), frame.frame_index, frame.stamp_ns,
                (frame.height_px, frame.width_px), looked_for=seen.looked_for)
        except Exception as error:
            return error
        self._prompted.done(frame, tracks)
        return FrameResult(
            tracks, {**seen.times_ms, 'track': 1e3 * (time.perf_counter() - before)},
            seen.rejected, seen.used_detections, seen.ignored)

    def _missed(self, frame: Frame, boxes: Instances | None) -> MissedTracks:
        """Follow the camera and tell which tracks to look for once more."""
        tracker = self._tracker(frame)
        kind = CAMERA_MOTION.get(self._config.tracker.camera_motion)
        if kind is not None:
            self._followers.setdefault(frame.stream, kind()).follow(tracker, frame)
        if boxes is None:
            return MissedTracks.none()
        return tracker.missed(boxes.boxes, frame.stamp_ns, (frame.height_px, frame.width_px))

    def _look_for(self, frame: Frame, found: Instances, wanted: Wanted) -> Instances:
        """Ask the model about prompted objects that its own proposals missed."""
        if not len(wanted):
            return found
        # All together: embeddings may depend on who else is in the image.
        again = self._model.run([frame.image], [concatenated(found, wanted.instances)])[0]
        first = len(found)
        return again.with_fields(
            masks=(*found.masks, *again.masks[first:]),
            mask_qualities=np.concatenate(
                [found.mask_qualities, again.mask_qualities[first:]]))

    def _look_again(self, frame: Frame, found: Instances) -> tuple[Instances, MissedTracks]:
        """Ask the model about tracks that its own proposals missed, in a second pass."""
        tracks = self._tracker(frame).missed(
            found.boxes, frame.stamp_ns, (frame.height_px, frame.width_px))
        if not len(tracks):
            return found, tracks
        # All together: embeddings may depend on who else is in the image.
        again = self._model.run([frame.image], [tracks.added_to(found)])[0]
        first = len(found)
        return again.with_fields(
            masks=(*found.masks, *again.masks[first:]),
            mask_qualities=np.concatenate(
                [found.mask_qualities, again.mask_qualities[first:]])), tracks

    def follow_camera(self, stream: str, homography: NDArray[np.float64]) -> None:
        """
        Tell how the camera of a stream moved since its last frame, where something knows.

        For what `Frame.view` cannot say; leave the setting ``tracker.camera_motion`` at ``none``
        then.

        Parameters
        ----------
        stream : str
            Name of the stream; nothing happens before its first frame.
        homography : ndarray
            ``(3, 3)`` from pixels of the last frame to pixels of the next one.

        Raises
        ------
        ValueError
            If it is not a finite 3 x 3 matrix.

        """
        if stream in self._trackers:
            self._trackers[stream].follow_camera(homography)

    def _without_ignored(
        self, frame: Frame, found: Instances, by_mask: bool,
    ) -> tuple[Instances, int]:
        """Objects outside the ignored part of the stream's images, and how many were in it."""
        kept = self.regions(frame.stream).keeps(
            found, frame.height_px, frame.width_px, by_mask=by_mask)
        return (found, 0) if kept.all() else (found.select(kept), int((~kept).sum()))

    def regions(self, stream: str) -> Regions:
        """Return what is ignored in the images of a stream."""
        return self._own_regions.get(stream, self._regions)

    def set_regions(self, stream: str, config: RegionsConfig) -> None:
        """
        Ignore something else in the images of a stream than in those of the others.

        Raises
        ------
        FileNotFoundError, ValueError
            If an image file is missing or cannot be read.

        """
        if stream in self._own_regions and self._own_regions[stream].config == config:
            return
        self._own_regions[stream] = Regions(config)

    def reset(self, stream: str | None = None) -> None:
        """Forget the tracks of one stream, or of all; ids start anew, UUIDs stay unique."""
        for name, tracker in self._trackers.items():
            if stream is None or name == stream:
                tracker.reset()
                self._followers.pop(name, None)
                self._prompted.forget(name)

    def reconfigure(self, config: PipelineConfig) -> None:
        """
        Apply changed settings without losing tracks, from the next frame on.

        Raises
        ------
        ValueError
            If a setting changed that cannot change while running (model, weights, device), or
            the detector cannot look for the classes. Nothing changes then.

        """
        before, after = flatten(self._config), flatten(config)
        known = describe(PipelineConfig)
        fixed = [name for name, value in after.items()
                 if value != before[name] and not known[name][1].dynamic]
        if fixed:
            raise ValueError(f'{", ".join(fixed)} cannot change while running; build a new '
                             'Pipeline with the changed settings')
        with self._lock:
            # First what may be refused, so that nothing has changed then.
            if config.detector != self._config.detector:
                self._reconfigure_detector(config.detector)
            if config.model != self._config.model:
                self._model.reconfigure(config.model)
            if config.classes != self._config.classes:
                self._rules = ClassRules(config.classes, self._vocabulary)
            if config.regions != self._config.regions:
                self._regions = Regions(config.regions)
            self._prompted.config = config.prompts
            for tracker in self._trackers.values():
                tracker.reconfigure(config.tracker)
            if config.tracker.camera_motion != self._config.tracker.camera_motion:
                self._followers.clear()
            self._config = config

    def _reconfigure_detector(self, config: DetectorConfig) -> None:
        """Pass settings to the detector; without one classes to find are refused."""
        if self._detector is not None:
            self._detector.reconfigure(config)
        elif wanted_names(config.classes, config.text):
            raise ValueError(_NO_DETECTOR)

    def set_classes(self, names: Sequence[str]) -> None:
        """
        Change what the in-process detector looks for, from the next frame on.

        May be called from any thread, also while a frame is processed. The settings
        ``detector.classes`` and ``detector.text`` change with it.

        Parameters
        ----------
        names : sequence of str
            Class names; none means all that the detector knows.

        Raises
        ------
        ValueError
            If there is no in-process detector, or it cannot look for these. Nothing changes
            then.

        """
        if self._detector is None:
            raise ValueError(_NO_DETECTOR)
        with self._lock:
            wanted = unique_names(names)
            self._detector.set_classes(wanted)
            self._config = replace(self._config, detector=replace(
                self._config.detector, classes=wanted, text=''))

    def add_object(self, stream: str, prompt: Prompt) -> Added:
        """
        Track an object that is pointed at, from the next frame on.

        Call it between two frames, in the thread that processes them.

        Raises
        ------
        ValueError
            If it cannot be done: no frame was processed yet, the prompt is not in the image, or
            nothing can be told from it. The text says why and what to do instead.

        """
        return self._prompted.add(
            stream, prompt, self._model, self._trackers.get(stream), self.regions(stream))

    def image_for_prompt(self, stream: str, stamp_ns: int) -> Frame:
        """
        Image that a prompt with some stamp goes to: the one with that stamp, or the newest.

        Raises
        ------
        ValueError
            If no image of the stream was processed yet.

        """
        return self._prompted.image(stream, stamp_ns)

    def remove_object(self, stream: str, track_id: int) -> None:
        """
        Stop tracking an object; it is reported as removed with the next frame.

        Raises
        ------
        ValueError
            If there is none with this id.

        """
        tracker = self._trackers.get(stream)
        if tracker is None:
            raise ValueError(f'there is no object {track_id}; no image has been processed yet')
        tracker.remove(track_id)
        self._prompted.forget(stream, track_id)

    def objects(self, stream: str) -> TrackedInstances:
        """Every object that the tracker of a stream remembers, as it was last known."""
        tracker = self._trackers.get(stream)
        return TrackedInstances() if tracker is None else tracker.known()

    def close(self) -> None:
        """Free the memory of model and detector."""
        self._model.close()
        if self._detector is not None:
            self._detector.close()

    def _tracker(self, frame: Frame) -> Tracker:
        if frame.stream not in self._trackers:
            seed = {'seed': self._seed(frame)} if self._reproducible else {}
            self._trackers[frame.stream] = Tracker(self._config.tracker, **seed)
        return self._trackers[frame.stream]

    def _seed(self, frame: Frame) -> str:
        """Text that differs between recordings and is the same for the same one."""
        image = hashlib.sha256(frame.image.tobytes()).hexdigest()
        return f'{self.fingerprint()} {frame.stream} {frame.stamp_ns} {image}'

    @property
    def _sharing_model(self) -> Any:
        """Return the model as one with ``encode``: the detector has found that it is one."""
        return self._model

    def _encode(
        self, frames: Sequence[Frame], detections: Sequence[Instances | None],
    ) -> Any:
        """Features for model and detector, where the detector shares them and is needed."""
        if not getattr(self._detector, 'shares_features', False) or all(
                boxes is not None for boxes in detections):
            return None
        return self._sharing_model.encode([frame.image for frame in frames])

    def _observations(
        self, frames: Sequence[Frame], detections: Sequence[Instances | None], encoded: Any,
    ) -> tuple[list[Instances | None], list[int]]:
        """Boxes to use for each frame, checked, and how many were refused."""
        given = list(detections)
        missing = [i for i, boxes in enumerate(given) if boxes is None]
        detector: Any = self._detector
        if detector is not None and missing:
            found = (detector.detect([frames[i].image for i in missing]) if encoded is None
                     else detector.detect_encoded(encoded, missing))
            for i, detected in zip(missing, found, strict=True):
                given[i] = detected
        rules = self._rules
        given = [None if boxes is None else rules.apply(boxes) for boxes in given]
        rejected = [0] * len(given)
        for i, boxes in enumerate(given):
            if boxes is None:
                continue
            usable = valid_boxes(boxes.boxes, frames[i].height_px, frames[i].width_px)
            usable &= np.isfinite(boxes.scores)
            rejected[i] = int((~usable).sum())
            given[i] = boxes.select(usable) if rejected[i] else boxes
        return given, rejected


def _with_given_masks(found: Instances, given: Instances | None) -> Instances:
    """Put masks that came with the boxes in the place of the model's."""
    if given is None or not any(given.masks):
        return found
    own = np.array([mask is not None for mask in given.masks])
    flags = found.flags.copy()
    flags[own] &= ~np.uint8(Flag.MASK_SKIPPED)
    return found.with_fields(
        masks=tuple(ours or theirs
                    for ours, theirs in zip(given.masks, found.masks, strict=True)),
        mask_qualities=np.where(own, given.mask_qualities, found.mask_qualities), flags=flags)


def _flag_truncated(instances: Instances, frame: Frame) -> Instances:
    """Mark boxes that touch or leave the image border."""
    inside = clip_boxes(instances.boxes, frame.height_px - 1, frame.width_px - 1)
    touches = (instances.boxes[:, :2] < 1).any(axis=1) | (
        instances.boxes[:, 2:] > inside[:, 2:]).any(axis=1)
    flags = instances.flags.copy()
    flags[touches] |= int(Flag.TRUNCATED)
    return instances.with_fields(flags=flags)
