"""segswap-look: its settings and its entry point."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from pipelines.command import cli


@dataclass(frozen=True)
class LookConfig:
    """Look at the pairs of a dataset: an HTML page, a contact sheet, or both.

    The page is one file that needs neither server nor network. Pointing at an object in either
    image shows where the point lies in the other one; so do the arrow keys on an image.
    """

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")]
    """Folder or fsspec URL of a dataset that segswap-generate made."""
    out: str | None = None
    """The page to write, .html."""
    png: str | None = None
    """A contact sheet to write, .png: the pairs in one picture."""
    split: str = "train"
    """The split to look at."""
    pairs: int = 24
    """How many pairs to show; the page grows by about half a megabyte a pair."""
    first: int = 0
    """Index of the first pair to show."""

    def __post_init__(self) -> None:
        if self.out is None and self.png is None:
            raise ValueError("nothing to write: give --out PAGE.html, --png SHEET.png, or both")
        for name, value, least in (("pairs", self.pairs, 1), ("first", self.first, 0)):
            if value < least:
                raise ValueError(f"--{name} is {value}; expected at least {least}")
        for name, path, endings in (
            ("out", self.out, (".html", ".htm")), ("png", self.png, (".png",)),
        ):  # fmt: skip
            if path is not None and Path(path).suffix.lower() not in endings:
                raise ValueError(f"--{name} is {path}; expected a name ending in {endings[0]}")


def main() -> None:
    """Entry point of segswap-look."""
    cli.run(LookConfig, _look)


def _look(config: LookConfig) -> int:
    from pipelines.pages.look import look  # --help has no use for what it imports

    return look(config)
