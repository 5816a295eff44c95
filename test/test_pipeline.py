"""The pipeline around a model without weights: batches, streams, regions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from masa_ros.models import ModelConfig
from masa_ros.models.model import WeightsInfo
from masa_ros.pipeline import FrameResult, Pipeline, PipelineConfig
from masa_ros.regions import RegionsConfig
from masa_ros.structures.frame import Frame
from masa_ros.structures.instances import Flag, Instances
from masa_ros.structures.masks import encode_crop
import numpy as np
from numpy.typing import NDArray
import pytest

LEFT, RIGHT = [4.0, 10.0, 24.0, 30.0], [40.0, 10.0, 60.0, 30.0]
LOWEST_ROWS = '0,30 64,30 64,48 0,48'


class PlainModel:
    """Proposes the left box and full masks; refuses images with a white corner."""

    name = 'plain'
    weights = WeightsInfo()
    device = 'cpu'
    can_propose = True

    def __init__(self) -> None:
        self.batches: list[int] = []

    def warm_up(self) -> None:
        pass

    def run(
        self, images: Sequence[NDArray[np.uint8]], detections: Sequence[Instances | None],
    ) -> list[Instances]:
        self.batches.append(len(images))
        if any(image[0, 0, 0] == 255 for image in images):
            raise RuntimeError('a white corner')
        return [self._one(found) for found in detections]

    def _one(self, found: Instances | None) -> Instances:
        if found is None:
            found = Instances.from_boxes([LEFT], flag=Flag.FROM_PROPOSAL)
        corners = found.boxes.astype(int).tolist()
        return found.with_fields(
            masks=tuple(encode_crop(np.ones((y1 - y0, x1 - x0), bool), x0, y0)
                        for x0, y0, x1, y1 in corners),
            embeddings=np.ones((len(found), 4), np.float32))

    def reconfigure(self, config: ModelConfig) -> None:
        pass

    def close(self) -> None:
        pass


def frame(stream: str, index: int = 0, corner: int = 0) -> Frame:
    image = np.full((48, 64, 3), 100, np.uint8)
    image[0, 0] = corner
    return Frame(image, 1 + 10**8 * index, index, stream)


def pipeline(**regions: Any) -> tuple[Pipeline, PlainModel]:
    model = PlainModel()
    config = PipelineConfig(regions=RegionsConfig(**regions))
    return Pipeline(config, model=model), model


def ids(results: Sequence[FrameResult | Exception]) -> list[list[int] | str]:
    return [str(result) if isinstance(result, Exception) else result.tracks.track_ids.tolist()
            for result in results]


# --- batches --------------------------------------------------------------------------------


def test_streams_of_one_batch_share_a_pass_and_no_ids() -> None:
    tracked, model = pipeline()
    boxes = Instances.from_boxes([LEFT, RIGHT])
    results = tracked.process_batch(
        [frame('a'), frame('b'), frame('c')], [boxes, boxes.select([0]), None])
    assert model.batches == [3]
    assert ids(results) == [[1, 2], [1], [1]]
    uuids = [uuid for result in results for uuid in result.tracks.uuids]
    assert len(set(uuids)) == 4


def test_a_bad_frame_does_not_spoil_the_others_of_its_batch() -> None:
    tracked, model = pipeline()
    results = tracked.process_each(
        [frame('a'), frame('b', corner=255), frame('c')], [None, None, None])
    assert ids(results) == [[1], 'a white corner', [1]]
    assert model.batches == [3, 1, 1, 1]
    again = tracked.process_each(
        [frame('a', 1), frame('b', 1), frame('c', 1)], [None, None, None])
    assert ids(again) == [[1], [1], [1]]


def test_a_frame_out_of_order_is_its_own_stream_s_problem() -> None:
    tracked, model = pipeline()
    tracked.process_batch([frame('a', 5), frame('b', 0)], [None, None])
    results = tracked.process_each([frame('a', 3), frame('b', 1)], [None, None])
    assert isinstance(results[0], ValueError)
    assert ids(results)[1] == [1]
    assert model.batches == [2, 2]
    with pytest.raises(ValueError, match='came after frame 5'):
        tracked.process_batch([frame('a', 4), frame('b', 2)], [None, None])


def test_an_empty_batch_is_nothing_and_two_frames_of_a_stream_are_refused() -> None:
    tracked, _ = pipeline()
    assert tracked.process_each([], []) == []
    with pytest.raises(ValueError, match='two frames of one stream'):
        tracked.process_each([frame('a'), frame('a', 1)], [None, None])


# --- regions --------------------------------------------------------------------------------


def test_given_boxes_in_an_ignored_region_are_left_out_before_the_model() -> None:
    tracked, _ = pipeline(ignore_polygons=('32,0 64,0 64,48 32,48',))
    boxes = Instances.from_boxes([LEFT, RIGHT, [20.0, 10.0, 36.0, 20.0]])
    result = tracked.process(frame('a'), boxes)
    assert result.tracks.boxes.tolist() == [LEFT, [20, 10, 36, 20]]
    assert (result.ignored, result.rejected_detections) == (1, 0)


def test_own_proposals_are_judged_too() -> None:
    tracked, _ = pipeline(ignore_polygons=('0,0 32,0 32,48 0,48',))
    result = tracked.process(frame('a'))
    assert (len(result.tracks), result.ignored) == (0, 1)


def test_a_stream_may_have_regions_of_its_own() -> None:
    tracked, _ = pipeline(ignore_polygons=('0,0 32,0 32,48 0,48',))
    before = tracked.fingerprint()
    tracked.set_regions('b', RegionsConfig(ignore_polygons=(LOWEST_ROWS,)))
    results = tracked.process_batch([frame('a'), frame('b')], [None, None])
    assert ids(results) == [[], [1]]
    assert tracked.fingerprint() != before


def test_regions_change_while_running() -> None:
    tracked, _ = pipeline()
    assert len(tracked.process(frame('a', 0)).tracks) == 1
    tracked.reconfigure(PipelineConfig(
        regions=RegionsConfig(ignore_polygons=('0,0 32,0 32,48 0,48',))))
    assert tracked.process(frame('a', 1)).ignored == 1


def test_regions_that_do_not_fit_one_camera_do_not_stop_the_others() -> None:
    tracked, _ = pipeline()
    tracked.set_regions('b', RegionsConfig(interest_polygons=('900,0 999,0 999,99',)))
    results = tracked.process_each([frame('a'), frame('b')], [None, None])
    assert ids(results)[0] == [1]
    assert 'leave nothing' in str(results[1])


# --- masks that come with the boxes ---------------------------------------------------------


def test_masks_that_come_with_the_boxes_go_before_those_of_the_model() -> None:
    given = Instances.from_boxes([LEFT, RIGHT], flag=Flag.FROM_DETECTION | Flag.MASK_SKIPPED)
    upper_half = encode_crop(np.ones((10, 20), bool), 4, 10)
    given = given.with_fields(masks=(upper_half, None))
    tracks = pipeline()[0].process(frame('front'), given).tracks
    areas = [None if mask is None else mask.area for mask in tracks.masks]
    assert areas == [200, 400]  # the given one; 20 x 20 of the model
    assert (tracks.flags & Flag.MASK_SKIPPED).tolist() == [0, Flag.MASK_SKIPPED]
