from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from masa_ros.models import load
from masa_ros.models.checkpoint import load_network
from masa_ros.models.masa_network import MasaNetwork
from masa_ros.models.seeding import write
from masa_ros.models.variants import find_variant
from masa_ros.structures.instances import Instances
from masa_ros.structures.settings import from_mapping
from masa_ros.training import masa
from masa_ros.training import train as trainer
from masa_ros.training.config import load_config, TrainConfig
from masa_ros.training.corpus import Corpus, write_corpus
from masa_ros.training.dataset import collate
from masa_ros.training.masa import export, load_student, MasaStudent, MasaTrainable, student_of
from masa_ros.training.train import train
from masa_ros.training.trainable import Step
import numpy as np
import pytest
import torch
from torch import Tensor

Factory = Callable[[], MasaStudent]
HEADS = {'detection_weight': 0.0, 'track_samples': 'boxes'}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, small_student: Factory) -> None:
    """Recipes of masa_sam_vit_b train the small student."""
    monkeypatch.setattr(masa, 'load_student', lambda config: small_student())


@pytest.fixture
def recipe(settings: dict[str, object]) -> dict[str, object]:
    """Settings of three steps by the official code's losses."""
    rest = {name: value for name, value in settings.items() if not name.startswith('network.')}
    return {
        **rest, 'model': 'masa_sam_vit_b', 'steps': 3, 'loss.contrast': 'reference',
        'loss.contrast_weight': 0.25, 'loss.track_samples': 'proposals',
        'loss.detection_weight': 1.0, 'pairs.track_jitter': 0.0, 'optim.optimizer': 'sgd',
        'optim.learning_rate': 0.01, 'optim.clip_norm': 35.0}


def configured(recipe: dict[str, object], **changes: object) -> TrainConfig:
    return from_mapping(TrainConfig, {
        **recipe, **{name.replace('__', '.'): value for name, value in changes.items()}})


def read(path: Path, part: str = 'network') -> dict[str, Tensor]:
    weights: dict[str, Tensor] = torch.load(path, weights_only=True)[part]
    return weights


@pytest.mark.usefixtures('small')
def test_adapter_and_heads_learn_and_nothing_else_is_saved(
    recipe: dict[str, object], small_student: Factory,
) -> None:
    config = configured(recipe)
    torch.manual_seed(config.seed)
    before = small_student().state_dict()
    after = read(train(config))
    assert after.keys() == before.keys()
    assert {name.split('.')[0] for name in after} == {
        'masa_adapter', 'rpn_head', 'roi_head', 'track_head'}
    still = [name for name, value in after.items() if torch.equal(value, before[name])]
    # The last level is not pooled from, but proposals are learned on it.
    assert still == []


@pytest.mark.usefixtures('small')
def test_an_interrupted_run_of_a_variant_ends_like_an_unbroken_one(
    recipe: dict[str, object], tmp_path: Path,
) -> None:
    whole = train(configured(recipe))
    broken = configured(recipe, run=str(tmp_path / 'broken'))
    train(broken, stop_after=2)
    continued = train(broken)
    for part in ('network', 'average'):
        first, second = read(whole, part), read(continued, part)
        assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_the_encoder_is_frozen_without_gradients_or_new_statistics(
    small_student: Factory,
) -> None:
    student = small_student()
    encoder = student.encoder
    kept = {name: value.clone() for name, value in encoder.state_dict().items()}
    student.train()
    assert not encoder.training
    levels, scale = student.pyramid(torch.rand(2, 3, 64, 64) * 255)
    assert scale == 2
    sum(level.mean() for level in levels).backward()  # type: ignore[union-attr]
    assert all(p.grad is None and not p.requires_grad for p in encoder.parameters())
    assert all(torch.equal(value, kept[name]) for name, value in encoder.state_dict().items())
    assert all(p.grad is not None for p in student.masa_adapter.parameters())
    assert not any(name.startswith('_frozen') for name in student.state_dict())


