"""Matching of one frame: from detections and memory to pairs with a reason."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
import math

from masa_ros.structures.boxes import pairwise_iou
from masa_ros.tracking.absence import AbsenceScale, fading_costs
from masa_ros.tracking.appearance import AppearanceScale, LIMIT_FOR
from masa_ros.tracking.association import (
    appearance_similarity,
    distance_gate,
    greedy_assignment,
    optimal_assignment,
    rows_where,
    runners_up,
    UNMATCHED,
)
from masa_ros.tracking.config import TrackerConfig
from masa_ros.tracking.exemplars import ExemplarStore
from masa_ros.tracking.memory import DistractorMemory, TrackMemory
from masa_ros.tracking.motion import (
    boxes_of,
    measurements,
    Motion,
    motion_evidence,
    near_pairs,
)
from masa_ros.tracking.pairs import Pairs, ranks
from masa_ros.tracking.workspace import Workspace
import numpy as np
from numpy.typing import NDArray

# What a change of class costs, in nats: detectors that know the object change their mind in about
# one frame of eight.
CLASS_CHANGE = -2.0
# Least overlap of a weak detection with the predicted box: around every object there are weak
# detections of parts of it, which are not spread over the image as evidence has it.
WEAK_IOU = 0.5
# Sights after which a track is no false detection: what is learned of misses is learned of these.
SURE_HITS = 3
# Seconds over which the scores of a track are averaged.
SCORES_S = 1.0
# Seconds without a sight after which the long-term memory speaks for a track.
LOST_S = 0.5
# Matches of a frame that the appearance scale learns from, spread over all of them.
MOST_LESSONS = 32


@dataclass(frozen=True)
class Candidates:
    """
    The detections of a frame that take part, by descending score.

    Parameters
    ----------
    rows : ndarray
        ``(N,)`` int64 row of each in the frame's instances.
    boxes, scores, class_ids : ndarray
        Of these rows.
    embeddings : ndarray
        ``(N, D)`` float32; ``D`` is 0 where the frame has none.
    described : ndarray
        ``(N,)`` bool, whether the embedding can be used.
    strong, starts : ndarray
        ``(N,)`` bool, whether the score is enough to continue any track, and to start one.
    certainty : ndarray
        ``(N,)`` float32, how far the score is on the way from what starts a track (0) to 1 (1);
        1 for a model's own proposals.
    middle : ndarray
        ``(N,)`` float32, half way between the scores that continue and that start a track; 0 for
        a model's own proposals.
    looked_for : ndarray
        ``(N,)`` int64 track that the row was looked for at its predicted box, 0 for detections.
        Such rows are neither strong nor do they start tracks.

    """

    rows: NDArray[np.int64]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int64]
    embeddings: NDArray[np.float32]
    described: NDArray[np.bool_]
    strong: NDArray[np.bool_]
    starts: NDArray[np.bool_]
    certainty: NDArray[np.float32]
    middle: NDArray[np.float32]
    looked_for: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def measured(self) -> NDArray[np.float64]:
        """``(N, 4)`` `measurements` of the boxes."""
        return measurements(self.boxes)


@dataclass(frozen=True)
class Moment:
    """
    Time and place of the frame being matched.

    Parameters
    ----------
    frame_index : int
        Position in the sequence.
    gaps_s : ndarray
        ``(M,)`` seconds since each track was seen.
    missed : ndarray
        ``(M,)`` bool, tracks that were not seen in the frame before.
    leaving : ndarray
        ``(M,)`` bool, tracks that should be outside the image by now.
    image_size : tuple of int
        ``(height, width)`` in pixels.
    predicted : Motion
        Filters of the tracks, moved to this frame.

    """

    frame_index: int
    gaps_s: NDArray[np.float64]
    missed: NDArray[np.bool_]
    leaving: NDArray[np.bool_]
    image_size: tuple[int, int]
    predicted: Motion


@dataclass
class Matches:
    """
    Which track each candidate continues, and why.

    Parameters
    ----------
    columns : ndarray
        ``(N,)`` int64 row of the track in memory, or `UNMATCHED` or `SUPPRESSED`.
    similarities, margins : ndarray
        ``(N,)`` float32 in ``[0, 1]``; NaN where unmatched.
    by_motion : ndarray
        ``(N,)`` bool, matched without regard to appearance.

    """

    columns: NDArray[np.int64]
    similarities: NDArray[np.float32]
    margins: NDArray[np.float32]
    by_motion: NDArray[np.bool_]

    @classmethod
    def empty(cls, count: int) -> Matches:
        """No candidate matched."""
        return cls(np.full(count, UNMATCHED, np.int64), np.full(count, np.nan, np.float32),
                   np.full(count, np.nan, np.float32), np.zeros(count, bool))

    def add(
        self, rows: NDArray[np.int64], columns: NDArray[np.int64],
        similarities: NDArray[np.float32], others: NDArray[np.float32], *,
        by_motion: bool = False,
    ) -> None:
        """Enter matches, with their similarity and that of the best other track."""
        self.columns[rows] = columns
        self.similarities[rows] = similarities
        self.margins[rows] = similarities - others
        self.by_motion[rows] = by_motion

    def renumber(self, gone: NDArray[np.bool_]) -> None:
        """Follow the removal of the tracks whose ``(M,)`` flag is true."""
        rows = self.matched
        columns = self.columns[rows]
        self.columns[rows] = np.where(gone[columns], UNMATCHED, (np.cumsum(~gone) - 1)[columns])

    @property
    def matched(self) -> NDArray[np.int64]:
        """Candidates that continue a track."""
        return rows_where(self.columns >= 0)


class Matcher:
    """Matches candidates with the memory as the settings say, and learns the appearance scale."""

    def __init__(self, workspace: Workspace) -> None:
        self.absence = AbsenceScale()
        self.appearance = AppearanceScale()
        self.long_term = ExemplarStore(1)
        self.long_term_scale = AppearanceScale()
        self._work = workspace

    def match(
        self, config: TrackerConfig, candidates: Candidates, memory: TrackMemory,
        distractors: DistractorMemory, moment: Moment,
    ) -> Matches:
        """Find the track of each candidate."""
        matches = Matches.empty(len(candidates))
        if len(candidates) and len(memory):
            if config.similarity == 'evidence':
                matches = self._match_evidence(config, candidates, memory, moment)
            else:
                matches = _match_similarity(
                    config, candidates, memory, distractors, moment, self._work)
            _match_weak(config, candidates, memory, moment, matches)
        self._learn_absence(memory, moment, matches)
        return matches

    def _match_evidence(
        self, config: TrackerConfig, candidates: Candidates, memory: TrackMemory, moment: Moment,
    ) -> Matches:
        threshold = _logit(config.match_threshold)
        # What is further away than any likeness makes up for is out.
        pairs = near_pairs(
            candidates.measured, moment.predicted, moment.gaps_s, moment.image_size,
            self.absence.costs(moment.missed, moment.leaving), threshold - LIMIT_FOR, self._work)
        class_ids, track_class_ids = candidates.class_ids, memory['class_ids']
        if _several(class_ids, track_class_ids):
            pairs = pairs.plus(_class_costs(
                config, class_ids[pairs.rows], track_class_ids[pairs.tracks]))
        cosines = self._cosines(config, candidates, memory)
        absent = self._absent(memory, moment) if config.long_memory else None
        pairs = pairs.plus(self._likeness(candidates, memory, moment, pairs, cosines, absent))
        columns = _assign_pairs(config, pairs, candidates.strong, threshold)
        if absent is not None and config.long_memory_margin > 0:
            _drop_doubtful(columns, pairs, absent, config.long_memory_margin)
        matches = Matches.empty(len(candidates))
        found = rows_where(columns >= 0)
        matches.columns[:] = columns
        own, others = pairs.compared(columns)
        matches.add(found, columns[found], *_sigmoids(own[found], others[found]))
        self._learn(candidates, memory, columns, cosines, moment)
        if config.long_memory:
            self._learn_long_term(candidates, memory, columns)
        if candidates.looked_for.any():
            self._accept_looked_for(candidates, memory, matches, moment, cosines)
        return matches

    def _likeness(
        self, candidates: Candidates, memory: TrackMemory, moment: Moment, pairs: Pairs,
        cosines: NDArray[np.float32], absent: NDArray[np.bool_] | None,
    ) -> NDArray[np.float32]:
        """``(P,)`` what looks say for each pair; where one has none, what its age says."""
        gaps_s = moment.gaps_s[pairs.tracks]
        known, positions = pairs.positions(candidates.described, memory['has_embedding'])
        looks: NDArray[np.float32] = self.appearance.evidence(
            cosines.ravel()[positions][None], gaps_s[known])[0]
        likeness = looks
        if len(known) < len(pairs):
            likeness = fading_costs(gaps_s, moment.missed[pairs.tracks])
            likeness[known] = looks
        if absent is not None and absent.any():
            self._recall(candidates, memory, pairs, absent, likeness)
        return likeness

    def _learn_absence(
        self, memory: TrackMemory, moment: Moment, matches: Matches,
    ) -> None:
        """Show the price of absences which tracks of the frame before are seen again."""
        watched = ~moment.missed & (memory['hits'] >= SURE_HITS) & ~moment.leaving
        seen = np.zeros(len(memory), bool)
        seen[matches.columns[matches.matched]] = True
        self.absence.observe(int(watched.sum()), int((watched & ~seen).sum()))

    def _absent(self, memory: TrackMemory, moment: Moment) -> NDArray[np.bool_]:
        """``(M,)`` tracks that the long-term memory speaks for."""
        return np.asarray((moment.gaps_s > LOST_S) & moment.missed & memory['has_embedding']
                          & self.long_term.has(memory['ids']))

    def _recall(
        self, candidates: Candidates, memory: TrackMemory, pairs: Pairs,
        absent: NDArray[np.bool_], likeness: NDArray[np.float32],
    ) -> None:
        """Let the long-term memory speak for absent tracks, in the likeness of their pairs."""
        chosen, positions = pairs.positions(candidates.described, absent)
        if not len(chosen):
            return
        cosines = self._long_term_cosines(
            candidates, rows_where(candidates.described), memory['ids'][absent])
        # A track looks either as it did last or as it did once.
        said = self.long_term_scale.evidence(cosines.ravel()[positions][None])[0]
        likeness[chosen] = np.maximum(likeness[chosen], said)

    def _long_term_cosines(
        self, candidates: Candidates, rows: NDArray[np.int64], track_ids: NDArray[np.int64],
    ) -> NDArray[np.float32]:
        embeddings = rows_of(candidates.embeddings, rows)
        lengths = np.sqrt(np.einsum('ij,ij->i', embeddings, embeddings))
        return self.long_term.cosines(
            embeddings / np.maximum(lengths, np.float32(1e-9))[:, None], track_ids)

    def _learn_long_term(
        self, candidates: Candidates, memory: TrackMemory, columns: NDArray[np.int64],
    ) -> None:
        """Show matches to the scale of the long-term memory, whose cosines run higher."""
        rows = rows_where((columns >= 0) & candidates.described)
        rows = rows[self.long_term.has(memory['ids'][columns[rows]])]
        rows = rows[::-(-len(rows) // MOST_LESSONS) or 1]
        self.long_term_scale.observe(
            self._long_term_cosines(candidates, rows, memory['ids'][columns[rows]]))

    def _cosines(
        self, config: TrackerConfig, candidates: Candidates, memory: TrackMemory,
    ) -> NDArray[np.float32]:
        """Cosines of the described candidates and tracks."""
        rows = rows_where(candidates.described)
        tracks = rows_where(memory['has_embedding'])
        if not len(rows) or not len(tracks):
            return np.zeros((len(rows), len(tracks)), np.float32)
        return appearance_similarity(
            'product' if config.normalize_embeddings else 'cosine',
            rows_of(candidates.embeddings, rows), rows_of(memory.embeddings, tracks), self._work)

    def _learn(
        self, candidates: Candidates, memory: TrackMemory, columns: NDArray[np.int64],
        cosines: NDArray[np.float32], moment: Moment,
    ) -> None:
        """Show matches among the described candidates and tracks to the appearance scale."""
        rows, tracks = candidates.described, memory['has_embedding']
        used = rows_where(rows & (columns >= 0))
        used = used[tracks[columns[used]]]
        used = used[::-(-len(used) // MOST_LESSONS) or 1]
        own = columns[used]
        self.appearance.observe(
            cosines[ranks(rows, used)[:, None], ranks(tracks, own)], moment.gaps_s[own])

    def _accept_looked_for(
        self, candidates: Candidates, memory: TrackMemory, matches: Matches, moment: Moment,
        cosines: NDArray[np.float32],
    ) -> None:
        """Match what was looked for with its track where no other track looks more like it."""
        rows, tracks = rows_where(candidates.described), rows_where(memory['has_embedding'])
        free = np.ones(len(memory), bool)
        free[matches.columns[matches.matched]] = False
        ids = memory['ids'][tracks]
        for at in rows_where(candidates.looked_for[rows] > 0).tolist():
            own = rows_where(ids == candidates.looked_for[rows[at]])
            if not len(own) or not free[tracks[own[0]]]:
                continue
            said = self.appearance.evidence(cosines[at:at + 1], moment.gaps_s[tracks])[0]
            best = np.delete(said, own[0]).max(initial=-np.inf)
            if said[own[0]] > 0 and said[own[0]] >= best:
                matches.add(rows[at:at + 1], tracks[own],
                            *_sigmoids(said[own], np.full(1, best, np.float32)), by_motion=True)


def _drop_doubtful(
    columns: NDArray[np.int64], pairs: Pairs, lost: NDArray[np.bool_], margin: float,
) -> None:
    """Undo matches with lost tracks that another track or detection nearly equals."""
    found = rows_where(columns >= 0)
    own, others = pairs.compared(columns)
    # A detection that has a better track of its own is no rival.
    best = np.maximum(others[found], pairs.rivals(columns)[columns[found]])
    columns[found[lost[columns[found]] & (own[found] - best < margin)]] = UNMATCHED


def rows_of(array: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Rows of an array, in order, without a copy where they are all of them."""
    return array if len(rows) == len(array) else array[rows]


