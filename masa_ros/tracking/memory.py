"""
What the tracker remembers: one row per track in arrays that grow and shrink with the scene.

Rows stay in order of creation, so row numbers change when tracks are removed, ids never do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

VOTE_SLOTS = 4
"""Classes that a track keeps votes for."""

# Name: (type, size of a row). Embeddings are kept apart, their width is known later.
COLUMNS: dict[str, tuple[DTypeLike, tuple[int, ...]]] = {
    'ids': (np.int64, ()),
    'uuids': (np.uint8, (16,)),
    'states': (np.uint8, ()),
    'boxes': (np.float32, (4,)),
    'scores': (np.float32, ()),
    'mean_scores': (np.float32, ()),
    'class_ids': (np.int64, ()),
    'labels': (np.object_, ()),
    'vote_class_ids': (np.int64, (VOTE_SLOTS,)),
    'vote_labels': (np.object_, (VOTE_SLOTS,)),
    'votes': (np.float32, (VOTE_SLOTS,)),
    'flags': (np.uint8, ()),
    'hits': (np.int64, ()),
    'first_update': (np.int64, ()),
    'last_frame': (np.int64, ()),
    'first_seen_ns': (np.int64, ()),
    'last_seen_ns': (np.int64, ()),
    'detected_ns': (np.int64, ()),
    'look_due_ns': (np.int64, ()),
    'has_embedding': (np.bool_, ()),
    'pinned': (np.bool_, ()),
    'mean': (np.float64, (4,)),
    'velocity': (np.float64, (4,)),
    'variance': (np.float64, (3,)),
}

_SMALLEST = 64


class TrackMemory:
    """
    Tracks as columns; row ``i`` of every column is the same track.

    Arrays double when they are full and halve when three quarters of them are free, so the cost
    of a new track is constant on average and a crowd that has gone leaves no memory behind.
    """

    def __init__(self) -> None:
        self._size = 0
        self._store: dict[str, NDArray[Any]] = {}
        self._views: dict[str, NDArray[Any]] = {}  # Of the rows in use; asked for many times.
        self._embeddings: NDArray[np.float32] | None = None
        self._allocate(_SMALLEST)

    @classmethod
    def from_columns(cls, columns: Mapping[str, Any], width: int) -> TrackMemory:
        """
        Build a memory from what `copy_columns` returned.

        Parameters
        ----------
        columns : mapping
            Every column, and ``embeddings``; other entries are ignored.
        width : int
            Embedding width; negative where no embedding was ever stored.

        Raises
        ------
        ValueError
            If a column is missing or has another number of rows.

        """
        rows: dict[str, NDArray[Any]] = {}
        wanted = {**COLUMNS, 'embeddings': (np.float32, (max(width, 0),))}
        for name, (kind, shape) in wanted.items():
            if name not in columns:
                raise ValueError(f'tracker state has no column {name!r}; it is incomplete, track '
                                 'again from the start')
            rows[name] = np.asarray(columns[name]).astype(kind)
            expected = (len(rows['ids']), *shape)
            if rows[name].shape != expected:
                raise ValueError(f'tracker state column {name!r} has shape {rows[name].shape}, '
                                 f'expected {expected}; track again from the start')
        memory = cls()
        embeddings = rows.pop('embeddings')
        memory.append(rows, embeddings if width >= 0 else None)
        return memory

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Return a writable view of a column, ``(M, ...)``."""
        view = self._views.get(name)
        if view is None:
            view = self._views[name] = self._store[name][:self._size]
        return view

    @property
    def capacity(self) -> int:
        """Rows that fit before the arrays grow."""
        return len(self._store['ids'])

    @property
    def width(self) -> int | None:
        """Embedding width, or ``None`` while no embedding was stored."""
        return None if self._embeddings is None else int(self._embeddings.shape[1])

    @property
    def embeddings(self) -> NDArray[np.float32]:
        """``(M, D)`` writable view; rows without ``has_embedding`` are 0. ``D`` 0: none stored."""
        if self._embeddings is None:
            return np.zeros((self._size, 0), np.float32)
        return self._embeddings[:self._size]

    def nbytes(self) -> int:
        """Bytes held by the arrays, free rows included."""
        held = sum(array.nbytes for array in self._store.values())
        return held + (0 if self._embeddings is None else self._embeddings.nbytes)

    def open_embeddings(self, width: int) -> None:
        """Make room for embeddings of a width, once it is known."""
        if self._embeddings is None:
            self._embeddings = np.zeros((self.capacity, width), np.float32)

    def append(
        self, columns: Mapping[str, NDArray[Any]],
        embeddings: NDArray[np.float32] | None = None,
    ) -> NDArray[np.int64]:
        """
        Add tracks.

        Parameters
        ----------
        columns : mapping
            Every column of the memory, ``(K, ...)``.
        embeddings : ndarray, optional
            ``(K, D)``; rows without ``has_embedding`` are stored as 0.

        Returns
        -------
        ndarray
            ``(K,)`` int64 rows of the new tracks.

        """
        count = len(columns['ids'])
        start, end = self._size, self._size + count
        if end > self.capacity:
            self._allocate(max(end, 2 * self.capacity))
        for name, array in self._store.items():
            array[start:end] = columns[name]
        if embeddings is not None:
            self.open_embeddings(embeddings.shape[1])
        if self._embeddings is not None:
            self._embeddings[start:end] = 0
            if embeddings is not None:
                known = columns['has_embedding']
                self._embeddings[start:end][known] = embeddings[known]
        self._resize(end)
        return np.arange(start, end)

    def keep(self, rows: NDArray[np.bool_]) -> None:
        """Remove the tracks whose ``(M,)`` flag is false; the order of the others stays."""
        if rows.all():
            return
        chosen = np.flatnonzero(rows)
        first = int(np.argmin(rows))  # Rows before the first removed one stay where they are.
        for array in self._arrays():
            array[first:len(chosen)] = array[chosen[first:]]
        for name in ('labels', 'vote_labels'):
            self._store[name][len(chosen):] = ''  # Let go of the strings.
        self._resize(len(chosen))
        if self.capacity > _SMALLEST and 4 * self._size < self.capacity:
            self._allocate(max(_SMALLEST, 2 * self._size))

    def clear(self) -> None:
        """Forget everything, the embedding width too."""
        self._resize(0)
        self._embeddings = None
        self._allocate(_SMALLEST)

    def normalize(self) -> None:
        """Bring the stored embeddings to unit length."""
        lengths = np.sqrt(np.einsum('ij,ij->i', self.embeddings, self.embeddings))
        self.embeddings[:] /= np.where(lengths > 0, lengths, 1)[:, None]

    def copy_columns(self) -> dict[str, NDArray[Any]]:
        """Return a copy of every column, embeddings included, without objects inside."""
        columns = {name: self[name].copy() for name in COLUMNS}
        for name in ('labels', 'vote_labels'):
            columns[name] = columns[name].astype(np.str_)
        columns['embeddings'] = self.embeddings.copy()
        return columns

    def _arrays(self) -> list[NDArray[Any]]:
        arrays = list(self._store.values())
        return arrays if self._embeddings is None else [*arrays, self._embeddings]

    def _resize(self, size: int) -> None:
        self._size = size
        self._views.clear()

    def _allocate(self, capacity: int) -> None:
        self._views.clear()
        for name, (kind, shape) in COLUMNS.items():
            self._store[name] = self._resized(self._store.get(name), capacity, kind, shape)
        if self._embeddings is not None:
            self._embeddings = self._resized(
                self._embeddings, capacity, np.float32, self._embeddings.shape[1:])

    def _resized(
        self, array: NDArray[Any] | None, capacity: int, kind: DTypeLike,
        shape: tuple[int, ...],
    ) -> NDArray[Any]:
        resized = np.zeros((capacity, *shape), kind)
        if array is not None and self._size:
            resized[:self._size] = array[:self._size]
        return resized


