"""Serialized messages of several topics become one frame's instances."""

from __future__ import annotations

from typing import Any

from masa_ros.detectors.selection import ClassConfig
from masa_ros.ros.convert import make_header
from masa_ros.ros.parameters import DetectionsConfig
from masa_ros.ros.upstream import TYPES
from masa_ros.ros.upstream.arrival import Arrival, read_head
from masa_ros.ros.upstream.reading import DetectionReader
import pytest
from upstream_messages import ARRAY, make, OWN, SINGLE, Thing, TIER4, YOLO

pytestmark = pytest.mark.ros

BOX, NEAR, FAR = (10, 8, 30, 40), (11, 8, 31, 40), (40, 8, 60, 40)


def arrival(kind: str, *things: Thing) -> Arrival:
    pytest.importorskip(f'{kind.partition("/")[0]}.msg')
    from rclpy.serialization import serialize_message
    messages = make(kind, make_header(5_000_000_007, 'camera'), things)
    return Arrival(TYPES[kind], 'camera', tuple(map(serialize_message, messages)))


def reader(count: int = 1, classes: ClassConfig | None = None, **config: Any) -> DetectionReader:
    return DetectionReader(count, DetectionsConfig(**config), classes)


# --- the head of a message ------------------------------------------------------------------


@pytest.mark.parametrize('frame_id', ['', 'a', 'cam', 'camera', 'camera_optical'])
@pytest.mark.parametrize('kind', [ARRAY, YOLO, TIER4])
def test_stamp_frame_and_count_are_read_without_the_rest(kind: str, frame_id: str) -> None:
    pytest.importorskip(f'{kind.partition("/")[0]}.msg')
    from rclpy.serialization import serialize_message
    message, = make(kind, make_header(5_000_000_007, frame_id), [Thing()] * 3)
    head = read_head(serialize_message(message))
    assert (head.stamp_ns, head.frame_id, head.count) == (5_000_000_007, frame_id, 3)


@pytest.mark.parametrize('data', [
    b'', b'\0\1', b'\0\1\0\0', b'\0\1\0\0' + bytes(8), b'\0\7\0\0' + bytes(40),
    b'\0\1\0\0' + bytes(8) + b'\xff\xff\xff\xff', b'\0\1\0\0' + bytes(8) + b'\4\0\0\0abc'])
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match='cut off or no CDR'):
        read_head(data)


def test_a_frame_that_is_no_utf8_is_read_all_the_same() -> None:
    data = b'\0\1\0\0' + bytes(8) + b'\4\0\0\0\xff\xfea\0' + b'\2\0\0\0'
    assert read_head(data).frame_id == '\N{REPLACEMENT CHARACTER}' * 2 + 'a'


# --- one topic ------------------------------------------------------------------------------


@pytest.mark.parametrize('kind', [ARRAY, SINGLE, YOLO, TIER4, OWN])
def test_one_topic_comes_through_and_is_noted(kind: str) -> None:
    found = reader().read([arrival(kind, Thing(BOX), Thing(FAR))], 48, 64)
    assert found.instances.boxes.tolist() == [list(BOX), list(FAR)]
    assert found.instances.detected_by is not None
    assert found.instances.detected_by.tolist() == [1, 1]
    assert found.problems == {}


@pytest.mark.parametrize('kind', [ARRAY, YOLO, TIER4, OWN])
@pytest.mark.parametrize('keep', [0.3, 0.6, 0.95])
def test_a_message_that_is_cut_off_is_counted(kind: str, keep: float) -> None:
    whole = arrival(kind, Thing(BOX), Thing(FAR))
    data = whole.payloads[0]
    cut = Arrival(whole.kind, 'camera', (data[:int(keep * len(data))],))
    found = reader().read([cut], 48, 64)
    assert len(found.instances) == 0
    assert found.problems == {'messages that cannot be read': 1}


