"""Make one pair: functions of inputs and a random generator that return a Pair."""

import importlib
from typing import TYPE_CHECKING, Any

from segswap.files.extras import need_extra

if TYPE_CHECKING:
    from generators.composition.compose import generate_pair
    from generators.composition.recipe import ONE_OBJECT, TWO_OBJECTS
    from generators.sources.coco import coco_index
    from generators.sources.index import Pool

_MODULES = {
    "generate_pair": "composition.compose", "ONE_OBJECT": "composition.recipe",
    "TWO_OBJECTS": "composition.recipe", "coco_index": "sources.coco", "Pool": "sources.index",
}  # fmt: skip
__all__ = ["ONE_OBJECT", "TWO_OBJECTS", "Pool", "coco_index", "generate_pair"]


def __getattr__(name: str) -> Any:
    """What `__all__` names, imported when it is first asked for."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    need_extra(f"generators.{name}", "generate")
    return getattr(importlib.import_module(f"generators.{_MODULES[name]}"), name)
