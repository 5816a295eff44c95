"""Features of boxes from self-supervised backbones, with numbers of a seed."""

from __future__ import annotations

from pathlib import Path
import sys

from masa_ros.models.features import FeatureConfig
from masa_ros.models.self_supervised import SelfSupervisedFeatures
from masa_ros.structures.instances import Instances
import numpy as np
import pytest
import torch

pytest.importorskip('timm', reason='the extra "features" is not installed')

BOXES = Instances.from_boxes([[0, 0, 60, 120], [60, 0, 120, 120], [2, 2, 58, 118], [0, 0, 0, 9]])


def picture() -> np.ndarray:
    """Noise on the left, stripes on the right."""
    image = np.zeros((120, 120, 3), np.uint8)
    image[:, :60] = np.random.default_rng(0).integers(0, 256, (120, 60, 3))
    image[:, 60::8] = 255
    return image


@pytest.mark.parametrize(('name', 'width'), [('dino_vits16', 384), ('moco_resnet50', 1024)])
def test_boxes_on_one_thing_are_alike_and_on_two_are_not(name: str, width: int) -> None:
    model = SelfSupervisedFeatures(FeatureConfig(name, device='cpu'))
    assert model.weights.trained is False
    embeddings = model.run([picture()], [BOXES])[0].embeddings
    assert embeddings is not None
    assert embeddings.shape == (4, width)
    assert np.isfinite(embeddings).all()
    apart = np.linalg.norm(embeddings[:3] - embeddings[0], axis=1)
    assert apart[2] < apart[1]


def test_an_image_without_boxes_has_no_embeddings() -> None:
    model = SelfSupervisedFeatures(FeatureConfig('dino_vits16', device='cpu'))
    found = model.run([picture()], [Instances()])[0].embeddings
    assert found is not None
    assert found.shape == (0, 384)
    with pytest.raises(ValueError, match='give boxes'):
        model.run([picture()], [None])


@pytest.mark.parametrize(('holder', 'prefix'), [
    ('', ''), ('teacher', 'backbone.'), ('state_dict', 'module.encoder_q.')])
def test_files_of_the_authors_are_read_whatever_holds_the_backbone(
    tmp_path: Path, holder: str, prefix: str,
) -> None:
    whole = SelfSupervisedFeatures(FeatureConfig('moco_resnet50', device='cpu'))
    entries = {prefix + name: torch.full_like(value, 0.01)
               for name, value in whole._network.state_dict().items()}
    entries |= {'fc.weight': torch.zeros(3)}
    path = tmp_path / 'moco.pth'
    torch.save({holder: entries, 'epoch': 3} if holder else entries, path)
    model = SelfSupervisedFeatures(FeatureConfig('moco_resnet50', str(path), 'cpu'))
    assert float(model._network.state_dict()['conv1.weight'].flatten()[0]) == pytest.approx(0.01)
    assert model.weights.files == ('moco.pth',)
    assert model.weights.trained is None


def test_a_file_of_another_network_and_a_missing_one_are_errors(tmp_path: Path) -> None:
    torch.save({'blocks.0.norm1.weight': torch.zeros(3)}, tmp_path / 'other.pth')
    with pytest.raises(ValueError, match='belongs to another network'):
        SelfSupervisedFeatures(FeatureConfig('moco_resnet50', str(tmp_path / 'other.pth'), 'cpu'))
    with pytest.raises(FileNotFoundError, match='github'):
        SelfSupervisedFeatures(FeatureConfig('moco_resnet50', str(tmp_path / 'no.pth'), 'cpu'))
    with pytest.raises(ValueError, match='known ones are'):
        SelfSupervisedFeatures(FeatureConfig('simclr'))


def test_without_timm_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'timm', None)
    with pytest.raises(ModuleNotFoundError, match=r'masa_ros\[features\]'):
        SelfSupervisedFeatures(FeatureConfig('dino_vits16', device='cpu'))
