"""Detic's parts against torchvision's and against numbers worked by hand; its entries."""

from __future__ import annotations

from collections import OrderedDict
import json
import math
from pathlib import Path
import re
from typing import Any

from masa_ros.detectors.detic_network import (
    CenterHead,
    DeticHeads,
    heads_from_entries,
    ProposalRule,
    propose,
    Pyramid,
    RefineHead,
    UNUSED,
)
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelP6P7


@pytest.mark.data
def test_each_of_the_444_entries_is_a_part_or_named_as_unused(shared: Path) -> None:
    keys = json.loads((shared / 'masa_keys/detic.json').read_text())
    published = {name.removeprefix('detector.'): tuple(shape) for name, shape in keys.items()
                 if name.startswith('detector.')}
    assert len(published) == 444
    with torch.device('meta'):
        heads = DeticHeads()
    own = {name: tuple(value.shape) for name, value in heads.state_dict().items()}
    rest = {name for name in published
            if any(re.fullmatch(pattern, name) for pattern in UNUSED)}
    assert own == {name: shape for name, shape in published.items() if name not in rest}
    # 355 of the backbone, 12 of the mask head, 3 of the loss.
    assert len(rest) == 355 + 12 + 3


def test_the_pyramid_is_torchvisions_with_two_levels_more() -> None:
    torch.manual_seed(0)
    ours = Pyramid((8, 16, 32), 16).eval()
    theirs = FeaturePyramidNetwork([8, 16, 32], 16, LastLevelP6P7(16, 16)).eval()
    state: dict[str, Tensor] = {}
    for name, value in ours.state_dict().items():
        part, index, _, kind = name.split('.')
        place = int(index)
        if part == 'lateral_convs':
            state[f'inner_blocks.{place}.0.{kind}'] = value
        elif place < 3:
            state[f'layer_blocks.{place}.0.{kind}'] = value
        else:
            state[f'extra_blocks.p{place + 3}.{kind}'] = value
    theirs.load_state_dict(state)
    features = [torch.randn(2, width, side, side + 3)
                for width, side in ((8, 21), (16, 11), (32, 6))]
    with torch.no_grad():
        found = ours(features)
        expected = theirs(OrderedDict(enumerate(features)))
    assert len(found) == len(expected) == 5
    for level, other in zip(found, expected.values(), strict=True):
        torch.testing.assert_close(level, other)


def flat_maps(hot: dict[tuple[int, int, int], tuple[float, list[float]]]) -> tuple[
        list[Tensor], list[Tensor]]:
    """Heat and distances of a 64 x 128 image; cells given as (level, row, column)."""
    heat, distances = [], []
    for level, stride in enumerate((8, 16, 32, 64, 128)):
        height, width = math.ceil(64 / stride), 128 // stride
        heat.append(torch.zeros(1, 1, height, width))
        distances.append(torch.zeros(1, 4, height, width))
        for (there, row, column), (score, sides) in hot.items():
            if there == level:
                heat[-1][0, 0, row, column] = score
                distances[-1][0, :, row, column] = torch.tensor(sides)
    return heat, distances


def test_a_hot_cell_is_the_box_worked_by_hand() -> None:
    # Level 1, row 2, column 3: centre (3.5 * 16, 2.5 * 16) = (56, 40).
    heat, distances = flat_maps({(1, 2, 3): (0.25, [10, 20, 30, 5])})
    boxes, scores = propose(heat, distances, 0)
    torch.testing.assert_close(boxes, torch.tensor([[46.0, 20, 86, 45]]))
    torch.testing.assert_close(scores, torch.tensor([0.5]))


def test_proposals_of_all_levels_suppress_each_other_above_nine_tenths() -> None:
    same = {(0, 4, 4): (0.36, [36.0, 36, 36, 28]),   # (36, 36) +-: box (0, 0, 72, 64).
            (1, 2, 2): (0.25, [40.0, 40, 32, 24]),   # (40, 40): the same box.
            (2, 0, 0): (0.16, [16.0, 16, 16, 16])}   # (0, 0, 32, 32).
    boxes, scores = propose(*flat_maps(same), 0)
    torch.testing.assert_close(boxes, torch.tensor([[0.0, 0, 72, 64], [0, 0, 32, 32]]))
    torch.testing.assert_close(scores, torch.tensor([0.6, 0.4]))
    assert len(propose(*flat_maps(same), 0, ProposalRule(score=0.2))[0]) == 1
    assert len(propose(*flat_maps(same), 0, ProposalRule(keep=1))[0]) == 1
    assert propose(*flat_maps({}), 0)[0].shape == (0, 4)


