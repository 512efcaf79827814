"""segswap-generate: its settings, in the groups that --help shows, and its entry point."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import tyro

from generators.composition.recipe import BLEND_NAMES, ONE_OBJECT, TWO_OBJECTS, Recipe
from generators.segments import check_proposer
from pipelines.command import cli
from pipelines.command.cli import FLAT, as_dict
from pipelines.command.workers import Workers
from pipelines.pages.look_config import ProposerName

SPLITS = ("train", "val")


def _check_least(limits: dict[str, tuple[int, int]]) -> None:
    for name, (value, least) in limits.items():
        if value < least:
            flag = name.replace("_", "-")
            raise ValueError(f"--{flag} is {value}; expected at least {least}")


@dataclass(frozen=True)
class Amount:
    """How many pairs, and how they are written"""

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
    grid_stride: int | None = None
    """Also write correspondences and masks on a grid of cells of so many pixels, for programs that
    want them precomputed."""

    def __post_init__(self) -> None:
        limits = {
            "pairs": (self.pairs, 0), "val_pairs": (self.val_pairs, 0), "seed": (self.seed, 0),
            "size": (self.size, 64), "shard_pairs": (self.shard_pairs, 1),
            "grid_stride": (1 if self.grid_stride is None else self.grid_stride, 1),
        }  # fmt: skip
        _check_least(limits)
        if not self.pairs + self.val_pairs:
            raise ValueError("--pairs and --val-pairs are both 0: nothing to make")
        if not 0 < self.val_share < 1:
            raise ValueError(f"--val-share is {self.val_share}; expected a share between 0 and 1")


@dataclass(frozen=True)
class Inputs:
    """What the pairs are made from"""

    annotations: str | None = None
    """COCO instances JSON; its images lie in --images."""
    images: str | None = None
    """Folder or fsspec URL of images. Without --annotations, segments are found by --segments."""
    demo: bool = False
    """Take the built-in photographs, a dozen of scikit-image's, instead of images of yours."""
    segments: ProposerName = "felzenszwalb"
    """How segments are found in a folder of images without annotations; or the folder of a run of
    segswap-train-proposer."""
    backgrounds: str | None = None
    """Folder or URL of background images; by default the images themselves."""
    categories: tuple[str, ...] = ()
    """Names of the COCO categories whose objects are copied; by default all."""
    segment_area: tuple[float, float] = (0.015, 0.5)
    """Smallest and largest share of its image that a segment may take."""
    licenses: Literal["any", "shareable", "commercial"] = "any"
    """Which images may be used, by the licences in the COCO JSON: any; shareable leaves out
    No-Derivatives images and those whose licence is not recognised; commercial also NonCommercial
    ones."""

    def __post_init__(self) -> None:
        if not 0 <= self.segment_area[0] < self.segment_area[1] <= 1:
            raise ValueError(f"--segment-area is {self.segment_area}; expected two rising shares")
        try:
            check_proposer(self.segments)
        except ValueError as error:
            raise ValueError(f"--segments: {error}") from error
        if self.demo and (self.images or self.annotations):
            raise ValueError("--demo has photographs of its own; leave out --images")
        if self.annotations and not self.images:
            raise ValueError("--annotations needs --images, the folder of its images")
        if self.images and not self.annotations:
            if self.licenses != "any":
                raise ValueError("--licenses needs --annotations: image files state no licence")
            if self.categories:
                raise ValueError(
                    "--categories needs --annotations: it names categories of a COCO JSON"
                )

    def check_given(self) -> None:
        """Raise ValueError where nothing says what pairs are to be made from."""
        if not (self.images or self.demo):
            raise ValueError(
                "there are no images to make pairs from: give --images FOLDER, with COCO's "
                "--annotations FILE where there are some, or take the built-in photographs by "
                "--demo"
            )


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
        if name not in BLEND_NAMES or not 0 < weights[name] < float("inf"):
            raise ValueError(
                f"--blend has {part!r}; expected names of {', '.join(BLEND_NAMES)}, "
                "each with an optional positive weight, as in poisson:3,paste:1"
            )
    return weights


@dataclass(frozen=True)
class Composition:
    """How a pair is composed"""

    objects: Literal["1", "2", "mix"] = "mix"
    """Objects a pair; mix draws one or two, half and half, and one where there are no two."""
    fit: Literal["squash", "crop", "pad"] = "squash"
    """How images become square: squashed as published, or their aspect ratio kept, cropped at the
    longer side or padded at the shorter one."""
    blend: str = "poisson"
    """How objects are put into the background: poisson, poisson-mixed, feather, paste, or several
    with weights, as in poisson:3,paste:1."""

    def __post_init__(self) -> None:
        parse_blend(self.blend)


