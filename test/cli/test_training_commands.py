"""The commands train, propose, adapt and embed, as a user would call them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
from masa_ros.cli.embed import (
    embed_tracks,
    EmbeddedObjects,
    neighbour_sheet,
    retrieval_curve,
)
from masa_ros.cli.main import main
from masa_ros.cli.teacher import Teacher
from masa_ros.detectors.selection import ClassConfig
from masa_ros.models import ModelConfig
from masa_ros.models.tiny.network import TinyConfig, TinyNetwork
from masa_ros.models.tiny.weights import save_weights
from masa_ros.pipeline import PipelineConfig
from masa_ros.regions import RegionsConfig
from masa_ros.structures.frame import Frame
from masa_ros.structures.instances import Instances
from masa_ros.structures.masks import encode_crop
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


# --- settings: what holds for these commands, and what they refuse ------------------------------

RIGHT = '40,0 120,0 120,80 40,80'  # Columns from 40 on, of 120 x 80 pixels.


class Marks:
    """Stands in for a model: two objects, right and left of the middle, and given boxes."""

    name = 'tiny'
    can_propose = True

    def __init__(self) -> None:
        self.given: list[list[list[float]]] = []

    def run(self, images: Any, boxes: list[Instances | None]) -> list[Instances]:
        self.given += [given.boxes.tolist() for given in boxes if given is not None]
        own = Instances.from_boxes([[10, 0, 30, 8], [2, 2, 18, 9]]).with_fields(
            masks=(encode_crop(np.ones((8, 8), bool), 22, 0), None))
        return [own if given is None else given for given in boxes]


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Marks:
    model = Marks()
    monkeypatch.setattr('masa_ros.cli.teacher.build_model', lambda config: model)
    return model


def test_a_teacher_leaves_out_what_is_ignored_in_reduced_images_too(model: Marks) -> None:
    # In half the size columns from 20 on are ignored: the whole mask of the first object (half
    # of its box), nothing of the second. In full size they begin at 40, behind both.
    teacher = Teacher(PipelineConfig(regions=RegionsConfig(ignore_polygons=(RIGHT,))))
    half, full = np.zeros((40, 60, 3), np.uint8), np.zeros((80, 120, 3), np.uint8)
    assert teacher(half, (80, 120)).boxes.tolist() == [[2, 2, 18, 9]]
    assert len(teacher(full, (80, 120))) == 2


def test_a_teachers_detector_obeys_classes_and_regions(
    model: Marks, monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Detector:
        def detect(self, images: Any) -> list[Instances]:
            # Of their widths of 10 columns 5, 6 and 0 are ignored.
            boxes = [[15, 0, 25, 9], [16, 0, 26, 9], [0, 0, 10, 9]]
            return [Instances.from_boxes(boxes, [0.9] * 3, [5, 5, 7],
                                         ('bus', 'bus', 'person')) for _ in images]

    monkeypatch.setattr('masa_ros.cli.teacher.build_detector', lambda *_: Detector())
    classes = ClassConfig(ignore=('person',), rename=('truck=cart', 'bus=vehicle'))
    teacher = Teacher(PipelineConfig(
        classes=classes, regions=RegionsConfig(ignore_polygons=(RIGHT,))))
    found = teacher(np.zeros((40, 60, 3), np.uint8), (80, 120))
    assert model.given == [[[15, 0, 25, 9]]]  # The others never reach the model.
    # Numbers go by the settings, not by which class is seen first.
    assert (found.labels, found.class_ids.tolist()) == (('vehicle',), [10001])


@pytest.mark.parametrize('labels', [False, True])
def test_proposals_in_ignored_regions_are_not_written(
    model: Marks, tmp_path: Path, capsys: pytest.CaptureFixture[str], labels: bool,
) -> None:
    folder, maps = tmp_path / 'drive', tmp_path / 'maps'
    for place in (folder, maps):
        place.mkdir()
    cv2.imwrite(str(folder / '0.png'), np.full((80, 120, 3), 90, np.uint8))
    segments = np.zeros((80, 120), np.uint8)
    segments[:16, 44:60], segments[4:18, 4:36] = 1, 2
    cv2.imwrite(str(maps / '0.png'), segments)
    # Stored at half the size: the first object is right of column 20, or of 40 in the picture.
    command = ['propose', str(folder), '--out', str(tmp_path / 'x'), '--long-side', '60',
               *(['--segments', str(maps)] if labels else [])]
    assert main([*command, '--ignore', RIGHT]) == 0
    assert [item.boxes.tolist() for item in read_proposals(tmp_path / 'x')] == [[[2, 2, 18, 9]]]
    # What is there is not passed off as made with other settings.
    assert main(command) == 2
    assert 'was made with other settings (regions)' in capsys.readouterr().err
    assert main([*command, '--ignore', RIGHT]) == 0


def test_objects_in_ignored_regions_are_not_adapted_to(
    model: Marks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / 'drive'
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(30):  # Twice as large as adapt looks at them (512 pixels).
        noise = rng.integers(0, 256, (17, 32, 3)).astype(np.uint8)
        cv2.imwrite(str(folder / f'{i:02d}.png'), noise.repeat(32, 0).repeat(32, 1))
    monkeypatch.setattr('masa_ros.training.adapt.load_network', stop)
    assert main(['adapt', str(folder), '--out', str(tmp_path / 'out'), '--ignore',
                 '40,0 1024,0 1024,544 40,544']) == 2
    for part in ('learned', 'judged'):
        corpus = Corpus(tmp_path / 'out' / part)
        assert len(corpus)
        assert all(corpus[row].boxes.tolist() == [[2, 2, 18, 9]] for row in range(len(corpus)))


def stop(*_: object) -> None:
    raise ValueError('far enough')


@pytest.mark.parametrize(('command', 'words', 'message'), [
    ('propose', ['--set', 'tracker.match_score=0.7'],
     'propose without a detector has no use for tracker.match_score'),
    ('propose', ['--set', 'classes.keep=[car]'], 'without a detector has no use for classes.keep'),
    ('propose', ['--segments', '.', '--text', 'car'],
     'propose with --segments or --coco has no use for detector.text'),
    ('adapt', ['--set', 'policy=every'], 'adapt without a detector has no use for policy'),
    ('adapt', ['--set', 'prompts.max_objects=3'], 'has no use for prompts.max_objects'),
    ('adapt', ['--topics', '/image:/boxes'], 'expected image topics alone'),
    ('propose', ['--ignore', 'none.png'], 'regions.ignore_image: none.png is not there'),
    ('embed', ['--set', 'classes.keep=[car]'],
     'embed without given boxes or a detector has no use for classes.keep'),
    ('embed', ['--set', 'tracker.camera_motion=odometry'], 'odometry is for bags'),
    ('embed', ['--model', 'classical'], 'nothing says where the objects are')])
def test_settings_of_no_use_are_refused(
    photos: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    command: str, words: list[str], message: str,
) -> None:
    known = [] if '--model' in words or '--segments' in words else ['--checkpoint', str(weights)]
    assert main([command, str(photos), '--out', str(tmp_path / 'x'), *known, *words]) == 2
    assert message in capsys.readouterr().err


def test_a_shared_settings_file_is_told_what_is_of_no_use(
    model: Marks, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[str] = []

    def build(config: ModelConfig) -> Marks:
        seen.append(config.name)
        return model

    monkeypatch.setattr('masa_ros.cli.teacher.build_model', build)
    file = tmp_path / 'robot.yaml'
    # The queue's size is the default, which asks for nothing.
    file.write_text('policy: every\nqueue_size: 20\nmodel: {name: sam_vit_b, max_masks: 7}\n')
    main(['propose', str(photos / '0.jpg'), '--out', str(tmp_path / 'x'), '--config', str(file)])
    assert 'has no use for these settings of ' + str(file) + ': policy\n' in \
        capsys.readouterr().out
    assert seen == ['sam_vit_b']


def test_true_boxes_in_ignored_regions_are_not_embedded(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / 'seq'
    for part in ('img1', 'gt'):
        (folder / part).mkdir(parents=True)
    for i in (1, 2):
        cv2.imwrite(str(folder / f'img1/{i:06d}.jpg'), np.full((80, 120, 3), 90, np.uint8))
    (folder / 'gt/gt.txt').write_text(''.join(
        f'{i},{track},{x},10,20,20,1,1,1\n' for i in (1, 2) for track, x in ((3, 5), (4, 80))))
    monkeypatch.setattr('masa_ros.cli.embed.retrieval_curve', objects := Taken())
    command = ['embed', str(folder), '--out', str(tmp_path / 'e'), '--checkpoint', str(weights)]
    assert main([*command, '--ignore', RIGHT]) == 2
    assert objects.identities == [3, 3]
    assert '2 of 4 boxes of the truth are in ignored regions' in capsys.readouterr().out
    assert main([*command, '--set', 'tracker.match_score=0.7']) == 2
    assert 'boxes of the ground truth has no use for tracker.match' in capsys.readouterr().err


class Taken:
    """Keeps the identities that would be drawn."""

    def __call__(self, objects: EmbeddedObjects) -> None:
        self.identities = objects.identities.tolist()
        raise ValueError('far enough')


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
        has_detections = False

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
