"""Grounding-DINO end to end with a small network, seeded numbers and a small vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
import socket
import threading
from types import SimpleNamespace
from typing import Any

from masa_ros.detectors import build_detector, DetectorConfig
from masa_ros.detectors.grounding_dino import GroundingDino, Tokenizer
from masa_ros.detectors.grounding_dino_keys import convert
from masa_ros.detectors.grounding_dino_text import class_scores, make_prompt
from masa_ros.models import ModelConfig
from masa_ros.models.backbones.swin import Swin
from masa_ros.models.checkpoint import read_entries
from masa_ros.models.masa import EncodedBatch, MasaModel
from masa_ros.models.masa_network import Encoded, MasaNetwork
from masa_ros.models.model import WeightsInfo
from masa_ros.models.preprocess import prepare
from masa_ros.models.variants import find_variant, InputRule
from masa_ros.pipeline import Pipeline, PipelineConfig
from masa_ros.structures.boxes import pairwise_iou
from masa_ros.structures.frame import Frame
import numpy as np
from numpy.typing import NDArray
import pytest
import torch
from torch import Tensor

transformers: Any = pytest.importorskip('transformers')
RULE = InputRule(128, 96, 32, resize_float=True)
RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 255, (60, 100, 3), np.uint8)
OTHER = RNG.integers(0, 255, (90, 70, 3), np.uint8)


def config(file: Path, **settings: Any) -> DetectorConfig:
    values = {'name': 'grounding_dino', 'checkpoint': str(file), 'device': 'cpu',
              'text': 'car . traffic cone . person', 'score_threshold': 0.0,
              'text_threshold': 0.0, **settings}
    return DetectorConfig(**values)


def build(file: Path, model: Any = None, **settings: Any) -> GroundingDino:
    detector = build_detector(config(file, **settings), model)
    assert isinstance(detector, GroundingDino)
    detector._input_rule = RULE
    return detector


@pytest.fixture(scope='module')
def detector(dino_file: Path) -> GroundingDino:
    return build(dino_file)


class SharedModel:
    """A ``masa_gdino`` as far as a detector sees it, with a small backbone that counts."""

    name = 'masa_gdino'
    device = 'cpu'

    def __init__(self, swin: Swin, file: Path) -> None:
        self.file = file
        self.swin = swin
        self.passes = 0

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> list[EncodedBatch]:
        batches = []
        for row, image in enumerate(images):
            self.passes += 1
            prepared = prepare(image, RULE, torch.device('cpu'))
            with torch.inference_mode():
                levels = self.swin(prepared.pixels[None])
            batches.append(EncodedBatch(
                [row], [prepared], [image.shape[:2]], Encoded([], None, tuple(levels))))
        return batches


def test_boxes_lie_in_the_image_best_first_with_the_asked_names(detector: GroundingDino) -> None:
    found = detector.detect([IMAGE])[0]
    assert 0 < len(found) <= 20
    assert (found.boxes[:, :2] >= 0).all()
    assert (found.boxes[:, 2:] <= [100, 60]).all()
    assert (np.diff(found.scores) <= 0).all()
    assert set(found.labels) <= {'car', 'traffic cone', 'person'}
    assert detector.class_names == ('car', 'traffic cone', 'person')
    assert found.embeddings is None


def test_a_folder_of_transformers_gives_what_the_masa_file_gives(
    detector: GroundingDino, dino_file: Path, tmp_path: Path,
) -> None:
    """The whole network by the library, Swin included, against ours with the same numbers."""
    entries = {name.removeprefix('detector.'): value
               for name, value in read_entries(dino_file).items()}
    settings = detector._network._network.config.to_dict()
    settings['backbone_config'] = {
        'model_type': 'swin', 'embed_dim': 16, 'depths': [1, 1, 2, 1], 'num_heads': [1, 2, 4, 8],
        'window_size': 4, 'image_size': 128, 'out_indices': [2, 3, 4]}
    network = transformers.GroundingDinoForObjectDetection(
        transformers.GroundingDinoConfig.from_dict(settings))
    missing, unexpected = network.load_state_dict(
        convert(entries, decoder_layers=2, backbone=True), strict=False)
    assert unexpected == []
    assert all('swin.layernorm' in name for name in missing)
    network.save_pretrained(tmp_path)
    (tmp_path / 'vocab.txt').write_text((dino_file.parent / 'vocab.txt').read_text())
    found = build(tmp_path).detect([IMAGE])[0]
    expected = detector.detect([IMAGE])[0]
    assert found.labels == expected.labels
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-2)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)


@pytest.mark.parametrize('sizes', [
    pytest.param({'embed_dim': 96, 'depths': [2, 2, 6, 2], 'num_heads': [3, 6, 12, 24],
                  'window_size': 7, 'image_size': 224}, id='Swin-T'),
    pytest.param({'embed_dim': 128, 'depths': [2, 2, 18, 2], 'num_heads': [4, 8, 16, 32],
                  'window_size': 12, 'image_size': 384}, id='Swin-B')])
def test_folders_with_either_published_backbone_detect(
    sizes: dict[str, Any], detector: GroundingDino, dino_file: Path, tmp_path: Path,
) -> None:
    """The sizes of grounding-dino-tiny and grounding-dino-base, with a small rest."""
    settings = detector._network._network.config.to_dict()
    settings['backbone_config'] = {'model_type': 'swin', **sizes, 'out_indices': [2, 3, 4]}
    torch.manual_seed(0)
    transformers.GroundingDinoForObjectDetection(
        transformers.GroundingDinoConfig.from_dict(settings)).save_pretrained(tmp_path)
    (tmp_path / 'vocab.txt').write_text((dino_file.parent / 'vocab.txt').read_text())
    built = build(tmp_path)
    backbone = built._backbone(torch.zeros(1, 3, 64, 96))
    width = sizes['embed_dim']
    assert [level.shape[1] for level in backbone] == [2 * width, 4 * width, 8 * width]
    found = built.detect([IMAGE, OTHER])
    assert all(set(image.labels) <= {'car', 'traffic cone', 'person'} for image in found)
    assert all(np.isfinite(image.boxes).all() for image in found)
    assert len(found[0]) > 0


def test_boxes_are_those_of_the_librarys_own_post_processing(
    detector: GroundingDino, dino_file: Path,
) -> None:
    """One image, one word per class: the library's box and score for each query."""
    prepared = prepare(IMAGE, RULE, torch.device('cpu'))
    mask = torch.zeros(1, *prepared.pixels.shape[1:], dtype=torch.bool)
    mask[0, :prepared.size[0], :prepared.size[1]] = True
    prompt = detector._prompt.chunks[0]
    levels = detector._backbone(prepared.pixels[None])
    scores, boxes = detector._network(levels, mask, prompt.token_ids)
    processor = transformers.GroundingDinoProcessor(
        transformers.GroundingDinoImageProcessor(),
        transformers.BertTokenizer(str(dino_file.parent / 'vocab.txt')))
    logits = torch.logit(scores.double()).float()
    # The score of a query there is that of its best token, special ones included.
    logits[:, :, [index for index in range(logits.shape[2]) if not any(
        first <= index < last for first, last in prompt.spans)]] = -torch.inf
    theirs = processor.post_process_grounded_object_detection(
        SimpleNamespace(logits=logits, pred_boxes=boxes), prompt.token_ids[None], threshold=0.0,
        text_threshold=0.0, target_sizes=[(60, 100)])[0]
    ours = detector.detect([IMAGE])[0]
    inside = np.clip(theirs['boxes'].numpy(), 0, [100, 60, 100, 60])
    order = [int(np.abs(inside - box).sum(axis=1).argmin()) for box in ours.boxes]
    assert len(set(order)) == len(order)
    np.testing.assert_allclose(inside[order], ours.boxes, atol=1e-3)
    same = [label != 'traffic cone' for label in ours.labels]
    best = theirs['scores'].numpy()[order]
    assert (ours.scores <= best + 1e-5).all()
    assert np.isclose(best, ours.scores, atol=1e-5)[same].mean() > 0.5


