"""Matching of one frame on hand-made tables."""

from __future__ import annotations

from typing import Any

from masa_ros.tracking.absence import leaving_image, LEFT, RETURN
from masa_ros.tracking.association import SUPPRESSED, UNMATCHED
from masa_ros.tracking.config import TrackerConfig
from masa_ros.tracking.matching import (
    Candidates,
    Matcher,
    Matches,
    Moment,
    SURE_HITS,
    WEAK_IOU,
)
from masa_ros.tracking.memory import COLUMNS, DistractorMemory, TrackMemory
from masa_ros.tracking.motion import initial_motion, motion_evidence, predict
from masa_ros.tracking.workspace import Workspace
import numpy as np
import pytest
from scipy.special import logit

IMAGE = (480, 640)


def boxes_at(*centers: tuple[float, float]) -> np.ndarray:
    points = np.array(centers, np.float32).reshape(-1, 2)
    return np.concatenate([points - 20, points + 20], axis=1)


def tracks_at(*centers: tuple[float, float], looks: np.ndarray | None = None) -> TrackMemory:
    boxes = boxes_at(*centers)
    motion = initial_motion(boxes)
    columns: dict[str, np.ndarray[Any, Any]] = {
        name: np.zeros((len(boxes), *shape), kind) for name, (kind, shape) in COLUMNS.items()}
    columns.update(boxes=boxes, mean=motion.mean, velocity=motion.velocity,
                   variance=motion.variance, mean_scores=np.full(len(boxes), 0.9, np.float32),
                   has_embedding=np.full(len(boxes), looks is not None))
    memory = TrackMemory()
    memory.append(columns, looks)
    return memory


def candidates_at(
    *centers: tuple[float, float], looks: np.ndarray | None = None, score: float = 0.9,
) -> Candidates:
    boxes = boxes_at(*centers)
    count = len(boxes)
    return Candidates(
        np.arange(count), boxes, np.full(count, score, np.float32), np.zeros(count, np.int64),
        np.zeros((count, 0), np.float32) if looks is None else looks,
        np.full(count, looks is not None), np.full(count, score > 0.4),
        np.full(count, score > 0.6), np.full(count, max((score - 0.6) / 0.4, 0), np.float32),
        np.full(count, 0.5, np.float32),
        np.zeros(count, np.int64))


def moment_of(memory: TrackMemory, gap_s: float = 0.04, missed: bool = False) -> Moment:
    gaps = np.full(len(memory), gap_s)
    motion = predict(initial_motion(memory['boxes']), gaps)
    return Moment(1, gaps, np.full(len(memory), missed),
                  leaving_image(motion.mean, IMAGE), IMAGE, motion)


def match(
    config: TrackerConfig, candidates: Candidates, memory: TrackMemory,
    moment: Moment | None = None, distractors: DistractorMemory | None = None,
) -> Matches:
    return Matcher(Workspace()).match(
        config, candidates, memory, distractors or DistractorMemory(),
        moment or moment_of(memory))


def test_nothing_matches_nothing() -> None:
    for similarity in ('evidence', 'combined'):
        config = TrackerConfig(similarity=similarity)
        assert match(config, candidates_at(), tracks_at((9, 9))).columns.tolist() == []
        assert match(config, candidates_at((9, 9)), tracks_at()).columns.tolist() == [UNMATCHED]


def test_the_similarity_is_the_probability_that_evidence_gives() -> None:
    memory, found = tracks_at((100, 100)), candidates_at((110, 100))
    moment = moment_of(memory)
    evidence = motion_evidence(found.boxes, moment.predicted, moment.gaps_s, IMAGE)[0, 0]
    matches = match(TrackerConfig(), found, memory, moment)
    assert matches.similarities[0] == pytest.approx(1 / (1 + np.exp(-evidence)), rel=1e-5)


def test_a_track_that_was_missed_is_less_likely_to_be_back() -> None:
    memory, found = tracks_at((100, 100)), candidates_at((130, 100))
    odds = [np.log(s / (1 - s)) for s in (
        match(TrackerConfig(match_threshold=0.01), found, memory,
              moment_of(memory, 0.5, missed)).similarities[0] for missed in (False, True))]
    # Nobody knows what it looks like, so half a second costs log(1.5) besides.
    assert odds[1] - odds[0] == pytest.approx(RETURN - np.log(1.5), abs=1e-3)


