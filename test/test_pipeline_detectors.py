"""Detectors in the pipeline, with parts that record what they are asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
import threading
from typing import Any

from masa_ros.detectors import DetectorConfig
from masa_ros.detectors.detector import Detector
from masa_ros.detectors.selection import ClassConfig
from masa_ros.models import ModelConfig
from masa_ros.models.model import WeightsInfo
from masa_ros.pipeline import Pipeline, PipelineConfig
from masa_ros.structures.frame import Frame
from masa_ros.structures.instances import Instances
import numpy as np
from numpy.typing import NDArray
import pytest

IMAGE = np.zeros((40, 60, 3), np.uint8)
BOXES = [[0, 0, 10, 10], [20, 20, 30, 30], [30, 0, 40, 10]]


class FakeModel:
    """Gives every box the same embedding; can be encoded."""

    name = 'fake'
    weights = WeightsInfo()
    device = 'cpu'
    can_propose = True

    def __init__(self) -> None:
        self.encodings = 0
        self.given: list[Any] = []
        self.encoded: list[Any] = []

    def warm_up(self) -> None: ...

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> list[str]:
        self.encodings += 1
        return [f'features of {len(images)} images']

    def run(
        self, images: Sequence[NDArray[np.uint8]], detections: Sequence[Instances | None],
        encoded: Any = None,
    ) -> list[Instances]:
        self.given.append(list(detections))
        self.encoded.append(encoded)
        return [(found or Instances()).with_fields(
            embeddings=np.ones((len(found or ()), 4), np.float32)) for found in detections]

    def reconfigure(self, config: Any) -> None: ...

    def close(self) -> None: ...


class FakeDetector:
    """Finds one box of each class that it looks for."""

    name = 'fake'
    open_vocabulary = True
    class_names: tuple[str, ...] = ('car', 'person')

    def __init__(self) -> None:
        self.images = 0
        self.configs: list[DetectorConfig] = []

    def warm_up(self) -> None: ...

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[Instances]:
        self.images += len(images)
        names = self.class_names
        return [Instances.from_boxes(BOXES[:len(names)], [0.9] * len(names), range(len(names)),
                                     names) for _ in images]

    def set_classes(self, names: Sequence[str]) -> None:
        if 'unicorn' in names:
            raise ValueError('no unicorns')
        self.class_names = tuple(names)

    def reconfigure(self, config: DetectorConfig) -> None:
        self.configs.append(config)

    def close(self) -> None: ...


class SharingDetector(FakeDetector):
    """The same on the model's features."""

    shares_features = True

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[Any, list[int]]] = []

    def detect_encoded(self, encoded: Any, rows: Sequence[int]) -> list[Instances]:
        self.asked.append((encoded, list(rows)))
        return self.detect([IMAGE] * len(rows))


def frame(index: int = 0, stream: str = '') -> Frame:
    return Frame(IMAGE, index * 10 ** 8, index, stream)


def pipeline(detector: Detector | None, **classes: Any) -> tuple[Pipeline, FakeModel]:
    model = FakeModel()
    config = PipelineConfig(classes=ClassConfig(**classes))
    return Pipeline(config, model=model, detector=detector), model


def test_class_rules_hold_for_boxes_from_outside_and_from_the_detector() -> None:
    detector = FakeDetector()
    both, model = pipeline(detector, rename=('car=vehicle',), ignore=('person',),
                           score_thresholds=('vehicle=0.5',))
    both.process(frame(0))
    outside = Instances.from_boxes(BOXES, [0.9, 0.4, 0.9], [7, 7, 8], ['car', 'car', 'person'])
    both.process(frame(1), outside)
    assert [given[0].labels for given in model.given] == [('vehicle',), ('vehicle',)]
    assert model.given[0][0].class_ids.tolist() == model.given[1][0].class_ids.tolist()


def test_changed_class_rules_hold_from_the_next_frame_on() -> None:
    running, model = pipeline(FakeDetector())
    running.process(frame(0))
    running.reconfigure(replace(running.config, classes=ClassConfig(keep=('person',))))
    running.process(frame(1))
    assert [given[0].labels for given in model.given] == [('car', 'person'), ('person',)]


def test_classes_set_while_running_hold_from_the_next_frame_on() -> None:
    detector = FakeDetector()
    running, model = pipeline(detector)
    running.process(frame(0))
    running.set_classes(['traffic  cone', 'Traffic Cone', 'dog'])
    running.process(frame(1))
    assert model.given[1][0].labels == ('traffic cone', 'dog')
    assert running.config.detector.classes == ('traffic cone', 'dog')
    with pytest.raises(ValueError, match='no unicorns'):
        running.set_classes(['unicorn'])
    assert running.config.detector.classes == ('traffic cone', 'dog')


def test_classes_may_be_set_from_another_thread_while_frames_run() -> None:
    detector = FakeDetector()
    running, model = pipeline(detector)
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            running.set_classes(['car'])
            running.set_classes(['dog', 'cat', 'cow'])

    thread = threading.Thread(target=change)
    thread.start()
    for index in range(200):
        running.process(frame(index))
    stop.set()
    thread.join()
    seen = {given[0].labels for given in model.given}
    assert seen <= {('car', 'person'), ('car',), ('dog', 'cat', 'cow')}


def test_classes_cannot_be_set_without_a_detector() -> None:
    running, _ = pipeline(None)
    with pytest.raises(ValueError, match=r'set detector\.name'):
        running.set_classes(['car'])
    with pytest.raises(ValueError, match=r'set detector\.name'):
        running.reconfigure(replace(running.config, detector=DetectorConfig(text='car')))
    assert running.config.detector.text == ''
    running.reconfigure(replace(running.config, detector=DetectorConfig(score_threshold=0.5)))


def test_a_sharing_detector_and_the_model_use_one_encoding() -> None:
    detector = SharingDetector()
    sharing, model = pipeline(detector)
    results = sharing.process_batch([frame(0, 'a'), frame(0, 'b')], [None, None])
    assert model.encodings == 1
    assert detector.asked == [(['features of 2 images'], [0, 1])]
    assert model.encoded == [['features of 2 images']]
    assert all(result.used_detections for result in results)


def test_a_sharing_detector_is_asked_only_for_images_without_boxes() -> None:
    detector = SharingDetector()
    sharing, model = pipeline(detector)
    boxes = Instances.from_boxes(BOXES[:1], labels=['bus'])
    sharing.process_batch([frame(0, 'a'), frame(0, 'b')], [boxes, None])
    assert detector.asked[0][1] == [1]
    assert [given.labels for given in model.given[0]] == [('bus',), ('car', 'person')]
    sharing.process_batch([frame(1, 'a')], [boxes])
    assert model.encodings == 1
    assert model.encoded[1] is None


def test_the_fingerprint_depends_on_the_contents_of_the_detectors_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr('masa_ros.pipeline.build_detector', lambda config, model: FakeDetector())
    names = tmp_path / 'names.txt'

    def fingerprint(**settings: Any) -> str:
        config = PipelineConfig(
            model=ModelConfig(name='classical'), detector=DetectorConfig(**settings))
        return Pipeline(config).fingerprint()
    names.write_text('car')
    first = fingerprint(name='onnx', class_file=str(names))
    assert fingerprint(name='onnx', class_file=str(names)) == first
    names.write_text('bus')
    assert fingerprint(name='onnx', class_file=str(names)) != first
