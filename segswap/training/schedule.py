"""The numbers of a training run, what they make of its optimiser, and how steps are computed."""

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from timm.utils import ModelEmaV3
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

LAST_SHARE = 0.05  # of the highest learning rate, at the end
_POWER = 0.9


@dataclass(frozen=True)
class Schedule:
    """Numbers of a training run.

    Attributes:
        steps: optimiser steps in all.
        batch: samples of a batch, on each device.
        accumulate: batches of a step, whose gradients are averaged.
        lr: highest learning rate; reached after `warmup` steps.
        warmup: steps of linear warm-up.
        decay: how the rate falls, by name in DECAYS.
        every: steps between checkpoints, each with scores.
        log_every: steps between rows of the history.
        optimiser: by name in OPTIMISERS.
        weight_decay: of the optimiser: L2 regularisation, with adamw decoupled from the gradient.
        ema: highest decay of the weights' moving average, below 1; 0 is the weights themselves.
        clip: length to which a longer gradient is cut.
    """

    steps: int
    batch: int
    accumulate: int
    lr: float
    warmup: int
    decay: str
    every: int
    log_every: int
    optimiser: str = "adam"
    weight_decay: float = 0.0
    ema: float = 0.999
    clip: float = 1.0

    def share(self, step: int) -> float:
        """The learning rate of a step, from 0, as a share of the highest."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        return DECAYS[self.decay](step, self.warmup, self.steps)

    def new_optimiser(
        self, parameters: Sequence[nn.Parameter], rates: Iterable[float] = ()
    ) -> torch.optim.Optimizer:
        """An optimiser of parameters.

        Args:
            parameters: what it changes.
            rates: how many times the learning rate each has; by default once.
        """
        groups: dict[float, list[nn.Parameter]] = {}
        for parameter, rate in zip(parameters, rates or [1.0] * len(parameters), strict=True):
            groups.setdefault(rate, []).append(parameter)
        told = [{"params": own, "lr": self.lr * rate} for rate, own in groups.items()]
        return OPTIMISERS[self.optimiser](told, lr=self.lr, weight_decay=self.weight_decay)

    def new_rates(self, optimiser: torch.optim.Optimizer) -> LambdaLR:
        """What sets an optimiser's learning rates, to be told of each step."""
        rates = LambdaLR(optimiser, self.share)
        # A step without gradients changes nothing. Without it, torch would warn that rates are set
        # before any step where fp16 passes over the first one.
        optimiser.zero_grad()
        optimiser.step()
        return rates

    def new_average(self, network: nn.Module) -> ModelEmaV3:
        """A copy of a network that follows its parameters, and has its buffers.

        After step n, from 0, the decay is min(ema, (1 + n) / (10 + n)): it rises, so that the first
        weights, drawn at random, are soon forgotten. To timm this is a warm-up with a power of 1:
        1 - 1 / (1 + (n + 1) / 9).
        """
        return ModelEmaV3(
            network, self.ema, use_warmup=True, warmup_gamma=9, warmup_power=1,
            update_after_step=-2, exclude_buffers=True,
        )  # fmt: skip


def _constant(step: int, warmup: int, steps: int) -> float:
    return 1.0


def _step(step: int, warmup: int, steps: int) -> float:
    """As published in Shen et al. (arXiv 2110.15904): 5% from half of the steps on."""
    return 1.0 if step < steps / 2 else LAST_SHARE


def _poly(step: int, warmup: int, steps: int) -> float:
    """To 0 with the power that Chen et al. (DeepLab, arXiv 1606.00915) published."""
    return (1 - _done(step, warmup, steps)) ** _POWER


def _cosine(step: int, warmup: int, steps: int) -> float:
    """To 5% along half a cosine (Loshchilov, Hutter, arXiv 1608.03983, equation 5)."""
    done = _done(step, warmup, steps)
    return LAST_SHARE + (1 - LAST_SHARE) * 0.5 * (1 + math.cos(math.pi * done))


def _done(step: int, warmup: int, steps: int) -> float:
    """How much of what follows the warm-up is done at a step."""
    return (step - warmup) / max(1, steps - warmup)


DECAYS: dict[str, Callable[[int, int, int], float]] = {
    "constant": _constant, "step": _step, "poly": _poly, "cosine": _cosine
}  # fmt: skip
"""Shares of the highest learning rate past the warm-up, of (step, warm-up steps, all steps)."""
OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam, "adamw": torch.optim.AdamW,
    "sgd": partial(torch.optim.SGD, momentum=0.9),
}  # fmt: skip


@dataclass(frozen=True)
class Execution:
    """How steps are computed, which changes what comes out by rounding alone.

    Attributes:
        precision: of the network's arithmetic; fp16 scales the loss, so that gradients stay within
            its range.
        compile: through torch.compile.
        rank, ranks: this process, and how many train together, one a device, in a process group of
            torch.distributed. Rank 0 alone scores and writes.
    """

    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    compile: bool = False
    rank: int = 0
    ranks: int = 1

    def autocast(self, device: torch.device) -> Callable[[], AbstractContextManager[Any]]:
        """What makes contexts of this precision."""
        if self.precision == "fp32":
            return nullcontext
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float16
        return partial(torch.autocast, device.type, dtype)
