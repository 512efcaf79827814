"""JSON that others may have written: read, and held against the keys and types that are expected.

A schema gives the types of each key's value; `ABSENT` among them lets the key be missing. Further
keys are allowed. True is no integer, nor is 320.0.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from segswap.files import storage


class Absent:
    """Stands in a schema for a key that may be missing."""


ABSENT = Absent
NONE = type(None)
Schema = Mapping[str, tuple[type, ...]]
_NAMES = {
    int: "an integer", str: "text", dict: "an object", list: "a list", float: "a number",
    bool: "true or false", NONE: "null",
}  # fmt: skip
_NESTED = "nested too deeply"


def contradictions(value: Any, schema: Schema, name: str) -> Iterator[tuple[str, str]]:
    """Where a JSON value is not an object of a schema: what was found, and what was expected.

    Args:
        name: what the value is called.
    """
    if not isinstance(value, dict):
        yield f"{name} is {kind_of(value)}", "an object"
        return
    for key, kinds in schema.items():
        expected = " or ".join(_name(kind) for kind in kinds if kind is not ABSENT)
        if key not in value:
            if ABSENT not in kinds:
                yield f"{name} has no {key}", expected
        elif not _is_one(value[key], kinds):
            yield f"{name}'s {key} is {kind_of(value[key])}", expected


def kind_of(value: Any) -> str:
    """What a JSON value is, in words."""
    return _name(type(value))


def short(value: Any) -> str:
    """A JSON value as a message names it: itself where that is brief, else what it is."""
    if isinstance(value, list | dict) and len(value) > 4:
        return kind_of(value)
    text = ascii(value)
    return text if len(text) <= 40 else kind_of(value)


def checked(value: Any, schema: Schema, name: str) -> dict[str, Any]:
    """The value, which is to be an object of a schema.

    Args:
        name: what the value is called: its file, and where in it.

    Raises:
        ValueError: it is not; the first key that is wrong is named.
    """
    for found, expected in contradictions(value, schema, name):
        raise ValueError(f"{found}; expected {expected}")
    return value


def all_checked(
    values: Any, schema: Schema | tuple[type, ...], name: str
) -> list[Any]:  # fmt: skip
    """The value, which is to be a list of objects of a schema, or of values of some types.

    Raises:
        ValueError: it is not; the first one that is wrong is named by its number, from 0.
    """
    if not isinstance(values, list):
        raise ValueError(f"{name} is {kind_of(values)}; expected a list")
    for number, value in enumerate(values):
        if isinstance(schema, tuple):
            if not _is_one(value, schema):
                expected = " or ".join(map(_name, schema))
                raise ValueError(f"{name}[{number}] is {kind_of(value)}; expected {expected}")
        else:
            checked(value, schema, f"{name}[{number}]")
    return values


def parse_json(text: str | bytes, name: str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is none; `name` says what it is called.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError(f"{name} is {_NESTED}") from error
    except ValueError as error:  # also text that is not UTF-8, and numbers of too many digits
        raise ValueError(f"{name} is not JSON ({error})") from error


def read_record(path: storage.PathLike, schema: Schema) -> dict[str, Any]:
    """What a JSON file, or one at a URL, holds: an object of a schema.

    Raises:
        ValueError: it is no JSON, or not of the schema; file and key are named.
        OSError: it cannot be read.
    """
    return checked(parse_json(storage.read_bytes(path), str(path)), schema, str(path))


def check_inside(name: str, what: str) -> str:
    """A path that a file names, relative to that file's folder and below it.

    Raises:
        ValueError: it leads elsewhere.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name or not path.parts:
        raise ValueError(f"{what} is {name!r}; expected a path within its folder")
    return name


def _is_one(value: Any, kinds: tuple[type, ...]) -> bool:
    if isinstance(value, bool):
        return bool in kinds
    return isinstance(value, kinds) or (float in kinds and isinstance(value, int))


def _name(kind: type) -> str:
    return _NAMES.get(kind, kind.__name__)
