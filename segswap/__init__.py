"""Image pairs that share a region, with exact masks and correspondences, and trained matchers."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segswap.model import Model, load

__all__ = ["Model", "load"]


def __getattr__(name: str) -> Any:
    """`load` and `Model`, imported when they are first asked for: they need torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from segswap import model

    return getattr(model, name)
