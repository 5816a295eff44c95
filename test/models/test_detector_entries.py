"""Entries of the detectors inside the published files."""

from __future__ import annotations

import json
from pathlib import Path

from masa_ros.models.detector_entries import detector_entries
import pytest


@pytest.mark.data
@pytest.mark.parametrize('name', ['gdino', 'detic', 'r50', 'sam_vitb', 'sam_vith'])
def test_entries_are_those_of_the_published_files(shared: Path, name: str) -> None:
    published = json.loads((shared / 'masa_keys' / f'{name}.json').read_text())
    parts = ('detector.backbone.', 'detector.prompt_encoder.', 'detector.mask_decoder.')
    expected = {key: tuple(shape) for key, shape in published.items()
                if key.startswith('detector.') and not key.startswith(parts)}
    assert detector_entries(name) == expected
