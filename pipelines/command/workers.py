"""Who does the work of a command: this process, or Ray workers."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from pipelines.command.tasks import at_once, cores, gpu_share, ray_workers, run_inline, run_on_ray

Item = TypeVar("Item")
Result = TypeVar("Result")


class Run(Protocol):
    """Applies a function to items, and gives the results as they finish."""

    def __call__(
        self, function: Callable[[Item], Result], items: Iterable[Item], on_gpu: bool = False
    ) -> Iterator[Result]:
        """
        Args:
            function: called on one item; on workers, in another process.
            items: taken one by one, as workers become free.
            on_gpu: whether each call is to have its share of a GPU, where there is one.
        """
        ...


@dataclass(frozen=True)
class Workers:
    """How the work is run"""

    workers: int = field(default_factory=cores)
    """Worker processes, which Ray starts; 0: this process does the work, without Ray. By default as
    many as there are cores."""
    address: str | None = None
    """Address of a running Ray cluster, as in auto or 10.0.0.1:6379; by default Ray is started on
    this machine and shut down at the end. The cluster's machines need this version of segswap, and
    all that is read and written in folders that all of them share (or at URLs, where the command
    takes them)."""

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise ValueError(f"--workers is {self.workers}; expected at least 0")
        if self.inline and self.address:
            raise ValueError("--workers 0 works without Ray; leave out --address")

    @property
    def inline(self) -> bool:
        """Whether the work is done in this process."""
        return not self.workers

    @contextmanager
    def started(self) -> Iterator[Run]:
        """Start the workers, or use those that are started already, and shut them down at the end.

        Raises:
            RuntimeError: Ray does not start, or no cluster answers.
        """
        if self.inline:
            yield self._run_inline
        else:
            with ray_workers(self.workers, self.address):
                yield self._run_on_ray

    def _run_inline(
        self, function: Callable[[Item], Result], items: Iterable[Item], on_gpu: bool = False
    ) -> Iterator[Result]:
        return run_inline(function, items)

    def _run_on_ray(
        self, function: Callable[[Item], Result], items: Iterable[Item], on_gpu: bool = False
    ) -> Iterator[Result]:
        share = gpu_share(at_once(self.workers)) if on_gpu else 0.0
        return run_on_ray(function, items, self.workers, share)


INLINE = Workers(0)


def spare_cores() -> int:
    """How many processes load for one that computes: the other cores, from 1 to 8."""
    return max(1, min(cores() - 1, 8))
