"""The reference trackers' ids on recorded scenes, under every recorded configuration."""

from __future__ import annotations

from collections.abc import Iterator
import json
from pathlib import Path

from masa_ros.structures.instances import Instances, TrackedInstances
from masa_ros.tracking.presets import PRESETS
from masa_ros.tracking.tracker import Tracker, TrackerConfig
import numpy as np
import pytest

pytestmark = pytest.mark.data


def frames(scene: dict[str, np.ndarray]) -> Iterator[tuple[int, Instances]]:
    """Frames of a scene; the mask quality carries the row, to see which one came out."""
    end = 0
    for frame_index, count in zip(scene['frame_id'], scene['count'], strict=True):
        rows = slice(end, end + count)
        end += count
        yield int(frame_index), Instances.from_boxes(
            scene['boxes'][rows], scene['scores'][rows], scene['labels'][rows]).with_fields(
                embeddings=scene['embeds'][rows].astype(np.float32),
                mask_qualities=np.arange(count, dtype=np.float32))


def run(scene: dict[str, np.ndarray], name: str) -> tuple[Tracker, list[TrackedInstances]]:
    tracker = Tracker(TrackerConfig.preset(name))
    return tracker, [
        tracker.update(instances, index, index * 33_000_000 + 1, (720, 1280))
        for index, instances in frames(scene)]


@pytest.fixture(scope='module', params=['a', 'c'])
def scene(request: pytest.FixtureRequest, golden: Path) -> dict[str, np.ndarray]:
    return dict(np.load(golden / f'tracker_scene_{request.param}.npz'))


def test_every_recorded_configuration_has_a_preset(scene: dict[str, np.ndarray]) -> None:
    assert set(json.loads(str(scene['config_json']))) == set(PRESETS)


@pytest.mark.parametrize('name', sorted(PRESETS))
def test_preset_gives_the_ids_of_the_reference(scene: dict[str, np.ndarray], name: str) -> None:
    _, results = run(scene, name)
    assert [len(tracks) for tracks in results] == scene[f'{name}.out_count'].tolist()
    ids = np.concatenate([tracks.track_ids for tracks in results])
    rows = np.concatenate([tracks.mask_qualities for tracks in results])
    np.testing.assert_array_equal(ids - 1, scene[f'{name}.out_id'])
    np.testing.assert_array_equal(rows, scene[f'{name}.out_index'])


@pytest.mark.parametrize('name', sorted(PRESETS))
def test_preset_ends_with_the_memory_of_the_reference(
    scene: dict[str, np.ndarray], name: str,
) -> None:
    tracker, _ = run(scene, name)
    state = tracker.state()
    np.testing.assert_array_equal(state['ids'] - 1, scene[f'{name}.mem_id'])
    np.testing.assert_array_equal(state['last_frame'], scene[f'{name}.mem_last'])
    np.testing.assert_allclose(
        state['embeddings'][:, :32], scene[f'{name}.mem_embed'], rtol=1e-5, atol=1e-6)
    assert state['next_id'] - 1 == scene[f'{name}.num_tracks']


def test_reference_revives_a_track_after_a_pause_and_a_named_option_mends_it(
    golden: Path,
) -> None:
    # Scene c is empty in frames 18 to 30 and tao_demo remembers 10 frames: reference fact 5.
    scene = dict(np.load(golden / 'tracker_scene_c.npz'))
    _, before = run(scene, 'tao_demo')
    tracker = Tracker(TrackerConfig.preset('tao_demo', expire_before_matching=True))
    after = [tracker.update(instances, index, index * 33_000_000 + 1, (720, 1280))
             for index, instances in frames(scene)]
    pause = int(np.flatnonzero(scene['frame_id'] == 31)[0])
    old = set(np.concatenate([tracks.track_ids for tracks in before[:pause]]).tolist())
    assert old & set(before[pause].track_ids.tolist())
    assert not old & set(after[pause].track_ids.tolist())
