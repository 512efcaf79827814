"""Proposers: what finds segments in images without annotations.

Every module of this folder is a proposer, and its file name is the proposer's name: NAME.py holds a
class called like the file in capitals (`deep_cut.py`: `DeepCut`), a `common.proposer.Proposer`. A
new one is one new file here; the command line, its help and the tests find it. What proposers share
is in the folder `common`. Where a proposer's name is asked for, the folder of a run of
segswap-train-proposer may be given, too: its proposer with its weights.
"""

import os
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING

from generators.networks.trained import FILE, trained

if TYPE_CHECKING:
    from generators.segments.common.proposer import Proposer


def proposer_names() -> list[str]:
    """The names of all proposers, sorted; none of them is imported."""
    return sorted(module.name for module in iter_modules(__path__) if not module.ispkg)


def check_proposer(name: str) -> None:
    """Make sure that there is a proposer of this name, or a run's folder; neither is imported.

    Raises:
        ValueError: there is none.
    """
    _found(name)


def is_run(name: str) -> bool:
    """Whether a proposer's name is that of a run's folder."""
    return bool(name) and name not in proposer_names() and Path(name).is_dir()


def build_proposer(name: str, weights: str | None = None) -> "Proposer":
    """A proposer, where the work is done: a name and a path travel to a worker, a network does not.

    Args:
        name: one of `proposer_names()`, or the folder of a run.
        weights: file or URL of its weights; by default its own, where it has any.

    Raises:
        ValueError: there is no such proposer, or it takes no weights, or not these.
    """
    method, own = _found(name)
    if own and weights:
        raise ValueError(f"{name} has weights of its own, and {weights} was given; leave it out")
    module = import_module(f"{__name__}.{method}")
    kind = "".join(part.capitalize() for part in method.split("_"))
    return getattr(module, kind)(weights or own)


def _found(name: str) -> tuple[str, str | None]:
    """The name of a proposer, and the weights that a run's folder holds."""
    names = proposer_names()
    if is_run(name):
        path, said = trained(name)
        if said.method not in names:
            raise ValueError(f"{path} is of {said.method}; this version has {', '.join(names)}")
        return said.method, os.fspath(path)
    if name not in names:
        near = get_close_matches(name, names, 1, 0)
        raise ValueError(
            f"no proposer is called {name!r}; the nearest is {near[0]}, "
            f"and there are {', '.join(names)}, and folders that hold {FILE}"
        )
    return name, None
