"""MASA variants behind the model protocol, small inputs and weights from a seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
import json
import pathlib
from pathlib import Path
import pickle
from typing import Any
import zlib

from masa_ros.models import build_model, load, ModelConfig
from masa_ros.models.classical import ClassicalModel
from masa_ros.models.masa import check_boxes, find_files, MasaModel, place, resolve_device
from masa_ros.models.masa_network import MasaNetwork
from masa_ros.models.model import Model, WeightsInfo
from masa_ros.models.sam.architecture import ARCHITECTURES, VitArchitecture
from masa_ros.models.seeding import write
from masa_ros.models.variants import InputRule, Variant, VARIANTS
from masa_ros.structures.instances import Flag, Instances
import numpy as np
from numpy.typing import NDArray
import pytest
import torch

SMALL = InputRule(64, 64, 32, resize_float=True)
# The R50 variant with the light box head of the others: four convolutions cost seconds here.
LIGHT = replace(VARIANTS['r50'], box_convs=0)
SEEDED = WeightsInfo(('seeded',), '0' * 64, False)


def seeded_network(variant: Variant) -> MasaNetwork:
    """Random weights that keep features alive through every layer."""
    torch.manual_seed(11)
    network = MasaNetwork(variant)
    if variant.has_sam:
        network.detector.to_empty(device='cpu')
    for key, value in network.state_dict().items():
        if value.is_floating_point() and 'running' not in key:
            if value.ndim > 1 and 'norm' not in key:
                value.normal_(std=float(np.prod(value.shape[1:])) ** -0.5)
            elif variant.has_sam and key.startswith('detector.'):
                value.fill_(1.0 if key.endswith('weight') else 0.0)
    return network.eval().requires_grad_(False)


def masa(network: MasaNetwork, mask_model: Model | None = None, **settings: Any) -> MasaModel:
    config = ModelConfig(name=network.variant.model, device='cpu', **settings)
    return MasaModel(network, config, SEEDED, mask_model, SMALL)


@pytest.fixture(scope='module')
def r50() -> MasaNetwork:
    return seeded_network(LIGHT)


def picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Blocks of random colours, so that boxes differ."""
    blocks = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    rows = np.arange(height) * 8 // height
    columns = np.arange(width) * 8 // width
    return np.ascontiguousarray(blocks[rows][:, columns])


BOXES = np.array([[10, 10, 60, 50], [70, 20, 140, 90], [0, 0, 160, 120]], np.float32)


def test_given_boxes_come_back_untouched_with_embeddings(r50: MasaNetwork) -> None:
    given = Instances.from_boxes(BOXES, [0.2, 0.9, 0.5], [3, 1, 2], ['cat', 'dog', 'cow'])
    found = masa(r50).run([picture(120, 160)], [given])[0]
    assert np.array_equal(found.boxes, given.boxes)
    assert np.array_equal(found.scores, given.scores)
    assert found.labels == given.labels
    assert found.embeddings is not None
    assert found.embeddings.shape == (3, 256)
    assert found.embeddings.dtype == np.float32
    assert np.isfinite(found.embeddings).all()
    # Different regions have different appearance.
    assert np.abs(found.embeddings[0] - found.embeddings[1]).max() > 1e-3


def test_without_a_mask_model_every_object_is_flagged(r50: MasaNetwork) -> None:
    found = masa(r50).run([picture(120, 160)], [Instances.from_boxes(BOXES)])[0]
    assert found.masks == (None, None, None)
    assert np.isnan(found.mask_qualities).all()
    assert (found.flags == Flag.FROM_DETECTION | Flag.MASK_SKIPPED).all()


def test_masks_come_from_another_model_up_to_the_limit(r50: MasaNetwork) -> None:
    model = masa(r50, ClassicalModel(ModelConfig(name='classical')), max_masks=2)
    given = Instances.from_boxes(BOXES, [0.2, 0.9, 0.5])
    found = model.run([picture(120, 160)], [given])[0]
    assert [mask is not None for mask in found.masks] == [False, True, True]
    assert (found.flags & Flag.MASK_SKIPPED).tolist() == [Flag.MASK_SKIPPED, 0, 0]
    assert np.isfinite(found.mask_qualities[1:]).all()
    assert found.embeddings is not None
    assert found.embeddings.shape == (3, 256)


