"""The numbers of a training run, and how its steps are computed."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch

LAST_SHARE = 0.05  # of the highest learning rate, at the end


@dataclass(frozen=True)
class Schedule:
    """Numbers of a training run.

    Attributes:
        steps: optimiser steps in all.
        batch: positive pairs of a batch, on each device.
        accumulate: batches of a step, whose gradients are averaged.
        negatives: negative pairs a positive one, by shifting the batch against itself.
        lr: highest learning rate; reached after `warmup` steps.
        warmup: steps of linear warm-up.
        decay: "cosine" from the highest rate down to 5% of it, or "step", to 5% at half of the
            steps, as published (Shen et al., arXiv 2110.15904).
        weights: of the losses, by name in TERMS; 0 switches one off.
        every: steps between checkpoints, each with scores on the val pairs.
        log_every: steps between rows of the history.
    """

    steps: int
    batch: int
    accumulate: int
    negatives: int
    lr: float
    warmup: int
    decay: Literal["cosine", "step"]
    weights: dict[str, float]
    every: int
    log_every: int

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        if self.decay == "step":
            return self.lr * (1.0 if step < self.steps / 2 else LAST_SHARE)
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.lr * (LAST_SHARE + (1 - LAST_SHARE) * 0.5 * (1 + math.cos(math.pi * done)))


@dataclass(frozen=True)
class Execution:
    """How steps are computed, which changes what comes out by rounding alone.

    Attributes:
        precision: of the matcher's arithmetic; fp16 scales the loss, so that gradients stay within
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
