"""Run one function over many items: in this process, or on Ray with a bounded window."""

import math
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pipelines.command.cluster import import_ray, ray_cluster
from pipelines.command.memory import keep_memory
from pipelines.command.messages import LOG

Item = TypeVar("Item")
Result = TypeVar("Result")
RETRIES = 3
_PATIENCE = 20  # retries of a task that others must not stop for
_STUCK = 60.0  # seconds without a result before the cluster is looked at


@contextmanager
def ray_workers(workers: int, address: str | None = None) -> Iterator[None]:
    """Ray for so many workers that keep next to nothing in its object store: see ray_cluster.

    Where this process has Ray already, that is used, and left as it is. An own cluster has no more
    workers than this process may use CPUs. Fewer CPUs than workers are said on standard error.

    Args:
        workers: how many are wanted.
        address: the running cluster's, as ray.init takes it; None for an own one.

    Raises:
        RuntimeError: Ray does not start, or no cluster answers.
        MissingExtraError: Ray is not installed.
    """
    if import_ray().is_initialized():
        yield
        return
    with ray_cluster(min(workers, cores()), address, store=200 * 2**20):
        say_available(workers, address)
        yield


def say_available(workers: int, address: str | None) -> None:
    """Say on standard error that there are fewer CPUs than workers, where it is so."""
    available = _available("CPU")
    if workers > available:
        where = f"the cluster at {address}" if address else "this machine"
        LOG.warning(
            "--workers %d: %s has %g CPUs; working with what there is", workers, where, available
        )


def cores() -> int:
    """CPUs that this process may use: of its affinity, and of its control group's quota."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota, period = "max", "1"
    limit = Path("/sys/fs/cgroup/cpu.max")
    if limit.exists():
        quota, period = limit.read_text().split()
    return max(1, min(allowed or 1, sys.maxsize if quota == "max" else int(quota) // int(period)))


def at_once(workers: int) -> int:
    """How many of so many workers Ray has CPUs for now; 1 at least, which waits for one."""
    return max(1, min(workers, int(_available("CPU"))))


def gpu_share(workers: int) -> float:
    """The share of a GPU that each of so many workers can have, so that all of them run at once;
    0 where Ray has none."""
    gpus = int(_available("GPU"))
    return 1 / math.ceil(workers / gpus) if gpus else 0.0


def _available(resource: str) -> float:
    """How much of a resource the cluster has now, in use or not."""
    import ray

    return ray.cluster_resources().get(resource, 0.0)


def run_inline(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Results one after another, computed in this process."""
    settle()
    return map(function, items)


def run_on_ray(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int, gpu: float = 0.0
) -> Iterator[Result]:
    """Results as they finish, computed by Ray tasks.

    No more tasks are under way than the cluster has CPUs for at that time, nor more than workers:
    memory does not grow with the number of items, and what is handed out is soon finished. A task
    whose process or node dies is tried again, up to three times; an exception that the function
    raises is raised here.

    Args:
        function: called in a worker process, on one item.
        items: taken one by one, as workers become free.
        workers: most tasks at a time, 1 or more.
        gpu: share of a GPU that each task asks for.
    """
    task = _task(function, gpu, RETRIES)
    pending: list[Any] = []
    remaining = iter(items)
    while True:
        window = at_once(workers)
        while len(pending) < window:
            try:
                pending.append(task.remote(next(remaining)))
            except StopIteration:
                break
        if not pending:
            return
        done, pending = _wait(pending, gpu)
        for reference in done:
            yield _result(reference, RETRIES, "what is finished is kept, run again to go on")


def run_in_order(
    function: Callable[..., Result], items: Iterable[tuple[Any, ...]], window: int, gpu: float = 0.0
) -> Generator[Result, None, None]:
    """Results in the order of the items, computed ahead of the taker by Ray tasks.

    No more than `window` results are under way or waiting to be taken: nothing new is begun until
    one is. A task whose process or node dies is tried again, and only one that is lost some twenty
    times is taken to be the cause of it; an exception that the function raises is raised here. When
    this iterator is closed, tasks that wait for a worker are cancelled, and those under way are the
    last.

    Args:
        function: called in a worker process, on an item's values; Ray's references to objects among
            them are replaced by the objects.
        items: taken one by one.
        window: most results that are not yet taken, 1 or more.
        gpu: share of a GPU that each task asks for.
    """
    import ray

    task = _task(function, gpu, _PATIENCE)
    pending: deque[Any] = deque()
    remaining = iter(items)
    try:
        while True:
            while len(pending) < window and (item := next(remaining, None)) is not None:
                pending.append(task.remote(*item))
            if not pending:
                return
            _wait([pending[0]], gpu)
            yield _result(pending.popleft(), _PATIENCE, "the items are the cause, or the machines")
    finally:
        if ray.is_initialized():
            for reference in pending:
                ray.cancel(reference)


def _task(function: Callable[..., Any], gpu: float, retries: int) -> Any:
    """A function as a Ray task of a process that is settled."""
    import ray

    # Said outright, the strategy keeps a trainer's tasks out of the trainer's own resources.
    @ray.remote(max_retries=retries, num_cpus=1, num_gpus=gpu, scheduling_strategy="DEFAULT")
    def task(*values: Any) -> Any:
        # Ctrl-C reaches every process of the terminal; stopping is the driver's decision.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        settle()
        return function(*values)

    return task


def _result(reference: Any, retries: int, advice: str) -> Any:
    """What a finished task returned, or the exception that its function raised."""
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        raise RuntimeError(f"a worker was lost {retries + 1} times ({error}); {advice}") from error


def _wait(pending: list[Any], gpu: float) -> tuple[list[Any], list[Any]]:
    """Wait for a task to finish, and say so where the cluster has nothing left to run it on.

    Returns:
        Finished tasks and the others.
    """
    import ray

    while True:
        done, others = ray.wait(pending, timeout=_STUCK)
        if done:
            return done, others
        if _available("CPU") < 1 or _available("GPU") < gpu:
            what = "CPU" if _available("CPU") < 1 else "GPU"
            now = time.strftime("%H:%M:%S")
            LOG.warning("%s the Ray cluster has no %s left; waiting for one to join", now, what)


def settle() -> None:
    """Make this process one of many: one thread for OpenCV, which takes no notice of
    OMP_NUM_THREADS, and memory that is kept between pairs. Ray has set OMP_NUM_THREADS to 1 for
    the others.
    """
    import cv2

    cv2.setNumThreads(0)
    keep_memory()
