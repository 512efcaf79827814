"""segswap-train-proposer: its settings and its entry point."""

import math
from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from pipelines.command import cli
from pipelines.command.workers import spare_cores

_STRIDE = 32  # of the deepest features


@dataclass(frozen=True)
class TrainProposerConfig:
    """Train a proposer of segments, for `segswap-generate --images FOLDER --segments OUT`.

    ldf learns what stands out in a picture, from masks. It has two rounds: in the first, masks are
    parted into body and detail by the distance from their edge; the second, from new weights,
    learns the smoother ones that the network of the first predicts.

    Interrupted (Ctrl-C), it leaves a checkpoint; --resume goes on from there.
    """

    images: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="IMAGES")]
    """Folder of pictures."""
    out: str
    """Folder for the weights, proposer.safetensors, with settings and losses."""
    method: Literal["ldf"] = "ldf"
    """What is trained."""
    masks: str | None = None
    """Folder of the pictures' masks: a PNG of the picture's name and size, white where the thing
    is that stands out."""
    rounds: Literal[1, 2] = 2
    """How many rounds; the published weights are of the second."""
    steps: int = 1000
    """Steps of each round; published: 15,800 and 13,200 with a batch of 32."""
    batch: int = 16
    """Pictures a step."""
    size: int = 320
    """Side of the squares that pictures are brought to; in training one of five for each batch,
    this one and those below it in steps of 32. Published: 352."""
    width: int = 48
    """Channels of the network behind the backbone; published: 64."""
    backbone: Literal["lite2", "resnet50"] = "lite2"
    """Network of the features, which are not trained: EfficientNet-Lite2, or the published
    ResNet-50."""
    backbone_weights: str | None = None
    """Its weights: shipped (lite2), pip, timm, which downloads, or a file; none for random ones. By
    default lite2's are shipped, and resnet50's are timm's."""
    labels: Literal["released", "linear"] = "released"
    """How masks are parted into body and detail: as in the authors' code, or as in the paper."""
    decouple: bool = True
    """Teach body and detail; --no-decouple teaches the same network the masks alone, in one
    round, to compare."""
    lr: float = 1.5e-3
    """Highest learning rate."""
    every: int = 200
    """Steps between checkpoints."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    workers: int = field(default_factory=spare_cores)
    """Processes that load pictures; 0: this process does. By default as many as there are other
    cores, up to 8."""
    seed: int = 0
    """Seeds weights, pictures and crops."""
    resume: bool = False
    """Go on with the run in --out."""

    def __post_init__(self) -> None:
        least = {"steps": 1, "batch": 2, "width": 8, "every": 1, "workers": 0, "seed": 0}
        for name, limit in least.items():
            if getattr(self, name) < limit:
                raise ValueError(f"--{name} is {getattr(self, name)}; expected at least {limit}")
        if self.masks is None:
            raise ValueError(
                "--method ldf learns from masks: give --masks FOLDER, with a PNG of each picture's "
                "name and size"
            )
        if self.size < 2 * _STRIDE or self.size % _STRIDE:
            raise ValueError(f"--size is {self.size}; expected a multiple of 32 from 64 on")
        if not 0 < self.lr < math.inf:
            raise ValueError(f"--lr is {self.lr}; expected a positive number")
        if self.backbone == "resnet50" and self.backbone_weights == "shipped":
            raise ValueError("--backbone-weights shipped are lite2's; give timm, none or a file")

    @property
    def weights(self) -> str | None:
        """The backbone's weights, as `build_backbone` takes them."""
        default = "shipped" if self.backbone == "lite2" else "timm"
        chosen = self.backbone_weights or default
        return None if chosen == "none" else chosen


def main() -> None:
    """Entry point of segswap-train-proposer."""
    cli.run(TrainProposerConfig, _train_proposer, extras=("train", "generate"))


def _train_proposer(config: TrainProposerConfig) -> int:
    from pipelines.training.proposer import train_proposer  # --help has no use for its imports

    return train_proposer(config)
