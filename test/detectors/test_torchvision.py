"""torchvision's detection models, with seeded weights: real networks on small images."""

from __future__ import annotations

from pathlib import Path

from masa_ros.detectors import build_detector, DetectorConfig
from masa_ros.detectors import torchvision as ours
from masa_ros.structures.boxes import pairwise_iou
import numpy as np
import pytest
import torch
from torchvision import models

SSD = 'ssdlite320_mobilenet_v3_large'
IMAGE = np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8)


def config(**settings: object) -> DetectorConfig:
    values = {'name': 'torchvision', 'architecture': SSD, 'checkpoint': ours.SEEDED,
              'score_threshold': 0.0, 'max_detections': 20, 'device': 'cpu', **settings}
    return DetectorConfig(**values)  # type: ignore[arg-type]


@pytest.fixture(scope='module')
def seeded() -> ours.TorchvisionDetector:
    return ours.TorchvisionDetector(config())


def test_boxes_are_inside_the_image_best_first_with_published_names(
    seeded: ours.TorchvisionDetector,
) -> None:
    found = seeded.detect([IMAGE])[0]
    assert len(found) == 20
    assert (found.boxes[:, :2] >= 0).all()
    assert (found.boxes[:, 2:] <= [120, 90]).all()
    assert (np.diff(found.scores) <= 0).all()
    known = models.get_model_weights(SSD).DEFAULT.meta['categories']
    assert all(known[number] == label or known[number] == 'N/A'
               for number, label in zip(found.class_ids, found.labels, strict=True))
    assert 'person' in seeded.class_names
    assert 'N/A' not in seeded.class_names


def test_boxes_are_those_of_torchvision_itself(seeded: ours.TorchvisionDetector) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = models.get_model(SSD, weights=None, weights_backbone=None).eval()
    network.score_thresh, network.nms_thresh, network.detections_per_img = 0.0, 0.6, 20
    with torch.inference_mode():
        own = network([torch.from_numpy(IMAGE).permute(2, 0, 1) / 255])[0]
    found = seeded.detect([IMAGE])[0]
    np.testing.assert_allclose(found.boxes, own['boxes'].numpy(), atol=1e-3)
    assert found.class_ids.tolist() == own['labels'].tolist()


def test_seeded_weights_are_the_same_every_time(seeded: ours.TorchvisionDetector) -> None:
    again = ours.TorchvisionDetector(config())
    np.testing.assert_array_equal(
        again.detect([IMAGE])[0].boxes, seeded.detect([IMAGE])[0].boxes)


def test_chosen_classes_take_effect_at_the_next_frame(seeded: ours.TorchvisionDetector) -> None:
    label = seeded.detect([IMAGE])[0].labels[0]
    seeded.set_classes([label.upper()])
    assert set(seeded.detect([IMAGE])[0].labels) == {label}
    assert seeded.class_names == (label,)
    with pytest.raises(ValueError, match='names unicorn'):
        seeded.set_classes(['unicorn'])
    assert seeded.class_names == (label,)
    seeded.set_classes([])
    assert len(seeded.class_names) == 80


def test_thresholds_change_while_running(seeded: ours.TorchvisionDetector) -> None:
    scores = seeded.detect([IMAGE])[0].scores
    middle = float(scores[10])
    seeded.reconfigure(config(score_threshold=middle))
    assert (seeded.detect([IMAGE])[0].scores >= np.float32(middle)).all()
    seeded.reconfigure(config(nms_threshold=0.1))
    found = seeded.detect([IMAGE])[0]
    same = found.class_ids[:, None] == found.class_ids[None]
    assert (pairwise_iou(found.boxes, found.boxes)[same & ~np.eye(len(found), dtype=bool)]
            <= 0.1).all()
    seeded.reconfigure(config(max_detections=3))
    assert len(seeded.detect([IMAGE])[0]) == 3
    seeded.reconfigure(config(text='person', score_threshold=1.0))
    assert len(seeded.detect([IMAGE, IMAGE])[1]) == 0
    seeded.reconfigure(config())


@pytest.mark.parametrize('architecture', [
    pytest.param('fcos_resnet50_fpn', marks=pytest.mark.slow), SSD])
def test_a_file_of_own_classes_fits_with_and_without_the_background(
    architecture: str, tmp_path: Path,
) -> None:
    network = models.get_model(architecture, weights=None, weights_backbone=None, num_classes=4)
    torch.save({'model': network.state_dict()}, tmp_path / 'own.pth')
    (tmp_path / 'names.txt').write_text('cone\nbarrier\nsign\n')
    (tmp_path / 'all.txt').write_text('background\ncone\nbarrier\nsign\n')
    for names in ('names.txt', 'all.txt'):
        detector = build_detector(config(
            architecture=architecture, checkpoint=str(tmp_path / 'own.pth'),
            class_file=str(tmp_path / names)))
        assert detector is not None
        assert detector.class_names[-3:] == ('cone', 'barrier', 'sign')
    plain = build_detector(config(architecture=architecture, checkpoint=str(tmp_path / 'own.pth')))
    assert plain is not None
    assert plain.class_names == ()
    with pytest.raises(ValueError, match='class_file is empty'):
        plain.set_classes(['cone'])


def test_wrong_files_and_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='expected one of torchvision: .*fasterrcnn'):
        build_detector(config(architecture='yolov8'))
    with pytest.raises(FileNotFoundError, match=r'checkpoint is empty.*https://download'):
        build_detector(config(checkpoint=''))
    with pytest.raises(FileNotFoundError, match='no detector weights at'):
        build_detector(config(checkpoint=str(tmp_path / 'nowhere.pth')))
    torch.save({'layer.weight': torch.zeros(2)}, tmp_path / 'other.pth')
    with pytest.raises(ValueError, match='does not fit ssdlite320'):
        build_detector(config(checkpoint=str(tmp_path / 'other.pth')))
    (tmp_path / 'names.txt').write_text('one\ntwo\n')
    with pytest.raises(ValueError, match='has 2 names, but the weights have 91'):
        build_detector(config(class_file=str(tmp_path / 'names.txt')))


@pytest.mark.slow
@pytest.mark.parametrize('architecture', ours.architectures())
def test_every_architecture_detects(architecture: str) -> None:
    detector = ours.TorchvisionDetector(config(architecture=architecture))
    detector.warm_up()
    found = detector.detect([IMAGE[:40, :50], IMAGE])
    assert len(found) == 2
    detector.close()
