"""
The trainer, from top to bottom: data, network, optimizer, loop, checkpoints.

One process or several: ``torchrun --nproc-per-node 2 -m masa_ros.training.train FILE`` uses
DistributedDataParallel over gloo on CPUs and nccl on GPUs. Sample ``i`` of a run depends on its
seed and on ``i`` alone, so a run that was killed continues as if nothing had happened.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import copy
from dataclasses import replace
from datetime import timedelta
import fcntl
import json
import logging
import math
import os
from pathlib import Path
import time
from typing import Any

from masa_ros.structures.settings import flatten, from_mapping
from masa_ros.training.config import source_weights, TrainConfig
from masa_ros.training.corpus import Corpus
from masa_ros.training.dataset import Batch, collate, PairDataset, ViewSample
from masa_ros.training.trainable import build_trainable, Step, Trainable
import torch
from torch import distributed, nn, Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Sampler
from torch.utils.tensorboard import SummaryWriter

log = logging.getLogger(__name__)

VALIDATION_PAIRS = 64
VALIDATION_SEED = 7
LOG_EVERY = 20


class TrainingDivergedError(RuntimeError):
    """The loss or the gradient is not a number any more; the run's report says where."""


def train(config: TrainConfig, stop_after: int | None = None) -> Path:
    """
    Train, or continue a run that was interrupted.

    Parameters
    ----------
    config : TrainConfig
        The whole recipe. A run folder that holds a checkpoint is continued; its settings must
        be the same except for ``steps``, the places of files and how often things are saved.
    stop_after : int, optional
        Save and return when this many steps are done, as if killed there.

    Returns
    -------
    Path
        The newest checkpoint.

    Raises
    ------
    TrainingDivergedError
        If loss or gradient stop being finite. The checkpoint before it stays as it was.
    ValueError
        If the run folder was made with other settings, or another process trains in it.

    """
    run = Path(config.run)
    run.mkdir(parents=True, exist_ok=True)
    if int(os.environ.get('RANK', '0')):
        return _train(config, stop_after)
    # The system takes this kind of lock back however the process ends, and loading processes that
    # outlive it by seconds do not inherit it.
    with (run / '.lock').open('w') as lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise ValueError(f'another process trains in {run}; wait for it or choose another '
                             'folder') from error
        except OSError:  # Disks of other machines may know no locks.
            log.info('%s cannot be locked; start no second training in it', run)
        return _train(config, stop_after)