def _match_similarity(
    config: TrackerConfig, candidates: Candidates, memory: TrackMemory,
    distractors: DistractorMemory, moment: Moment, work: Workspace,
) -> Matches:
    """Match as the reference trackers do, by appearance."""
    similarity = _similarity(config, candidates, memory, distractors, work)
    tracks = similarity[:, :len(memory)]
    if config.max_distance_px > 0:
        tracks *= distance_gate(
            candidates.boxes, memory['boxes'], moment.frame_index - memory['last_frame'],
            config.max_distance_px, config.distance_rate_hz, work)
    if config.class_rule == 'strict':
        classes = np.concatenate([memory['class_ids'], distractors.class_ids()])
        similarity[_differ(candidates.class_ids[:, None], classes)] = 0
    matches = Matches.empty(len(candidates))
    matches.columns[:] = _assign(
        config, similarity, candidates.strong, config.match_threshold, len(memory))
    found = matches.matched
    columns = matches.columns[found]
    others = runners_up(tracks, found, columns).clip(0, 1)
    matches.add(found, columns, tracks[found, columns].clip(0, 1), others)
    return matches


def _similarity(
    config: TrackerConfig, candidates: Candidates, memory: TrackMemory,
    distractors: DistractorMemory, work: Workspace,
) -> NDArray[np.float32]:
    """``(N, M + K)`` with the tracks and the distractors; by IoU where there is no embedding."""
    others = distractors.embeddings(memory.embeddings.shape[1])
    entries = np.concatenate([memory.embeddings, others]) if len(others) else memory.embeddings
    known = np.concatenate([memory['has_embedding'], np.ones(len(others), bool)])
    if candidates.described.all() and known.all():
        return appearance_similarity(config.similarity, candidates.embeddings, entries, work)
    similarity = np.zeros((len(candidates), len(entries)), np.float32)
    similarity[:, :len(memory)] = pairwise_iou(candidates.boxes, memory['boxes'])
    if known.any() and candidates.described.any():
        similarity[np.ix_(candidates.described, known)] = appearance_similarity(
            config.similarity, candidates.embeddings[candidates.described], entries[known])
    return similarity


