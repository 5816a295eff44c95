"""A few drawn photos with known objects, small enough to train on in seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from masa_ros.models.adapter.fusion import Fusion
from masa_ros.models.adapter.pyramid import SimplePyramid
from masa_ros.models.heads.box_head import BoxHead, RoiHead
from masa_ros.models.heads.rpn import RegionProposalHead
from masa_ros.models.heads.track_head import TrackHead
from masa_ros.structures.masks import encode_plane
from masa_ros.training.config import TrainConfig
from masa_ros.training.corpus import Corpus, LabelledImage, write_corpus
from masa_ros.training.labels import labelled
from masa_ros.training.masa import MasaStudent
import numpy as np
import pytest
from torch import nn, Tensor


def drawn_photos(count: int = 4) -> Iterator[LabelledImage]:
    """Photos of 96 x 128 px with three coloured rectangles each; the last one is unlabelled."""
    rng = np.random.default_rng(0)
    for number in range(count):
        image = rng.integers(90, 130, (96, 128, 3)).astype(np.uint8)
        masks = []
        for k in range(3):
            y, x = int(rng.integers(5, 55)), int(rng.integers(5 + 40 * k, 12 + 40 * k))
            mask = np.zeros((96, 128), bool)
            mask[y:y + 30, x:x + 25] = True
            image[mask] = rng.integers(0, 256, 3)
            masks.append(encode_plane(mask))
        if number == count - 1:
            masks = []
        yield labelled(f'photo{number}.png', f'set{number % 2}', image, masks,
                       [0] * len(masks), number == 0)


@pytest.fixture(scope='session')
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """The drawn photos as a corpus."""
    return write_corpus(tmp_path_factory.mktemp('corpus'), drawn_photos())


@pytest.fixture
def settings(corpus: Corpus, tmp_path: Path) -> dict[str, object]:
    """Settings of a run of six steps, by dotted name."""
    return {
        'run': str(tmp_path / 'run'), 'steps': 6, 'batch': 2, 'seed': 3, 'validate_every': 0,
        'precision': 'float32', 'data.corpus': str(corpus.folder), 'data.workers': 0,
        'views.size': 64, 'views.paste_max': 3, 'views.least_pixels': 8,
        'network.channels': 16, 'network.embedding_size': 16, 'pairs.max_masks': 2,
        'optim.warmup_steps': 2,
    }


@pytest.fixture
def config(settings: dict[str, object]) -> TrainConfig:
    """The same as a configuration."""
    from masa_ros.structures.settings import from_mapping
    return from_mapping(TrainConfig, settings)


class Patches(nn.Module):
    """Four copies of one convolution with stride 16, as a plain transformer gives them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 48, 16, stride=16)
        self.norm = nn.BatchNorm2d(48)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        features = self.norm(self.conv(pixels))
        return [features * factor for factor in (1.0, 0.5, 2.0, 1.5)]


@pytest.fixture
def small_student() -> Callable[[], MasaStudent]:
    """Make modules of the SAM variants at a width of 32."""
    def make() -> MasaStudent:
        strides = (4, 8, 16, 32, 64)
        return MasaStudent(
            Patches(), encode,
            nn.Sequential(SimplePyramid(48, 32), Fusion(attention=True, channels=32, blocks=1)),
            RegionProposalHead(32, strides), RoiHead(BoxHead(32, 0, 2, 64)), TrackHead(32),
            strides, roi_levels=4, side=128)

    def encode(encoder: nn.Module, pixels: Tensor) -> Sequence[Tensor]:
        levels: Sequence[Tensor] = encoder(pixels)
        return levels

    return make
