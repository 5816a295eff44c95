"""The commands train, propose, adapt and embed, as a user would call them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import cv2
from masa_ros.cli.embed import (
    embed_tracks,
    EmbeddedObjects,
    neighbour_sheet,
    retrieval_curve,
)
from masa_ros.cli.main import main
from masa_ros.models.tiny.network import TinyConfig, TinyNetwork
from masa_ros.models.tiny.weights import save_weights
from masa_ros.structures.frame import Frame
from masa_ros.training import train as trainer
from masa_ros.training.config import TrainConfig
from masa_ros.training.corpus import Corpus
from masa_ros.training.proposals import read_proposals
import numpy as np
from PIL import Image
import pytest
import torch
import yaml


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_weights(tmp_path / 'small.pt', TinyNetwork(TinyConfig(channels=16, embedding_size=8)), {})
    return tmp_path / 'small.pt'


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder as people have them: ordinary, tiny, long, grey, deep, print, damaged, empty."""
    folder = tmp_path / 'photos'
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(4):
        cv2.imwrite(str(folder / f'{i}.jpg'), rng.integers(0, 256, (70, 90, 3)).astype(np.uint8))
    cv2.imwrite(str(folder / 'grey.png'), np.full((50, 60), 90, np.uint8))
    cv2.imwrite(str(folder / 'deep.png'), np.full((50, 60, 3), 40000, np.uint16))
    Image.new('CMYK', (80, 60), (10, 90, 200, 20)).save(folder / 'print.jpg')
    cv2.imwrite(str(folder / 'long.png'), rng.integers(0, 256, (3, 9000, 3)).astype(np.uint8))
    cv2.imwrite(str(folder / 'one.png'), np.full((1, 1, 3), 9, np.uint8))
    (folder / 'bad.jpg').write_bytes(b'\xff\xd8\xff no')
    (folder / 'empty.png').write_bytes(b'')
    return folder


