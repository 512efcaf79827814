"""What segswap-train-proposer does: weights of a network that proposes segments."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from generators.networks.ldf.network import build_ldf
from generators.networks.ldf.predictor import Predictor
from generators.networks.ldf.samples import Masked, MaskedPictures
from generators.networks.ldf.task import LDFTask
from generators.networks.trained import FILE
from generators.styles.adain import fast_bfloat16
from pipelines.command import cli
from pipelines.command.devices import device_of, out_of_memory_says
from pipelines.command.messages import LOG
from pipelines.command.progress import Progress
from pipelines.command.stopping import STATUS, STEP, stopping
from pipelines.training.parts import run_part
from pipelines.training.proposer_config import TrainProposerConfig
from pipelines.training.run_folder import check_folder, describe
from segswap.batches.processes import lost_loader_says
from segswap.files.folders import image_files
from segswap.files.hashes import file_hash
from segswap.files.images import ImageError, encode_png
from segswap.files.locks import locked
from segswap.files.storage import local_path, write_atomically
from segswap.files.stores import no_room_says
from segswap.training.checkpoints import STATE
from segswap.training.schedule import Execution, Schedule
from segswap.training.trainer import Trainer

COARSE = "coarse"  # folder in a run's: the first of two rounds
PREDICTED = "labels"  # folder in that one: the labels that the second round learns
_WARM_UP = 100
_LOG_EVERY = 20
# What may differ when a run is resumed: where it runs, not what it computes.
_MACHINE = ("out", "resume", "workers", "device", "every")
_DATA = ("images", "masks", "backbone_weights")  # may be moved
_GO_ON = "--resume goes on from the last checkpoint"


def train_proposer(config: TrainProposerConfig) -> int:
    """Train, or go on training.

    Returns:
        The exit status: 0, or 130 after an interrupt; then there is a checkpoint to resume from.

    Raises:
        ValueError: a folder, the weights or the configuration cannot be used.
        RuntimeError: a loss is not finite, or the device's memory too small.
    """
    with locked(config.out):
        return _train_proposer(config)


def _train_proposer(config: TrainProposerConfig) -> int:
    """See `train_proposer`; no other command is at work in the folder."""
    out = Path(config.out)
    pictures, left_out = _usable(config)
    identity = _identity(config, len(pictures))
    check_folder(config.out, config.resume, identity)
    device = device_of(config.device)
    describe(config.out, identity, device)
    twice = config.rounds == 2 and config.decouple
    with (
        stopping() as signals, signals.in_order(STEP) as asked,
        out_of_memory_says("lower --batch or --size"),
        lost_loader_says(_GO_ON), no_room_says(config.out, f"make room; {_GO_ON}"),
    ):  # fmt: skip
        if twice:
            if not _round(config, pictures, out / COARSE, COARSE, device, asked):
                return STATUS
            pictures = _with_predicted(pictures, out / COARSE, asked)
            if asked():
                return STATUS
        if not _round(config, pictures, out, "ldf", device, asked):
            return STATUS
    lost = f"; {left_out} pictures were left out" if left_out else ""
    print(f"{out / FILE}: of {len(pictures)} pictures{lost}; --segments {config.out} takes it")
    return 0


def _round(
    config: TrainProposerConfig, pictures: list[Masked], folder: Path, what: str,
    device: torch.device, asked: Callable[[], bool],
) -> bool:  # fmt: skip
    """Train a round from new weights to its end; returns whether that was reached."""
    torch.manual_seed(config.seed)
    network = build_ldf(config.backbone, config.width, weights=config.weights)
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    samples = MaskedPictures(pictures, config.size, config.labels, config.seed, config.workers)
    settings = {"backbone": config.backbone, "width": config.width, "size": config.size}
    schedule = Schedule(
        steps=config.steps, batch=config.batch, accumulate=1, lr=config.lr,
        warmup=min(_WARM_UP, config.steps // 2), decay="cosine", every=config.every,
        log_every=_LOG_EVERY, optimiser="adamw", weight_decay=0.01, ema=0.99, clip=math.inf,
    )  # fmt: skip
    execution = Execution("bf16" if fast_bfloat16(device) else "fp32")
    task = LDFTask(network, samples, settings, config.decouple)
    trainer = Trainer(task, schedule, folder, execution, asked)
    return run_part(trainer, what, FILE, config.resume and (folder / STATE).exists())


def _with_predicted(
    pictures: list[Masked], coarse: Path, asked: Callable[[], bool]
) -> list[Masked]:
    """The pictures with the body and detail that the first round's network predicts; those that
    an earlier run has written stay.
    """
    folder = coarse / PREDICTED
    folder.mkdir(parents=True, exist_ok=True)
    predictor = Predictor.load(coarse)
    square = (predictor.size, predictor.size)
    progress = Progress("labels", len(pictures), "pictures")
    told = []
    for number, picture in enumerate(pictures):
        if asked():
            break
        paths = [folder / f"{number:06}.{part}.png" for part in ("body", "detail")]
        if not all(path.exists() for path in paths):
            maps = predictor.maps([picture.read()[0]], [square])[0]
            for path, values in zip(paths, (maps.body, maps.detail), strict=True):
                write_atomically(path, encode_png((values * 255).round().astype("uint8")))
        told.append(replace(picture, body=paths[0], detail=paths[1]))
        progress.add(1)
    progress.close()
    return told


def _usable(config: TrainProposerConfig) -> tuple[list[Masked], int]:
    """The pictures with their masks, in the order of their names, and how many cannot be used,
    which are named.

    Raises:
        ValueError: a folder is missing, or no picture has a mask.
    """
    images, masks = (Path(local_path(str(folder))) for folder in (config.images, config.masks))
    if not masks.is_dir():
        raise ValueError(f"--masks {config.masks} is not a folder; expected a PNG for each picture")
    names = image_files(images)
    usable, broken = [], []
    progress = Progress("pictures", len(names), "pictures")
    for name in names:
        picture = Masked(images / name, masks / PurePosixPath(name).with_suffix(".png"))
        try:
            picture.read()
            usable.append(picture)
        except ImageError as error:
            broken.append(str(error))
        progress.add(1)
    progress.close()
    if not usable:
        raise ValueError(
            f"none of {config.images}'s {len(names)} pictures can be used: {broken[0]}"
        )
    for text in broken:
        LOG.warning("left out: %s", text)
    return usable, len(broken)


def _identity(config: TrainProposerConfig, pictures: int) -> dict[str, Any]:
    """What must be the same for a run to be resumed; see `check_folder`."""
    kept = {k: v for k, v in cli.as_dict(config).items() if k not in (*_DATA, *_MACHINE)}
    weights = config.weights
    known = weights if weights in (None, "shipped", "pip", "timm") else file_hash(weights)
    return {"config": kept, "datasets": {"pictures": pictures, "weights": known}}
