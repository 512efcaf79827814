"""The training loop: batches to losses to better weights, with checkpoints and a history."""

import csv
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from segswap import losses
from segswap.checkpoints import load_state, save_state
from segswap.matchers import Matcher, Matches
from segswap.metrics import Scores, mean_scores, score_negative, score_pair
from segswap.model import WEIGHTS, Model
from segswap.shards import datasets_with, read_manifest, read_pairs
from segswap.stream import Batch, PairStream, batches

HISTORY = "history.csv"
TERMS = ("mask", "transfer", "corr", "correlation")
COLUMNS = (
    "step", "loss", *TERMS, "lr", "gradient", "pairs_per_second",
    *(f"val_{name}" for name in Scores.__dataclass_fields__),
)  # fmt: skip
_VAL_PAIRS = 32
_GRADIENT_LIMIT = 1.0


@dataclass(frozen=True)
class Schedule:
    """Numbers of a training run.

    Attributes:
        steps: optimiser steps in all.
        batch: positive pairs a step.
        negatives: negative pairs a positive one, by shifting the batch against itself.
        lr: highest learning rate; reached after `warmup` steps, then a cosine down to 5% of it.
        warmup: steps of linear warm-up.
        weights: of the losses, by name in TERMS; 0 switches one off.
        every: steps between checkpoints, each with scores on the val split.
        log_every: steps between rows of the history.
        seed: seeds weights, dropout, order and augmentation.
    """

    steps: int
    batch: int
    negatives: int
    lr: float
    warmup: int
    weights: dict[str, float]
    every: int
    log_every: int
    seed: int


@dataclass(frozen=True)
class Data:
    """Where a run's pairs come from.

    Attributes:
        datasets: folders of pairs; the train splits are the training data.
        size: side of the images in pixels.
        workers: loader processes.
    """

    datasets: tuple[str, ...]
    size: int
    workers: int