@pytest.mark.usefixtures('small')
def test_the_last_stage_moves_the_track_head_alone(
    recipe: dict[str, object], small_student: Factory,
) -> None:
    config = configured(recipe, loss__detection_weight=0.0, loss__track_samples='boxes',
                        optim__frozen=['masa_adapter.', 'rpn_head.', 'roi_head.'])
    torch.manual_seed(config.seed)
    before = small_student().state_dict()
    for name, value in read(train(config)).items():
        assert torch.equal(value, before[name]) != name.startswith('track_head.'), name


@pytest.mark.usefixtures('small')
def test_cached_features_give_the_loss_that_fresh_ones_give(
    recipe: dict[str, object], tmp_path: Path, small_student: Factory,
) -> None:
    frozen = ['masa_adapter.', 'rpn_head.', 'roi_head.']
    config = configured(recipe, **{f'loss__{k}': v for k, v in HEADS.items()},
                        optim__frozen=frozen, data__cached_pairs=3, steps=4)
    first = read(train(config))
    # A resumed run finds the features of the first start.
    again = replace(config, run=str(tmp_path / 'again'))
    train(again, stop_after=1)
    second = read(train(again))
    assert all(torch.equal(value, second[name]) for name, value in first.items())

    torch.manual_seed(config.seed)
    trainable = MasaTrainable(config, small_student())
    for name, parameter in trainable.network.named_parameters():
        parameter.requires_grad_(not name.startswith(tuple(frozen)))
    corpus = Corpus(config.data.corpus)
    fresh = trainer._pairs(config, corpus, config.seed, 3)
    kept = trainable.cached(fresh, tmp_path / 'features', True)
    order = np.random.default_rng((config.seed, 0)).permutation(3)
    step = Step(torch.device('cpu'), torch.Generator())
    for place in range(3):
        losses = [trainable.losses(trainable.network.train(), collate([pair]), step)
                  for pair in (kept[place], fresh[int(order[place])])]
        # Features are kept in half precision.
        torch.testing.assert_close(losses[0]['contrast'], losses[1]['contrast'], rtol=2e-2,
                                   atol=1e-3)


@pytest.mark.usefixtures('small')
def test_features_that_still_move_are_not_kept(recipe: dict[str, object]) -> None:
    with pytest.raises(ValueError, match='freeze everything but the track head'):
        train(configured(recipe, data__cached_pairs=3))


@pytest.mark.usefixtures('small')
@pytest.mark.parametrize('kind', ['paper', 'reference'])
@pytest.mark.parametrize('samples', ['boxes', 'proposals'])
def test_photos_without_labels_do_not_stop_a_run(
    recipe: dict[str, object], tmp_path: Path, kind: str, samples: str,
) -> None:
    labelled = Corpus(str(recipe['data.corpus']))
    empty = [replace(photo, boxes=photo.boxes[:0], masks=(), class_ids=photo.class_ids[:0])
             for photo in (labelled[i] for i in range(len(labelled)))]
    corpus = write_corpus(tmp_path / 'empty', empty)
    train(configured(recipe, steps=2, loss__contrast=kind, loss__track_samples=samples,
                     data__corpus=str(corpus.folder), views__paste_max=0))


@pytest.mark.usefixtures('small')
def test_validation_of_a_variant_runs(
    recipe: dict[str, object], small_student: Factory,
) -> None:
    config = configured(recipe)
    trainable = MasaTrainable(config, small_student())
    dataset = trainer._pairs(config, Corpus(config.data.corpus), 0, 3)
    scores = trainable.validate(trainable.network, dataset)
    assert 0 <= scores['retrieval'] <= 1
    assert 0 <= scores['recall'] <= 1


@pytest.mark.usefixtures('small')
@pytest.mark.parametrize('name', ['train_paper', 'train_reference', 'train_track_head'])
def test_shipped_recipes_of_variants_run(
    recipe: dict[str, object], root: Path, tmp_path: Path, name: str,
) -> None:
    config = load_config(root / f'config/{name}.yaml', {
        'run': str(tmp_path / name), 'data.corpus': recipe['data.corpus'], 'data.workers': 0,
        'views.size': 64, 'steps': 1, 'batch': 2, 'model': 'masa_sam_vit_b',
        'optim.warmup_steps': 1, 'precision': 'bfloat16'})
    newest = train(config)
    assert torch.load(newest, weights_only=True)['step'] == 1
    assert newest.with_name('masa.pth').is_file()


