"""The settings of segswap-generate."""

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from generators.blending import BLENDS
from generators.compose import ONE_OBJECT, TWO_OBJECTS, Recipe

SPLITS = ("train", "val")


@dataclass(frozen=True)
class GenerateConfig:
    """Make a dataset of image pairs that share a region, with masks and correspondences.

    Without --annotations and --images the photographs inside scikit-image are used. The same
    command makes the same bytes; run again after an interruption, it goes on where it stopped.
    """

    out: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """Folder of the dataset; it is made, or its unfinished run is resumed."""
    pairs: int = 1000
    """Pairs of the train split."""
    val_pairs: int = 0
    """Pairs of the val split. When both splits are made, they share no image."""
    val_share: float = 0.2
    """Share of the images held out for val when both splits are made."""
    seed: int = 0
    """Seeds every random choice."""
    size: int = 480
    """Side of the square images in pixels."""
    shard_pairs: int = 250
    """Pairs in one shard: the unit of work and of retry."""
    annotations: str | None = None
    """COCO instances JSON; its images lie in --images."""
    images: str | None = None
    """Folder of images. Without --annotations, segments are found by --segments."""
    segments: Literal["felzenszwalb"] = "felzenszwalb"
    """How segments are found in a folder of images without annotations."""
    backgrounds: str | None = None
    """Folder of background images; by default the images themselves."""
    segment_area: tuple[float, float] = (0.015, 0.5)
    """Smallest and largest share of its image that a segment may take."""
    objects: Literal["1", "2", "mix"] = "mix"
    """Objects a pair; mix draws one or two, half and half."""
    blend: str = "poisson"
    """How objects are put into the background: poisson, feather, paste, or several with weights,
    as in poisson:3,paste:1."""
    style: Literal["none", "histogram"] = "none"
    """Styled versions of both images, after the pictures in --styles."""
    styles: str | None = None
    """Folder of style pictures."""
    workers: int = 2
    """Ray worker processes on this machine."""
    inline: bool = False
    """Work in this process alone, without Ray."""
    max_skipped: float = 0.1
    """If a larger share of the images or annotations could not be used, the finished run exits
    with status 3."""
    one: Recipe = ONE_OBJECT
    """The one-object composition."""
    two: Recipe = TWO_OBJECTS
    """The two-object composition."""

    def __post_init__(self) -> None:
        limits = {
            "pairs": (self.pairs, 0), "val_pairs": (self.val_pairs, 0), "seed": (self.seed, 0),
            "size": (self.size, 64), "shard_pairs": (self.shard_pairs, 1),
            "workers": (self.workers, 1),
        }  # fmt: skip
        for name, (value, least) in limits.items():
            if value < least:
                flag = name.replace("_", "-")
                raise ValueError(f"--{flag} is {value}; expected at least {least}")
        if not self.pairs + self.val_pairs:
            raise ValueError("--pairs and --val-pairs are both 0: nothing to make")
        if not 0 <= self.segment_area[0] < self.segment_area[1] <= 1:
            raise ValueError(f"--segment-area is {self.segment_area}; expected two rising shares")
        if not 0 < self.val_share < 1:
            raise ValueError(f"--val-share is {self.val_share}; expected a share between 0 and 1")
        if self.annotations and not self.images:
            raise ValueError("--annotations needs --images, the folder of its images")
        if (self.style == "none") != (self.styles is None):
            raise ValueError("--style and --styles go together: a method, and a folder of pictures")
        parse_blend(self.blend)


def parse_blend(text: str) -> dict[str, float]:
    """Weights of ways of blending from `NAME[:weight],...`.

    Raises:
        ValueError: an unknown name, or a weight that is no positive number.
    """
    weights = {}
    for part in text.split(","):
        name, _, weight = part.strip().partition(":")
        try:
            weights[name] = float(weight or 1)
        except ValueError:
            weights[name] = -1.0
        if name not in BLENDS or not 0 < weights[name] < float("inf"):
            raise ValueError(
                f"--blend has {part!r}; expected names of {', '.join(BLENDS)}, "
                "each with an optional positive weight, as in poisson:3,paste:1"
            )
    return weights
