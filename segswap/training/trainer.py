"""The training loop: batches to losses to better weights, with checkpoints and a history."""

import copy
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from segswap.batches.stream import Stream
from segswap.data.pair import Pair, share_nothing
from segswap.evaluation.metrics import Scores, mean_scores, score_negative, score_pair
from segswap.files.storage import write_atomically
from segswap.matchers.base import Batch, Matcher
from segswap.models.hub import SCORES, WEIGHTS
from segswap.models.model import Model
from segswap.training.checkpoints import STATE, load_state, save_state
from segswap.training.history import History, quality
from segswap.training.mining import Mining
from segswap.training.objective import Images, Objective
from segswap.training.schedule import Execution, Schedule

BAD_BATCH = "bad_batch.json"
_GRADIENT_LIMIT = 1.0
_KEYS = ("step", "best", "model", "average", "optimiser", "scaler", "rng", "cuda_rng", "history",
         "sums", "mining")  # fmt: skip


class Observer:
    """What a run tells whoever watches it; this one takes no notice."""

    def row(self, trainer: "Trainer", row: dict[str, Any]) -> None:
        """The history has a new row."""

    def scoring(self, done: int, total: int) -> None:
        """So many pairs of a pool have been scored, of how many."""

    def pool(self, mining: Mining) -> None:
        """A pool has been scored."""


def never() -> bool:
    """Nobody asks a run to stop."""
    return False