def test_a_weak_detection_needs_overlap_with_the_prediction() -> None:
    # A shift of x on boxes 40 wide: IoU (40 - x) / (40 + x) is 0.5 at x = 13.3.
    assert WEAK_IOU == 0.5
    memory = tracks_at((100, 100))
    near = match(TrackerConfig(), candidates_at((112, 100), score=0.2), memory)
    far = match(TrackerConfig(), candidates_at((115, 100), score=0.2), memory)
    assert near.columns.tolist() == [0]
    assert near.by_motion.tolist() == [True]
    assert far.columns.tolist() == [UNMATCHED]


@pytest.mark.parametrize(('mean', 'gap_s', 'continued'),
                         [(0.9, 0.04, True), (0.55, 0.04, True), (0.9, 1.0, False),
                          (0.52, 0.1, False)])
def test_a_weak_detection_continues_no_track_that_scored_low_all_along(
    mean: float, gap_s: float, continued: bool,
) -> None:
    # With a score of 0.2 over a second: 0.9 - 0.7 * 0.039 = 0.87, 0.55 - 0.35 * 0.039 = 0.54,
    # 0.9 - 0.7 * 0.632 = 0.46, 0.52 - 0.32 * 0.095 = 0.49; 0.5 is asked for.
    memory = tracks_at((100, 100))
    memory['mean_scores'][:] = mean
    found = match(TrackerConfig(), candidates_at((100, 100), score=0.2), memory,
                  moment_of(memory, gap_s))
    assert found.columns.tolist() == [0 if continued else UNMATCHED]


def test_a_strong_detection_goes_before_a_weak_one_that_fits_better() -> None:
    memory = tracks_at((100, 100))
    both = candidates_at((108, 100), (100, 100))
    both.strong[1] = False
    assert match(TrackerConfig(), both, memory).columns.tolist() == [0, UNMATCHED]


def test_what_is_learned_comes_from_described_matches_only() -> None:
    looks = np.eye(3, 4, dtype=np.float32)
    memory = tracks_at((100, 100), (300, 300), (500, 100), looks=looks)
    memory['has_embedding'][0] = False
    found = candidates_at((100, 100), (300, 300), (500, 100), looks=looks)
    found.described[1] = False
    matcher = Matcher(Workspace())
    before = matcher.appearance.same.weight
    matches = matcher.match(
        TrackerConfig(), found, memory, DistractorMemory(), moment_of(memory))
    assert matches.columns.tolist() == [0, 1, 2]
    assert matcher.appearance.same.weight == before + 1


