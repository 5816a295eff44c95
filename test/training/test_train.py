from __future__ import annotations

import contextlib
from dataclasses import replace
import json
import os
from pathlib import Path
import signal
import subprocess
import sys
import time

import cv2
from masa_ros.models.tiny.network import TinyNetwork
from masa_ros.models.tiny.weights import load_network
from masa_ros.structures.settings import from_mapping
from masa_ros.training import tiny
from masa_ros.training import train as trainer
from masa_ros.training.config import load_config, OptimConfig, source_weights, TrainConfig
from masa_ros.training.dataset import PairDataset
from masa_ros.training.train import learning_rate_factor, train, TrainingDivergedError
from masa_ros.training.validation import validate
import numpy as np
import pytest
import torch
import yaml


def read(path: Path) -> dict[str, torch.Tensor]:
    stored = torch.load(path, weights_only=True)
    return {**{f'n.{k}': v for k, v in stored['network'].items()},
            **{f'a.{k}': v for k, v in stored['average'].items()}}


def assert_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_an_interrupted_run_ends_bit_for_bit_like_an_unbroken_one(
    config: TrainConfig, tmp_path: Path,
) -> None:
    whole = read(train(config))
    broken = replace(config, run=str(tmp_path / 'broken'))
    train(broken, stop_after=1)
    train(broken, stop_after=5)  # Past the switch to unblended photos.
    assert_equal(read(train(broken)), whole)


def test_training_changes_what_it_should_and_nothing_else(config: TrainConfig) -> None:
    torch.manual_seed(config.seed)
    before = TinyNetwork(config.network).state_dict()
    after = torch.load(train(config), weights_only=True)['network']
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert not [name for name in changed if name.startswith('backbone.')]
    for part in ('pyramid.top3', 'fusion.0.conv', 'proposal_head.boxes.0', 'mask_head.body',
                 'track_head.embed'):
        assert [name for name in changed if name.startswith(part)], part


def test_a_killed_process_continues(settings: dict[str, object], tmp_path: Path) -> None:
    settings |= {'steps': 400, 'checkpoint_s': 0.0, 'run': str(tmp_path / 'killed')}
    (tmp_path / 'run.yaml').write_text(yaml.safe_dump(settings))
    command = [sys.executable, '-m', 'masa_ros.training.train', str(tmp_path / 'run.yaml')]
    newest = tmp_path / 'killed/latest.pt'
    process = subprocess.Popen(command, env={**os.environ, 'OMP_NUM_THREADS': '1'})
    try:
        until = time.monotonic() + 120
        while not newest.is_file() and time.monotonic() < until:
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = torch.load(newest, weights_only=True)['step']
    assert 0 < done < 400
    config = from_mapping(TrainConfig, {**settings, 'steps': done + 2})
    assert torch.load(train(config), weights_only=True)['step'] == done + 2


