"""
Settings as frozen dataclasses: one place for a name, a default, a range and a description.

A field made with `setting` carries its limits and its text. YAML files, command lines and ROS
parameters are all read through `from_mapping`, so each default is written once and an unknown
key is an error everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, MISSING
import math
from typing import Any, get_type_hints, TypeVar

SettingsT = TypeVar('SettingsT')

_KEY = 'masa_ros_setting'


@dataclass(frozen=True)
class SettingInfo:
    """
    What is known about one setting besides its type and default.

    Parameters
    ----------
    description : str
        One or two sentences, unit included.
    minimum, maximum : float or None
        Inclusive limits of a number.
    choices : tuple
        Allowed values; empty when any value of the type is.
    dynamic : bool
        Whether it may change while running.

    """

    description: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[Any, ...] = ()
    dynamic: bool = False


def setting(
    default: Any,
    description: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: Sequence[Any] = (),
    dynamic: bool = False,
) -> Any:
    """Declare a dataclass field with a default, limits and a description."""
    info = SettingInfo(description, minimum, maximum, tuple(choices), dynamic)
    if isinstance(default, list | dict | set):
        raise TypeError('a setting default must be immutable; use a tuple')
    return field(default=default, metadata={_KEY: info})


def group(kind: type[Any]) -> Any:
    """Declare a dataclass field that holds another settings dataclass with its defaults."""
    return field(default_factory=kind)


def setting_info(settings: type[Any], name: str) -> SettingInfo:
    """Return limits and description of a field declared with `setting`."""
    for item in fields(settings):
        if item.name == name:
            info = item.metadata.get(_KEY)
            if isinstance(info, SettingInfo):
                return info
    raise KeyError(f'{settings.__name__} has no setting named {name!r}')


def flatten(settings: Any, prefix: str = '') -> dict[str, Any]:
    """Return ``{'group.name': value}`` of a settings object, nested groups joined by dots."""
    flat: dict[str, Any] = {}
    for item in fields(settings):
        value = getattr(settings, item.name)
        if is_dataclass(value):
            flat.update(flatten(value, f'{prefix}{item.name}.'))
        else:
            flat[f'{prefix}{item.name}'] = value
    return flat


def describe(settings: type[Any], prefix: str = '') -> dict[str, tuple[Any, SettingInfo]]:
    """Return ``{'group.name': (default, info)}`` of a settings class, in declaration order."""
    described: dict[str, tuple[Any, SettingInfo]] = {}
    for item in fields(settings):
        if item.default_factory is not MISSING:
            described.update(describe(type(item.default_factory()), f'{prefix}{item.name}.'))
        else:
            described[f'{prefix}{item.name}'] = (item.default, setting_info(settings, item.name))
    return described


def from_mapping(
    settings: type[SettingsT], values: Mapping[str, Any], where: str = 'settings',
) -> SettingsT:
    """
    Build a settings object from a (nested or dotted) mapping over the defaults.

    Parameters
    ----------
    settings : type
        A frozen dataclass of `setting` and `group` fields.
    values : mapping
        Values to override; keys may be nested mappings or dotted names.
    where : str
        What the values came from, for the error message.

    Raises
    ------
    ValueError
        On an unknown key, a wrong type, or a value outside its limits; the message names the
        key, what came and what is allowed.

    """
    if not isinstance(values, Mapping):
        raise ValueError(f'{where} holds a {type(values).__name__}, expected a mapping of '
                         'setting names to values')
    nested: dict[str, Any] = {}
    for key, value in values.items():
        head, dot, rest = str(key).partition('.')
        if not dot and isinstance(value, Mapping):
            inner = nested.setdefault(head, {})
            if isinstance(inner, dict):
                inner.update(value)
        elif dot:
            inner = nested.setdefault(head, {})
            if isinstance(inner, dict):
                inner[rest] = value
        else:
            nested[head] = value
    hints = get_type_hints(settings)
    known = {item.name: item for item in fields(settings)}  # type: ignore[arg-type]
    arguments: dict[str, Any] = {}
    for key, value in nested.items():
        if key not in known:
            raise ValueError(f'{where}: unknown setting {key!r}; known ones are '
                             + ', '.join(sorted(known)))
        item = known[key]
        if item.default_factory is not MISSING:
            arguments[key] = from_mapping(hints[key], value, f'{where}: {key}')
        else:
            arguments[key] = check_value(settings, key, value, where)
    return settings(**arguments)


def check_value(settings: type[Any], name: str, value: Any, where: str = 'settings') -> Any:
    """
    Return a value converted to the type of its setting's default.

    Raises
    ------
    ValueError
        If the type does not fit or the value is outside its limits.

    """
    info = setting_info(settings, name)
    default = next(item.default for item in fields(settings) if item.name == name)
    checked = _convert(default, value)
    if checked is None:
        raise ValueError(f'{where}: {name} is {value!r}, expected a {_type_name(default)}')
    if isinstance(checked, float) and not math.isfinite(checked):
        raise ValueError(f'{where}: {name} is {value!r}, expected a finite number')
    if info.choices and checked not in info.choices:
        raise ValueError(f'{where}: {name} is {value!r}, expected one of '
                         + ', '.join(repr(choice) for choice in info.choices))
    numbers = checked if isinstance(checked, tuple) else (checked,)
    for number in numbers:
        if isinstance(number, str | bool):
            continue
        if ((info.minimum is not None and number < info.minimum)
                or (info.maximum is not None and number > info.maximum)):
            raise ValueError(f'{where}: {name} is {value!r}, expected a value from '
                             f'{info.minimum} to {info.maximum}')
    return checked


def _convert(default: Any, value: Any) -> Any:
    """Value in the type of the default, or None where it does not fit."""
    if isinstance(default, bool):
        return value if isinstance(value, bool) else None
    if isinstance(default, int):
        return int(value) if isinstance(value, int) and not isinstance(value, bool) else None
    if isinstance(default, float):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return float(value) if number else None
    if isinstance(default, str):
        return value if isinstance(value, str) else None
    if isinstance(default, tuple):
        if isinstance(value, str) or not isinstance(value, Sequence):
            return None
        if not default:
            return tuple(value)
        converted = tuple(_convert(default[0], entry) for entry in value)
        return None if any(entry is None for entry in converted) else converted
    raise TypeError(f'a setting cannot be of type {type(default).__name__}')


def _type_name(default: Any) -> str:
    names = {bool: 'true or false', int: 'whole number', float: 'number', str: 'text'}
    if isinstance(default, tuple):
        return 'list'
    return names[type(default)]
