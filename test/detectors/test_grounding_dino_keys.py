"""Every entry of the published file, and what the rules do to the numbers."""

from __future__ import annotations

from collections.abc import Iterator
import json
from pathlib import Path
import re
from typing import Any

from masa_ros.detectors.grounding_dino_keys import convert, map_keys, RULES, SWIN_RULES, UNUSED
from masa_ros.models.backbones.swin import Swin
from masa_ros.models.detector_entries import detector_entries
from masa_ros.models.seeding import seeded_entry
import pytest
import torch
from torch import nn, Tensor

transformers: Any = pytest.importorskip('transformers')
BACKBONE = 'model.backbone.conv_encoder.model.'
SWIN_B = {'model_type': 'swin', 'embed_dim': 128, 'depths': [2, 2, 18, 2],
          'num_heads': [4, 8, 16, 32], 'window_size': 12, 'image_size': 384,
          'out_indices': [2, 3, 4]}


@pytest.fixture(scope='module')
def published(shared: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes under ``detector.`` of gdino_masa.pth."""
    keys = json.loads((shared / 'masa_keys/gdino.json').read_text())
    return {name.removeprefix('detector.'): tuple(shape) for name, shape in keys.items()
            if name.startswith('detector.')}


@pytest.fixture(scope='module')
def library() -> dict[str, tuple[int, ...]]:
    """Names and shapes of transformers' Grounding-DINO with Swin-B."""
    config = transformers.GroundingDinoConfig(
        backbone_config=dict(SWIN_B), decoder_bbox_embed_share=False)
    with torch.device('meta'):
        network = transformers.GroundingDinoForObjectDetection(config)
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


@pytest.mark.data
def test_each_of_the_1071_entries_is_mapped_or_named_as_unused(
    published: dict[str, tuple[int, ...]],
) -> None:
    keys = map_keys(published)
    assert len(published) == 1071
    assert keys.unknown == []
    # 24 constants of the windows, the pooler's two and the noise queries.
    assert len(keys.unused) == 24 + 2 + 1
    assert len(keys.targets) == 1071 - 27
    assert not set(keys.targets) & set(keys.unused)


@pytest.mark.data
def test_every_entry_of_the_library_comes_from_the_file_with_its_shape(
    published: dict[str, tuple[int, ...]], library: dict[str, tuple[int, ...]],
) -> None:
    with torch.device('meta'):
        entries = {name: torch.empty(shape) for name, shape in published.items()}
    made = {name: tuple(value.shape)
            for name, value in convert(entries, backbone=True).items()}
    # The norm after the last stage is not used where features of stages are asked for.
    unused = {f'{BACKBONE}swin.layernorm.weight', f'{BACKBONE}swin.layernorm.bias'}
    assert made == {name: shape for name, shape in library.items() if name not in unused}


@pytest.mark.data
def test_no_two_entries_become_one(published: dict[str, tuple[int, ...]]) -> None:
    targets = [target for names in map_keys(published).targets.values() for target in names]
    assert len(targets) == len(set(targets))


@pytest.mark.data
def test_every_rule_is_used(published: dict[str, tuple[int, ...]]) -> None:
    bert = 'language_model.language_backbone.body.model.'
    names = [*published, f'{bert}embeddings.position_ids']
    patterns = [*RULES, *UNUSED, *(rf'backbone\.{pattern}' for pattern in SWIN_RULES)]
    assert [pattern for pattern in patterns
            if not any(re.fullmatch(pattern, name) for name in names)] == []


def test_the_rules_cover_the_entries_that_the_checkpoint_reader_expects() -> None:
    names = {name.removeprefix('detector.'): None for name in detector_entries('gdino')}
    assert map_keys(names).unknown == []


def test_a_foreign_entry_is_refused() -> None:
    with pytest.raises(ValueError, match=r'1 entries are no part of Grounding-DINO, such as rpn'):
        convert({'rpn_head.conv.weight': torch.zeros(1)})


def test_a_split_attention_computes_what_the_whole_one_does() -> None:
    """Torch's attention with ``in_proj`` against transformers' with query, key and value."""
    from transformers.models.grounding_dino import modeling_grounding_dino
    attention: Any = modeling_grounding_dino.GroundingDinoMultiheadAttention
    torch.manual_seed(1)
    whole = nn.MultiheadAttention(64, 8, batch_first=True).eval()
    nn.init.normal_(whole.in_proj_bias)
    prefix = 'decoder.layers.0.self_attn.attn.'
    state = convert({prefix + name: value for name, value in whole.state_dict().items()})
    config = transformers.GroundingDinoConfig(d_model=64, encoder_attention_heads=8)
    split = attention(config, num_attention_heads=8).eval()
    split.load_state_dict({name.removeprefix('model.decoder.layers.0.self_attn.'): value
                           for name, value in state.items()})
    query, key = torch.randn(2, 5, 64), torch.randn(2, 7, 64)
    with torch.no_grad():
        expected = whole(query, key, key)[0]
        found = split(query, key, key)[0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_parts_of_a_split_entry_joined_again_are_the_entry() -> None:
    name = 'encoder.text_layers.1.self_attn.attn.in_proj_weight'
    value = torch.randn(12, 4)
    made = convert({name: value})
    assert [entry.rsplit('.', 2)[1] for entry in made] == ['query', 'key', 'value']
    torch.testing.assert_close(torch.cat(list(made.values())), value, rtol=0, atol=0)


def test_box_layers_go_to_decoder_and_head_and_the_last_to_the_encoder() -> None:
    value = torch.zeros(1)
    assert set(convert({'bbox_head.reg_branches.5.2.bias': value})) == {
        'bbox_embed.5.layers.1.bias', 'model.decoder.bbox_embed.5.layers.1.bias'}
    assert set(convert({'bbox_head.reg_branches.6.4.weight': value})) == {
        'model.encoder_output_bbox_embed.layers.2.weight'}


def swins(sizes: dict[str, Any]) -> Iterator[Any]:
    """Our Swin and that of transformers with the same weights."""
    ours = Swin(sizes['embed_dim'], sizes['depths'], sizes['num_heads'], sizes['window_size'])
    entries: dict[str, Tensor] = {}
    for name, value in ours.state_dict().items():
        entries[name] = value if value.dtype == torch.int64 else torch.from_numpy(
            seeded_entry(name, tuple(value.shape)))
    ours.load_state_dict(entries)
    yield ours.eval()
    state = convert({f'backbone.{name}': value for name, value in entries.items()}, backbone=True)
    theirs = transformers.AutoBackbone.from_config(transformers.SwinConfig(**sizes))
    missing, unexpected = theirs.load_state_dict(
        {name.removeprefix(BACKBONE): value for name, value in state.items()}, strict=False)
    assert not unexpected
    assert all('swin.layernorm' in name or name.endswith('index') for name in missing)
    yield theirs.eval()


def check_swins(sizes: dict[str, Any], height: int, width: int, atol: float) -> None:
    ours, theirs = swins(sizes)
    image = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        levels, others = ours(image), theirs(image, return_dict=True).feature_maps
    assert len(levels) == len(others) == 3
    for level, other in zip(levels, others, strict=True):
        torch.testing.assert_close(level, other, atol=atol, rtol=1e-4)


@pytest.mark.parametrize(('height', 'width'), [(160, 192), (132, 208)])
def test_our_swin_and_the_librarys_give_the_same_features(height: int, width: int) -> None:
    """Shifted windows, padding of windows and odd merges included; windows of 4 tokens."""
    check_swins({'embed_dim': 16, 'depths': [2, 2, 2, 1], 'num_heads': [1, 2, 4, 8],
                 'window_size': 4, 'image_size': 192, 'out_indices': [2, 3, 4]},
                height, width, 1e-4)


@pytest.mark.slow
def test_swin_b_and_the_librarys_give_the_same_features() -> None:
    sizes = {name: value for name, value in SWIN_B.items() if name != 'model_type'}
    check_swins(sizes, 448, 512, 1e-3)