def test_a_lost_number_stops_the_run_and_keeps_the_checkpoint(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = train(config, stop_after=2)
    kept = path.read_bytes()
    honest = trainer._losses
    monkeypatch.setattr(trainer, '_losses', lambda *arguments: {
        **honest(*arguments), 'mask': torch.tensor(float('nan'), requires_grad=True)})
    with pytest.raises(TrainingDivergedError, match=r'loss of step 2 .*samples 4 to 5'):
        train(config)
    assert path.read_bytes() == kept
    report = json.loads((path.parent / 'diverged.json').read_text())
    assert report['samples'] == [4, 5]
    assert report['losses']['mask'] == 'nan'


def test_other_settings_do_not_continue_a_run(config: TrainConfig) -> None:
    train(config, stop_after=1)
    with pytest.raises(ValueError, match=r'seed 3, now 4'):
        train(replace(config, seed=4))


def test_two_trainings_do_not_share_a_folder(config: TrainConfig) -> None:
    Path(config.run).mkdir(parents=True, exist_ok=True)
    holder = subprocess.Popen(
        [sys.executable, '-c', 'import fcntl, sys; file = open(sys.argv[1], "w"); '
         'fcntl.lockf(file, fcntl.LOCK_EX); print("held", flush=True); sys.stdin.read()',
         str(Path(config.run) / '.lock')], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == b'held\n'
        with pytest.raises(ValueError, match='another process trains in'):
            train(config)
    finally:
        holder.communicate()
    assert train(config).is_file()


def test_a_checkpoint_tells_its_recipe_and_data(config: TrainConfig) -> None:
    stored = torch.load(train(config, stop_after=1), weights_only=True)
    assert stored['config']['batch'] == 2
    assert stored['data']['images'] == [f'photo{i}.png' for i in range(4)]
    assert len(stored['data']['digest']) == 64


def test_a_checkpoint_loads_as_a_model(config: TrainConfig) -> None:
    network, weights = load_network(train(config, stop_after=1))
    assert network.config.channels == 16
    assert weights.trained


def test_validation_runs_at_the_end(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trainer, 'VALIDATION_PAIRS', 3)
    seen: list[dict[str, float]] = []
    honest = validate

    def watched(network: TinyNetwork, dataset: PairDataset) -> dict[str, float]:
        seen.append(honest(network, dataset))
        return seen[-1]

    monkeypatch.setattr(tiny, 'validate', watched)
    data = replace(config.data, validation=config.data.corpus)
    train(replace(config, data=data, steps=1))
    assert seen
    assert all(0 <= value <= 1 for value in seen[0].values())


def test_two_processes_share_a_batch(settings: dict[str, object], tmp_path: Path) -> None:
    settings |= {'steps': 3, 'views.mixup': 0.0}
    (tmp_path / 'run.yaml').write_text(yaml.safe_dump(settings))
    subprocess.run(
        [sys.executable, '-m', 'torch.distributed.run', '--nproc-per-node', '2',
         '--master-port', '29511', '-m', 'masa_ros.training.train', str(tmp_path / 'run.yaml')],
        check=True, timeout=240, env={**os.environ, 'OMP_NUM_THREADS': '1'})
    stored = torch.load(tmp_path / 'run/latest.pt', weights_only=True)
    assert stored['step'] == 3
    assert all(torch.isfinite(value).all() for value in stored['network'].values())


@pytest.mark.timeout(120)
def test_loading_processes_start_after_opencv_has_used_its_threads(config: TrainConfig) -> None:
    before = cv2.getNumThreads()
    cv2.setNumThreads(3)
    try:
        cv2.GaussianBlur(np.zeros((1500, 1500, 3), np.uint8), (31, 31), 0)
        train(replace(config, data=replace(config.data, workers=1)), stop_after=1)
        assert cv2.getNumThreads() == 3
    finally:
        cv2.setNumThreads(before)


def test_the_learning_rate_follows_its_schedule() -> None:
    config = TrainConfig(steps=120, optim=OptimConfig(warmup_steps=10, decay_part=0.5))
    assert learning_rate_factor(config, 0) == pytest.approx(0.1)
    assert learning_rate_factor(config, 30) == 1
    assert learning_rate_factor(config, 90) == pytest.approx(0.5)
    steps = replace(config, optim=replace(config.optim, schedule='step'))
    # The reference: a tenth after 8 of 12 epochs and again after 11.
    assert [learning_rate_factor(steps, step) for step in (79, 80, 110)] == pytest.approx(
        [1, 0.1, 0.01])


def test_weights_of_sources_are_checked() -> None:
    assert source_weights(('a=1.5', 'b=0'), []) == {'a': 1.5, 'b': 0}
    assert source_weights((), ['a', 'b', 'a']) == {'a': 2, 'b': 1}
    with pytest.raises(ValueError, match='not source=weight'):
        source_weights(('a',), [])


def test_shipped_recipes_load(root: Path) -> None:
    recipes = sorted((root / 'config').glob('train_*.yaml'))
    assert recipes
    for path in recipes:
        assert load_config(path, {'steps': 7}).steps == 7


def test_the_rate_grows_with_the_batch(config: TrainConfig) -> None:
    network = TinyNetwork(config.network)
    optim = replace(config.optim, learning_rate=0.04, rate_batch=128)
    optimizer = trainer._optimizer(network, replace(config, batch=32, optim=optim), set())
    assert optimizer.param_groups[0]['base_lr'] == pytest.approx(0.01)


@pytest.mark.slow
def test_two_killed_processes_end_bit_for_bit_like_an_unbroken_run(
    settings: dict[str, object], tmp_path: Path,
) -> None:
    settings |= {'steps': 12, 'checkpoint_s': 0.0}
    command = [sys.executable, '-m', 'torch.distributed.run', '--nproc-per-node', '2',
               '--master-port', '29517', '-m', 'masa_ros.training.train']
    environment = {**os.environ, 'OMP_NUM_THREADS': '1'}

    def start(name: str) -> tuple[subprocess.Popen[bytes], Path]:
        recipe = tmp_path / f'{name}.yaml'
        recipe.write_text(yaml.safe_dump({**settings, 'run': str(tmp_path / name)}))
        return subprocess.Popen([*command, str(recipe)], env=environment,
                                start_new_session=True), tmp_path / name / 'latest.pt'

    process, whole = start('whole')
    assert process.wait(timeout=240) == 0
    process, newest = start('killed')
    until = time.monotonic() + 240
    while not newest.is_file() and time.monotonic() < until:
        time.sleep(0.01)
    children = subprocess.run(['pgrep', '-P', str(process.pid)], capture_output=True, text=True,
                              check=False).stdout.split()
    for number in (process.pid, *map(int, children)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
    process.wait()
    done = torch.load(newest, weights_only=True)['step']
    assert 0 < done < 12
    process, _ = start('killed')
    assert process.wait(timeout=240) == 0
    assert_equal(read(newest), read(whole))
