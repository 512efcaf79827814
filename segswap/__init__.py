"""Image pairs that share a region, with exact masks and correspondences, and trained matchers."""

import importlib
from typing import TYPE_CHECKING, Any

from segswap.files.extras import need_extra

if TYPE_CHECKING:
    from segswap.data.dataset import Dataset, open_dataset
    from segswap.discovery.discovery import Discovery, discover
    from segswap.models.hub import shipped
    from segswap.models.match import Match
    from segswap.models.model import Model, load
    from segswap.search.index import Index
    from segswap.search.retrieval import Hit, retrieve

_MODULES = {
    "Match": "models.match", "Model": "models.model", "load": "models.model",
    "shipped": "models.hub", "Index": "search.index", "Hit": "search.retrieval",
    "retrieve": "search.retrieval", "Discovery": "discovery.discovery",
    "discover": "discovery.discovery", "Dataset": "data.dataset", "open_dataset": "data.dataset",
}  # fmt: skip
__all__ = [
    "Dataset", "Discovery", "Hit", "Index", "Match", "Model", "discover", "load", "open_dataset",
    "retrieve", "shipped",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """What `__all__` names, imported when it is first asked for: most needs torch."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    room = _MODULES[name].split(".")[0]
    if room in ("search", "discovery"):
        need_extra(f"segswap.{name}", "search")
    return getattr(importlib.import_module(f"segswap.{_MODULES[name]}"), name)