def test_a_box_without_sides_keeps_a_hundredth_of_a_pixel() -> None:
    boxes, _ = propose(*flat_maps({(0, 0, 0): (0.5, [0, 0, 0, 0])}), 0)
    torch.testing.assert_close(boxes, torch.tensor([[4.0, 4, 4.01, 4.01]]))


def test_distances_are_positive_in_pixels_of_their_level() -> None:
    torch.manual_seed(0)
    head = CenterHead(32).eval()
    with torch.no_grad():
        head.conv_reg.weight.zero_()
        assert head.conv_reg.bias is not None
        head.conv_reg.bias.copy_(torch.tensor([1.0, -1, 2, 0]))
        factor: Tensor = head.scales[2].scale  # type: ignore[assignment]
        factor.fill_(1.5)
        heat, distances = head([torch.randn(1, 32, 4, 4) for _ in range(5)])
    torch.testing.assert_close(distances[2][0, :, 0, 0], torch.tensor([48.0, 0, 96, 0]))
    torch.testing.assert_close(distances[4][0, :, 3, 3], torch.tensor([128.0, 0, 256, 0]))
    assert all(((level > 0) & (level < 1)).all() for level in heat)


def test_a_class_scores_fifty_times_the_cosine_with_its_vector() -> None:
    torch.manual_seed(0)
    head = RefineHead(4, 8, 3).eval()
    features = torch.randn(5, 4, 7, 7)
    vectors = functional.normalize(torch.randn(2, 512), dim=1)
    with torch.no_grad():
        logits, deltas = head(features, vectors)
        hidden = features.flatten(1)
        for layer in head.shared_fcs:
            hidden = layer(hidden).relu()
        own = head.fc_cls.linear(hidden)
        cosine = functional.cosine_similarity(own[:, None], vectors[None], dim=2)
    torch.testing.assert_close(logits, 50 * cosine, atol=1e-4, rtol=1e-4)
    assert deltas.shape == (5, 4)


def test_heads_that_move_nothing_give_the_proposals_with_averaged_scores() -> None:
    """Deltas of zero: the boxes stay, clipped; the score is worked from its parts."""
    torch.manual_seed(0)
    heads = DeticHeads((8, 16, 32), 32, 16, 3).eval()
    with torch.no_grad():
        refine: Any = heads.roi_head['bbox_head']
        for head in refine:
            head.fc_reg[2].weight.zero_()
            head.fc_reg[2].bias.zero_()
        heads.rpn_head.conv_reg.bias.fill_(2.0)  # type: ignore[union-attr]
        features = [torch.randn(2, width, 64 // stride, 128 // stride)
                    for width, stride in ((8, 8), (16, 16), (32, 32))]
        vectors = functional.normalize(torch.randn(4, 512), dim=1)
        results = heads(features, [(64, 128), (50, 100)], vectors)
        heat, distances = heads.rpn_head(heads.neck(features))
        for index, (boxes, scores) in enumerate(results):
            proposals, chances = propose(heat, distances, index)
            limits = torch.tensor([(128.0, 64.0), (100.0, 50.0)][index])
            expected = torch.cat((proposals[:, :2].clamp(min=0).minimum(limits),
                                  proposals[:, 2:].clamp(min=0).minimum(limits)), dim=1)
            torch.testing.assert_close(boxes, expected, atol=1e-3, rtol=1e-4)
            assert scores.shape == (len(boxes), 4)
            assert (scores <= chances[:, None].sqrt() + 1e-5).all()


def test_no_proposals_give_no_boxes() -> None:
    heads = DeticHeads((8, 16, 32), 64, 16, 3).eval()
    with torch.no_grad():
        heads.rpn_head.conv_cls.bias.fill_(-50.0)  # type: ignore[union-attr]
        features = [torch.randn(1, width, 64 // stride, 64 // stride)
                    for width, stride in ((8, 8), (16, 16), (32, 32))]
        boxes, scores = heads(features, [(64, 64)], torch.randn(2, 512))[0]
    assert boxes.shape == (0, 4)
    assert scores.shape == (0, 2)


def test_files_without_detic_or_with_less_of_it_are_refused(detic_file: Path) -> None:
    from masa_ros.models.checkpoint import read_entries
    entries = read_entries(detic_file)
    with pytest.raises(ValueError, match=r'x\.pth holds no Detic: detector\.neck'):
        heads_from_entries({'detector.backbone.x': torch.zeros(1)}, 'x.pth')
    less = {name: value for name, value in entries.items() if 'conv_cls' not in name}
    with pytest.raises(ValueError, match=r'does not fit Detic.*conv_cls'):
        heads_from_entries(less, 'x.pth')
    with pytest.raises(ValueError, match=r'does not fit Detic.*semantic'):
        heads_from_entries({**entries, 'detector.semantic.weight': torch.zeros(1)}, 'x.pth')