@dataclass(frozen=True)
class Styling:
    """Styled versions of both images"""

    style: Literal["none", "histogram", "fda", "pixel", "adain"] = "none"
    """How images are restyled after the pictures in --styles: histogram, fda and pixel need no
    weights, adain is the published neural style transfer."""
    styles: str | None = None
    """Folder or URL of style pictures."""
    adain_weights: str | None = None
    """Folder with the weights of adain, published ones or segswap-train-style's; by default the
    published ones are downloaded once."""

    def __post_init__(self) -> None:
        if (self.style == "none") != (self.styles is None):
            raise ValueError("--style and --styles go together: a method, and a folder of pictures")
        if self.adain_weights and self.style != "adain":
            raise ValueError("--adain-weights is for --style adain")


@dataclass(frozen=True)
class Running(Workers):
    """How the work is run; changes no byte of a pair"""

    max_skipped: float = 0.1
    """If a larger share of the images or annotations could not be used, the finished run exits
    with status 3."""


@dataclass(frozen=True)
class Mode:
    """More of a dataset, or a look before it is made"""

    extend: bool = False
    """Add pairs to the finished dataset in OUT: --pairs and --val-pairs are the new totals, all
    else is as before. Its shards stay as they are; the new pairs stand in further ones."""
    dry_run: bool = False
    """Say what would be made, from what, how large it would be and how long it would take, of a few
    pairs that are made to see. OUT is not touched."""
    verify: bool = False
    """Read the shards that are there and compare their hashes with the manifest's, not their sizes
    alone; what differs is made again, to the same bytes."""
    only: int | None = None
    """Make this one pair of the train split, as it would stand in the dataset, print its record and
    draw it into --show. OUT is not touched."""
    show: str | None = None
    """The picture (PNG) of the pair of --only: its images, masks and correspondences."""

    def __post_init__(self) -> None:
        if (self.only is None) != (self.show is None):
            raise ValueError("--only and --show go together: a pair's number, and a picture's name")
        if self.only is not None and self.only < 0:
            raise ValueError(f"--only is {self.only}; expected the number of a pair, from 0")
        if self.show is not None and not self.show.lower().endswith(".png"):
            raise ValueError(f"--show is {self.show}; expected a name ending in .png")
        if self.only is not None and (self.extend or self.dry_run):
            raise ValueError("--only makes one pair alone; leave out --extend and --dry-run")
        if self.verify and (self.only is not None or self.dry_run):
            raise ValueError("--verify is for a dataset that is made; leave out the look before it")


@dataclass(frozen=True)
class GenerateConfig:
    """Make a dataset of image pairs that share a region, with masks and correspondences.

    The same command makes the same bytes; run again after an interruption, it goes on where it
    stopped, and of a finished dataset it makes what is missing.
    """

    out: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """Folder or fsspec URL (s3://...) of the dataset; it is made, or its unfinished run resumed."""
    amount: tyro.conf.OmitArgPrefixes[Amount] = field(default=Amount(), metadata=FLAT)
    inputs: tyro.conf.OmitArgPrefixes[Inputs] = field(default=Inputs(), metadata=FLAT)
    composition: tyro.conf.OmitArgPrefixes[Composition] = field(
        default=Composition(), metadata=FLAT
    )
    styling: tyro.conf.OmitArgPrefixes[Styling] = field(default=Styling(), metadata=FLAT)
    running: tyro.conf.OmitArgPrefixes[Running] = field(default=Running(), metadata=FLAT)
    mode: tyro.conf.OmitArgPrefixes[Mode] = field(default=Mode(), metadata=FLAT)
    one: Recipe = ONE_OBJECT
    """The one-object composition."""
    two: Recipe = TWO_OBJECTS
    """The two-object composition."""

    def __post_init__(self) -> None:
        self.inputs.check_given()
        if self.mode.only is not None and not self.amount.pairs:
            raise ValueError("--only is a pair of the train split, of which --pairs 0 makes none")

    @property
    def settings(self) -> dict[str, Any]:
        """What the pairs depend on, as plain JSON values by the flags' names."""
        aside = {"out", *as_dict(self.running), *as_dict(self.mode)}
        return {key: value for key, value in as_dict(self).items() if key not in aside}


def main() -> None:
    """Entry point of segswap-generate."""
    cli.run(GenerateConfig, _generate, extras=("generate",))


def _generate(config: GenerateConfig) -> int:
    from pipelines.generation.job import generate  # --help has no use for what it imports

    return generate(config)
