"""What segswap-train-style does: train weights for --style adain, for whoever has none."""

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from generators.styles import SIDE
from generators.styles.adain import (
    VGG19,
    AdaIN,
    build_decoder,
    build_encoder,
    fast_bfloat16,
    widths_of,
)
from generators.styles.adain_training import CopyTask, Crops, Networks, StyleTask, initialise
from generators.styles.adain_weights import OWN, load_vgg
from pipelines.command import cli
from pipelines.command.devices import device_of, out_of_memory_says
from pipelines.command.messages import LOG
from pipelines.command.stopping import STATUS, STEP, stopping
from pipelines.training.parts import run_part
from pipelines.training.run_folder import check_folder, describe
from pipelines.training.style_config import TrainStyleConfig
from segswap import geometry
from segswap.batches.processes import lost_loader_says
from segswap.files.folders import image_files
from segswap.files.hashes import file_hash
from segswap.files.images import ImageError, encode_jpeg, read_image, read_size
from segswap.files.locks import locked
from segswap.files.storage import write_atomically
from segswap.files.stores import no_room_says
from segswap.training.checkpoints import STATE
from segswap.training.schedule import Execution, Schedule
from segswap.training.trainer import Trainer

SAMPLES = "samples.jpg"
ENCODER = "encoder"  # folder in a run's: the part of the training in which the encoder learns
# Steps of rising learning rate: large ones at the start tear the colours' way through apart.
_WARM_UP = 100
_LOG_EVERY = 10
_GO_ON = "--resume goes on from the last checkpoint"
# What may differ when a run is resumed: where it runs, not what it computes.
_MACHINE = ("out", "resume", "workers", "device", "every")
_DATA = ("images", "styles", "vgg")  # may be moved


def train_style(config: TrainStyleConfig) -> int:
    """Train, or go on training.

    Returns:
        The exit status: 0, or 130 after an interrupt; then there is a checkpoint to resume from.

    Raises:
        ValueError: a folder, the weights or the configuration cannot be used.
        RuntimeError: a loss is not finite, images cannot be read, or the device's memory too small.
    """
    with locked(config.out):
        return _train_style(config)


def _train_style(config: TrainStyleConfig) -> int:
    """See `train_style`; no other command is at work in the folder."""
    out = Path(config.out)
    photographs, styles = (_usable(Path(folder)) for folder in (config.images, config.styles))
    networks = Networks(*_new_networks(config))
    identity = _identity(config, len(photographs), len(styles))
    check_folder(config.out, config.resume, identity)
    device = device_of(config.device)
    networks.to(device)
    crops = Crops(photographs, styles, config.crop, config.seed, config.workers)
    describe(config.out, identity, device)
    copied = 0 if config.vgg else config.encoder_steps
    with (
        stopping() as signals, signals.in_order(STEP) as asked,
        out_of_memory_says("lower --batch or --crop"),
        lost_loader_says(_GO_ON), no_room_says(config.out, f"make room; {_GO_ON}"),
    ):  # fmt: skip
        if copied:
            first = Trainer(
                CopyTask(networks, crops), _schedule(config, copied, "constant"), out / ENCODER,
                _execution(device), asked,
            )  # fmt: skip
            if not run_part(first, ENCODER, OWN, config.resume):
                return STATUS
        task = StyleTask(networks, crops, config.style_weight, copied)
        trainer = Trainer(
            task, _schedule(config, config.steps, "poly"), out, _execution(device), asked
        )
        # The encoder may have been all that the run has come to.
        if not run_part(
            trainer, "decoder", OWN, config.resume and (not copied or (out / STATE).exists())
        ):
            return STATUS
    write_atomically(out / SAMPLES, _samples(networks, photographs, styles))
    losses = [row["style"] for row in trainer.history.rows]
    print(f"{out / OWN}: style loss {losses[0]:.3g} at first, {losses[-1]:.3g} at last; see "
          f"{SAMPLES}")  # fmt: skip
    return 0


def _schedule(config: TrainStyleConfig, steps: int, decay: str) -> Schedule:
    return Schedule(
        steps=steps, batch=config.batch, accumulate=1, lr=config.lr,
        warmup=min(_WARM_UP, steps // 2), decay=decay, every=config.every,
        log_every=_LOG_EVERY, ema=0.0, clip=math.inf,
    )  # fmt: skip


def _execution(device: torch.device) -> Execution:
    return Execution("bf16" if fast_bfloat16(device) else "fp32")


def _new_networks(config: TrainStyleConfig) -> tuple[nn.Sequential, nn.Sequential]:
    shares = (round(width * config.width) for width in VGG19)
    a, b, c, d = (max(8, width) for width in shares)
    widths = widths_of(load_vgg(config.vgg)) if config.vgg else (a, b, c, d)
    encoder, decoder = build_encoder(widths), build_decoder(widths)
    initialise(encoder, decoder, config.seed)
    return load_vgg(config.vgg) if config.vgg else encoder, decoder


def _samples(networks: Networks, photographs: list[Path], styles: list[Path]) -> bytes:
    """A picture to look at, JPEG: style pictures on top, photographs on the left, and below and
    right of them the photographs restyled at full strength.
    """
    device = str(next(networks.parameters()).device)
    network = AdaIN(copy.deepcopy(networks.encoder), copy.deepcopy(networks.decoder), device)
    pictures, shown = (_readable(_evenly(paths, 5)) for paths in (styles, photographs))
    statistics = [network.statistics(picture) for picture in pictures]
    tiles = [[np.full((SIDE, SIDE, 3), 255, np.uint8), *pictures]]
    for photograph in shown:
        copies = [photograph] * len(pictures)
        tiles.append([photograph, *network.restyle(copies, statistics, [1.0] * len(pictures))])
    side = SIDE // 2
    return encode_jpeg(
        np.vstack([np.hstack([geometry.resize(t, side, side) for t in line]) for line in tiles]), 90
    )


def _evenly(paths: list[Path], most: int) -> list[Path]:
    """At most so many of the paths, evenly spread."""
    return [paths[i] for i in np.unique(np.linspace(0, len(paths) - 1, most).astype(int))]


def _readable(paths: list[Path]) -> list[np.ndarray]:
    """Those of the images that can be read; the others are named."""
    images = []
    for path in paths:
        try:
            images.append(read_image(path))
        except ImageError as error:
            LOG.warning("not in %s: %s", SAMPLES, error)
    return images


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
        LOG.warning("left out: %s", text)
    return usable


def _identity(config: TrainStyleConfig, photographs: int, styles: int) -> dict[str, Any]:
    """What must be the same for a run to be resumed; see `check_folder`."""
    kept = {k: v for k, v in cli.as_dict(config).items() if k not in (*_DATA, *_MACHINE)}
    vgg = file_hash(config.vgg) if config.vgg else ""
    return {"config": kept, "datasets": {"images": photographs, "styles": styles, "vgg": vgg}}
