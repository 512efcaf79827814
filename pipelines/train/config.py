"""The settings of segswap-train."""

from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Literal

import tyro

from pipelines.command.cli import FLAT
from pipelines.generate.config import Composition, Inputs, Styling

_POOL = 500  # images, as published
_LEAST = {
    "steps": 1, "batch": 1, "accumulate": 1, "negatives": 0, "warmup": 0, "every": 1, "workers": 0,
    "num_gpus": 1, "seed": 0, "pool": 2,
}  # fmt: skip


@dataclass(frozen=True)
class TrainConfig:
    """Train a matcher on pairs that segswap-generate made, or that are made while it trains.

    Interrupted (Ctrl-C), it leaves a checkpoint; --resume goes on from there.
    """

    data: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[PAIRS [PAIRS ...]]")
    ]
    """Datasets, folders or URLs; their train splits are learned from, their val splits scored on.
    None with --live."""
    out: str
    """Folder of the run: model, checkpoint, history, curves."""
    resume: bool = False
    """Go on with the run in --out."""

    matcher: Literal["correlation", "transformer"] | None = None
    """correlation needs no pretrained weights; transformer is the published network. By default
    what --init is, else correlation."""
    model_size: Literal["tiny", "small", "base", "large"] | None = None
    """Size of the transformer; by default that of --init, else small."""
    backbone: str | None = None
    """The transformer's backbone: any timm model with features of stride 16; by default that of
    --init, else resnet50."""
    backbone_weights: str | None = None
    """Weights of the backbone: a file, or timm for timm's own."""
    freeze_backbone: bool = True
    """Keep the backbone as it is."""
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
    loss_mask: float = 1.0
    """Weight of the mask loss; 0 switches it off."""
    loss_transfer: float = 1.0
    """Weight of the transferred-mask loss; 0 switches it off."""
    loss_corr: float = 1.0
    """Weight of the correspondence losses: positions, and the correlation where there is one; 0
    switches them off."""
    hard_negatives: bool = False
    """Second stage, after --init: between steps, find images that the model wrongly matches, and
    train on them as further negatives. Training ends early when none are found any more."""
    pool: int = _POOL
    """Images of which --hard-negatives scores all pairs in turn."""

    mixture: tuple[float, ...] = ()
    """Shares of the datasets in training, one each; by default as many as they have pairs."""
    skip_bad: bool = False
    """Pass over shards and samples that are missing or damaged, and say so."""
    live: bool = False
    """Make the pairs while training, on Ray, instead of reading them. What they are made from and
    how is said by the flags below, as for segswap-generate."""
    workers: int = 1
    """Processes that load and augment; with --live, Ray workers that make pairs."""

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
        self._check_numbers()
        self._check_data()
        self._check_model()
        self._check_devices()

    def _check_numbers(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{_flag(name)} is {value}; expected at least {least}")
        for name in ("loss_mask", "loss_transfer", "loss_corr", "weight_decay"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{_flag(name)} is {getattr(self, name)}; expected 0 or more")
        if not self.loss_mask + self.loss_transfer + self.loss_corr:
            raise ValueError("all losses are switched off: nothing to learn")
        if self.lr is not None and not 0 < self.lr < float("inf"):
            raise ValueError(f"--lr is {self.lr}; expected a positive number")
        if not 0 <= self.ema < 1:
            raise ValueError(f"--ema is {self.ema}; expected at least 0, and below 1")

    def _check_data(self) -> None:
        made = {"inputs": Inputs(), "composition": Composition(), "styling": Styling()}
        given = [name for group, default in made.items()
                 for name in _differing(getattr(self, group), default)]  # fmt: skip
        if self.live:
            if self.data:
                raise ValueError(f"--live makes its pairs; leave out {' '.join(self.data)}")
            if self.mixture or self.skip_bad:
                raise ValueError("--mixture and --skip-bad are for datasets, not for --live")
            if not self.workers:
                raise ValueError("--workers is 0; --live needs at least 1, which makes the pairs")
            return
        if given:
            raise ValueError(f"{', '.join(map(_flag, given))}: only with --live, which makes pairs")
        if not self.data:
            raise ValueError("there is nothing to train on: give PAIRS, or --live")
        if self.mixture and len(self.mixture) != len(self.data):
            raise ValueError(
                f"--mixture has {len(self.mixture)} shares for {len(self.data)} datasets; expected "
                "one each"
            )

    def _check_model(self) -> None:
        own = [name for name in ("model_size", "backbone", "backbone_weights")
               if getattr(self, name) is not None]  # fmt: skip
        if self.init:
            if self.backbone_weights:
                raise ValueError("--backbone-weights: all weights come from --init; leave it out")
        elif self.matcher != "transformer":
            if own:
                raise ValueError(f"{_flag(own[0])} is for --matcher transformer")
        elif self.freeze_backbone and not self.backbone_weights:
            raise ValueError(
                "a frozen backbone without weights has nothing to tell; give --backbone-weights, "
                "or train it with --no-freeze-backbone"
            )
        if self.hard_negatives:
            if not self.init:
                raise ValueError(
                    "--hard-negatives is the second stage of a training; give --init, the model of "
                    "the first"
                )
            if not self.loss_mask:
                raise ValueError("--hard-negatives acts through the mask loss; --loss-mask is 0")
            if self.num_gpus > 1:
                raise ValueError("--hard-negatives works on one device; leave out --num-gpus")
        elif self.pool != _POOL:
            raise ValueError("--pool is for --hard-negatives")

    def _check_devices(self) -> None:
        if self.num_gpus > 1 and self.device not in ("auto", "cpu", "cuda"):
            raise ValueError(
                f"--device {self.device} is one device; with --num-gpus {self.num_gpus} expected "
                "auto, cuda or cpu"
            )
        if self.address and not self.live and self.num_gpus == 1:
            raise ValueError("--address is for --live and --num-gpus: nothing else uses Ray")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _differing(group: Any, default: Any) -> list[str]:
    names = [item.name for item in fields(group)]
    return [name for name in names if getattr(group, name) != getattr(default, name)]
