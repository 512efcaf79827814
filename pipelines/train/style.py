"""segswap-train-style: train weights for --style adain, for whoever has none."""

import copy
import json
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from safetensors.torch import save
from torch import nn

from generators.styles.adain import SIDE, VGG19, AdaIN, build_decoder, build_encoder, widths_of
from generators.styles.adain_training import Course, Crops, Row, StyleTrainer, initialise
from generators.styles.adain_weights import OWN, load_vgg
from pipelines.command import cli
from pipelines.command.devices import device_of
from pipelines.command.progress import Progress
from segswap import geometry
from segswap.files.images import ImageError, encode_jpeg, image_files, read_image, read_size
from segswap.files.storage import write_atomically
from segswap.training.checkpoints import STATE, load_state, save_state

SAMPLES, HISTORY = "samples.jpg", "history.json"
# What may differ when a run is resumed: where it runs, not what it computes.
_MACHINE = ("images", "styles", "out", "vgg", "resume", "workers", "device", "every")


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
    workers: int = 1
    """Processes that load images."""
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
    cli.run(TrainStyleConfig, train_style)


def train_style(config: TrainStyleConfig) -> int:
    """Train, or go on training.

    Returns:
        The exit status: 0, or 130 after an interrupt; then there is a checkpoint to resume from.

    Raises:
        ValueError: a folder, the weights or the configuration cannot be used.
        RuntimeError: a loss is not finite, images cannot be read, or the device's memory too small.
    """
    out = Path(config.out)
    photographs, styles = (_usable(Path(folder)) for folder in (config.images, config.styles))
    identity = _identity(config, len(photographs), len(styles))
    state = _checked_state(config, out, identity)
    device = device_of(config.device)
    course = Course(
        encoder_steps=0 if config.vgg else config.encoder_steps, steps=config.steps,
        batch=config.batch, lr=config.lr, style_weight=config.style_weight, every=config.every,
    )  # fmt: skip
    crops = Crops(photographs, styles, config.crop, config.seed)
    trainer = StyleTrainer(*_new_networks(config), course, crops, device)
    if state is not None:
        trainer.restore(state["trainer"])
    out.mkdir(parents=True, exist_ok=True)

    def checkpoint() -> None:
        save_state(out, {"identity": identity, "trainer": trainer.state()})
        write_atomically(out / HISTORY, json.dumps(trainer.history, indent=1).encode())
        if trainer.styling:
            write_atomically(out / OWN, _weights(trainer))

    finished = _run(trainer, config.workers, checkpoint)
    if not finished:
        print(f"stopped at step {trainer.step}; --resume goes on from there")
        return 130
    write_atomically(out / SAMPLES, _samples(trainer, photographs, styles))
    first, last = _first_and_last(trainer.history)
    print(f"{out / OWN}: style loss {first:.3g} at first, {last:.3g} at last; see {SAMPLES}")
    return 0


def _run(trainer: StyleTrainer, workers: int, checkpoint: Callable[[], None]) -> bool:
    def stop(*_: Any) -> None:
        trainer.stop = True

    handlers = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    progress = Progress("steps", trainer.total, "steps", trainer.step)
    before = trainer.step

    def report(row: Row) -> None:
        nonlocal before
        note = ", ".join(f"{name} loss {row[name]:.4g}" for name in row if name != "step")
        progress.add(int(row["step"]) - before, note)
        before = int(row["step"])

    try:
        return trainer.run(workers, report, checkpoint)
    except torch.OutOfMemoryError as error:
        raise RuntimeError(f"out of memory: lower --batch or --crop ({error})") from error
    finally:
        progress.close()
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _new_networks(config: TrainStyleConfig) -> tuple[nn.Sequential, nn.Sequential]:
    shares = (round(width * config.width) for width in VGG19)
    a, b, c, d = (max(8, width) for width in shares)
    widths = widths_of(load_vgg(config.vgg)) if config.vgg else (a, b, c, d)
    encoder, decoder = build_encoder(widths), build_decoder(widths)
    initialise(encoder, decoder, config.seed)
    return load_vgg(config.vgg) if config.vgg else encoder, decoder


def _weights(trainer: StyleTrainer) -> bytes:
    """Encoder and decoder as a safetensors file, as `generators.styles.adain_weights` reads it."""
    return save(
        {
            f"{name}.{key}": value.cpu().contiguous()
            for name, net in (("encoder", trainer.encoder), ("decoder", trainer.decoder))
            for key, value in net.state_dict().items()
        }
    )


def _samples(trainer: StyleTrainer, photographs: list[Path], styles: list[Path]) -> bytes:
    """A picture to look at, JPEG: style pictures on top, photographs on the left, and below and
    right of them the photographs restyled at full strength.
    """
    device = str(next(trainer.encoder.parameters()).device)
    network = AdaIN(copy.deepcopy(trainer.encoder), copy.deepcopy(trainer.decoder), device)
    columns, lines = (_evenly(paths, 5) for paths in (styles, photographs))
    pictures = [read_image(path) for path in columns]
    statistics = [network.statistics(picture) for picture in pictures]
    tiles = [[np.full((SIDE, SIDE, 3), 255, np.uint8), *pictures]]
    for photograph in (read_image(path) for path in lines):
        copies = [photograph] * len(columns)
        tiles.append([photograph, *network.restyle(copies, statistics, [1.0] * len(columns))])
    side = SIDE // 2
    return encode_jpeg(
        np.vstack([np.hstack([geometry.resize(t, side, side) for t in line]) for line in tiles]), 90
    )


def _evenly(paths: list[Path], most: int) -> list[Path]:
    """At most so many of the paths, evenly spread."""
    return [paths[i] for i in np.unique(np.linspace(0, len(paths) - 1, most).astype(int))]


def _first_and_last(history: list[Row]) -> tuple[float, float]:
    losses = [row["style"] for row in history if "style" in row]
    return losses[0], losses[-1]


# --- inputs and the run's folder -------------------------------------------------------------


def _usable(folder: Path) -> list[Path]:
    """The folder's images; those whose files cannot be used are named and left out."""
    usable, broken = [], []
    for path in (folder / name for name in image_files(folder)):
        try:
            read_size(path)
            usable.append(path)
        except ImageError as error:
            broken.append(str(error))
    if not usable:
        raise ValueError(f"none of {folder}'s {len(broken)} images can be used: {broken[0]}")
    for text in broken:
        print(f"left out: {text}", file=sys.stderr)
    return usable


def _identity(config: TrainStyleConfig, photographs: int, styles: int) -> dict[str, Any]:
    """What must be the same for a run to be resumed."""
    kept = {k: v for k, v in cli.as_dict(config).items() if k not in _MACHINE}
    return kept | {"vgg": bool(config.vgg), "images": photographs, "styles": styles}


def _checked_state(
    config: TrainStyleConfig, out: Path, identity: dict[str, Any]
) -> dict[str, Any] | None:
    """The state to resume from; None for a new run, whose folder must be empty."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file; expected a folder for the run")
    if not config.resume:
        if out.is_dir() and any(out.iterdir()):
            has = "a run; --resume goes on with it," if (out / STATE).exists() else "other files;"
            raise ValueError(f"--out {out} holds {has} or choose another folder")
        return None
    state = load_state(out)
    old = state.get("identity", {})
    changed = [key for key in {**old, **identity} if old.get(key) != identity.get(key)]
    if changed:
        differences = "; ".join(f"{k} was {old.get(k)!r}, is {identity.get(k)!r}" for k in changed)
        raise ValueError(f"{out} holds a run of another configuration: {differences}")
    return state
