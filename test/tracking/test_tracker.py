"""The tracker as its users meet it: scenes, states, options, odd input, saving, long runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
import sys
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st
from masa_ros.structures.instances import Flag, Instances, TrackedInstances, TrackState
from masa_ros.structures.masks import RoiMask
from masa_ros.tracking.tracker import Tracker, TrackerConfig
import numpy as np
import pytest

IMAGE = (480, 640)


class Scene:
    """Feeds a tracker frame by frame; objects are given by their centres and looks."""

    def __init__(self, rate_hz: float = 25.0, **changes: object) -> None:
        self.tracker = Tracker(TrackerConfig.preset('default', **changes), seed='scene')
        self.step_ns = round(1e9 / rate_hz)
        self.frame = -1

    def see(
        self, *centers: tuple[float, float],
        looks: Sequence[np.ndarray] | np.ndarray | None = None,
        scores: Sequence[float] | None = None, classes: Sequence[int] | None = None,
        size: float = 40.0, skip: int = 0,
    ) -> TrackedInstances:
        """Process the next frame, after `skip` dropped ones."""
        self.frame += 1 + skip
        points = np.array(centers, np.float32).reshape(-1, 2)
        instances = Instances.from_boxes(
            np.concatenate([points - size / 2, points + size / 2], axis=1),
            scores if scores is not None else np.full(len(points), 0.9), classes)
        if looks is not None:
            instances = instances.with_fields(
                embeddings=np.array(looks, np.float32).reshape(len(points), -1))
        return self.tracker.update(instances, self.frame, 1 + self.frame * self.step_ns, IMAGE)

    def wait(self, frames: int) -> TrackedInstances:
        """Process frames without objects; return the last."""
        for _ in range(frames):
            tracks = self.see()
        return tracks


def looks_of(count: int, seed: int = 0, width: int = 64) -> np.ndarray:
    """``(count, width)`` random looks, all unlike each other."""
    return np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)


def in_state(tracks: TrackedInstances, state: TrackState) -> list[int]:
    return [int(i) for i in tracks.track_ids[tracks.states == state]]


# Identities.


def test_ids_start_at_one_and_follow_the_score() -> None:
    tracks = Scene().see((100, 100), (300, 300), scores=[0.8, 0.9])
    assert tracks.track_ids.tolist() == [2, 1]


def test_seen_objects_come_out_in_the_order_of_the_input_with_all_they_carry() -> None:
    scene = Scene()
    scene.see((100, 100), (300, 300), (500, 100))
    boxes = np.array([[480, 80, 520, 120], [80, 80, 120, 120], [280, 280, 320, 320]], np.float32)
    mask = RoiMask(80, 80, 1, 4, np.array([1, 3], np.uint32))
    given = Instances.from_boxes(boxes, [0.6, 0.9, 0.8], [3, 4, 5], ['c', 'd', 'e']).with_fields(
        masks=(None, mask, None), mask_qualities=np.array([0.1, 0.2, 0.3], np.float32),
        flags=np.array([1, 9, 2], np.uint8), embeddings=looks_of(3))
    tracks = scene.tracker.update(given, 1, 40_000_001, IMAGE)
    assert tracks.track_ids.tolist() == [3, 1, 2]
    np.testing.assert_array_equal(tracks.boxes, boxes)
    assert tracks.labels == ('c', 'd', 'e')
    assert tracks.masks[1] is mask
    assert tracks.class_ids.tolist() == [3, 4, 5]
    assert tracks.flags.tolist() == [1, 9, 2]
    np.testing.assert_array_equal(tracks.mask_qualities, given.mask_qualities)
    assert given.embeddings is not None
    np.testing.assert_array_equal(tracks.embeddings, given.embeddings)


def test_times_and_ages_are_those_of_the_frames() -> None:
    scene = Scene(rate_hz=25)
    first = scene.see((100, 100))
    later = scene.see((102, 100), skip=3)
    assert (first.ages.tolist(), later.ages.tolist()) == ([0], [1])
    assert later.first_seen_ns.tolist() == [1]
    assert later.last_seen_ns.tolist() == [1 + 4 * 40_000_000]


def test_ids_survive_a_two_frame_gap() -> None:
    scene = Scene()
    for step in range(5):
        scene.see((100 + 3 * step, 100))
    scene.wait(2)
    assert scene.see((121, 100)).track_ids.tolist() == [1]


def test_uuids_stay_with_the_track_and_are_of_version_4() -> None:
    scene = Scene()
    first = scene.see((100, 100), (300, 300))
    second = scene.see((300, 300), (100, 100))
    assert second.uuids == first.uuids[::-1]
    assert all(UUID(bytes=uuid).version == 4 for uuid in first.uuids)


def test_two_trackers_share_no_uuid_unless_they_are_seeded_alike() -> None:
    def uuids(seed: str | None) -> set[bytes]:
        tracker = Tracker(seed=seed)
        instances = Instances.from_boxes([[0, 0, 9, 9], [50, 50, 70, 70]])
        return set(tracker.update(instances, 0, 0, IMAGE).uuids)

    assert not uuids(None) & uuids(None)
    assert uuids('left') == uuids('left')
    assert not uuids('left') & uuids('right')


def test_reset_starts_ids_anew_but_repeats_no_uuid() -> None:
    scene = Scene()
    before = scene.see((100, 100))
    scene.tracker.reset()
    scene.frame = -1
    after = scene.see((100, 100))
    assert (before.track_ids.tolist(), after.track_ids.tolist()) == ([1], [1])
    assert before.uuids != after.uuids
    assert scene.tracker.num_tracks == 1


# Motion and appearance.


def test_near_identical_objects_keep_apart_when_they_pass_each_other() -> None:
    scene = Scene()
    look = looks_of(1)[0]
    for step in range(60):
        x = 4.0 * step
        tracks = scene.see((200 + x, 200), (440 - x, 232), looks=[look, look])
    assert tracks.track_ids.tolist() == [1, 2]


def test_without_motion_near_identical_objects_are_confused() -> None:
    # What the option `similarity` mends: appearance alone gives each row its best look.
    look = looks_of(1)[0]
    noise = looks_of(240, seed=1) * 0.01
    swaps = {}
    for similarity in ('combined', 'evidence'):
        scene = Scene(similarity=similarity, match_threshold=0.4)
        ids = []
        for step in range(60):
            tracks = scene.see((200, 200), (400, 200),
                               looks=[look + noise[2 * step], look + noise[2 * step + 1]])
            ids.append(tuple(tracks.track_ids.tolist()))
        swaps[similarity] = len(set(ids))
    assert swaps['evidence'] == 1
    assert swaps['combined'] > 1


def test_a_new_object_does_not_take_the_id_of_a_look_alike_that_just_left() -> None:
    # User complaint 58 of the reference: one leaves on the right, its twin comes on the left.
    look = looks_of(1)[0]
    ids = {}
    for similarity in ('evidence', 'cosine'):
        scene = Scene(similarity=similarity)
        for step in range(20):
            scene.see((430 + 10 * step, 240), looks=[look])
        scene.wait(3)
        ids[similarity] = scene.see((25, 240), looks=[look]).track_ids.tolist()
    assert ids['evidence'][0] == 2
    assert ids['cosine'][0] == 1


@pytest.mark.parametrize('rate_hz', [5.0, 2.5])
def test_at_low_frame_rates_appearance_decides(rate_hz: float) -> None:
    # Two objects change places between two frames: only their looks tell, once it is known what
    # a cosine is worth here.
    scene = Scene(rate_hz=rate_hz)
    looks = looks_of(2)
    for _ in range(12):
        scene.see((200, 200), (260, 200), looks=looks)
    tracks = scene.see((260, 200), (200, 200), looks=looks)
    assert tracks.track_ids.tolist() == [1, 2]


def test_at_high_frame_rates_motion_decides() -> None:
    # At 50 Hz nothing jumps by five sizes and back; a swap of looks is a fault of the looks.
    scene = Scene(rate_hz=50)
    looks = looks_of(2)
    for _ in range(10):
        scene.see((200, 200), (400, 200), looks=looks)
    assert scene.see((200, 200), (400, 200), looks=looks[::-1]).track_ids.tolist() == [1, 2]


def test_an_object_is_found_again_by_its_look_after_a_long_occlusion() -> None:
    scene = Scene()
    looks = looks_of(3)
    for _ in range(20):
        scene.see((100, 100), (500, 400), (320, 240), looks=looks)
    for _ in range(100):
        scene.see((320, 240), looks=looks[2:])
    tracks = scene.see((180, 160), (320, 240), looks=looks[[0, 2]])
    assert tracks.track_ids[:2].tolist() == [1, 2]


def test_a_stranger_in_the_place_of_a_lost_track_is_a_new_object() -> None:
    scene = Scene()
    looks = looks_of(3)
    for _ in range(20):
        scene.see((100, 100), (500, 400), looks=looks[:2])
    for _ in range(100):
        scene.see((500, 400), looks=looks[1:2])
    tracks = scene.see((110, 110), (500, 400), looks=looks[[2, 1]])
    assert tracks.track_ids[:2].tolist() == [3, 2]


def test_dropped_frames_do_not_break_a_moving_track() -> None:
    # The prediction reaches as far as the stamps say, not one step.
    scene = Scene(rate_hz=25)
    for step in range(20):
        scene.see((100 + 6 * step, 100))
    assert scene.see((100 + 6 * 27, 100), skip=7).track_ids.tolist() == [1]


def test_similarity_and_margin_say_why() -> None:
    scene = Scene()
    looks = looks_of(2)
    first = scene.see((100, 100), (400, 300), looks=looks)
    second = scene.see((100, 100), (400, 300), looks=looks)
    assert np.isnan(first.similarities).all()
    assert np.isnan(first.margins).all()
    assert (second.similarities > 0.99).all()
    assert (second.margins > 0.99).all()


def test_the_margin_is_small_where_two_tracks_fit_equally() -> None:
    scene = Scene()
    look = looks_of(1)[0]
    for _ in range(5):
        scene.see((200, 200), (216, 200), looks=[look, look], scores=[1.0, 1.0])
    tracks = scene.see((208, 200), looks=[look])
    assert tracks.similarities[0] > 0.9
    assert abs(tracks.margins[0]) < 0.05


def test_the_margin_is_the_similarity_where_there_is_no_other_track() -> None:
    scene = Scene()
    scene.see((100, 100))
    tracks = scene.see((100, 100))
    assert tracks.margins[0] == tracks.similarities[0] > 0.5


# Low scores, duplicates, classes.


def test_a_low_score_continues_a_track_by_motion_and_leaves_its_look_alone() -> None:
    scene = Scene()
    look, occluder = looks_of(2)
    for _ in range(5):
        scene.see((100, 100), looks=[look])
    before = scene.tracker.state()['embeddings'].copy()
    tracks = scene.see((103, 100), looks=[occluder], scores=[0.15])
    assert tracks.track_ids.tolist() == [1]
    assert tracks.states.tolist() == [TrackState.TRACKED]
    np.testing.assert_array_equal(scene.tracker.state()['embeddings'], before)


def test_what_has_scored_low_for_long_is_no_longer_continued_by_low_scores() -> None:
    # From 1 the mean falls to 0.15 + 0.85 * exp(-t); it is below 0.5 after 0.887 s, 23 frames.
    scene = Scene()
    for _ in range(5):
        scene.see((100, 100), scores=[1.0])
    seen = [bool(scene.see((100, 100), scores=[0.15]).seen.any()) for _ in range(40)]
    assert seen.index(False) == 22
    assert not any(seen[22:])


def test_without_low_score_matching_the_track_is_not_seen() -> None:
    scene = Scene(low_score=1.0)
    for _ in range(5):
        scene.see((100, 100))
    assert not scene.see((103, 100), scores=[0.15]).seen.any()


def test_a_low_score_starts_no_track() -> None:
    scene = Scene()
    for _ in range(5):
        assert len(scene.see((100, 100), scores=[0.3])) == 0


def test_proposals_have_a_limit_of_their_own() -> None:
    boxes = np.array([[80, 80, 120, 120], [280, 280, 320, 320]], np.float32)
    proposals = Instances.from_boxes(boxes, [0.4, 0.2], flag=Flag.FROM_PROPOSAL)
    for own, ids in ((0.3, [1]), (0.1, [1, 2]), (0.0, [])):
        tracker = Tracker(TrackerConfig(new_proposal_score=own))
        assert tracker.update(proposals, 0, 0, IMAGE).track_ids.tolist() == ids
        assert tracker.update(proposals, 1, 10 ** 8, IMAGE).track_ids.tolist() == ids


def test_a_low_score_does_not_revive_a_track_unseen_for_long() -> None:
    scene = Scene()
    for _ in range(5):
        scene.see((100, 100))
    scene.wait(25)
    assert not scene.see((100, 100), scores=[0.3]).seen.any()


def test_two_boxes_on_one_object_do_not_become_two_tracks() -> None:
    scene, naive = Scene(), Scene(new_track_iou=1.0, duplicate_iou=1.0, low_duplicate_iou=1.0)
    for _ in range(3):
        counts = [len(each.see((100, 100), (106, 100), scores=[0.9, 0.8]))
                  for each in (scene, naive)]
    assert counts == [1, 2]


@pytest.mark.parametrize(('score', 'count'), [(0.65, 1), (0.95, 2)])
def test_a_surer_box_may_overlap_a_tracked_one_by_more(score: float, count: int) -> None:
    # 40 px apart by 18: an IoU of 22 / 58 = 0.38. 0.5 * (1 + 0.125) / 2 = 0.28 and
    # 0.5 * (1 + 0.875) / 2 = 0.47 are allowed.
    scene = Scene()
    scene.see((100, 100), scores=[1.0])
    assert len(scene.see((100, 100), (118, 100), scores=[1.0, score])) == count


def test_a_proposal_may_overlap_a_tracked_one_whatever_its_score() -> None:
    boxes = np.array([[80, 80, 120, 120], [98, 80, 138, 120]], np.float32)
    for scores in ([0.9, 0.85], [0.9, 0.55]):
        tracker = Tracker(TrackerConfig())
        proposals = Instances.from_boxes(boxes, scores, flag=Flag.FROM_PROPOSAL)
        assert len(tracker.update(proposals, 0, 0, IMAGE)) == 2


def test_near_equal_boxes_of_two_classes_are_one_object() -> None:
    tracks = Scene().see((100, 100), (101, 100), classes=[2, 7], scores=[0.8, 0.9])
    assert tracks.class_ids.tolist() == [7]


@pytest.mark.parametrize(('rule', 'ids'), [('ignore', [1]), ('soft', [1]), ('strict', [2])])
def test_a_change_of_class_in_place(rule: str, ids: list[int]) -> None:
    scene = Scene(class_rule=rule)
    look = looks_of(1)
    for _ in range(5):
        scene.see((100, 100), looks=look, classes=[2])
    assert scene.see((100, 100), looks=look, classes=[7]).track_ids[:1].tolist() == ids


def test_soft_classes_break_a_tie() -> None:
    # Seen once a second, both tracks fit both detections; the class tells them apart.
    ids = {}
    for rule in ('soft', 'ignore'):
        scene = Scene(class_rule=rule, rate_hz=1)
        for _ in range(5):
            scene.see((200, 200), (224, 200), classes=[1, 2], scores=[0.9, 0.8])
        ids[rule] = scene.see((224, 200), (200, 200), classes=[1, 2],
                              scores=[0.9, 0.8]).track_ids.tolist()
    assert ids == {'soft': [1, 2], 'ignore': [2, 1]}


def test_an_unknown_class_agrees_with_all() -> None:
    scene = Scene(class_rule='strict')
    scene.see((100, 100), classes=[2])
    assert scene.see((100, 100), classes=[-1]).track_ids.tolist() == [1]


def test_optimal_assignment_keeps_the_match_that_greedy_takes_away() -> None:
    # The better-scoring detection lies between both tracks and likes track 1 a little better;
    # the other fits track 1 only.
    ids = {}
    for assignment in ('greedy', 'optimal'):
        scene = Scene(assignment=assignment)
        for _ in range(10):
            scene.see((200, 200), (230, 200), scores=[0.95, 0.9])
        ids[assignment] = scene.see((213, 200), (190, 200), scores=[0.95, 0.9]).track_ids[
            :2].tolist()
    assert ids['optimal'] == [2, 1]
    assert ids['greedy'] == [1, 3]


# Life of a track.


def test_a_track_is_tentative_until_it_was_seen_often_enough() -> None:
    scene = Scene(confirm_hits=3, confirm_score=1.0)
    states = [scene.see((100, 100)).states.tolist() for _ in range(4)]
    assert states == [[TrackState.TENTATIVE]] * 2 + [[TrackState.TRACKED]] * 2


def test_a_sure_detection_confirms_its_track_at_once() -> None:
    scene = Scene(confirm_hits=3, confirm_score=0.8)
    tracks = scene.see((100, 100), (300, 300), scores=[0.9, 0.7])
    assert tracks.states.tolist() == [TrackState.TRACKED, TrackState.TENTATIVE]
    assert scene.see((100, 100), scores=[0.5]).states[0] == TrackState.TRACKED


def test_a_tentative_track_is_removed_and_told_once_when_it_is_not_seen_again() -> None:
    scene = Scene(rate_hz=10, coast_seconds=0.3)
    scene.see((100, 100), scores=[0.65])
    reports = [scene.see() for _ in range(6)]
    assert [len(tracks) for tracks in reports] == [0, 0, 1, 0, 0, 0]
    assert reports[2].states.tolist() == [TrackState.REMOVED]
    assert scene.tracker.num_tracks == 0


def test_a_flickering_object_is_confirmed_within_the_coasting_time() -> None:
    scene = Scene(rate_hz=10, coast_seconds=0.3)
    scene.see((100, 100), scores=[0.65])
    scene.see()
    assert scene.see((100, 100), scores=[0.65]).states.tolist() == [TrackState.TRACKED]


def test_a_lost_object_coasts_is_lost_once_and_removed_once() -> None:
    scene = Scene(rate_hz=10, coast_seconds=0.35, memory_seconds=1.0)
    for step in range(10):
        scene.see((100 + 5 * step, 100))
    reports = [scene.see() for _ in range(15)]
    assert [tracks.states.tolist() for tracks in reports] == [
        *[[TrackState.COASTING]] * 3, [TrackState.LOST], *[[]] * 5, [TrackState.REMOVED],
        *[[]] * 5]
    assert scene.tracker.num_tracks == 0


def test_coasting_boxes_go_on_with_the_motion_and_lost_ones_stay() -> None:
    scene = Scene(rate_hz=10, coast_seconds=0.35)
    for step in range(30):
        last = scene.see((100 + 5 * step, 100))
    reports = [scene.see() for _ in range(4)]
    centers = [float(tracks.boxes[0, [0, 2]].mean()) for tracks in reports]
    assert centers[:3] == pytest.approx([250, 255, 260], abs=2)
    np.testing.assert_array_equal(reports[3].boxes, last.boxes)


def test_unseen_rows_carry_what_is_known_of_the_track() -> None:
    scene = Scene()
    for _ in range(3):
        last = scene.see((100, 100), looks=looks_of(1), classes=[5], scores=[0.8])
    tracks = scene.see((400, 400), looks=looks_of(1, seed=9))
    assert tracks.states.tolist() == [TrackState.TRACKED, TrackState.COASTING]
    assert tracks.uuids[1] == last.uuids[0]
    assert tracks.class_ids[1] == 5
    assert tracks.scores[1] == np.float32(0.8)
    assert tracks.flags[1] == Flag.FROM_DETECTION | Flag.PREDICTED
    assert tracks.masks[1] is None
    assert np.isnan([tracks.similarities[1], tracks.margins[1], tracks.mask_qualities[1]]).all()
    assert tracks.last_seen_ns[1] == last.last_seen_ns[0]
    assert tracks.ages[1] == 3
    assert tracks.embeddings is not None
    assert tracks.embeddings[1] @ looks_of(1)[0] == pytest.approx(
        np.linalg.norm(looks_of(1)), rel=1e-5)


def test_seen_rows_come_first_then_coasting_lost_and_removed() -> None:
    scene = Scene(rate_hz=10, coast_seconds=0.3, memory_seconds=0.55, confirm_score=0.5)
    places = [(60.0 + 120 * i, 100.0) for i in range(5)]
    for keep in ((0, 1, 2, 3), (0, 1, 2), (0, 1, 2), (0, 1), (0, 1), (0,), (0,)):
        tracks = scene.see(*[places[i] for i in keep])
    # Unseen since 0.2, 0.4 and 0.6 seconds; the one of 0.4 was told as lost one frame before.
    assert tracks.states.tolist() == [TrackState.TRACKED, TrackState.COASTING,
                                      TrackState.REMOVED]


def test_a_track_that_leaves_the_picture_does_not_coast() -> None:
    scene = Scene()
    for step in range(20):
        scene.see((445 + 10 * step, 240))
    tracks = scene.see()
    assert tracks.states.tolist() == [TrackState.LOST]


def test_a_lost_track_that_is_found_again_keeps_its_id_and_can_be_lost_again() -> None:
    scene = Scene(rate_hz=10, coast_seconds=0.15)
    looks = looks_of(1)
    for _ in range(5):
        scene.see((100, 100), looks=looks)
    assert in_state(scene.wait(2), TrackState.LOST) == [1]
    assert in_state(scene.see((100, 100), looks=looks), TrackState.TRACKED) == [1]
    assert in_state(scene.wait(2), TrackState.LOST) == [1]


def test_nothing_unseen_is_reported_when_that_is_off() -> None:
    scene = Scene(report_unseen=False, rate_hz=10, memory_seconds=0.5)
    scene.see((100, 100))
    assert [len(scene.see()) for _ in range(8)] == [0] * 8


def test_the_memory_lasts_seconds_whatever_the_frame_rate_and_the_drops() -> None:
    for rate_hz, skip in ((50.0, 0), (10.0, 0), (50.0, 9)):
        scene = Scene(rate_hz=rate_hz, memory_seconds=2.0)
        scene.see((100, 100))
        start = scene.frame
        while scene.tracker.num_tracks:
            scene.see(skip=skip)
        assert (scene.frame - start) / rate_hz == pytest.approx(2.0, abs=0.2)


def test_the_memory_also_ends_after_so_many_frames() -> None:
    scene = Scene(memory_seconds=0.0, memory_frames=7)
    scene.see((100, 100))
    reports = [scene.see() for _ in range(8)]
    assert [in_state(tracks, TrackState.REMOVED) for tracks in reports] == [[]] * 6 + [[1], []]


def test_no_limit_keeps_a_track_for_ever() -> None:
    scene = Scene(memory_seconds=0.0, memory_frames=0)
    scene.see((100, 100))
    scene.see(skip=10 ** 6)
    assert scene.tracker.num_tracks == 1


def test_empty_frames_age_tracks_unless_the_reference_is_followed() -> None:
    mended = Scene(memory_frames=5, expire_before_matching=False)
    quirk = Scene(memory_frames=5, expire_before_matching=False, age_on_empty_frames=False)
    look = looks_of(1)
    for scene in (mended, quirk):
        scene.see((100, 100), looks=look)
        scene.wait(20)
    assert mended.see((100, 100), looks=look).track_ids.tolist() == [2]
    assert quirk.see((100, 100), looks=look).track_ids.tolist() == [1]


def test_a_pause_ends_tracks_before_the_next_frame_is_matched() -> None:
    # No frames at all for 10 minutes, then an equal object in the same place.
    mended, quirk = Scene(), Scene(expire_before_matching=False)
    look = looks_of(1)
    for scene in (mended, quirk):
        for _ in range(9):
            scene.see((100, 100), looks=look)
    after = [scene.see((100, 100), looks=look, skip=15000) for scene in (mended, quirk)]
    assert after[0].track_ids.tolist() == [2, 1]
    assert after[0].states.tolist() == [TrackState.TRACKED, TrackState.REMOVED]
    assert after[1].track_ids.tolist() == [1]


def test_those_unseen_for_longest_go_when_there_are_too_many() -> None:
    scene = Scene(max_tracks=3, confirm_score=0.5)
    places = [(60.0 + 120 * i, 100.0) for i in range(5)]
    scene.see(places[0])
    scene.see(places[1])
    tracks = scene.see(*places[2:])
    assert scene.tracker.num_tracks == 3
    assert in_state(tracks, TrackState.REMOVED) == [1, 2]


def test_a_crowd_beyond_the_limit_keeps_the_best_scoring_tracks() -> None:
    scene = Scene(max_tracks=2, confirm_score=0.5)
    tracks = scene.see((100, 100), (300, 300), (500, 100), scores=[0.7, 0.9, 0.8])
    assert in_state(tracks, TrackState.TRACKED) == [1, 2]
    assert scene.tracker.num_tracks == 2


def test_normalized_memory_is_not_ruled_by_one_long_embedding() -> None:
    look, other = looks_of(2)
    cosines = {}
    for normalize in (True, False):
        scene = Scene(normalize_embeddings=normalize, momentum=0.2)
        for _ in range(5):
            scene.see((100, 100), looks=[look])
        scene.see((100, 100), looks=[1000 * other])
        memory = scene.tracker.state()['embeddings'][0]
        cosines[normalize] = memory @ look / np.linalg.norm(memory) / np.linalg.norm(look)
    assert cosines[True] > 0.9
    assert cosines[False] < 0.5


# Odd input.


def test_no_detections_and_no_tracks() -> None:
    tracks = Scene().see()
    assert len(tracks) == 0
    assert tracks.boxes.shape == (0, 4)


def test_objects_without_embeddings_are_matched_by_motion() -> None:
    scene = Scene()
    for step in range(10):
        tracks = scene.see((100 + 4 * step, 100), (300 - 4 * step, 300))
    assert tracks.track_ids.tolist() == [1, 2]
    assert tracks.embeddings is None


def test_embeddings_may_come_and_go() -> None:
    scene = Scene()
    looks = looks_of(2)
    for step in range(12):
        tracks = scene.see((100, 100), (300, 300), looks=looks if step % 3 else None)
        assert tracks.track_ids.tolist() == [1, 2]


def test_a_nan_embedding_is_matched_by_motion_and_never_remembered() -> None:
    scene = Scene()
    looks = looks_of(2)
    broken = np.stack([np.full(64, np.nan, np.float32), looks[1]])
    for step in range(6):
        tracks = scene.see((100, 100), (300, 300), looks=broken if step != 3 else looks)
        assert tracks.track_ids.tolist() == [1, 2]
    assert np.isfinite(scene.tracker.state()['embeddings']).all()


@pytest.mark.parametrize('value', [np.inf, 1e38, 0.0])
def test_useless_embeddings_count_as_none(value: float) -> None:
    scene = Scene()
    for _ in range(3):
        tracks = scene.see((100, 100), looks=[np.full(64, value, np.float32)])
    assert tracks.track_ids.tolist() == [1]
    assert not scene.tracker.state()['has_embedding'].any()


@pytest.mark.parametrize('preset', ['tao_demo', 'bdd_bench'])
def test_reference_presets_match_by_overlap_without_embeddings(preset: str) -> None:
    tracker = Tracker(TrackerConfig.preset(preset))
    boxes = np.array([[0, 0, 40, 40], [100, 100, 140, 140]], np.float32)
    for frame in range(4):
        tracks = tracker.update(
            Instances.from_boxes(boxes[::-1 if frame % 2 else 1] + frame, [0.95, 0.9]),
            frame, frame + 1, IMAGE)
    assert tracks.track_ids.tolist() == [2, 1]


def test_another_embedding_width_says_what_to_do() -> None:
    scene = Scene()
    scene.see((100, 100), looks=looks_of(1, width=256))
    with pytest.raises(ValueError, match=(
            r'detection embeddings are 128 wide but the track memory holds 256-wide ones; call '
            r'tracker\.reset\(\) after changing the model')):
        scene.see((100, 100), looks=looks_of(1, width=128))


def test_a_refused_frame_changes_nothing() -> None:
    scene = Scene()
    scene.see((100, 100), looks=looks_of(1))
    before = scene.tracker.state()
    for wrong in ({'looks': looks_of(1, width=8)}, {'scores': [np.nan]}):
        with pytest.raises(ValueError, match='wide|finite'):
            scene.see((100, 100), **wrong)
    scene.frame = 0
    with pytest.raises(ValueError, match='expected both to grow'):
        scene.tracker.update(Instances(), 0, 1, IMAGE)
    after = scene.tracker.state()
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value)


@pytest.mark.parametrize(('frame', 'stamp'), [(5, 900), (4, 900), (6, 500), (6, 400), (5, 500)])
def test_late_and_repeated_frames_are_refused_with_both_named(frame: int, stamp: int) -> None:
    tracker = Tracker()
    tracker.update(Instances(), 5, 500, IMAGE)
    with pytest.raises(ValueError, match=(
            rf'frame {frame} with stamp {stamp} ns came after frame 5 with stamp 500 ns')):
        tracker.update(Instances(), frame, stamp, IMAGE)


def test_a_box_that_is_not_finite_is_named() -> None:
    boxes = np.array([[0, 0, 9, 9], [0, np.nan, 9, 9]], np.float32)
    with pytest.raises(ValueError, match=r'object 1 has box \[0\.0, nan, 9\.0, 9\.0\]'):
        Tracker().update(Instances.from_boxes(boxes), 0, 0, IMAGE)


def test_a_thousand_detections_are_all_tracked() -> None:
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(np.arange(40) * 45.0, np.arange(25) * 40.0), -1).reshape(-1, 2)
    looks = looks_of(1000, width=32)
    tracker = Tracker()
    ids: list[list[int]] = []
    for frame in range(3):
        corner = grid + rng.normal(0, 1, grid.shape)
        tracks = tracker.update(
            Instances.from_boxes(np.concatenate([corner, corner + 30], axis=1),
                                 rng.uniform(0.6, 0.9, 1000)).with_fields(embeddings=looks),
            frame, frame * 40_000_000, (1080, 1920))
        ids.append(tracks.track_ids.tolist())
    assert len(set(ids[0])) == 1000
    assert ids == [ids[0]] * 3


def test_equal_scores_and_equal_boxes_are_survived() -> None:
    scene = Scene(new_track_iou=1.0, duplicate_iou=1.0, low_duplicate_iou=1.0)
    for _ in range(4):
        tracks = scene.see(*[(100, 100)] * 20, scores=[0.9] * 20, looks=np.ones((20, 4)))
        assert sorted(tracks.track_ids.tolist()) == list(range(1, 21))


def test_boxes_without_area_and_outside_the_image_are_survived() -> None:
    scene = Scene()
    for _ in range(4):
        tracks = scene.see((-500, -500), (5000, 100), size=0.0)
    assert len(tracks) == 2


# Settings that change, saving.


def test_reconfigure_keeps_the_tracks() -> None:
    scene = Scene(distractor_frames=3, normalize_embeddings=False)
    scene.see((100, 100), looks=5 * looks_of(1))
    scene.tracker.reconfigure(TrackerConfig(memory_seconds=1.0))
    assert scene.tracker.config.memory_seconds == 1.0
    np.testing.assert_allclose(
        np.linalg.norm(scene.tracker.state()['embeddings'], axis=1), 1, rtol=1e-5)
    assert scene.see((100, 100), looks=looks_of(1)).track_ids.tolist() == [1]


@pytest.mark.parametrize('preset', ['default', 'bdd_bench'])
def test_a_saved_tracker_goes_on_as_if_nothing_had_happened(
    preset: str, tmp_path: Path,
) -> None:
    frames = list(street(seed=3, frames=40))
    straight = Tracker(TrackerConfig.preset(preset), seed='s')
    expected = [straight.update(*frame) for frame in frames]
    first = Tracker(TrackerConfig.preset(preset), seed='s')
    for frame in frames[:20]:
        first.update(*frame)
    np.savez(tmp_path / 'state.npz', **first.state())  # type: ignore[arg-type]
    second = Tracker(TrackerConfig.preset(preset), seed='s')
    second.load_state(np.load(tmp_path / 'state.npz'))
    for frame, want in zip(frames[20:], expected[20:], strict=True):
        have = second.update(*frame)
        assert have.track_ids.tolist() == want.track_ids.tolist()
        assert have.uuids == want.uuids
        assert have.labels == want.labels
        np.testing.assert_array_equal(have.boxes, want.boxes)
        np.testing.assert_array_equal(have.similarities, want.similarities)


def test_loaded_tracks_accept_frames_numbered_from_zero() -> None:
    scene = Scene()
    for _ in range(9):
        scene.see((100, 100))
    other = Tracker(TrackerConfig(memory_frames=5))
    other.load_state(scene.tracker.state())
    box = Instances.from_boxes([[80, 80, 120, 120]])
    assert other.update(box, 0, 9 * scene.step_ns, IMAGE).track_ids.tolist() == [1]
    with pytest.raises(ValueError, match='expected both to grow'):
        other.update(box, 0, 10 * scene.step_ns, IMAGE)


def test_loaded_tracks_refuse_an_earlier_time() -> None:
    scene = Scene()
    scene.see((100, 100))
    scene.see((100, 100))
    other = Tracker()
    other.load_state(scene.tracker.state())
    with pytest.raises(ValueError, match='expected both to grow'):
        other.update(Instances(), 9, 5, IMAGE)


def test_two_trackers_loaded_from_one_state_give_new_tracks_different_uuids() -> None:
    scene = Scene()
    scene.see((100, 100))
    new = []
    for _ in range(2):
        tracker = Tracker()
        tracker.load_state(scene.tracker.state())
        tracks = tracker.update(Instances.from_boxes([[300, 300, 340, 340]]), 1, 10 ** 9, IMAGE)
        new.append(tracks.uuids[0])
    assert new[0] != new[1]


def test_a_state_of_another_version_is_refused_and_changes_nothing() -> None:
    scene = Scene()
    scene.see((100, 100))
    state = scene.tracker.state()
    with pytest.raises(ValueError, match='version 99, expected'):
        scene.tracker.load_state({**state, 'version': np.array(99)})
    with pytest.raises(ValueError, match='version None'):
        scene.tracker.load_state({})
    del state['appearance']
    with pytest.raises(ValueError, match="no 'appearance'"):
        scene.tracker.load_state(state)
    assert scene.tracker.num_tracks == 1


def test_a_fresh_tracker_can_be_saved() -> None:
    tracker = Tracker()
    tracker.load_state(Tracker().state())
    assert tracker.update(Instances(), 0, 0, IMAGE).track_ids.tolist() == []


# Many frames.


def street(seed: int, frames: int, births: float = 0.3) -> list[
        tuple[Instances, int, int, tuple[int, int]]]:
    """Objects that come, move, flicker and go, with false detections and dropped frames."""
    rng = np.random.default_rng(seed)
    boxes, looks, speeds = np.zeros((0, 4)), np.zeros((0, 16)), np.zeros((0, 2))
    made, index, stamp = [], 0, 0
    for _ in range(frames):
        born = rng.poisson(births)
        center, size = rng.uniform(0, 400, (born, 2)), rng.uniform(20, 60, (born, 2))
        boxes = np.concatenate([boxes, np.concatenate([center, center + size], axis=1)])
        looks = np.concatenate([looks, rng.standard_normal((born, 16))])
        speeds = np.concatenate([speeds, rng.normal(0, 3, (born, 2))])
        alive = rng.random(len(boxes)) > 0.03
        boxes, looks, speeds = boxes[alive], looks[alive], speeds[alive]
        boxes = boxes + np.tile(speeds, 2)
        seen = rng.random(len(boxes)) > 0.2
        found = boxes[seen] + rng.normal(0, 1, (int(seen.sum()), 4))
        embeddings = looks[seen] + rng.normal(0, 0.1, (len(found), 16))
        made.append((
            Instances.from_boxes(found, rng.uniform(0.05, 1, len(found)),
                                 rng.integers(0, 3, len(found)),
                                 [f'label {i}' for i in range(len(found))]).with_fields(
                embeddings=embeddings.astype(np.float32)), index, stamp, IMAGE))
        jump = int(rng.integers(1, 4))
        index, stamp = index + jump, stamp + jump * 40_000_000 + int(rng.integers(0, 10 ** 6))
    return made


@given(seed=st.integers(0, 10 ** 6))
@settings(deadline=None, max_examples=25)
def test_ids_are_unique_in_a_frame_never_reused_and_grow(seed: int) -> None:
    tracker = Tracker(seed='x')
    removed: set[int] = set()
    uuid_of: dict[int, bytes] = {}
    highest = 0
    for frame in street(seed, 40, births=1.0):
        tracks = tracker.update(*frame)
        ids = tracks.track_ids.tolist()
        assert len(set(ids)) == len(ids)
        assert not set(ids) & removed
        for track_id, uuid in zip(ids, tracks.uuids, strict=True):
            assert uuid_of.setdefault(track_id, uuid) == uuid
        new = sorted(i for i in ids if i > highest)
        assert new == list(range(highest + 1, highest + 1 + len(new)))
        highest = max([highest, *ids])
        removed |= set(in_state(tracks, TrackState.REMOVED))
        seen = tracks.seen
        assert not np.diff(seen.astype(int)).max(initial=-1) > 0
        assert (tracks.last_seen_ns[seen] == frame[2]).all()
        assert (tracks.last_seen_ns[~seen] < frame[2]).all()
        matched = np.isfinite(tracks.similarities)
        assert ((tracks.similarities[matched] > 0.5) & (tracks.similarities[matched] <= 1)).all()
        assert (np.abs(tracks.margins[matched]) <= 1).all()


@given(seed=st.integers(0, 10 ** 6), order_seed=st.integers(0, 10 ** 6), ties=st.booleans())
@settings(deadline=None, max_examples=25)
def test_the_order_of_the_input_does_not_change_who_is_who(
    seed: int, order_seed: int, ties: bool,
) -> None:
    rng = np.random.default_rng(order_seed)
    straight, shuffled = Tracker(seed='x'), Tracker(seed='x')
    for instances, index, stamp, size in street(seed, 30, births=1.0):
        if ties:
            instances = instances.with_fields(scores=np.round(instances.scores, 1))
        order = rng.permutation(len(instances))
        first = straight.update(instances, index, stamp, size)
        second = shuffled.update(instances.select(order), index, stamp, size)
        by_box = [
            {box.tobytes(): (int(i), uuid, int(s)) for box, i, uuid, s in zip(
                tracks.boxes, tracks.track_ids, tracks.uuids, tracks.states, strict=True)}
            for tracks in (first, second)]
        assert by_box[0] == by_box[1]


def test_thousands_of_births_and_deaths_leave_memory_flat() -> None:
    tracker = Tracker(TrackerConfig(memory_seconds=1.0, distractor_frames=2))
    frames = street(seed=0, frames=250, births=1.5)
    held = []
    for lap in range(8):
        for instances, index, stamp, size in frames:
            tracker.update(instances, lap * 10_000 + index, lap * 10 ** 12 + stamp, size)
        arrays = [tracker._memory.nbytes(), tracker._work.nbytes(),
                  len(tracker._distractors.embeddings(16)), tracker.num_tracks]
        held.append(arrays)
    assert tracker.state()['next_id'] > 2000
    # After the first lap every lap ends as the one before did.
    assert held[1:] == [held[1]] * 7
    assert tracker.num_tracks < 400


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_an_hour_of_frames_leaves_the_process_flat() -> None:
    frames = street(seed=1, frames=1000, births=2.0)
    tracker = Tracker()
    resident_pages = []
    for lap in range(36):
        for instances, index, stamp, size in frames:
            tracker.update(instances, lap * 10_000 + index, lap * 10 ** 12 + stamp, size)
        resident_pages.append(int(Path('/proc/self/statm').read_text().split()[1]))
    assert resident_pages[-1] - resident_pages[5] < 512  # Pages of 4 KiB: 2 MiB.


def test_the_tracker_does_not_import_torch() -> None:
    import subprocess

    code = ('import sys, masa_ros.tracking.tracker; '
            'sys.exit("torch" in sys.modules or "rclpy" in sys.modules)')
    assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 0


# Second looks and the long-term memory.


def a_second_look(
    look: np.ndarray, own: np.ndarray, other: np.ndarray,
) -> tuple[Tracker, TrackedInstances, list[float]]:
    """Two tracks, of which the first is then missed and looked for; what `look` says of it."""
    scene = Scene(second_look_seconds=1.0)
    for _ in range(3):
        scene.see((100, 100), (300, 300), looks=[own, other])
    boxes = np.array([[280, 280, 320, 320]], np.float32)
    stamp_ns = 1 + 3 * scene.step_ns
    wanted = scene.tracker.missed(boxes, stamp_ns, IMAGE)
    assert wanted.track_ids.tolist() == [1]
    found = wanted.added_to(Instances.from_boxes(boxes, [0.9])).with_fields(
        embeddings=np.stack([other, look]))
    tracks = scene.tracker.update(
        found, 3, stamp_ns, IMAGE, looked_for=np.array([0, 1]))
    return scene.tracker, tracks, wanted.instances.boxes[0].tolist()


def test_a_missed_track_is_seen_again_where_its_looks_agree() -> None:
    own, other = looks_of(2)
    _, tracks, box = a_second_look(own, own, other)
    np.testing.assert_allclose(box, [80, 80, 120, 120], atol=0.5)
    assert in_state(tracks, TrackState.TRACKED) == [2, 1]
    assert tracks.flags[1] == Flag.RECOVERED


@pytest.mark.parametrize('which', [1, 2])
def test_a_missed_track_stays_missed_where_something_else_is_there(which: int) -> None:
    looks = looks_of(3)
    _, tracks, _ = a_second_look(looks[which], looks[0], looks[1])
    assert in_state(tracks, TrackState.TRACKED) == [2]
    assert in_state(tracks, TrackState.COASTING) == [1]
    assert len(tracks) == 2


def test_second_looks_alone_do_not_keep_a_track_for_ever() -> None:
    own, other = looks_of(2)
    tracker, _, _ = a_second_look(own, own, other)
    # Seen by a second look at 0.12 s, but detected last at 0.08 s.
    nothing = np.zeros((0, 4), np.float32)
    assert tracker.missed(nothing, 1_070_000_000, IMAGE).track_ids.tolist() == [1, 2]
    assert tracker.missed(nothing, 1_100_000_000, IMAGE).track_ids.tolist() == [2]


def test_nothing_is_looked_for_unless_asked() -> None:
    scene = Scene()
    scene.see((100, 100), looks=looks_of(1))
    nothing = np.zeros((0, 4), np.float32)
    assert len(scene.tracker.missed(nothing, 40_000_001, IMAGE)) == 0


def came_back(**changes: object) -> int:
    """Id of an object that shows its first look again after the track had grown another."""
    first, last, stranger = looks_of(3)
    scene = Scene(rate_hz=10, **changes)
    for step in range(40):
        share = min(step / 20, 1)
        scene.see((100, 100), (500, 400),
                  looks=[(1 - share) * first + share * last, stranger])
    for _ in range(30):
        scene.see((500, 400), looks=[stranger])
    tracks = scene.see((330, 250), (500, 400), looks=[first, stranger])
    return int(tracks.track_ids[0])


def test_the_long_term_memory_knows_a_look_that_the_running_mean_has_lost() -> None:
    assert came_back(long_memory=0) == 3
    assert came_back(long_memory=8) == 1


@pytest.mark.parametrize(('margin', 'expected'), [(0.0, [1, 2]), (1.0, [3])])
def test_of_two_lost_twins_none_is_found_again_with_a_margin(
    margin: float, expected: list[int],
) -> None:
    look = looks_of(1)[0]
    scene = Scene(rate_hz=10, long_memory=8, long_memory_margin=margin)
    for _ in range(5):
        scene.see((200, 240), (440, 240), looks=[look, look])
    scene.wait(20)
    assert int(scene.see((320, 240), looks=[look]).track_ids[0]) in expected


def test_the_long_term_memory_is_saved_and_loaded() -> None:
    scene = Scene(long_memory=4)
    for _ in range(3):
        scene.see((100, 100), looks=looks_of(1))
    state = scene.tracker.state()
    other = Tracker(TrackerConfig.preset('default', long_memory=4))
    other.load_state(state)
    np.testing.assert_array_equal(other.state()['looks'], state['looks'])
    assert len(state['looks']) == 1
