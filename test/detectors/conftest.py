"""A whole Grounding-DINO at small sizes, in the form of a MASA file, and a BERT vocabulary."""

from __future__ import annotations

import itertools
from pathlib import Path

from masa_ros.detectors.detic_network import DeticHeads
from masa_ros.models.backbones.swin import Swin
from masa_ros.models.detector_entries import detector_entries
from masa_ros.models.seeding import seeded_entry
import pytest
import torch
from torch import Tensor

LAYERS = 2
WIDTH, BERT_WIDTH, FFN, WORDS, QUERIES, SWIN_WIDTH = 64, 64, 128, 1100, 20, 16
DETIC_NAMES = ('car', 'person', 'traffic cone', 'dog', 'cat')
WORD_LIST = ('car', 'person', 'traffic', 'cone', 'light', 'dog', '##s')


def small_swin() -> Swin:
    """Swin with windows of 4 tokens."""
    return Swin(SWIN_WIDTH, (1, 1, 2, 1), (1, 2, 4, 8), 4)


@pytest.fixture(scope='session')
def dino_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small ``gdino_masa.pth`` with a ``vocab.txt`` beside it."""
    folder = tmp_path_factory.mktemp('grounding_dino')
    write_vocabulary(folder)
    torch.save({'state_dict': small_entries()}, folder / 'gdino_masa.pth')
    return folder / 'gdino_masa.pth'


@pytest.fixture
def swin() -> Swin:
    """Image backbone of `dino_file`."""
    start = 'detector.backbone.'
    entries = {name.removeprefix(start): value for name, value in small_entries().items()
               if name.startswith(start)}
    network = small_swin()
    entries |= {name: value for name, value in network.state_dict().items()
                if name.endswith('relative_position_index')}
    network.load_state_dict(entries)
    return network.eval()


@pytest.fixture(scope='session')
def detic_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small ``detic_masa.pth`` of five classes with their names beside it."""
    folder = tmp_path_factory.mktemp('detic')
    torch.save({'state_dict': detic_entries()}, folder / 'detic_masa.pth')
    (folder / 'names.txt').write_text('\n'.join(DETIC_NAMES) + '\n')
    return folder / 'detic_masa.pth'


def detic_entries() -> dict[str, Tensor]:
    """Entries under ``detector.`` of a small Detic, those that are not used included."""
    swin = {name.removeprefix('detector.'): value for name, value in small_entries().items()
            if name.startswith('detector.backbone.')}
    heads = DeticHeads((32, 64, 128), WIDTH, 32, len(DETIC_NAMES))
    entries = {name: torch.tensor(seeded_entry(name, tuple(value.shape)))
               for name, value in heads.state_dict().items()}
    for index in range(3):
        entries[f'roi_head.bbox_head.{index}.freq_weight'] = torch.ones(len(DETIC_NAMES))
        vectors = entries['roi_head.bbox_head.0.fc_cls.zs_weight']
        vectors[:, -1] = 0
        entries[f'roi_head.bbox_head.{index}.fc_cls.zs_weight'] = vectors / vectors.norm(
            dim=0).clamp(min=1)
        # Untrained deltas would move every box away.
        entries[f'roi_head.bbox_head.{index}.fc_reg.2.weight'] *= 0.2
    entries['roi_head.mask_head.conv_logits.bias'] = torch.zeros(1)
    entries['rpn_head.conv_reg.bias'] = torch.full((4,), 2.0)
    return {f'detector.{name}': value for name, value in {**swin, **entries}.items()}


@pytest.fixture(scope='session')
def dino_heads() -> dict[str, Tensor]:
    """Entries of a small Grounding-DINO for the features of Swin-B, without the backbone."""
    return {name: value for name, value in small_entries(swin_width=128).items()
            if not name.startswith('detector.backbone.')}


def small_entries(swin_width: int = SWIN_WIDTH) -> dict[str, Tensor]:
    """Entries under ``detector.`` with seeded numbers."""
    shapes = {f'detector.backbone.{name}': tuple(value.shape)
              for name, value in small_swin().state_dict().items()}
    for name, shape in detector_entries('gdino').items():
        short = _renamed(name)
        if short:
            shapes[short] = _shape(name, shape, swin_width)
    entries = {}
    for name, shape in shapes.items():
        if name.endswith('relative_position_index'):
            entries[name] = torch.zeros(shape, dtype=torch.int64)
        else:
            entries[name] = torch.from_numpy(seeded_entry(name, shape)).clone()
    for index in range(LAYERS + 1):
        # Untrained box layers would throw every box out of the image.
        last = f'detector.bbox_head.reg_branches.{index}.4.weight'
        entries[last] = 0.2 * entries[last]
    return entries


def write_vocabulary(folder: Path) -> Path:
    """Write a ``vocab.txt`` with the special tokens at BERT's places and a few words."""
    lines = [f'[unused{index}]' for index in range(WORDS)]
    lines[0] = '[PAD]'
    lines[100:104] = ['[UNK]', '[CLS]', '[SEP]', '[MASK]']
    lines[1012], lines[1029] = '.', '?'
    lines[1030:1030 + len(WORD_LIST)] = WORD_LIST
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / 'vocab.txt'
    path.write_text('\n'.join(lines) + '\n')
    return path


def _renamed(name: str) -> str:
    """Name in the small file; empty for layers that it does not have."""
    parts = name.split('.')
    for before, part in itertools.pairwise(parts):
        if not part.isdigit():
            continue
        if before == 'reg_branches':
            if LAYERS <= int(part) < 6:
                return ''
            return name.replace('reg_branches.6.', f'reg_branches.{LAYERS}.')
        if before in ('layers', 'layer', 'text_layers', 'fusion_layers') and 'ffn' not in before:
            # The first number in a name is that of the layer.
            return name if int(part) < LAYERS else ''
    return name


def _shape(name: str, shape: tuple[int, ...], swin_width: int) -> tuple[int, ...]:
    """Shape at the small sizes."""
    bert = 'language_backbone' in name
    sizes = {256: WIDTH, 900: QUERIES, 30522: WORDS, 3072: FFN, 2048: FFN}
    sizes[768] = 3 * WIDTH if 'in_proj' in name else BERT_WIDTH
    sizes[1024] = FFN // 2
    sizes[512] = 64 if bert else 2 * WIDTH
    small = [sizes.get(side, side) for side in shape]
    if 'sampling_offsets' in name or 'attention_weights' in name:
        small[0] = shape[0]
    if '.neck.' in name and len(shape) == 4:
        small[1] = shape[1] // 128 * swin_width
    return tuple(small)
