from __future__ import annotations

from dataclasses import dataclass

from masa_ros.structures.settings import describe, flatten, from_mapping, group, setting
import pytest


@dataclass(frozen=True)
class Inner:
    level: float = setting(0.5, 'Level.', minimum=0.0, maximum=1.0)
    names: tuple[str, ...] = setting((), 'Names.')


@dataclass(frozen=True)
class Outer:
    count: int = setting(3, 'Count.', minimum=1)
    mode: str = setting('a', 'Mode.', choices=('a', 'b'))
    on: bool = setting(False, 'Switch.')
    inner: Inner = group(Inner)


def test_values_override_defaults_in_nested_and_dotted_form() -> None:
    nested = from_mapping(Outer, {'count': 4, 'inner': {'level': 1, 'names': ['x']}})
    dotted = from_mapping(Outer, {'count': 4, 'inner.level': 1, 'inner.names': ['x']})
    assert nested == dotted
    assert nested.inner == Inner(1.0, ('x',))
    assert isinstance(nested.inner.level, float)


@pytest.mark.parametrize(('values', 'message'), [
    ({'coutn': 4}, "unknown setting 'coutn'; known ones are count, inner, mode, on"),
    ({'inner': {'levle': 0}}, "unknown setting 'levle'"),
    ({'count': 0}, 'count is 0, expected a value from 1'),
    ({'count': True}, 'count is True, expected a whole number'),
    ({'count': 1.5}, 'count is 1.5, expected a whole number'),
    ({'on': 1}, 'on is 1, expected a true or false'),
    ({'mode': 'c'}, "mode is 'c', expected one of 'a', 'b'"),
    ({'inner.level': float('nan')}, 'expected a finite number'),
    ({'inner.level': '0.5'}, "level is '0.5', expected a number"),
    ({'inner': 3}, 'expected a mapping'),
])
def test_wrong_values_are_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match='(?s)' + message.replace('.', r'\.')):
        from_mapping(Outer, values)


def test_names_and_descriptions_come_from_the_fields() -> None:
    assert list(describe(Outer)) == ['count', 'mode', 'on', 'inner.level', 'inner.names']
    assert describe(Outer)['inner.level'][1].maximum == 1.0
    assert flatten(Outer())['inner.level'] == 0.5
