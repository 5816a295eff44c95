from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from masa_ros.structures.instances import Instances
from masa_ros.training import adapt as module
from masa_ros.training import adapt_masa, masa
from masa_ros.training.adapt import adapt, Adaptation, AdaptConfig
from masa_ros.training.corpus import LabelledImage
from masa_ros.training.masa import MasaStudent
import numpy as np
from numpy.typing import NDArray
import pytest
import torch

CONFIG = AdaptConfig(frames=10, steps=3, batch=2, judge_pairs=2, cached_pairs=3, proposals=4)


def drive(count: int = 12) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """A square that moves over a texture, seen by a moving camera."""
    rng = np.random.default_rng(0)
    ground = rng.integers(60, 200, (90, 400, 3)).astype(np.uint8)
    for t in range(count):
        image = ground[:, 12 * t:12 * t + 120].copy()
        image[20:45, 10 + 2 * t:35 + 2 * t] = (250, 30, 30)
        image[50:80, 70 - 2 * t:100 - 2 * t] = (20, 60, 240)
        yield f'f{t}', image


def teacher(image: NDArray[np.uint8], full_size: tuple[int, int]) -> Instances:
    boxes = []
    for colour in ((250, 30, 30), (20, 60, 240)):
        part = np.argwhere((image == colour).all(2))
        boxes.append([*part.min(0)[::-1], *(part.max(0)[::-1] + 1)])
    return Instances.from_boxes(boxes)


@pytest.fixture
def start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_student: Callable[[], MasaStudent],
) -> MasaStudent:
    torch.manual_seed(0)
    student = small_student()
    monkeypatch.setattr(adapt_masa, 'VIEW_PX', 128)
    monkeypatch.setattr(adapt_masa.MasaLearner, 'long_side_px', 128)
    for place in (adapt_masa, masa):
        monkeypatch.setattr(place, 'load_student', lambda config: student)
    return student


def run(tmp_path: Path) -> Adaptation:
    return adapt(drive(), teacher, 'start.pth', tmp_path / 'out', CONFIG, 'masa_sam_vit_b')


def test_a_variant_learns_its_track_head_from_a_recording(
    start: MasaStudent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module.Judgement, 'better_than', lambda *_: True)
    before = {name: value.clone() for name, value in start.state_dict().items()}
    result = run(tmp_path)
    assert result.written == tmp_path / 'out/adapted.pth'
    entries = masa.learned_entries(result.written)
    assert entries.keys() == before.keys()
    for name, value in entries.items():
        assert torch.equal(value, before[name]) != name.startswith('track_head.'), name
    for verdict in (result.before, result.after):
        assert 0 <= verdict.views <= 1


def test_a_variant_that_got_worse_is_not_written(
    start: MasaStudent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module.Judgement, 'better_than', lambda *_: False)
    result = run(tmp_path)
    assert result.written is None
    assert not (tmp_path / 'out/adapted.pth').exists()


def test_the_judge_embeds_frames_as_the_student_does(start: MasaStudent, tmp_path: Path) -> None:
    image = next(drive())[1]
    item = LabelledImage('f', 'r', image, teacher(image, (90, 120)).boxes, (None, None),
                         np.zeros(2, np.int64))
    learner = adapt_masa.MasaLearner('masa_sam_vit_b', 'start.pth', '', tmp_path)
    pooled = learner._pooled(start.eval(), item).float()
    assert pooled.shape == (2, 32, 7, 7)
    assert not torch.allclose(pooled[0], pooled[1], atol=1e-2)
