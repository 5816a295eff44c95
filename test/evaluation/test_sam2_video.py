"""
SAM 2 as a baseline, against a stand-in for its predictor's documented interface.

The stand-in follows a bright square; the real package was not at hand.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
import sys
import types
from typing import Any

import cv2
from masa_ros.evaluation.datasets.sequence import regular_stamps_ns, Sequence
from masa_ros.evaluation.sam2_video import Sam2Video
from masa_ros.structures.frame import Frame
from masa_ros.structures.instances import Instances
import numpy as np
import pytest


class StandIn:
    """Gives every object the bright pixels that start in its box, moved with the picture."""

    def __init__(self) -> None:
        self.prompts: list[tuple[int, int]] = []

    def init_state(self, video_path: str) -> dict[str, Any]:
        paths = sorted(Path(video_path).glob('*.jpg'), key=lambda path: int(path.stem))
        return {'images': [cv2.imread(str(path), 0) for path in paths], 'rows': {}}

    def add_new_points_or_box(
        self, inference_state: dict[str, Any], frame_idx: int, obj_id: int, box: Any,
    ) -> None:
        self.prompts.append((frame_idx, obj_id))
        inference_state['rows'][obj_id] = slice(int(box[1]), int(box[3]))

    def propagate_in_video(
        self, inference_state: dict[str, Any], start_frame_idx: int, max_frame_num_to_track: int,
    ) -> Iterator[tuple[int, list[int], np.ndarray]]:
        rows = inference_state['rows']
        last = min(start_frame_idx + max_frame_num_to_track, len(inference_state['images']) - 1)
        for index in range(start_frame_idx, last + 1):
            logits = np.full((len(rows), 1, 80, 120), -5.0)
            for row, part in enumerate(rows.values()):
                bright = inference_state['images'][index] > 128
                logits[row, 0, part] = np.where(bright[part], 5.0, -5.0)
            yield index, list(rows), logits


def square(x: int, y: int) -> list[float]:
    return [x, y, x + 16, y + 16]


def video(folder: Path, count: int = 12) -> tuple[Sequence, list[Instances]]:
    """One square from the start, one more from frame 4 on; it leaves after frame 8."""
    paths, boxes = [], []
    for index in range(count):
        own = [square(10 + 4 * index, 8)] + ([square(50, 48)] if 4 <= index < 9 else [])
        image = np.zeros((80, 120, 3), np.uint8)
        for x0, y0, x1, y1 in np.array(own, int).tolist():
            image[y0:y1, x0:x1] = 255
        path = folder / f'{index}.png'
        cv2.imwrite(str(path), image)
        paths.append(path)
        boxes.append(Instances.from_boxes(own, np.full(len(own), 0.9)))
    indices = np.arange(count)
    return Sequence('v', indices, regular_stamps_ns(indices, 10), 10, tuple(paths), 80,
                    120), boxes


def test_objects_are_prompted_once_and_followed_through_the_video(tmp_path: Path) -> None:
    predictor = StandIn()
    sequence, boxes = video(tmp_path)
    tracks = Sam2Video(predictor).track_sequence(sequence, boxes)
    assert predictor.prompts == [(0, 1), (5, 2)]
    assert [frame.track_ids.tolist() for frame in tracks] == \
        [[1]] * 5 + [[1, 2]] * 4 + [[1]] * 3
    np.testing.assert_allclose(tracks[7].boxes[0], square(10 + 28, 8), atol=1)
    assert tracks[7].masks[0] is not None


def test_weak_detections_and_second_boxes_on_an_object_start_nothing(tmp_path: Path) -> None:
    predictor = StandIn()
    sequence, boxes = video(tmp_path, 3)
    boxes[0] = Instances.from_boxes(
        [square(10, 8), square(11, 8), square(90, 60)], [0.9, 0.8, 0.4])
    Sam2Video(predictor).track_sequence(sequence, boxes)
    assert predictor.prompts == [(0, 1)]


def test_a_video_without_detections_is_empty(tmp_path: Path) -> None:
    sequence, boxes = video(tmp_path, 3)
    tracks = Sam2Video(StandIn()).track_sequence(sequence, [Instances() for _ in boxes])
    assert [len(frame) for frame in tracks] == [0, 0, 0]


def test_single_frames_are_refused() -> None:
    with pytest.raises(ValueError, match='whole videos'):
        Sam2Video(StandIn()).update(Frame(np.zeros((8, 8, 3), np.uint8), 1, 0), Instances())


def test_a_missing_package_and_missing_weights_say_where_to_get_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:
    monkeypatch.setitem(sys.modules, 'sam2', None)
    with pytest.raises(ModuleNotFoundError, match='facebookresearch/sam2'):
        Sam2Video.from_files('c.yaml', 'w.pt')
    module = types.ModuleType('sam2.build_sam')
    loaded: list[tuple[str, str]] = []

    def load(config: str, checkpoint: str) -> StandIn:
        loaded.append((config, checkpoint))
        return StandIn()

    module.build_sam2_video_predictor = load  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, 'sam2', types.ModuleType('sam2'))
    monkeypatch.setitem(sys.modules, 'sam2.build_sam', module)
    with pytest.raises(FileNotFoundError, match='--sam2 CONFIG=FILE'):
        Sam2Video.from_files('c.yaml', str(tmp_path / 'w.pt'))
    (tmp_path / 'w.pt').touch()
    Sam2Video.from_files('c.yaml', str(tmp_path / 'w.pt'))
    assert loaded == [('c.yaml', str(tmp_path / 'w.pt'))]
