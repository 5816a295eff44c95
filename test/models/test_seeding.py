"""Random weights in the published form."""

from __future__ import annotations

import json
from pathlib import Path
import zipfile

from masa_ros.models import seeding, weights
from masa_ros.models.checkpoint import read_entries
import numpy as np
import pytest


@pytest.mark.data
@pytest.mark.parametrize(('name', 'keys'), [
    ('masa_r50', 'r50'), ('masa_sam_vit_b', 'sam_vitb'), ('masa_detic', 'detic')])
def test_names_and_shapes_are_those_of_the_published_files(
    shared: Path, name: str, keys: str,
) -> None:
    listed = json.loads((shared / 'masa_keys' / f'{keys}.json').read_text())
    # Constants of Swin, which readers compute anew, are left out.
    expected = {key: tuple(shape) for key, shape in listed.items()
                if not key.endswith(('relative_position_index', 'position_ids'))}
    assert seeding.published_shapes(name) == expected


def test_numbers_depend_on_name_and_seed_only() -> None:
    one = seeding.seeded_entry('a.weight', (4, 3))
    assert np.array_equal(one, seeding.seeded_entry('a.weight', (4, 3)))
    assert not np.array_equal(one, seeding.seeded_entry('b.weight', (4, 3)))
    assert not np.array_equal(one, seeding.seeded_entry('a.weight', (4, 3), seed=1))


def test_numbers_are_of_moderate_size() -> None:
    # A matrix with 400 inputs has entries of 1 / 20; variances are positive; scales are near 1.
    assert seeding.seeded_entry('x.weight', (300, 400)).std() == pytest.approx(0.05, rel=0.02)
    assert seeding.seeded_entry('x.running_var', (1000,)).min() >= 0.5
    assert seeding.seeded_entry('norm.weight', (1000,)).mean() == pytest.approx(1, abs=0.02)
    assert seeding.seeded_entry('x.bias', (1000,)).std() == pytest.approx(0.1, rel=0.1)
    for name in ('x.weight', 'x.bias', 'x.running_var', 'x.weight_scale'):
        assert seeding.seeded_entry(name, (3,)).dtype == np.float32


def test_a_file_is_marked_inside_and_survives_renaming(tmp_path: Path) -> None:
    path = seeding.write('mobile_sam', tmp_path / 'mobile_sam.pt', seed=7)
    moved = path.rename(tmp_path / 'other name.bin')
    assert weights.is_seeded(moved)
    with zipfile.ZipFile(moved) as archive:
        (mark,) = [name for name in archive.namelist() if name.endswith('masa_ros_seeded.json')]
        assert json.loads(archive.read(mark)) == {'seed': 7, 'trained': False}
    assert read_entries(moved).keys() == seeding.published_shapes('mobile_sam').keys()


def test_the_segment_anything_package_reads_the_file(tmp_path: Path) -> None:
    import torch
    path = seeding.write('mobile_sam', tmp_path / 'mobile_sam.pt')
    with path.open('rb') as file:
        entries = torch.load(file, weights_only=True)
    assert all(value.is_floating_point() or name.endswith('num_batches_tracked')
               for name, value in entries.items())


def test_unknown_models_are_refused() -> None:
    with pytest.raises(ValueError, match="no weights can be made for 'classical'; known are sam"):
        seeding.published_shapes('classical')
