"""What a JSON value is, in words, for messages about files that somebody else has written."""

from typing import Any

_NAMES: dict[type, str] = {
    bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list",
    dict: "an object", type(None): "null",
}  # fmt: skip


def kind_of(value: Any) -> str:
    """What a JSON value is, in words."""
    return _NAMES.get(type(value), type(value).__name__)


def short(value: Any) -> str:
    """A JSON value as a message names it: itself where that is brief, else what it is."""
    if isinstance(value, list | dict) and len(value) > 4:
        return kind_of(value)
    text = ascii(value)
    return text if len(text) <= 40 else kind_of(value)