def test_proposals_are_sorted_limited_and_inside_the_image(r50: MasaNetwork) -> None:
    model = masa(r50, proposal_score=0.0, max_proposals=7)
    found = model.run([picture(120, 160)], [None])[0]
    assert len(found) == 7
    assert (np.diff(found.scores) <= 0).all()
    assert (found.boxes >= 0).all()
    assert (found.boxes[:, [0, 2]] <= 160.01).all()
    assert (found.boxes[:, [1, 3]] <= 120.01).all()
    assert (found.flags & Flag.FROM_PROPOSAL).all()
    assert found.embeddings is not None
    model.reconfigure(ModelConfig(name='masa_r50', proposal_score=0.0, max_proposals=2))
    assert len(model.run([picture(120, 160)], [None])[0]) == 2
    model.reconfigure(ModelConfig(name='masa_r50', proposal_score=1.0))
    nothing = model.run([picture(120, 160)], [None])[0]
    assert nothing.boxes.shape == (0, 4)
    assert nothing.embeddings is not None
    assert nothing.embeddings.shape == (0, 256)


def test_batch_gives_what_its_images_give_alone(r50: MasaNetwork) -> None:
    model = masa(r50, proposal_score=0.0, max_proposals=3)
    images = [picture(120, 160, 1), picture(90, 40, 2), picture(60, 80, 3)]
    given = [Instances.from_boxes(BOXES), None, Instances.from_boxes(BOXES[:1])]
    together = model.run(images, given)
    for image, boxes, found in zip(images, given, together, strict=True):
        alone = model.run([image], [boxes])[0]
        assert np.allclose(alone.boxes, found.boxes, atol=1e-3)
        assert alone.embeddings is not None
        assert found.embeddings is not None
        assert np.allclose(alone.embeddings, found.embeddings, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('size', [(1, 1), (37, 5000), (5000, 37), (2160, 3840), (3, 2)])
def test_any_image_size_is_taken(r50: MasaNetwork, size: tuple[int, int]) -> None:
    boxes = np.array([[0, 0, size[1], size[0]], [0.2, 0.2, 0.8, 0.9]], np.float32)
    model = masa(r50, proposal_score=0.0, max_proposals=4)
    given, proposed = model.run(
        [picture(*size)] * 2, [Instances.from_boxes(boxes), None])
    assert given.embeddings is not None
    assert np.isfinite(given.embeddings).all()
    assert np.isfinite(proposed.boxes).all()


def test_no_boxes_and_a_thousand_boxes(r50: MasaNetwork) -> None:
    model = masa(r50)
    corners = np.random.default_rng(0).uniform(0, 100, (1000, 2))
    many = np.concatenate((corners, corners + 20), axis=1)
    none, thousand = model.run(
        [picture(120, 160)] * 2,
        [Instances.from_boxes(np.zeros((0, 4))), Instances.from_boxes(many)])
    assert none.embeddings is not None
    assert none.embeddings.shape == (0, 256)
    assert thousand.embeddings is not None
    assert thousand.embeddings.shape == (1000, 256)
    assert model.run([], []) == []


def test_boxes_outside_and_enormous_ones_are_survived(r50: MasaNetwork) -> None:
    boxes = np.array([[-500, -500, -400, -400], [150, 110, 400, 300], [-1e9, -1e9, 1e9, 1e9],
                      [50, 50, 50, 60]], np.float32)
    found = masa(r50).run([picture(120, 160)], [Instances.from_boxes(boxes)])[0]
    assert found.embeddings is not None
    assert np.isfinite(found.embeddings).all()
    assert np.array_equal(found.boxes, boxes)


@pytest.mark.parametrize(('box', 'reason'), [
    ([0, 0, float('nan'), 5], 'not finite'), ([0, 0, float('inf'), 5], 'not finite'),
    ([30, 5, 20, 50], 'inverted')])
def test_boxes_without_meaning_are_refused_with_their_row(box: list[float], reason: str) -> None:
    boxes = np.array([[0, 0, 10, 10], box], np.float32)
    with pytest.raises(ValueError, match=f'1 of 2 boxes cannot be used; row 1 is {reason}'):
        check_boxes(boxes)


def test_refusal_comes_before_the_network_runs(r50: MasaNetwork) -> None:
    bad = Instances.from_boxes([[0, 0, float('nan'), 5]])
    with pytest.raises(ValueError, match='not finite'):
        masa(r50).run([picture(120, 160)], [bad])
    with pytest.raises(ValueError, match='1 images but 2 sets'):
        masa(r50).run([picture(120, 160)], [None, None])


@pytest.fixture
def small_sam(monkeypatch: pytest.MonkeyPatch) -> MasaNetwork:
    """A SAM variant with a small encoder for 128 x 128 pixels."""
    monkeypatch.setitem(ARCHITECTURES, 'sam_vit_b', VitArchitecture(
        64, 4, 4, (0, 1, 2, 3), image_size=128))
    return seeded_network(VARIANTS['sam_vitb'])


def sam_model(network: MasaNetwork, **settings: Any) -> MasaModel:
    config = ModelConfig(name='masa_sam_vit_b', device='cpu', **settings)
    return MasaModel(network, config, SEEDED, input_rule=InputRule(128, 128, 128, False))


def test_sam_variant_makes_masks_and_embeddings_in_one_pass(small_sam: MasaNetwork) -> None:
    model = sam_model(small_sam, max_masks=2, proposal_score=0.0, max_proposals=3)
    passes = []
    encoder: Any = small_sam.detector['backbone']
    encoder.patch_embed.register_forward_pre_hook(lambda *_: passes.append(1))
    given = Instances.from_boxes(BOXES, [0.2, 0.9, 0.5])
    found = model.run([picture(120, 160)], [given])[0]
    assert passes == [1]
    assert found.masks[0] is None
    for box, mask in zip(BOXES[1:], found.masks[1:], strict=True):
        assert mask is not None
        # The region surrounds the box, within the image.
        assert mask.x_offset <= box[0]
        assert mask.y_offset <= box[1]
        assert mask.x_offset + mask.width >= box[2]
        assert mask.y_offset + mask.height >= box[3]
    assert np.isfinite(found.mask_qualities[1:]).all()
    assert found.embeddings is not None
    proposed = model.run([picture(120, 160)], [None])[0]
    assert len(proposed) == 3
    assert sum(mask is not None for mask in proposed.masks) == 2


def test_points_cut_one_object_out_with_the_sam_inside(small_sam: MasaNetwork) -> None:
    model = sam_model(small_sam)
    image = picture(120, 160)
    points = np.array([[40.5, 30.5], [100.5, 60.5]], np.float32)
    found = model.segment_points(image, points, np.array([True, False]))
    assert found is not None
    mask = found.masks[0]
    assert mask is not None
    # The package's predictor, given the model's own features.
    from segment_anything import SamPredictor
    from segment_anything.modeling import Sam
    parts: Any = small_sam.detector
    predictor = SamPredictor(
        Sam(parts['backbone'], parts['prompt_encoder'], parts['mask_decoder']).eval())
    batch = model.encode([image])[0]
    predictor.features = batch.encoded.image_embedding
    predictor.original_size, predictor.input_size = (120, 160), batch.prepared[0].size
    predictor.is_image_set = True
    masks, qualities, _ = predictor.predict(
        points.astype(np.float64) - 0.5, np.array([1, 0]), multimask_output=True)
    best = int(np.argmax(qualities))
    assert np.array_equal(mask.paste(120, 160), masks[best])
    assert found.mask_qualities[0] == pytest.approx(float(qualities[best]), abs=1e-5)
    assert found.boxes[0].tolist() == [
        mask.x_offset, mask.y_offset, mask.x_offset + mask.width, mask.y_offset + mask.height]


def test_points_on_one_object_and_beside_it_start_a_track(small_sam: MasaNetwork) -> None:
    from masa_ros.pipeline import Pipeline
    from masa_ros.prompts import Prompt
    from masa_ros.structures.frame import Frame
    model = sam_model(small_sam, proposal_score=0.99)
    pipeline = Pipeline(model=model)
    image = picture(120, 160)
    pipeline.process(Frame(image, 1, 0, 'front'), Instances())
    points, on_object = np.array([[40.5, 30.5], [100.5, 60.5]]), np.array([True, False])
    added = pipeline.add_object('front', Prompt(points=points, on_object=on_object))
    found = model.segment_points(image, points.astype(np.float32), on_object)
    assert found is not None
    assert added.box.tolist() == found.boxes[0].tolist()
    known = pipeline.objects('front')
    assert known.track_ids.tolist() == [added.track_id]
    assert known.flags[0] & Flag.PROMPTED
    again = pipeline.process(
        Frame(image, 100_000_001, 1, 'front'), Instances.from_boxes(found.boxes))
    assert again.tracks.track_ids.tolist() == [added.track_id]
    # Its embedding was made from the same pixels.
    assert again.tracks.similarities[0] > 0.9


def test_points_are_left_to_the_mask_model_where_it_knows_them(r50: MasaNetwork) -> None:
    image, there = picture(120, 160), np.ones(1, bool)
    points = np.array([[40.0, 30.0]], np.float32)
    assert masa(r50).segment_points(image, points, there) is None
    assert masa(r50, ClassicalModel(ModelConfig(name='classical'))).segment_points(
        image, points, there) is None
    asked = []

    class Pointing(ClassicalModel):
        def segment_points(self, *given: Any) -> Instances:
            asked.append(given)
            return Instances.from_boxes([[1, 2, 3, 4]])
    found = masa(r50, Pointing(ModelConfig(name='classical'))).segment_points(
        image, points, there)
    assert found is not None
    assert found.boxes.tolist() == [[1, 2, 3, 4]]
    assert len(asked) == 1


def test_sam_batch_of_different_shapes_gives_what_images_give_alone(
    small_sam: MasaNetwork,
) -> None:
    model = sam_model(small_sam)
    images = [picture(120, 160, 1), picture(160, 40, 2)]
    given = [Instances.from_boxes(BOXES[:2]), Instances.from_boxes([[5, 5, 30, 100]])]
    for image, boxes, found in zip(images, given, model.run(images, given), strict=True):
        alone = model.run([image], [boxes])[0]
        assert alone.embeddings is not None
        assert found.embeddings is not None
        assert np.allclose(alone.embeddings, found.embeddings, rtol=1e-3, atol=1e-4)
        assert [mask and mask.area for mask in alone.masks] == [
            mask and mask.area for mask in found.masks]


@pytest.mark.parametrize('name', ['r50', 'sam_vitb'])
def test_bfloat16_keeps_embeddings_close(name: str, small_sam: MasaNetwork) -> None:
    # The fixture only makes SAM's encoder small.
    variant = VARIANTS['sam_vitb'] if name == 'sam_vitb' else LIGHT
    rule = InputRule(128, 128, 128, False)
    given = [Instances.from_boxes(BOXES)]
    embeddings = []
    for precision in ('float32', 'bfloat16'):
        network = seeded_network(variant)
        config = ModelConfig(name=network.variant.model, device='cpu', precision=precision)
        model = MasaModel(network, config, SEEDED, input_rule=rule)
        found = model.run([picture(120, 160)], given)[0].embeddings
        assert found is not None
        embeddings.append(found / np.linalg.norm(found, axis=1, keepdims=True))
    cosines = (embeddings[0] * embeddings[1]).sum(axis=1)
    assert cosines.min() > 0.98


def test_prompt_encoder_stays_in_float32(small_sam: MasaNetwork) -> None:
    place(small_sam, torch.device('cpu'), torch.bfloat16)
    kinds = {name.split('.')[1] if name.startswith('detector') else name.split('.')[0]:
             weight.dtype for name, weight in small_sam.named_parameters()}
    assert kinds.pop('prompt_encoder') == torch.float32
    assert set(kinds.values()) == {torch.bfloat16}


def test_warm_up_and_close(r50: MasaNetwork) -> None:
    model = masa(seeded_network(LIGHT))
    model.warm_up()
    model.close()
    assert all(weight.is_meta for weight in model.network.parameters())


@pytest.mark.parametrize('name', ['cuda:99', 'gpu', 'tpu', 'meta'])
def test_devices_that_are_not_there_are_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"device is '{name}'"):
        resolve_device(name)
    assert resolve_device('auto').type in ('cpu', 'cuda')


