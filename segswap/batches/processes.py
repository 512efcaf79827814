"""What loader processes make, handed over in a way that the machine has room for."""

import logging
import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.reduction import ForkingPickler
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info
from torch.utils.data._utils.pin_memory import pin_memory

LOG = logging.getLogger("segswap")
_SHARED = "/dev/shm"
_said = False


def load(
    make: Callable[[int], Any], numbers: Sequence[int], workers: int
) -> Generator[Any, None, None]:
    """What is made of the numbers, in their order.

    Loaders hand it over in shared memory, and where that has no room through pipes. Where they
    cannot be started, this process makes it. Either is said once.

    Args:
        make: called on a number, in a loader process; gives tensors in tuples, lists or mappings.
        numbers: of what is to be made.
        workers: loader processes; 0 makes it in this process.

    Raises:
        ValueError, OSError: what `make` raised, without a loader's traceback.
        RuntimeError: a loader was lost.
    """
    for made in _started(make, numbers, workers):
        found = made.opened() if isinstance(made, _Handed) else made
        if isinstance(made, _Handed) and made.unshared:
            _say_unshared(made.unshared)
        if isinstance(found, Exception):
            raise found
        yield found


class _LostLoaderError(RuntimeError):
    """A loader was gone before what it had made was taken over; the message says how it showed."""


def _of_torch(error: Exception) -> bool:
    return str(error).startswith("DataLoader worker")


@contextmanager
def lost_loader_says(advice: str) -> Iterator[None]:
    """Where a loader process dies, raise a RuntimeError that gives advice, in one line."""
    try:
        yield
    except RuntimeError as error:
        # torch's is raised by its handler of SIGCHLD, wherever the main thread is.
        if not isinstance(error, _LostLoaderError) and not _of_torch(error):
            raise
        said = str(error).partition(". ")[0].rstrip(".")
        raise RuntimeError(
            f"a loader process was lost, as by a lack of memory ({said}); use fewer --workers; "
            f"{advice}"
        ) from error


def _started(make: Callable[[int], Any], numbers: Sequence[int], workers: int) -> Iterator[Any]:
    def loader(processes: int) -> Iterator[Any]:
        return iter(
            DataLoader(
                _Made(make), sampler=numbers, batch_size=None, num_workers=processes,
                worker_init_fn=_start_worker, pin_memory=torch.cuda.is_available(),
                # Starting a loader draws a number: not from the generator of a run's dropout.
                generator=torch.Generator(),
            )
        )  # fmt: skip

    others = set(multiprocessing.active_children())
    try:
        return loader(workers)
    except (OSError, RuntimeError) as error:
        if not workers:
            raise
        for started in set(multiprocessing.active_children()) - others:
            started.kill()
        LOG.warning(
            "loader processes cannot be started (%s): this process loads, which takes longer; "
            "raise its limits (ulimit -u), or give fewer --workers", error,
        )  # fmt: skip
        return loader(0)


def _say_unshared(reason: str) -> None:
    global _said
    if _said:
        return
    _said = True
    LOG.warning(
        "%s: loaders hand over their batches through pipes, which takes longer; give %s more room "
        "(docker run --shm-size=2g), or use fewer --workers", reason, _SHARED,
    )  # fmt: skip


# --- in a loader process -----------------------------------------------------------------------


class _Made(Dataset[Any]):
    """What is made of numbers; what is wrong with the data comes in its place.

    Raised in a loader process, it would reach the trainer with that process's traceback as its
    message.
    """

    def __init__(self, make: Callable[[int], Any]) -> None:
        self.make = make

    def __getitem__(self, number: int) -> Any:
        made: Any
        try:
            made = self.make(number)
        except (ValueError, OSError) as error:
            made = error
        return made if get_worker_info() is None else _handed(made)


class _Handed:
    """Something as bytes, its tensors beside them in shared memory or among them."""

    def __init__(self, data: bytes, unshared: str = "") -> None:
        """
        Args:
            data: the pickled thing.
            unshared: why its tensors are among the bytes.
        """
        self.data, self.unshared = data, unshared

    def opened(self) -> Any:
        """The thing, in the process that it was handed to."""
        try:
            return pickle.loads(self.data)
        except (ConnectionError, EOFError, FileNotFoundError) as error:  # nobody answers
            return _LostLoaderError(f"a batch's loader is gone: {error or 'it sent nothing'}")
        except (OSError, RuntimeError) as error:
            if _of_torch(error):  # raised in whatever runs
                raise
            return RuntimeError(
                f"a loader's batch cannot be taken over ({error}); raise the limit of open files "
                "(ulimit -n), or use fewer --workers"
            )

    def pin_memory(self) -> "_Handed | Any":
        """Called by torch, in a thread."""
        found = self.opened()
        if isinstance(found, Exception) or self.unshared:
            return self
        return pin_memory(found)


def _handed(made: Any) -> _Handed:
    # Here, not in the queue's thread: what fails there is lost, and waited for without end.
    try:
        return _Handed(bytes(ForkingPickler.dumps(made)))
    except (RuntimeError, OSError) as error:
        return _Handed(pickle.dumps(made), _why(error))


def _why(error: Exception) -> str:
    """Why tensors cannot be shared, for a message."""
    try:
        room = os.statvfs(_SHARED)
    except OSError:
        return f"{_SHARED} cannot be used"
    if "No space left" in str(error):
        return f"{_SHARED} is full, with {room.f_blocks * room.f_frsize >> 20} MiB"
    return f"no memory can be shared ({str(error).partition(chr(10))[0]})"


def _start_worker(_: int) -> None:
    cv2.setNumThreads(0)
    # An interrupt of the whole process group is the trainer's affair: it still writes a checkpoint
    # and then ends its loaders. A second SIGTERM does end them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))
    torch.set_num_threads(1)
