"""Reading of weight files: published forms, wrong ones and hostile ones."""

from __future__ import annotations

from collections.abc import Callable
import json
import logging
import os
from pathlib import Path
import pickle
import sys
import types
from typing import Any

from masa_ros.models.checkpoint import (
    identify,
    load_network,
    published_entries,
    read_entries,
)
from masa_ros.models.variants import find_variant, VARIANTS
import pytest
import torch
from torch import Tensor

R50 = find_variant('r50')


def blank(variant: str) -> dict[str, Tensor]:
    """Every published entry as zeros that share one number, so that files stay small."""
    return {name: torch.zeros(()).expand(shape)
            for name, shape in published_entries(VARIANTS[variant]).items()}


@pytest.fixture(scope='module')
def r50_entries() -> dict[str, Tensor]:
    return blank('r50')


def saved(folder: Path, content: Any, name: str = 'file.pth') -> Path:
    path = folder / name
    torch.save(content, path)
    return path


@pytest.mark.data
@pytest.mark.parametrize('name', [name for name in VARIANTS if name != 'sam_vitl'])
def test_published_entries_are_exactly_the_published_names(shared: Path, name: str) -> None:
    keys = json.loads((shared / 'masa_keys' / f'{name}.json').read_text())
    expected = {key: tuple(shape) for key, shape in keys.items()}
    assert published_entries(VARIANTS[name]) == expected


def mmengine_file(entries: dict[str, Tensor]) -> dict[str, Any]:
    """Wrap weights as mmengine saves them."""
    return {
        'meta': {'epoch': 12, 'cfg': 'model = dict()', 'mmengine_version': '0.10.3',
                 'dataset_meta': {'classes': ('object',)}},
        'state_dict': {f'module.{name}': value for name, value in entries.items()},
        'optimizer': {'param_groups': [{'lr': 0.08}]},
    }


def test_mmengine_file_loads_with_prefix_training_heads_and_constants(
    tmp_path: Path, r50_entries: dict[str, Tensor], caplog: pytest.LogCaptureFixture,
) -> None:
    entries = {name: value for name, value in r50_entries.items()
               if not name.endswith('num_batches_tracked')}
    entries['rpn_head.rpn_cls.bias'] = torch.tensor([1.0, 2.0, 3.0]).half()
    entries['roi_head.mask_head.conv_logits.weight'] = torch.zeros(1, 256, 1, 1)
    entries['detector.language_model.embeddings.position_ids'] = torch.arange(4)
    with caplog.at_level(logging.INFO):
        network = load_network(R50, saved(tmp_path, mmengine_file(entries)))
    assert network.state_dict()['rpn_head.rpn_cls.bias'].tolist() == [1, 2, 3]
    assert network.dtype == torch.float32
    assert not network.training
    assert not any(weight.requires_grad for weight in network.parameters())
    assert all(value.device.type == 'cpu' for value in network.state_dict().values())
    assert 'training-only' in caplog.text


def test_loaded_weights_do_not_depend_on_the_file_any_more(
    tmp_path: Path, r50_entries: dict[str, Tensor],
) -> None:
    path = saved(tmp_path, r50_entries)
    network = load_network(R50, path)
    path.write_bytes(b'gone')
    assert network.track_head.embed_head.fc_embed.weight.abs().max().item() == 0


@pytest.fixture
def mmengine_objects() -> Any:
    """A stand-in for mmengine's log buffer, as a training checkpoint holds it."""
    names = ['mmengine', 'mmengine.logging', 'mmengine.logging.history_buffer']
    modules = {name: types.ModuleType(name) for name in names}
    sys.modules.update(modules)

    class HistoryBuffer:
        def __init__(self) -> None:
            import numpy as np
            self.values = np.arange(3.0)
            self.methods = {'min': HistoryBuffer.smallest}

        def smallest(self) -> float:
            return float(self.values.min())

    HistoryBuffer.__module__ = names[-1]
    HistoryBuffer.__qualname__ = 'HistoryBuffer'
    HistoryBuffer.smallest.__qualname__ = 'HistoryBuffer.smallest'
    HistoryBuffer.smallest.__module__ = names[-1]
    modules[names[-1]].HistoryBuffer = HistoryBuffer  # type: ignore[attr-defined]
    yield HistoryBuffer
    for name in names:
        sys.modules.pop(name, None)


def test_objects_of_the_training_code_are_ignored_even_without_that_code(
    tmp_path: Path, mmengine_objects: Any,
) -> None:
    content = {'message_hub': {'log': mmengine_objects()},
               'state_dict': {'module.a.weight': torch.ones(2)}}
    path = saved(tmp_path, content)
    for name in ('mmengine', 'mmengine.logging', 'mmengine.logging.history_buffer'):
        del sys.modules[name]
    assert read_entries(path)['a.weight'].tolist() == [1, 1]