def test_every_variant_is_in_the_catalog_and_missing_weights_say_where_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv('MASA_ROS_WEIGHTS', str(tmp_path))
    for variant in VARIANTS.values():
        wanted = str(tmp_path / variant.file) if variant.file else 'no adapter was published'
        with pytest.raises(FileNotFoundError, match=wanted):
            build_model(ModelConfig(name=variant.model))
    with pytest.raises(FileNotFoundError, match='elsewhere'):
        load('r50', masa=str(tmp_path / 'elsewhere.pth'))
    with pytest.raises(ValueError, match='unknown MASA variant'):
        load('r51')


def test_adapter_alone_asks_for_its_sam_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv('MASA_ROS_WEIGHTS', str(tmp_path))
    path = tmp_path / 'adapter.pth'
    torch.save({'masa_adapter.0.fpn2.0.bias': torch.zeros(1)}, path)
    with pytest.raises(FileNotFoundError, match=r'sam_vit_l_0b3195\.pth'):
        load('sam_vitl', masa=str(path))


def test_checkpoint_may_name_the_masa_file_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What a user types: --model masa_r50 --checkpoint masa_r50.pth.
    monkeypatch.setenv('MASA_ROS_WEIGHTS', str(tmp_path / 'cache'))
    masa_file, sam_file = tmp_path / 'masa.pth', tmp_path / 'sam.pth'
    entries = {'masa_adapter.0.a': torch.zeros(1), 'detector.backbone.pos_embed': torch.zeros(1)}
    torch.save({'state_dict': entries}, masa_file)
    torch.save({'image_encoder.pos_embed': torch.zeros(1, 64, 64, 768)}, sam_file)

    def files(name: str, **settings: Any) -> list[Path]:
        variant = VARIANTS[name]
        return find_files(variant, ModelConfig(name=variant.model, **settings))
    for name in VARIANTS:
        assert files(name, checkpoint=str(masa_file)) == [masa_file]
    assert files('sam_vitb', checkpoint=str(sam_file), adapter_checkpoint=str(masa_file)) == [
        masa_file, sam_file]
    # SAM's file alone is SAM's, for the encoder or for the masks; the adapter is looked up.
    for name, settings in (('sam_vitb', {}), ('r50', {'mask_model': 'sam_vit_b'})):
        with pytest.raises(FileNotFoundError, match=VARIANTS[name].file):
            files(name, checkpoint=str(sam_file), **settings)
    assert files('r50', checkpoint=str(masa_file), mask_model='sam_vit_b') == [masa_file]


