"""Every file of config/ that sets the tracker loads and says what it claims."""

from __future__ import annotations

from pathlib import Path

from masa_ros.pipeline import PipelineConfig
from masa_ros.structures.settings import from_mapping
from masa_ros.tracking.config import TrackerConfig
import pytest
import yaml

CONFIG = Path(__file__).resolve().parent.parent / 'config'


@pytest.mark.parametrize(('name', 'preset'), [
    ('reference_tao_demo', 'tao_demo'), ('reference_tao_benchmark', 'tao_bench'),
    ('reference_bdd', 'bdd_bench')])
def test_the_reference_files_are_the_presets(name: str, preset: str) -> None:
    content = yaml.safe_load((CONFIG / f'{name}.yaml').read_text())
    settings = from_mapping(PipelineConfig, content['/**']['ros__parameters'], name)
    assert settings.tracker == TrackerConfig.preset(preset)
    assert settings == PipelineConfig(tracker=settings.tracker)


def test_every_file_parses() -> None:
    files = sorted(CONFIG.glob('*.yaml'))
    assert len(files) >= 4
    assert all(isinstance(yaml.safe_load(path.read_text()), dict) for path in files)