class DistractorMemory:
    """
    Unmatched detections of the newest frames, kept to compete with the tracks.

    A detection that resembles one of them most is then not pressed into a track (the reference
    calls them backdrops).
    """

    def __init__(self) -> None:
        self._frames: list[tuple[NDArray[np.float32], NDArray[np.int64]]] = []

    def __len__(self) -> int:
        return sum(len(embeddings) for embeddings, _ in self._frames)

    @property
    def num_frames(self) -> int:
        """Frames that are kept."""
        return len(self._frames)

    def push(
        self, embeddings: NDArray[np.float32], class_ids: NDArray[np.int64], frames: int,
    ) -> None:
        """Put a frame's ``(K, D)`` embeddings in front and keep the newest `frames` frames."""
        self._frames.insert(0, (embeddings.copy(), class_ids.copy()))
        del self._frames[frames:]

    def clear(self) -> None:
        """Forget all."""
        self._frames.clear()

    def trim(self, frames: int) -> None:
        """Keep the newest `frames` frames."""
        del self._frames[frames:]

    def embeddings(self, width: int) -> NDArray[np.float32]:
        """``(K, D)``, newest frame first."""
        return np.concatenate([np.zeros((0, width), np.float32),
                               *(embeddings for embeddings, _ in self._frames)])

    def class_ids(self) -> NDArray[np.int64]:
        """``(K,)`` in the same order."""
        return np.concatenate([np.zeros(0, np.int64), *(ids for _, ids in self._frames)])

    def frames(self) -> list[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        """Embeddings and classes of each frame, newest first."""
        return list(self._frames)