def test_an_exported_file_has_the_authors_names(tmp_path: Path) -> None:
    variant = find_variant('r50')
    student = student_of(MasaNetwork(variant))
    path = export(TrainConfig(model='masa_r50'), student.state_dict(), tmp_path / 'masa.pth')
    loaded = load_network(variant, path).state_dict()
    assert loaded.keys() == student.state_dict().keys()
    for name, value in student.state_dict().items():
        if not name.endswith('num_batches_tracked'):
            assert torch.equal(value, loaded[name]), name


@pytest.mark.slow
def test_a_trained_r50_runs_from_its_exported_file(
    settings: dict[str, object], tmp_path: Path,
) -> None:
    backbone = write('masa_r50', tmp_path / 'seeded.pth')
    rest = {name: value for name, value in settings.items() if not name.startswith('network.')}
    config = from_mapping(TrainConfig, {
        **rest, 'model': 'masa_r50', 'backbone_weights': str(backbone), 'steps': 1,
        'loss.track_samples': 'proposals'})
    newest = train(config)
    path = export(config, read(newest, 'average'), tmp_path / 'masa.pth')
    model = load('r50', masa=str(path), device='cpu')
    found = model.run([np.zeros((96, 128, 3), np.uint8)],
                      [Instances.from_boxes([[10, 10, 50, 60]])])[0]
    assert found.embeddings is not None
    assert np.isfinite(found.embeddings).all()
    # What it starts from next is what was written.
    student = load_student(replace(config, initial_weights=str(path), backbone_weights=''))
    for name, value in read(newest, 'average').items():
        assert torch.equal(student.state_dict()[name], value), name
    resumed = load_student(replace(config, initial_weights=str(newest)))
    for name, value in resumed.state_dict().items():
        assert torch.equal(value, student.state_dict()[name]), name


def test_a_file_of_another_variant_is_refused(
    settings: dict[str, object], tmp_path: Path,
) -> None:
    sam = tmp_path / 'sam.pth'
    torch.save({'image_encoder.pos_embed': torch.zeros(1, 64, 64, 768)}, sam)
    config = TrainConfig(model='masa_r50', backbone_weights=str(sam))
    with pytest.raises(ValueError, match='does not hold the encoder of the variant r50'):
        load_student(config)
    with pytest.raises(FileNotFoundError):
        load_student(TrainConfig(model='masa_r50', initial_weights=str(tmp_path / 'none.pt')))


def test_every_variant_has_its_parts() -> None:
    for name in ('masa_r50', 'masa_sam_vit_b', 'masa_sam_vit_l', 'masa_sam_vit_h', 'masa_gdino',
                 'masa_detic'):
        with torch.device('meta'):
            student = student_of(MasaNetwork(find_variant(name)))
        prefixes = {key.split('.')[0] for key in student.state_dict()}
        assert {'masa_adapter', 'rpn_head', 'roi_head', 'track_head'} <= prefixes
        assert 'detector' not in prefixes


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize('name', ['masa_sam_vit_b', 'masa_detic'])
def test_a_real_variant_makes_a_step(
    settings: dict[str, object], tmp_path: Path, name: str,
) -> None:
    variant = find_variant(name)
    source = write(variant.backbone if variant.has_sam else name, tmp_path / 'seeded.pth')
    rest = {key: value for key, value in settings.items() if not key.startswith('network.')}
    config = from_mapping(TrainConfig, {
        **rest, 'model': name, 'backbone_weights': str(source), 'steps': 1, 'batch': 1,
        # The adapter of a SAM variant learns on 256 x 256 cells, which takes a CPU minutes a step.
        **({'loss.detection_weight': 0.0, 'optim.frozen': [
            'masa_adapter.', 'rpn_head.', 'roi_head.']} if variant.has_sam else {
                'loss.track_samples': 'proposals'})})
    newest = train(config)
    path = newest.with_name('masa.pth')
    model = load(variant.name, masa=str(path), device='cpu',
                 **({'sam': str(source)} if variant.has_sam else {}))
    found = model.run([np.zeros((96, 128, 3), np.uint8)],
                      [Instances.from_boxes([[10, 10, 50, 60]])])[0]
    assert found.embeddings is not None
