"""What segswap-train does: train a matcher on datasets of pairs, or on pairs made meanwhile."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch

from pipelines.command.devices import device_of, out_of_memory_says
from pipelines.command.messages import LOG
from pipelines.command.stopping import STATUS, STEP, stopping
from pipelines.training.config import TrainConfig
from pipelines.training.curves import draw_curves
from pipelines.training.data import training_data
from pipelines.training.report import RunReport
from pipelines.training.run_folder import check_folder, describe, identity_of
from pipelines.training.trained import TrainedRun
from segswap.batches.processes import lost_loader_says
from segswap.batches.stream import PairSource, Stream
from segswap.files.extras import need_extra
from segswap.files.locks import locked
from segswap.files.stores import no_room_says
from segswap.matchers.base import Matcher
from segswap.matchers.registry import build, build_blank, matcher_class, options_of
from segswap.models.hub import SETTINGS, read_settings
from segswap.models.model import Model, is_model, load
from segswap.training.matching import KIND_SCORES, MatcherTask
from segswap.training.mining import Mining
from segswap.training.schedule import Execution, Schedule
from segswap.training.task import Observer
from segswap.training.trainer import Trainer

_HARD_LR = 1e-5  # of the second stage, as published
_DRAWN = tuple(
    f"val_{name}" for name in ("mask_iou", "pck_1", "pck_3", "pck_5", "false_area", *KIND_SCORES)
)
_GO_ON = "--resume goes on from the last checkpoint"
_LARGEST = 8192  # pixels of a side
_OUT_OF_MEMORY = "lower --batch, --negatives or --size; --accumulate makes up for a smaller --batch"


def train(config: TrainConfig) -> int:
    """Train, or go on training.

    Returns:
        The exit status: 0, or 130 after an interrupt; then there is a checkpoint to resume from.

    Raises:
        ValueError: a dataset, the run's folder or the configuration cannot be used.
        RuntimeError: the loss or its gradient is not finite, or the device's memory too small.
    """
    run = run_training(config)
    print(run)
    return 0 if run.finished else STATUS


def run_training(config: TrainConfig) -> TrainedRun:
    """Train, or go on training; raises what `train` does, and MissingExtraError where --live makes
    pairs without what that needs.
    """
    if config.live:
        need_extra("--live", "generate")
    with locked(config.out):
        instead = f", from these weights by --init {config.out}"
        check_folder(config.out, config.resume, identity_of(config), instead)
        if config.num_gpus == 1:
            return train_rank(config, 0, 1)
        from pipelines.training.distributed import train_on_devices

        runs = train_on_devices(
            train_rank, config, config.num_gpus, cpu=config.device == "cpu", address=config.address
        )
        return runs[0]


def train_rank(config: TrainConfig, rank: int, ranks: int) -> TrainedRun:
    """The part of one process in a training; rank 0 alone writes and says anything.

    Args:
        config: the same in all processes.
        rank, ranks: of this process in torch.distributed's group; 0 and 1 where there is none.
    """
    torch.manual_seed(config.seed)
    device = device_of(config.device)
    model = _model(config, device)
    matcher = model.matcher
    size = matcher.size if config.size is None else config.size
    _check_sizes(size, model.settings["size"], matcher)
    execution = Execution(_precision(config, device), config.compile, rank, ranks)
    with (
        training_data(config, size, matcher, rank, ranks) as data,
        # Not before Ray is up, which sets handlers of its own.
        _stopping(ranks) as asked,
    ):
        _check_truth(config, matcher, data.stream)
        mining = None
        if config.hard_negatives:
            mining = Mining(
                cast(PairSource, data.stream), size=size, pool=config.pool, batch=config.batch,
                accumulate=config.accumulate, seed=config.seed,
            )  # fmt: skip
        task = MatcherTask(
            model, data.stream, data.val, weights=config.weights, negatives=config.negatives,
            mining=mining, val_kinds=data.val_kinds,
        )  # fmt: skip
        trainer = Trainer(task, _schedule(config, matcher), Path(config.out), execution, asked)
        torch.manual_seed(config.seed + rank)
        if config.resume:
            trainer.resume(kept=is_model(config.out))
        if rank == 0:
            describe(config.out, identity_of(config), device, config.num_gpus)
        with (
            _compiling_says_what_it_needs(), out_of_memory_says(_OUT_OF_MEMORY),
            lost_loader_says(_GO_ON), no_room_says(config.out, f"make room; {_GO_ON}"),
        ):  # fmt: skip
            finished = _run(trainer, task) if rank == 0 else trainer.run(Observer())
    return TrainedRun(trainer.out, trainer.step, finished)


def _run(trainer: Trainer, task: MatcherTask) -> bool:
    """Train, and show how it goes; returns whether there is nothing left to do."""
    report = RunReport(trainer, task)
    try:
        finished = trainer.run(report)
    finally:
        report.close()
    curves: dict[str, Sequence[str]] = {"loss": task.terms, "val scores": _DRAWN}
    draw_curves(trainer.history.rows, curves, trainer.out / "curves.png")
    if finished and trainer.step < trainer.schedule.steps:
        LOG.info("no hard negatives are left: ended at step %d", trainer.step)
    return finished


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
        from pipelines.training.distributed import stop_asked

        yield stop_asked
        return
    with stopping() as signals, signals.in_order(STEP) as asked:
        yield asked


# --- model and data --------------------------------------------------------------------------


def _model(config: TrainConfig, device: torch.device) -> Model:
    """The model to start from: new, the one of --init, or the one that is resumed."""
    if config.resume and (Path(config.out) / SETTINGS).is_file():
        # Its weights are in the checkpoint.
        settings = read_settings(Path(config.out))
        matcher = build_blank(settings["matcher"], settings["options"])
        model = Model(matcher, {key: settings[key] for key in ("matcher", "options", "size")})
    elif config.init:
        model = _initial(config, config.init)
    else:
        name = config.matcher_name
        own = matcher_class(name)
        defaults = {key: option.default for key, option in options_of(name).items()}
        options = defaults | config.given_options
        matcher = build(name, **options)
        kept = {key: value for key, value in options.items() if key not in own.not_saved}
        settings = {"matcher": name, "options": kept, "size": matcher.match_size}
        model = Model(matcher, settings)
    settings = dict(model.settings)
    if config.match_size is not None:
        settings["size"] = config.match_size
    return Model(model.matcher.to(device), settings)


def _initial(config: TrainConfig, init: str) -> Model:
    """The model of --init, its switches as the flags say: whether a backbone is frozen, say."""
    model = load(init)
    settings, options = model.settings, dict(model.settings["options"])
    defaults = {key: option.default for key, option in options_of(settings["matcher"]).items()}
    for name, given in config.given_options.items():
        known = options.get(name, defaults[name])
        if isinstance(given, bool):
            options[name] = given
        elif given != known:
            flag = "--" + name.replace("_", "-")
            raise ValueError(
                f"{flag} is {given}, but the model of --init {init} has {known}; leave out "
                f"{flag}, or choose another model"
            )
    if options == settings["options"]:
        return model
    matcher = build_blank(settings["matcher"], options)
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


def _precision(config: TrainConfig, device: torch.device) -> Literal["fp32", "bf16", "fp16"]:
    if config.precision != "auto":
        return config.precision
    if device.type != "cuda":
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def _check_truth(config: TrainConfig, matcher: Matcher, stream: Stream) -> None:
    """Refuse data that tell nothing that a loss needs; say which losses they leave out.

    Raises:
        ValueError: there is no loss left, or one is left out to which a weight was given.
    """
    needed = [term for term in matcher.terms if config.weights[term.name]]
    absent = [term for term in needed if not term.needs <= stream.truth]
    for term in absent:
        if len(absent) == len(needed) or config.weights[term.name] != term.weight:
            raise ValueError(
                f"--loss-{term.name} needs {' and '.join(sorted(term.needs - stream.truth))}, "
                f"which these data do not have; they have {', '.join(sorted(stream.truth))}"
            )
    for term in needed:
        if term.contrast:
            _check_contrast(config, term.name)


def _check_contrast(config: TrainConfig, term: str) -> None:
    """Refuse data, or batches, without pairs that share no kind.

    Raises:
        ValueError: there are none.
    """
    flag = f"--loss-{term}"
    if config.batch < 2 or config.negatives < 1:
        raise ValueError(
            f"{flag} compares pairs that match with pairs that do not, but --batch is "
            f"{config.batch} and --negatives {config.negatives}; expected 2 or more and 1 or more, "
            f"or {flag} 0"
        )
    kinds, foregrounds = config.taught
    shown = {
        kind
        for pictures in kinds
        for picture in pictures.pictures
        for kind in np.flatnonzero(picture.labels == 1).tolist()
    }
    # Generated pairs, and warped pictures, are compared with those of another photograph.
    if not (config.live or config.learned or foregrounds) and len(shown) < 2:
        (name,) = (kinds[0].kinds[kind] for kind in shown)
        raise ValueError(
            f"{' '.join(pictures.source for pictures in kinds)}: all pictures show {name}, but "
            f"{flag} compares pictures of one kind with pictures of two; add a folder of another "
            f"kind, or PAIRS, or give {flag} 0"
        )
