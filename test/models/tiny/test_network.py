from __future__ import annotations

from pathlib import Path

import cv2
from masa_ros.models.tiny.network import (
    cell_corners,
    pool_levels,
    PROPOSAL_STRIDES,
    TinyConfig,
    TinyNetwork,
)
import numpy as np
import pytest
import torch

SMALL = TinyConfig(channels=16, embedding_size=8)


@pytest.fixture(scope='module')
def network() -> TinyNetwork:
    torch.manual_seed(0)
    return TinyNetwork(SMALL).eval()


def rois(*boxes: tuple[float, float, float, float]) -> torch.Tensor:
    return torch.tensor([(0, *box) for box in boxes], dtype=torch.float32).reshape(-1, 5)


def heads(
    network: TinyNetwork, images: torch.Tensor, boxes: torch.Tensor,
) -> dict[str, torch.Tensor]:
    """Masks and embeddings of the same boxes."""
    out: dict[str, torch.Tensor] = network(images, boxes, lambda proposed, scores: boxes)
    return out


@torch.no_grad()
def test_shapes_of_all_heads(network: TinyNetwork) -> None:
    some = rois((0, 0, 30, 40), (10, 10, 200, 90))
    out = heads(network, torch.zeros(1, 3, 96, 224), some)
    assert out['boxes'].shape == (1, 12 * 28 + 6 * 14 + 3 * 7, 4)
    assert out['objectness'].shape == (1, 12 * 28 + 6 * 14 + 3 * 7)
    assert out['masks'].shape == (2, 32, 32)
    assert out['quality'].shape == (2,)
    np.testing.assert_allclose(out['embeddings'].norm(dim=1), SMALL.embedding_scale, rtol=1e-5)


@torch.no_grad()
def test_no_boxes_give_empty_results(network: TinyNetwork) -> None:
    out = heads(network, torch.zeros(1, 3, 64, 64), rois())
    assert out['masks'].shape == (0, 32, 32)
    assert out['embeddings'].shape == (0, 8)


@torch.no_grad()
def test_an_object_is_described_alike_whatever_else_is_asked(network: TinyNetwork) -> None:
    images = torch.rand(1, 3, 128, 128) * 255
    one = (20.0, 30.0, 60.0, 90.0)
    alone = heads(network, images, rois(one))
    crowd = heads(network, images, rois((0, 0, 128, 128), one))
    torch.testing.assert_close(crowd['masks'][1], alone['masks'][0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        crowd['embeddings'][1], alone['embeddings'][0], atol=1e-4, rtol=1e-4)


def test_what_is_embedded_may_depend_on_the_proposals(network: TinyNetwork) -> None:
    images, seen = torch.rand(2, 3, 64, 64) * 255, []

    def best(boxes: torch.Tensor, objectness: torch.Tensor) -> torch.Tensor:
        seen.append((boxes, objectness))
        row = objectness[1].argmax()
        return torch.cat([torch.ones(1), boxes[1, row]])[None]

    out = network(images, rois(), best)
    (boxes, objectness), = seen
    assert not boxes.requires_grad
    torch.testing.assert_close(boxes, out['boxes'].detach())
    torch.testing.assert_close(objectness, out['objectness'].detach())
    assert out['embeddings'].shape == (1, 8)
    assert out['embeddings'].requires_grad


def test_boxes_are_pooled_from_the_level_of_their_size() -> None:
    levels = [torch.full((1, 2, 128 // 2 ** i, 128 // 2 ** i), float(i)) for i in range(4)]
    pooled = pool_levels(levels, rois(
        (0, 0, 20, 20), (0, 0, 111, 111), (0, 0, 113, 113), (0, 0, 300, 300),
        (0, 0, 500, 500)), 7)
    # Sides below 112 px belong to the finest level, then one for every doubling.
    assert pooled[:, 0, 3, 3].tolist() == [0, 0, 1, 2, 3]


def test_cells_run_row_by_row() -> None:
    assert cell_corners(2, 3, torch.device('cpu')).tolist() == [
        [0, 0], [1, 0], [2, 0], [0, 1], [1, 1], [2, 1]]


def test_the_network_fits_its_budget() -> None:
    count = sum(value.numel() for value in TinyNetwork().parameters())
    assert 2 * count <= 12 * 2 ** 20


@pytest.mark.data
@torch.no_grad()
def test_published_detector_weights_give_the_detectors_boxes(shared: Path) -> None:
    pytest.importorskip('onnx')
    runtime = pytest.importorskip('onnxruntime')
    from masa_ros.training.initialize import load_yolox_nano

    file = shared / 'models/yolox_nano.onnx'
    file = file if file.is_file() else shared / 'data/models/yolox_nano.onnx'
    network = TinyNetwork(SMALL).eval()
    taken = load_yolox_nano(network, file)
    own = [name for name, _ in network.named_parameters()
           if name.startswith(('backbone.', 'pyramid.', 'proposal_head.'))]
    assert sorted(taken) == sorted(own)

    photo = sorted((shared / 'data/images/coco128_train/images').glob('*.jpg'))[0]
    picture = cv2.imread(str(photo))
    assert picture is not None
    bgr = cv2.resize(picture, (416, 416)).transpose(2, 0, 1)[None]
    expected = runtime.InferenceSession(str(file)).run(None, {'images': bgr.astype(np.float32)})[0]
    rgb = torch.from_numpy(np.ascontiguousarray(bgr[:, ::-1])).float()
    boxes, objectness = network.proposal_head(network.features(rgb)[0])
    np.testing.assert_allclose(objectness[0].sigmoid(), expected[0, :, 4], atol=1e-4)

    cells = torch.cat([cell_corners(416 // s, 416 // s, rgb.device) for s in PROPOSAL_STRIDES])
    strides = torch.cat([torch.full(((416 // s) ** 2, 1), s) for s in PROPOSAL_STRIDES])
    centre = (torch.from_numpy(expected[0, :, :2]) + cells) * strides
    half = torch.from_numpy(expected[0, :, 2:4]).exp() * strides / 2
    torch.testing.assert_close(
        boxes[0], torch.cat([centre - half, centre + half], 1), atol=0.02, rtol=1e-4)


def test_missing_and_wrong_detector_files_are_refused(tmp_path: Path) -> None:
    onnx = pytest.importorskip('onnx')
    from masa_ros.training.initialize import load_yolox_nano

    with pytest.raises(FileNotFoundError, match='OpenCV model zoo'):
        load_yolox_nano(TinyNetwork(SMALL), tmp_path / 'none.onnx')
    graph = onnx.helper.make_graph([], 'empty', [], [])
    onnx.save(onnx.helper.make_model(graph), tmp_path / 'other.onnx')
    with pytest.raises(ValueError, match='not YOLOX-Nano'):
        load_yolox_nano(TinyNetwork(SMALL), tmp_path / 'other.onnx')
