"""How a sequence becomes instances for ``masa_ros evaluate``, and what its cache depends on."""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from dataclasses import replace
import os
from pathlib import Path
import pickle
from types import SimpleNamespace
from typing import Any

import cv2
from masa_ros.cli import observers
from masa_ros.cli.observers import Observation, observer
from masa_ros.detectors import DetectorConfig
from masa_ros.detectors.selection import ClassConfig
from masa_ros.models import ModelConfig
from masa_ros.regions import RegionsConfig
from masa_ros.structures.instances import Instances
from masa_ros.structures.masks import encode_crop
import numpy as np
from numpy.typing import NDArray
import pytest

TINY = ModelConfig(name='tiny', device='cpu')
CLASSICAL = ModelConfig(name='classical')
IMAGE = np.random.default_rng(0).integers(0, 255, (48, 64, 3)).astype(np.uint8)


class Frames:
    """A sequence of equal images, as far as an observation looks at it."""

    name = 'frames'
    height_px, width_px = 48, 64
    truth: tuple[Instances, ...] = ()

    def __init__(self, count: int, detections: tuple[Instances, ...] = ()) -> None:
        self._count = count
        self.detections = detections

    def __len__(self) -> int:
        return self._count

    def image(self, position: int) -> NDArray[np.uint8]:
        return IMAGE


def observe(observation: Observation, frames: Frames) -> SequenceOf[Instances]:
    whole: Any = frames
    return observation(whole)


class FakeDetector:
    """Finds a car; on the model's features where there are some."""

    def __init__(self, shares: bool) -> None:
        self.shares_features = shares
        self.closed = False

    def detect(self, images: SequenceOf[Any]) -> list[Instances]:
        return [Instances.from_boxes([[4, 4, 30, 30]], [0.9], [3], ['car']) for _ in images]

    def detect_encoded(self, encoded: Any, rows: SequenceOf[int]) -> list[Instances]:
        assert encoded == 'features'
        return self.detect(list(rows))

    def close(self) -> None:
        self.closed = True


def with_detector(monkeypatch: pytest.MonkeyPatch, made: Any) -> list[Any]:
    """Let a stand-in be built; returns the models that it is built with."""
    models: list[Any] = []

    def build(config: DetectorConfig, model: Any = None) -> Any:
        models.append(model)
        return made
    monkeypatch.setattr(observers, 'build_detector', build)
    return models


def test_a_detector_needs_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = FakeDetector(shares=False)
    assert with_detector(monkeypatch, detector) == []
    found = observe(Observation('detector', DetectorConfig(name='onnx'), None), Frames(5))
    assert [objects.labels for objects in found] == [('car',)] * 5
    assert found[0].embeddings is None
    assert detector.closed


def test_a_detector_is_built_with_the_model_whose_features_it_may_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    passes = []

    class Model:
        can_propose = True

        def encode(self, images: SequenceOf[Any]) -> str:
            passes.append(len(images))
            return 'features'

        def run(self, images: Any, given: list[Instances], encoded: str) -> list[Instances]:
            assert encoded == 'features'
            return [objects.with_fields(embeddings=np.ones((1, 2), np.float32))
                    for objects in given]

        def close(self) -> None:
            pass
    model = Model()
    monkeypatch.setattr(observers, 'build_model', lambda config: model)
    models = with_detector(monkeypatch, FakeDetector(shares=True))
    found = observe(Observation('detector', DetectorConfig(name='detic'), TINY), Frames(5))
    assert models == [model]
    assert passes == [4, 1]
    assert [objects.embeddings is not None for objects in found] == [True] * 5


def test_a_detector_that_is_the_model_itself_gives_its_proposals() -> None:
    asked = observe(Observation('detector', DetectorConfig(name='proposals'), TINY), Frames(1))
    own = observe(Observation('proposals', DetectorConfig(), TINY), Frames(1))
    assert np.array_equal(asked[0].boxes, own[0].boxes)
    assert asked[0].embeddings is not None


