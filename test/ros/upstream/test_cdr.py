"""Messages read from their bytes are those that the middleware reads, whatever is in them."""

from __future__ import annotations

from importlib import import_module
import random
import re
import struct
from typing import Any

from masa_ros.ros.convert import LabelTable, make_header
from masa_ros.ros.upstream import cdr, TYPES
from masa_ros.structures.instances import Instances
import numpy as np
import pytest
from upstream_messages import ARRAY, make, message_class, SINGLE, Thing, TIER4, YOLO

pytestmark = pytest.mark.ros

KINDS = [ARRAY, SINGLE, YOLO, TIER4]
TEXTS = ['', 'a', 'car', 'traffic cone', 'Fußgänger', '歩行者', 'x' * 37]


def fill(message: Any, source: random.Random) -> None:
    """Give every field of a message a random value, nested ones too."""
    for name, kind in message.get_fields_and_field_types().items():
        setattr(message, name, value_of(kind, source))


def value_of(kind: str, source: random.Random) -> Any:
    if sequence := re.fullmatch(r'sequence<(.*)>', kind):
        return [value_of(sequence[1], source) for _ in range(source.choice([0, 1, 2, 5]))]
    if array := re.fullmatch(r'(.*)\[(\d+)\]', kind):
        return [value_of(array[1], source) for _ in range(int(array[2]))]
    if '/' in kind:
        package, _, name = kind.partition('/')
        made = getattr(import_module(f'{package}.msg'), name)()
        fill(made, source)
        return made
    if kind == 'string':
        return source.choice(TEXTS)
    if kind == 'boolean':
        return source.random() < 0.5
    if kind in ('float', 'double'):
        return source.choice([0.0, -1.5, 3.25, 640.0, float('nan'), float('inf')])
    low, high = {'octet': (0, 255), 'uint8': (0, 255)}.get(kind, (0, 2**31 - 1))
    return source.randint(low, high)


def read(message: Any, kind: str) -> Instances:
    return TYPES[kind].reader()([message], LabelTable()).instances


@pytest.mark.parametrize('kind', KINDS)
def test_both_ways_of_reading_give_the_same(kind: str) -> None:
    pytest.importorskip(f'{kind.partition("/")[0]}.msg')
    from rclpy.serialization import deserialize_message, serialize_message
    source = random.Random(7)
    rows = 0
    for _ in range(60):
        message = message_class(kind)()
        fill(message, source)
        data = serialize_message(message)
        quick = read(cdr._READERS[kind](cdr._Cursor(data)), kind)
        slow = read(deserialize_message(data, message_class(kind)), kind)
        np.testing.assert_array_equal(quick.boxes, slow.boxes)
        np.testing.assert_array_equal(quick.scores, slow.scores)
        assert quick.class_ids.tolist() == slow.class_ids.tolist()
        assert quick.labels == slow.labels
        for first, second in zip(quick.masks, slow.masks, strict=True):
            assert (first is None) == (second is None)
            if first is not None and second is not None:
                assert first.counts.tolist() == second.counts.tolist()
        rows += len(quick)
    assert rows > 50


@pytest.mark.parametrize('kind', KINDS)
def test_installed_packages_have_the_layout_that_is_read_quickly(kind: str) -> None:
    pytest.importorskip(f'{kind.partition("/")[0]}.msg')
    assert cdr.signature(message_class(kind)) == cdr.SIGNATURES[kind]


def test_another_layout_is_read_by_the_middleware(monkeypatch: pytest.MonkeyPatch) -> None:
    from rclpy.serialization import serialize_message
    data = serialize_message(make(ARRAY, make_header(0, 'camera'), [Thing()])[0])
    monkeypatch.setitem(cdr.SIGNATURES, ARRAY, 'another')
    message = cdr.read_message(ARRAY, data, message_class(ARRAY))
    assert type(message) is message_class(ARRAY)
    assert read(message, ARRAY).labels == ('car',)


@pytest.mark.parametrize('kind', KINDS)
def test_no_damage_makes_more_of_a_message_than_an_error(kind: str) -> None:
    pytest.importorskip(f'{kind.partition("/")[0]}.msg')
    from rclpy.serialization import serialize_message
    data = bytearray(serialize_message(make(kind, make_header(0, 'camera'), [Thing(
        polygon=((1, 1), (4, 1), (4, 4)))])[0]))
    read_ones = 0
    for at in range(4, len(data), 4):
        for number in (0x7fffffff, 0xffffffff, 1000):
            damaged = bytearray(data)
            damaged[at:at + 4] = number.to_bytes(4, 'little')[:len(damaged[at:at + 4])]
            try:
                cdr._READERS[kind](cdr._Cursor(bytes(damaged)))
                read_ones += 1
            except (ValueError, struct.error):
                pass
    assert read_ones > 0  # most numbers are no lengths
