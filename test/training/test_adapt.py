from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from masa_ros.models.tiny.network import TinyConfig, TinyNetwork
from masa_ros.models.tiny.weights import load_network, save_weights
from masa_ros.structures.instances import Instances
from masa_ros.training import adapt as module
from masa_ros.training.adapt import (
    adapt,
    AdaptConfig,
    Judgement,
    neighbour_accuracy,
    sample_clips,
)
from masa_ros.training.corpus import Corpus, LabelledImage
import numpy as np
from numpy.typing import NDArray
import pytest
import torch

CONFIG = AdaptConfig(frames=16, steps=3, batch=2, judge_pairs=4)


def drive(count: int = 14) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Two coloured squares that move over a texture, seen by a moving camera."""
    rng = np.random.default_rng(0)
    ground = rng.integers(60, 200, (90, 400, 3)).astype(np.uint8)
    for t in range(count):
        image = ground[:, 12 * t:12 * t + 120].copy()
        image[20:45, 10 + 2 * t:35 + 2 * t] = (250, 30, 30)
        image[50:80, 70 - 2 * t:100 - 2 * t] = (20, 60, 240)
        yield f'f{t}', image


def teacher(image: NDArray[np.uint8], full_size: tuple[int, int]) -> Instances:
    red = np.argwhere((image == (250, 30, 30)).all(2))
    blue = np.argwhere((image == (20, 60, 240)).all(2))
    boxes = [[*part.min(0)[::-1], *(part.max(0)[::-1] + 1)] for part in (red, blue) if len(part)]
    return Instances.from_boxes(boxes)


@pytest.fixture
def start(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    network = TinyNetwork(TinyConfig(channels=16, embedding_size=8))
    save_weights(tmp_path / 'start.pt', network, {})
    return tmp_path / 'start.pt'


def test_only_the_track_head_moves(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    verdicts = iter([Judgement(0.5, 0.5), *[Judgement(0.6, float('nan'))] * 3])
    monkeypatch.setattr(module, 'judge', lambda *_: next(verdicts))
    result = adapt(drive(), teacher, start, tmp_path / 'out', CONFIG)
    assert result.written is not None
    before, after = load_network(start)[0].state_dict(), load_network(result.written)[0]
    for name, value in after.state_dict().items():
        assert torch.equal(value, before[name]) != name.startswith('track_head.'), name


def test_a_worse_result_is_not_written(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    verdicts = iter([Judgement(0.9, 0.9), *[Judgement(0.91, 0.8)] * 3])
    monkeypatch.setattr(module, 'judge', lambda *_: next(verdicts))
    result = adapt(drive(), teacher, start, tmp_path / 'out', CONFIG)
    assert result.written is None
    assert not (tmp_path / 'out/adapted.pt').exists()


def test_the_best_part_of_the_way_is_written(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    judged: list[TinyNetwork] = []
    # The end has the best mean, but one of its numbers fell.
    verdicts = [Judgement(0.5, 0.5), Judgement(0.9, 0.4), Judgement(0.7, 0.5),
                Judgement(0.6, 0.5)]

    def judge(network: TinyNetwork, *_: object) -> Judgement:
        judged.append(network)
        return verdicts[len(judged) - 1]

    monkeypatch.setattr(module, 'judge', judge)
    result = adapt(drive(), teacher, start, tmp_path / 'out', CONFIG)
    assert result.after == Judgement(0.7, 0.5)
    assert result.written is not None
    name = 'track_head.embed.weight'
    before, end, half = (network.state_dict()[name] for network in judged[:3])
    written = load_network(result.written)[0].state_dict()[name]
    assert not torch.equal(before, end)
    assert torch.allclose(written, (before + end) / 2)
    assert torch.equal(written, half)


def test_one_number_must_not_fall_for_the_other() -> None:
    start = Judgement(0.8, 0.9)
    assert Judgement(0.81, 0.9).better_than(start)
    assert not Judgement(0.99, 0.89).better_than(start)
    assert not start.better_than(start)
    assert Judgement(0.8, 0.9, 0.71).better_than(Judgement(0.8, 0.9, 0.7))
    assert not Judgement(0.99, 0.99, 0.69).better_than(Judgement(0.8, 0.9, 0.7))
    alone = Judgement(0.8, float('nan'))  # No two frames were close enough to judge.
    assert Judgement(0.9, float('nan')).better_than(alone)
    assert not Judgement(0.7, float('nan')).better_than(alone)


def test_the_judge_sees_the_end_of_the_recording(start: Path, tmp_path: Path) -> None:
    result = adapt(drive(), teacher, start, tmp_path / 'out', CONFIG)
    assert (result.learned_frames, result.judged_frames) == (10, 4)
    for verdict in (result.before, result.after):
        assert 0 <= verdict.views <= 1
        assert 0 <= verdict.mean() <= 1


def test_a_standing_camera_gives_too_few_frames(start: Path, tmp_path: Path) -> None:
    still = [('f', next(drive())[1])] * 30
    with pytest.raises(ValueError, match='has 1 different frames'):
        adapt(still, teacher, start, tmp_path / 'out', CONFIG)


def test_frames_without_objects_are_refused(start: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='nothing was found'):
        adapt(drive(), lambda *_: Instances(), start, tmp_path / 'out', CONFIG)


def test_long_recordings_are_thinned_evenly() -> None:
    rng = np.random.default_rng(0)
    frames = [(str(i), rng.integers(0, 256, (30, 40, 3)).astype(np.uint8)) for i in range(100)]
    clips = sample_clips(frames, AdaptConfig(frames=16))
    starts = [int(clip[0].name) for clip in clips]
    assert len(clips) == 4
    assert max(np.diff(starts)) <= 2 * min(np.diff(starts))
    assert starts[-1] > 80
    for clip, start in zip(clips, starts, strict=True):
        assert [int(frame.name) for frame in clip] == list(range(start, start + 4))


def test_clips_of_two_cameras_are_not_mixed() -> None:
    rng = np.random.default_rng(0)
    frames = [(f'{camera}/{i}', rng.integers(0, 256, (30, 40, 3)).astype(np.uint8))
              for i in range(12) for camera in ('left', 'right')]
    clips = sample_clips(frames, AdaptConfig(frames=24, clip=8))
    assert sorted([frame.name for frame in clip] for clip in clips) == sorted(
        [f'{camera}/{i}' for i in part] for camera in ('left', 'right')
        for part in (range(6), range(6, 12)))


def test_neighbours_by_hand() -> None:
    image = np.zeros((50, 50, 3), np.uint8)
    boxes = np.array([[0, 0, 10, 10], [30, 30, 40, 40]], np.float32)
    frames = [LabelledImage(str(i), 's', image, boxes + i, (None, None), np.zeros(2, np.int64))
              for i in range(2)]
    right = {'0': np.eye(2, dtype=np.float32), '1': np.eye(2, dtype=np.float32)}
    swapped = {'0': np.eye(2, dtype=np.float32), '1': np.eye(2, dtype=np.float32)[::-1]}
    assert neighbour_accuracy(frames, lambda item: right[item.name]) == 1
    assert neighbour_accuracy(frames, lambda item: swapped[item.name]) == 0
    assert np.isnan(neighbour_accuracy(frames[:1], lambda item: right[item.name]))
    other_clip = [frames[0], replace(frames[1], clip='another')]
    assert np.isnan(neighbour_accuracy(other_clip, lambda item: right[item.name]))


def test_views_of_two_moments_share_the_identities_that_were_followed(
    start: Path, tmp_path: Path,
) -> None:
    adapt(drive(), teacher, start, tmp_path / 'out', CONFIG)
    corpus = Corpus(tmp_path / 'out/learned')
    assert (len(set(corpus.clips())), len(corpus)) == (3, 10)
    for clip in sorted(set(corpus.clips())):
        rows = [row for row, name in enumerate(corpus.clips()) if name == clip]
        # The red square comes first in every frame; two frames are too few to follow.
        expected = {(0, 1)} if len(rows) > 2 else {(0, 1), (2, 3)}
        assert {tuple(corpus.identities_of(row)) for row in rows} == expected
