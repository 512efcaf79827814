"""segswap-index: its settings and its entry point."""

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from pipelines.command import cli
from pipelines.command.workers import Workers
from segswap.models.hub import DEFAULT_MODEL


@dataclass(frozen=True)
class IndexConfig:
    """Make an index of a collection of images, for segswap-retrieve to search.

    Run again after an interruption it goes on where it stopped; with other images, it grows by
    them. Images that changed are read again, and those whose file is gone are left out.
    """

    images: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGES")]
    """Folders of images, with those below them, and image files."""
    out: str
    """Folder of the index."""
    model: str = DEFAULT_MODEL
    """A run of segswap-train, a folder, the name of a shipped model, or a hub id."""
    device: str = "auto"
    """Where the model runs: auto, cpu, cuda, ..."""
    running: tyro.conf.OmitArgPrefixes[Workers] = field(default=Workers(), metadata=cli.FLAT)

    def __post_init__(self) -> None:
        if not self.images:
            raise ValueError("no images given; expected folders of images, or image files")


def main() -> None:
    """Entry point of segswap-index."""
    cli.run(IndexConfig, _make_index, extras=("search",))


def _make_index(config: IndexConfig) -> int:
    from pipelines.search.index import make_index  # --help has no use for what it imports

    return make_index(config)
