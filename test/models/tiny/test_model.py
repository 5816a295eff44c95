from __future__ import annotations

from pathlib import Path

from masa_ros.models import build_model, ModelConfig
from masa_ros.models.classical import TYPICAL
from masa_ros.models.tiny.model import (
    embed,
    fit_image,
    INPUT_PIXELS,
    PAD,
    paste_mask,
    set_apart,
    TinyModel,
)
from masa_ros.models.tiny.network import TinyConfig, TinyNetwork
from masa_ros.models.tiny.weights import load_network, save_weights
from masa_ros.structures.instances import Flag, Instances
from masa_ros.structures.settings import from_mapping
import numpy as np
import pytest
import torch


@pytest.fixture(scope='module')
def network() -> TinyNetwork:
    torch.manual_seed(0)
    return TinyNetwork(TinyConfig(channels=16, embedding_size=8))


def model_with(network: TinyNetwork, **settings: object) -> TinyModel:
    config = from_mapping(ModelConfig, {'name': 'tiny', 'device': 'cpu', **settings})
    return TinyModel(config, network)


@pytest.mark.parametrize('size', [(480, 640), (90, 1600), (1600, 90), (1, 1), (33, 7)])
def test_any_shape_is_fitted_to_whole_cells(size: tuple[int, int]) -> None:
    image = np.full((*size, 3), 9, np.uint8)
    pixels, factors = fit_image(image)
    assert pixels.shape[0] % 32 == pixels.shape[1] % 32 == 0
    height, width = np.round(np.array(size) * factors[[1, 0]]).astype(int)
    assert (pixels[:height, :width] == 9).all()
    assert (pixels[height:] == PAD).all()
    assert (pixels[:, width:] == PAD).all()
    assert height * width <= 1.05 * INPUT_PIXELS


def test_given_boxes_come_back_untouched(network: TinyNetwork) -> None:
    boxes = Instances.from_boxes([[10, 20, 60, 90], [-5, -5, 30, 700]], [0.4, 0.9], [3, 1],
                                 ['cup', 'cat'])
    result = model_with(network).run([np.zeros((480, 640, 3), np.uint8)], [boxes])[0]
    np.testing.assert_array_equal(result.boxes, boxes.boxes)
    np.testing.assert_array_equal(result.scores, boxes.scores)
    assert result.labels == boxes.labels
    assert result.embeddings is not None
    assert result.embeddings.shape == (2, 8 + len(TYPICAL))
    # Three parts of a cosine are learned, two measured.
    learned, measured = result.embeddings[:, :8], result.embeddings[:, 8:]
    np.testing.assert_allclose(
        (learned ** 2).sum(axis=1) / (measured ** 2).sum(axis=1), [1.5, 1.5], rtol=1e-4)


@torch.no_grad()
def test_an_embedding_is_the_mean_of_looks_at_the_box_grown_and_shrunk(
    network: TinyNetwork,
) -> None:
    levels = [torch.rand(1, 16, 64 // 2 ** i, 64 // 2 ** i) for i in range(4)]
    head = network.track_head

    def box(*edges: float) -> torch.Tensor:
        return torch.tensor([[0.0, *edges]])

    # 40 wide and 20 high; a tenth is 4 and 2 pixels on each side.
    one = box(20, 30, 60, 50)
    torch.testing.assert_close(embed(head, levels, one, (0.0,)), head(levels, one))
    looks = [head(levels, seen) for seen in (one, box(16, 28, 64, 52), box(24, 32, 56, 48))]
    mean = sum(looks[1:], looks[0]) / 3
    expected = mean / mean.norm() * head.scale
    torch.testing.assert_close(embed(head, levels, one, (0.0, 0.1, -0.1)), expected)
    assert embed(head, levels, one[:0], (0.0, 0.1)).shape == (0, 8)


def test_no_boxes_are_an_ordinary_frame(network: TinyNetwork) -> None:
    image = np.zeros((48, 64, 3), np.uint8)
    result = model_with(network).run([image], [Instances()])[0]
    assert len(result) == 0
    assert result.embeddings is not None
    assert result.embeddings.shape == (0, 8 + len(TYPICAL))
    nothing = model_with(network, proposal_score=1.0).run([image], [None])[0]
    assert len(nothing) == 0


def test_proposals_are_inside_ordered_and_limited(network: TinyNetwork) -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (120, 200, 3)).astype(np.uint8),
              rng.integers(0, 256, (60, 50, 3)).astype(np.uint8)]
    found = model_with(network, proposal_score=0.0, max_proposals=7, max_masks=3).run(
        images, [None, None])
    for image, item in zip(images, found, strict=True):
        assert 0 < len(item) <= 7
        height, width = image.shape[:2]
        assert (item.boxes[:, :2] >= 0).all()
        assert (item.boxes[:, 2:] <= (width, height)).all()
        assert (np.diff(item.scores) <= 0).all()
        assert (item.flags & int(Flag.FROM_PROPOSAL)).all()
        assert sum(mask is not None for mask in item.masks) <= 3


