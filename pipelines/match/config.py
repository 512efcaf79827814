"""segswap-match: its settings and its entry point."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from pipelines.command import cli
from segswap.models.hub import DEFAULT_MODEL


@dataclass(frozen=True)
class MatchConfig:
    """Find the region that two images share, and which point goes where.

    Without --out, --json and --masks, nothing is written, and one line is printed.
    """

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """An image."""
    target: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TARGET")]
    """Another image."""
    model: str = DEFAULT_MODEL
    """A run of segswap-train, a folder, the name of a shipped model, or a hub id."""
    out: str | None = None
    """Draw a picture, .png or .jpg."""
    json: str | None = None
    """Write matches and homography as JSON; docs/matching.md describes it."""
    masks: str | None = None
    """Folder for source.png and target.png, the probability of being shared, 0 to 255."""
    points: int = 1000
    """Matches at most, in the JSON and for the homography."""
    size: int | None = None
    """Side in pixels to which images are brought; by default the model's."""
    height: int = 480
    """Height of the picture in pixels."""
    device: str = "auto"
    """Where the model runs: auto, cpu, cuda, ..."""

    def __post_init__(self) -> None:
        if self.out and Path(self.out).suffix.lower() not in (".png", ".jpg", ".jpeg"):
            raise ValueError(f"--out is {self.out}; expected a name ending in .png or .jpg")
        for flag, value, least in (("--points", self.points, 1), ("--height", self.height, 32)):
            if value < least:
                raise ValueError(f"{flag} is {value}; expected at least {least}")


def main() -> None:
    """Entry point of segswap-match."""
    cli.run(MatchConfig, _match)


def _match(config: MatchConfig) -> int:
    from pipelines.match.job import match  # --help has no use for what it imports

    return match(config)
