"""Online tracker: boxes with embeddings in, identities out."""

from __future__ import annotations

from dataclasses import dataclass
import hashlib
import secrets
from typing import Any

from masa_ros.structures.boxes import pairwise_iou
from masa_ros.structures.instances import Instances, TrackedInstances, TrackState
from masa_ros.structures.settings import from_mapping, setting
from masa_ros.tracking.association import (
    appearance_similarity,
    check_embeddings,
    distance_gate,
    free_of_earlier,
    greedy_assignment,
    margins,
    optimal_assignment,
    unique_rows,
    UNMATCHED,
)
from masa_ros.tracking.memory import DistractorMemory, TrackMemory
from masa_ros.tracking.presets import PRESETS
import numpy as np
from numpy.typing import NDArray

STATE_VERSION = 1


@dataclass(frozen=True)
class TrackerConfig:
    """How instances become tracks. `preset` gives the reference trackers' settings."""

    # Which detections take part.
    new_track_score: float = setting(
        0.5, 'A detection that matches no track starts one when it scores above this.',
        minimum=0.0, maximum=1.0, dynamic=True)
    match_score: float = setting(
        0.3, 'A detection may continue a track when it scores above this.',
        minimum=0.0, maximum=1.0, dynamic=True)
    duplicate_score: float = setting(
        0.5, 'Below this score low_duplicate_iou applies instead of duplicate_iou.',
        minimum=0.0, maximum=1.0, dynamic=True)
    low_duplicate_iou: float = setting(
        0.9, 'A low-scoring detection is dropped when it overlaps a better one of any class by '
        'more than this IoU; 1 drops none.', minimum=0.0, maximum=1.0, dynamic=True)
    duplicate_iou: float = setting(
        0.9, 'The same for the other detections.', minimum=0.0, maximum=1.0, dynamic=True)

    # Who gets whom.
    similarity: str = setting(
        'combined', 'How alike a detection and a track are: combined (bidirectional softmax plus '
        'cosine, as in the paper), bisoftmax, softmax, cosine. Objects without an embedding are '
        'compared by the IoU of their boxes.',
        choices=('combined', 'bisoftmax', 'softmax', 'cosine'), dynamic=True)
    match_threshold: float = setting(
        0.5, 'A match needs a similarity above this.', minimum=0.0, maximum=1.0, dynamic=True)
    assignment: str = setting(
        'optimal', 'greedy lets detections choose in order of score, so a sure but low-scoring '
        'match can be taken away; optimal finds the best assignment of all.',
        choices=('greedy', 'optimal'), dynamic=True)
    class_rule: str = setting(
        'ignore', 'strict matches within a class only; ignore lets a track change its class, as '
        'detectors do.', choices=('ignore', 'strict'), dynamic=True)
    max_distance_px: float = setting(
        0.0, "The reference demo's gate: matches fade when the centres are farther apart than "
        'this many pixels (growing with the gap); 0 is off. Depends on image size and frame rate.',
        minimum=0.0, dynamic=True)
    distance_rate_hz: float = setting(
        30.0, 'Frame rate that max_distance_px is meant for.', minimum=0.1, dynamic=True)
    suppress_threshold: float = setting(
        1.0, 'A detection too weak to be matched that resembles a track more than this neither '
        'starts a track nor becomes a distractor; 1 is off. Greedy assignment only.',
        minimum=0.0, maximum=1.0, dynamic=True)

    # What is remembered.
    memory_frames: int = setting(
        1000, 'A track is removed this many frames after it was last seen; 0 is no limit. A guard '
        'for streams whose stamps stand still: seconds are the limit to set.',
        minimum=0, dynamic=True)
    memory_seconds: float = setting(
        10.0, 'A track is removed this many seconds after it was last seen, by the stamps of the '
        'images, so that dropped frames and other frame rates change nothing; 0 is no limit.',
        minimum=0.0, dynamic=True)
    max_tracks: int = setting(
        2000, 'Most tracks in memory; those unseen for longest go first. 0 is no limit.',
        minimum=0, dynamic=True)
    momentum: float = setting(
        0.8, 'Weight of the new embedding in the memory of a matched track.',
        minimum=0.0, maximum=1.0, dynamic=True)
    normalize_embeddings: bool = setting(
        True, 'Bring embeddings to unit length before they are compared and averaged; otherwise '
        'a long one outweighs all others in the memory.', dynamic=True)
    distractor_frames: int = setting(
        0, 'Frames for which unmatched detections compete with the tracks.', minimum=0,
        maximum=100, dynamic=True)
    age_on_empty_frames: bool = setting(
        True, 'Tracks grow old on frames without detections too; otherwise a track outlives its '
        'limit whenever nothing is in sight.', dynamic=True)
    expire_before_matching: bool = setting(
        True, 'Tracks past their limit are removed before a frame is matched; otherwise the first '
        'frame after a pause can revive tracks of any age.', dynamic=True)

    # Life of a track and what is reported.
    confirm_hits: int = setting(
        2, 'Frames in which an object must be seen before its track counts as tracked.',
        minimum=1, dynamic=True)
    coast_seconds: float = setting(
        0.5, 'For this long after it was last seen a confirmed track is reported as coasting, '
        'then it is lost.', minimum=0.0, dynamic=True)
    report_unseen: bool = setting(
        True, 'Report coasting tracks in every frame, lost and removed ones once.', dynamic=True)
    output_order: str = setting(
        'input', 'Order of the seen objects: as they came in, or by descending score.',
        choices=('input', 'score'), dynamic=True)

    @classmethod
    def preset(cls, name: str, **changes: Any) -> TrackerConfig:
        """
        Settings under a name.

        Parameters
        ----------
        name : str
            ``default``, or one of the reference trackers' settings (see presets.py).
        **changes
            Fields to set on top.

        Raises
        ------
        ValueError
            If the name or a field is unknown, or a value outside its limits.

        """
        if name != 'default' and name not in PRESETS:
            raise ValueError(f'unknown tracker preset {name!r}; known ones are default, '
                             + ', '.join(sorted(PRESETS)))
        values = {**PRESETS.get(name, {}), **changes}
        return from_mapping(cls, values, f'tracker preset {name}')


