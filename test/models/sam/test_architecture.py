"""Names and shapes of the networks, before any weights."""

from __future__ import annotations

import json
from pathlib import Path

from masa_ros.models.sam.architecture import ARCHITECTURES, build_network
import pytest


@pytest.mark.data
@pytest.mark.parametrize(('variant', 'keys'), [('sam_vit_b', 'sam_vitb'),
                                               ('sam_vit_h', 'sam_vith')])
def test_names_and_shapes_are_those_inside_the_masa_files(
    shared: Path, variant: str, keys: str,
) -> None:
    listed = json.loads((shared / 'masa_keys' / f'{keys}.json').read_text())
    expected = {name.removeprefix('detector.').replace('backbone.', 'image_encoder.'): shape
                for name, shape in listed.items() if name.startswith('detector.')}
    network = build_network(ARCHITECTURES[variant])
    assert {name: list(value.shape) for name, value in network.state_dict().items()} == expected


def test_mobile_sam_has_the_published_number_of_entries() -> None:
    # 302 entries in the state dict of ChaoningZhang/MobileSAM's TinyViT, 137 in SAM's decoders.
    names = build_network(ARCHITECTURES['mobile_sam']).state_dict()
    assert sum(name.startswith('image_encoder.') for name in names) == 302
    assert len(names) == 302 + 137
    assert names['image_encoder.layers.2.blocks.5.attn.attention_biases'].shape == (5, 196)


@pytest.mark.parametrize('variant', list(ARCHITECTURES))
def test_a_network_without_weights_takes_no_memory(variant: str) -> None:
    network = build_network(ARCHITECTURES[variant])
    assert {value.device.type for value in network.state_dict().values()} == {'meta'}
    assert not any(value.requires_grad for value in network.parameters())
    assert network.pixel_mean.flatten().tolist() == pytest.approx([123.675, 116.28, 103.53])
