"""segswap-train: its settings and its entry point."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, make_dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from pipelines.command import cli
from pipelines.command.cli import FLAT, as_dict
from pipelines.command.workers import spare_cores
from pipelines.generation.config import Composition, Inputs, Styling
from pipelines.training.checks import POOL, check
from pipelines.training.flags import Given, filled, flags_of, matcher_of, start_of
from segswap.matchers.registry import names

if TYPE_CHECKING:
    from segswap.batches.picture import Pictures


@dataclass(frozen=True)
class TrainConfig:
    """Train a matcher on pairs that segswap-generate made, or that are made while it trains.

    Interrupted (Ctrl-C), it leaves a checkpoint; --resume goes on from there.
    """

    data: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[PAIRS [PAIRS ...]]")
    ]
    """Datasets, folders or URLs; their train splits are learned from, their val splits scored on.
    None with --live; --category-images and --masked-images may stand alone."""
    out: str
    """Folder of the run: model, checkpoint, history, curves."""
    resume: bool = False
    """Go on with the run in --out."""

    matcher: Annotated[str | None, tyro.conf.arg(metavar=f"{{{','.join(names())}}}")] = None
    """The network; --matcher NAME --help shows its own options and losses. correlation needs no
    pretrained weights; transformer is the published one. By default what --init is, else
    correlation."""
    options: Any = field(default_factory=dict, metadata=FLAT)
    """The matcher's own options by name; by default those of --init, else its own."""
    losses: Any = field(default_factory=dict, metadata=FLAT)
    """Weights of the matcher's losses by their names; by default its own."""
    init: str | None = None
    """Model to start from: a run, a folder, a name that ships with segswap, or user/name on the
    hub."""
    size: int | None = None
    """Side of the images in training, pixels; by default the matcher's own."""
    match_size: int | None = None
    """Side at which the trained model matches; by default that of --init, else the matcher's own.
    More finds smaller things and takes longer."""

    steps: int = 2000
    """Optimiser steps."""
    batch: int = 4
    """Pairs of a batch, on each device."""
    accumulate: int = 1
    """Batches of a step: as much as a batch so many times as large, in the memory of one."""
    negatives: int = 1
    """Pairs that share nothing, for every pair; at most --batch less one."""
    lr: float | None = None
    """Highest learning rate; by default the matcher's own, with --hard-negatives 1e-5."""
    schedule: Literal["constant", "step", "poly", "cosine"] = "cosine"
    """How the learning rate falls: to 5% along a cosine, to 5% in one step at half of --steps, to 0
    as a polynomial of power 0.9 (poly), or not at all."""
    warmup: int | None = None
    """Steps of linear warm-up; by default a tenth of --steps, at most 1000."""
    optimiser: Literal["adam", "adamw", "sgd"] = "adam"
    """sgd has a momentum of 0.9. The default of --lr is made for adam."""
    weight_decay: float = 0.0
    """Of the optimiser; with adamw decoupled from the gradient."""
    ema: float = 0.999
    """Highest decay of the moving average of the weights, which is what is scored and kept; 0 keeps
    the weights themselves."""
    hard_negatives: bool = False
    """Second stage, after --init: between steps, find images that the model wrongly matches, and
    train on them as further negatives. Training ends early when none are found any more."""
    pool: int = POOL
    """Images of which --hard-negatives scores all pairs in turn."""

    category_images: Annotated[
        tuple[str, ...], tyro.conf.arg(metavar="SOURCE [SOURCE ...]")
    ] = ()  # fmt: skip
    """Learn from pairs of pictures that show the same kind of thing, too, or alone: folders with a
    folder for each kind, or COCO's ANNOTATIONS.json:IMAGES. Masks and keypoints are learned from
    where there are some, and pictures that a folder's heldout.txt lists are scored on;
    docs/categories.md says how they are laid out."""
    masked_images: Annotated[
        tuple[str, ...], tyro.conf.arg(metavar="SOURCE [SOURCE ...]")
    ] = ()  # fmt: skip
    """Learn from pictures with a mask of the foreground, each paired with its own warp, too, or
    alone: folders with images/NAME.jpg and masks/NAME.png, or COCO's ANNOTATIONS.json:IMAGES.
    Pictures that a folder's heldout.txt lists are scored on."""
    mixture: tuple[float, ...] = ()
    """Shares in training: one for each of PAIRS, or one with --live, then one for each of
    --category-images, and of --masked-images; what has 0 is scored on alone. By default generated
    pairs are one half and these the other; within them shares follow the numbers of pairs and of
    pictures."""
    skip_bad: bool = False
    """Pass over shards, samples and pictures that are missing or damaged, and say so."""
    live: bool = False
    """Make the pairs while training, on Ray, instead of reading them. What they are made from and
    how is said by the flags below, as for segswap-generate."""
    workers: int = field(default_factory=spare_cores)
    """Processes that load and augment, for each device; 0: this process does. By default as many as
    there are other cores, up to 8. With --live, Ray workers that make pairs, 1 at least."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    num_gpus: int = 1
    """Devices to train on, one process each, through Ray Train; with --device cpu, processes on
    CPUs. Several machines need --out as a folder that all of them share."""
    address: str | None = None
    """Address of a running Ray cluster for --live or --num-gpus, as in auto or 10.0.0.1:6379; by
    default Ray is started on this machine and shut down at the end."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """auto is fp32 on a CPU, bf16 on a GPU, and fp16 on a GPU that knows no bf16."""
    compile: bool = False
    """Compile the network with torch.compile: a minute at first, faster steps afterwards."""
    every: int = 250
    """Steps between checkpoints and scores on the val split."""
    seed: int = 0
    """Seeds weights, order, augmentation and dropout."""

    inputs: tyro.conf.OmitArgPrefixes[Inputs] = field(default=Inputs(), metadata=FLAT)
    composition: tyro.conf.OmitArgPrefixes[Composition] = field(
        default=Composition(), metadata=FLAT
    )
    styling: tyro.conf.OmitArgPrefixes[Styling] = field(default=Styling(), metadata=FLAT)

    def __post_init__(self) -> None:
        check(self)

    @property
    def generated(self) -> int:
        """How many sources of generated pairs there are."""
        return 1 if self.live else len(self.data)

    @property
    def learned(self) -> tuple[str, ...]:
        """Those of PAIRS that are trained on: the others have a share of 0."""
        shares = self.mixture or (1.0,) * len(self.data)
        return tuple(path for path, share in zip(self.data, shares, strict=False) if share)

    @property
    def sources(self) -> tuple[str, ...]:
        """What --category-images and --masked-images name."""
        return (*self.category_images, *self.masked_images)

    @property
    def pictures(self) -> "tuple[Pictures, ...]":
        """What --category-images names, with the same kinds and keypoints; read once.

        Raises:
            ValueError: one of them cannot be used.
        """
        return self._read[0]

    @property
    def foregrounds(self) -> "tuple[Pictures, ...]":
        """What --masked-images names; read once.

        Raises:
            ValueError: one of them cannot be used.
        """
        return self._read[1]

    @property
    def taught(self) -> "tuple[tuple[Pictures, ...], tuple[Pictures, ...]]":
        """Those of `pictures`, and of `foregrounds`, that are trained on."""
        shares = iter(self.mixture[self.generated :] or (1.0,) * len(self.sources))
        kinds = tuple(pictures for pictures in self.pictures if next(shares))
        return kinds, tuple(pictures for pictures in self.foregrounds if next(shares))

    @cached_property
    def _read(self) -> "tuple[tuple[Pictures, ...], tuple[Pictures, ...]]":
        """What one source holds out is trained on in none, of either sort."""
        from segswap.batches.foregrounds import read_foregrounds, without
        from segswap.batches.picture import merged  # with OpenCV, which --help has no use for
        from segswap.batches.pictures import read_pictures

        kinds = [read_pictures(source, self.skip_bad) for source in self.category_images]
        masked = [read_foregrounds(source, self.skip_bad) for source in self.masked_images]
        held_out = {p.key for source in (*kinds, *masked) for p in source.held_out}
        return merged(kinds, held_out), without(masked, held_out)

    @cached_property
    def matcher_name(self) -> str:
        """The matcher that is trained, by what is asked for, resumed or started from."""
        return matcher_of(self.matcher, start_of(self.out, self.resume, self.init))

    @cached_property
    def resolved(self) -> dict[str, Any]:
        """All settings as plain JSON values, those of the matcher among them: what a run is."""
        options, losses = self._own
        return as_dict(replace(self, options=options, losses=losses))

    @property
    def weights(self) -> dict[str, float]:
        """Weights of the matcher's losses, by the terms' names."""
        losses = vars(self._own[1])
        return {name.removeprefix("loss_"): value for name, value in losses.items()}

    @property
    def given_options(self) -> dict[str, Any]:
        """The matcher's options that are given, and all of its switches."""
        return {name: value for name, value in vars(self._own[0]).items() if value is not None}

    @cached_property
    def _own(self) -> tuple[Any, Any]:
        return filled(self.matcher_name, self.options, self.losses)