HOSTILE: dict[str, tuple[bytes, str]] = {
    'empty': (b'', 'is empty'),
    'cut off': (b'PK\x03\x04' + bytes(300), 'is cut off after 304 bytes'),
    'pickle': (pickle.dumps({'state_dict': pathlib.PurePosixPath('/')}), 'was not loaded|damaged'),
    'web page': (b'<html>sign in</html>', 'is a web page'),
}


@pytest.mark.parametrize('kind', sorted(HOSTILE))
@pytest.mark.parametrize('name', sorted(VARIANTS))
def test_hostile_files_are_refused_by_name_for_every_variant(
    tmp_path: Path, name: str, kind: str,
) -> None:
    content, reason = HOSTILE[kind]
    path = tmp_path / 'weights.pth'
    path.write_bytes(content)
    config = ModelConfig(name=VARIANTS[name].model)
    for named in (replace(config, checkpoint=str(path)),
                  replace(config, adapter_checkpoint=str(path))):
        with pytest.raises(ValueError, match=reason) as raised:
            build_model(named)
        assert str(path) in str(raised.value)


@pytest.mark.parametrize('name', sorted(VARIANTS))
def test_foreign_files_are_refused_with_what_they_look_like(tmp_path: Path, name: str) -> None:
    path = tmp_path / 'resnet.pth'
    torch.save({'layer4.2.conv3.weight': torch.zeros(2048, 512, 1, 1)}, path)
    with pytest.raises(ValueError, match='looks like a torchvision ResNet-50 file') as raised:
        build_model(ModelConfig(name=VARIANTS[name].model, checkpoint=str(path)))
    assert f'{path} does not fit the variant {name}' in str(raised.value)
    assert 'missing: ' in str(raised.value)


