"""The recording of ``masa_ros demo``: a rendered street, or what the user gives, as a bag."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from masa_ros.cli.inputs import choose_topics, Input, SourceInput
from masa_ros.cli.progress import frame_bar
from masa_ros.evaluation.datasets.sequence import Sequence, with_ids
from masa_ros.rendering import GroundTruth, imperfect_detections, Scene, SceneConfig
from masa_ros.ros.bag import BagReader, BagWriter, is_bag
from masa_ros.ros.bag_definitions import COMPRESSED_IMAGE
from masa_ros.ros.convert import (
    instances_to_detections,
    make_header,
    rgb_to_compressed,
    TrackInfo,
    tracks_to_message,
)
from masa_ros.structures.instances import Instances, TrackedInstances
import numpy as np
from numpy.typing import NDArray

IMAGE_TOPIC = '/camera/image/compressed'
DETECTIONS_TOPIC = '/detections'
TRUTH_TOPIC = '/ground_truth'
FRAME_ID = 'camera_optical_frame'
# Any time will do, as long as it is the same on every run and none that ROS takes for missing.
START_NS = 1_700_000_000_000_000_000
JPEG_QUALITY = 92
MIN_VISIBILITY = 0.2
MIN_SIDE_PX = 4
# A detection comes a little after its image, as from a real detector.
_DETECTOR_DELAY_NS = 5_000_000


@dataclass(frozen=True)
class Recording:
    """
    What is played in the demo.

    Parameters
    ----------
    bag : Path
        Bag with images and perhaps detections.
    image_topic, image_type : str
        Topic of the images and its type.
    detections_topic : str
        Topic of the detections; empty where there are none.
    description : str
        What it shows.
    truth : Sequence or None
        Ground truth with one entry per image, where it is known.

    """

    bag: Path
    image_topic: str
    image_type: str
    detections_topic: str
    description: str
    truth: Sequence | None = None


def render_recording(
    bag: Path, config: SceneConfig, seed: int, rate_hz: float, detections: bool = True,
) -> Recording:
    """
    Render a street into a bag: images, the truth and perhaps imperfect detections.

    Parameters
    ----------
    bag : Path
        Bag to write.
    config : SceneConfig
        Size, duration and contents.
    seed : int
        Which street.
    rate_hz : float
        Frames per second.
    detections : bool
        Whether to simulate a detector; otherwise the model must find objects by itself.

    """
    scene = Scene(seed, config)
    times = np.arange(0, config.duration_s, 1 / rate_hz)
    truths: list[GroundTruth] = []
    stamps = START_NS + np.round(times * 1e9).astype(np.int64)
    with BagWriter(bag) as writer:
        for index, (time_s, stamp_ns) in enumerate(
                zip(frame_bar(times.tolist()), stamps.tolist(), strict=True)):
            frame = scene.render(time_s)
            _write_image(writer, frame.image, stamp_ns)
            if detections:
                _write_boxes(writer, imperfect_detections(
                    frame.truth, index, config.height_px, config.width_px, seed), stamp_ns)
            _write_truth(writer, truth_objects(frame.truth), index, stamp_ns, config)
            truths.append(frame.truth)
    return Recording(
        bag, IMAGE_TOPIC, COMPRESSED_IMAGE, DETECTIONS_TOPIC if detections else '',
        f'a rendered street (seed {seed}), {config.width_px} x {config.height_px}, '
        f'{len(times)} frames at {rate_hz:g} Hz'
        + (', imperfect detections' if detections else ', no detections'),
        truth_sequence(truths, stamps, rate_hz, config))


def truth_objects(truth: GroundTruth) -> TrackedInstances:
    """Objects with their visible boxes and masks; the score is the visible share."""
    boxes = Instances.from_boxes(truth.visible_boxes, truth.visibilities, truth.class_ids,
                                 truth.labels)
    return with_ids(boxes.with_fields(masks=truth.masks), truth.track_ids)


def truth_sequence(
    truths: list[GroundTruth], stamps_ns: NDArray[np.int64], rate_hz: float, config: SceneConfig,
) -> Sequence:
    """
    Truth to score against.

    Objects that are hardly visible or tiny are neither right nor wrong: they are distractors.
    """
    kept, others = [], []
    for truth in truths:
        sides = truth.visible_boxes[:, 2:] - truth.visible_boxes[:, :2]
        large = sides.min(axis=1, initial=np.inf) >= MIN_SIDE_PX
        counted = (truth.visibilities >= MIN_VISIBILITY) & large
        objects = truth_objects(truth)
        kept.append(objects.select(counted))
        others.append(objects.select(~counted & (truth.visibilities > 0)).boxes)
    return Sequence(
        'street', np.arange(len(truths)), stamps_ns, rate_hz, height_px=config.height_px,
        width_px=config.width_px, truth=tuple(kept), distractors=tuple(others))


def given_recording(
    path: Path, bag: Path, topics: list[str], detections: str, fps: float | None,
    duration_s: float, with_detector: bool,
) -> Recording:
    """
    Take a user's bag as it is, or bring a video or image folder into a bag.

    Parameters
    ----------
    path : Path
        The recording.
    bag : Path
        Bag to write, where one is needed.
    topics, detections, fps
        As in `masa_ros.cli.inputs.open_input`.
    duration_s : float
        How much of a video to take.
    with_detector : bool
        Whether the boxes come from a detector instead of the recording.

    Raises
    ------
    FileNotFoundError
        If there is nothing at the path.
    ValueError
        If it is no recording.

    """
    if is_bag(path):
        with BagReader(path) as reader:
            pairs = choose_topics(reader, topics, detections, automatic=not with_detector)
            types = {topic.name: topic.type_name for topic in reader.image_topics()}
        image_topic, boxes = next(iter(pairs.items()))
        if image_topic not in types:
            raise ValueError(f'{path} has no images on {image_topic!r}; it has '
                             + ', '.join(types))
        return Recording(path, image_topic, types[image_topic], boxes, f'{path}, {image_topic}')
    source = SourceInput(path, detections, fps, automatic=not with_detector)
    count = _write_source(source, bag, duration_s)
    return Recording(bag, IMAGE_TOPIC, COMPRESSED_IMAGE,
                     DETECTIONS_TOPIC if source.has_detections else '',
                     f'{source.description}, {count} frames')


def _write_source(source: Input, bag: Path, duration_s: float) -> int:
    """Write a video or image folder into a bag; returns the number of frames."""
    count = 0
    with BagWriter(bag) as writer:
        for item in frame_bar(source, source.total):
            if item.frame.stamp_ns >= duration_s * 1e9:
                break
            stamp_ns = START_NS + item.frame.stamp_ns
            _write_image(writer, item.frame.image, stamp_ns)
            if item.detections is not None:
                _write_boxes(writer, item.detections, stamp_ns)
            count += 1
    return count


def _write_image(writer: BagWriter, image: NDArray[np.uint8], stamp_ns: int) -> None:
    header = make_header(stamp_ns, FRAME_ID, writer.builder)
    writer.write(IMAGE_TOPIC, rgb_to_compressed(image, header, 'jpeg', JPEG_QUALITY,
                                                writer.builder), stamp_ns)


def _write_boxes(writer: BagWriter, boxes: Instances, stamp_ns: int) -> None:
    header = make_header(stamp_ns, FRAME_ID, writer.builder)
    writer.write(DETECTIONS_TOPIC, instances_to_detections(boxes, header, writer.builder),
                 stamp_ns + _DETECTOR_DELAY_NS)


def _write_truth(
    writer: BagWriter, objects: TrackedInstances, index: int, stamp_ns: int, config: SceneConfig,
) -> None:
    info = TrackInfo(config.height_px, config.width_px, 'ground truth', index)
    header = make_header(stamp_ns, FRAME_ID, writer.builder)
    writer.write(TRUTH_TOPIC, tracks_to_message(objects, header, info, builder=writer.builder),
                 stamp_ns)
