"""
Settings that make the tracker assign the ids of the reference trackers, quirks included.

``tao_*`` are settings of the reference's TAO tracker, ``bdd_*`` of its BDD tracker; the published
demo is ``tao_demo`` and the published benchmarks are ``tao_bench`` and ``bdd_bench``. Only the ids
differ: the reference counts from 0, we count from 1.
"""

from __future__ import annotations

from typing import Any

# What both reference trackers do and our defaults do not.
_REFERENCE: dict[str, Any] = {
    'similarity': 'combined', 'assignment': 'greedy', 'class_rule': 'ignore',
    'memory_frames': 10, 'memory_seconds': 0.0, 'momentum': 0.8, 'normalize_embeddings': False,
    'age_on_empty_frames': False, 'expire_before_matching': False, 'max_tracks': 0,
    'new_proposal_score': 0.0, 'low_score': 1.0, 'new_track_iou': 1.0, 'confirm_hits': 1,
    'coast_seconds': 0.0, 'report_unseen': False, 'output_order': 'score',
    'label_memory': 0.0,
}

_TAO = {
    **_REFERENCE, 'new_track_score': 0.8, 'match_score': 0.5, 'match_threshold': 0.5,
    'duplicate_score': 0.5, 'low_duplicate_iou': 0.3, 'duplicate_iou': 1.0,
}

# The BDD tracker calls a box a duplicate at low IoU where it may not be matched.
_BDD = {
    **_REFERENCE, 'similarity': 'bisoftmax', 'new_track_score': 0.8, 'match_score': 0.5,
    'match_threshold': 0.5, 'duplicate_score': 0.5, 'low_duplicate_iou': 0.3,
    'duplicate_iou': 0.7, 'distractor_frames': 1, 'suppress_threshold': 0.5,
}

PRESETS: dict[str, dict[str, Any]] = {
    'tao_default': _TAO,
    'tao_bench': {**_TAO, 'new_track_score': 0.0001, 'match_score': 0.0001},
    'tao_demo': {**_TAO, 'new_track_score': 0.1, 'match_score': 0.01,
                 'max_distance_px': 100.0, 'distance_rate_hz': 30.0},
    'tao_short': {**_TAO, 'new_track_score': 0.3, 'match_score': 0.2, 'match_threshold': 0.4,
                  'memory_frames': 3, 'momentum': 0.5, 'duplicate_score': 0.7,
                  'low_duplicate_iou': 0.5, 'max_distance_px': 40.0, 'distance_rate_hz': 10.0},
    'bdd_default': _BDD,
    'bdd_bench': {**_BDD, 'new_track_score': 0.5, 'match_score': 0.3, 'duplicate_score': 0.3,
                  'match_threshold': 0.6},
    'bdd_cats': {**_BDD, 'new_track_score': 0.5, 'match_score': 0.3, 'duplicate_score': 0.3,
                 'memory_frames': 5, 'momentum': 0.6, 'distractor_frames': 2,
                 'class_rule': 'strict'},
    'bdd_softmax': {**_BDD, 'similarity': 'softmax', 'new_track_score': 0.4, 'match_score': 0.3,
                    'duplicate_score': 0.3, 'distractor_frames': 3},
    'bdd_cosine': {**_BDD, 'similarity': 'cosine', 'new_track_score': 0.4, 'match_score': 0.3,
                   'duplicate_score': 0.3, 'match_threshold': 0.6, 'distractor_frames': 0},
}
