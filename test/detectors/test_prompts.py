"""Class names as users give them."""

from __future__ import annotations

import json
from pathlib import Path

from masa_ros.detectors.prompts import (
    choose_classes,
    read_names,
    split_text,
    unique_names,
    wanted_names,
)
import pytest


@pytest.mark.parametrize(('text', 'names'), [
    ('car . pedestrian . traffic cone', ('car', 'pedestrian', 'traffic cone')),
    ('car.person.', ('car', 'person')),
    ('  a  red   car ', ('a red car',)),
    ('car, person; dog\ncat', ('car', 'person', 'dog', 'cat')),
    ('Car . car . CAR', ('Car',)),
    (' . .. ', ()),
    ('', ()),
])
def test_a_text_is_split_into_class_names(text: str, names: tuple[str, ...]) -> None:
    assert split_text(text) == names


def test_names_of_both_settings_are_joined_once_each() -> None:
    assert wanted_names(('car', 'bus'), 'Car . van') == ('car', 'bus', 'van')


def test_names_that_are_no_text_are_written_as_text() -> None:
    assert unique_names([7, 'a']) == ('7', 'a')  # type: ignore[list-item]


def test_chosen_classes_are_compared_without_case_and_double_spaces() -> None:
    assert choose_classes(('Traffic  Light',), ('', 'car', 'traffic light'), 'x') == [
        False, False, True]
    assert choose_classes((), ('', 'car'), 'x') == [True, True]


def test_an_unknown_class_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r'names cone, zebra, .* x does not know; .* car, bus'):
        choose_classes(('zebra', 'car', 'cone'), ('', 'car', 'bus'), 'x')
    with pytest.raises(ValueError, match='class_file is empty'):
        choose_classes(('car',), (), 'x')


def test_a_long_list_of_known_classes_is_cut() -> None:
    with pytest.raises(ValueError, match='and 100 more'):
        choose_classes(('zebra',), [f'class {index}' for index in range(200)], 'x')


def test_names_are_read_one_per_line_as_many_as_expected(tmp_path: Path) -> None:
    (tmp_path / 'names.txt').write_text('car\n\n traffic cone \n')
    assert read_names(str(tmp_path / 'names.txt'), None) == ('car', 'traffic cone')
    assert read_names('', 5) == ()
    with pytest.raises(ValueError, match='has 2 names, but the detector gives 3'):
        read_names(str(tmp_path / 'names.txt'), 3)
    with pytest.raises(FileNotFoundError, match=r'detector\.class_file'):
        read_names(str(tmp_path / 'nowhere.txt'), None)


@pytest.mark.parametrize('wrapped', [True, False])
def test_names_are_read_from_annotations_of_lvis_in_order_of_numbers(
    tmp_path: Path, wrapped: bool,
) -> None:
    entries = [{'id': 2, 'name': 'traffic_light'}, {'id': 1, 'name': 'car_(automobile)'}]
    (tmp_path / 'lvis.json').write_text(
        json.dumps({'categories': entries, 'images': []} if wrapped else entries))
    assert read_names(str(tmp_path / 'lvis.json'), 2) == ('car (automobile)', 'traffic light')


def test_json_of_another_kind_is_refused(tmp_path: Path) -> None:
    for text in ('{}', '[1]', 'no json', '{"categories": [{"name": "car"}]}'):
        (tmp_path / 'other.json').write_text(text)
        with pytest.raises(ValueError, match='no JSON with categories'):
            read_names(str(tmp_path / 'other.json'), None)
