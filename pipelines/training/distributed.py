"""One training process a device, on one machine or many, through Ray Train."""

import os
import pickle
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from io import TextIOBase
from typing import Any, TypeVar

from pipelines.command.cluster import ray_cluster
from pipelines.command.messages import LOG, said
from pipelines.command.stopping import STEP, stopping
from pipelines.command.tasks import cores

Config = TypeVar("Config")
Result = TypeVar("Result")
_INTERVAL = 0.5  # seconds between looks at whether to stop, and at what there is to print
_desk: Any = None  # the driver's, in a training process
_looked, _asked = 0.0, False  # when it was last asked whether to stop, and its answer


def train_on_devices(
    function: Callable[[Config, int, int], Result], config: Config, devices: int, *, cpu: bool,
    address: str | None = None,
) -> list[Result]:  # fmt: skip
    """Run a training function in one process a device, all of them joined by torch.distributed.

    The processes' current folder is this one's. What rank 0 prints is printed here. The first
    SIGINT or SIGTERM makes `stop_asked` true in all processes and waits for them to end; a second
    one ends them. A process that fails ends the others.

    Args:
        function: called with the config, the process's rank, and how many there are. It runs in a
            thread, where no handler of a signal can be set. "cuda" is the process's own device
            there.
        config: given to the function.
        devices: how many processes, each with a GPU of its own.
        cpu: use no GPUs: any number of processes share the CPUs, and gloo joins them, not nccl.
        address: a running Ray cluster's, as ray.init takes it; None for this machine alone.

    Returns:
        What the function returned, by rank.

    Raises:
        ValueError: there are fewer GPUs than devices, or what the function raised.
        RuntimeError: Ray does not start, a process was lost, or what the function raised.
        KeyboardInterrupt: at the second signal.
    """
    with ray_cluster(cores(), address), tempfile.TemporaryDirectory() as folder:
        import ray

        _check_gpus(0 if cpu else devices, address)
        desk = _desk_here()
        job = {
            "function": function, "config": config, "desk": desk, "folder": os.getcwd(),
            "level": LOG.level,
        }  # fmt: skip
        failure = _watch(_trainer(job, devices, cpu, folder).fit, desk)
        returned, error = ray.get(desk.outcome.remote())
    if failure is None:
        return [returned[rank] for rank in range(devices)]
    if error is None:
        error = RuntimeError(
            "a training process was lost, as by a lack of memory, or the connection to it; "
            "--resume goes on from the last checkpoint"
        )
    raise error from failure


def _check_gpus(wanted: int, address: str | None) -> None:
    import ray

    there = int(ray.cluster_resources().get("GPU", 0))
    if wanted > there:
        where = f"the cluster at {address}" if address else "this machine"
        raise ValueError(
            f"--num-gpus is {wanted}, and {where} has {there}; lower it, or train on the CPU with "
            "--device cpu"
        )


def _trainer(job: dict[str, Any], devices: int, cpu: bool, folder: str) -> Any:
    """Ray's trainer; nothing of use is written into the folder."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    # All CPUs are left to the generator: Ray wants some resource a process, and a byte will do.
    scaling = ScalingConfig(
        num_workers=devices, use_gpu=not cpu, resources_per_worker={"memory": 1} if cpu else None
    )
    run = RunConfig(
        name="run", storage_path=folder, failure_config=FailureConfig(max_failures=0)
    )  # fmt: skip
    os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")  # it prints everything twice
    return TorchTrainer(
        _run_rank, train_loop_config=job, scaling_config=scaling, run_config=run,
        torch_config=TorchConfig(backend="gloo" if cpu else "nccl"),
    )  # fmt: skip


def _desk_here() -> Any:
    """A desk on this machine, which outlives lost ones."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(_Desk).options(num_cpus=0, scheduling_strategy=here).remote()


def stop_asked() -> bool:
    """Whether the user has asked this training process to stop: a look at the driver twice a
    second, and False in a process that `train_on_devices` did not start.

    Processes may learn of it at different steps, and have to agree on one.
    """
    global _looked, _asked
    if _desk is not None and not _asked and time.monotonic() - _looked > _INTERVAL:
        import ray

        _asked, _looked = ray.get(_desk.stop_asked.remote()), time.monotonic()
    return _asked