def test_a_shared_backbone_runs_once_and_gives_the_same(
    detector: GroundingDino, dino_file: Path, swin: Swin,
) -> None:
    model = SharedModel(swin, dino_file)
    shared = build(dino_file, model)
    assert shared.shares_features
    assert build(Path(''), model, checkpoint='').shares_features
    encoded = model.encode([IMAGE, OTHER])
    found = shared.detect_encoded(encoded, [0, 1])
    assert model.passes == 2  # One for each image, none by the detector.
    expected = detector.detect([IMAGE, OTHER])
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.boxes, other.boxes)
        np.testing.assert_array_equal(one.scores, other.scores)
        assert one.labels == other.labels
    only = shared.detect_encoded(encoded, [1])
    assert len(only) == 1
    np.testing.assert_array_equal(only[0].boxes, expected[1].boxes)


@pytest.mark.slow
def test_masa_gdino_and_its_detector_take_one_pass_of_swin_b(
    dino_file: Path, dino_heads: dict[str, Tensor], tmp_path: Path,
) -> None:
    """The real model and its Swin-B, with random weights, and a small detector on top."""
    torch.manual_seed(0)
    network = MasaNetwork(find_variant('gdino')).eval()
    swin: Any = network.detector['backbone']
    file = tmp_path / 'gdino_masa.pth'
    torch.save({'state_dict': {**dino_heads, **{
        f'detector.backbone.{name}': value for name, value in swin.state_dict().items()}}}, file)
    (tmp_path / 'vocab.txt').write_text((dino_file.parent / 'vocab.txt').read_text())
    model = MasaModel(network, ModelConfig(name='masa_gdino', device='cpu'), WeightsInfo(),
                      input_rule=RULE, file=file)
    passes: list[Any] = []
    swin.register_forward_hook(lambda _, __, levels: passes.append(levels))
    settings = config(Path(''), checkpoint='')
    pipeline = Pipeline(PipelineConfig(detector=settings), model=model)
    assert isinstance(pipeline.detector, GroundingDino)
    assert pipeline.detector.shares_features
    frames = [Frame(image, 0, 0, stream) for image, stream in ((IMAGE, 'a'), (OTHER, 'b'))]
    results = pipeline.process_batch(frames, [None, None])
    assert len(passes) == 2  # One for each image.
    assert all(result.used_detections for result in results)
    # A backbone of the detector's own, from the same file, gives the same features and boxes.
    alone = build(file)
    with torch.inference_mode():
        own = alone._backbone(prepare(IMAGE, RULE, torch.device('cpu')).pixels[None])
    for level, other in zip(passes[0], own, strict=True):
        torch.testing.assert_close(level, other, atol=1e-3, rtol=1e-3)
    found = alone.detect([IMAGE])[0]
    shared = pipeline.detector.detect_encoded(model.encode([IMAGE]), [0])[0]
    np.testing.assert_allclose(shared.boxes, found.boxes, atol=0.05)
    assert shared.labels == found.labels


