"""
A toy street with exact ground truth, for demos, tests and training.

`Scene` renders it at any time, `imperfect_detections` plays a detector of limited quality.
"""

from __future__ import annotations

from masa_ros.rendering.detections import (
    DetectorNoiseConfig,
    imperfect_detections,
    perfect_detections,
)
from masa_ros.rendering.scene import GroundTruth, RenderedFrame, Scene, SceneConfig
from masa_ros.rendering.traffic import CLASS_NAMES

__all__ = [
    'CLASS_NAMES', 'DetectorNoiseConfig', 'GroundTruth', 'RenderedFrame', 'Scene', 'SceneConfig',
    'imperfect_detections', 'perfect_detections']
