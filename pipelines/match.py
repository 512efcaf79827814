"""segswap-match: match two images and draw what was found."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from pipelines.command import cli
from pipelines.command.devices import device_of, out_of_memory_says
from pipelines.command.outputs import check_file
from segswap.files.images import encode_jpeg, encode_png, read_image
from segswap.files.storage import write_atomically
from segswap.models.model import DEFAULT_MODEL, load


@dataclass(frozen=True)
class MatchConfig:
    """Find the region that two images share, and which point goes where."""

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """An image."""
    target: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TARGET")]
    """Another image."""
    model: str = DEFAULT_MODEL
    """A run of segswap-train, a folder, the name of a shipped model, or a hub id."""
    out: str = "match.png"
    """The picture to draw, .png or .jpg."""
    height: int = 480
    """Height of the picture in pixels."""
    device: str = "auto"
    """Where the model runs: auto, cpu, cuda, ..."""

    def __post_init__(self) -> None:
        if Path(self.out).suffix.lower() not in (".png", ".jpg", ".jpeg"):
            raise ValueError(f"--out is {self.out}; expected a name ending in .png or .jpg")
        if self.height < 32:
            raise ValueError(f"--height is {self.height}; expected at least 32")


def main() -> None:
    """Entry point of segswap-match."""
    cli.run(MatchConfig, match)


def match(config: MatchConfig) -> int:
    """Match, draw, and say how much is shared.

    Raises:
        ValueError: an image or the model cannot be read, the device is not there, or the picture
            cannot be written.
        RuntimeError: the hub with the model cannot be reached, or the device's memory is too small.
    """
    check_file("--out", config.out)
    source, target = read_image(config.source), read_image(config.target)
    model = load(config.model, device_of(config.device))
    with out_of_memory_says("use --device cpu, or a model trained with a smaller --match-size"):
        found = model.match(source, target)
    picture = found.prediction.draw(source, target, height=config.height)
    png = config.out.lower().endswith(".png")
    write_atomically(Path(config.out), encode_png(picture) if png else encode_jpeg(picture, 92))
    shares = [np.mean(mask > 0.5) for mask in (found.source_mask, found.target_mask)]
    print(
        f"{config.out}: score {found.score:.1f}; shared {shares[0]:.1%} of {config.source}, "
        f"{shares[1]:.1%} of {config.target}"
    )
    return 0
