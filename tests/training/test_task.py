"""The one loop trains what is neither a matcher nor of pairs: here, a classifier of points."""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from training_runs import history, same

from segswap.training.checkpoints import load_state
from segswap.training.schedule import Execution, Schedule
from segswap.training.task import Observer, Row, Task
from segswap.training.trainer import Trainer

SCHEDULE = Schedule(
    steps=30, batch=8, accumulate=2, lr=0.05, warmup=3, decay="cosine", every=10, log_every=5
)


class Points:
    """Points of the plane, and whether they lie above a line."""

    def batches(
        self, batch: int, first: int, last: int, rank: int = 0, ranks: int = 1
    ) -> Iterator[tuple[Tensor, Tensor]]:
        for number in range(first, last):
            points = np.random.default_rng(number * ranks + rank).normal(size=(batch, 2))
            labels = points.sum(axis=1) > 0
            yield torch.tensor(points, dtype=torch.float32), torch.tensor(labels).float()

    def name(self, number: int) -> str:
        return f"point {number}"


class Objective(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, points: Tensor, labels: Tensor) -> dict[str, Tensor]:
        loss = F.binary_cross_entropy_with_logits(self.network(points)[:, 0], labels)
        return {"entropy": loss, "loss": loss}


class Classifier(Task):
    terms = ("entropy",)
    scores = ("accuracy",)

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Linear(2, 8), nn.Dropout(0.1), nn.Linear(8, 1))
        self.objective = Objective(self.network)
        self.samples = Points()
        self.saved: list[Row] = []
        self.spoilt = -1  # number of a batch

    def inputs(self, batch: Any, number: int) -> tuple[Any, ...]:
        points, labels = batch
        return points * math.nan if number == self.spoilt else points, labels

    def evaluate(self, averaged: nn.Module) -> dict[str, float]:
        points, labels = next(self.samples.batches(100, 10**6, 10**6 + 1))
        right = (averaged(points)[:, 0] > 0) == (labels > 0)
        return {"accuracy": float(right.float().mean())}

    def quality(self, row: Row) -> float | None:
        return row.get("val_accuracy")

    def save(self, averaged: nn.Module, folder: Path, row: Row) -> None:
        self.saved.append(row)
        torch.save(averaged.state_dict(), folder / "weights.pt")


class Faster(Classifier):
    """Its last layer has ten times the learning rate."""

    def rate(self, name: str) -> float:
        return 10.0 if name.startswith("2.") else 1.0


class TwoRounds(Classifier):
    """Rounds of eight steps with batches of their own; after two there is nothing to learn from."""

    def __init__(self) -> None:
        super().__init__()
        self.rounds = 0

    @property
    def exhausted(self) -> bool:
        return self.rounds == 3

    def next_round(
        self, step: int, steps: int, *, autocast: Any, stop: Callable[[], bool], observer: Observer
    ) -> int:
        if step == 8 * self.rounds and not self.exhausted:
            self.rounds += 1
        return min(8 * self.rounds, 16)

    def first_batch(self, step: int, accumulate: int) -> int:
        return 1000 * self.rounds + step * accumulate

    def state(self) -> dict[str, Any]:
        return {"rounds": self.rounds}

    def restore(self, state: dict[str, Any]) -> None:
        self.rounds = state["rounds"]


def test_a_classifier_learns_and_its_best_weights_are_kept(tmp_path: Path) -> None:
    task = Classifier()
    trainer = Trainer(task, SCHEDULE, tmp_path)
    assert trainer.run(Observer())
    rows = trainer.history.rows
    assert [row["step"] for row in rows] == [5, 10, 15, 20, 25, 30]
    assert ["val_accuracy" in row for row in rows] == [False, True] * 3
    assert rows[-1]["entropy"] < 0.7 * rows[0]["entropy"]
    best = max((row for row in rows if "val_accuracy" in row), key=lambda row: row["val_accuracy"])
    assert task.saved[-1] == best
    assert best["val_accuracy"] > 0.9
    assert list(history(tmp_path)[0]) == [
        "step", "loss", "entropy", "lr", "gradient", "skipped", "samples_per_second", "waiting",
        "val_accuracy",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", [Classifier, Faster, TwoRounds])
@pytest.mark.parametrize("steps", [3, 8, 11])
def test_any_task_goes_on_exactly(kind: type[Classifier], steps: int, tmp_path: Path) -> None:
    whole = Trainer(kind(), SCHEDULE, tmp_path / "whole")
    assert whole.run(Observer())
    part = Trainer(kind(), SCHEDULE, tmp_path / "part", stop=lambda: part.step == steps)
    assert not part.run(Observer())
    torch.manual_seed(99)
    rest = Trainer(kind(), SCHEDULE, tmp_path / "part")
    rest.resume()
    assert rest.step == steps
    assert rest.run(Observer())
    assert same(load_state(tmp_path / "part"), load_state(tmp_path / "whole"))
    assert rest.step == (16 if kind is TwoRounds else 30)


def test_a_task_without_scores_keeps_the_last_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Classifier, "evaluate", Task.evaluate)
    task = Classifier()
    Trainer(task, SCHEDULE, tmp_path).run(Observer())
    assert [row["step"] for row in task.saved] == [10, 20, 30]


def test_a_bad_steps_samples_are_named_whatever_they_are(tmp_path: Path) -> None:
    task = Classifier()
    task.spoilt = 25  # the second batch of step 12
    with pytest.raises(RuntimeError, match=r"not finite at step 12 .* point 192, point 193"):
        Trainer(task, SCHEDULE, tmp_path).run(Observer())
    noted = json.loads((tmp_path / "bad_batch.json").read_text())
    assert [sample["number"] for sample in noted["samples"]] == list(range(192, 208))
    assert load_state(tmp_path)["step"] == 10


def test_a_checkpoint_of_another_task_is_refused(tmp_path: Path) -> None:
    Trainer(Classifier(), SCHEDULE, tmp_path).run(Observer())
    other = Trainer(TwoRounds(), SCHEDULE, tmp_path)
    with pytest.raises(ValueError, match=r"last\.pt does not fit this run: 'rounds'"):
        other.resume()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_is_of_any_task(precision: Any, tmp_path: Path) -> None:
    task = Classifier()
    trainer = Trainer(task, SCHEDULE, tmp_path, Execution(precision))
    assert trainer.run(Observer())
    assert trainer.history.rows[-1]["entropy"] < 0.7 * trainer.history.rows[0]["entropy"]


def test_parts_may_learn_faster(tmp_path: Path) -> None:
    """Along the same schedule; the history has the lower rate."""
    trainer = Trainer(Faster(), SCHEDULE, tmp_path)
    groups = trainer.optimiser.param_groups
    assert [len(group["params"]) for group in groups] == [2, 2]
    for step in range(30):
        assert groups[0]["lr"] == pytest.approx(SCHEDULE.lr * SCHEDULE.share(step))
        assert groups[1]["lr"] == pytest.approx(10 * groups[0]["lr"])
        trainer.rates.step()
    rates = []
    for kind in (Classifier, Faster):
        assert Trainer(kind(), SCHEDULE, tmp_path / kind.__name__).run(Observer())
        rates.append([row["lr"] for row in history(tmp_path / kind.__name__)])
    assert rates[0] == rates[1]
