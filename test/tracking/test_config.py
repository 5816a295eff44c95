"""Settings of the tracker."""

from __future__ import annotations

from dataclasses import fields

from masa_ros.structures.settings import describe, from_mapping
from masa_ros.tracking.config import TrackerConfig
from masa_ros.tracking.presets import PRESETS
import pytest


def test_the_default_preset_is_the_defaults() -> None:
    assert TrackerConfig.preset('default') == TrackerConfig()


def test_changes_go_on_top_of_a_preset() -> None:
    config = TrackerConfig.preset('tao_demo', momentum=0.25)
    assert (config.momentum, config.max_distance_px) == (0.25, 100.0)


def test_an_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown tracker preset 'tao'; known ones are default, "):
        TrackerConfig.preset('tao')


def test_an_unknown_change_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown setting 'momentun'"):
        TrackerConfig.preset('default', momentun=0.5)


@pytest.mark.parametrize(('name', 'value'), [
    ('new_track_score', 1.5), ('match_threshold', 0.0), ('memory_seconds', -1.0),
    ('similarity', 'iou'), ('max_tracks', 2.5), ('confirm_hits', 0)])
def test_values_outside_their_limits_are_refused(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name):
        from_mapping(TrackerConfig, {name: value})


def test_every_setting_says_what_it_does_and_can_change_while_running() -> None:
    for default, info in describe(TrackerConfig).values():
        assert default is not None
        assert len(info.description) > 30
        assert info.dynamic


@pytest.mark.parametrize('name', sorted(PRESETS))
def test_a_preset_sets_every_option_that_mends_a_quirk(name: str) -> None:
    # Otherwise a changed default would change the reference's ids unnoticed.
    common = {'similarity', 'assignment', 'class_rule', 'memory_frames', 'memory_seconds',
              'momentum', 'normalize_embeddings', 'age_on_empty_frames',
              'expire_before_matching', 'max_tracks', 'confirm_hits', 'coast_seconds',
              'report_unseen', 'output_order', 'low_score', 'new_track_iou', 'new_track_score',
              'new_proposal_score', 'match_score', 'match_threshold', 'duplicate_score',
              'low_duplicate_iou', 'duplicate_iou'}
    assert common <= set(PRESETS[name]) <= {field.name for field in fields(TrackerConfig)}
