"""Published files, and everything that is mistaken for one."""

from __future__ import annotations

from collections.abc import Callable
import os
from pathlib import Path
import pickle
from typing import Any

from masa_ros.models import seeding, weights
from masa_ros.models.sam.architecture import build_network, TinyVitArchitecture, VitArchitecture
from masa_ros.models.sam.checkpoint import load_network
import pytest
import torch
from torch import Tensor

SMALL = VitArchitecture(width=32, depth=2, heads=2, global_blocks=(1,), image_size=64)


@pytest.fixture(scope='module')
def entries() -> dict[str, Tensor]:
    """Seeded weights of a small network."""
    return {name: torch.from_numpy(seeding.seeded_entry(name, tuple(value.shape)).copy())
            for name, value in build_network(SMALL).state_dict().items()}


@pytest.fixture
def load(tmp_path: Path) -> Callable[[Any], Any]:
    """Save something and load it as a small SAM."""
    def saved_and_loaded(content: Any) -> Any:
        path = tmp_path / 'sam.pth'
        torch.save(content, path)
        return load_network('sam_vit_b', path, SMALL)
    return saved_and_loaded


def test_a_file_of_the_official_form_is_loaded_whole(
    load: Callable[[Any], Any], entries: dict[str, Tensor],
) -> None:
    network = load(entries)
    assert all(torch.equal(value, entries[name]) for name, value in network.state_dict().items())
    assert not network.training
    assert not any(value.requires_grad for value in network.parameters())
    assert {value.device.type for value in network.buffers()} == {'cpu'}


def test_the_weights_outlive_their_file(
    tmp_path: Path, entries: dict[str, Tensor],
) -> None:
    path = tmp_path / 'sam.pth'
    torch.save(entries, path)
    network = load_network('sam_vit_b', path, SMALL)
    path.write_bytes(b'')
    assert torch.equal(network.state_dict()['image_encoder.pos_embed'],
                       entries['image_encoder.pos_embed'])


def test_half_precision_files_become_float32(
    load: Callable[[Any], Any], entries: dict[str, Tensor],
) -> None:
    network = load({name: value.half() for name, value in entries.items()})
    assert {value.dtype for value in network.state_dict().values()} == {torch.float32}


def test_saved_pixel_statistics_are_left_out(
    load: Callable[[Any], Any], entries: dict[str, Tensor],
) -> None:
    network = load({**entries, 'pixel_mean': torch.zeros(3, 1, 1)})
    assert network.pixel_mean.flatten()[0].item() == pytest.approx(123.675)


def test_a_missing_entry_is_named(
    load: Callable[[Any], Any], entries: dict[str, Tensor],
) -> None:
    cut = {name: value for name, value in entries.items() if name != 'image_encoder.pos_embed'}
    with pytest.raises(ValueError, match=r'1 missing: image_encoder\.pos_embed'):
        load(cut)


def test_an_unexpected_entry_is_named(
    load: Callable[[Any], Any], entries: dict[str, Tensor],
) -> None:
    with pytest.raises(ValueError, match=r'1 unexpected: image_encoder\.extra'):
        load({**entries, 'image_encoder.extra': torch.zeros(1)})


def test_a_wrong_shape_is_named_with_both_shapes(
    load: Callable[[Any], Any], entries: dict[str, Tensor],
) -> None:
    name = 'mask_decoder.iou_token.weight'
    with pytest.raises(ValueError, match=r'iou_token.weight is \(2, 256\), expected \(1, 256\)'):
        load({**entries, name: torch.zeros(2, 256)})


def test_whole_numbers_and_nan_are_refused(
    load: Callable[[Any], Any], entries: dict[str, Tensor],
) -> None:
    name = 'mask_decoder.iou_token.weight'
    with pytest.raises(ValueError, match=r'iou_token\.weight holds torch.int64'):
        load({**entries, name: torch.zeros(1, 256, dtype=torch.int64)})
    with pytest.raises(ValueError, match=r'iou_token\.weight holds numbers that are not finite'):
        load({**entries, name: torch.full((1, 256), float('nan'))})


@pytest.mark.parametrize(('name', 'kind'), [
    ('image_encoder.trunk.pos_embed', 'SAM 2'),
    ('vision_encoder.pos_embed', 'a SAM converted for the transformers library'),
    ('mask_decoder.hf_token.weight', 'HQ-SAM'),
])
def test_other_families_are_recognized(
    load: Callable[[Any], Any], name: str, kind: str,
) -> None:
    with pytest.raises(ValueError, match=f'it looks like {kind}; '):
        load({name: torch.zeros(1)})


def test_a_wrapped_sam_2_file_is_recognized(load: Callable[[Any], Any]) -> None:
    with pytest.raises(ValueError, match='it looks like SAM 2; '):
        load({'model': {'image_encoder.trunk.pos_embed': torch.zeros(1)}})


def test_another_size_is_recognized(
    load: Callable[[Any], Any], entries: dict[str, Tensor],
) -> None:
    with pytest.raises(ValueError, match='it looks like a sam_vit_h file'):
        load({**entries, 'image_encoder.pos_embed': torch.zeros(1, 64, 64, 1280)})


def test_a_mobile_sam_file_is_recognized(load: Callable[[Any], Any]) -> None:
    shapes = build_network(TinyVitArchitecture()).state_dict()
    with pytest.raises(ValueError, match='it looks like a mobile_sam file'):
        load({name: torch.zeros(value.shape) for name, value in shapes.items()})


def test_a_cut_off_file_is_refused(tmp_path: Path, entries: dict[str, Tensor]) -> None:
    path = tmp_path / 'sam.pth'
    torch.save(entries, path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match='download it again'):
        load_network('sam_vit_b', path, SMALL)


class _Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize('plain', [False, True])
def test_code_inside_a_file_is_not_run(tmp_path: Path, plain: bool) -> None:
    path, target = tmp_path / 'sam.pth', tmp_path / 'made by the file'
    if plain:
        path.write_bytes(pickle.dumps(_Malicious(target)))
    else:
        torch.save({'weight': _Malicious(target)}, path)
    with pytest.raises(ValueError, match=r'sam\.pth'):
        load_network('sam_vit_b', path, SMALL)
    assert not target.exists()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='no weights file at'):
        load_network('sam_vit_b', tmp_path / 'nothing.pth')


def test_a_seeded_file_loads_and_is_called_untrained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv('MASA_ROS_WEIGHTS', str(tmp_path))
    path = seeding.write('mobile_sam', tmp_path / 'mobile_sam.pt', seed=3)
    network = load_network('mobile_sam', path)
    name = 'mask_decoder.iou_token.weight'
    expected = torch.from_numpy(seeding.seeded_entry(name, (1, 256), seed=3))
    assert torch.equal(network.state_dict()[name], expected)
    assert weights.info([path]).trained is False
    assert not list(tmp_path.glob('*.part'))