@pytest.mark.parametrize('image', [
    np.zeros((20, 30), np.uint8), np.zeros((20, 30, 1), np.uint8), np.zeros((20, 30, 4), np.uint8),
    np.zeros((20, 30, 3), np.float32), np.zeros((0, 30, 3), np.uint8), 'photo.jpg', None])
def test_what_is_no_rgb_picture_is_refused(
    r50: MasaNetwork, small_sam: MasaNetwork, image: Any,
) -> None:
    for model in (masa(r50), sam_model(small_sam)):
        with pytest.raises(ValueError, match=r'expected a non-empty \(height, width, 3\) uint8'):
            model.run([image], [None])


@pytest.mark.parametrize('size', [(1, 1), (37, 5000), (5000, 37), (2160, 3840), (3, 2)])
def test_sam_variant_takes_any_image_size_with_masks(
    small_sam: MasaNetwork, size: tuple[int, int],
) -> None:
    height, width = size
    boxes = np.array([[0, 0, width, height], [0.2, 0.2, 0.8, 0.9],
                      [-width, -height, 2 * width, 2 * height], [width, 0, 2 * width, height],
                      [-5 * width, -5 * height, -4 * width, -4 * height]], np.float32)
    model = sam_model(small_sam, proposal_score=0.0, max_proposals=3)
    given, proposed = model.run([picture(*size)] * 2, [Instances.from_boxes(boxes), None])
    for found in (given, proposed):
        assert found.embeddings is not None
        assert np.isfinite(found.embeddings).all()
        for mask in found.masks:
            assert mask is not None
            assert mask.x_offset + mask.width <= width
            assert mask.y_offset + mask.height <= height
    masks = given.masks
    assert masks[0] is not None
    assert (masks[0].height, masks[0].width) == size
    # A box far beyond the border has nothing to show.
    assert masks[4] is not None
    assert masks[4].area == 0


