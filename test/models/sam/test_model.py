"""SAM behind the model protocol, on a small encoder of small images with the real decoder."""

from __future__ import annotations

from collections.abc import Callable
import logging
from pathlib import Path
from typing import Any

from masa_ros.models import build_model, ModelConfig
from masa_ros.models.model import WeightsInfo
from masa_ros.models.sam.architecture import VitArchitecture
from masa_ros.models.sam.grid import GridSettings
from masa_ros.models.sam.model import SamModel
from masa_ros.structures.instances import Flag, Instances
import numpy as np
import pytest

SMALL = VitArchitecture(width=32, depth=2, heads=2, global_blocks=(1,), image_size=256)
EVERYTHING = GridSettings(points_per_side=2, predicted_iou=-1e9, stability=0.0, box_nms=1.0)
IMAGE = np.random.default_rng(4).integers(0, 256, (90, 160, 3), np.uint8)


@pytest.fixture(scope='module')
def make_model(make_network: Callable[..., Any]) -> Callable[..., SamModel]:
    def make(**settings: Any) -> SamModel:
        config = ModelConfig(name='sam_vit_b', device='cpu', **settings)
        return SamModel(make_network(SMALL), config, WeightsInfo(), EVERYTHING)
    return make


@pytest.fixture(scope='module')
def model(make_model: Callable[..., SamModel]) -> SamModel:
    return make_model()


def detections(*boxes: list[float], scores: list[float] | None = None) -> Instances:
    return Instances.from_boxes(np.array(boxes, np.float32).reshape(-1, 4), scores)


def test_given_boxes_come_back_with_masks_and_embeddings(model: SamModel) -> None:
    given = detections([10, 10, 60, 50], [0, 0, 160, 90], scores=[0.4, 0.9])
    (found,) = model.run([IMAGE], [given])
    assert np.array_equal(found.boxes, given.boxes)
    assert np.array_equal(found.scores, given.scores)
    assert found.embeddings is not None
    assert found.embeddings.shape == (2, 256)
    assert found.embeddings.dtype == np.float32
    assert np.isfinite(found.mask_qualities).all()
    mask = found.masks[0]
    assert mask is not None
    # A tenth of the side around the box.
    assert (mask.x_offset, mask.y_offset, mask.width, mask.height) == (5, 6, 60, 48)
    assert found.flags.tolist() == [int(Flag.FROM_DETECTION)] * 2


def test_embeddings_are_the_mean_of_the_encoders_features(model: SamModel) -> None:
    # The whole 90 x 160 image is 144 x 256 pixels of the input: rows 0 to 8 of the features.
    from masa_ros.models.sam.encoder import encode
    from masa_ros.models.sam.preprocess import to_batch
    batch, _ = to_batch([IMAGE], model._device, 256)
    features = encode(model._network.image_encoder, batch).neck[0, :, :9].numpy()
    (found,) = model.run([IMAGE], [detections([0, 0, 160, 90])])
    assert found.embeddings is not None
    assert np.abs(found.embeddings[0] - features.mean(axis=(1, 2))).max() < 0.05
    assert np.corrcoef(found.embeddings[0], features.mean(axis=(1, 2)))[0, 1] > 0.99


def test_an_image_gives_the_same_alone_and_in_a_batch(model: SamModel) -> None:
    other = np.random.default_rng(5).integers(0, 256, (200, 70, 3), np.uint8)
    boxes = [detections([10, 10, 60, 50]), detections([5, 5, 50, 150], [1, 1, 9, 9])]
    together = model.run([IMAGE, other], boxes)
    for image, given, found in zip([IMAGE, other], boxes, together, strict=True):
        (alone,) = model.run([image], [given])
        assert found.embeddings is not None
        assert alone.embeddings is not None
        assert np.abs(found.embeddings - alone.embeddings).max() < 1e-4
        assert len(found) == len(given)


def test_only_the_best_scored_boxes_get_masks(make_model: Callable[..., SamModel]) -> None:
    given = detections([10, 10, 60, 50], [20, 20, 90, 80], [0, 0, 30, 30],
                       scores=[0.2, 0.9, 0.5])
    (found,) = make_model(max_masks=2).run([IMAGE], [given])
    assert [mask is None for mask in found.masks] == [True, False, False]
    assert np.isnan(found.mask_qualities).tolist() == [True, False, False]
    assert [bool(flag & Flag.MASK_SKIPPED) for flag in found.flags] == [True, False, False]


