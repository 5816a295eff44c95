"""What a detector of limited quality would report about a rendered frame."""

from __future__ import annotations

from dataclasses import dataclass

from masa_ros.rendering.scene import GroundTruth
from masa_ros.rendering.traffic import CLASS_NAMES
from masa_ros.structures.boxes import box_areas, clip_boxes
from masa_ros.structures.instances import Instances
from masa_ros.structures.settings import setting
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class DetectorNoiseConfig:
    """How a simulated detector fails."""

    min_visibility: float = setting(
        0.15, 'Objects less visible than this are never detected.', minimum=0.0, maximum=1.0)
    miss_rate: float = setting(
        0.05, 'Chance to miss a fully visible object in one frame.', minimum=0.0, maximum=1.0)
    occluded_miss_rate: float = setting(
        0.35, 'Chance to miss an object at the lowest visibility.', minimum=0.0, maximum=1.0)
    gap_rate: float = setting(
        0.04, 'Chance to lose an object for a whole gap.', minimum=0.0, maximum=1.0)
    gap_frames: int = setting(5, 'Length of a gap.', minimum=1, maximum=1000)
    jitter: float = setting(
        0.03, 'Standard deviation of each box edge, as a share of the box size.', minimum=0.0,
        maximum=1.0)
    false_positives: float = setting(
        0.6, 'Mean number of false boxes in a frame.', minimum=0.0, maximum=100.0)
    duplicate_rate: float = setting(
        0.03, 'Chance of a second box on an object.', minimum=0.0, maximum=1.0)
    class_error_rate: float = setting(
        0.03, 'Chance of a wrong class.', minimum=0.0, maximum=1.0)
    score_noise: float = setting(
        0.08, 'Standard deviation of the scores.', minimum=0.0, maximum=1.0)


def perfect_detections(truth: GroundTruth, min_visibility: float = 0.15) -> Instances:
    """Return exact visible boxes with classes and scores of 1."""
    rows = np.flatnonzero(truth.visibilities >= min_visibility)
    return Instances.from_boxes(
        truth.visible_boxes[rows], class_ids=truth.class_ids[rows],
        labels=[truth.labels[row] for row in rows])


def imperfect_detections(
    truth: GroundTruth, frame_index: int, height_px: int, width_px: int, seed: int,
    config: DetectorNoiseConfig | None = None,
) -> Instances:
    """
    Simulate a detector; equal arguments give equal boxes.

    Parameters
    ----------
    truth : GroundTruth
        What is in the frame.
    frame_index : int
        Position in the sequence; gaps last over several frames.
    height_px, width_px : int
        Size of the image.
    seed : int
        Source of randomness.
    config : DetectorNoiseConfig, optional
        How often and how badly it fails.

    Returns
    -------
    Instances
        Boxes with scores, class ids and labels, by descending score.

    """
    config = config or DetectorNoiseConfig()
    rng = np.random.default_rng((seed, frame_index))
    rows = _seen_rows(truth, frame_index, seed, config, rng)
    rows = np.concatenate([rows, rows[rng.random(len(rows)) < config.duplicate_rate]])
    boxes = truth.visible_boxes[rows].astype(np.float64)
    sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    boxes = boxes + config.jitter * sides * rng.standard_normal(boxes.shape)
    scores = 0.5 + 0.42 * truth.visibilities[rows]
    class_ids = truth.class_ids[rows].copy()
    wrong = rng.random(len(rows)) < config.class_error_rate
    class_ids[wrong] = rng.integers(0, len(CLASS_NAMES), int(wrong.sum()))
    false_boxes = _false_boxes(int(rng.poisson(config.false_positives)), height_px, width_px, rng)
    boxes = np.concatenate([boxes, false_boxes])
    scores = np.concatenate([scores, rng.uniform(0.3, 0.55, len(false_boxes))])
    scores = np.clip(scores + config.score_noise * rng.standard_normal(len(scores)), 0.05, 0.99)
    class_ids = np.concatenate(
        [class_ids, rng.integers(0, len(CLASS_NAMES), len(false_boxes))])
    clipped = clip_boxes(boxes.astype(np.float32), height_px, width_px)
    usable = np.flatnonzero(box_areas(clipped) >= 4)
    order = usable[np.argsort(-scores[usable], kind='stable')]
    return Instances.from_boxes(
        clipped[order], scores[order], class_ids[order],
        [CLASS_NAMES[i] for i in class_ids[order]])


def _seen_rows(
    truth: GroundTruth, frame_index: int, seed: int, config: DetectorNoiseConfig,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Rows of the truth that are detected in this frame."""
    visibility = truth.visibilities
    span = max(1 - config.min_visibility, 1e-6)
    hidden = np.clip((1 - visibility) / span, 0, 1)
    miss = config.miss_rate + (config.occluded_miss_rate - config.miss_rate) * hidden
    seen = (visibility >= config.min_visibility) & (rng.random(len(truth)) >= miss)
    block = frame_index // config.gap_frames
    for row, track_id in enumerate(truth.track_ids):
        gap = np.random.default_rng((seed, int(track_id), block, 1))
        seen[row] &= gap.random() >= config.gap_rate
    return np.flatnonzero(seen).astype(np.int64)


def _false_boxes(
    count: int, height_px: int, width_px: int, rng: np.random.Generator,
) -> NDArray[np.float64]:
    """``(count, 4)`` boxes of plausible size anywhere."""
    centers = rng.uniform(0, 1, (count, 2)) * (width_px, height_px)
    heights = rng.uniform(0.05, 0.3, count) * height_px
    halves = np.stack([heights * rng.uniform(0.2, 1.0, count), heights], axis=1) / 2
    return np.concatenate([centers - halves, centers + halves], axis=1)
