"""Image pairs that share a region, with exact masks and correspondences, and trained matchers."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segswap.hub import shipped
    from segswap.model import Match, Model, load

__all__ = ["Match", "Model", "load", "shipped"]


def __getattr__(name: str) -> Any:
    """What `__all__` names, imported when it is first asked for: it needs torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from segswap import hub, model

    return hub.shipped if name == "shipped" else getattr(model, name)
