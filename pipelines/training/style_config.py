"""segswap-train-style: its settings and its entry point."""

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from generators.styles import SIDE
from pipelines.command import cli
from pipelines.command.workers import spare_cores


@dataclass(frozen=True)
class TrainStyleConfig:
    """Train weights for `segswap-generate --style adain --adain-weights OUT`.

    With --vgg, the published method: VGG-19 keeps its features, brought to one scale, and a decoder
    learns to make images of them in any style. Without, no weights are needed: a narrow encoder of
    the same shape is first learned together with the decoder, by reproducing images, and then takes
    VGG's place. That changes colours, contrast and fine texture, and knows less of brush strokes
    than VGG does.

    Interrupted (Ctrl-C), it leaves a checkpoint; --resume goes on from there.
    """

    images: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="IMAGES")]
    """Folder of photographs."""
    styles: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="STYLES")]
    """Folder of style pictures."""
    out: str
    """Folder for the weights, adain.safetensors, with samples and losses."""
    vgg: str | None = None
    """Weights of VGG-19: the published vgg_normalised.pth, or torchvision's or timm's vgg19."""
    width: float = 0.25
    """Without --vgg: channels of the encoder, as a share of VGG-19's."""
    encoder_steps: int = 1000
    """Without --vgg: steps in which encoder and decoder learn to reproduce images."""
    steps: int = 2000
    """Steps in which the decoder learns styles; the published decoder took 160,000."""
    batch: int = 8
    """Photographs, and as many style pictures, a step."""
    crop: int = 96
    """Side of the training images in pixels, cut at random from images of 512 px; published: 256.
    A multiple of 8."""
    lr: float = 5e-4
    """Highest learning rate; the published one was 1e-4."""
    style_weight: float = 10.0
    """Weight of the style loss; the content loss has 1."""
    every: int = 200
    """Steps between checkpoints."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    workers: int = field(default_factory=spare_cores)
    """Processes that load images; 0: this process does. By default as many as there are other
    cores, up to 8."""
    seed: int = 0
    """Seeds weights, images and crops."""
    resume: bool = False
    """Go on with the run in --out."""

    def __post_init__(self) -> None:
        least = {"encoder_steps": 0, "steps": 1, "batch": 1, "every": 1, "workers": 0, "seed": 0}
        for name, limit in least.items():
            if getattr(self, name) < limit:
                flag = name.replace("_", "-")
                raise ValueError(f"--{flag} is {getattr(self, name)}; expected at least {limit}")
        if not 64 <= self.crop <= SIDE or self.crop % 8:
            raise ValueError(f"--crop is {self.crop}; expected a multiple of 8 from 64 to {SIDE}")
        if not 0 < self.width <= 1:
            raise ValueError(f"--width is {self.width}; expected a share of VGG-19's, up to 1")
        for name in ("lr", "style_weight"):
            if not 0 < getattr(self, name) < float("inf"):
                flag = name.replace("_", "-")
                raise ValueError(f"--{flag} is {getattr(self, name)}; expected a positive number")


def main() -> None:
    """Entry point of segswap-train-style."""
    cli.run(TrainStyleConfig, _train_style, extras=("train",))


def _train_style(config: TrainStyleConfig) -> int:
    from pipelines.training.style import train_style  # --help has no use for what it imports

    return train_style(config)