def test_no_boxes_give_no_objects(model: SamModel) -> None:
    (found,) = model.run([IMAGE], [detections()])
    assert len(found) == 0
    assert found.embeddings is not None
    assert found.embeddings.shape == (0, 256)


def test_a_box_outside_the_image_has_no_mask(model: SamModel) -> None:
    (found,) = model.run([IMAGE], [detections([500, 500, 600, 600], [10, 10, 60, 50])])
    assert found.masks[0] is None
    assert found.flags[0] & Flag.MASK_SKIPPED
    assert found.masks[1] is not None
    assert found.embeddings is not None
    assert np.isfinite(found.embeddings).all()


@pytest.mark.parametrize(('box', 'problem'), [
    ([np.nan, 0, 10, 10], 'not finite'), ([50, 10, 10, 40], 'inverted')])
def test_impossible_boxes_are_refused(model: SamModel, box: list[float], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        model.run([IMAGE], [detections(box)])


def test_images_and_detections_must_be_as_many(model: SamModel) -> None:
    with pytest.raises(ValueError, match='1 images but 2 sets'):
        model.run([IMAGE], [None, None])


@pytest.mark.parametrize(('height', 'width'), [(1, 1), (37, 5000), (1, 3000)])
def test_odd_image_sizes_work(model: SamModel, height: int, width: int) -> None:
    image = np.zeros((height, width, 3), np.uint8)
    (found,) = model.run([image], [detections([0, 0, width, height])])
    assert found.masks[0] is not None
    assert (found.masks[0].height, found.masks[0].width) == (height, width)


def test_everything_mode_gives_masks_with_tight_boxes(
    make_model: Callable[..., SamModel], caplog: pytest.LogCaptureFixture,
) -> None:
    model = make_model(proposal_score=0.0)
    with caplog.at_level(logging.WARNING):
        (found,) = model.run([IMAGE], [None])
        model.run([IMAGE], [None])
    assert caplog.text.count('grid of points') == 1
    assert 0 < len(found) <= 4 * 3
    for box, mask in zip(found.boxes, found.masks, strict=True):
        assert mask is not None
        assert box.tolist() == [mask.x_offset, mask.y_offset, mask.x_offset + mask.width,
                                mask.y_offset + mask.height]
        crop = mask.decode()
        assert crop[0].any()
        assert crop[-1].any()
        assert crop[:, 0].any()
        assert crop[:, -1].any()
    assert (np.diff(found.scores) <= 0).all()
    assert found.flags.tolist() == [int(Flag.FROM_PROPOSAL)] * len(found)


def test_everything_mode_equals_the_packages_generator(model: SamModel) -> None:
    from segment_anything import SamAutomaticMaskGenerator
    # 256 pixels wide, so that both ways read the same pixels.
    image = np.random.default_rng(0).integers(0, 256, (144, 256, 3), np.uint8)
    generator = SamAutomaticMaskGenerator(
        model._network, points_per_side=2, pred_iou_thresh=-1e9, stability_score_thresh=0.0,
        box_nms_thresh=1.0)
    expected = sorted(generator.generate(image), key=lambda record: -record['predicted_iou'])
    model.reconfigure(ModelConfig(name='sam_vit_b', proposal_score=0.0))
    (found,) = model.run([image], [None])
    expected = [record for record in expected if record['area']]
    assert len(found) == len(expected) > 0
    assert found.mask_qualities == pytest.approx(
        [record['predicted_iou'] for record in expected], abs=1e-4)
    for mask, record in zip(found.masks, expected, strict=True):
        assert mask is not None
        assert (mask.paste(144, 256) != record['segmentation']).mean() < 1e-4


def test_nothing_found_by_the_grid_is_an_empty_result(make_network: Callable[..., Any]) -> None:
    strict = GridSettings(points_per_side=2, predicted_iou=1e9)
    model = SamModel(make_network(SMALL), ModelConfig(name='sam_vit_b', device='cpu'),
                     WeightsInfo(), strict)
    (found,) = model.run([IMAGE], [None])
    assert len(found) == 0
    assert found.embeddings is not None
    assert found.embeddings.shape == (0, 256)


def test_proposal_limits_apply_from_the_next_frame(make_model: Callable[..., SamModel]) -> None:
    model = make_model(proposal_score=0.0)
    (everything,) = model.run([IMAGE], [None])
    model.reconfigure(ModelConfig(
        name='sam_vit_b', proposal_score=0.0, max_proposals=2, max_masks=1))
    (found,) = model.run([IMAGE], [None])
    assert np.array_equal(found.boxes, everything.boxes[:2])
    assert [mask is None for mask in found.masks] == [False, True]


def test_bfloat16_stays_near_float32(
    model: SamModel, make_model: Callable[..., SamModel],
) -> None:
    given = detections([10, 10, 60, 50], [30, 5, 150, 85])
    (exact,) = model.run([IMAGE], [given])
    (rough,) = make_model(precision='bfloat16').run([IMAGE], [given])
    assert exact.embeddings is not None
    assert rough.embeddings is not None
    similarity = (exact.embeddings * rough.embeddings).sum(1) / (
        np.linalg.norm(exact.embeddings, axis=1) * np.linalg.norm(rough.embeddings, axis=1))
    assert similarity.min() > 0.999
    for mask, other in zip(exact.masks, rough.masks, strict=True):
        assert mask is not None
        assert other is not None
        assert (mask.decode() != other.decode()).mean() < 0.05


def test_a_closed_model_holds_no_memory(make_model: Callable[..., SamModel]) -> None:
    model = make_model()
    model.close()
    assert {value.device.type for value in model._network.state_dict().values()} == {'meta'}


def test_missing_weights_say_how_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv('MASA_ROS_WEIGHTS', str(tmp_path))
    with pytest.raises(FileNotFoundError, match='masa_ros weights fetch sam_vit_h'):
        build_model(ModelConfig(name='sam_vit_h'))


def test_mobile_sam_runs_from_a_file_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    from masa_ros.models import seeding
    monkeypatch.setenv('MASA_ROS_WEIGHTS', str(tmp_path))
    seeding.write('mobile_sam', tmp_path / 'mobile_sam.pt')
    model = build_model(ModelConfig(name='mobile_sam', device='cpu'))
    assert model.weights.trained is False
    assert 'NOT TRAINED' in model.weights.summary()
    (found,) = model.run([IMAGE], [detections([10, 10, 60, 50])])
    assert found.masks[0] is not None


@pytest.mark.slow
def test_a_compiled_model_gives_the_same(
    model: SamModel, make_model: Callable[..., SamModel],
) -> None:
    given = detections([10, 10, 60, 50], [30, 5, 150, 85], [5, 5, 20, 40])
    (expected,) = model.run([IMAGE], [given])
    (found,) = make_model(compile=True).run([IMAGE], [given])
    assert found.embeddings == pytest.approx(expected.embeddings, abs=1e-4)
    for mask, other in zip(found.masks, expected.masks, strict=True):
        assert mask is not None
        assert other is not None
        assert (mask.decode() != other.decode()).mean() < 1e-3


@pytest.mark.slow
def test_vit_b_runs_at_full_size_from_a_file(tmp_path: Path) -> None:
    from masa_ros.models import seeding
    path = seeding.write('sam_vit_b', tmp_path / 'sam_vit_b_01ec64.pth')
    model = build_model(ModelConfig(name='sam_vit_b', checkpoint=str(path), device='cpu'))
    (found,) = model.run([IMAGE], [detections([10, 10, 60, 50])])
    assert found.masks[0] is not None
    assert model.weights.trained is False


def test_points_cut_one_object_out_as_the_package_does(model: SamModel) -> None:
    from segment_anything import SamPredictor
    points = np.array([[40.5, 30.5], [100.5, 60.5]], np.float32)
    on_object = np.array([True, False])
    (found,) = [model.segment_points(IMAGE, points, on_object)]
    predictor = SamPredictor(model._network)
    predictor.set_image(IMAGE)
    masks, qualities, _ = predictor.predict(
        points.astype(np.float64) - 0.5, np.array([1, 0]), multimask_output=True)
    wanted = masks[int(np.argmax(qualities))]
    assert wanted.any()
    mask = found.masks[0]
    assert mask is not None
    same = mask.paste(*IMAGE.shape[:2]) == wanted
    assert same.mean() > 0.98  # the image is resized by other code
    assert found.boxes[0].tolist() == [
        mask.x_offset, mask.y_offset, mask.x_offset + mask.width, mask.y_offset + mask.height]