def test_other_weights_than_the_models_do_not_share(
    dino_file: Path, swin: Swin, tmp_path: Path, caplog: pytest.LogCaptureFixture,
) -> None:
    other = tmp_path / 'other.pth'
    other.write_bytes(dino_file.read_bytes())
    detector = build(other, SharedModel(swin, dino_file), text_model=str(dino_file.parent))
    assert not detector.shares_features
    assert 'runs twice' in caplog.text


def test_classes_change_from_the_next_call_on_and_keep_their_numbers(dino_file: Path) -> None:
    detector = build(dino_file)
    detector.detect([IMAGE])
    detector.set_classes(['dog', 'Person'])
    found = detector.detect([IMAGE])[0]
    assert set(found.labels) <= {'dog', 'Person'}
    numbers = dict(zip(found.labels, found.class_ids.tolist(), strict=True))
    detector.set_classes(['person', 'car', 'dog'])
    again = detector.detect([IMAGE])[0]
    for label, number in zip(again.labels, again.class_ids.tolist(), strict=True):
        assert number == numbers.get(label, number)
    with pytest.raises(ValueError, match=r'told nothing.*detector\.text'):
        detector.set_classes([])
    with pytest.raises(ValueError, match=r"'\.\.\.' has no word"):
        detector.set_classes(['...'])
    assert detector.class_names == ('person', 'car', 'dog')


def test_classes_may_change_while_images_are_looked_at(dino_file: Path) -> None:
    detector = build(dino_file)
    prompts = (('car',), ('dog', 'person'), ('traffic light', 'traffic cone', 'car', 'cars'))
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            for names in prompts:
                detector.set_classes(names)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(10):
            labels = set(detector.detect([IMAGE])[0].labels)
            assert any(labels <= set(names) for names in (*prompts, (
                'car', 'traffic cone', 'person')))
    finally:
        stop.set()
        thread.join()


