"""The bytes written by hand are read as the message that ROS serializes."""

from __future__ import annotations

from typing import Any

from masa_ros.ros.convert import make_header, TrackInfo, tracks_to_message
from masa_ros.structures.instances import TrackedInstances
from masa_ros.structures.masks import encode_crop
import numpy as np
import pytest

pytestmark = pytest.mark.ros


def some_tracks(rows: int, seed: int, embeddings: bool, detected_by: bool) -> TrackedInstances:
    source = np.random.default_rng(seed)
    corners = source.uniform(-20, 60, (rows, 2))
    boxes = np.concatenate([corners, corners + source.uniform(0, 40, (rows, 2))], axis=1)
    masks = [encode_crop(source.random((5, 7)) < 0.5, int(x), int(y)) if row % 3 else None
             for row, (x, y) in enumerate(corners)]
    names = ['', 'car', 'Fußgänger', '歩行者', 'traffic cone']
    return TrackedInstances(
        boxes=boxes.astype(np.float32), scores=source.random(rows, np.float32),
        class_ids=source.integers(-1, 5, rows), masks=tuple(masks),
        labels=tuple(names[number] for number in source.integers(0, len(names), rows)),
        flags=source.integers(0, 128, rows).astype(np.uint8),
        mask_qualities=np.where(source.random(rows) < 0.5, np.nan, 0.5).astype(np.float32),
        embeddings=source.random((rows, 3), np.float32) if embeddings else None,
        detected_by=source.integers(0, 2**32, rows).astype(np.uint32) if detected_by else None,
        track_ids=source.integers(1, 2**32, rows),
        uuids=tuple(source.bytes(16) for _ in range(rows)),
        states=source.integers(0, 5, rows).astype(np.uint8),
        first_seen_ns=source.integers(0, 2**60, rows),
        last_seen_ns=source.integers(0, 2**60, rows), ages=source.integers(0, 2**31, rows),
        similarities=np.where(source.random(rows) < 0.5, np.nan, 0.5).astype(np.float32),
        margins=source.random(rows, np.float32))


@pytest.mark.parametrize('rows', [0, 1, 2, 7])
@pytest.mark.parametrize('frame_id', ['', 'cam', 'camera', 'camera_optical'])
@pytest.mark.parametrize('extras', [False, True])
def test_bytes_are_read_as_the_message(
    rows: int, frame_id: str, extras: bool,
) -> None:
    from masa_ros.msg import TrackedObjectArray
    from masa_ros.ros.track_bytes import tracks_to_bytes
    from rclpy.serialization import deserialize_message, serialize_message
    for seed in range(8):
        tracks = some_tracks(rows, seed, extras, extras)
        header = make_header(1_700_000_000_123_456_789 + seed, frame_id)
        details: dict[str, Any] = {} if not extras else {
            'stage_times_ms': {'track': 1.5, 'publish': 2.0}, 'detections': 2,
            'detection_topics': ('/yolo/detections', '/b')[:seed % 3]}
        info = TrackInfo(48, 64, 'x' * seed, 2**40 + seed, seed, 1, 'model@0'[seed:], **details)
        ours = tracks_to_bytes(tracks, header, info, embeddings=extras)
        theirs = serialize_message(tracks_to_message(tracks, header, info, embeddings=extras))
        # ROS leaves what happens to be in memory between the fields, so bytes are not compared.
        assert len(ours) == len(theirs)
        assert str(deserialize_message(ours, TrackedObjectArray)) == str(
            deserialize_message(theirs, TrackedObjectArray))


def test_the_layout_is_that_of_the_installed_message() -> None:
    from masa_ros.ros.track_bytes import can_write_bytes
    assert can_write_bytes()


def test_numbers_that_do_not_fit_are_refused() -> None:
    from masa_ros.ros.track_bytes import tracks_to_bytes
    tracks = some_tracks(1, 0, embeddings=False, detected_by=False)
    tracks = tracks.with_fields(track_ids=np.array([2**32]))
    with pytest.raises(ValueError, match='does not fit'):
        tracks_to_bytes(tracks, make_header(0, ''), TrackInfo(48, 64))
