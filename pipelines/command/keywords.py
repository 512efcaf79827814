"""From keyword arguments to a frozen config: the same names and values as in a --config file."""

import dataclasses
import difflib
import os
import types
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

Config = TypeVar("Config")


def config_of(kind: type[Config], settings: Mapping[str, Any]) -> Config:
    """A config from settings by name.

    Args:
        kind: a dataclass as commands have; the settings of its FLAT groups are named by themselves.
        settings: those of a group with a name, which --help shows as NAME.SETTING, are a mapping.

    Raises:
        TypeError: there is no such setting; the message names the nearest one.
        ValueError: a value is of another type than the setting, or cannot be used.
    """
    items = dataclasses.fields(kind)  # type: ignore[arg-type]
    flat = {item.name: _default(item) for item in items if item.metadata.get("flat")}
    owner = {item.name: "" for item in items if item.name not in flat}
    for field, group in flat.items():
        owner |= {inner.name: field for inner in dataclasses.fields(group)}
    _check_known(settings, owner)
    hints = get_type_hints(kind)
    values = {
        field: _changed(group, {n: v for n, v in settings.items() if owner[n] == field})
        for field, group in flat.items()
    }
    for item in items:
        if item.name not in flat and item.name in settings:
            value = settings[item.name]
            values[item.name] = (
                _changed(_default(item), value, f"{item.name}.")
                if isinstance(value, Mapping) and dataclasses.is_dataclass(hints[item.name])
                else _fitting(item.name, value, hints[item.name])
            )
    return kind(**values)


def _default(item: Any) -> Any:
    return item.default_factory() if item.default is dataclasses.MISSING else item.default


def _changed(group: Any, settings: Mapping[str, Any], prefix: str = "") -> Any:
    """A group with other values of some settings."""
    hints = get_type_hints(type(group))
    _check_known(settings, hints, prefix)
    return dataclasses.replace(
        group, **{n: _fitting(prefix + n, value, hints[n]) for n, value in settings.items()}
    )


def _check_known(given: Iterable[str], known: Iterable[str], prefix: str = "") -> None:
    names = list(known)
    for name in given:
        if name not in names:
            (nearest,) = difflib.get_close_matches(name, names, 1, cutoff=0)
            raise TypeError(
                f"there is no setting {prefix}{name}; the nearest name is {prefix}{nearest}"
            )


def _fitting(name: str, value: Any, hint: Any) -> Any:
    """A value as a setting of a type holds it.

    Raises:
        ValueError: it is of another type.
    """
    try:
        return _converted(value, hint)
    except TypeError as error:
        kind, arguments = get_origin(hint), get_args(hint)
        expected = " or ".join(map(repr, arguments)) if kind is Literal else (
            getattr(hint, "__name__", "") if kind is None else str(hint)
        )  # fmt: skip
        raise ValueError(f"{name} is {value!r}; expected {expected}") from error


def _converted(value: Any, hint: Any) -> Any:
    """The value; TypeError where it is of another type."""
    kind, arguments = get_origin(hint) or hint, get_args(hint)
    if kind in (Union, types.UnionType):
        for argument in arguments:
            try:
                return _converted(value, argument)
            except TypeError:
                continue
    elif kind is Literal:
        for choice in arguments:
            if str(value) == str(choice):  # the number 2 is the word 2, as on the command line
                return choice
    elif kind is tuple:
        if isinstance(value, list | tuple):
            same = arguments[-1] is Ellipsis
            each = arguments[:1] * len(value) if same else arguments
            if len(each) == len(value):
                return tuple(map(_converted, value, each))
    elif kind is str:
        if isinstance(value, str | os.PathLike):
            return os.fspath(value)
    elif kind in (int, float):
        if isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool):
            return kind(value)
    elif kind is Any or isinstance(value, kind):
        return value
    raise TypeError
