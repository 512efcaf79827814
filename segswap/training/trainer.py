"""The training loop: batches to losses to better weights, with checkpoints and a history."""

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

from segswap.backbones.weights import check_finite
from segswap.files.records import NONE, Schema, all_checked
from segswap.files.storage import sweep, write_atomically
from segswap.training.checkpoints import STATE, load_state, save_state
from segswap.training.history import History
from segswap.training.schedule import Execution, Schedule
from segswap.training.task import Observer, Row, Task

BAD_BATCH = "bad_batch.json"
_SCHEMA: Schema = {
    "step": (int,), "best": (float,), "model": (dict,), "average": (dict,), "optimiser": (dict,),
    "rates": (dict,), "scaler": (dict,), "rng": (Tensor,), "cuda_rng": (Tensor, NONE),
    "history": (list,), "sums": (dict,), "task": (dict,),
}  # fmt: skip


def never() -> bool:
    """Nobody asks a run to stop."""
    return False


@dataclass
class Trainer:
    """One run of a task: its optimiser, place in the schedule, and folder.

    Attributes:
        task: what is trained.
        out: folder of the run.
        stop: whether to end after the current step, with a checkpoint.
        average: holds, as its module, the network with the moving average of the weights: scored,
            and kept where best.
    """

    task: Task
    schedule: Schedule
    out: Path
    execution: Execution = Execution()  # noqa: RUF009
    stop: Callable[[], bool] = never

    def __post_init__(self) -> None:
        task, schedule, execution = self.task, self.schedule, self.execution
        self.device = next(task.network.parameters()).device
        self.average = schedule.new_average(task.network)
        trained = {name: p for name, p in task.network.named_parameters() if p.requires_grad}
        self.parameters = list(trained.values())
        self.optimiser = schedule.new_optimiser(self.parameters, map(task.rate, trained))
        self.rates = schedule.new_rates(self.optimiser)
        self.autocast = execution.autocast(self.device)
        fp16 = execution.precision == "fp16"
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=fp16)
        self.objective = task.objective
        if execution.ranks > 1:
            self.objective = DistributedDataParallel(
                task.objective, find_unused_parameters=task.unused
            )
        self.compute = (
            torch.compile(self.objective, dynamic=False) if execution.compile else self.objective
        )
        self.step, self.best = 0, -math.inf
        samples = schedule.batch * schedule.accumulate * execution.ranks
        self.history = History(samples, task.terms, task.scores)

    # --- the loop ----------------------------------------------------------------------------

    def run(self, observer: Observer) -> bool:
        """Train to the end of the schedule, or until `stop`; a checkpoint is left.

        Returns:
            Whether there is nothing left to do: the schedule is finished, or the task exhausted.

        Raises:
            RuntimeError: the loss or its gradient is not finite; the last good checkpoint is kept,
                and the samples of the step are listed in BAD_BATCH.
        """
        schedule = self.schedule
        if self.execution.rank == 0:
            sweep(self.out)
        try:
            while self.step < schedule.steps and not self._asked():
                last = self.task.next_round(
                    self.step, schedule.steps, autocast=self.autocast, stop=self.stop,
                    observer=observer,
                )  # fmt: skip
                if last <= self.step:
                    break
                self._train(last, observer)
        except RuntimeError:
            # A signal to the whole group of processes ends the loaders too.
            if not self.stop():
                raise
        if self.step < schedule.steps:
            self.save()
        return self.step >= schedule.steps or self.task.exhausted

    def _train(self, last: int, observer: Observer) -> None:
        """The steps up to `last`."""
        schedule, execution = self.schedule, self.execution
        first = self._first_batch()
        batches = self.task.samples.batches(
            schedule.batch, first, first + (last - self.step) * schedule.accumulate,
            execution.rank, execution.ranks,
        )  # fmt: skip
        self.history.restart_clock()
        while self.step < last and not self._asked():
            self.history.add(self._step(batches))
            self.step += 1
            due = self.step % schedule.every == 0 or self.step == schedule.steps
            if due or self.step % schedule.log_every == 0:
                observer.row(self._row(scored=due))
            if due:
                self.save()
                self.history.restart_clock()

    def _first_batch(self) -> int:
        """Number of the next step's first batch."""
        return self.task.first_batch(self.step, self.schedule.accumulate)

    def _step(self, batches: Iterator[Any]) -> dict[str, float]:
        """One optimiser step; returns the losses, the learning rate and the gradient's length."""
        self.task.network.train()
        self.optimiser.zero_grad(set_to_none=True)
        means = self._gradients(batches)
        self.scaler.unscale_(self.optimiser)
        length = nn.utils.clip_grad_norm_(self.parameters, self.schedule.clip)
        # One look at the device a step: all numbers at once.
        found = torch.stack([*means.values(), length.float()]).tolist()
        values = dict(zip([*means, "gradient"], found, strict=True))
        skipped = self._check_finite(values)
        lr = min(self.rates.get_last_lr())
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.rates.step()
        self.average.update(self.task.network, self.step)
        return {k: v for k, v in values.items() if math.isfinite(v)} | {
            "lr": lr, "skipped": float(skipped)
        }  # fmt: skip

    def _gradients(self, batches: Iterator[Any]) -> dict[str, Tensor]:
        """Add up the gradients of a step's batches; returns the terms' means."""
        means: dict[str, Tensor] = {}
        count = self.schedule.accumulate
        for number in range(count):
            inputs = self.task.inputs(self._next(batches), self._first_batch() + number)
            held_back: AbstractContextManager[Any] = nullcontext()
            if isinstance(self.objective, DistributedDataParallel) and number < count - 1:
                held_back = self.objective.no_sync()  # devices exchange gradients once a step
            with held_back:
                with self.autocast():
                    terms = self.compute(*inputs)
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

    def _next(self, batches: Iterator[Any]) -> Any:
        start = time.monotonic()
        batch = next(batches)
        self.history.wait(time.monotonic() - start)
        return batch

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
        first, count = self._first_batch(), self.schedule.accumulate
        every = self.schedule.batch * self.execution.ranks
        samples = self._named(range(first * every, (first + count) * every))
        if self.execution.rank == 0:
            note: dict[str, Any] = {
                "step": self.step, "values": {name: str(value) for name, value in values.items()},
                "samples": samples,
            }  # fmt: skip
            further = self.task.further_samples(range(first, first + count))
            note |= {kind: self._named(numbers) for kind, numbers in further.items()}
            self.out.mkdir(parents=True, exist_ok=True)
            write_atomically(self.out / BAD_BATCH, json.dumps(note, indent=1).encode())
        shown = ", ".join(sample["name"] for sample in samples[:4])
        return f"its samples are in {self.out / BAD_BATCH}: {shown}" + ", ..." * (len(samples) > 4)

    def _named(self, numbers: range | list[int]) -> list[dict[str, Any]]:
        return [{"number": n, "name": self.task.samples.name(n)} for n in numbers]

    # --- history and checkpoints -------------------------------------------------------------

    def _row(self, scored: bool) -> Row:
        """A new row of the history, with scores where they are due."""
        row = self.history.close_row(self.step)
        if scored and self.execution.rank == 0:
            found = self.task.evaluate(self.average.module)
            row |= {f"val_{name}": value for name, value in found.items()}
            self.history.restart_clock()
        return row

    def save(self) -> None:
        """Write the checkpoint, the history, and, if they are the best so far, the weights."""
        if self.execution.rank != 0:
            return
        self.out.mkdir(parents=True, exist_ok=True)
        last = self.history.rows[-1] if self.history.rows else {}
        # After an interrupt the last row may be an older one, or one without scores.
        row = last if last.get("step") == self.step else {"step": self.step}
        found = self.task.quality(row)
        reached = -math.inf if found is None else found
        if reached > self.best or self.best == -math.inf:  # nothing has been scored yet
            self.best = max(self.best, reached)
            self.task.save(self.average.module, self.out, row)
        self.history.write(self.out)
        save_state(self.out, self._state())

    def _state(self) -> dict[str, Any]:
        cuda = self.device.type == "cuda"
        return {
            "step": self.step, "best": self.best, "model": self.task.network.state_dict(),
            "average": self.average.module.state_dict(),
            "optimiser": self.optimiser.state_dict(), "rates": self.rates.state_dict(),
            "scaler": self.scaler.state_dict(), "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self.device) if cuda else None,
            "history": self.history.rows, "sums": self.history.sums, "task": self.task.state(),
        }  # fmt: skip

    def resume(self, kept: bool = True) -> None:
        """Go on where the run in `out` stopped, its learning rate as this schedule has it.

        Args:
            kept: whether the best weights are there; else those of the checkpoint take their place.

        Raises:
            ValueError: there is no checkpoint, it is damaged, or it is of another run.
        """
        state = load_state(self.out, _SCHEMA)
        try:
            self.task.network.load_state_dict(state["model"])
            self.average.module.load_state_dict(state["average"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.rates.load_state_dict(state["rates"])
            self.scaler.load_state_dict(state["scaler"])
            torch.set_rng_state(state["rng"])
            if self.device.type == "cuda" and state["cuda_rng"] is not None:
                torch.cuda.set_rng_state(state["cuda_rng"], self.device)
            self.task.restore(state["task"])
            self.step, self.best = state["step"], float(state["best"])
            self.history.rows, self.history.sums = state["history"], state["sums"]
            all_checked(state["history"], {"step": (int,)}, "its history")
            for part in ("model", "average"):
                check_finite(state[part], f"its {part}")
            self._set_rates()
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            said = " ".join(str(error).split())  # torch's is of many lines
            raise ValueError(
                f"{self.out / STATE} does not fit this run: {said}; start a new one with another "
                "--out"
            ) from error
        if not kept and self.execution.rank == 0:
            self.best = -math.inf
            self.task.save(self.average.module, self.out, {"step": self.step})
        if self.execution.rank:  # the state has the numbers of rank 0 to draw from
            torch.manual_seed(torch.initial_seed() + self.step)

    def _set_rates(self) -> None:
        """The learning rates of the next step, for a run that may have been made longer."""
        rates = [base * self.schedule.share(self.step) for base in self.rates.base_lrs]
        self.rates.load_state_dict(self.rates.state_dict() | {"_last_lr": rates})
        for group, rate in zip(self.optimiser.param_groups, rates, strict=True):
            group["lr"] = rate
