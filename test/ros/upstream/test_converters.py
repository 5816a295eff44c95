"""What each upstream message becomes, and what becomes of hostile ones; numbers by hand."""

from __future__ import annotations

from collections import Counter
import math
from types import SimpleNamespace
from typing import Any

from masa_ros.ros.convert import LabelTable, make_header
from masa_ros.ros.upstream import TYPES
from masa_ros.ros.upstream.found import Found
from masa_ros.structures.masks import RoiMask
import numpy as np
import pytest
from upstream_messages import ARRAY, make, message_class, OWN, SINGLE, Thing, TIER4, YOLO

pytestmark = pytest.mark.ros

KINDS = [ARRAY, SINGLE, YOLO, TIER4, OWN]


def read(kind: str, things: list[Thing], labels: LabelTable | None = None) -> Found:
    pytest.importorskip(f'{kind.partition("/")[0]}.msg')
    messages = make(kind, make_header(1_000_000_000, 'camera'), things)
    return TYPES[kind].reader()(messages, labels or LabelTable())


def decoded(mask: RoiMask | None) -> list[list[int]]:
    assert mask is not None
    plane: list[list[int]] = mask.paste(8, 8).astype(int).tolist()
    return plane


@pytest.mark.parametrize('kind', KINDS)
def test_boxes_classes_and_scores_come_through(kind: str) -> None:
    things = [Thing((10, 8, 30, 40), 'car', 2, 0.75), Thing((1, 2, 4, 6), 'pedestrian', 0, 0.5)]
    found = read(kind, things)
    assert found.instances.boxes.tolist() == [[10, 8, 30, 40], [1, 2, 4, 6]]
    assert found.instances.labels == ('car', 'pedestrian')
    assert found.instances.scores.tolist() == [0.75, 0.5]
    assert found.problems == {}


@pytest.mark.parametrize(('kind', 'number'), [(YOLO, 2), (OWN, 2), (TIER4, 1)])
def test_numbers_of_classes_are_those_of_the_detector(kind: str, number: int) -> None:
    assert read(kind, [Thing()]).instances.class_ids.tolist() == [number]


@pytest.mark.parametrize('kind', [ARRAY, YOLO, TIER4, OWN])
def test_no_objects_give_no_rows(kind: str) -> None:
    found = read(kind, [])
    assert found.instances.boxes.shape == (0, 4)


def test_a_number_without_a_name_is_looked_up() -> None:
    labels = LabelTable(['person', 'bicycle', 'car'])
    assert read(YOLO, [Thing(label='', number=2)], labels).instances.labels == ('car',)
    assert read(ARRAY, [Thing(label='2')], labels).instances.labels == ('car',)


# --- yolo -----------------------------------------------------------------------------------


def test_a_polygon_becomes_a_mask_with_its_border() -> None:
    thing = Thing(polygon=((1, 1), (4, 1), (4, 3), (1, 3)), image_size=(8, 8))
    found = read(YOLO, [thing])
    expected = np.zeros((8, 8), int)
    expected[1:4, 1:5] = 1
    assert decoded(found.instances.masks[0]) == expected.tolist()
    assert found.size == (8, 8)


def test_a_polygon_that_leaves_the_image_is_cut() -> None:
    thing = Thing(polygon=((-5, -5), (2, -5), (2, 2), (-5, 2)), image_size=(8, 8))
    expected = np.zeros((8, 8), int)
    expected[:3, :3] = 1
    assert decoded(read(YOLO, [thing]).instances.masks[0]) == expected.tolist()


@pytest.mark.parametrize(('polygon', 'size', 'reason'), [
    (((1, 1),), (8, 8), 'polygons with less than 3 points'),
    (((1, 1), (4, 4)), (8, 8), 'polygons with less than 3 points'),
    (((1, 1), (math.nan, 4), (3, 3)), (8, 8), 'polygons with points that are not finite'),
    (((1, 1), (math.inf, 4), (3, 3)), (8, 8), 'polygons with points that are not finite'),
    (((20, 20), (30, 20), (30, 30)), (8, 8), 'polygons outside the image'),
    (((1, 1), (4, 1), (4, 3)), (0, 0), 'polygons without the size of their image'),
    (((1, 1), (4, 1), (4, 3)), (-8, 8), 'polygons without the size of their image'),
    (((1, 1), (4, 1), (4, 3)), (2**31 - 1, 2**31 - 1),
     'polygons without the size of their image')])
def test_polygons_that_are_none_cost_the_mask_only(
    polygon: tuple[tuple[float, float], ...], size: tuple[int, int], reason: str,
) -> None:
    found = read(YOLO, [Thing(polygon=polygon, image_size=size)])
    assert found.instances.masks == (None,)
    assert len(found.instances) == 1
    assert found.problems == {reason: 1}