def _train(config: TrainConfig, stop_after: int | None) -> Path:
    """Train as one of the processes of a run."""
    rank, world, device = join_processes()
    torch.manual_seed(config.seed)
    run = Path(config.run)
    if config.batch % world:
        raise ValueError(f'{world} processes cannot share a batch of {config.batch} photos '
                         'evenly; choose a multiple')

    # Data: an endless list of pairs, of which this process takes every world-th.
    corpus = Corpus(config.data.corpus)
    total = config.steps * config.batch
    dataset = _pairs(config, corpus, config.seed, total)
    clean = _pairs(replace(config, views=replace(config.views, mixup=0.0)), corpus, config.seed,
                   total)
    held_out = None
    if config.data.validation:
        held_out = _validation_pairs(config)

    # Network, its moving average, and what moves it.
    trainable = build_trainable(config)
    network = trainable.network
    for name, parameter in network.named_parameters():
        if name.startswith(config.optim.frozen):
            parameter.requires_grad_(False)
    if world > 1 and device.type == 'cuda':
        network = nn.SyncBatchNorm.convert_sync_batchnorm(  # type: ignore[no-untyped-call]
            network)
    trainable.to(device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = copy.deepcopy(network).requires_grad_(False)
    optimizer = _optimizer(network, config, trainable.slow)
    if config.data.cached_pairs:
        kept = _pairs(config, corpus, config.seed, config.data.cached_pairs)
        clean = dataset = trainable.cached(kept, run / 'features', rank == 0)
        dataset.length = total
    step = 0
    newest = run / 'latest.pt'
    if newest.is_file():
        step = _restore(newest, config, network, average, optimizer)
        log.info('continuing %s after step %d', run, step)
    wrapped: nn.Module = network if world == 1 else DistributedDataParallel(network)
    board = SummaryWriter(str(run), purge_step=step) if rank == 0 else None

    saved_at = started = time.monotonic()
    begun = step
    end = config.steps if stop_after is None else min(stop_after, config.steps)
    for batch in _batches(dataset, clean, config, step, end, rank, world):
        for group in optimizer.param_groups:
            group['lr'] = group['base_lr'] * learning_rate_factor(config, step)

        network.train()
        losses = _losses(trainable, wrapped, batch, config, step, device)
        loss = torch.stack(list(losses.values())).sum()
        _require_finite(loss, 'loss', losses, step, run, config)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(network.parameters(), config.optim.clip_norm)
        _require_finite(norm, 'gradient norm', losses, step, run, config)
        optimizer.step()
        _follow(average, network, min(config.optim.ema, (1 + step) / (10 + step)))
        step += 1

        if board is not None and step % LOG_EVERY == 0:
            values = {name: float(part.detach()) for name, part in losses.items()}
            for name, value in {**values, 'total': sum(values.values())}.items():
                board.add_scalar(f'loss/{name}', value, step)
            board.add_scalar('optimizer/gradient_norm', float(norm), step)
            board.add_scalar('optimizer/learning_rate', optimizer.param_groups[0]['lr'], step)
            log.info('step %d of %d: %s; %s left', step, config.steps, ', '.join(
                f'{name} {value:.3f}' for name, value in values.items()),
                _left(started, step - begun, config.steps - step))
        last = step == end
        due = config.validate_every and step % config.validate_every == 0
        if rank == 0 and held_out is not None and (due or step == config.steps):
            scores = trainable.validate(average, held_out)
            log.info('step %d validation: %s', step, scores)
            for name, score in scores.items():
                if board is not None:
                    board.add_scalar(f'validation/{name}', score, step)
        if rank == 0 and (last or time.monotonic() - saved_at > config.checkpoint_s):
            save_checkpoint(newest, config, corpus, network, average, optimizer, step)
            saved_at = time.monotonic()
    if board is not None:
        board.close()
        if step == config.steps:
            trainable.export(average, run)
    if world > 1:
        distributed.barrier()
    return newest


def _left(started: float, done: int, rest: int) -> str:
    """Time that the rest of the steps will take at the pace so far."""
    seconds = round((time.monotonic() - started) * rest / max(done, 1))
    return f'{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}'


def learning_rate_factor(config: TrainConfig, step: int) -> float:
    """Part of the full learning rate that step ``step``, from 0, uses."""
    warm = min(1.0, (step + 1) / max(config.optim.warmup_steps, 1))
    done = step / config.steps
    if config.optim.schedule == 'step':
        return warm * 0.1 ** ((done >= 8 / 12) + (done >= 11 / 12))
    if config.optim.decay_part == 0:
        return warm
    return warm * min(1.0, (1 - done) / config.optim.decay_part)


def save_checkpoint(
    path: Path, config: TrainConfig, corpus: Corpus, network: nn.Module, average: nn.Module,
    optimizer: torch.optim.Optimizer, step: int,
) -> None:
    """Write everything needed to go on; a kill while writing leaves the old file in place."""
    scratch = path.with_suffix('.writing')
    torch.save({
        'step': step, 'config': flatten(config),
        'data': {'digest': corpus.digest(),
                 'images': [str(record['name']) for record in corpus.records]},
        'network': network.state_dict(), 'average': average.state_dict(),
        'optimizer': optimizer.state_dict()}, scratch)
    scratch.replace(path)


def main(arguments: list[str] | None = None) -> None:
    """Train from a config file; further arguments are ``name=value`` settings."""
    import argparse

    from masa_ros.training.config import load_config
    import yaml

    parser = argparse.ArgumentParser(prog='python -m masa_ros.training.train')
    parser.add_argument('config', help='YAML file of a training run')
    parser.add_argument('settings', nargs='*', help='name=value, such as steps=1000')
    options = parser.parse_args(arguments)
    overrides = {}
    for entry in options.settings:
        name, sign, value = entry.partition('=')
        if not sign:
            parser.error(f'{entry!r} is not name=value')
        overrides[name] = yaml.safe_load(value)
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s')
    print(train(load_config(options.config, overrides)))
    if distributed.is_initialized():
        distributed.destroy_process_group()


def join_processes() -> tuple[int, int, torch.device]:
    """Give rank, number of processes and device; joins the group that torchrun started."""
    world = int(os.environ.get('WORLD_SIZE', '1'))
    cuda = torch.cuda.is_available()
    if world > 1 and not distributed.is_initialized():
        # The first process may take long over a validation or a corpus.
        distributed.init_process_group(
            'nccl' if cuda else 'gloo', timeout=timedelta(hours=6))
    rank = distributed.get_rank() if world > 1 else 0
    local = int(os.environ.get('LOCAL_RANK', '0'))
    if cuda:
        torch.cuda.set_device(local)
    return rank, world, torch.device('cuda', local) if cuda else torch.device('cpu')


def _pairs(config: TrainConfig, corpus: Corpus, seed: int, length: int) -> PairDataset:
    """Pairs of views under the settings of a run."""
    sources = corpus.sources()
    return PairDataset(
        corpus, source_weights(config.data.sources, sources),
        source_weights(config.data.cutouts, sources), config.views, config.pairs, seed, length)


def _validation_pairs(config: TrainConfig) -> PairDataset:
    """Draw fixed pairs of held-out photos; a source counts by its number of photos."""
    held_out = replace(
        config, data=replace(config.data, sources=(), cutouts=()),
        views=replace(config.views, mixup=0.0))
    return _pairs(held_out, Corpus(config.data.validation), VALIDATION_SEED, VALIDATION_PAIRS)


class _Range(Sampler[int]):
    """Indices of the samples of one process from one step to another."""

    def __init__(self, indices: list[int]) -> None:
        self.indices = indices

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)


