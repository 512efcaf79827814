"""Numbered samples to batches, in loader processes that change no sample."""

import atexit
import logging
import signal
import weakref
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, Protocol

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from segswap.files.stores import StorageError
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
    loader = DataLoader(
        _Batches(samples, batch), sampler=starts, batch_size=None, num_workers=workers,
        worker_init_fn=_start_worker, pin_memory=torch.cuda.is_available(),
        # Starting a loader draws a number: not from the generator of a run's dropout.
        generator=torch.Generator(),
    )  # fmt: skip
    for loaded, skipped in loader:
        say(skipped)
        if isinstance(loaded, Exception):
            raise loaded
        yield loaded


_running: weakref.WeakSet[Generator[Batch, None, None]] = weakref.WeakSet()


@atexit.register
def _end_loaders() -> None:
    """End the loader processes of batches that something still holds, a traceback for example.

    Otherwise this process would send them the SIGTERM that they pass over, and wait.
    """
    for batches in list(_running):
        batches.close()


class _Batches(Dataset):
    """Batches by the number of their first sample, and what was skipped so far.

    What is wrong with the data comes in a batch's place: raised in a loader process, it would
    reach the trainer with that process's traceback as its message.
    """

    def __init__(self, samples: Samples, batch: int) -> None:
        self.samples, self.batch = samples, batch

    def __getitem__(self, start: int) -> tuple[Batch | Exception, Mapping[Any, str]]:
        loaded: Batch | Exception
        try:
            loaded = Batch.joined([self.samples[start + k] for k in range(self.batch)])
        except (ValueError, StorageError) as error:
            loaded = error
        return loaded, self.samples.skipped


def _start_worker(_: int) -> None:
    cv2.setNumThreads(0)
    # An interrupt of the whole process group is the trainer's affair: it still writes a checkpoint
    # and then ends its loaders. A second SIGTERM does end them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))
    torch.set_num_threads(1)