@dataclass(frozen=True)
class _Ranked:
    """The detections of a frame that take part, by descending score."""

    rows: NDArray[np.int64]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int64]
    embeddings: NDArray[np.float32]
    has_embedding: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.rows)


class Tracker:
    """
    Tracks the objects of one image stream.

    Parameters
    ----------
    config : TrackerConfig
        Settings.
    seed : str, optional
        Makes the UUIDs a function of this text and the order of tracks, so that two runs over
        the same data are equal. Give every stream another one (its name). Random when missing.

    """

    def __init__(self, config: TrackerConfig | None = None, *, seed: str | None = None) -> None:
        self._config = config or TrackerConfig()
        self._seed = seed
        self._uuid_key = self._new_key()
        self._num_uuids = 0
        self._memory = TrackMemory()
        self._distractors = DistractorMemory()
        self._next_id = 1
        self._num_updates = 0
        self._last: tuple[int, int] | None = None

    @property
    def config(self) -> TrackerConfig:
        """Return the settings in force."""
        return self._config

    @property
    def num_tracks(self) -> int:
        """Number of tracks in memory: seen, coasting and lost ones."""
        return len(self._memory)

    def reset(self) -> None:
        """Forget all tracks and the time; ids start from 1 again, UUIDs never repeat."""
        self._memory.clear()
        self._distractors.clear()
        self._next_id = 1
        self._num_updates = 0
        self._last = None

    def reconfigure(self, config: TrackerConfig) -> None:
        """Change settings; tracks stay."""
        self._distractors.trim(config.distractor_frames)
        self._config = config

    def state(self) -> dict[str, NDArray[Any]]:
        """
        Everything the tracker knows, as plain arrays that ``numpy.savez`` takes.

        Returns
        -------
        dict
            Columns of the memory, distractors, counters and ``version``.

        """
        frames = self._distractors.frames()
        last = self._last or (-1, -1)
        return {
            'version': np.array(STATE_VERSION), 'next_id': np.array(self._next_id),
            'num_updates': np.array(self._num_updates), 'last': np.array(last, np.int64),
            'started': np.array(self._last is not None),
            **self._memory.copy_columns(),
            'width': np.array(-1 if self._memory.width is None else self._memory.width),
            'distractor_counts': np.array([len(ids) for _, ids in frames], np.int64),
            'distractor_embeddings': self._distractors.embeddings(self._memory.width or 0),
            'distractor_class_ids': self._distractors.class_ids(),
        }

    def update(
        self, instances: Instances, frame_index: int, stamp_ns: int, image_size: tuple[int, int],
    ) -> TrackedInstances:
        """
        Give the objects of the next frame their identities.

        Parameters
        ----------
        instances : Instances
            Objects of the frame. Without embeddings (``None``, or a row with NaN) an object is
            matched by its box only, and nothing enters its track's appearance memory.
        frame_index : int
            Position in the sequence; must grow, may jump.
        stamp_ns : int
            Acquisition time in nanoseconds; must grow.
        image_size : tuple of int
            ``(height, width)`` in pixels.

        Returns
        -------
        TrackedInstances
            Seen objects in the order of the input, those without identity left out; then
            coasting tracks, tracks lost in this frame and tracks removed in this frame, each
            in order of creation.

        Raises
        ------
        ValueError
            If frame or stamp do not grow, a box or score is not finite, or the embeddings do
            not have the width of those in memory.

        """
        self._check_order(frame_index, stamp_ns)
        self._check_rows(instances)
        self._last = (frame_index, stamp_ns)
        self._num_updates += 1
        ranked = self._rank(instances)
        if not len(instances) and not self._config.age_on_empty_frames:
            return self._output(instances, ranked, _nothing(), _nothing(), None, None)
        if self._config.expire_before_matching:
            self._remove(~self._expired(frame_index, stamp_ns, strictly=True))
        columns, similarities, row_margins = self._match(ranked, frame_index)
        self._renew(instances, ranked, columns, frame_index, stamp_ns)
        columns = self._start(instances, ranked, columns, frame_index, stamp_ns)
        self._remember_distractors(ranked, columns)
        kept = ~self._expired(frame_index, stamp_ns, strictly=False)
        renumbered = np.cumsum(kept) - 1
        self._remove(kept)
        seen = np.flatnonzero(columns >= 0)
        return self._output(instances, ranked, seen, renumbered[columns[seen]],
                            similarities[seen], row_margins[seen])

    # Input.

    def _check_order(self, frame_index: int, stamp_ns: int) -> None:
        if self._last is None:
            return
        last_frame, last_stamp = self._last
        if frame_index <= last_frame or stamp_ns <= last_stamp:
            raise ValueError(
                f'frame {frame_index} with stamp {stamp_ns} ns came after frame {last_frame} with '
                f'stamp {last_stamp} ns, expected both to grow; drop late and repeated frames, '
                'or call tracker.reset() when the clock or the recording starts over')

    def _check_rows(self, instances: Instances) -> None:
        values = np.column_stack([instances.boxes, instances.scores])
        finite = np.asarray(np.isfinite(values).all(axis=1))
        if not finite.all():
            row = int(np.flatnonzero(~finite)[0])
            raise ValueError(
                f'object {row} has box {instances.boxes[row].tolist()} and score '
                f'{instances.scores[row]}, expected finite numbers; leave such rows out '
                '(masa_ros.structures.boxes.valid_boxes)')
        if instances.embeddings is not None and self._memory.width is not None:
            check_embeddings(instances.embeddings, self._memory.embeddings)

    def _rank(self, instances: Instances) -> _Ranked:
        """Detections by descending score without duplicates; equal scores by box."""
        boxes, scores = instances.boxes, instances.scores
        order = np.lexsort((*boxes.T[::-1], -scores))
        order = order[unique_rows(
            boxes[order], scores[order], self._config.duplicate_score,
            self._config.low_duplicate_iou, self._config.duplicate_iou)]
        if instances.embeddings is None:
            embeddings = np.zeros((len(order), 0), np.float32)
            known = np.zeros(len(order), bool)
        else:
            embeddings = np.asarray(instances.embeddings[order], np.float32)
            known = np.asarray(np.isfinite(embeddings).all(axis=1))
            if self._config.normalize_embeddings:
                embeddings = _unit(embeddings)
        return _Ranked(order, boxes[order], scores[order], instances.class_ids[order],
                       embeddings, known)

    # Matching.

    def _match(
        self, ranked: _Ranked, frame_index: int,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
        """Memory row of each ranked detection (or a negative mark), similarity and margin."""
        config, num_tracks = self._config, len(self._memory)
        similarity = self._similarity(ranked, frame_index)
        eligible = ranked.scores > np.float32(config.match_score)
        if config.assignment == 'greedy':
            suppress = config.suppress_threshold if config.suppress_threshold < 1 else None
            columns = greedy_assignment(
                similarity, config.match_threshold, eligible, num_tracks, suppress)
        else:
            columns = np.full(len(ranked), UNMATCHED, np.int64)
            columns[eligible] = optimal_assignment(similarity[eligible], config.match_threshold)
            columns[columns >= num_tracks] = UNMATCHED
        matched = np.flatnonzero(columns >= 0)
        values = np.full(len(ranked), np.nan, np.float32)
        lead = np.full(len(ranked), np.nan, np.float32)
        values[matched] = similarity[matched, columns[matched]].clip(0, 1)
        lead[matched] = margins(similarity[:, :num_tracks].clip(0, 1), matched, columns[matched])
        return columns, values, lead

    def _similarity(self, ranked: _Ranked, frame_index: int) -> NDArray[np.float32]:
        """``(N, M)`` over the tracks, then the distractors."""
        memory, config = self._memory, self._config
        if not len(memory):
            return np.zeros((len(ranked), 0), np.float32)
        width = memory.width or 0
        distractors = self._distractors.embeddings(width)
        entries = np.concatenate([memory.embeddings, distractors])
        known = np.concatenate([memory['has_embedding'], np.ones(len(distractors), bool)])
        if ranked.has_embedding.all() and known.all():
            similarity = appearance_similarity(config.similarity, ranked.embeddings, entries)
        else:
            similarity = np.zeros((len(ranked), len(entries)), np.float32)
            similarity[:, :len(memory)] = pairwise_iou(ranked.boxes, memory['boxes'])
            if known.any() and ranked.has_embedding.any():
                similarity[np.ix_(ranked.has_embedding, known)] = appearance_similarity(
                    config.similarity, ranked.embeddings[ranked.has_embedding], entries[known])
        if config.max_distance_px > 0:
            similarity[:, :len(memory)] *= distance_gate(
                ranked.boxes, memory['boxes'], frame_index - memory['last_frame'],
                config.max_distance_px, config.distance_rate_hz)
        if config.class_rule == 'strict':
            classes = np.concatenate([memory['class_ids'], self._distractors.class_ids()])
            similarity *= ranked.class_ids[:, None] == classes
        return similarity

    # Changes to the memory.

    def _renew(
        self, instances: Instances, ranked: _Ranked, columns: NDArray[np.int64],
        frame_index: int, stamp_ns: int,
    ) -> None:
        """Bring matched tracks up to date."""
        found = np.flatnonzero(columns >= 0)
        tracks, inputs, memory = columns[found], ranked.rows[found], self._memory
        memory['boxes'][tracks] = ranked.boxes[found]
        memory['scores'][tracks] = ranked.scores[found]
        memory['class_ids'][tracks] = ranked.class_ids[found]
        memory['flags'][tracks] = instances.flags[inputs]
        memory['labels'][tracks] = _labels(instances, inputs)
        memory['hits'][tracks] += 1
        memory['states'][tracks] = self._seen_states(memory['hits'][tracks])
        memory['last_frame'][tracks] = frame_index
        memory['last_seen_ns'][tracks] = stamp_ns
        self._renew_embeddings(ranked, found, tracks)

    def _renew_embeddings(
        self, ranked: _Ranked, found: NDArray[np.int64], tracks: NDArray[np.int64],
    ) -> None:
        described = ranked.has_embedding[found]
        found, tracks = found[described], tracks[described]
        if not len(found):
            return
        self._memory.open_embeddings(ranked.embeddings.shape[1])
        stored, known = self._memory.embeddings, self._memory['has_embedding']
        new = ranked.embeddings[found]
        weight = np.where(known[tracks], np.float32(self._config.momentum), np.float32(1))
        mixed = np.asarray(
            (1 - weight)[:, None] * stored[tracks] + weight[:, None] * new, np.float32)
        stored[tracks] = _unit(mixed) if self._config.normalize_embeddings else mixed
        known[tracks] = True

    def _start(
        self, instances: Instances, ranked: _Ranked, columns: NDArray[np.int64],
        frame_index: int, stamp_ns: int,
    ) -> NDArray[np.int64]:
        """Start tracks for unmatched detections; return the columns with the new rows in."""
        new = np.flatnonzero(
            (columns == UNMATCHED) & (ranked.scores > np.float32(self._config.new_track_score)))
        count, inputs = len(new), ranked.rows[new]
        if not count:
            return columns
        stamps = np.full(count, stamp_ns, np.int64)
        rows = self._memory.append({
            'ids': np.arange(self._next_id, self._next_id + count),
            'uuids': self._uuids(count),
            'states': self._seen_states(np.ones(count, np.int64)),
            'boxes': ranked.boxes[new], 'scores': ranked.scores[new],
            'class_ids': ranked.class_ids[new], 'labels': _labels(instances, inputs),
            'flags': instances.flags[inputs], 'hits': np.ones(count, np.int64),
            'first_update': np.full(count, self._num_updates),
            'last_frame': np.full(count, frame_index),
            'first_seen_ns': stamps, 'last_seen_ns': stamps,
            'has_embedding': ranked.has_embedding[new],
        }, ranked.embeddings[new] if ranked.has_embedding[new].any() else None)
        self._next_id += count
        columns = columns.copy()
        columns[new] = rows
        return columns

    def _seen_states(self, hits: NDArray[np.int64]) -> NDArray[np.uint8]:
        return np.where(hits >= self._config.confirm_hits, TrackState.TRACKED,
                        TrackState.TENTATIVE).astype(np.uint8)

    def _remember_distractors(self, ranked: _Ranked, columns: NDArray[np.int64]) -> None:
        if not self._config.distractor_frames or not ranked.has_embedding.any():
            return
        rows = np.flatnonzero(
            (columns == UNMATCHED) & ranked.has_embedding
            & free_of_earlier(ranked.boxes, self._config.low_duplicate_iou))
        self._distractors.push(ranked.embeddings[rows], ranked.class_ids[rows],
                               self._config.distractor_frames)

    def _expired(self, frame_index: int, stamp_ns: int, *, strictly: bool) -> NDArray[np.bool_]:
        """
        Tell which tracks are past their limits.

        At the end of a frame a track goes once its limit is reached; before matching only one
        that went past it, so that a gap of exactly the limit can still be bridged.
        """
        frames = frame_index - self._memory['last_frame']
        seconds = (stamp_ns - self._memory['last_seen_ns']) * 1e-9
        past = np.greater if strictly else np.greater_equal
        expired = np.zeros(len(self._memory), bool)
        if self._config.memory_frames:
            expired |= past(frames, self._config.memory_frames)
        if self._config.memory_seconds:
            expired |= past(seconds, self._config.memory_seconds)
        return expired

    def _remove(self, keep: NDArray[np.bool_]) -> None:
        self._memory.keep(keep)

    # Output.

    def _output(
        self, instances: Instances, ranked: _Ranked, seen: NDArray[np.int64],
        tracks: NDArray[np.int64], similarities: NDArray[np.float32] | None,
        row_margins: NDArray[np.float32] | None,
    ) -> TrackedInstances:
        memory = self._memory
        inputs = ranked.rows[seen]
        order = (np.argsort(inputs) if self._config.output_order == 'input'
                 else np.arange(len(inputs)))
        inputs, tracks = inputs[order], tracks[order]
        chosen = instances.select(inputs)
        nan = np.full(len(inputs), np.nan, np.float32)
        return TrackedInstances(
            boxes=chosen.boxes, scores=chosen.scores, class_ids=chosen.class_ids,
            labels=chosen.labels, flags=chosen.flags, masks=chosen.masks,
            mask_qualities=chosen.mask_qualities, embeddings=chosen.embeddings,
            track_ids=memory['ids'][tracks],
            uuids=tuple(uuid.tobytes() for uuid in memory['uuids'][tracks]),
            states=memory['states'][tracks],
            first_seen_ns=memory['first_seen_ns'][tracks],
            last_seen_ns=memory['last_seen_ns'][tracks],
            ages=self._num_updates - memory['first_update'][tracks],
            similarities=nan if similarities is None else similarities[order],
            margins=nan if row_margins is None else row_margins[order])

    # Identity.

    def _new_key(self) -> bytes:
        return secrets.token_bytes(16) if self._seed is None else self._seed.encode()

    def _uuids(self, count: int) -> NDArray[np.uint8]:
        """``(count, 16)`` version 4 UUIDs (RFC 4122)."""
        numbers = range(self._num_uuids, self._num_uuids + count)
        self._num_uuids += count
        digests = b''.join(
            hashlib.blake2b(b'%d' % number, key=self._uuid_key[:64], digest_size=16).digest()
            for number in numbers)
        uuids = np.frombuffer(digests, np.uint8).reshape(count, 16).copy()
        uuids[:, 6] = uuids[:, 6] & 0x0F | 0x40
        uuids[:, 8] = uuids[:, 8] & 0x3F | 0x80
        return uuids


def _nothing() -> NDArray[np.int64]:
    return np.zeros(0, np.int64)


def _labels(instances: Instances, rows: NDArray[np.int64]) -> NDArray[np.object_]:
    labels = np.empty(len(rows), object)
    labels[:] = [instances.labels[row] for row in rows]
    return labels


def _unit(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.sqrt(np.einsum('ij,ij->i', embeddings, embeddings))
    return np.asarray(
        embeddings / np.maximum(lengths, np.finfo(np.float32).tiny)[:, None], np.float32)
