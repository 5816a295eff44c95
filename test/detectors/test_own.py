"""Proposals and SAM's everything mode as detectors, with a small real SAM."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
import zlib

from masa_ros.detectors import build_detector, DetectorConfig, own
from masa_ros.models.masa import EncodedBatch
from masa_ros.models.masa_network import Encoded
from masa_ros.models.preprocess import Prepared
from masa_ros.models.sam import grid
from masa_ros.models.sam.architecture import build_network, VitArchitecture
from masa_ros.structures.instances import Flag, Instances
import numpy as np
import pytest
import torch

QUICK = VitArchitecture(width=32, depth=2, heads=2, global_blocks=(1,), image_size=256)


@pytest.fixture(scope='module')
def sam() -> Any:
    network = build_network(QUICK)
    state = {}
    for name, value in network.state_dict().items():
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        noise = torch.randn(value.shape, generator=generator)
        state[name] = noise / max(1, noise[0].numel()) ** 0.5 if noise.ndim > 1 else 0.1 * noise
    network.load_state_dict(state, assign=True)
    return network.eval()


class FakeMasa:
    """What the grid needs of a MASA model with SAM inside."""

    name = 'masa_sam_vit_b'
    device = 'cpu'
    can_propose = True

    def __init__(self, sam: Any) -> None:
        self.network = SimpleNamespace(variant=SimpleNamespace(has_sam=True), detector={
            'backbone': sam.image_encoder, 'prompt_encoder': sam.prompt_encoder,
            'mask_decoder': sam.mask_decoder})
        self.encodings = 0

    def encode(self, images: Any) -> list[EncodedBatch]:
        self.encodings += 1
        pixels = torch.zeros(3, 256, 256)
        prepared = [Prepared(pixels, (128, 256), (2.0, 2.0)) for _ in images]
        side = 256 // 16
        embedding = torch.randn(
            len(images), 256, side, side, generator=torch.Generator().manual_seed(0))
        return [EncodedBatch([row], [prepared[row]], [image.shape[:2]],
                             Encoded([], embedding[row:row + 1]))
                for row, image in enumerate(images)]


def fake_grid(network: Any, embedding: Any, image: Any, geometry: Any) -> Instances:
    """Stand in for the everything mode: boxes told by the embedding and the image's size."""
    assert embedding.shape == (256, 16, 16)
    height, width = image.shape[:2]
    return Instances.from_boxes(
        [[0, 0, width, height], [0, 0, 5, 5], [5, 5, 9, 9]], [0.9, 0.5, 0.2],
        flag=Flag.FROM_PROPOSAL)


def test_proposals_leave_the_finding_to_the_model() -> None:
    config = DetectorConfig(name='proposals')
    assert build_detector(config, SimpleNamespace(name='tiny', can_propose=True)) is None
    assert build_detector(config) is None
    with pytest.raises(ValueError, match='classical finds no objects by itself'):
        build_detector(config, SimpleNamespace(name='classical', can_propose=False))


@pytest.mark.parametrize('name', ['proposals', 'grid'])
def test_what_finds_everything_refuses_class_names(name: str) -> None:
    with pytest.raises(ValueError, match=f'detector {name} finds everything'):
        build_detector(DetectorConfig(name=name, text='car'))


def test_the_grid_of_a_plain_sam_is_its_own_proposals() -> None:
    model = SimpleNamespace(name='sam_vit_b', can_propose=True)
    assert build_detector(DetectorConfig(name='grid'), model) is None


def test_a_grid_without_sam_says_how_to_name_one() -> None:
    with pytest.raises(ValueError, match=r'needs SAM.*tiny.*architecture to one of sam_vit_b'):
        build_detector(DetectorConfig(name='grid'), SimpleNamespace(name='tiny'))
    with pytest.raises(ValueError, match="'resnet', expected for the detector grid"):
        build_detector(DetectorConfig(name='grid', architecture='resnet'))
    with pytest.raises(FileNotFoundError, match='weights'):
        build_detector(DetectorConfig(
            name='grid', architecture='sam_vit_b', checkpoint='/nowhere/sam.pth'))


def test_the_grid_works_on_the_features_of_a_masa_model(
    sam: Any, monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = FakeMasa(sam)
    detector = build_detector(DetectorConfig(name='grid', score_threshold=0.3), model)
    assert isinstance(detector, own.GridDetector)
    assert detector.shares_features
    monkeypatch.setattr(grid, 'propose', fake_grid)
    images = [np.zeros((64, 128, 3), np.uint8), np.zeros((32, 64, 3), np.uint8)]
    found = detector.detect(images)
    assert model.encodings == 1
    assert [part.boxes[0].tolist() for part in found] == [[0, 0, 128, 64], [0, 0, 64, 32]]
    assert [len(part) for part in found] == [2, 2]
    second = detector.detect_encoded(model.encode(images), [1])
    assert [part.boxes[0].tolist() for part in second] == [[0, 0, 64, 32]]
    detector.reconfigure(DetectorConfig(name='grid', score_threshold=0.0, max_detections=1))
    assert [len(part) for part in detector.detect(images)] == [1, 1]


def test_the_grid_knows_no_classes(sam: Any) -> None:
    detector = build_detector(DetectorConfig(name='grid'), FakeMasa(sam))
    assert detector is not None
    assert detector.class_names == ()
    detector.set_classes([])
    with pytest.raises(ValueError, match='knows no classes'):
        detector.set_classes(['car'])
    detector.close()


def test_shared_parts_give_the_same_boxes_as_the_package_with_the_whole_network(sam: Any) -> None:
    model = FakeMasa(sam)
    batch = model.encode([np.zeros((64, 128, 3), np.uint8)])[0]
    assert batch.encoded.image_embedding is not None
    settings = grid.GridSettings(points_per_side=4, predicted_iou=-10.0, stability=0.0)
    from masa_ros.models.sam.preprocess import Geometry
    geometry = Geometry((64, 128), (128, 256), 256)
    image = np.zeros((64, 128, 3), np.uint8)
    both = [grid.propose(network, batch.encoded.image_embedding[0], image, geometry, settings)
            for network in (sam, own._sam_of(model))]
    assert len(both[0]) > 0
    np.testing.assert_array_equal(both[0].boxes, both[1].boxes)