def test_class_names_that_are_no_utf8_are_counted() -> None:
    whole = arrival(YOLO, Thing(BOX, label='abcdefgh'))
    damaged = whole.payloads[0].replace(b'abcdefgh', b'abc\xff\xfedef')
    found = reader().read([Arrival(whole.kind, 'camera', (damaged,))], 48, 64)
    assert found.instances.labels == ('abcdef',)
    assert found.problems == {'class names that are no UTF-8': 1}


def test_more_objects_than_allowed_are_refused() -> None:
    found = reader(max_objects=2).read([arrival(OWN, *[Thing(BOX)] * 3)], 48, 64)
    assert len(found.instances) == 0
    assert found.problems == {'messages with too many objects': 1}


def test_a_size_that_the_message_says_is_used_unless_another_is_declared() -> None:
    part = arrival(OWN, Thing((5, 4, 15, 20), image_size=(24, 32)))
    assert reader().read([part], 48, 64).instances.boxes.tolist() == [[10, 8, 30, 40]]
    declared = reader(sizes=('64x48',)).read([part], 48, 64)
    assert declared.instances.boxes.tolist() == [[5, 4, 15, 20]]


def test_masks_of_the_detector_can_be_left_out() -> None:
    part = arrival(YOLO, Thing(BOX, polygon=((10, 8), (29, 8), (29, 39), (10, 39))))
    assert reader().read([part], 48, 64).instances.masks[0] is not None
    assert reader(use_masks=False).read([part], 48, 64).instances.masks == (None,)


# --- several topics -------------------------------------------------------------------------


def test_boxes_of_one_class_from_two_topics_are_one_object_seen_by_both() -> None:
    parts = [arrival(ARRAY, Thing(BOX, score=0.6), Thing(FAR, 'bus')),
             arrival(TIER4, Thing(NEAR, score=0.75))]
    found = reader(2, topics=('a', 'b')).read(parts, 48, 64).instances
    assert [(tuple(box), label) for box, label in zip(
        found.boxes.tolist(), found.labels, strict=True)] == [(FAR, 'bus'), (NEAR, 'car')]
    assert found.detected_by is not None
    assert found.detected_by.tolist() == [0b01, 0b11]


def test_a_topic_that_gave_nothing_keeps_its_bit() -> None:
    found = reader(3, topics=('a', 'b', 'c')).read([None, None, arrival(YOLO, Thing(BOX))], 48, 64)
    assert found.instances.detected_by is not None
    assert found.instances.detected_by.tolist() == [0b100]


def test_classes_are_renamed_and_chosen_before_boxes_are_compared() -> None:
    classes = ClassConfig(rename=('truck=vehicle', 'car=vehicle'), ignore=('bus',),
                          score_thresholds=('pedestrian=0.5',))
    parts = [arrival(ARRAY, Thing(BOX, 'truck', score=0.6), Thing(FAR, 'bus')),
             arrival(YOLO, Thing(NEAR, 'car', score=0.75),
                     Thing((0, 0, 9, 9), 'pedestrian', score=0.4))]
    found = reader(2, classes, topics=('a', 'b')).read(parts, 48, 64).instances
    assert found.labels == ('vehicle',)
    assert found.detected_by is not None
    assert found.detected_by.tolist() == [0b11]


def test_numbers_of_two_detectors_do_not_mix_up() -> None:
    # The first calls 1 what the second calls 2.
    parts = [arrival(TIER4, Thing(BOX, 'car')), arrival(YOLO, Thing(FAR, 'bicycle', number=1))]
    found = reader(2, topics=('a', 'b')).read(parts, 48, 64).instances
    assert len(set(found.class_ids.tolist())) == 2


def test_a_damaged_message_of_one_topic_leaves_those_of_others() -> None:
    damaged = Arrival(TYPES[ARRAY], 'camera', (b'\0\1\0\0nothing',))
    found = reader(2, topics=('a', 'b')).read([damaged, arrival(YOLO, Thing(BOX))], 48, 64)
    assert found.instances.boxes.tolist() == [list(BOX)]
    assert found.problems == {'messages that cannot be read': 1}
    assert len(reader(2, topics=('a', 'b')).read([damaged, None], 48, 64).instances) == 0
