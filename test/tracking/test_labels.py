"""Votes for the label of a track; all numbers are worked by hand."""

from __future__ import annotations

from collections.abc import Sequence

from masa_ros.structures.instances import Instances, TrackedInstances
from masa_ros.tracking.tracker import Tracker, TrackerConfig
import numpy as np
import pytest

IMAGE = (480, 640)
BOX = [100.0, 100.0, 160.0, 180.0]


class Sightings:
    """One object that stands still while its detector changes its mind."""

    def __init__(self, **settings: float) -> None:
        self.tracker = Tracker(TrackerConfig(**settings))  # type: ignore[arg-type]
        self.frame = 0

    def see(self, class_id: int, label: str = '', score: float = 0.9) -> TrackedInstances:
        self.frame += 1
        tracks = self.tracker.update(
            Instances.from_boxes([BOX], [score], [class_id], [label]), self.frame,
            self.frame * 100_000_000, IMAGE)
        assert tracks.track_ids.tolist() == [1]
        return tracks

    def labels(self, said: Sequence[tuple[str, float]]) -> list[str]:
        return [self.see(-1, label, score).labels[0] for label, score in said]

    def votes(self) -> dict[str, float]:
        state = self.tracker.state()
        return {str(label): float(votes) for label, votes in
                zip(state['vote_labels'][0], state['votes'][0], strict=True) if votes}


def test_votes_are_scores_that_fade_with_every_sighting() -> None:
    object_ = Sightings(label_memory=0.5)
    object_.labels([('car', 0.8), ('car', 0.9), ('van', 0.7)])
    # car: (0.8 * 0.5 + 0.9) * 0.5 = 0.65; van: 0.7.
    assert object_.votes() == pytest.approx({'car': 0.65, 'van': 0.7})


def test_one_wrong_frame_does_not_flip_a_label_however_certain_it_is() -> None:
    said = [('car', 0.7), ('van', 0.99), ('car', 0.7), ('car', 0.7)]
    assert Sightings(label_memory=0.9).labels(said) == ['car'] * 4


def test_a_label_changes_once_another_has_more_votes() -> None:
    # After car, car: 0.9 * 0.8 + 0.8 = 1.52. Then car fades to 1.368, 1.231, 1.108, while van
    # grows to 0.7, 0.63 + 0.7 = 1.33: van has more in its second frame.
    object_ = Sightings(label_memory=0.9)
    assert object_.labels([('car', 0.8), ('car', 0.8), ('van', 0.7), ('van', 0.7)]) == [
        'car', 'car', 'car', 'van']
    assert object_.votes() == pytest.approx({'car': 1.2312, 'van': 1.33})


def test_a_confident_class_outvotes_many_doubtful_sightings() -> None:
    # Five times 0.65 * 0.9^k sums to 2.662 before fading to 2.395; bus 0.95: 0.95, 1.805, 2.575
    # against 2.395, 2.156, 1.940.
    said = [('car', 0.65)] * 5 + [('bus', 0.95)] * 3
    assert Sightings(label_memory=0.9).labels(said) == ['car'] * 7 + ['bus']


def test_zero_memory_takes_the_newest_label_as_it_is() -> None:
    said = [('car', 0.9), ('van', 0.65), ('', 0.9), ('car', 0.8)]
    assert Sightings(label_memory=0.0).labels(said) == ['car', 'van', '', 'car']


def test_a_detection_without_a_class_does_not_vote_and_gets_the_label_of_its_track() -> None:
    object_ = Sightings()
    object_.see(3, 'car')
    before = object_.votes()
    tracks = object_.see(-1, '')
    assert (tracks.labels, tracks.class_ids.tolist()) == (('car',), [3])
    assert object_.votes() == before


def test_a_track_without_a_label_takes_the_first_one() -> None:
    object_ = Sightings()
    assert object_.see(-1, '').labels == ('',)
    assert object_.see(2, 'bus', 0.7).labels == ('bus',)
    assert object_.see(-1, '').labels == ('bus',)


def test_classes_without_names_are_voted_by_number() -> None:
    object_ = Sightings(label_memory=0.9)
    ids = [int(object_.see(number, '', score).class_ids[0])
           for number, score in ((5, 0.9), (7, 0.95), (7, 0.95), (7, 0.95))]
    # 5: 0.9, 0.81, 0.729; 7: 0.95, then 1.805.
    assert ids == [5, 5, 7, 7]


def test_a_label_keeps_its_votes_when_its_number_changes() -> None:
    object_ = Sightings(label_memory=0.5)
    object_.see(0, 'cone', 0.8)
    tracks = object_.see(4, 'cone', 0.8)
    assert (tracks.labels, tracks.class_ids.tolist()) == (('cone',), [4])
    assert object_.votes() == pytest.approx({'cone': 1.2})


def test_two_hundred_classes_in_turn_leave_the_label_alone() -> None:
    object_ = Sightings()
    labels = object_.labels([('car', 0.9)] * 5 + [(f'class {i}', 0.8) for i in range(4)])
    assert labels == ['car'] * 9
    # More classes than slots: the weakest gives way, a class of every frame still wins in time.
    for i in range(200):
        object_.see(-1, f'class {i}', 0.75)
        last = object_.see(-1, 'bus', 0.8)
    assert last.labels == ('bus',)


def test_an_unseen_track_is_reported_with_its_voted_label() -> None:
    object_ = Sightings()
    object_.labels([('car', 0.9), ('car', 0.9), ('van', 0.95)])
    tracks = object_.tracker.update(Instances(), 9, 10**9, IMAGE)
    assert tracks.labels == ('car',)


def test_votes_survive_saving() -> None:
    object_ = Sightings(label_memory=0.9)
    object_.labels([('car', 0.8), ('car', 0.8), ('van', 0.7)])
    state = object_.tracker.state()
    object_.tracker = Tracker(TrackerConfig(label_memory=0.9))
    object_.tracker.load_state(state)
    assert object_.see(-1, 'van', 0.7).labels == ('van',)


def test_the_class_rule_looks_at_the_voted_class() -> None:
    """A wrong frame must not open a track to the objects of the wrong class."""
    object_ = Sightings(label_memory=0.9)
    for class_id in (1, 1, 2):
        tracks = object_.see(class_id)
    assert tracks.class_ids.tolist() == [1]
    assert np.asarray(object_.tracker.state()['class_ids']).tolist() == [1]