def test_the_text_is_encoded_once_until_it_changes(dino_file: Path) -> None:
    detector = build(dino_file)
    calls = []
    detector._network._text.encoder.register_forward_hook(lambda *_: calls.append(1))
    detector.detect([IMAGE])
    detector.detect([IMAGE, OTHER])
    assert len(calls) == 1
    detector.set_classes(['dog'])
    detector.detect([IMAGE])
    assert len(calls) == 2


def test_a_batch_gives_what_its_images_give_alone(detector: GroundingDino) -> None:
    """Two sizes that are padded to one, so that each has its own mask."""
    wide, narrow = IMAGE[:52], IMAGE
    assert RULE.padded_size(*RULE.scaled_size(52, 100)) == RULE.padded_size(
        *RULE.scaled_size(60, 100))
    together = detector.detect([wide, OTHER, narrow])
    for image, found in zip((wide, OTHER, narrow), together, strict=True):
        alone = detector.detect([image])[0]
        assert found.labels == alone.labels
        np.testing.assert_allclose(found.boxes, alone.boxes, atol=1e-2)


def test_two_hundred_classes_go_in_parts_over_one_pass_of_the_backbone(dino_file: Path) -> None:
    names = [f'{word} {"s" * (index // 6)} {index}' for index, word in enumerate(
        ['car', 'person', 'cone', 'light', 'dog', 'traffic'] * 34)][:200]
    detector = build(dino_file, text='', classes=tuple(names))
    assert len(detector._prompt.chunks) > 1
    assert all(len(chunk.token_ids) <= 256 for chunk in detector._prompt.chunks)
    assert sorted(row for chunk in detector._prompt.chunks for row in chunk.classes) == list(
        range(200))
    passes = []
    detector._backbone.register_forward_hook(lambda *_: passes.append(1))
    found = detector.detect([IMAGE])[0]
    assert len(passes) == 1
    assert set(found.labels) <= set(names)
    same = found.class_ids[:, None] == found.class_ids[None] & ~np.eye(len(found), dtype=bool)
    assert (pairwise_iou(found.boxes, found.boxes)[same] <= 0.6).all()


def test_thresholds_leave_out_what_is_below(detector: GroundingDino, dino_file: Path) -> None:
    scores = detector.detect([IMAGE])[0].scores
    middle = float(np.median(scores))
    detector.reconfigure(config(dino_file, score_threshold=middle))
    assert (detector.detect([IMAGE])[0].scores >= np.float32(middle)).all()
    detector.reconfigure(config(dino_file, text_threshold=1.0))
    assert detector.detect([IMAGE])[0].boxes.shape == (0, 4)
    detector.reconfigure(config(dino_file, max_detections=2))
    assert len(detector.detect([IMAGE])[0]) == 2
    detector.reconfigure(config(dino_file))


def test_a_class_scores_by_its_best_word_and_is_chosen_by_their_mean() -> None:
    # Query 0: "traffic" 0.9, "cone" 0.1, "light" 0.7; the light has the higher mean, and 0.9.
    tokens = torch.tensor([[0.0, 0.9, 0.1, 0.0, 0.9, 0.7, 0.0]])
    best, mean = class_scores(tokens, [(1, 3), (4, 6)])
    torch.testing.assert_close(best, torch.tensor([[0.9, 0.9]]))
    torch.testing.assert_close(mean, torch.tensor([[0.5, 0.8]]))


def test_a_prompt_holds_the_tokens_of_its_names_between_full_stops(dino_file: Path) -> None:
    tokenize = Tokenizer('', dino_file)
    prompt = make_prompt(['Car', 'traffic cones', 'st. dog?'], tokenize, 256)
    # car 1030, traffic 1032, cone 1033, ##s 1036, unknown "st" 100, dog 1035.
    assert prompt.chunks[0].token_ids.tolist() == [
        101, 1030, 1012, 1032, 1033, 1036, 1012, 100, 1035, 1012, 102]
    assert prompt.chunks[0].spans == [(1, 2), (3, 6), (7, 9)]
    tight = make_prompt(['car', 'dog', 'person'], tokenize, 6)
    assert [chunk.classes for chunk in tight.chunks] == [[0, 1], [2]]
    with pytest.raises(ValueError, match='has 4 tokens, expected at most 3'):
        make_prompt(['car car car car'], tokenize, 6)
    with pytest.raises(ValueError, match='has no word in it'):
        make_prompt(['?'], tokenize, 256)