def _match_weak(
    config: TrackerConfig, candidates: Candidates, memory: TrackMemory, moment: Moment,
    matches: Matches,
) -> None:
    """
    Give weak detections to free tracks that were seen a moment ago, by motion alone.

    Only while the mean score of the track stays above the middle of what continues and what starts
    one: an object that is covered scores low for a while, something false does so all the time.
    """
    weak = rows_where((matches.columns == UNMATCHED) & ~candidates.strong
                      & (candidates.looked_for == 0)
                      & (candidates.scores > np.float32(config.low_score)))
    if not len(weak):
        return
    free = (moment.gaps_s <= config.coast_seconds) | ~moment.missed
    free[matches.columns[matches.matched]] = False
    tracks = rows_where(free)
    if not len(tracks):
        return
    evidence = motion_evidence(candidates.boxes[weak], moment.predicted.select(tracks),
                               moment.gaps_s[tracks], moment.image_size)
    evidence += _class_costs(
        config, candidates.class_ids[weak][:, None], memory['class_ids'][tracks])
    predicted = boxes_of(moment.predicted.mean[tracks])
    evidence[pairwise_iou(candidates.boxes[weak], predicted) < WEAK_IOU] = -np.inf
    means = blended_scores(memory['mean_scores'][tracks], candidates.scores[weak][:, None],
                           moment.gaps_s[tracks])
    evidence[means < candidates.middle[weak][:, None]] = -np.inf
    columns = optimal_assignment(evidence, _logit(config.match_threshold))
    found = rows_where(columns >= 0)
    matches.add(weak[found], tracks[columns[found]],
                *_sigmoids(evidence[found, columns[found]],
                           runners_up(evidence, found, columns[found])), by_motion=True)


