"""segswap-check: its settings and its entry point."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from pipelines.command import cli


@dataclass(frozen=True)
class CheckConfig:
    """Check a dataset: files, hashes, records, images, masks, and the map against masks and pixels.

    Everything is checked of every pair, but for the registration of pixels. The exit status is 0
    for a clean dataset and 1 where there is a problem.
    """

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")]
    """Folder or fsspec URL of a dataset."""
    json: str | None = None
    """Also write what was found as JSON."""
    register: int = 100
    """How many pairs, spread over all, have their pixels registered along the map."""

    def __post_init__(self) -> None:
        if self.register < 0:
            raise ValueError(f"--register is {self.register}; expected at least 0")


def main() -> None:
    """Entry point of segswap-check."""
    cli.run(CheckConfig, _check)


def _check(config: CheckConfig) -> int:
    from pipelines.check.job import check  # --help has no use for what it imports

    return check(config)
