"""The keys and types of the format's JSON files; keys beyond these are allowed."""

from collections.abc import Iterator
from typing import Any

Schema = dict[str, tuple[type, ...]]
_NONE = type(None)

MANIFEST: Schema = {
    "format": (int,), "generator": (str,), "created": (str,), "seed": (int,), "config": (dict,),
    "splits": (dict,), "inputs": (list,), "skipped": (list,),
}  # fmt: skip
SPLIT: Schema = {"pairs": (int,), "shards": (list,)}
SHARD: Schema = {"name": (str,), "pairs": (int,), "bytes": (int,), "sha256": (str,)}
INPUT: Schema = {"name": (str,), "images": (int,), "segments": (int,), "fingerprint": (str,)}
SKIPPED: Schema = {"reason": (str,)}  # beside it image, annotation, or both

RECORD: Schema = {
    "format": (int,), "index": (int,), "width": (int,), "height": (int,), "objects": (list,),
    "background": (dict,), "styles": (dict,), "rng": (list,),
}  # fmt: skip
OBJECT: Schema = {
    "label": (int,), "target_from_source": (list,), "category": (str, _NONE), "segment": (dict,),
    "blend": (str,),
}  # fmt: skip
SEGMENT: Schema = {
    "dataset": (str,), "image": (str,), "annotation": (int, str, _NONE), "proposer": (str, _NONE),
}  # fmt: skip
BACKGROUND: Schema = {"dataset": (str,), "image": (str,)}
STYLES: Schema = {"source": (dict, _NONE), "target": (dict, _NONE)}
STYLE: Schema = {"method": (str,)}

_NAMES = {
    int: "an integer", str: "text", dict: "an object", list: "a list", float: "a number",
    bool: "true or false", _NONE: "null",
}  # fmt: skip


def contradictions(value: Any, schema: Schema, name: str) -> Iterator[tuple[str, str]]:
    """Where a JSON value is not an object of a schema: what was found, and what was expected.

    Args:
        name: what the value is called.
    """
    if not isinstance(value, dict):
        yield f"{name} is {_kind(value)}", "an object"
        return
    for key, kinds in schema.items():
        expected = " or ".join(_NAMES[kind] for kind in kinds)
        if key not in value:
            yield f"{name} has no {key}", expected
        elif not isinstance(value[key], kinds) or isinstance(value[key], bool):
            yield f"{name}'s {key} is {_kind(value[key])}", expected


def _kind(value: Any) -> str:
    return _NAMES.get(type(value), type(value).__name__)
