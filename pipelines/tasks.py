"""Run one function over many items: in this process, or on Ray with a bounded window."""

import ctypes
import logging
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


@contextmanager
def ray_workers(workers: int) -> Iterator[None]:
    """A Ray of this process's own with so many workers, shut down at the end."""
    import ray  # it takes a second, and an inline run has no use for it

    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        ray.init(
            address="local", num_cpus=workers, include_dashboard=False, log_to_driver=False,
            logging_level=logging.WARNING, object_store_memory=200 * 2**20,
        )  # fmt: skip
    except Exception as error:  # Ray raises many kinds, among them when it is not up in 30 s
        ray.shutdown()
        raise RuntimeError(
            f"Ray did not start ({error}); run again when the machine is less busy, or use --inline"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def run_inline(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Results one after another, computed in this process."""
    settle()
    return map(function, items)


def run_on_ray(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Iterator[Result]:
    """Results as they finish, computed by Ray tasks, at most two a worker under way.

    A task whose process dies is tried again up to three times; an exception that the function
    raises is raised here.
    """
    import ray

    @ray.remote(max_retries=3)
    def task(item: Any) -> Any:
        # Ctrl-C reaches every process of the terminal; stopping is the driver's decision.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        settle()
        return function(item)

    pending: list[Any] = []
    remaining = iter(items)
    while True:
        while len(pending) < 2 * workers:
            try:
                pending.append(task.remote(next(remaining)))
            except StopIteration:
                break
        if not pending:
            return
        done, pending = ray.wait(pending)
        for reference in done:
            try:
                yield ray.get(reference)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None
            except ray.exceptions.RayError as error:
                raise RuntimeError(
                    f"a worker was lost four times ({error}); what is finished is kept, run again "
                    "to go on"
                ) from error


def settle() -> None:
    """Make this process one of many: one thread for OpenCV, which takes no notice of
    OMP_NUM_THREADS, and memory that is kept between pairs.

    Images are just large enough for glibc to hand their memory back each time, and to have it
    zeroed anew: 5% of a pair's time.
    """
    import cv2

    cv2.setNumThreads(0)
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, 64 << 20)
        libc.mallopt(_M_TRIM_THRESHOLD, 256 << 20)
