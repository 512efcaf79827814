"""segswap-train: train a matcher on datasets of pairs, or on pairs made meanwhile."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch

from pipelines.command import cli
from pipelines.command.devices import device_of, out_of_memory_says
from pipelines.command.stopping import noted_signals
from pipelines.train.config import TrainConfig
from pipelines.train.curves import draw_curves
from pipelines.train.report import RunReport, best_of
from pipelines.train.run_folder import check_folder, describe, identity_of
from segswap.batches.stream import PairStream, Stream
from segswap.data.pair import Pair
from segswap.data.shards import DatasetError, datasets_with
from segswap.matchers import Matcher, build
from segswap.models.model import Model, load
from segswap.training.matching import MatcherTask
from segswap.training.mining import Mining
from segswap.training.schedule import Execution, Schedule
from segswap.training.task import Observer
from segswap.training.trainer import Trainer

_VAL_PAIRS = 32
_HARD_LR = 1e-5  # of the second stage, as published
_DRAWN = tuple(f"val_{name}" for name in ("mask_iou", "pck_1", "pck_3", "pck_5", "false_area"))
_LARGEST = 8192  # pixels of a side
_OUT_OF_MEMORY = "lower --batch, --negatives or --size; --accumulate makes up for a smaller --batch"


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
    check_folder(config.out, config.resume, identity_of(config))
    if config.num_gpus == 1:
        return train_rank(config, 0, 1)
    from pipelines.train.distributed import train_on_devices

    return train_on_devices(
        train_rank, config, config.num_gpus, cpu=config.device == "cpu", address=config.address
    )


def train_rank(config: TrainConfig, rank: int, ranks: int) -> int:
    """The part of one process in a training; rank 0 alone writes and says anything.

    Args:
        config: the same in all processes.
        rank, ranks: of this process in torch.distributed's group; 0 and 1 where there is none.

    Returns:
        The exit status, as `train`.
    """
    torch.manual_seed(config.seed)
    device = device_of(config.device)
    model = _model(config, device)
    matcher = model.matcher
    size = matcher.size if config.size is None else config.size
    _check_sizes(size, model.settings["size"], matcher)
    execution = Execution(_precision(config, device), config.compile, rank, ranks)
    with (
        _data(config, size, matcher.stride, rank, ranks) as (stream, val),
        # Not before Ray is up, which sets handlers of its own.
        _stopping(ranks) as asked,
    ):
        mining = None
        if config.hard_negatives:
            mining = Mining(
                stream, size=size, pool=config.pool, batch=config.batch,
                accumulate=config.accumulate, seed=config.seed,
            )  # fmt: skip
        task = MatcherTask(
            model, stream, val, weights=_weights(config), negatives=config.negatives, mining=mining
        )  # fmt: skip
        trainer = Trainer(task, _schedule(config, matcher), Path(config.out), execution, asked)
        torch.manual_seed(config.seed + rank)
        if config.resume:
            trainer.resume()
        if rank == 0:
            describe(config.out, identity_of(config), device, config.num_gpus)
        with _compiling_says_what_it_needs(), out_of_memory_says(_OUT_OF_MEMORY):
            return _run(trainer, task) if rank == 0 else _follow(trainer)


def _run(trainer: Trainer, task: MatcherTask) -> int:
    """Train, and say what came of it."""
    out, rows = trainer.out, trainer.history.rows
    report = RunReport(trainer, task)
    try:
        finished = trainer.run(report)
    finally:
        report.close()
    draw_curves(rows, {"loss": task.terms, "val scores": _DRAWN}, out / "curves.png")
    if not finished:
        print(f"stopped at step {trainer.step}; --resume goes on from there")
        return 130
    if trainer.step < trainer.schedule.steps:
        print(f"no hard negatives are left: ended at step {trainer.step}")
    print(f"{out}: {trainer.step} steps" + best_of(rows, task))
    return 0


def _follow(trainer: Trainer) -> int:
    return 0 if trainer.run(Observer()) else 130


@contextmanager
def _compiling_says_what_it_needs() -> Iterator[None]:
    """What torch.compile raises, in one line with what to do about it."""
    try:
        yield
    except RuntimeError as error:
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        said = str(error).partition("\n")[0]
        raise RuntimeError(
            f"--compile failed: {said}; it needs a C++ compiler (g++) for the CPU, Triton for a "
            "GPU; or leave it out"
        ) from error


@contextmanager
def _stopping(ranks: int) -> Iterator[Callable[[], bool]]:
    """While it is entered, its value says whether the user wants the run to end.

    Signals say so to a single process; to one of several, the process that began them.
    """
    if ranks > 1:
        from pipelines.train.distributed import stop_asked

        yield stop_asked
        return
    with noted_signals() as asked:
        yield asked


# --- model and data --------------------------------------------------------------------------


def _model(config: TrainConfig, device: torch.device) -> Model:
    """The model to start from: new, the one of --init, or the one that is resumed."""
    if config.resume:
        model = load(config.out)
    elif config.init:
        model = _initial(config, config.init)
    else:
        options: dict[str, Any] = {}
        own: dict[str, Any] = {}
        if config.matcher == "transformer":
            options = {
                "model_size": config.model_size or "small",
                "backbone": config.backbone or "resnet50",
                "freeze_backbone": config.freeze_backbone,
            }
            # Not needed again, and so no option: all weights are saved with the model.
            own = {"backbone_weights": config.backbone_weights}
        name = config.matcher or "correlation"
        matcher = build(name, **options, **own)
        settings = {"matcher": name, "options": options, "size": matcher.match_size}
        model = Model(matcher, settings)
    settings = dict(model.settings)
    if config.match_size is not None:
        settings["size"] = config.match_size
    return Model(model.matcher.to(device), settings)


def _initial(config: TrainConfig, init: str) -> Model:
    """The model of --init, its backbone frozen or not as the flags say."""
    model = load(init)
    settings = model.settings
    known = {"matcher": settings["matcher"], **settings["options"]}
    for name in ("matcher", "model_size", "backbone"):
        given = getattr(config, name)
        if given is not None and given != known.get(name):
            flag = "--" + name.replace("_", "-")
            raise ValueError(
                f"{flag} is {given}, but the model of --init {init} has {known.get(name, 'none')}; "
                f"leave out {flag}, or choose another model"
            )
    if known.get("freeze_backbone", config.freeze_backbone) == config.freeze_backbone:
        return model
    options = {**settings["options"], "freeze_backbone": config.freeze_backbone}
    matcher = build(settings["matcher"], **options)
    matcher.load_state_dict(model.matcher.state_dict())
    return Model(matcher, {**settings, "options": options})


def _check_sizes(size: int, match_size: int, matcher: Matcher) -> None:
    least = 4 * matcher.stride
    for flag, value in (("--size", size), ("--match-size", match_size)):
        if not least <= value <= _LARGEST or value % matcher.stride:
            raise ValueError(
                f"{flag} is {value}; expected a multiple of the matcher's stride "
                f"{matcher.stride}, from {least} to {_LARGEST}"
            )


def _schedule(config: TrainConfig, matcher: Matcher) -> Schedule:
    warmup = config.warmup if config.warmup is not None else min(1000, config.steps // 10)
    return Schedule(
        steps=config.steps, batch=config.batch, accumulate=config.accumulate,
        lr=config.lr or (_HARD_LR if config.hard_negatives else matcher.lr),
        warmup=warmup, decay=config.schedule, every=config.every, log_every=min(25, config.every),
        optimiser=config.optimiser, weight_decay=config.weight_decay, ema=config.ema,
    )  # fmt: skip


def _weights(config: TrainConfig) -> dict[str, float]:
    """Of the loss's terms."""
    return {
        "mask": config.loss_mask, "transfer": config.loss_transfer, "corr": config.loss_corr,
        "correlation": config.loss_corr,
    }  # fmt: skip


