"""segswap-look: its settings and its entry point."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from generators.segments import check_proposer, proposer_names
from pipelines.command import cli
from segswap.files.extras import need_extra

ProposerName = Annotated[str, tyro.conf.arg(metavar=f"{{{','.join(proposer_names())}}}|RUN")]
"""What --segments takes: a proposer's name, or the folder of a run."""


@dataclass(frozen=True)
class LookConfig:
    """Look at the pairs of a dataset: an HTML page, a contact sheet, or both. With --segments, at
    what is found in a folder of images.

    The page is one file that needs neither server nor network. Pointing at an object in either
    image shows where the point lies in the other one; so do the arrow keys on an image.
    """

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")]
    """Folder or fsspec URL of a dataset that segswap-generate made; with --segments, of images."""
    out: str | None = None
    """The page to write, .html."""
    png: str | None = None
    """A contact sheet to write, .png: the pairs in one picture."""
    segments: ProposerName | None = None
    """Show the segments that pairs could be made of, as this proposer finds them in the images."""
    split: str = "train"
    """The split to look at."""
    pairs: int = 24
    """How many pairs, or images, to show; the page grows by about half a megabyte a pair."""
    first: int = 0
    """Index of the first one to show; images are ordered by name."""

    def __post_init__(self) -> None:
        if self.out is None and self.png is None:
            raise ValueError("nothing to write: give --out PAGE.html, --png SHEET.png, or both")
        if self.segments is not None:
            if self.out is None or self.png is not None:
                raise ValueError("--segments makes a page alone: give --out PAGE.html, no --png")
            try:
                check_proposer(self.segments)
            except ValueError as error:
                raise ValueError(f"--segments: {error}") from error
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
    if config.segments is not None:
        need_extra("segswap-look --segments", "generate")
        from pipelines.pages.segments import look_at_segments

        return look_at_segments(config)
    from pipelines.pages.look import look  # --help has no use for what it imports

    return look(config)