def blended_scores(
    means: NDArray[np.float32], scores: NDArray[np.float32], gaps_s: NDArray[np.float64],
) -> NDArray[np.float32]:
    """Mean scores of tracks after another sight: old ones fade with the time that has passed."""
    share = 1 - np.exp(-gaps_s / SCORES_S)
    return np.asarray(means + share * (scores - means), np.float32)


def _assign(
    config: TrackerConfig, similarity: NDArray[np.float32], strong: NDArray[np.bool_],
    threshold: float, num_tracks: int | None = None,
) -> NDArray[np.int64]:
    """Track of each strong candidate; columns from `num_tracks` on distract."""
    if config.assignment == 'greedy':
        suppress = config.suppress_threshold if config.suppress_threshold < 1 else None
        return greedy_assignment(similarity, threshold, strong, num_tracks, suppress)
    columns = np.full(len(strong), UNMATCHED, np.int64)
    columns[strong] = optimal_assignment(
        similarity if strong.all() else similarity[strong], threshold)
    if num_tracks is not None:
        columns[columns >= num_tracks] = UNMATCHED
    return columns


def _assign_pairs(
    config: TrackerConfig, pairs: Pairs, strong: NDArray[np.bool_], threshold: float,
) -> NDArray[np.int64]:
    """Track of each strong candidate."""
    if config.assignment == 'greedy':
        return _assign(config, pairs.table(), strong, threshold)
    return pairs.assigned(strong, threshold)


def _class_costs(
    config: TrackerConfig, class_ids: NDArray[np.int64], track_class_ids: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Charge pairs whose classes differ, in nats."""
    cost = {'ignore': 0.0, 'soft': CLASS_CHANGE}.get(config.class_rule, -np.inf)
    return np.where(_differ(class_ids, track_class_ids), np.float32(cost), np.float32(0))


def _several(class_ids: NDArray[np.int64], others: NDArray[np.int64]) -> bool:
    """Tell whether there is more than one class at all."""
    return bool((class_ids != class_ids[0]).any() or (others != class_ids[0]).any())


def _differ(class_ids: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell whether both classes are known and not the same."""
    return np.asarray((class_ids != others) & (class_ids >= 0) & (others >= 0))


def _logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def _sigmoids(
    own: NDArray[np.float32], others: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Probabilities of evidence for matched pairs, and for the best other track of each."""
    own, others = 1 / (1 + np.exp(-np.stack([own, others]).clip(-80, 80)))
    return own, others
