"""Jobs at any scale: functions for Python, and the command lines that start them."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.api import discover, generate, train

# No room may be called as one of these: its import would put it in the function's place.
__all__ = ["discover", "generate", "train"]


def __getattr__(name: str) -> Any:
    """What `__all__` names, imported when it is first asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("pipelines.api"), name)
