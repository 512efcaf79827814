"""segswap-discover: its settings and its entry point."""

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from pipelines.command import cli
from pipelines.command.workers import Workers
from segswap.discovery.settings import LEAST_IMAGES, Same, Settings
from segswap.models.hub import DEFAULT_MODEL


@dataclass(frozen=True)
class DiscoverConfig:
    """Find what repeats in a collection of images: masks, groups of regions, and a page of them.

    Run again after an interruption it goes on where it stopped. What counts as repeated (--sigma,
    --confidence, --least-images) can be changed afterwards; nothing is matched again for it.
    """

    images: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGES")]
    """Folders of images, with those below them, and image files."""
    out: str
    """Folder of the results; it is made, or its unfinished work resumed."""
    model: str = DEFAULT_MODEL
    """A run of segswap-train, a folder, the name of a shipped model, or a hub id."""
    neighbours: int | None = None
    """Match each image with so many others, those that look most alike as a whole. By default all
    pairs of up to 100 images are matched, and 20 neighbours of each image of more."""
    same: Same | None = None
    """Whether what repeats is the very same thing, or things of one kind; by default kinds where
    the model knows them."""
    sigma: float | None = None
    """How far matches may be off and still agree, in cells of the model's grid; by default 1.2 for
    things, 5 for kinds."""
    confidence: float | None = None
    """That a match must have to be looked at, 0 to 1; by default 0.85 for things, 0.5 for kinds."""
    least_images: int = LEAST_IMAGES
    """Groups of fewer images are dropped. Groups of 2 are as often false as their matches are."""
    device: str = "auto"
    """Where the model runs: auto, cpu, cuda, ..."""
    running: tyro.conf.OmitArgPrefixes[Workers] = field(default=Workers(), metadata=cli.FLAT)

    def __post_init__(self) -> None:
        if not self.images:
            raise ValueError("no images given; expected folders of images, or image files")
        if self.neighbours is not None and self.neighbours < 1:
            raise ValueError(f"--neighbours is {self.neighbours}; expected at least 1")
        self.settings(self.same or "thing")

    def settings(self, same: Same) -> Settings:
        """What counts as repeated."""
        return Settings.of(same, self.confidence, self.sigma, self.least_images)


def main() -> None:
    """Entry point of segswap-discover."""
    cli.run(DiscoverConfig, _discover, extras=("search",))


def _discover(config: DiscoverConfig) -> int:
    from pipelines.discovery.job import discover  # --help has no use for what it imports

    return discover(config)
