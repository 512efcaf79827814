"""Numbered samples to batches, in loader processes that change no sample."""

import atexit
import logging
import weakref
from collections.abc import Callable, Generator, Iterator, Mapping
from functools import partial
from typing import Any, Protocol

from segswap.batches.processes import load
from segswap.matchers.base import Batch

LOG = logging.getLogger("segswap")


class Samples(Protocol):
    """Samples by number, each of them the same whoever asks and however often."""

    @property
    def skipped(self) -> Mapping[Any, str]:
        """By what it is known by, why something was passed over so far."""

    def __getitem__(self, number: int) -> Batch:
        """A sample: a Batch without the batch dimension."""


class Sayer:
    """Names on stderr what was passed over, once."""

    def __init__(self) -> None:
        self._said: set[Any] = set()

    def __call__(self, skipped: Mapping[Any, str]) -> None:
        """Say the reasons that are new."""
        for key in sorted(skipped.keys() - self._said):
            LOG.warning("skipped: %s", skipped[key])
            self._said.add(key)


def load_batches(
    samples: Samples, batch: int, first: int, last: int, rank: int, ranks: int, *, workers: int,
    say: Callable[[Mapping[Any, str]], None],
) -> Iterator[Batch]:  # fmt: skip
    """The batches of the steps `first` to `last` - 1: see `Stream.batches`.

    Args:
        workers: loader processes; 0 loads in this process.
        say: told what was passed over so far.
    """
    starts = range((first * ranks + rank) * batch, (last * ranks + rank) * batch, ranks * batch)
    batches = _load(samples, batch, starts, workers, say)
    _running.add(batches)
    return batches


def _load(
    samples: Samples, batch: int, starts: range, workers: int,
    say: Callable[[Mapping[Any, str]], None],
) -> Generator[Batch, None, None]:  # fmt: skip
    for loaded, skipped in load(partial(_joined, samples, batch), starts, workers):
        say(skipped)
        if isinstance(loaded, Exception):
            raise loaded
        yield loaded


def _joined(samples: Samples, batch: int, start: int) -> tuple[Batch | Exception, dict[Any, str]]:
    """The batch whose first sample has this number, or what is wrong with its data; and what was
    skipped so far.
    """
    loaded: Batch | Exception
    try:
        loaded = Batch.joined([samples[start + k] for k in range(batch)])
    except (ValueError, OSError) as error:
        loaded = error
    return loaded, dict(samples.skipped)


_running: weakref.WeakSet[Generator[Batch, None, None]] = weakref.WeakSet()


@atexit.register
def _end_loaders() -> None:
    """End the loader processes of batches that something still holds, a traceback for example.

    Otherwise this process would send them the SIGTERM that they pass over, and wait.
    """
    for batches in list(_running):
        batches.close()