def test_a_polygon_of_a_million_points_is_refused() -> None:
    corner = SimpleNamespace(x=1.0, y=1.0)
    message = message_class(YOLO)() if pytest.importorskip('yolo_msgs.msg') else None
    detection = make(YOLO, None or make_header(0, ''), [Thing()])[0].detections[0]
    fake: Any = SimpleNamespace(
        bbox=detection.bbox, score=0.5, class_name='', class_id=3,
        mask=SimpleNamespace(height=8, width=8, data=[corner] * 10**6))
    found = TYPES[YOLO].reader()([SimpleNamespace(detections=[fake])], LabelTable())
    assert message is not None
    assert found.problems == {'polygons with more than 100000 points': 1}


def test_an_oriented_box_becomes_the_upright_box_around_it() -> None:
    message = make(YOLO, make_header(0, ''), [Thing((10, 8, 30, 40))])[0]
    message.detections[0].bbox.center.theta = math.pi / 2
    box = TYPES[YOLO].reader()([message], LabelTable()).instances.boxes[0]
    assert box == pytest.approx([4, 14, 36, 34])  # 20 x 32 around (20, 24), turned


# --- Autoware -------------------------------------------------------------------------------


def test_the_most_probable_class_counts_and_a_missing_score_is_its_probability() -> None:
    message = make(TIER4, make_header(0, ''), [Thing(), Thing()])[0]
    kinds = message.feature_objects[0].object.classification
    kinds.append(type(kinds[0])(label=7, probability=0.5))
    kinds[0].probability = 0.25
    kinds.append(type(kinds[0])(label=3, probability=math.nan))
    message.feature_objects[0].object.existence_probability = 0.0
    message.feature_objects[1].object.classification = []
    found = TYPES[TIER4].reader()([message], LabelTable())
    assert found.instances.labels == ('pedestrian', '')
    assert found.instances.class_ids.tolist() == [7, -1]
    assert found.instances.scores.tolist() == pytest.approx([0.5, 0.9])


def test_a_class_that_is_not_known_yet_keeps_its_number() -> None:
    message = make(TIER4, make_header(0, ''), [Thing()])[0]
    message.feature_objects[0].object.classification[0].label = 200
    found = TYPES[TIER4].reader()([message], LabelTable())
    assert (found.instances.labels, found.instances.class_ids.tolist()) == (('',), [200])


# --- our own --------------------------------------------------------------------------------


def test_objects_that_were_not_seen_are_no_detections() -> None:
    message = make(OWN, make_header(0, ''), [Thing(), Thing(label='bus'), Thing()])[0]
    states = [message.objects[0].STATE_COASTING, message.objects[0].STATE_TENTATIVE,
              message.objects[0].STATE_REMOVED]
    for entry, state in zip(message.objects, states, strict=True):
        entry.state = state
    found = TYPES[OWN].reader()([message], LabelTable())
    assert found.instances.labels == ('bus',)
    assert found.size == (48, 64)


def test_masks_come_along_and_damaged_ones_are_counted() -> None:
    message = make(OWN, make_header(0, ''), [Thing(), Thing()])[0]
    for entry in message.objects:
        entry.roi.x_offset, entry.roi.y_offset = 1, 2
        entry.roi.height, entry.roi.width = 2, 2
    message.objects[0].mask_counts = [1, 3]
    message.objects[1].mask_counts = [1, 2]
    found = TYPES[OWN].reader()([message], LabelTable())
    expected = np.zeros((8, 8), int)
    expected[2:4, 1:3] = [[0, 1], [1, 1]]
    assert decoded(found.instances.masks[0]) == expected.tolist()
    assert found.instances.masks[1] is None
    assert found.problems == {'masks whose runs do not fit': 1}


# --- class names ----------------------------------------------------------------------------


@pytest.mark.parametrize('kind', [ARRAY, SINGLE, YOLO, OWN])
def test_names_that_are_no_text_are_cleaned_and_counted(kind: str) -> None:
    # What the decoder of ROS makes of bytes that are no UTF-8, and a name without end.
    found = read(kind, [Thing(label='c\N{REPLACEMENT CHARACTER}ar'), Thing(label='x' * 5000)])
    assert found.instances.labels == ('car', 'x' * 200)
    assert found.problems == Counter({
        'class names that are no UTF-8': 1, 'class names that are too long': 1})


# --- packages that are missing --------------------------------------------------------------


def test_a_missing_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('ROS_DISTRO', 'jazzy')
    monkeypatch.setitem(__import__('sys').modules, 'vision_msgs.msg', None)
    with pytest.raises(ValueError, match='sudo apt install ros-jazzy-vision-msgs'):
        TYPES[ARRAY].message_class()
    monkeypatch.setitem(__import__('sys').modules, 'yolo_msgs.msg', None)
    with pytest.raises(ValueError, match='build it from https://github.com/mgonzs13/yolo_ros'):
        TYPES[YOLO].message_class()