def test_sam_variant_takes_no_boxes_and_a_thousand(small_sam: MasaNetwork) -> None:
    model = sam_model(small_sam, max_masks=5)
    corners = np.random.default_rng(0).uniform(0, 100, (1000, 2))
    many = Instances.from_boxes(
        np.concatenate((corners, corners + 20), axis=1), np.linspace(0, 1, 1000))
    none, thousand = model.run(
        [picture(120, 160)] * 2, [Instances.from_boxes(np.zeros((0, 4))), many])
    assert len(none) == 0
    assert none.embeddings is not None
    assert none.embeddings.shape == (0, 256)
    assert thousand.embeddings is not None
    assert thousand.embeddings.shape == (1000, 256)
    assert [mask is not None for mask in thousand.masks] == [False] * 995 + [True] * 5


def test_short_memory_means_fewer_images_at_once(
    r50: MasaNetwork, monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = masa(r50)
    model._portions.at_once = 4
    forward = model._forward

    def limited(pixels: torch.Tensor) -> Any:
        if len(pixels) > 1:
            raise torch.cuda.OutOfMemoryError('CUDA out of memory')
        return forward(pixels)
    monkeypatch.setattr(model, '_forward', limited)
    images = [picture(120, 160, seed) for seed in range(3)]
    found = model.run(images, [Instances.from_boxes(BOXES)] * 3)
    assert model._portions.at_once == 1
    alone = masa(r50).run(images[2:], [Instances.from_boxes(BOXES)])[0]
    assert found[2].embeddings is not None
    assert alone.embeddings is not None
    assert np.allclose(found[2].embeddings, alone.embeddings, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.timeout(1200)
@pytest.mark.parametrize('name', ['sam_vitb', 'gdino', 'detic'])
def test_other_variants_from_published_files_give_the_authors_codes_numbers(
    tmp_path: Path, shared: Path, make_weight: Callable[..., Any], name: str,
) -> None:
    reference = json.loads(
        (Path(__file__).parent / 'reference_variants.json').read_text())['variants'][name]
    keys = json.loads((shared / 'masa_keys' / f'{name}.json').read_text())
    entries, checksum = {}, 0
    for key in sorted(keys):
        weight = make_weight(key, keys[key])
        if not key.endswith('relative_position_index'):
            checksum = zlib.crc32(weight.tobytes(), checksum)
        entries[key] = torch.from_numpy(np.asarray(weight))
    assert checksum == reference['weights_crc32']
    path = tmp_path / 'weights.pth'
    torch.save({'meta': {}, 'state_dict': entries}, path)
    del entries
    score, most = (0.05, 100) if name == 'detic' else (0.02, 50)
    model = build_model(ModelConfig(
        name=VARIANTS[name].model, checkpoint=str(path), device='cpu', proposal_score=score,
        max_proposals=most))
    vectors = np.load(shared / 'golden' / 'r50.npz')
    image = np.ascontiguousarray(vectors['image_bgr'][:, :, ::-1])
    given, proposed = model.run([image, image], [
        Instances.from_boxes(vectors['boxes_orig']), None])
    assert given.embeddings is not None
    limit = 1e-5 * reference['largest_embedding']
    assert np.abs(given.embeddings[:, :8] - reference['embeddings']).max() < limit
    assert len(proposed) == reference['count']
    # The best boxes, in any order of near ties.
    distance = np.abs(proposed.boxes[:, None] - np.array(reference['boxes'])[None]).max(axis=2)
    assert distance.min(axis=0).max() < 0.01
    assert np.abs(proposed.scores[distance.argmin(axis=0)] - reference['scores']).max() < 1e-5
    if 'mask_qualities' in reference:
        qualities = given.mask_qualities[2:6]
        assert np.abs(qualities - reference['mask_qualities']).max() < 1e-5


@pytest.mark.slow
@pytest.mark.data
def test_r50_from_a_published_file_reproduces_the_reference_end_to_end(
    tmp_path: Path, shared: Path, make_weight: Callable[..., Any],
) -> None:
    keys = json.loads((shared / 'masa_keys' / 'r50.json').read_text())
    entries = {name: torch.from_numpy(make_weight(name, shape)) for name, shape in keys.items()}
    path = tmp_path / 'masa_r50.pth'
    torch.save({'meta': {}, 'state_dict': entries}, path)
    vectors = np.load(shared / 'golden' / 'r50.npz')
    image = np.ascontiguousarray(vectors['image_bgr'][:, :, ::-1])
    model = load('r50', masa=str(path), device='cpu', proposal_score=0.02, max_proposals=50)
    given, proposed = model.run(
        [image, image], [Instances.from_boxes(vectors['boxes_orig']), None])
    assert model.weights.files == ('masa_r50.pth',)
    assert given.embeddings is not None
    scale = np.abs(vectors['embeds']).max()
    assert np.abs(given.embeddings - vectors['embeds']).max() < 1e-5 * scale
    distance = np.abs(proposed.boxes[:, None] - vectors['det.bboxes'][None]).max(axis=2)
    assert sorted(distance.argmin(axis=1).tolist()) == list(range(50))
    assert distance.min(axis=1).max() < 0.01


def test_plain_sams_load_by_the_same_function(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv('MASA_ROS_WEIGHTS', str(tmp_path))
    model = load('mobile_sam', sam=str(write('mobile_sam', tmp_path / 'a.pt')), device='cpu')
    assert (model.name, model.weights.trained) == ('mobile_sam', False)
    with pytest.raises(FileNotFoundError, match=r'sam_vit_b_01ec64\.pth'):
        load('sam_vit_b')
    with pytest.raises(ValueError, match='has no MASA part'):
        load('sam_vit_b', masa='sam_vitb_masa.pth')
