"""Settings of the tracker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from masa_ros.structures.settings import from_mapping, setting
from masa_ros.tracking.presets import PRESETS


@dataclass(frozen=True)
class TrackerConfig:
    """
    How instances become tracks.

    Where the defaults leave the reference trackers, the description says why; `preset` gives
    settings that assign exactly the reference's ids.
    """

    # Which detections take part.
    new_track_score: float = setting(
        0.6, 'A detection that matches no track starts one when it scores above this. Lower it '
        'together with match_score for detectors whose scores are low, such as '
        'open-vocabulary ones.', minimum=0.0, maximum=1.0, dynamic=True)
    new_proposal_score: float = setting(
        0.5, "The same for the model's own proposals, which continue tracks from here on, or from "
        'match_score if that is lower. Lower it for more, and less stable, objects; 0 treats '
        'proposals as detections.', minimum=0.0, maximum=1.0, dynamic=True)
    match_score: float = setting(
        0.4, 'A detection may continue any track when it scores above this.',
        minimum=0.0, maximum=1.0, dynamic=True)
    low_score: float = setting(
        0.1, 'A detection scoring above this but not above match_score may continue a track that '
        'was seen a moment ago, by its motion alone: occluded objects score low and look like '
        'what covers them. Not one whose score of the last second lies below the middle of '
        'match_score and new_track_score: that is rather false than occluded. 1 is off.',
        minimum=0.0, maximum=1.0, dynamic=True)
    duplicate_score: float = setting(
        0.5, 'Below this score low_duplicate_iou applies instead of duplicate_iou.',
        minimum=0.0, maximum=1.0, dynamic=True)
    low_duplicate_iou: float = setting(
        0.9, 'A low-scoring detection is dropped when it overlaps a better one of any class by '
        'more than this IoU; 1 drops none. The reference drops at 0.3, which in a crowd takes '
        'away the occluded.', minimum=0.0, maximum=1.0, dynamic=True)
    duplicate_iou: float = setting(
        0.9, 'The same for the other detections.', minimum=0.0, maximum=1.0, dynamic=True)
    new_track_iou: float = setting(
        0.5, 'A detection that overlaps a tracked one by more than this IoU starts no track, so '
        'that two boxes on one object do not become two. This holds for a score of 1; one just '
        'above new_track_score may overlap half as much. 1 is off.',
        minimum=0.0, maximum=1.0, dynamic=True)

    # Who gets whom.
    similarity: str = setting(
        'evidence', 'How alike a detection and a track are: evidence (the probability that they '
        'are one object, from motion, size, appearance and class together), or by appearance '
        'alone combined (bidirectional softmax plus cosine, as in the paper), bisoftmax, softmax '
        'or cosine. By appearance alone a new object takes over the id of a look-alike anywhere '
        'in the image.', choices=('evidence', 'combined', 'bisoftmax', 'softmax', 'cosine'),
        dynamic=True)
    match_threshold: float = setting(
        0.5, 'A match needs a similarity above this.', minimum=0.001, maximum=0.999, dynamic=True)
    assignment: str = setting(
        'optimal', 'optimal finds the best assignment of all; greedy lets detections choose in '
        'order of score, so that one can take the track another is sure of.',
        choices=('greedy', 'optimal'), dynamic=True)
    class_rule: str = setting(
        'soft', 'strict matches within a class only; ignore lets a track change its class, as '
        'detectors do; soft makes it less likely (with evidence, otherwise as ignore). An '
        'unknown class agrees with all.', choices=('ignore', 'soft', 'strict'), dynamic=True)
    motion_uncertainty: float = setting(
        1.0, 'Factor on how unpredictable motion is; raise it for a violently shaking camera.',
        minimum=0.1, maximum=10.0, dynamic=True)
    camera_motion: str = setting(
        'none', 'How the motion of the camera is taken out of the prediction, for cameras that '
        'turn or shake: registration follows the background from image to image; odometry takes '
        'how the camera turned from odometry.topic or /tf, and its intrinsics from camera_info.',
        choices=('none', 'registration', 'odometry'), dynamic=True)
    max_distance_px: float = setting(
        0.0, "The reference demo's gate, not used with evidence: similarities fade where the "
        'centres are farther apart than this (growing with the gap); 0 is off. It depends on '
        'image size and frame rate.', minimum=0.0, dynamic=True)
    distance_rate_hz: float = setting(
        30.0, 'Frame rate that max_distance_px is meant for.', minimum=0.1, dynamic=True)
    suppress_threshold: float = setting(
        1.0, 'A detection too weak to be matched that resembles a track more than this neither '
        'starts a track nor becomes a distractor (greedy assignment only); 1 is off.',
        minimum=0.0, maximum=1.0, dynamic=True)

    # What is remembered.
    memory_seconds: float = setting(
        10.0, 'A track is removed this long after it was last seen, by the stamps of the images, '
        'so that dropped frames and other frame rates change nothing; 0 is no limit.',
        minimum=0.0, dynamic=True)
    memory_frames: int = setting(
        1000, 'A track is removed this many frames after it was last seen, whichever limit comes '
        'first; 0 is no limit. A guard for streams whose stamps stand still.',
        minimum=0, dynamic=True)
    max_tracks: int = setting(
        2000, 'Most tracks in memory; those unseen for longest go first. 0 is no limit.',
        minimum=0, dynamic=True)
    momentum: float = setting(
        0.5, 'Weight of the new embedding in the memory of a matched track.',
        minimum=0.0, maximum=1.0, dynamic=True)
    long_memory: int = setting(
        0, 'Most looks (embeddings that differ from one another) kept of each track, to know it '
        'again after a long absence (with evidence only); 0 remembers the running mean alone.',
        minimum=0, maximum=64, dynamic=True)
    long_memory_margin: float = setting(
        0.0, 'With long_memory: a track that was lost is found again only if the detection is '
        'likelier to be it than any other track by this much, in nats (0.5 is 1.6 times as '
        'likely): fewer wrong ids, more new ones. 0 asks for no margin.', minimum=0.0,
        maximum=10.0, dynamic=True)
    normalize_embeddings: bool = setting(
        True, 'Bring embeddings to unit length before they are averaged; otherwise one long '
        'embedding outweighs the whole memory of its track.', dynamic=True)
    distractor_frames: int = setting(
        0, 'Frames for which unmatched detections compete with the tracks (not with evidence, '
        'which weighs every match against "none of them").', minimum=0, maximum=100, dynamic=True)
    age_on_empty_frames: bool = setting(
        True, 'Tracks grow old on frames without detections too; otherwise a track outlives its '
        'limit whenever nothing is in sight.', dynamic=True)
    expire_before_matching: bool = setting(
        True, 'Tracks past their limit are removed before a frame is matched; otherwise the first '
        'frame after a pause can revive tracks of any age.', dynamic=True)

    # Objects that were missed.
    second_look_seconds: float = setting(
        0.0, 'For this long after its last detection, a track that nothing was detected near is '
        'looked for once more: the model segments its predicted box, and the track counts as '
        'seen if mask quality and embedding agree. Costs the time of another object, and for '
        "the model's own proposals another pass. 0 is off.", minimum=0.0, dynamic=True)
    second_look_quality: float = setting(
        0.6, 'Quality that a model must predict of its mask in such a look.',
        minimum=0.0, maximum=1.0, dynamic=True)

    # Life of a track, and what is reported.
    label_memory: float = setting(
        0.95, 'The label of a track is voted: each detection votes for its class with its score, '
        'and this share of a vote is left after one more sighting. 0 takes the label of the '
        'newest detection.', minimum=0.0, maximum=0.999, dynamic=True)
    confirm_hits: int = setting(
        2, 'Frames in which an object must be seen before its track counts as tracked: a false '
        'detection rarely comes twice.', minimum=1, dynamic=True)
    confirm_score: float = setting(
        0.7, 'A detection scoring above this confirms its track at once; 1 is off.',
        minimum=0.0, maximum=1.0, dynamic=True)
    coast_seconds: float = setting(
        0.5, 'For this long after it was last seen a confirmed track is reported as coasting with '
        'a predicted box, then it is lost; one that is not confirmed is removed.',
        minimum=0.0, dynamic=True)
    report_unseen: bool = setting(
        True, 'Report coasting tracks in every frame, lost and removed ones once.', dynamic=True)
    output_order: str = setting(
        'input', 'Order of the seen objects: as they came in, or by descending score.',
        choices=('input', 'score'), dynamic=True)

    @classmethod
    def preset(cls, name: str, **changes: Any) -> TrackerConfig:
        """
        Return the settings of a name.

        Parameters
        ----------
        name : str
            ``default``, or one of the reference trackers' settings (see presets.py).
        **changes
            Fields to set on top.

        Raises
        ------
        ValueError
            If the name or a field is unknown, or a value is outside its limits.

        """
        if name != 'default' and name not in PRESETS:
            raise ValueError(f'unknown tracker preset {name!r}; known ones are default, '
                             + ', '.join(sorted(PRESETS)))
        return from_mapping(cls, {**PRESETS.get(name, {}), **changes}, f'tracker preset {name}')