@dataclass
class Trainer:
    """One run: its model, optimiser, place in the schedule, and folder.

    Attributes:
        model: what is trained.
        stream: the training data.
        val: pairs that are scored on; without any, the last weights count as the best.
        out: folder of the run.
        mining: finds hard negatives; None trains without.
        stop: whether to end after the current step, with a checkpoint.
        average: the model with the moving average of the weights: scored, and kept where best.
    """

    model: Model
    schedule: Schedule
    stream: Stream
    val: list[Pair]
    out: Path
    execution: Execution = Execution()  # noqa: RUF009
    mining: Mining | None = None
    stop: Callable[[], bool] = never

    def __post_init__(self) -> None:
        schedule, execution = self.schedule, self.execution
        self.device = self.model.device
        self.matcher: Matcher = self.model.matcher.to(memory_format=torch.channels_last)
        self.average = Model(copy.deepcopy(self.matcher), self.model.settings)
        self.parameters = [p for p in self.matcher.parameters() if p.requires_grad]
        self.optimiser = torch.optim.Adam(self.parameters, lr=schedule.lr)
        self.autocast = execution.autocast(self.device)
        fp16 = execution.precision == "fp16"
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=fp16)
        objective: nn.Module = Objective(self.matcher, schedule.weights, schedule.negatives)
        if execution.ranks > 1:
            # What only a loss that is switched off would reach gets no gradient.
            unused = not all(schedule.weights.values())
            objective = DistributedDataParallel(objective, find_unused_parameters=unused)
        self.objective = objective
        self.compute = torch.compile(objective, dynamic=False) if execution.compile else objective
        self.step, self.best = 0, -math.inf
        self.history = History(schedule.batch * schedule.accumulate * execution.ranks)

    # --- the loop ----------------------------------------------------------------------------

    def run(self, observer: Observer) -> bool:
        """Train to the end of the schedule, or until `stop`; a checkpoint is left.

        Returns:
            Whether there is nothing left to do: the schedule is finished, or no hard negatives are
            found any more.

        Raises:
            RuntimeError: the loss or its gradient is not finite; the last good checkpoint is kept,
                and the samples of the step are listed in BAD_BATCH.
        """
        self.history.restart_clock()
        try:
            while self.step < (last := self._last_step(observer)) and not self._asked():
                self._train(last, observer)
        except RuntimeError:
            # A signal to the whole group of processes ends the loaders too.
            if not self.stop():
                raise
        if self.step < self.schedule.steps:
            self.save()
        return self.step >= self.schedule.steps or (self.mining is not None and self.mining.dry)

    def _last_step(self, observer: Observer) -> int:
        """Where the current round ends; without hard negatives there is but one."""
        if self.mining is None:
            return self.schedule.steps
        while self.step >= self.mining.last_step and not self.mining.dry:
            if not self.mining.next_round(
                self.matcher, self.step, self.schedule.batch * (1 + self.schedule.negatives),
                autocast=self.autocast, stop=self.stop, progress=observer.scoring,
            ):  # fmt: skip
                break
            observer.pool(self.mining)
        self.history.restart_clock()
        return min(self.mining.last_step, self.schedule.steps)

    def _train(self, last: int, observer: Observer) -> None:
        """The steps up to `last`."""
        first, steps = self._first_batch(), last - self.step
        batches = self.stream.batches(
            self.schedule.batch, first, first + steps * self.schedule.accumulate,
            self.execution.rank, self.execution.ranks,
        )  # fmt: skip
        while self.step < last and not self._asked():
            self.history.add(self._step(batches))
            self.step += 1
            due = self.step % self.schedule.every == 0 or self.step == self.schedule.steps
            if due or self.step % self.schedule.log_every == 0:
                observer.row(self, self._row(scored=due))
            if due:
                self.save()
                self.history.restart_clock()

    def _first_batch(self) -> int:
        """Number in the stream of the next step's first batch."""
        return self.mining.batch_of(self.step) if self.mining else (
            self.step * self.schedule.accumulate
        )  # fmt: skip

    def _step(self, batches: Iterator[Batch]) -> dict[str, float]:
        """One optimiser step; returns the losses, the learning rate and the gradient's length."""
        self.matcher.train()
        self.optimiser.zero_grad(set_to_none=True)
        means = self._gradients(batches)
        self.scaler.unscale_(self.optimiser)
        length = nn.utils.clip_grad_norm_(self.parameters, _GRADIENT_LIMIT)
        # One look at the device a step: all numbers at once.
        found = torch.stack([*means.values(), length.float()]).tolist()
        values = dict(zip([*means, "gradient"], found, strict=True))
        skipped = self._check_finite(values)
        lr = self.schedule.rate(self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        self.scaler.step(self.optimiser)
        self.scaler.update()
        update_average(self.average.matcher, self.matcher, self.step)
        return {k: v for k, v in values.items() if math.isfinite(v)} | {
            "lr": lr, "skipped": float(skipped)
        }  # fmt: skip

    def _gradients(self, batches: Iterator[Batch]) -> dict[str, Tensor]:
        """Add up the gradients of a step's batches; returns the terms' means."""
        means: dict[str, Tensor] = {}
        count = self.schedule.accumulate
        for number in range(count):
            batch = self._next(batches)
            extra = self._extra(self._first_batch() + number)
            held_back: AbstractContextManager[Any] = nullcontext()
            if isinstance(self.objective, DistributedDataParallel) and number < count - 1:
                held_back = self.objective.no_sync()  # devices exchange gradients once a step
            with held_back:
                with self.autocast():
                    terms = self.compute(batch, extra)
                for name, value in terms.items():
                    share = value.detach().float() / count
                    means[name] = means[name] + share if name in means else share
                if self._lost_on_cpu(terms["loss"]):
                    break
                self.scaler.scale(terms["loss"] / count).backward()
        return means

    def _lost_on_cpu(self, loss: Tensor) -> bool:
        """Whether a loss is not finite in any of the processes, on a CPU: there, torch's
        grid_sample writes outside its memory going back from positions that are NaN. On a GPU the
        end of the step is early enough to see it, and does not hold the device up.
        """
        return self.device.type == "cpu" and self._anywhere(not math.isfinite(loss.item()))

    def _next(self, batches: Iterator[Batch]) -> Batch:
        start = time.monotonic()
        batch = next(batches)
        self.history.wait(time.monotonic() - start)
        return batch.to(self.device)

    def _extra(self, batch: int) -> Images | None:
        if self.mining is None:
            return None
        sources, targets = self.mining.extra(batch)
        return sources.to(self.device), targets.to(self.device)

    def _asked(self) -> bool:
        return self._anywhere(self.stop())

    def _anywhere(self, flag: bool) -> bool:
        """Whether a flag is set in any of the processes that train together."""
        if self.execution.ranks == 1:
            return flag
        common = torch.tensor(int(flag), device=self.device)
        distributed.all_reduce(common, distributed.ReduceOp.MAX)
        return bool(common.item())

    # --- what is not finite ------------------------------------------------------------------

    def _check_finite(self, values: dict[str, float]) -> bool:
        """Whether the gradient left fp16's range, for which the scaler skips the step and lowers
        its scale; whatever else is not finite ends the run.
        """
        bad = [name for name, value in values.items() if not math.isfinite(value)]
        skipped = bad == ["gradient"] and self.scaler.is_enabled() and self.scaler.get_scale() > 1
        if self._anywhere(bool(bad) and not skipped):
            raise RuntimeError(
                f"the loss or its gradient is not finite at step {self.step} ({values}); the last "
                f"checkpoint is kept; {self._note_samples(values)}; look at them, or try a lower "
                "--lr"
            )
        return skipped

    def _note_samples(self, values: dict[str, float]) -> str:
        """Write down which samples a bad step had, on all devices; returns a few of them."""
        schedule, mining = self.schedule, self.mining
        first, every = self._first_batch(), schedule.batch * self.execution.ranks
        numbers = list(range(first * every, (first + schedule.accumulate) * every))
        names = [self.stream.name(number) for number in numbers]
        if self.execution.rank == 0:
            note: dict[str, Any] = {
                "step": self.step, "values": {name: str(value) for name, value in values.items()},
                "samples": [{"number": n, "name": m} for n, m in zip(numbers, names, strict=True)],
            }  # fmt: skip
            if mining:
                batches = range(first, first + schedule.accumulate)
                extra = [n for batch in batches for n in mining.extra_numbers(batch)]
                note["hard_negatives"] = [
                    {"number": n, "name": self.stream.name(n)} for n in extra
                ]  # fmt: skip
            self.out.mkdir(parents=True, exist_ok=True)
            write_atomically(self.out / BAD_BATCH, json.dumps(note, indent=1).encode())
        shown = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
        return f"its samples are in {self.out / BAD_BATCH}: {shown}"

    # --- history and scores ------------------------------------------------------------------

    def _row(self, scored: bool) -> dict[str, Any]:
        """A new row of the history, with scores where they are due."""
        row = self.history.close_row(self.step)
        if scored and self.val and self.execution.rank == 0:
            row |= {f"val_{k}": v for k, v in self.evaluate().__dict__.items()}
            self.history.restart_clock()
        return row

    def evaluate(self) -> Scores:
        """Scores of the averaged weights on the val pairs, and on about 8 pairs of images that
        share nothing.
        """
        stride = max(1, len(self.val) // 8)
        scores = []
        for number, pair in enumerate(self.val):
            scores.append(score_pair(self.average.predict(pair.source, pair.target), pair))
            others = [*self.val[number + 1 :], *self.val[:number]]
            others = [other for other in others if share_nothing(pair, other)]
            if number % stride == 0 and others:
                scores.append(score_negative(self.average.predict(pair.source, others[0].target)))
        return mean_scores(scores)

    # --- checkpoints -------------------------------------------------------------------------

    def save(self) -> None:
        """Write the checkpoint, the history, and, if they are the best so far, the weights."""
        if self.execution.rank != 0:
            return
        self.out.mkdir(parents=True, exist_ok=True)
        last = self.history.rows[-1] if self.history.rows else {}
        # After an interrupt the last row may be an older one, or one without scores.
        found = quality(last) if last.get("step") == self.step else None
        reached = -math.inf if found is None else found
        if not self.val or reached > self.best or not (self.out / WEIGHTS).exists():
            self.best = max(self.best, reached)
            self.average.save(self.out)
            scores = {"step": self.step} | {k: v for k, v in last.items() if k.startswith("val_")}
            write_atomically(self.out / SCORES, json.dumps(scores, indent=1).encode())
        self.history.write(self.out)
        save_state(self.out, self._state())

    def _state(self) -> dict[str, Any]:
        cuda = self.device.type == "cuda"
        return {
            "step": self.step, "best": self.best, "model": self.matcher.state_dict(),
            "average": self.average.matcher.state_dict(),
            "optimiser": self.optimiser.state_dict(), "scaler": self.scaler.state_dict(),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self.device) if cuda else None,
            "history": self.history.rows, "sums": self.history.sums,
            "mining": self.mining.state() if self.mining else None,
        }  # fmt: skip

    def resume(self) -> None:
        """Go on where the run in `out` stopped.

        Raises:
            ValueError: there is no checkpoint, it is damaged, or it is of another run.
        """
        state = load_state(self.out, _KEYS)
        try:
            self.matcher.load_state_dict(state["model"])
            self.average.matcher.load_state_dict(state["average"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.scaler.load_state_dict(state["scaler"])
            torch.set_rng_state(state["rng"])
            if self.device.type == "cuda" and state["cuda_rng"] is not None:
                torch.cuda.set_rng_state(state["cuda_rng"], self.device)
            if self.mining:
                self.mining.restore(state["mining"])
            self.step, self.best = int(state["step"]), float(state["best"])
            self.history.rows, self.history.sums = state["history"], state["sums"]
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            said = " ".join(str(error).split())  # torch's is of many lines
            raise ValueError(f"{self.out / STATE} does not fit this run: {said}") from error
        if self.execution.rank:  # the state has the numbers of rank 0 to draw from
            torch.manual_seed(torch.initial_seed() + self.step)


@torch.no_grad()
def update_average(average: nn.Module, matcher: nn.Module, step: int) -> None:
    """Move the averaged weights towards the trained ones after a step.

    An exponential moving average whose decay rises to 0.999, so that the first weights, drawn at
    random, are soon forgotten: min(0.999, (1 + step) / (10 + step)).
    """
    share = 1 - min(0.999, (1 + step) / (10 + step))
    pairs = zip(average.parameters(), matcher.parameters(), strict=True)
    trained = [(old, new) for old, new in pairs if new.requires_grad]
    torch._foreach_lerp_([old for old, _ in trained], [new for _, new in trained], share)
    if buffers := list(average.buffers()):
        torch._foreach_copy_(buffers, list(matcher.buffers()))