def _batches(
    dataset: PairDataset, clean: PairDataset, config: TrainConfig, start: int, end: int,
    rank: int, world: int,
) -> Iterator[Batch]:
    """Batches of steps ``start`` to ``end``; the last part of a run has no blended photos."""
    share = config.batch // world
    switch = round(config.steps * (1 - config.mixup_off_part))
    for source, first, last in ((dataset, start, min(end, switch)),
                                (clean, max(start, switch), end)):
        if first >= last:
            continue
        indices = [step * config.batch + rank * share + i
                   for step in range(first, last) for i in range(share)]
        loader: DataLoader[tuple[ViewSample, ViewSample]] = DataLoader(
            source, share, sampler=_Range(indices), collate_fn=collate,
            num_workers=config.data.workers, worker_init_fn=_quiet_worker)
        with _one_opencv_thread():
            yield from loader


@contextlib.contextmanager
def _one_opencv_thread() -> Iterator[None]:
    """
    Let OpenCV work in one thread, here and in the processes that are forked meanwhile.

    A forked process has none of the threads of its parent's OpenCV, but believes that it has, and
    waits for them for ever as soon as it uses them or tries to end them.
    """
    import cv2

    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def _quiet_worker(_: int) -> None:
    """Keep a loading process to one thread; its work is many small calls."""
    torch.set_num_threads(1)


def _losses(
    trainable: Trainable, network: nn.Module, batch: Batch, config: TrainConfig, step: int,
    device: torch.device,
) -> dict[str, Tensor]:
    """Weighted losses of one batch; random choices follow from run, step and process."""
    rank = distributed.get_rank() if distributed.is_initialized() else 0
    generator = torch.Generator()
    generator.manual_seed((config.seed * 1_000_003 + step) * 4096 + rank)
    return trainable.losses(network, batch, Step(device, generator))


def _optimizer(
    network: nn.Module, config: TrainConfig, pretrained: set[str],
) -> torch.optim.Optimizer:
    """Optimizer with a lower rate for what was learned before, no decay for biases."""
    settings = config.optim
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((name in pretrained, parameter.ndim > 1), []).append(parameter)
    described: list[dict[str, Any]] = []
    for (slow, decays), parameters in sorted(groups.items(), key=lambda item: item[0]):
        rate = settings.learning_rate * (settings.pretrained_factor if slow else 1)
        rate *= config.batch / settings.rate_batch if settings.rate_batch else 1
        described.append({
            'params': parameters, 'lr': rate, 'base_lr': rate,
            'weight_decay': settings.weight_decay if decays else 0.0})
    if not described:
        raise ValueError(f'every parameter is frozen by {settings.frozen}; nothing to train')
    if settings.optimizer == 'sgd':
        return torch.optim.SGD(described, momentum=settings.momentum)
    return torch.optim.AdamW(described)


def _restore(
    path: Path, config: TrainConfig, network: nn.Module, average: nn.Module,
    optimizer: torch.optim.Optimizer,
) -> int:
    """Load a checkpoint of the same run; returns the steps done."""
    stored = torch.load(path, map_location='cpu', weights_only=True)
    free = {'run', 'steps', 'checkpoint_s', 'validate_every', 'initial_weights',
            'backbone_weights',
            'data.validation', 'data.corpus', 'data.workers'}
    before, now = stored['config'], flatten(config)
    # A setting that an older checkpoint does not know had no effect on it.
    changed = [name for name in now if name not in free and name in before
               and _plain(now[name]) != _plain(before[name])]
    if changed:
        raise ValueError(
            f'{path} was made with other settings: ' + ', '.join(
                f'{name} {before.get(name)!r}, now {now[name]!r}' for name in changed)
            + '; take another run folder, or start from this file with initial_weights')
    from_mapping(TrainConfig, before, str(path))
    network.load_state_dict(stored['network'])
    average.load_state_dict(stored['average'])
    optimizer.load_state_dict(stored['optimizer'])
    return int(stored['step'])


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


@torch.no_grad()
def _follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the averaged weights towards the current ones."""
    for kept, current in zip(average.parameters(), network.parameters(), strict=True):
        if current.requires_grad:
            kept.lerp_(current, 1 - decay)
    for mean, now in zip(average.buffers(), network.buffers(), strict=True):
        mean.copy_(now)  # Statistics of batches are averages already.


def _require_finite(
    value: Tensor, what: str, losses: dict[str, Tensor], step: int, run: Path,
    config: TrainConfig,
) -> None:
    """Stop with a report when a number is lost."""
    number = float(value.detach())
    if math.isfinite(number):
        return
    report = run / 'diverged.json'
    first = step * config.batch
    parts = {name: repr(float(part.detach())) for name, part in losses.items()}
    with contextlib.suppress(OSError):
        report.write_text(json.dumps({
            'step': step, 'what': what, 'value': repr(number), 'losses': parts,
            'samples': [first, first + config.batch - 1], 'seed': config.seed}, indent=2))
    raise TrainingDivergedError(
        f'the {what} of step {step} is {number} (losses {parts}); samples {first} to '
        f'{first + config.batch - 1} are in it. The last checkpoint is untouched; lower '
        f'optim.learning_rate or look at these samples. Written to {report}')


if __name__ == '__main__':
    main()