@dataclass
class Trainer:
    """One run: its model, optimiser, place in the schedule, and folder.

    Attributes:
        stop: set to True (by a signal handler, say) to end after the current step with a
            checkpoint.
    """

    model: Model
    schedule: Schedule
    data: Data
    out: Path
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
    step: int = 0
    best: float = -math.inf
    stop: bool = False

    def __post_init__(self) -> None:
        self.matcher: Matcher = self.model.matcher
        self.optimiser = torch.optim.Adam(
            [p for p in self.matcher.parameters() if p.requires_grad], lr=self.schedule.lr
        )
        self.val = self._val_pairs()
        self.history: list[dict[str, Any]] = []
        self.sums: dict[str, float] = {}  # of the steps since the history's last row
        self._first, self._started = 0, 0.0  # step and time at which that row was added

    def run(self, report: Callable[["Trainer", dict[str, Any]], None]) -> bool:
        """Train to the end of the schedule, or until `stop` is set; a checkpoint is left.

        Args:
            report: called with every new row of the history.

        Returns:
            Whether the schedule was finished.

        Raises:
            RuntimeError: the loss or its gradient is not finite; the last good checkpoint is kept.
        """
        self._first, self._started = self.step, time.monotonic()
        try:
            for batch in self._batches():
                if self.stop:
                    break
                self._advance(batch, report)
        except RuntimeError:
            # A signal to the whole group of processes ends the loaders too.
            if not self.stop:
                raise
        if self.stop:
            self.save()
        return self.step >= self.schedule.steps

    def _advance(self, batch: Batch, report: Callable[["Trainer", dict[str, Any]], None]) -> None:
        """One step, and what is due after it: a row of the history, scores, a checkpoint."""
        for name, value in self._step(batch).items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.step += 1
        due = self.step % self.schedule.every == 0 or self.step == self.schedule.steps
        if due or self.step % self.schedule.log_every == 0:
            report(self, self._row(scored=due))
        if due:
            self.save()

    def _row(self, scored: bool) -> dict[str, Any]:
        """A new row of the history: means since the last one, and scores where they are due."""
        count = self.step - (self.history[-1]["step"] if self.history else 0)
        timed = self.step - self._first
        row: dict[str, Any] = {"step": self.step}
        row |= {name: value / count for name, value in self.sums.items()}
        row["pairs_per_second"] = timed * self.schedule.batch / (time.monotonic() - self._started)
        if scored and self.val:
            row |= {f"val_{k}": v for k, v in self.evaluate().__dict__.items()}
        self.history.append(row)
        self.sums, self._first, self._started = {}, self.step, time.monotonic()
        return row

    def _batches(self) -> Iterator[Batch]:
        stream = PairStream(
            self.data.datasets, "train", size=self.data.size, stride=self.matcher.stride,
            seed=self.schedule.seed,
        )  # fmt: skip
        return batches(
            stream, self.schedule.batch, self.step, self.schedule.steps, self.data.workers
        )

    def _step(self, batch: Batch) -> dict[str, float]:
        """One optimiser step; returns the losses, the learning rate and the gradient's length."""
        self.matcher.train()
        batch = batch.to(self.model.device)
        lr = learning_rate(self.schedule, self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        with self.autocast():
            terms = self._losses(batch)
        total = torch.stack([self.schedule.weights[n] * v for n, v in terms.items()]).sum()
        values = {name: float(value.detach()) for name, value in terms.items()}
        values["loss"] = float(total.detach())
        self._check_finite(values)
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()
        length = torch.nn.utils.clip_grad_norm_(self.matcher.parameters(), _GRADIENT_LIMIT)
        values |= {"lr": lr, "gradient": float(length)}
        self._check_finite(values)
        self.optimiser.step()
        return values

    def _check_finite(self, values: dict[str, float]) -> None:
        if not all(math.isfinite(value) for value in values.values()):
            raise RuntimeError(
                f"the loss or its gradient is not finite at step {self.step} ({values}); the last "
                "checkpoint is kept; try a lower --lr"
            )

    def _losses(self, batch: Batch) -> dict[str, Tensor]:
        weights = self.schedule.weights
        source = self.matcher.encode(batch.source.float() / 255)
        target = self.matcher.encode(batch.target.float() / 255)
        visible = None
        if torch.rand(()) < self.matcher.hide:
            visible = batch.target_mask > 0
        matches = self.matcher.match(source, target, visible)
        terms = {}
        if weights["mask"]:
            negatives = self._negatives(source, target)
            terms["mask"] = losses.mask_loss(
                matches, batch, negatives, self.matcher.positive_weight
            )
        if weights["transfer"]:
            terms["transfer"] = losses.transfer_loss(matches, batch, self.matcher.positive_weight)
        if weights["corr"]:
            terms["corr"] = losses.correspondence_loss(matches, batch)
        if weights["correlation"] and matches.correlation is not None:
            terms["correlation"] = losses.correlation_loss(matches, batch)
        return terms

    def _negatives(self, source: Tensor, target: Tensor) -> Matches | None:
        """Sources with the targets of other samples: the batch shifted against itself."""
        shifts = range(1, min(self.schedule.negatives, len(source) - 1) + 1)
        if not shifts:
            return None
        return self.matcher.match(
            source.repeat(len(shifts), 1, 1, 1),
            torch.cat([target.roll(shift, dims=0) for shift in shifts]),
        )

    @torch.inference_mode()
    def evaluate(self) -> Scores:
        """Scores on at most 32 of the val pairs, and on about 8 pairs that share nothing."""
        self.matcher.eval()
        stride = max(1, len(self.val) // 8)
        scores = []
        for number, pair in enumerate(self.val):
            scores.append(score_pair(self.model.predict(pair.source, pair.target), pair))
            if number % stride == 0:
                other = self.val[(number + 1) % len(self.val)]
                scores.append(score_negative(self.model.predict(pair.source, other.target)))
        return mean_scores(scores)

    def _val_pairs(self) -> list[Any]:
        splits = [read_manifest(dataset)["splits"] for dataset in self.data.datasets]
        if not any(split.get("val", {"pairs": 0})["pairs"] for split in splits):
            return []
        found = datasets_with(self.data.datasets, "val")
        pairs = (pair for dataset in found for pair in read_pairs(dataset, "val"))
        return list(islice(pairs, _VAL_PAIRS))

    def save(self) -> None:
        """Write the checkpoint, the history, and, if they are the best so far, the weights."""
        self.out.mkdir(parents=True, exist_ok=True)
        last = self.history[-1] if self.history else {}
        # After an interrupt the last row may be an older one, or one without scores.
        scored = last.get("step") == self.step and "val_mask_iou" in last
        quality = last["val_mask_iou"] + last["val_pck_5"] if scored else -math.inf
        if not self.val or quality > self.best or not (self.out / WEIGHTS).exists():
            self.best = max(self.best, quality)
            self.model.save(self.out)
        write_history(self.out / HISTORY, self.history)
        save_state(
            self.out,
            {
                "step": self.step, "best": self.best, "model": self.matcher.state_dict(),
                "optimiser": self.optimiser.state_dict(), "rng": torch.get_rng_state(),
                "history": self.history, "sums": self.sums,
            },
        )  # fmt: skip

    def resume(self) -> None:
        """Go on where the run in `out` stopped."""
        state = load_state(self.out)
        self.matcher.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        torch.set_rng_state(state["rng"])
        self.step, self.best = state["step"], state["best"]
        self.history, self.sums = state["history"], state["sums"]


def learning_rate(schedule: Schedule, step: int) -> float:
    """Linear warm-up, then a cosine from the highest rate to 5% of it."""
    if step < schedule.warmup:
        return schedule.lr * (step + 1) / schedule.warmup
    done = (step - schedule.warmup) / max(1, schedule.steps - schedule.warmup)
    return schedule.lr * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done)))


def write_history(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write the history as CSV, whole."""
    temporary = path.with_name(f".{path.name}.tmp")
    with open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(rows)
    temporary.replace(path)
