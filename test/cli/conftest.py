"""A small rendered recording for the commands."""

from __future__ import annotations

from masa_ros.cli.demo_recording import Recording, render_recording
from masa_ros.rendering import SceneConfig
import pytest


@pytest.fixture(scope='session')
def street(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """Bag of 15 images of a street at 10 Hz with imperfect detections and the truth."""
    scene = SceneConfig(width_px=320, height_px=180, duration_s=1.5, num_objects=25, view='high')
    return render_recording(tmp_path_factory.mktemp('street') / 'bag', scene, 5, 10.0)