def _watch(fit: Callable[[], Any], desk: Any) -> Exception | None:
    """Run Ray Train to its end, print what it has to say, and hand signals on to it.

    Returns:
        What Ray Train raised.
    """
    import ray

    failures: list[Exception] = []
    # A thread whose join is interrupted counts as ended (Python 3.11, bpo-45274).
    ended = threading.Event()

    def run() -> None:
        try:
            fit()
        except Exception as error:
            failures.append(error)
        finally:
            ended.set()

    # In the main thread, Ray Train would take the signals for itself, and leave no checkpoint.
    threading.Thread(target=run, daemon=True).start()
    over = told = False
    try:
        with stopping() as signals, signals.in_order(STEP) as asked:
            while not over:
                over = ended.wait(_INTERVAL)
                if asked() and not told:
                    told = True
                    ray.get(desk.ask_to_stop.remote())
                for stream, text in ray.get(desk.taken.remote()):
                    getattr(sys, stream).write(text)
                    getattr(sys, stream).flush()
    except KeyboardInterrupt:
        # Shut down while the thread still waits for it, Ray would end this process with status 1.
        # Where that takes Ray Train too long, a command is ended by force.
        for process in ray.get(desk.processes.remote()):
            ray.kill(process)
        ended.wait()
        raise
    return failures[0] if failures else None


class _Desk:
    """An actor between the driver and the training processes."""

    def __init__(self) -> None:
        self._stop = False
        self._processes: list[Any] = []
        self._returned: dict[int, Any] = {}
        self._error: Exception | None = None
        self._printed: list[tuple[str, str]] = []

    def begun(self, process: Any) -> None:
        self._processes.append(process)

    def processes(self) -> list[Any]:
        """Handles of the training processes."""
        return self._processes

    def ask_to_stop(self) -> None:
        self._stop = True

    def stop_asked(self) -> bool:
        return self._stop

    def print(self, stream: str, text: str) -> None:
        self._printed.append((stream, text))

    def taken(self) -> list[tuple[str, str]]:
        """What was printed since the last call."""
        printed, self._printed = self._printed, []
        return printed

    def ended(self, rank: int, returned: Any) -> None:
        self._returned[rank] = returned

    def failed(self, error: Exception) -> None:
        self._error = self._error or error

    def outcome(self) -> tuple[dict[int, Any], Exception | None]:
        """What the processes returned, by rank, and the first error."""
        return self._returned, self._error


# --- in a training process ---------------------------------------------------------------------


def _run_rank(settings: dict[str, Any]) -> None:
    """What Ray Train runs in each of the processes."""
    global _desk
    import ray
    import torch.distributed

    _desk = settings["desk"]
    rank, ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
    try:
        ray.get(_desk.begun.remote(ray.get_runtime_context().current_actor))
        _enter(settings["folder"])
        with _printing(_desk, settings["level"]) if rank == 0 else nullcontext():
            returned = settings["function"](settings["config"], rank, ranks)
        ray.get(_desk.ended.remote(rank, returned))
    except Exception as error:
        if not _follows_a_loss(error):
            ray.get(_desk.failed.remote(_portable(error)))
        raise


def _follows_a_loss(error: Exception) -> bool:
    """Whether an error only says that another process is gone, which gloo does in words alone."""
    from torch.distributed import DistError

    return isinstance(error, DistError) or "gloo/transport" in str(error)


def _enter(folder: str) -> None:
    """Make the driver's folder this process's, so that its relative paths mean the same."""
    try:
        os.chdir(folder)
    except OSError as error:
        raise RuntimeError(
            f"the folder {folder} is not there on {socket.gethostname()} ({error.strerror}); to "
            "train on several machines, start in a folder that all of them share"
        ) from error


class _Printer(TextIOBase):
    """A text stream that ends at the driver's."""

    def __init__(self, desk: Any, stream: str) -> None:
        self._desk, self._stream = desk, stream

    def write(self, text: str) -> int:
        self._desk.print.remote(self._stream, text)
        return len(text)


@contextmanager
def _printing(desk: Any, level: int) -> Iterator[None]:
    """Print at the driver what this process prints, and what it says of a level and above."""
    out, error = (_Printer(desk, stream) for stream in ("stdout", "stderr"))
    with redirect_stdout(out), redirect_stderr(error), said(level):
        yield


def _portable(error: Exception) -> Exception:
    """The error, or one with its text where it cannot be sent to another process."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