class Attack:
    """Runs a command when it is unpickled."""

    def __init__(self, marker: Path, function: Any = os.system) -> None:
        self.marker = marker
        self.function = function

    def __reduce__(self) -> Any:
        return self.function, (f'touch {self.marker}',)


@pytest.mark.parametrize('function', [os.system, eval, exec])
@pytest.mark.parametrize('legacy', [False, True])
def test_file_that_wants_to_run_code_is_refused_by_name(
    tmp_path: Path, function: Any, legacy: bool,
) -> None:
    marker = tmp_path / 'owned'
    path = tmp_path / 'evil.pth'
    torch.save({'state_dict': {'a': torch.ones(1)}, 'meta': Attack(marker, function)}, path,
               _use_new_zipfile_serialization=not legacy)
    name = 'system' if function is os.system else function.__name__
    with pytest.raises(ValueError, match=f'wants to run .*{name}.*it was not loaded'):
        read_entries(path)
    assert not marker.exists()


def test_plain_pickle_with_an_attack_is_refused(tmp_path: Path) -> None:
    marker = tmp_path / 'owned'
    path = tmp_path / 'evil.pkl'
    path.write_bytes(pickle.dumps({'a': Attack(marker)}))
    with pytest.raises(ValueError, match=r'evil\.pkl'):
        read_entries(path)
    assert not marker.exists()


def test_attack_through_the_ignored_getattr_gets_nowhere(tmp_path: Path) -> None:
    # getattr(os, 'system') needs the module os as an object, which is refused by its name.
    marker = tmp_path / 'owned'

    class Indirect:
        def __reduce__(self) -> Any:
            return getattr, (os, 'system')
    with pytest.raises(Exception, match='cannot pickle'):
        torch.save({'a': Indirect()}, tmp_path / 'evil.pth')
    assert not marker.exists()


@pytest.mark.parametrize(('content', 'message'), [
    (b'', 'is empty; download it again'),
    (b'version https://git-lfs.github.com/spec/v1\noid sha256:1\n', 'Git LFS pointer'),
    (b'<!DOCTYPE html><html>404</html>', 'is a web page'),
    (b'PK\x03\x04' + bytes(500), 'is cut off after 504 bytes'),
    (b'nothing of the kind' * 40, 'download it again'),
])
def test_usual_mishaps_of_downloads_are_named(
    tmp_path: Path, content: bytes, message: str,
) -> None:
    path = tmp_path / 'masa_r50.pth'
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_entries(path)


@pytest.mark.parametrize('share', [0.1, 0.5, 0.99])
@pytest.mark.parametrize('legacy', [False, True])
def test_truncated_file_is_reported_as_damaged(
    tmp_path: Path, share: float, legacy: bool,
) -> None:
    path = tmp_path / 'cut.pth'
    torch.save({'state_dict': {'a': torch.rand(1000)}}, path,
               _use_new_zipfile_serialization=not legacy)
    whole = path.read_bytes()
    path.write_bytes(whole[:int(len(whole) * share)])
    with pytest.raises(ValueError, match='download it again'):
        read_entries(path)


def test_missing_file_and_folder_are_different_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='no weights file at'):
        read_entries(tmp_path / 'none.pth')
    with pytest.raises(ValueError, match='is a folder'):
        read_entries(tmp_path)


@pytest.mark.parametrize('content', [
    [torch.ones(2)], torch.ones(2), {}, {'state_dict': {}}, {'state_dict': {'a': 3}},
    {'a': torch.ones(3).to_sparse()}])
def test_file_without_weights_by_name_is_refused(tmp_path: Path, content: Any) -> None:
    with pytest.raises(ValueError, match='weights'):
        read_entries(saved(tmp_path, content))


def test_missing_unexpected_and_reshaped_entries_are_named(
    tmp_path: Path, r50_entries: dict[str, Tensor],
) -> None:
    entries = dict(r50_entries)
    del entries['track_head.embed_head.fc_embed.bias']
    entries['track_head.embed_head.fc_new.bias'] = torch.zeros(3)
    entries['rpn_head.rpn_cls.bias'] = torch.zeros(4)
    with pytest.raises(ValueError, match='does not fit the variant r50') as raised:
        load_network(R50, saved(tmp_path, entries))
    message = str(raised.value)
    assert '1 missing: track_head.embed_head.fc_embed.bias' in message
    assert '1 unexpected: track_head.embed_head.fc_new.bias' in message
    assert 'rpn_head.rpn_cls.bias is (4,), expected (3,)' in message


def test_numbers_that_are_not_finite_are_refused(
    tmp_path: Path, r50_entries: dict[str, Tensor],
) -> None:
    entries = {**r50_entries, 'rpn_head.rpn_cls.bias': torch.tensor([0.0, float('nan'), 0.0])}
    with pytest.raises(ValueError, match=r'rpn_head\.rpn_cls\.bias holds numbers that are not'):
        load_network(R50, saved(tmp_path, entries))