def _precision(config: TrainConfig, device: torch.device) -> Literal["fp32", "bf16", "fp16"]:
    if config.precision != "auto":
        return config.precision
    if device.type != "cuda":
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


@contextmanager
def _data(
    config: TrainConfig, size: int, stride: int, rank: int, ranks: int
) -> Iterator[tuple[Stream, list[Pair]]]:
    """The training data, and for rank 0 pairs to score on."""
    if config.live:
        from pipelines.train.live import live_stream

        with live_stream(
            config.inputs, config.composition, config.styling, size=size, stride=stride,
            seed=config.seed, workers=max(1, config.workers // ranks), address=config.address,
        ) as live:  # fmt: skip
            yield live, live.val_pairs(_VAL_PAIRS) if rank == 0 else []
        return
    stream = PairStream(
        config.data, "train", size=size, stride=stride, seed=config.seed, workers=config.workers,
        weights=config.mixture or None, skip_bad=config.skip_bad,
    )  # fmt: skip
    yield stream, _val_pairs(config, size, stride) if rank == 0 else []


def _val_pairs(config: TrainConfig, size: int, stride: int) -> list[Pair]:
    """The first val pairs of all datasets that have any, about as many of each."""
    try:
        found = datasets_with(config.data, "val")
    except DatasetError:
        return []
    pairs = []
    for path in found:
        stream = PairStream(
            (path,), "val", size=size, stride=stride, augment=False, skip_bad=config.skip_bad
        )
        count = min(len(stream), -(-_VAL_PAIRS // len(found)))
        pairs += [stream.pair(number) for number in range(count)]
    return pairs[:_VAL_PAIRS]
