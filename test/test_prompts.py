"""Objects that are asked for; a picture pasted on a background is the object, its box is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
from masa_ros.models import ModelConfig
from masa_ros.models.classical import ClassicalModel
from masa_ros.pipeline import FrameResult, Pipeline, PipelineConfig
from masa_ros.prompts import Prompt, PromptsConfig
from masa_ros.regions import RegionsConfig
from masa_ros.structures.boxes import pairwise_iou
from masa_ros.structures.frame import Frame
from masa_ros.structures.instances import Flag, Instances, TrackState
import numpy as np
from numpy.typing import NDArray
import pytest

HEIGHT, WIDTH = 240, 320


def texture(height: int, width: int, seed: int, grain: int) -> NDArray[np.uint8]:
    rough = np.random.default_rng(seed).integers(
        0, 255, (height // grain + 1, width // grain + 1, 3)).astype(np.uint8)
    return np.asarray(
        cv2.resize(rough, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


BACKGROUND = texture(HEIGHT, WIDTH, 1, 20) // 4 + 90
OBJECT = texture(50, 40, 2, 10)
OTHER = texture(50, 40, 7, 10)


class Street:
    """A camera that sees an object at a place, and a pipeline around it."""

    def __init__(self, model: Any = None, **settings: Any) -> None:
        self.pipeline = Pipeline(
            PipelineConfig(**settings),
            model=model or ClassicalModel(ModelConfig(name='classical')))
        self.index = -1

    def see(
        self, place: tuple[int, int] | None, detections: Sequence[Sequence[float]] = (),
        other: tuple[int, int] | None = None, skip: int = 0, classes: Sequence[str] = (),
    ) -> FrameResult:
        """Process the next image of 10 Hz; detections are the only boxes from outside."""
        self.index += 1 + skip
        image = BACKGROUND.copy()
        for spot, picture in ((place, OBJECT), (other, OTHER)):
            if spot is not None:
                image[spot[1]:spot[1] + 50, spot[0]:spot[0] + 40] = picture
        boxes = Instances.from_boxes(
            np.array(detections, np.float32).reshape(-1, 4), np.full(len(detections), 0.9),
            labels=list(classes) or None)
        frame = Frame(image, 1 + self.index * 10**8, self.index, 'front')
        return self.pipeline.process(frame, boxes)

    def ask(self, **prompt: Any) -> Any:
        return self.pipeline.add_object('front', Prompt(**prompt))


def box_at(x: int, y: int) -> NDArray[np.float64]:
    return np.array([x, y, x + 40, y + 50], np.float64)


def overlap(result: FrameResult, x: int, y: int) -> float:
    """IoU of the first seen object with the true box; 0 where none is seen."""
    seen = result.tracks.select(result.tracks.seen)
    if not len(seen):
        return 0.0
    return float(pairwise_iou(seen.boxes[:1], box_at(x, y)[None].astype(np.float32))[0, 0])


# --- boxes ----------------------------------------------------------------------------------


def test_a_box_starts_a_track_that_no_detector_needs_to_find() -> None:
    street = Street()
    assert len(street.see((40, 80)).tracks) == 0
    added = street.ask(box=box_at(40, 80), label='crate')
    assert (added.track_id, len(added.uuid)) == (1, 16)
    assert added.message == 'object 1 is tracked from now on'
    results = [street.see((40 + 4 * step, 80 + step)) for step in range(1, 21)]
    assert [result.tracks.track_ids.tolist() for result in results] == [[1]] * 20
    assert all(result.tracks.states[0] == TrackState.TRACKED for result in results)
    assert min(overlap(result, 40 + 4 * (i + 1), 81 + i) for i, result in enumerate(results)) > 0.7
    last = results[-1].tracks
    assert last.labels == ('crate',)
    assert last.uuids == (added.uuid,)
    assert last.flags[0] & Flag.PROMPTED
    assert last.masks[0] is not None


def test_an_object_that_left_the_view_is_found_again_with_its_id() -> None:
    street = Street()
    street.see((40, 80))
    street.ask(box=box_at(40, 80))
    for step in range(1, 6):
        street.see((40 + 4 * step, 80))
    away = [street.see(None) for _ in range(7)]
    away += [street.see(None, skip=150) for _ in range(2)]  # 30 s: tracks are remembered for 10 s
    assert not any(result.tracks.seen.any() for result in away)
    assert away[-1].tracks.states.tolist() == []
    assert street.pipeline.objects('front').states.tolist() == [TrackState.LOST]
    back = [street.see((220, 150)) for _ in range(5)]
    assert back[-1].tracks.track_ids.tolist() == [1]
    assert overlap(back[-1], 220, 150) > 0.6


def test_another_object_is_not_taken_for_the_lost_one() -> None:
    street = Street()
    street.see((40, 80))
    street.ask(box=box_at(40, 80))
    for _ in range(20):
        street.see(None)
    results = [street.see(None, other=(220, 150)) for _ in range(10)]
    assert not any(result.tracks.seen.any() for result in results)


def test_detections_find_a_lost_object_again_too() -> None:
    street = Street(prompts=PromptsConfig(follow=False))
    street.see((40, 80))
    street.ask(box=box_at(40, 80))
    for _ in range(3):
        street.see((40, 80), [box_at(40, 80).tolist()])
    for _ in range(7):
        street.see(None)
    street.see(None, skip=150)
    back = [street.see((220, 150), [box_at(220, 150).tolist()]) for _ in range(3)]
    assert back[-1].tracks.track_ids[0] == 1


def test_a_box_around_a_tracked_object_keeps_its_id() -> None:
    street = Street()
    for _ in range(3):
        before = street.see((40, 80), [box_at(40, 80).tolist()], classes=['car'])
    added = street.ask(box=box_at(42, 83))
    assert (added.track_id, added.uuid) == (1, before.tracks.uuids[0])
    assert 'tracked already' in added.message
    after = street.see((40, 80), [box_at(40, 80).tolist()], classes=['car'])
    assert after.tracks.flags[0] & Flag.PROMPTED
    assert after.tracks.labels == ('car',)


def test_a_detection_of_a_prompted_object_is_the_object_and_its_name_stays() -> None:
    street = Street()
    street.see((40, 80))
    street.ask(box=box_at(40, 80), label='crate')
    for step in range(1, 8):
        result = street.see(
            (40 + 3 * step, 80), [box_at(40 + 3 * step, 80).tolist()], classes=['box'])
    assert result.tracks.track_ids.tolist() == [1]
    assert result.tracks.labels == ('crate',)
    assert result.tracks.flags[0] & Flag.FROM_DETECTION


def test_a_prompt_for_an_earlier_image_is_taken_there() -> None:
    street = Street()
    for step in range(4):
        street.see((40 + 10 * step, 80))
    added = street.ask(box=box_at(50, 80), stamp_ns=1 + 10**8)
    assert added.message == 'object 1 is tracked from now on'
    result = street.see((80, 80))
    assert result.tracks.track_ids.tolist() == [1]
    late = street.ask(box=box_at(200, 150), stamp_ns=12345)
    assert 'the newest one was taken' in late.message


# --- masks and points -----------------------------------------------------------------------


def test_a_mask_is_its_tight_box() -> None:
    street = Street()
    street.see((40, 80))
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[80:130, 40:80] = True
    added = street.ask(mask=mask)
    assert added.box.tolist() == [40, 80, 80, 130]
    assert street.see((44, 80)).tracks.track_ids.tolist() == [1]


def test_a_point_means_the_smallest_object_that_contains_it() -> None:
    street = Street()
    boxes = [[20, 60, 120, 160], box_at(40, 80).tolist(), box_at(200, 100).tolist()]
    for _ in range(2):
        result = street.see((40, 80), boxes)
    ids = dict(zip(map(tuple, result.tracks.boxes.tolist()), result.tracks.track_ids.tolist(),
                   strict=True))
    added = street.ask(points=np.array([[60.0, 105.0]]))
    assert added.track_id == ids[tuple(boxes[1])]
    both = street.ask(points=np.array([[60.0, 105.0], [100.0, 70.0]]),
                      on_object=np.array([True, False]))
    assert both.track_id == ids[tuple(boxes[1])]


def test_a_point_on_nothing_is_refused_with_a_way_out() -> None:
    street = Street()
    street.see((40, 80), [box_at(40, 80).tolist()])
    with pytest.raises(ValueError, match=r'contains the point .250, 200.*give a box'):
        street.ask(points=np.array([[250.0, 200.0]]))


class Pointing(ClassicalModel):
    """A model that cuts an object out around a point."""

    def segment_points(
        self, image: NDArray[np.uint8], points: NDArray[np.float32], on_object: NDArray[np.bool_],
    ) -> Instances:
        x, y = points[on_object][0]
        return Instances.from_boxes([[x - 20, y - 25, x + 20, y + 25]], flag=Flag.NONE)


def test_a_model_that_understands_points_is_asked_first() -> None:
    street = Street(Pointing(ModelConfig(name='classical')))
    street.see((40, 80))
    added = street.ask(points=np.array([[60.0, 105.0]]))
    assert added.box.tolist() == [40, 80, 80, 130]
    assert street.see((42, 80)).tracks.track_ids.tolist() == [1]


# --- what cannot be done --------------------------------------------------------------------


@pytest.mark.parametrize(('prompt', 'text'), [
    ({}, 'nothing was given'),
    ({'box': [1, 2, 30, 40], 'points': [[1, 2]]}, 'box and points was given'),
    ({'box': [1, 2, 3]}, 'has 3 numbers'),
    ({'box': [np.nan, 2, 30, 40]}, 'finite'),
    ({'box': [1, 2, np.inf, 40]}, 'finite'),
    ({'box': [30, 2, 10, 40]}, 'at least 2 pixels between them'),
    ({'box': [-50, -50, -10, -10]}, 'inside the image, which is 320 x 240 pixels'),
    ({'box': [1e9, 1e9, 2e9, 2e9]}, 'inside the image'),
    ({'points': []}, 'expected x and y of each'),
    ({'points': [[np.nan, 1]]}, 'not finite'),
    ({'points': [[-1, 5]]}, r'\(-1, 5\) is outside the image'),
    ({'points': [[320, 5]]}, 'outside the image'),
    ({'points': [[5, 5]], 'on_object': [True, False]}, '1 points have 2 labels'),
    ({'points': [[5, 5]], 'on_object': [False]}, 'expected one on it'),
])
def test_impossible_prompts_say_what_is_wrong(prompt: dict[str, Any], text: str) -> None:
    street = Street()
    street.see((40, 80))
    kinds: dict[str, Any] = {'on_object': bool}
    arrays = {name: np.array(value, kinds.get(name, np.float64))
              for name, value in prompt.items()}
    with pytest.raises(ValueError, match=text):
        street.ask(**arrays)
    assert len(street.pipeline.objects('front')) == 0


def test_masks_of_another_size_and_empty_ones_are_refused() -> None:
    street = Street()
    street.see((40, 80))
    with pytest.raises(ValueError, match='mask is empty'):
        street.ask(mask=np.zeros((HEIGHT, WIDTH), bool))
    with pytest.raises(ValueError, match='mask is 10 x 20 pixels'):
        street.ask(mask=np.ones((20, 10), bool))


def test_before_the_first_image_there_is_nothing_to_point_at() -> None:
    street = Street()
    with pytest.raises(ValueError, match='no image has been processed yet'):
        street.ask(box=box_at(40, 80))
    with pytest.raises(ValueError, match='no image has been processed yet'):
        street.pipeline.remove_object('front', 1)
    assert len(street.pipeline.objects('front')) == 0


def test_the_ignored_part_of_the_image_cannot_be_pointed_at() -> None:
    street = Street(regions=RegionsConfig(ignore_polygons=('0,60 160,60 160,240 0,240',)))
    street.see((40, 80))
    with pytest.raises(ValueError, match='ignored part of the image'):
        street.ask(box=box_at(40, 80))
    with pytest.raises(ValueError, match='ignored part of the image'):
        street.ask(points=np.array([[60.0, 105.0]]))


def test_there_is_a_most_of_objects() -> None:
    street = Street(prompts=PromptsConfig(max_objects=1))
    street.see((40, 80))
    street.ask(box=box_at(40, 80))
    with pytest.raises(ValueError, match='prompts.max_objects'):
        street.ask(box=box_at(200, 100))


# --- removal, resets, streams ---------------------------------------------------------------


def test_a_removed_object_is_reported_once_and_gone() -> None:
    street = Street()
    street.see((40, 80))
    street.ask(box=box_at(40, 80))
    street.see((40, 80))
    street.pipeline.remove_object('front', 1)
    with pytest.raises(ValueError, match='there is no object 1; known ones are none'):
        street.pipeline.remove_object('front', 1)
    gone = street.see((40, 80))
    assert gone.tracks.states.tolist() == [TrackState.REMOVED]
    assert len(street.see((40, 80)).tracks) == 0


def test_a_reset_forgets_prompted_objects_and_images() -> None:
    street = Street()
    street.see((40, 80))
    street.ask(box=box_at(40, 80))
    street.pipeline.reset('front')
    assert len(street.pipeline.objects('front')) == 0
    with pytest.raises(ValueError, match='no image'):
        street.ask(box=box_at(40, 80))
    assert len(street.see((40, 80)).tracks) == 0


def test_objects_can_be_listed_with_their_states() -> None:
    street = Street()
    for _ in range(2):
        street.see((40, 80), [box_at(200, 100).tolist()], classes=['car'])
    street.ask(box=box_at(40, 80), label='crate')
    street.see((40, 80))
    known = street.pipeline.objects('front')
    assert known.track_ids.tolist() == [1, 2]
    assert known.labels == ('car', 'crate')
    assert [bool(flags & Flag.PROMPTED) for flags in known.flags.tolist()] == [False, True]
    assert known.states.tolist() == [TrackState.COASTING, TrackState.TRACKED]
