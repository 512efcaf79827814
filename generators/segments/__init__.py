"""Proposers: what finds segments in images without annotations.

Every module of this folder is a proposer, and its file name is the proposer's name: NAME.py holds a
class called like the file in capitals (`deep_cut.py`: `DeepCut`), a `common.proposer.Proposer`. A
new one is one new file here; the command line, its help and the tests find it. What proposers share
is in the folder `common`.
"""

from difflib import get_close_matches
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from generators.segments.common.proposer import Proposer


def proposer_names() -> list[str]:
    """The names of all proposers, sorted; none of them is imported."""
    return sorted(module.name for module in iter_modules(__path__) if not module.ispkg)


def check_proposer(name: str) -> None:
    """Make sure that there is a proposer of this name; it is not imported.

    Raises:
        ValueError: there is none.
    """
    names = proposer_names()
    if name not in names:
        near = get_close_matches(name, names, 1, 0)
        raise ValueError(
            f"no proposer is called {name!r}; the nearest is {near[0]}, "
            f"and there are {', '.join(names)}"
        )


def build_proposer(name: str, weights: str | None = None) -> "Proposer":
    """A proposer, where the work is done: a name and a path travel to a worker, a network does not.

    Args:
        name: one of `proposer_names()`.
        weights: file or URL of its weights; by default its own, where it has any.

    Raises:
        ValueError: there is no such proposer, or it takes no weights.
    """
    check_proposer(name)
    module = import_module(f"{__name__}.{name}")
    kind = "".join(part.capitalize() for part in name.split("_"))
    return getattr(module, kind)(weights)
