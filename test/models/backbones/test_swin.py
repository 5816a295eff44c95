"""Swin against torchvision's independent implementation."""

from __future__ import annotations

from masa_ros.models.backbones.swin import relative_position_index, Swin
import pytest
import torch
from torch import Tensor
from torchvision.models.swin_transformer import SwinTransformer

WIDTH = 32
DEPTHS = (2, 2, 2, 2)
HEADS = (1, 2, 4, 8)


def as_ours(weights: dict[str, Tensor], window: int) -> dict[str, Tensor]:
    """Rename torchvision's entries; a merged patch lists pixels first there, channels here."""
    renamed = {}
    pieces = [('attn.', 'attn.w_msa.'), ('mlp.0', 'ffn.layers.0.0'), ('mlp.3', 'ffn.layers.1')]
    for name, value in weights.items():
        head, number, rest = (*name.split('.', 2), '', '')[:3]
        if head != 'features':
            continue
        if number == '0':
            renamed[f'patch_embed.{"projection" if rest[0] == "0" else "norm"}{rest[1:]}'] = value
        elif int(number) % 2:
            for theirs, ours in pieces:
                rest = rest.replace(theirs, ours)
            block, rest = rest.split('.', 1)
            if rest.endswith('relative_position_index'):
                value = value.view(window ** 2, window ** 2)
            renamed[f'stages.{int(number) // 2}.blocks.{block}.{rest}'] = value
        else:
            # Their pixels: (0,0), (1,0), (0,1), (1,1); ours row by row.
            parts = value.reshape(*value.shape[:-1], 4, -1)[..., [0, 2, 1, 3], :]
            renamed[f'stages.{int(number) // 2 - 1}.downsample.{rest}'] = (
                parts.transpose(-1, -2).flatten(-2))
    return renamed


# Odd numbers of patches at every stage: padding of windows and of merged patches.
# Detic has windows of 7 tokens, Grounding-DINO of 12.
@pytest.mark.parametrize(('size', 'window'), [
    ((260, 292), 7), ((256, 448), 7), ((388, 420), 12)])
def test_features_equal_torchvisions_with_padding_and_shifted_windows(
    size: tuple[int, int], window: int,
) -> None:
    torch.manual_seed(5)
    theirs = SwinTransformer([4, 4], WIDTH, list(DEPTHS), list(HEADS), [window] * 2,
                             stochastic_depth_prob=0.0).eval()
    with torch.no_grad():
        for weight in theirs.parameters():
            weight.normal_(std=0.3)
        weights = as_ours(theirs.state_dict(), window)
        ours = Swin(WIDTH, DEPTHS, HEADS, window=window).eval()
        weights.update({name: value for name, value in ours.state_dict().items()
                        if name.startswith('norm')})
        ours.load_state_dict(weights)
        image = torch.randn(2, 3, *size)
        levels = ours(image)
        hidden, stage = image, 0
        for layer in theirs.features:
            hidden = layer(hidden)
            if isinstance(layer, torch.nn.Sequential) and len(layer) == 2 and layer is not (
                    theirs.features[0]):
                if stage:
                    norm = torch.nn.functional.layer_norm(hidden, hidden.shape[-1:])
                    expected = norm.permute(0, 3, 1, 2)
                    assert levels[stage - 1].shape == expected.shape
                    assert (levels[stage - 1] - expected).abs().max().item() < 1e-4
                stage += 1
    assert stage == 4


def test_position_index_by_hand() -> None:
    # Window 2: tokens a b / c d. The table row counts dy + 1 in steps of 3, plus dx + 1.
    index = relative_position_index(2)
    assert index[0].tolist() == [4, 3, 1, 0]
    assert index[3].tolist() == [8, 7, 5, 4]


def test_any_image_size_is_padded_to_whole_patches() -> None:
    levels = Swin(8, (1, 1, 1, 1), (1, 1, 1, 1), window=7).eval()(torch.zeros(1, 3, 1, 35))
    assert [tuple(level.shape) for level in levels] == [
        (1, 16, 1, 5), (1, 32, 1, 3), (1, 64, 1, 2)]
