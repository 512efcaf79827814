"""segswap-train: train a matcher on datasets of pairs."""

import json
import platform
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
import yaml
from torch.utils.tensorboard import SummaryWriter

from pipelines import cli
from pipelines.curves import draw_curves
from pipelines.devices import device_of
from pipelines.progress import Progress
from segswap.checkpoints import STATE
from segswap.matchers import CorrelationMatcher, Matcher, TransformerMatcher
from segswap.model import Model
from segswap.shards import MANIFEST, datasets_with, file_hash
from segswap.storage import write_atomically
from segswap.training import Data, Schedule, Trainer

RUN = "run.json"
# What may differ when a run is resumed: where it runs and what it costs, not what it computes.
_MACHINE = ("resume", "workers", "device")


@dataclass(frozen=True)
class TrainConfig:
    """Train a matcher on pairs that segswap-generate made.

    Interrupted (Ctrl-C), it leaves a checkpoint; --resume goes on from there.
    """

    data: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PAIRS [PAIRS ...]")
    ]
    """Datasets; their train splits are learned from, their val splits scored on."""
    out: str
    """Folder of the run: model, checkpoint, history, curves."""
    matcher: Literal["correlation", "transformer"] = "correlation"
    """correlation needs no pretrained weights; transformer is the published network."""
    model_size: Literal["tiny", "small", "base", "large"] = "small"
    """Size of the transformer."""
    backbone: str = "resnet50"
    """The transformer's backbone: any timm model with features of stride 16."""
    backbone_weights: str | None = None
    """Weights of the backbone: a file, or timm for timm's own."""
    freeze_backbone: bool = True
    """Keep the backbone as it is."""
    steps: int = 2000
    """Optimiser steps."""
    batch: int = 4
    """Pairs a step."""
    negatives: int = 1
    """Pairs that share nothing, for every pair; at most --batch less one."""
    lr: float | None = None
    """Highest learning rate; by default the matcher's own."""
    warmup: int | None = None
    """Steps of linear warm-up; by default a tenth of --steps, at most 1000."""
    size: int | None = None
    """Side of the images in training, pixels; by default the matcher's own."""
    match_size: int | None = None
    """Side at which the trained model matches; by default the matcher's own. More finds smaller
    things and takes longer."""
    loss_mask: float = 1.0
    """Weight of the mask loss; 0 switches it off."""
    loss_transfer: float = 1.0
    """Weight of the transferred-mask loss."""
    loss_corr: float = 1.0
    """Weight of the correspondence losses: positions, and the correlation where there is one."""
    every: int = 250
    """Steps between checkpoints and scores on the val split."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto is bf16 on a GPU and fp32 on a CPU."""
    workers: int = 1
    """Processes that load and augment."""
    seed: int = 0
    """Seeds weights, order, augmentation and dropout."""
    resume: bool = False
    """Go on with the run in --out."""

    def __post_init__(self) -> None:
        for name, least in {
            "steps": 1, "batch": 1, "negatives": 0, "every": 1, "workers": 0, "seed": 0
        }.items():  # fmt: skip
            if getattr(self, name) < least:
                raise ValueError(f"--{name} is {getattr(self, name)}; expected at least {least}")
        for name in ("loss_mask", "loss_transfer", "loss_corr"):
            if getattr(self, name) < 0:
                flag = name.replace("_", "-")
                raise ValueError(f"--{flag} is {getattr(self, name)}; expected 0 or more")
        if not self.loss_mask + self.loss_transfer + self.loss_corr:
            raise ValueError("all losses are switched off: nothing to learn")
        if self.lr is not None and not self.lr > 0:
            raise ValueError(f"--lr is {self.lr}; expected a positive number")
        if self.matcher == "transformer" and self.freeze_backbone and not self.backbone_weights:
            raise ValueError(
                "a frozen backbone without weights has nothing to tell; give --backbone-weights, "
                "or train it with --no-freeze-backbone"
            )


def main() -> None:
    """Entry point of segswap-train."""
    cli.run(TrainConfig, train)


