"""Pooled features kept on disk, for training that moves nothing before them."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

from masa_ros.training.dataset import collate, PairDataset, ViewSample
import numpy as np
from numpy.typing import NDArray
import torch

log = logging.getLogger(__name__)


class CachedPairs(PairDataset):
    """
    Pairs drawn once, with the features of their boxes; an endless run shuffles them.

    Parameters
    ----------
    dataset : PairDataset
        Its first pairs are kept; settings and length are taken over.
    folder : Path
        With ``features.npy`` and ``samples.npz``.

    """

    def __init__(self, dataset: PairDataset, folder: Path) -> None:
        self.seed, self.length = dataset.seed, dataset.length
        self._features = np.load(folder / 'features.npy', mmap_mode='r')
        with np.load(folder / 'samples.npz') as arrays:
            self._boxes, self._identities = arrays['boxes'], arrays['identities']
            self._first, self._recording_of = arrays['first'], arrays['recordings']
        self.pairs_kept = (len(self._first) - 1) // 2

    def __getitem__(self, index: int) -> tuple[ViewSample, ViewSample]:
        turn, place = divmod(index, self.pairs_kept)
        order = np.random.default_rng((self.seed, turn)).permutation(self.pairs_kept)
        first = 2 * int(order[place])
        return self._view(first), self._view(first + 1)

    def _view(self, number: int) -> ViewSample:
        rows = slice(self._first[number], self._first[number + 1])
        boxes: NDArray[np.float32] = self._boxes[rows]
        nothing = np.zeros((0, 4), np.float32)
        return ViewSample(
            np.zeros((1, 1, 3), np.uint8), boxes, boxes, self._identities[rows], nothing,
            np.zeros((0, 8, 8), np.uint8), False, np.array(self._features[rows]),
            int(self._recording_of[number // 2]))


def cache_features(
    dataset: PairDataset, student: Any, folder: Path, main: bool, pairs: int = 0,
) -> CachedPairs:
    """
    Compute the features of a data set's first pairs, or find those of an earlier start.

    Parameters
    ----------
    dataset : PairDataset
        Pairs to draw.
    student : MasaStudent
        Encoder, adapter and pooling.
    folder : Path
        Where they are kept.
    main : bool
        Whether this process makes them; others must come when they are there.
    pairs : int
        How many; all of the data set when 0.

    """
    from masa_ros.training.masa import MasaStudent

    assert isinstance(student, MasaStudent)
    count = pairs or len(dataset)
    ready = folder / 'ready.json'
    note = {'pairs': count, 'seed': dataset.seed, 'form': 2}
    if main and not (ready.is_file() and json.loads(ready.read_text()) == note):
        folder.mkdir(parents=True, exist_ok=True)
        _write(dataset, student, folder, count)
        scratch = ready.with_suffix('.writing')
        scratch.write_text(json.dumps(note))
        os.replace(scratch, ready)
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
    return CachedPairs(dataset, folder)


@torch.no_grad()
def _write(dataset: PairDataset, student: Any, folder: Path, count: int) -> None:
    """Encode pair after pair."""
    student.eval()
    device = next(student.parameters()).device
    features, boxes, identities, recordings, first = [], [], [], [], [0]
    for index in range(count):
        batch = collate([dataset[index]]).to(device)
        levels, scale = student.pyramid(batch.images.float())
        rois = torch.cat([batch.track_rois[:, :1], batch.track_rois[:, 1:] * scale], 1)
        features.append(student.pooled(levels, rois).half().cpu().numpy())
        boxes.append(batch.track_rois[:, 1:].cpu().numpy())
        identities.append(batch.identities.cpu().numpy())
        recordings.append(batch.recordings.cpu().numpy())
        views = batch.track_rois[:, 0].cpu().numpy()
        first += [first[-1] + int((views == 0).sum())]
        first += [first[-1] + int((views == 1).sum())]
        if (index + 1) % 8 == 0 or index + 1 == count:
            log.info('features of %d of %d pairs', index + 1, count)
    np.save(folder / 'features.npy', np.concatenate(features))
    np.savez(folder / 'samples.npz', boxes=np.concatenate(boxes),
             identities=np.concatenate(identities), first=np.array(first, np.int64),
             recordings=np.concatenate(recordings))
