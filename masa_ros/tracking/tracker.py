"""Online tracker: boxes with embeddings in, identities out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from masa_ros.structures.boxes import pairwise_iou
from masa_ros.structures.instances import Flag, Instances, TrackedInstances, TrackState
from masa_ros.tracking.absence import leaving_image
from masa_ros.tracking.association import (
    check_embeddings,
    free_of_earlier,
    rows_where,
    unique_rows,
    UNMATCHED,
)
from masa_ros.tracking.config import TrackerConfig
from masa_ros.tracking.identity import UuidSource
from masa_ros.tracking.labels import first_votes, fix_label, vote
from masa_ros.tracking.matching import (
    blended_scores,
    Candidates,
    Matcher,
    Matches,
    Moment,
    rows_of,
)
from masa_ros.tracking.memory import DistractorMemory, TrackMemory
from masa_ros.tracking.motion import (
    boxes_of,
    correct,
    initial_motion,
    Motion,
    moved_by_camera,
    predict,
)
from masa_ros.tracking.report import report, Rows, unseen_rows
from masa_ros.tracking.second_look import missed, MissedTracks
from masa_ros.tracking.workspace import Workspace
import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ['Tracker', 'TrackerConfig']

STATE_VERSION = 4
# As arrays hold them; NumPy is slow to make numbers of members of an enumeration.
TENTATIVE, TRACKED, COASTING, LOST = (np.uint8(state) for state in (
    TrackState.TENTATIVE, TrackState.TRACKED, TrackState.COASTING, TrackState.LOST))
# The long-term memory is shown a track this often: looks change slowly.
LOOK_EVERY_NS = 300_000_000


class Tracker:
    """
    Tracks the objects of one image stream.

    Parameters
    ----------
    config : TrackerConfig, optional
        Settings; the defaults when missing.
    seed : str, optional
        Makes the UUIDs a function of this text and of the order in which tracks start, so that
        two runs over the same data are equal. Give every stream another one, such as its name.
        Random when missing.

    """

    def __init__(self, config: TrackerConfig | None = None, *, seed: str | None = None) -> None:
        self._config = config or TrackerConfig()
        self._uuids = UuidSource(seed)
        self._memory = TrackMemory()
        self._distractors = DistractorMemory()
        self._work = Workspace()
        self._matcher = Matcher(self._work)
        self._next_id = 1
        self._num_updates = 0
        self._last: tuple[int, int] | None = None
        self._renumbered = False
        self._removed: list[Rows] = []
        self._asked_to_go: list[Rows] = []

    @property
    def config(self) -> TrackerConfig:
        """Return the settings in force."""
        return self._config

    @property
    def num_tracks(self) -> int:
        """Return the number of tracks in memory: seen, coasting and lost ones."""
        return len(self._memory)

    def reset(self) -> None:
        """Forget all tracks and the time; ids start from 1 again, UUIDs never repeat."""
        self._memory.clear()
        self._distractors.clear()
        self._matcher = Matcher(self._work)
        self._next_id = 1
        self._num_updates = 0
        self._last = None
        self._renumbered = False
        self._asked_to_go.clear()

    def reconfigure(self, config: TrackerConfig) -> None:
        """Change settings; tracks stay."""
        self._distractors.trim(config.distractor_frames)
        self._config = config
        if config.normalize_embeddings:
            self._memory.normalize()

    def update(
        self, instances: Instances, frame_index: int, stamp_ns: int, image_size: tuple[int, int],
        *, looked_for: NDArray[np.int64] | None = None,
    ) -> TrackedInstances:
        """
        Give the objects of the next frame their identities.

        Parameters
        ----------
        instances : Instances
            Objects of the frame. One without embedding (``None`` for all, or a row with NaN) is
            matched by its box only and leaves its track's appearance untouched.
        frame_index : int
            Position in the sequence; must grow, may jump.
        stamp_ns : int
            Acquisition time in nanoseconds; must grow.
        image_size : tuple of int
            ``(height, width)`` in pixels.
        looked_for : ndarray, optional
            ``(N,)`` track that each row was looked for at its predicted box (see `missed`), 0
            for detections. Such a row continues this track or is left out.

        Returns
        -------
        TrackedInstances
            Seen objects in the order of the input, those that got no identity left out; then
            coasting tracks, tracks lost in this frame and tracks removed in this frame, each
            in order of creation.

        Raises
        ------
        ValueError
            If frame or stamp do not grow, a box or score is not finite, or the embeddings do
            not have the width of those in memory.

        """
        self._check_rows(instances)
        before = self._advance(frame_index, stamp_ns)
        candidates = self._candidates(instances, looked_for)
        if not len(instances) and not self._config.age_on_empty_frames:
            return self._report(instances, candidates, Matches.empty(0), [])
        self._removed[:] = self._asked_to_go
        self._asked_to_go.clear()
        if self._config.expire_before_matching:
            self._remove(self._expired(frame_index, stamp_ns, np.greater))
        moment = self._moment(frame_index, stamp_ns, before, image_size)
        matches = self._matcher.match(
            self._config, candidates, self._memory, self._distractors, moment)
        self._renew(instances, candidates, matches, moment, stamp_ns)
        self._keep_looks(candidates, matches, stamp_ns)
        self._start(instances, candidates, matches, frame_index, stamp_ns)
        self._keep_distractors(candidates, matches)
        changed = self._age(stamp_ns, image_size)
        gone = (self._expired(frame_index, stamp_ns, np.greater_equal)
                | self._unconfirmed(stamp_ns) | self._surplus())
        matches.renumber(gone)
        self._remove(gone)
        return self._report(
            instances, candidates, matches, self._unseen(changed[~gone], stamp_ns))

    # Between two frames.

    @property
    def last_boxes(self) -> NDArray[np.float32]:
        """``(K, 4)`` boxes of the tracks that were seen in the last frame."""
        seen = self._memory['last_seen_ns'] == (self._last or (0, -1))[1]
        return np.asarray(self._memory['boxes'][seen], np.float32)

    def follow_camera(self, homography: ArrayLike) -> None:
        """
        Take the motion of the camera out, once per frame before its update.

        Parameters
        ----------
        homography : array_like
            ``(3, 3)`` from pixels of the last frame to pixels of the next one, from image
            registration or odometry. Leave the call out where nothing is known.

        Raises
        ------
        ValueError
            If it is not a finite 3 x 3 matrix.

        """
        matrix = np.asarray(homography, np.float64)
        if matrix.shape != (3, 3) or not np.isfinite(matrix).all():
            raise ValueError(f'camera motion has shape {matrix.shape} or holds numbers that are '
                             'not finite, expected a 3 x 3 homography; leave the call out where '
                             'none could be estimated')
        moved = moved_by_camera(self._motion(), matrix)
        self._memory['mean'][:], self._memory['velocity'][:] = moved.mean, moved.velocity

    def missed(
        self, boxes: NDArray[np.float32], stamp_ns: int, image_size: tuple[int, int],
    ) -> MissedTracks:
        """
        Tell which tracks are worth a second look in the next frame.

        Parameters
        ----------
        boxes : ndarray
            ``(N, 4)`` detections of the frame.
        stamp_ns : int
            Its acquisition time.
        image_size : tuple of int
            ``(height, width)`` in pixels.

        Returns
        -------
        MissedTracks
            Confirmed tracks that were detected within ``second_look_seconds`` and that no
            detection is near, with their predicted boxes; none where that is switched off.

        """
        memory, limit_s = self._memory, self._config.second_look_seconds
        if not limit_s or not len(memory) or self._config.similarity != 'evidence':
            return MissedTracks.none()
        states = memory['states']
        live = rows_where(((stamp_ns - memory['detected_ns']) * 1e-9 <= limit_s)
                          & (states != TENTATIVE) & memory['has_embedding'])
        gaps_s = np.maximum((stamp_ns - memory['last_seen_ns'][live]) * 1e-9, 0)
        predicted = boxes_of(predict(self._motion().select(live), gaps_s).mean)
        chosen = missed(boxes, predicted, image_size)
        rows = live[chosen]
        return MissedTracks.of(memory['ids'][rows], predicted[chosen], memory['scores'][rows],
                               memory['class_ids'][rows], memory['labels'][rows].tolist())

    # Input.

    def _advance(self, frame_index: int, stamp_ns: int) -> int:
        """Take the time of a new frame; return the index of the one before."""
        if self._last is None:
            self._last = (frame_index, stamp_ns)
            self._num_updates += 1
            return frame_index
        last_frame, last_stamp = self._last
        # Loaded tracks may meet a recording that counts its frames from 0 again.
        anew = self._renumbered and frame_index <= last_frame
        if (frame_index <= last_frame and not anew) or stamp_ns <= last_stamp:
            raise ValueError(
                f'frame {frame_index} with stamp {stamp_ns} ns came after frame {last_frame} with '
                f'stamp {last_stamp} ns, expected both to grow; drop late and repeated frames, '
                'and call tracker.reset() when the clock or the recording starts over')
        if anew:
            last_frames = self._memory['last_frame']
            last_frames += frame_index - 1 - last_frame
            last_frame = frame_index - 1
        self._renumbered = False
        self._last = (frame_index, stamp_ns)
        self._num_updates += 1
        return last_frame

    def _check_rows(self, instances: Instances) -> None:
        if not (np.isfinite(instances.boxes).all() and np.isfinite(instances.scores).all()):
            values = np.column_stack([instances.boxes, instances.scores])
            row = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
            raise ValueError(
                f'object {row} has box {instances.boxes[row].tolist()} and score '
                f'{instances.scores[row]}, expected finite numbers; leave such rows out '
                '(masa_ros.structures.boxes.valid_boxes)')
        if instances.embeddings is not None and self._memory.width is not None:
            check_embeddings(instances.embeddings, self._memory.embeddings)

    def _candidates(
        self, instances: Instances, looked_for: NDArray[np.int64] | None,
    ) -> Candidates:
        """Rank the detections by score, then box, leave duplicates out; looked for come last."""
        if looked_for is not None and looked_for.any():
            return self._with_looked_for(instances, np.asarray(looked_for, np.int64))
        return self._ranked(instances)

    def _with_looked_for(
        self, instances: Instances, looked_for: NDArray[np.int64],
    ) -> Candidates:
        rows = rows_where(looked_for == 0)
        own = self._ranked(instances.select(rows))
        extra = rows_where(looked_for > 0)
        order = np.concatenate([rows[own.rows], extra])
        embeddings, described = self._embeddings(instances, order)
        no, none = np.zeros(len(extra), bool), np.zeros(len(extra), np.float32)
        return Candidates(
            order, instances.boxes[order], instances.scores[order], instances.class_ids[order],
            embeddings, described, np.concatenate([own.strong, no]),
            np.concatenate([own.starts, no]),
            np.concatenate([own.certainty, none]), np.concatenate([own.middle, none]),
            looked_for[order])

    def _ranked(self, instances: Instances) -> Candidates:
        config, boxes, scores = self._config, instances.boxes, instances.scores
        order = np.argsort(-scores, kind='stable')
        ranked = scores[order]
        if (ranked[1:] == ranked[:-1]).any():
            order = np.lexsort((*boxes.T[::-1], -scores))
            ranked = scores[order]
        boxes = boxes[order]
        unique = unique_rows(boxes, ranked, config.duplicate_score, config.low_duplicate_iou,
                             config.duplicate_iou)
        if not unique.all():
            order, boxes, ranked = order[unique], boxes[unique], ranked[unique]
        embeddings, described = self._embeddings(instances, order)
        return Candidates(
            order, boxes, ranked, instances.class_ids[order], embeddings, described,
            *self._strength(ranked, instances.flags[order]), np.zeros(len(order), np.int64))

    def _strength(
        self, scores: NDArray[np.float32], flags: NDArray[np.uint8],
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.float32], NDArray[np.float32]]:
        """Which detections may continue any track, which may start one, how surely, and middle."""
        config, own = self._config, self._config.new_proposal_score
        match, start = np.float32(config.match_score), np.float32(config.new_track_score)
        strong, starts = scores > match, scores > start
        certainty = ((scores - start) / np.maximum(1 - start, np.float32(1e-6))).clip(0, 1)
        middle = np.full(len(scores), (match + start) / 2, np.float32)
        proposed = flags & np.uint8(Flag.FROM_PROPOSAL) != 0
        if own and proposed.any():
            # Scores of a model's own proposals rank them and say little more.
            strong[proposed] = scores[proposed] > np.float32(min(own, config.match_score))
            starts[proposed] = scores[proposed] > np.float32(own)
            certainty[proposed], middle[proposed] = 1, 0
        return strong, starts, certainty, middle

    def _embeddings(
        self, instances: Instances, order: NDArray[np.int64],
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Embeddings of some rows, and which of them say anything."""
        if instances.embeddings is None:
            return np.zeros((len(order), 0), np.float32), np.zeros(len(order), bool)
        embeddings = self._work.table('embeddings', len(order), instances.embeddings.shape[1])
        np.take(np.asarray(instances.embeddings, np.float32), order, axis=0, out=embeddings,
                mode='clip')
        with np.errstate(over='ignore'):
            squares = np.einsum('ij,ij->i', embeddings, embeddings)
        described = np.asarray(np.isfinite(squares) & (squares > 0))
        if self._config.normalize_embeddings:
            embeddings /= np.sqrt(
                squares if described.all() else np.where(described, squares, 1))[:, None]
        return embeddings, described

    def _moment(
        self, frame_index: int, stamp_ns: int, before: int, image_size: tuple[int, int],
    ) -> Moment:
        gaps_s = (stamp_ns - self._memory['last_seen_ns']) * 1e-9
        predicted = predict(self._motion(), gaps_s, self._config.motion_uncertainty)
        return Moment(frame_index, gaps_s, self._memory['last_frame'] < before,
                      leaving_image(predicted.mean, image_size), image_size, predicted)

    def _motion(self) -> Motion:
        return Motion(self._memory['mean'], self._memory['velocity'], self._memory['variance'])

    # Changes to the memory.

    def _renew(
        self, instances: Instances, candidates: Candidates, matches: Matches, moment: Moment,
        stamp_ns: int,
    ) -> None:
        """Bring matched tracks up to date."""
        found = matches.matched
        tracks, memory = matches.columns[found], self._memory
        motion = correct(moment.predicted.select(tracks), candidates.measured[found],
                         matches.by_motion[found])
        memory['hits'][tracks] += 1
        seen = _seen_columns(instances, candidates, found)
        vote(memory, tracks, seen.pop('class_ids'), seen.pop('labels'), seen['scores'],
             self._config.label_memory)
        self._write(tracks, {
            **seen,
            'mean_scores': blended_scores(memory['mean_scores'][tracks], seen['scores'],
                                          moment.gaps_s[tracks]),
            'states': self._seen_states(tracks, candidates.scores[found]),
            'last_frame': moment.frame_index, 'last_seen_ns': stamp_ns,
            'detected_ns': np.where(candidates.looked_for[found] > 0,
                                    memory['detected_ns'][tracks], stamp_ns),
            'mean': motion.mean, 'velocity': motion.velocity, 'variance': motion.variance})
        self._blend(candidates, matches,
                    found[~matches.by_motion[found] & candidates.described[found]])

    def _write(self, tracks: NDArray[np.int64], columns: Mapping[str, Any]) -> None:
        for name, values in columns.items():
            self._memory[name][tracks] = values

    def _blend(
        self, candidates: Candidates, matches: Matches, rows: NDArray[np.int64],
    ) -> None:
        """Mix the embeddings of candidates into the memory; a track without one takes it."""
        if not len(rows):
            return
        width = candidates.embeddings.shape[1]
        self._memory.open_embeddings(width)
        stored, known = self._memory.embeddings, self._memory['has_embedding']
        tracks = matches.columns[rows]
        weight: Any = np.float32(self._config.momentum)
        met = known[tracks]
        if not met.all():
            weight = np.where(met, weight, np.float32(1))[:, None]
        # The matching has done with its table of products.
        mixed = self._work.table('products', len(rows), width)
        new = self._work.table('new', len(rows), width)
        np.take(stored, tracks, axis=0, out=mixed, mode='clip')
        mixed *= 1 - weight
        mixed += np.multiply(rows_of(candidates.embeddings, rows), weight, out=new)
        if self._config.normalize_embeddings:
            # Opposite embeddings can cancel out: the new one then stands alone.
            squares = np.einsum('ij,ij->i', mixed, mixed)
            mixed /= np.sqrt(np.maximum(squares, np.finfo(np.float32).tiny))[:, None]
        stored[tracks] = mixed
        known[tracks] = True

    def _keep_looks(self, candidates: Candidates, matches: Matches, stamp_ns: int) -> None:
        """Show the long-term memory what matched tracks look like, now and then."""
        if not self._config.long_memory or self._config.similarity != 'evidence':
            return
        memory, store = self._memory, self._matcher.long_term
        store.size = self._config.long_memory
        rows = rows_where((matches.columns >= 0) & candidates.described & ~matches.by_motion)
        rows = rows[memory['look_due_ns'][matches.columns[rows]] <= stamp_ns]
        columns = matches.columns[rows]
        for row, track_id in zip(rows.tolist(), memory['ids'][columns].tolist(), strict=True):
            store.add(track_id, _unit(candidates.embeddings[row]))
        memory['look_due_ns'][columns] = stamp_ns + LOOK_EVERY_NS
        store.keep(memory['ids'])

    def _start(
        self, instances: Instances, candidates: Candidates, matches: Matches,
        frame_index: int, stamp_ns: int,
    ) -> None:
        """Start tracks for unmatched detections and enter them in the matches."""
        new = self._newcomers(candidates, matches)
        count = len(new)
        if not count:
            return
        motion = initial_motion(candidates.boxes[new])
        described = candidates.described[new]
        seen = _seen_columns(instances, candidates, new)
        matches.columns[new] = self._memory.append({
            **seen, 'mean_scores': seen['scores'],
            **first_votes(seen['class_ids'], seen['labels'], seen['scores']),
            'ids': np.arange(self._next_id, self._next_id + count),
            'uuids': self._uuids.take(count),
            'states': self._new_states(candidates.scores[new]),
            'hits': np.ones(count), 'first_update': np.full(count, self._num_updates),
            'last_frame': np.full(count, frame_index),
            'first_seen_ns': np.full(count, stamp_ns), 'last_seen_ns': np.full(count, stamp_ns),
            'detected_ns': np.full(count, stamp_ns), 'look_due_ns': np.full(count, stamp_ns),
            'has_embedding': described, 'pinned': np.zeros(count, bool),
            'mean': motion.mean, 'velocity': motion.velocity, 'variance': motion.variance,
        }, candidates.embeddings[new] if described.any() else None)
        self._next_id += count

    def _newcomers(self, candidates: Candidates, matches: Matches) -> NDArray[np.int64]:
        """Unmatched detections that start a track."""
        config, matched = self._config, matches.matched
        new = rows_where((matches.columns == UNMATCHED) & candidates.starts)
        if len(new) and config.new_track_iou < 1:
            new = new[self._stands_alone(candidates, matches, new)]
        return new[:max(config.max_tracks - len(matched), 0)] if config.max_tracks else new

    def _stands_alone(
        self, candidates: Candidates, matches: Matches, new: NDArray[np.int64],
    ) -> NDArray[np.bool_]:
        """Tell which newcomers overlap neither a tracked object nor a better newcomer."""
        before = np.concatenate([matches.matched, new])
        overlaps = pairwise_iou(candidates.boxes[new], candidates.boxes[before])
        # Tracked objects count whatever their score, newcomers only where they rank higher.
        overlaps[(matches.columns[before] < 0) & (before >= new[:, None])] = 0
        # A second box on one object mostly scores low; a surer one may overlap more.
        limits = self._config.new_track_iou * (1 + candidates.certainty[new]) / 2
        return np.asarray(~(overlaps > limits[:, None]).any(axis=1))

    def _new_states(self, scores: NDArray[np.float32]) -> NDArray[np.uint8]:
        """States of tracks that are seen for the first time."""
        sure = (scores > np.float32(self._config.confirm_score)) | (self._config.confirm_hits <= 1)
        return np.where(sure, TRACKED, TENTATIVE)

    def _seen_states(
        self, tracks: NDArray[np.int64], scores: NDArray[np.float32],
    ) -> NDArray[np.uint8]:
        """States of tracks that are seen again; once confirmed, for ever."""
        sure = ((self._memory['states'][tracks] != TENTATIVE)
                | (self._memory['hits'][tracks] >= self._config.confirm_hits)
                | (scores > np.float32(self._config.confirm_score)))
        return np.where(sure, TRACKED, TENTATIVE)

    def _keep_distractors(self, candidates: Candidates, matches: Matches) -> None:
        if not self._config.distractor_frames or not candidates.described.any():
            return
        rows = rows_where(
            (matches.columns == UNMATCHED) & candidates.described & (candidates.looked_for == 0)
            & free_of_earlier(candidates.boxes, self._config.low_duplicate_iou))
        self._distractors.push(candidates.embeddings[rows], candidates.class_ids[rows],
                               self._config.distractor_frames)

    # Ageing.

    def _age(self, stamp_ns: int, image_size: tuple[int, int]) -> NDArray[np.bool_]:
        """Turn unseen tracks into coasting or lost ones; tell whose state has changed."""
        memory = self._memory
        changed = np.zeros(len(memory), bool)
        unseen = rows_where((memory['last_seen_ns'] < stamp_ns)
                            & (memory['states'] != TENTATIVE))
        if not len(unseen):
            return changed
        gaps_s = (stamp_ns - memory['last_seen_ns'][unseen]) * 1e-9
        place = predict(self._motion().select(unseen), gaps_s).mean
        coasts = ((place[:, :2] >= 0) & (place[:, :2] < image_size[::-1])).all(axis=1)
        before = memory['states'][unseen]
        coasts &= (gaps_s <= self._config.coast_seconds) & (before != LOST)
        after = np.where(coasts, COASTING, LOST)
        memory['states'][unseen] = after
        changed[unseen] = after != before
        return changed

    def _expired(self, frame_index: int, stamp_ns: int, past: np.ufunc) -> NDArray[np.bool_]:
        """
        Tell which tracks are past their limits.

        At the end of a frame a track goes once its limit is reached; before matching only one
        that went past it, so that a gap of exactly the limit can still be bridged.
        """
        memory, config = self._memory, self._config
        expired = np.zeros(len(memory), bool)
        if config.memory_frames:
            expired |= past(frame_index - memory['last_frame'], config.memory_frames)
        if config.memory_seconds:
            expired |= past((stamp_ns - memory['last_seen_ns']) * 1e-9, config.memory_seconds)
        return np.asarray(expired & ~memory['pinned']) if expired.any() else expired

    def _unconfirmed(self, stamp_ns: int) -> NDArray[np.bool_]:
        """Tell which tracks were not seen again in time to be confirmed."""
        tentative = np.asarray(self._memory['states'] == TENTATIVE)
        if not tentative.any():
            return tentative
        gaps_s = (stamp_ns - self._memory['last_seen_ns']) * 1e-9
        return np.asarray(tentative & (gaps_s > 0) & (gaps_s >= self._config.coast_seconds))

    def _surplus(self) -> NDArray[np.bool_]:
        """Tell which tracks are too many: those unseen for longest."""
        surplus = np.zeros(len(self._memory), bool)
        limit = self._config.max_tracks
        if limit and len(surplus) > limit:
            newest_first = np.argsort(-self._memory['last_seen_ns'], kind='stable')
            surplus[newest_first[limit:]] = True
        return np.asarray(surplus & ~self._memory['pinned'])

    def _remove(self, gone: NDArray[np.bool_]) -> None:
        if gone.any():
            if self._config.report_unseen:
                self._removed.append(unseen_rows(
                    self._memory, rows_where(gone), state=TrackState.REMOVED))
            self._memory.keep(~gone)

    # Objects that were asked for.

    def add(
        self, instances: Instances, frame_index: int, stamp_ns: int, label: str = '',
    ) -> int:
        """
        Start a track for an object that was asked for, and keep it until it is removed.

        Parameters
        ----------
        instances : Instances
            The object as it was seen; one row.
        frame_index, stamp_ns : int
            The frame that showed it, one that `update` was given before.
        label : str
            Name that no detection may change; empty leaves it to the detections.

        Returns
        -------
        int
            Its id.

        Raises
        ------
        ValueError
            If there is not exactly one row, or it cannot be used (see `update`).

        """
        if len(instances) != 1:
            raise ValueError(f'{len(instances)} objects were given, expected one')
        self._check_rows(instances)
        row = np.zeros(1, np.int64)
        motion = initial_motion(instances.boxes)
        embeddings, described = self._embeddings(instances, row)
        labels = np.array([instances.labels[0]], object)
        track_id = self._next_id
        self._memory.append({
            'ids': np.array([track_id]), 'uuids': self._uuids.take(1),
            'states': np.full(1, TRACKED), 'boxes': instances.boxes,
            'scores': instances.scores, 'mean_scores': instances.scores,
            'class_ids': instances.class_ids, 'labels': labels,
            'flags': instances.flags,
            **first_votes(instances.class_ids, labels, instances.scores),
            'hits': np.full(1, self._config.confirm_hits),
            'first_update': np.full(1, self._num_updates),
            'last_frame': np.full(1, frame_index), 'first_seen_ns': np.full(1, stamp_ns),
            'last_seen_ns': np.full(1, stamp_ns), 'detected_ns': np.full(1, stamp_ns),
            'look_due_ns': np.full(1, stamp_ns), 'has_embedding': described,
            'pinned': np.ones(1, bool), 'mean': motion.mean, 'velocity': motion.velocity,
            'variance': motion.variance}, embeddings.copy() if described.any() else None)
        self._next_id += 1
        self.pin(track_id, label)
        return track_id

    def pin(self, track_id: int, label: str = '') -> None:
        """
        Keep a track until it is removed, and never again call it tentative.

        Parameters
        ----------
        track_id : int
            Its id.
        label : str
            Name that no detection may change; empty leaves it to the detections.

        Raises
        ------
        ValueError
            If there is no such track.

        """
        row, memory = self._row(track_id), self._memory
        memory['pinned'][row] = True
        if memory['states'][row] == TENTATIVE:
            memory['states'][row] = TRACKED
        if label:
            fix_label(memory, row, label)

    def remove(self, track_id: int) -> None:
        """
        Forget a track; it is reported as removed with the next frame.

        Raises
        ------
        ValueError
            If there is no such track.

        """
        gone = np.zeros(len(self._memory), bool)
        gone[self._row(track_id)] = True
        if self._config.report_unseen:
            self._asked_to_go.append(unseen_rows(
                self._memory, rows_where(gone), state=TrackState.REMOVED))
        self._memory.keep(~gone)

    def known(self) -> TrackedInstances:
        """Every track in memory as it was last known, in order of creation, without masks."""
        nothing = np.zeros(0, np.float32)
        return report(Instances(), self._memory, np.zeros(0, np.int64), nothing, nothing,
                      [unseen_rows(self._memory, np.arange(len(self._memory)))],
                      self._num_updates)

    def pinned(self, stamp_ns: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Ids ``(K,)`` of the objects that were asked for and not lost, and predicted boxes."""
        memory = self._memory
        rows = rows_where(memory['pinned'] & (memory['states'] != LOST))
        gaps_s = np.maximum((stamp_ns - memory['last_seen_ns'][rows]) * 1e-9, 0)
        boxes = boxes_of(predict(self._motion().select(rows), gaps_s).mean)
        return memory['ids'][rows].copy(), np.asarray(boxes, np.float32)

    def num_pinned(self) -> int:
        """Count the objects that were asked for, lost ones included."""
        return int(self._memory['pinned'].sum())

    def _row(self, track_id: int) -> int:
        rows = rows_where(self._memory['ids'] == track_id)
        if not len(rows):
            known = ', '.join(map(str, self._memory['ids'][:20].tolist())) or 'none'
            raise ValueError(f'there is no object {track_id}; known ones are {known}')
        return int(rows[0])

    # Output.

    def _report(
        self, instances: Instances, candidates: Candidates, matches: Matches,
        unseen: list[Rows],
    ) -> TrackedInstances:
        seen = matches.matched
        if self._config.output_order == 'input':
            seen = seen[np.argsort(candidates.rows[seen])]
        rows = candidates.rows[seen]
        everything = len(rows) == len(instances) and bool((rows[1:] > rows[:-1]).all())
        return report(instances if everything else instances.select(rows), self._memory,
                      matches.columns[seen], matches.similarities[seen], matches.margins[seen],
                      unseen, self._num_updates)

    def _unseen(self, changed: NDArray[np.bool_], stamp_ns: int) -> list[Rows]:
        """Tracks to report although they are not in the frame."""
        if not self._config.report_unseen:
            return []
        states = self._memory['states']
        unseen = []
        coasting = rows_where(states == COASTING)
        if len(coasting):
            gaps_s = (stamp_ns - self._memory['last_seen_ns'][coasting]) * 1e-9
            boxes = boxes_of(predict(self._motion().select(coasting), gaps_s).mean)
            unseen.append(unseen_rows(self._memory, coasting, boxes=boxes))
        lost = rows_where((states == LOST) & changed)
        if len(lost):
            unseen.append(unseen_rows(self._memory, lost))
        return [*unseen, *self._removed]

    # Saving.

    def state(self) -> dict[str, NDArray[Any]]:
        """
        Return everything the tracker knows, as arrays that ``numpy.savez`` takes.

        Returns
        -------
        dict
            One row per track in the columns of the memory and in ``embeddings``; distractors,
            counters, the appearance scales, the long-term memory, and ``version``. Settings
            are not part of it.

        """
        distractors = self._distractors.frames()
        look_ids, looks = self._matcher.long_term.state()
        return {
            'version': np.array(STATE_VERSION),
            'next_id': np.array(self._next_id),
            'num_updates': np.array(self._num_updates),
            'num_uuids': np.array(self._uuids.taken),
            'last': np.array(self._last or (), np.int64),
            'width': np.array(-1 if self._memory.width is None else self._memory.width),
            'absence': self._matcher.absence.values(),
            'appearance': self._matcher.appearance.values(),
            'long_term_scale': self._matcher.long_term_scale.values(),
            'look_ids': look_ids,
            'looks': np.concatenate([np.zeros((0, self._memory.width or 0), np.float32), *looks]),
            'distractor_counts': np.array([len(ids) for _, ids in distractors], np.int64),
            'distractor_embeddings': self._distractors.embeddings(self._memory.width or 0),
            'distractor_class_ids': self._distractors.class_ids(),
            **self._memory.copy_columns(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """
        Go on where another tracker stopped; what this one knew is forgotten.

        Frames must be later than the last one of the state by their stamp; their numbers may
        start over. A tracker with a seed goes on with the UUIDs of that seed.

        Parameters
        ----------
        state : mapping
            What `state` returned, or ``numpy.load`` of it.

        Raises
        ------
        ValueError
            If the state is of another version or incomplete; the tracker is then unchanged.

        """
        version = int(state['version']) if 'version' in state else None
        if version != STATE_VERSION:
            raise ValueError(f'tracker state has version {version}, expected {STATE_VERSION}; '
                             'track again from the start')
        memory = TrackMemory.from_columns(state, int(_entry(state, 'width')))
        if self._config.normalize_embeddings:
            memory.normalize()
        distractors = DistractorMemory()
        ends = np.cumsum(_entry(state, 'distractor_counts'))
        for end, count in zip(ends[::-1], _entry(state, 'distractor_counts')[::-1], strict=True):
            rows = slice(int(end - count), int(end))
            distractors.push(_entry(state, 'distractor_embeddings')[rows],
                             _entry(state, 'distractor_class_ids')[rows],
                             max(self._config.distractor_frames, 1))
        distractors.trim(self._config.distractor_frames)
        matcher = Matcher(self._work)
        matcher.absence.restore(_entry(state, 'absence'))
        matcher.appearance.restore(_entry(state, 'appearance'))
        matcher.long_term_scale.restore(_entry(state, 'long_term_scale'))
        matcher.long_term.restore(_entry(state, 'look_ids'), _entry(state, 'looks'))
        last = [int(number) for number in _entry(state, 'last')]
        next_id, num_updates = int(_entry(state, 'next_id')), int(_entry(state, 'num_updates'))
        if self._uuids.seeded:
            self._uuids.taken = max(self._uuids.taken, int(_entry(state, 'num_uuids')))
        self._memory, self._distractors, self._matcher = memory, distractors, matcher
        self._next_id, self._num_updates = next_id, num_updates
        self._last = (last[0], last[1]) if last else None
        self._renumbered = True


def _entry(state: Mapping[str, Any], name: str) -> NDArray[Any]:
    if name not in state:
        raise ValueError(f'tracker state has no {name!r}; it is incomplete, track again from the '
                         'start')
    return np.asarray(state[name])


def _unit(embedding: NDArray[np.float32]) -> NDArray[np.float32]:
    return embedding / np.float32(max(float(np.linalg.norm(embedding)), 1e-9))


def _seen_columns(
    instances: Instances, candidates: Candidates, rows: NDArray[np.int64],
) -> dict[str, NDArray[Any]]:
    """Columns of the memory that a detection brings."""
    inputs = candidates.rows[rows]
    labels = np.empty(len(rows), object)
    labels[:] = list(map(instances.labels.__getitem__, inputs.tolist()))
    return {'boxes': candidates.boxes[rows], 'scores': candidates.scores[rows],
            'class_ids': candidates.class_ids[rows], 'labels': labels,
            'flags': instances.flags[inputs]}