def command_line(arguments: Sequence[str]) -> type[TrainConfig]:
    """The settings that a command line may give: with the flags of the matcher that it names, or
    without any where it only asks for help.
    """
    given = Given.of(arguments)
    none: Any = tyro.conf.Suppress
    flat: Any = tyro.conf.OmitArgPrefixes
    groups: list[Any] = [
        (name, none[Any], field(default_factory=dict)) for name in ("options", "losses")
    ]
    if given.matcher or not given.help_asked:
        kinds = flags_of(matcher_of(given.matcher, given.start))
        groups = [
            (name, flat[kind], field(default=kind(), metadata=FLAT))
            for name, kind in zip(("options", "losses"), kinds, strict=True)
        ]
    # In other processes it is a plain TrainConfig.
    chosen = make_dataclass(
        "TrainConfig", groups, bases=(TrainConfig,), frozen=True,
        namespace={"__reduce__": lambda self: (_restored, (dict(self.__dict__),))},
    )  # fmt: skip
    chosen.__doc__ = TrainConfig.__doc__
    return chosen


def _restored(values: dict[str, Any]) -> TrainConfig:
    return TrainConfig(**{item.name: values[item.name] for item in fields(TrainConfig)})


def main() -> None:
    """Entry point of segswap-train."""
    cli.run(command_line, _train, extras=("train",))


def _train(config: TrainConfig) -> int:
    from pipelines.training.job import train  # --help has no use for what it imports

    return train(config)