def test_everything_readable_is_marked_and_the_rest_listed(
    photos: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    command = ['propose', str(photos), '--out', str(tmp_path / 'shards'), '--checkpoint',
               str(weights), '--shard-images', '3', '--set', 'model.proposal_score=0.0',
               '--set', 'model.max_proposals=5']
    assert main(command) == 1
    text = capsys.readouterr().out
    assert 'skipped photos/bad.jpg' in text
    assert 'skipped photos/empty.png' in text
    assert '9 images' in text
    assert len(list(read_proposals(tmp_path / 'shards'))) == 9
    assert main(command) == 1  # Nothing is done twice, the list is the same.
    assert 'skipped photos/bad.jpg' in capsys.readouterr().out


def test_a_model_that_finds_nothing_cannot_mark(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(['propose', str(photos), '--out', str(tmp_path / 'x'),
                 '--model', 'classical']) == 2
    assert 'finds nothing by itself' in capsys.readouterr().err


def test_labels_of_files_need_no_model(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    maps = tmp_path / 'maps'
    maps.mkdir()
    for i in range(4):
        segments = np.zeros((70, 90), np.uint8)
        segments[10:30, 10:30] = i + 1
        cv2.imwrite(str(maps / f'{i}.png'), segments)
    assert main(['propose', str(photos), '--out', str(tmp_path / 'x'),
                 '--segments', str(maps)]) == 1
    items = list(read_proposals(tmp_path / 'x'))
    assert [item.boxes.tolist() for item in items] == [[[10, 10, 30, 30]]] * 4
    assert 'skipped photos/grey.png: its segment map' in capsys.readouterr().out


def test_a_folder_is_marked_and_trained_on(
    photos: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / 'run'
    command = ['train', str(photos), '--out', str(out), 'steps=2', 'batch=2', 'views.size=64',
               'data.workers=0', 'network.channels=16', 'network.embedding_size=8',
               f'initial_weights={weights}', 'precision=float32']
    assert main(command) == 0
    assert 'skipped photos/bad.jpg' in capsys.readouterr().out
    assert torch.load(out / 'latest.pt', weights_only=True)['step'] == 2
    assert main([*command, 'loss.contrast=other']) == 2


def test_a_variant_is_trained_on_a_folder(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    seen: list[TrainConfig] = []

    def pretend(config: TrainConfig) -> Path:
        seen.append(config)
        return Path(config.run) / 'latest.pt'

    monkeypatch.setattr(trainer, 'train', pretend)
    out = tmp_path / 'run'
    maps = tmp_path / 'shards'
    segments = tmp_path / 'maps'
    segments.mkdir()
    cv2.imwrite(str(segments / '0.png'), np.ones((70, 90), np.uint8))
    main(['propose', str(photos), '--out', str(maps), '--segments', str(segments)])
    assert main(['train', str(maps), '--out', str(out), 'model=masa_r50', 'steps=7']) == 0
    assert 'model.adapter_checkpoint=' in capsys.readouterr().out
    # The paper's settings, not those of tiny.
    assert (seen[0].model, seen[0].steps, seen[0].optim.optimizer) == ('masa_r50', 7, 'sgd')
    assert seen[0].views.large_scale
    assert 'bytes' in Corpus(out / 'corpus').records[0]


def test_a_recipe_is_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from masa_ros.structures.masks import encode_plane
    from masa_ros.training.corpus import write_corpus
    from masa_ros.training.labels import labelled

    mask = np.zeros((64, 64), bool)
    mask[20:40, 20:40] = True
    write_corpus(tmp_path / 'corpus', [labelled(
        'a', 's', np.zeros((64, 64, 3), np.uint8), [encode_plane(mask)], [0], True)])
    (tmp_path / 'recipe.yaml').write_text(yaml.safe_dump({
        'run': str(tmp_path / 'run'), 'batch': 1, 'validate_every': 0, 'precision': 'float32',
        'data': {'corpus': str(tmp_path / 'corpus'), 'workers': 0},
        'network': {'channels': 16, 'embedding_size': 8}, 'views': {'size': 64}}))
    assert main(['train', str(tmp_path / 'recipe.yaml'), 'steps=2']) == 0
    assert 'latest.pt' in capsys.readouterr().out
    assert main(['train', str(tmp_path / 'recipe.yaml'), 'speed=2']) == 2
    assert "unknown setting 'speed'" in capsys.readouterr().err
    assert main(['train', str(tmp_path / 'none.yaml')]) == 2
    assert main(['train', str(tmp_path / 'none')]) == 2


def test_adapting_refuses_other_models_and_used_folders(
    photos: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    out = str(tmp_path / 'out')
    assert main(['adapt', str(photos), '--out', out, '--model', 'classical']) == 2
    assert 'no track head to adapt' in capsys.readouterr().err
    assert main(['adapt', str(photos / 'grey.png'), '--out', out,
                 '--checkpoint', str(weights)]) == 2
    assert 'has 1 different frames' in capsys.readouterr().err
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out/latest.pt').write_bytes(b'')
    assert main(['adapt', str(photos), '--out', out, '--checkpoint', str(weights)]) == 2
    assert 'earlier run' in capsys.readouterr().err


def walkers(count: int = 12) -> EmbeddedObjects:
    """Two objects in every frame whose embeddings never change."""
    frames = np.repeat(np.arange(count), 2)
    identities = np.tile([1, 2], count)
    return EmbeddedObjects(frames, identities, np.eye(2, dtype=np.float32)[identities - 1],
                           np.zeros((2 * count, 72, 72, 3), np.uint8))


def test_perfect_embeddings_find_themselves() -> None:
    assert [(gap, found) for gap, found, _ in retrieval_curve(walkers())] == [
        (1, 1.0), (2, 1.0), (5, 1.0), (10, 1.0)]
    swapped = walkers()
    swapped.embeddings[swapped.frames % 2 == 1] = swapped.embeddings[
        swapped.frames % 2 == 1][:, ::-1]
    assert retrieval_curve(swapped)[0][1] == 0
    assert retrieval_curve(swapped)[1][1] == 1


def test_the_sheet_marks_right_and_wrong() -> None:
    sheet = neighbour_sheet(walkers())
    assert (sheet == (0, 190, 0)).all(2).any()
    assert (sheet == (220, 0, 0)).all(2).any()


class TwoTracks:
    """Stands in for a pipeline: object 7 is seen always, object 9 only predicted."""

    def process(self, frame: Frame, detections: object = None) -> SimpleNamespace:
        return SimpleNamespace(tracks=SimpleNamespace(
            seen=np.array([True, False]), track_ids=np.array([7, 9]),
            boxes=np.array([[0, 0, 8, 8], [4, 4, 8, 8]], np.float32),
            embeddings=np.eye(2, dtype=np.float32)))


def test_a_recording_without_truth_is_embedded_by_its_tracks() -> None:
    frames = [SimpleNamespace(frame=Frame(np.zeros((20, 30, 3), np.uint8), i, i, stream),
                              detections=None)
              for i in range(6) for stream in ('left', 'right')]

    class Recording(list[SimpleNamespace]):
        streams = ('left', 'right')

    objects = embed_tracks(Recording(frames), TwoTracks(), 4)  # type: ignore[arg-type]
    assert objects.frames.tolist() == [0, 1, 2, 3]
    assert set(objects.identities.tolist()) == {7}


def test_nothing_to_embed_is_refused() -> None:
    with pytest.raises(ValueError, match='no object'):
        EmbeddedObjects(np.zeros(0, np.int64), np.zeros(0, np.int64),
                        np.zeros((0, 2), np.float32), np.zeros((0, 72, 72, 3), np.uint8))


@pytest.mark.data
@pytest.mark.slow
def test_pictures_of_a_sequence(shared: Path, weights: Path, tmp_path: Path) -> None:
    pytest.importorskip('sklearn')
    sequence = shared / 'data/sequences/TUD-Campus'
    assert main(['embed', str(sequence), '--out', str(tmp_path / 'e'), '--checkpoint',
                 str(weights)]) == 0
    assert {path.name for path in (tmp_path / 'e').iterdir()} == {
        'tsne.png', 'retrieval.png', 'retrieval.csv', 'neighbours.png'}