def test_what_was_fetched_needs_no_setting_but_the_text(
    dino_file: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv('MASA_ROS_WEIGHTS', str(dino_file.parent))
    detector = build_detector(
        DetectorConfig(text='car . traffic cone', device='cpu'), SimpleNamespace(name='tiny'))
    assert isinstance(detector, GroundingDino)
    assert detector.class_names == ('car', 'traffic cone')
    assert not detector.shares_features


def test_a_fetched_vocabulary_serves_weights_elsewhere(
    dino_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv('MASA_ROS_WEIGHTS', str(dino_file.parent))
    elsewhere = tmp_path / 'mine.pth'
    elsewhere.write_bytes(dino_file.read_bytes())
    assert build(elsewhere).class_names == ('car', 'traffic cone', 'person')
    with pytest.raises(FileNotFoundError, match=r'no vocabulary.*fetch bert_vocabulary'):
        build(elsewhere, text_model=str(tmp_path))


def test_missing_files_say_how_to_get_them(
    dino_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv('MASA_ROS_WEIGHTS', str(tmp_path / 'none'))
    with pytest.raises(FileNotFoundError, match=r'checkpoint is empty.*weights fetch masa_gdino'):
        build_detector(config(Path(''), checkpoint=''))
    with pytest.raises(FileNotFoundError, match=r'no weights of .* at.*huggingface'):
        build_detector(config(tmp_path / 'nowhere'))
    lonely = tmp_path / 'gdino_masa.pth'
    lonely.write_bytes(dino_file.read_bytes())
    with pytest.raises(FileNotFoundError, match=r'no vocabulary.*bert-base-uncased'):
        build_detector(config(lonely))
    with pytest.raises(ValueError, match='told nothing'):
        build_detector(config(dino_file, text=''))


def test_wrong_files_are_refused(dino_file: Path, tmp_path: Path) -> None:
    vocabulary = dino_file.parent / 'vocab.txt'
    wrong = tmp_path / 'vocab.txt'
    wrong.write_text('[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n.\n?\ncar\n')
    with pytest.raises(ValueError, match='not the vocabulary of BERT uncased'):
        build_detector(config(dino_file, text_model=str(wrong)))
    torch.save({'state_dict': {'backbone.weight': torch.zeros(1)}}, tmp_path / 'other.pth')
    with pytest.raises(ValueError, match='holds no Grounding-DINO: detector'):
        build_detector(config(tmp_path / 'other.pth', text_model=str(vocabulary)))
    entries = read_entries(dino_file)
    torch.save({'state_dict': {**entries, 'detector.roi_head.x': torch.zeros(1)}},
               tmp_path / 'more.pth')
    with pytest.raises(ValueError, match=r'another detector: 1 entries .* roi_head\.x'):
        build_detector(config(tmp_path / 'more.pth', text_model=str(vocabulary)))
    torch.save({'state_dict': {name: value for name, value in entries.items()
                               if 'memory_trans_norm' not in name}}, tmp_path / 'less.pth')
    with pytest.raises(ValueError, match='does not fit Grounding-DINO'):
        build_detector(config(tmp_path / 'less.pth', text_model=str(vocabulary)))
    empty = tmp_path / 'folder'
    empty.mkdir()
    (empty / 'vocab.txt').write_text(vocabulary.read_text())
    with pytest.raises(ValueError, match=r'holds no Grounding-DINO of transformers'):
        build_detector(config(empty))


def test_nothing_is_asked_of_a_network(
    dino_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError('a connection was tried')

    monkeypatch.setattr(socket.socket, 'connect', refuse)
    monkeypatch.setattr(socket, 'getaddrinfo', refuse)
    build(dino_file).detect([IMAGE])
    (tmp_path / 'vocab.txt').write_text((dino_file.parent / 'vocab.txt').read_text())
    with pytest.raises(ValueError, match='holds no Grounding-DINO of transformers'):
        build_detector(config(tmp_path))