@pytest.mark.parametrize('count', [3, 40])
def test_what_is_learned_does_not_depend_on_the_order_of_detections(count: int) -> None:
    # Tracks that look like nobody else, seen as they are: cosines of 1 and 0.
    places = [(10.0 + 15 * k, 100.0) for k in range(count)]
    looks = np.eye(count, dtype=np.float32)
    memory = tracks_at(*places, looks=looks)
    values = []
    for order in (np.arange(count), np.random.default_rng(0).permutation(count)):
        matcher = Matcher(Workspace())
        matches = matcher.match(
            TrackerConfig(), candidates_at(*(places[k] for k in order), looks=looks[order]),
            memory, DistractorMemory(), moment_of(memory))
        assert matches.columns.tolist() == order.tolist()
        values.append(matcher.appearance.values())
    np.testing.assert_allclose(values[0], values[1])
    learned = min(count, 32) if count < 32 else len(range(0, count, -(-count // 32)))
    # With the prior of 0.8 and 0.4 that counts as ten.
    assert values[0][0] == pytest.approx((0.8 * 10 + learned) / (10 + learned))
    assert values[0][3] == pytest.approx(0.4 * 10 / (10 + learned))


@pytest.mark.parametrize('described', [(True, False), (False, True), (True, True)])
def test_evidence_is_the_sum_of_place_and_looks_where_both_have_some(
    described: tuple[bool, bool],
) -> None:
    looks = np.array([[0.6, 0.8], [0.8, 0.6]], np.float32)
    memory = tracks_at((100, 100), (300, 100), looks=looks)
    found = candidates_at((340, 100), (130, 100), looks=looks[::-1].copy())
    found.described[:] = described
    moment = moment_of(memory, 2.0)
    place = motion_evidence(found.boxes, moment.predicted, moment.gaps_s, IMAGE)
    matcher = Matcher(Workspace())
    said = matcher.appearance.evidence(np.ones((1, 1), np.float32))[0, 0]
    matches = matcher.match(
        TrackerConfig(match_threshold=0.001), found, memory, DistractorMemory(), moment)
    assert matches.columns.tolist() == [1, 0]
    expected = [place[row, 1 - row] + (said if described[row] else 0) for row in range(2)]
    # Seen in the frame before, so that nothing fades.
    assert logit(matches.similarities.astype(np.float64)) == pytest.approx(expected, abs=0.02)


def test_without_looks_a_track_that_was_missed_fades_with_the_time() -> None:
    found, odds = candidates_at((100, 100)), []
    for look in (None, np.array([[1.0, 0.0]], np.float32)):
        memory = tracks_at((100, 100), looks=look)
        odds.append([float(logit(match(
            TrackerConfig(match_threshold=0.001), found, memory,
            moment_of(memory, 3.0, missed)).similarities[0])) for missed in (False, True)])
    # The detection has no look, so the track's own does not help: log(1 + 3 s) = 1.386.
    for seen, missed in odds:
        assert missed - seen == pytest.approx(RETURN - 1.386, abs=0.01)


def test_misses_are_learned_from_confirmed_tracks_that_were_just_seen() -> None:
    memory = tracks_at((100, 100), (300, 300), (500, 100), (200, 400))
    memory['hits'][:] = [SURE_HITS, SURE_HITS, SURE_HITS - 1, SURE_HITS]
    moment = moment_of(memory)
    moment.missed[3] = True
    matcher = Matcher(Workspace())
    found = candidates_at((100, 100))
    matcher.match(TrackerConfig(), found, memory, DistractorMemory(), moment)
    # Two sights, one miss beside the 2 of 20 that are believed before.
    assert matcher.absence.values() == pytest.approx([3, 22])


def test_a_frame_without_detections_is_a_miss_of_all() -> None:
    memory = tracks_at((100, 100), (300, 300))
    memory['hits'][:] = SURE_HITS
    matcher = Matcher(Workspace())
    matcher.match(TrackerConfig(), candidates_at(), memory, DistractorMemory(),
                  moment_of(memory))
    assert matcher.absence.values() == pytest.approx([4, 22])


def test_distractors_take_what_resembles_them_most() -> None:
    looks = np.eye(2, 4, dtype=np.float32) * 5
    memory = tracks_at((100, 100), looks=looks[:1])
    distractors = DistractorMemory()
    distractors.push(looks[1:], np.array([0]), 1)
    found = candidates_at((100, 100), (300, 300), looks=looks)
    for assignment in ('greedy', 'optimal'):
        config = TrackerConfig(similarity='cosine', assignment=assignment)
        matches = match(config, found, memory, distractors=distractors)
        assert matches.columns.tolist() == [0, UNMATCHED]


def test_a_weak_look_alike_is_suppressed() -> None:
    looks = np.ones((1, 4), np.float32)
    config = TrackerConfig(similarity='cosine', assignment='greedy', suppress_threshold=0.6,
                           low_score=1.0)
    matches = match(config, candidates_at((100, 100), looks=looks, score=0.3),
                    tracks_at((100, 100), looks=looks))
    assert matches.columns.tolist() == [SUPPRESSED]


def test_matches_follow_removed_tracks() -> None:
    matches = Matches.empty(4)
    matches.columns[:] = [2, UNMATCHED, 0, 1]
    matches.renumber(np.array([False, True, False]))
    assert matches.columns.tolist() == [1, UNMATCHED, 0, UNMATCHED]


def test_who_should_have_left_the_image_is_not_taken_back_lightly() -> None:
    # Boxes of 40 px that should stand wholly inside, 10 % and 25 % outside; alike all the same.
    for x, cost in ((320, 0.0), (624, 0.0), (630, LEFT)):
        memory = tracks_at((x, 240), looks=np.array([[1, 0]], np.float32))
        seen = candidates_at((600, 240), looks=np.array([[1, 0]], np.float32))
        matcher = Matcher(Workspace())
        found = [float(logit(matcher.match(
            TrackerConfig(match_threshold=0.001), seen, memory,
            DistractorMemory(), moment_of(memory, 1.0, missed)).similarities[0]))
            for missed in (False, True)]
        assert found[1] - found[0] == pytest.approx(RETURN + cost, abs=0.02)