def train(config: TrainConfig) -> int:
    """Train, or go on training.

    Returns:
        The exit status: 0, or 130 after an interrupt; then there is a checkpoint to resume from.

    Raises:
        ValueError: a dataset, the run's folder or the configuration cannot be used.
        RuntimeError: the loss or its gradient is not finite, or the device's memory too small.
    """
    out = Path(config.out)
    identity = _identity(config)
    _check_folder(config, out, identity)
    torch.manual_seed(config.seed)
    device = device_of(config.device)
    model = _new_model(config, device)
    warmup = config.warmup if config.warmup is not None else min(1000, config.steps // 10)
    schedule = Schedule(
        steps=config.steps, batch=config.batch, negatives=config.negatives,
        lr=config.lr or model.matcher.lr, warmup=warmup,
        weights={
            "mask": config.loss_mask, "transfer": config.loss_transfer, "corr": config.loss_corr,
            "correlation": config.loss_corr,
        },
        every=config.every, log_every=min(25, config.every), seed=config.seed,
    )  # fmt: skip
    data = Data(config.data, config.size or model.matcher.size, config.workers)
    trainer = Trainer(model, schedule, data, out, _autocast(config.precision, device))
    if config.resume:
        trainer.resume()
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(
        out / RUN, json.dumps(identity | {"environment": _environment()}, indent=1).encode()
    )
    write_atomically(out / "config.yaml", yaml.safe_dump(_settings(config)).encode())
    return _run(trainer, out)


def _run(trainer: Trainer, out: Path) -> int:
    def stop(*_: Any) -> None:
        trainer.stop = True

    handlers = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    progress = Progress("steps", trainer.schedule.steps, "steps", trainer.step)
    writer = SummaryWriter(str(out / "tensorboard"), purge_step=trainer.step)
    before = trainer.step

    def report(_: Trainer, row: dict[str, Any]) -> None:
        nonlocal before
        note = f"loss {row['loss']:.3f}, {row['pairs_per_second']:.1f} pairs/s"
        if "val_mask_iou" in row:
            note += f", val mask IoU {row['val_mask_iou']:.3f}, PCK@5% {row['val_pck_5']:.3f}"
        progress.add(row["step"] - before, note)
        before = row["step"]
        for name, value in row.items():
            if name != "step":
                writer.add_scalar(name.replace("val_", "val/"), value, row["step"])

    try:
        finished = trainer.run(report)
    except torch.OutOfMemoryError as error:
        raise RuntimeError(
            f"out of memory: lower --batch, --negatives or --size ({error})"
        ) from error
    finally:
        progress.close()
        writer.close()
        for number, handler in handlers.items():
            signal.signal(number, handler)
    draw_curves(trainer.history, out / "curves.png")
    if not finished:
        print(f"stopped at step {trainer.step}; --resume goes on from there")
        return 130
    print(f"{out}: {trainer.step} steps" + _best(trainer.history))
    return 0


def _best(history: list[dict[str, Any]]) -> str:
    scored = [row for row in history if "val_mask_iou" in row]
    if not scored:
        return ""
    best = max(scored, key=lambda row: row["val_mask_iou"] + row["val_pck_5"])
    return (
        f"; best at step {best['step']}: val mask IoU {best['val_mask_iou']:.3f}, "
        f"PCK@5% {best['val_pck_5']:.3f}"
    )


def _new_model(config: TrainConfig, device: torch.device) -> Model:
    matcher: Matcher
    # The backbone's own weights file is not needed again: all weights are saved with the model.
    options: dict[str, Any] = {}
    if config.matcher == "correlation":
        matcher = CorrelationMatcher()
    else:
        options = {
            "model_size": config.model_size,
            "backbone": config.backbone,
            "freeze_backbone": config.freeze_backbone,
        }
        matcher = TransformerMatcher(**options, backbone_weights=config.backbone_weights)
    match_size = config.match_size or matcher.match_size
    for flag, size in (("--size", config.size or matcher.size), ("--match-size", match_size)):
        if size < 4 * matcher.stride or size % matcher.stride:
            raise ValueError(
                f"{flag} is {size}; expected a multiple of the matcher's stride {matcher.stride}, "
                f"at least {4 * matcher.stride}"
            )
    settings = {"matcher": config.matcher, "options": options, "size": match_size}
    return Model(matcher.to(device), settings)


def _autocast(precision: str, device: torch.device) -> Callable[[], AbstractContextManager[Any]]:
    if precision == "bf16" or (precision == "auto" and device.type == "cuda"):
        return partial(torch.autocast, device.type, torch.bfloat16)
    return nullcontext


# --- the run's folder ------------------------------------------------------------------------


def _settings(config: TrainConfig) -> dict[str, Any]:
    return {k: v for k, v in cli.as_dict(config).items() if k not in ("data", "out", *_MACHINE)}


def _identity(config: TrainConfig) -> dict[str, Any]:
    """What a run is: its settings, and the datasets by the hash of their manifests."""
    datasets_with(config.data, "train")
    datasets = {dataset: file_hash(Path(dataset) / MANIFEST) for dataset in config.data}
    return {"config": _settings(config), "datasets": datasets}


def _check_folder(config: TrainConfig, out: Path, identity: dict[str, Any]) -> None:
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file; expected a folder for the run")
    if not config.resume:
        begun = (out / RUN).exists() and not (out / STATE).exists()  # killed before a checkpoint
        if out.is_dir() and any(out.iterdir()) and not begun:
            has = "a run; --resume goes on with it," if (out / STATE).exists() else "other files;"
            raise ValueError(f"--out {out} holds {has} or choose another folder")
        return
    if not (out / RUN).is_file():
        raise ValueError(f"--out {out} holds no run to resume")
    before = json.loads((out / RUN).read_text())
    # By content, so that datasets may be moved; their order decides on the order of the pairs.
    old = before["config"] | {"datasets": list(before["datasets"].values())}
    new = identity["config"] | {"datasets": list(identity["datasets"].values())}
    changed = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    if changed:
        differences = "; ".join(f"{k} was {old.get(k)!r}, is {new.get(k)!r}" for k in changed)
        raise ValueError(f"{out} holds a run of another configuration: {differences}")


def _environment() -> dict[str, str]:
    return {
        "segswap": version("segswap"), "torch": torch.__version__,
        "python": platform.python_version(), "platform": platform.platform(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }  # fmt: skip
