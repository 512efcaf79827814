"""What segswap-train refuses before it reads anything: settings out of range, or at odds."""

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from pipelines.generation.config import Composition, Inputs, Styling
from segswap.matchers.registry import matcher_class

if TYPE_CHECKING:
    from pipelines.training.config import TrainConfig

POOL = 500
"""Images of which --hard-negatives scores all pairs in turn by default, as published."""
_LEAST = {
    "steps": 1, "batch": 1, "accumulate": 1, "negatives": 0, "warmup": 0, "every": 1, "workers": 0,
    "num_gpus": 1, "seed": 0, "pool": 2,
}  # fmt: skip


def check(config: "TrainConfig") -> None:
    """Refuse settings that no training can have.

    Raises:
        ValueError: one of them is out of range, or does not go with another.
    """
    _check_numbers(config)
    _check_data(config)
    _check_mixture(config)
    _check_losses(config)
    _check_start(config)
    _check_hard_negatives(config)
    _check_devices(config)


def _check_numbers(config: "TrainConfig") -> None:
    for name, least in _LEAST.items():
        value = getattr(config, name)
        if value is not None and value < least:
            raise ValueError(f"{_flag(name)} is {value}; expected at least {least}")
    if not 0 <= config.weight_decay < float("inf"):
        raise ValueError(f"--weight-decay is {config.weight_decay}; expected 0 or more")
    if config.lr is not None and not 0 < config.lr < float("inf"):
        raise ValueError(f"--lr is {config.lr}; expected a positive number")
    if not 0 <= config.ema < 1:
        raise ValueError(f"--ema is {config.ema}; expected at least 0, and below 1")


def _check_data(config: "TrainConfig") -> None:
    made = {"inputs": Inputs(), "composition": Composition(), "styling": Styling()}
    given = [name for group, default in made.items()
             for name in _differing(getattr(config, group), default)]  # fmt: skip
    if config.live:
        if config.data:
            raise ValueError(f"--live makes its pairs; leave out {' '.join(config.data)}")
        if (config.mixture or config.skip_bad) and not config.sources:
            raise ValueError("--mixture and --skip-bad are for datasets, not for --live")
        if not config.workers:
            raise ValueError("--workers is 0; --live needs at least 1, which makes the pairs")
        config.inputs.check_given()
    elif given:
        raise ValueError(f"{', '.join(map(_flag, given))}: only with --live, which makes pairs")
    elif not config.data and not config.sources:
        raise ValueError(
            "there is nothing to train on: give PAIRS, --category-images, --masked-images, or "
            "--live"
        )
    for name in ("category_images", "masked_images"):
        sources = getattr(config, name)
        for source in sources:
            if sources.count(source) > 1:
                raise ValueError(f"{_flag(name)} has {source} twice; expected each once")


def _check_mixture(config: "TrainConfig") -> None:
    if not config.mixture:
        return
    parts = config.generated + len(config.sources)
    if len(config.mixture) != parts:
        raise ValueError(
            f"--mixture has {len(config.mixture)} shares for {parts} datasets; expected one each"
        )
    for share in config.mixture:
        if not 0 <= share < float("inf"):
            raise ValueError(f"--mixture has a share of {share}; expected 0 or more")
    if not any(config.mixture):
        raise ValueError("--mixture is 0 for all: nothing to learn from")
    if config.live and not config.mixture[0]:
        raise ValueError("--mixture is 0 for --live, whose pairs are made to learn from")


def _check_losses(config: "TrainConfig") -> None:
    for name, weight in config.weights.items():
        if not 0 <= weight < float("inf"):
            raise ValueError(f"--loss-{name} is {weight}; expected 0 or more")
    if not any(config.weights.values()):
        raise ValueError("all losses are switched off: nothing to learn")


def _check_start(config: "TrainConfig") -> None:
    own = matcher_class(config.matcher_name)
    if config.init:
        for new in set(own.not_saved) & config.given_options.keys():
            raise ValueError(f"{_flag(new)}: all weights come from --init; leave it out")
    elif not config.resume:
        own.check_new(config.given_options)


def _check_hard_negatives(config: "TrainConfig") -> None:
    if not config.hard_negatives:
        if config.pool != POOL:
            raise ValueError("--pool is for --hard-negatives")
        return
    if not config.init:
        raise ValueError(
            "--hard-negatives is the second stage of a training; give --init, the model of the "
            "first"
        )
    terms = matcher_class(config.matcher_name).terms
    learning = [term.name for term in terms if term.negatives]
    if not any(config.weights[term] for term in learning):
        said = " and ".join(f"--loss-{term}" for term in learning)
        raise ValueError(f"--hard-negatives acts through {said}, which is 0")
    if not (config.live or config.learned):
        raise ValueError("--hard-negatives are sought in PAIRS, not in pictures")
    if config.num_gpus > 1:
        raise ValueError("--hard-negatives works on one device; leave out --num-gpus")


def _check_devices(config: "TrainConfig") -> None:
    if config.num_gpus > 1 and config.device not in ("auto", "cpu", "cuda"):
        raise ValueError(
            f"--device {config.device} is one device; with --num-gpus {config.num_gpus} expected "
            "auto, cuda or cpu"
        )
    if config.address and not config.live and config.num_gpus == 1:
        raise ValueError("--address is for --live and --num-gpus: nothing else uses Ray")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _differing(group: Any, default: Any) -> list[str]:
    names = [item.name for item in fields(group)]
    return [name for name in names if getattr(group, name) != getattr(default, name)]