@pytest.mark.parametrize(('observation', 'text'), [
    (Observation('detector', DetectorConfig(), TINY), 'no detector is named'),
    (Observation('detector', DetectorConfig(name='proposals'), CLASSICAL),
     'classical finds no objects by itself'),
    (Observation('detector', DetectorConfig(name='proposals'), None), 'cannot find objects'),
    (Observation('proposals', DetectorConfig(), CLASSICAL), 'classical cannot find objects'),
    (Observation('given', DetectorConfig(), None), 'no given detections'),
    (Observation('truth', DetectorConfig(), None), 'no ground truth'),
])
def test_sources_that_are_not_there_are_refused(observation: Observation, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        observe(observation, Frames(1))


def test_class_rules_hold_for_given_and_detected_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    given = Instances.from_boxes(
        [[1, 1, 9, 9], [11, 1, 19, 9]], [0.9, 0.9], [1, 2], ['truck', 'bird'])
    rules = ClassConfig(rename=('truck=vehicle',), ignore=('bird',))
    plain = Observation('given', DetectorConfig(), None)
    assert observe(plain, Frames(1, (given,)))[0].class_ids.tolist() == [1, 2]
    chosen = observe(replace(plain, classes=rules), Frames(1, (given,)))
    assert chosen[0].labels == ('vehicle',)
    with_detector(monkeypatch, FakeDetector(shares=False))
    found = observe(Observation('detector', DetectorConfig(name='onnx'), None,
                                classes=ClassConfig(ignore=('car',))), Frames(1))
    assert len(found[0]) == 0


# --- ignored parts of the image -----------------------------------------------------------------

# Columns from 20 on are ignored in images of 64 x 48 pixels.
RIGHT = RegionsConfig(ignore_polygons=('20,0 64,0 64,48 20,48',))


@pytest.mark.parametrize('source', ['given', 'truth'])
def test_boxes_that_are_mostly_ignored_are_left_out(source: str) -> None:
    # Of their width of 10, from column 20 on: 5 (not more than half), 6 and all are ignored.
    boxes = Instances.from_boxes([[15, 1, 25, 9], [16, 1, 26, 9], [30, 1, 40, 9]])
    frames = Frames(1, (boxes,))
    frames.truth = (boxes,)
    plain = Observation(source, DetectorConfig(), None)
    assert len(observe(plain, frames)[0]) == 3
    found = observe(replace(plain, regions=RIGHT), frames)[0]
    assert found.boxes.tolist() == [[15, 1, 25, 9]]
    strict = observe(replace(plain, regions=replace(RIGHT, share=0.4)), frames)[0]
    assert len(strict) == 0


def test_the_model_does_not_see_detections_that_are_ignored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[int] = []

    class Model:
        def encode(self, images: SequenceOf[Any]) -> str:
            return 'features'

        def run(self, images: Any, given: list[Instances], *encoded: str) -> list[Instances]:
            seen.extend(map(len, given))
            return given

        def close(self) -> None:
            pass
    monkeypatch.setattr(observers, 'build_model', lambda config: Model())
    for shares in (False, True):
        # Its box is [4, 4, 30, 30]: 10 of 26 columns are ignored.
        with_detector(monkeypatch, FakeDetector(shares))
        observation = Observation('detector', DetectorConfig(name='onnx'), TINY, regions=RIGHT)
        assert len(observe(observation, Frames(1))[0]) == 1
        strict = replace(observation, regions=replace(RIGHT, share=10 / 26 - 0.01))
        assert len(observe(strict, Frames(1))[0]) == 0
    assert seen == [1, 0, 1, 0]


def test_own_proposals_are_judged_by_their_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    # Of their widths of 20 are ignored: half by the box, 10 of 12 columns of the mask; then
    # 15 by the box, 2 of 7 by the mask; the third has no mask.
    boxes = [[10, 0, 30, 8], [15, 0, 35, 8], [30, 1, 40, 9]]
    masks = (encode_crop(np.ones((8, 12), bool), 18, 0), encode_crop(np.ones((8, 7), bool), 15, 0),
             None)

    class Model:
        can_propose = True

        def run(self, images: Any, given: list[None]) -> list[Instances]:
            assert given == [None] * len(images)
            return [Instances.from_boxes(boxes).with_fields(masks=masks) for _ in images]

        def close(self) -> None:
            pass
    monkeypatch.setattr(observers, 'build_model', lambda config: Model())
    own = Observation('proposals', DetectorConfig(), TINY)
    assert len(observe(own, Frames(1))[0]) == 3
    assert observe(replace(own, regions=RIGHT), Frames(1))[0].boxes.tolist() == boxes[1:2]


# --- what the cache depends on ------------------------------------------------------------------


def key(observation: Observation) -> str:
    return observer('x', observation).fingerprint


def change(path: Path) -> None:
    """Change a file's contents, not its size."""
    path.write_bytes(bytes(255 - byte for byte in path.read_bytes()))


@pytest.mark.parametrize('field', ['checkpoint', 'text_model', 'class_file', 'class_vectors'])
def test_a_changed_file_of_the_detector_is_another_observation(
    field: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv('MASA_ROS_WEIGHTS', str(tmp_path / 'none'))
    file = tmp_path / 'file'
    file.write_bytes(b'one')
    settings: dict[str, Any] = {'name': 'detic', field: str(file)}
    observation = Observation('detector', DetectorConfig(**settings), None)
    before, status = key(observation), file.stat()
    assert key(observation) == before
    change(file)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert key(observation) != before
    # Boxes that come from elsewhere do not depend on it.
    given = replace(observation, source='given')
    after = key(given)
    change(file)
    assert key(given) == after


def test_a_changed_file_in_the_folder_of_a_detector_is_another_observation(
    tmp_path: Path,
) -> None:
    folder = tmp_path / 'dino'
    (folder / 'deep').mkdir(parents=True)
    file = folder / 'deep' / 'model.safetensors'
    file.write_bytes(b'one')
    observation = Observation(
        'detector', DetectorConfig(name='grounding_dino', checkpoint=str(folder)), None)
    before = key(observation)
    change(file)
    assert key(observation) != before


@pytest.mark.parametrize(('name', 'file'), [
    ('grounding_dino', 'gdino_masa.pth'), ('grounding_dino', 'vocab.txt'),
    ('detic', 'detic_masa.pth'), ('grid', 'mobile_sam.pt')])
def test_a_fetched_file_that_changed_is_another_observation(
    name: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv('MASA_ROS_WEIGHTS', str(tmp_path))
    (tmp_path / file).write_bytes(b'one')
    observation = Observation('detector', DetectorConfig(
        name=name, architecture='mobile_sam' if name == 'grid' else ''), None)
    before = key(observation)
    change(tmp_path / file)
    assert key(observation) != before


@pytest.mark.parametrize(('config', 'file'), [
    ({'name': 'masa_r50'}, 'masa_r50.pth'), ({'name': 'sam_vit_b'}, 'sam_vit_b_01ec64.pth'),
    ({'name': 'masa_sam_vit_b'}, 'sam_vit_b_01ec64.pth'),
    ({'name': 'masa_r50', 'mask_model': 'mobile_sam'}, 'mobile_sam.pt')])
def test_weights_of_the_model_that_no_setting_names_count_too(
    config: dict[str, Any], file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv('MASA_ROS_WEIGHTS', str(tmp_path))
    (tmp_path / file).write_bytes(b'one')
    observation = Observation('truth', DetectorConfig(), ModelConfig(**config))
    before = key(observation)
    change(tmp_path / file)
    assert key(observation) != before


def test_the_shipped_weights_count(monkeypatch: pytest.MonkeyPatch) -> None:
    from masa_ros.models import weight_files
    assert any(path.name == 'weights.pt' for path in weight_files(TINY))
    assert weight_files(CLASSICAL) == []


def test_a_changed_detector_is_looked_with_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    from masa_ros.evaluation import benchmark
    monkeypatch.setattr(benchmark, 'fingerprint', lambda sequence: 'frames')
    file = tmp_path / 'detector.onnx'
    file.write_text('1')

    def build(config: DetectorConfig, model: Any) -> Any:
        count = int(Path(config.checkpoint).read_text())
        return SimpleNamespace(
            detect=lambda images: [Instances.from_boxes([[1, 1, 9, 9]] * count) for _ in images],
            close=lambda: None)
    monkeypatch.setattr(observers, 'build_detector', build)

    def counts() -> list[int]:
        observation = Observation(
            'detector', DetectorConfig(name='onnx', checkpoint=str(file)), None)
        frames: Any = Frames(2)
        return [len(objects) for objects in benchmark.observe(
            frames, observer('x', observation), tmp_path / 'cache')]
    assert counts() == [1, 1]
    file.write_text('2')
    assert counts() == [2, 2]
    assert len(list((tmp_path / 'cache').rglob('*.npz'))) == 2


def test_other_regions_are_another_observation(tmp_path: Path) -> None:
    plain = Observation('given', DetectorConfig(), None)
    file = tmp_path / 'bonnet.png'
    cv2.imwrite(str(file), np.eye(8, dtype=np.uint8) * 255)
    image = replace(plain, regions=RegionsConfig(ignore_image=str(file)))
    keys = [key(one) for one in (
        plain, replace(plain, regions=RIGHT), replace(plain, regions=replace(RIGHT, share=0.4)),
        image)]
    assert len(set(keys)) == 4
    # What is drawn counts, and not where it lies; a share of nothing changes nothing.
    copy = file.rename(tmp_path / 'moved.png')
    assert key(replace(plain, regions=RegionsConfig(ignore_image=str(copy)))) == keys[3]
    assert key(replace(plain, regions=RegionsConfig(share=0.4))) == keys[0]
    cv2.imwrite(str(copy), np.eye(8, dtype=np.uint8)[::-1] * 255)
    assert key(replace(plain, regions=RegionsConfig(ignore_image=str(copy)))) not in keys
    with pytest.raises(FileNotFoundError, match='regions.ignore_image: .* is not there'):
        key(image)


def test_an_observation_with_regions_goes_to_other_processes() -> None:
    spec = observer('x', Observation('given', DetectorConfig(), None, regions=RIGHT))
    frames: Any = Frames(1, (Instances.from_boxes([[30, 1, 40, 9]]),))
    assert len(pickle.loads(pickle.dumps(spec)).build()(frames)[0]) == 0
