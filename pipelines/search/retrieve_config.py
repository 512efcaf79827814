"""segswap-retrieve: its settings and its entry point."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import tyro

from pipelines.command import cli
from segswap.search.settings import SHORTLIST

if TYPE_CHECKING:
    from segswap.geometry import Box


@dataclass(frozen=True)
class RetrieveConfig:
    """Find a detail in a collection that segswap-index has indexed.

    An image of the collection with the same pixels as the query is left out.
    """

    index: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="INDEX")]
    """Folder that segswap-index made."""
    query: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="QUERY")]
    """The image that shows the detail."""
    box: str | None = None
    """Where the detail is: left,top,right,bottom in the query's pixels; without it all of the
    image is looked for."""
    top: int = 20
    """How many images to show, at most."""
    out: str | None = None
    """A page of the hits to write, .html."""
    json: str | None = None
    """Write the hits to this file too, with masks and points."""
    mirrored: bool = False
    """Look for the mirrored detail too, as prints show it of a painting; takes twice the time."""
    shortlist: int = SHORTLIST
    """In a larger collection than this, only so many images are matched: those with the cells most
    like the detail's. Where it has over 25 times as many, those are sought among the images that
    are most like the detail as wholes."""
    model: str | None = None
    """The model that made the index, where it is not found under its name any more."""
    device: str = "auto"
    """Where the model runs: auto, cpu, cuda, ..."""

    def __post_init__(self) -> None:
        for flag, value in (("top", self.top), ("shortlist", self.shortlist)):
            if value < 1:
                raise ValueError(f"--{flag} is {value}; expected at least 1")
        if self.box is not None:
            parse_box(self.box)


def parse_box(text: str) -> "Box":
    """left,top,right,bottom of a --box.

    Raises:
        ValueError: it is not four numbers.
    """
    try:
        left, top, right, bottom = (float(part) for part in text.split(","))
    except ValueError as error:
        raise ValueError(
            f"--box is {text!r}; expected left,top,right,bottom in pixels, as in 120,80,310,260"
        ) from error
    return left, top, right, bottom


def main() -> None:
    """Entry point of segswap-retrieve."""
    cli.run(RetrieveConfig, _find, extras=("search",))


def _find(config: RetrieveConfig) -> int:
    from pipelines.search.retrieve import find  # --help has no use for what it imports

    return find(config)
