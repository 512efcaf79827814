"""What a Trainer trains: the contract between the one loop and everything that is learned in it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from torch import nn

Row = dict[str, Any]  # of a run's history


class Samples(Protocol):
    """The samples of a training run, numbered from 0 without end.

    What a number names never depends on who asks or how often: a resumed run goes on at its next
    number, and ranks share the numbers out among them.
    """

    def batches(
        self, batch: int, first: int, last: int, rank: int = 0, ranks: int = 1
    ) -> Iterator[Any]:
        """The batches with the numbers `first` to `last` - 1, one after the other.

        Batch k of rank r has the samples (k * ranks + r) * batch and the batch - 1 after it.
        """

    def name(self, number: int) -> str:
        """Where a sample comes from, for messages."""


class Observer:
    """What a run tells whoever watches it; this one takes no notice."""

    def row(self, row: Row) -> None:
        """The history has a new row."""

    def preparing(self, done: int, total: int) -> None:
        """So much of the next round is prepared, of how much."""

    def round(self, said: str) -> None:
        """A round is prepared; `said` tells what is in it."""


class Task(ABC):
    """What is trained, on what, and what it is worth.

    Attributes:
        network: what is learned: its parameters that require a gradient are trained, all of it is
            averaged, checkpointed and saved.
        objective: called with the `inputs` of a batch, returns scalars by name: the terms of the
            loss, unweighted, and "loss", what is minimised. It holds the network, and is what
            several devices share and torch.compile compiles.
        samples: the training data.
        terms: names of the terms that the objective may return.
        scores: names of what `evaluate` may return.
        unused: whether parameters that require a gradient may get none in a step.
    """

    network: nn.Module
    objective: nn.Module
    samples: Samples
    terms: tuple[str, ...]
    scores: tuple[str, ...] = ()
    unused: bool = False

    def rate(self, name: str) -> float:
        """How many times the learning rate a parameter of the network has, by its name."""
        return 1.0

    @property
    def exhausted(self) -> bool:
        """Whether nothing is left to learn from, though the schedule may not have ended."""
        return False

    @abstractmethod
    def inputs(self, batch: Any, number: int) -> tuple[Any, ...]:
        """What the objective is called with, on the network's device.

        Args:
            batch: of the samples.
            number: the batch's own.
        """

    @abstractmethod
    def save(self, averaged: nn.Module, folder: Path, row: Row) -> None:
        """Write what users load: the best weights so far.

        Args:
            averaged: a network like `network` with the weights' moving average.
            folder: of the run, which exists.
            row: of the history: the step, and scores if it has any.
        """

    def evaluate(self, averaged: nn.Module) -> dict[str, float]:
        """Scores of the averaged weights on held-out data; none where there is no such data."""
        return {}

    def quality(self, row: Row) -> float | None:
        """What decides which weights are kept, of a row of the history, whose scores' names begin
        with val_; None of one without scores. Where no row has any, the last weights are kept.
        """
        return None

    def next_round(
        self, step: int, steps: int, *, autocast: Callable[[], AbstractContextManager[Any]],
        stop: Callable[[], bool], observer: Observer,
    ) -> int:  # fmt: skip
        """Prepare the samples of the steps from `step` on.

        A run that is resumed asks within a round, of which the task's state tells.

        Args:
            step: next step.
            steps: of the whole run.
            autocast: context of the run's precision.
            stop: whether to give up, and return `step`.
            observer: told how it goes.

        Returns:
            The step at which to ask again; `step` where there is nothing to train on.
        """
        return steps

    def first_batch(self, step: int, accumulate: int) -> int:
        """Number of a step's first batch, of `accumulate` batches a step."""
        return step * accumulate

    def further_samples(self, batches: range) -> dict[str, list[int]]:
        """Numbers of samples that `inputs` adds to batches, by what they are."""
        return {}

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps beside the network."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:  # noqa: B027 - most have nothing to restore
        """Go on where `state` was taken.

        Raises:
            LookupError, TypeError, ValueError: it is of another task.
        """