def test_objects_beyond_the_mask_limit_are_flagged(network: TinyNetwork) -> None:
    boxes = Instances.from_boxes([[0, 0, 40, 40], [5, 5, 45, 45], [9, 9, 50, 50]],
                                 [0.2, 0.9, 0.5])
    result = model_with(network, max_masks=1).run([np.zeros((64, 64, 3), np.uint8)], [boxes])[0]
    assert (result.flags[[0, 2]] & int(Flag.MASK_SKIPPED)).all()
    assert result.masks[0] is None
    assert np.isnan(result.mask_qualities[[0, 2]]).all()


def test_limits_can_change_between_frames(network: TinyNetwork) -> None:
    model = model_with(network, proposal_score=0.0, max_proposals=5)
    image = np.zeros((64, 64, 3), np.uint8)
    before = model.run([image], [None])[0]
    model.reconfigure(ModelConfig(name='tiny', proposal_score=0.0, max_proposals=2))
    assert len(before) > len(model.run([image], [None])[0]) == 2


def test_a_mask_lands_on_its_pixels() -> None:
    logits = np.full((32, 32), -5, np.float32)
    logits[8:24, 8:24] = 5
    # Window 64 x 32 px at (10, 20): cells are 2 x 1 px, so the square is x 26-58, y 28-44.
    mask = paste_mask(logits, np.array([10, 20, 74, 52]), 100, 100)
    assert mask is not None
    assert (mask.x_offset, mask.y_offset, mask.width, mask.height) == (26, 28, 32, 16)
    assert mask.area == 32 * 16


def test_a_mask_is_cut_at_the_image() -> None:
    logits = np.full((32, 32), 5, np.float32)
    mask = paste_mask(logits, np.array([-20.0, -20, 12, 12]), 50, 50)
    assert mask is not None
    assert mask.paste(50, 50).sum() == 12 * 12
    assert paste_mask(logits, np.array([60.0, 60, 80, 80]), 50, 50) is None
    assert paste_mask(-logits, np.array([0.0, 0, 9, 9]), 50, 50) is None


def test_a_flipped_device_name_is_refused(network: TinyNetwork) -> None:
    with pytest.raises(ValueError, match='device'):
        TinyModel(ModelConfig(name='tiny', device='gpu0'), network)


def test_weights_survive_the_file_in_half_precision(
    network: TinyNetwork, tmp_path: Path,
) -> None:
    save_weights(tmp_path / 'w.pt', network, {'licence': 'none'}, trained=False)
    loaded, info = load_network(tmp_path / 'w.pt')
    assert info.trained is False
    assert loaded.config == network.config
    for (name, value), other in zip(
            network.state_dict().items(), loaded.state_dict().values(), strict=True):
        torch.testing.assert_close(value, other, atol=2e-3, rtol=1e-3, msg=name)
    assert '"licence": "none"' in (tmp_path / 'w.json').read_text()
    model = build_model(ModelConfig(name='tiny', checkpoint=str(tmp_path / 'w.pt')))
    assert model.weights.sha256 == info.sha256
    model.warm_up()
    model.close()


def test_files_that_are_not_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='masa_ros train'):
        load_network(tmp_path / 'none.pt')
    (tmp_path / 'text.pt').write_text('hello')
    with pytest.raises(ValueError, match='cannot be read'):
        load_network(tmp_path / 'text.pt')
    torch.save({'weights': 1}, tmp_path / 'other.pt')
    with pytest.raises(ValueError, match='not a file of the model tiny'):
        load_network(tmp_path / 'other.pt')
    torch.save({'config': {}, 'average': {'x': torch.zeros(1)}}, tmp_path / 'names.pt')
    with pytest.raises(ValueError, match='does not fit'):
        load_network(tmp_path / 'names.pt')


def test_what_objects_share_is_removed() -> None:
    # Two objects with a common part along x: the mean, over 2 + 2, is (1, 0, 0).
    apart = set_apart(np.array([[2, 1, 0], [2, -1, 0]], np.float32), 3.0)
    expected = np.array([[1, 1, 0], [1, -1, 0]]) * 3 / np.sqrt(2)
    np.testing.assert_allclose(apart, expected, rtol=1e-6)


def test_an_object_alone_keeps_its_direction() -> None:
    apart = set_apart(np.array([[3, 4]], np.float32), 1.0)
    np.testing.assert_allclose(apart, [[0.6, 0.8]], rtol=1e-6)
    assert set_apart(np.zeros((0, 4), np.float32), 1.0).shape == (0, 4)
    assert np.isfinite(set_apart(np.zeros((2, 4), np.float32), 1.0)).all()