def test_whole_numbers_instead_of_weights_are_refused(
    tmp_path: Path, r50_entries: dict[str, Tensor],
) -> None:
    entries = {**r50_entries, 'rpn_head.rpn_cls.bias': torch.zeros(3, dtype=torch.int32)}
    with pytest.raises(ValueError, match=r'torch\.int32, expected floating point'):
        load_network(R50, saved(tmp_path, entries))


@pytest.mark.parametrize(('asked', 'given'), [
    ('sam_vitb', 'sam_vith'), ('r50', 'sam_vitb'), ('gdino', 'detic'), ('detic', 'r50'),
    ('r50', 'gdino')])
def test_file_of_another_variant_is_recognized(
    tmp_path: Path, asked: str, given: str,
) -> None:
    path = saved(tmp_path, {'state_dict': blank(given)})
    with pytest.raises(ValueError, match=f'looks like a {given} file, you asked for {asked}'):
        load_network(VARIANTS[asked], path)


def sam_file(folder: Path, variant: str = 'sam_vitb') -> Path:
    """Give a SAM file of the official form: the encoder under its own name."""
    entries = {
        name.removeprefix('detector.').replace('backbone.', 'image_encoder.', 1): value
        for name, value in blank(variant).items() if name.startswith('detector.')}
    assert len(entries) == 314 or variant != 'sam_vitb'
    return saved(folder, entries, 'sam.pth')


def test_sam_file_in_place_of_masas_is_recognized(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='looks like a sam_vit_b file'):
        load_network(VARIANTS['sam_vitb'], sam_file(tmp_path))


def test_sam_of_another_size_is_refused(tmp_path: Path) -> None:
    masa = saved(tmp_path, blank('sam_vitb'))
    with pytest.raises(ValueError, match='looks like a sam_vit_h file, but the variant sam_vitb'):
        load_network(VARIANTS['sam_vitb'], masa, sam_file(tmp_path, 'sam_vith'))


def test_masa_file_without_sam_says_what_to_give(tmp_path: Path) -> None:
    masa = saved(tmp_path, {name: value for name, value in blank('sam_vitb').items()
                            if not name.startswith('detector.')})
    with pytest.raises(ValueError, match='it has no SAM weights; give the SAM file too'):
        load_network(VARIANTS['sam_vitb'], masa)


def test_sam_file_is_refused_where_there_is_no_sam(
    tmp_path: Path, r50_entries: dict[str, Tensor],
) -> None:
    with pytest.raises(ValueError, match='the variant r50 has no SAM inside'):
        load_network(R50, saved(tmp_path, r50_entries), sam_file(tmp_path))


def test_adapter_and_sam_files_join_and_masas_weights_win(
    tmp_path: Path, caplog: pytest.LogCaptureFixture,
) -> None:
    shared_name = 'detector.mask_decoder.iou_token.weight'
    adapter = {name: value for name, value in blank('sam_vitb').items()
               if not name.startswith('detector.')}
    adapter[shared_name] = torch.ones(1, 256)
    network = load_network(VARIANTS['sam_vitb'], saved(tmp_path, adapter), sam_file(tmp_path))
    weights = network.state_dict()
    assert set(weights) == set(blank('sam_vitb'))
    assert not any(value.is_meta for value in weights.values())
    assert weights[shared_name].sum().item() == 256
    assert f"disagree on SAM's weights (first at {shared_name})" in caplog.text


def test_swin_constants_are_recomputed(tmp_path: Path) -> None:
    entries = blank('detic')  # Zeros in place of the index tables.
    network = load_network(VARIANTS['detic'], saved(tmp_path, entries))
    name = 'detector.backbone.stages.3.blocks.1.attn.w_msa.relative_position_index'
    index = network.state_dict()[name]
    assert (index.min().item(), index.max().item()) == (0, 168)
    assert set(network.state_dict()) < set(entries)


def test_unknown_weights_have_no_name() -> None:
    assert identify({'a': torch.zeros(1)}) == ''
    assert identify({'image_encoder.layers.0.blocks.0.conv1.c.weight': torch.zeros(1)}) == (
        'mobile_sam')
    adapter = {'masa_adapter.0.lateral_convs.0.conv.weight': torch.zeros(256, 1280, 1, 1)}
    assert identify(adapter) == 'sam_vith'


@pytest.mark.slow
@pytest.mark.data
def test_recipe_file_of_the_published_form_loads_bit_for_bit(
    tmp_path: Path, shared: Path, make_weight: Callable[..., Any],
) -> None:
    keys = json.loads((shared / 'masa_keys' / 'r50.json').read_text())
    entries = {name: torch.from_numpy(make_weight(name, shape)) for name, shape in keys.items()}
    network = load_network(R50, saved(tmp_path, mmengine_file(entries)))
    for name, value in network.state_dict().items():
        assert torch.equal(value, entries[name])
