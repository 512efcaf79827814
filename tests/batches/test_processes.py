"""Loader processes without room to share memory, that die, or that cannot be started."""

import os
import pickle
import signal
import subprocess
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from segswap.batches import processes
from segswap.batches.processes import load, lost_loader_says


@pytest.fixture(autouse=True)
def _unsaid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_said", False)


def made(number: int) -> tuple[Tensor, dict[str, Any]]:
    return torch.full((1000,), float(number)), {"number": torch.tensor([number]), "none": None}


def assert_all(workers: int) -> None:
    found = list(load(made, range(5), workers))
    assert [int(values[0]) for values, _ in found] == list(range(5))
    assert [int(more["number"]) for _, more in found] == list(range(5))


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (RuntimeError("unable to allocate shared memory: No space left on device (28)"),
         "/dev/shm is full, with "),
        (OSError("AF_UNIX path too long"), "no memory can be shared (AF_UNIX path too long)"),
    ],
)  # fmt: skip
def test_where_memory_cannot_be_shared_pipes_do(
    fault: Exception, said: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refused(_: object) -> None:
        raise fault

    # By this name alone: the loaders' queues have the same pickler.
    monkeypatch.setattr(processes, "ForkingPickler", SimpleNamespace(dumps=refused))
    assert_all(2)
    told = capfd.readouterr().err
    assert told.count("loaders hand over their batches through pipes") == 1
    assert said in told
    assert "--workers" in told


def test_where_processes_cannot_be_started_this_one_loads(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    forked = []

    def limited() -> int:
        forked.append(1)
        if len(forked) > 1:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return fork()

    fork = os.fork
    monkeypatch.setattr("os.fork", limited)
    assert_all(2)
    assert "loader processes cannot be started" in capfd.readouterr().err


def fails(error: Exception, number: int) -> None:
    raise error


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("error", [ValueError("bad picture"), OSError("gone")])
def test_what_is_wrong_with_the_data_keeps_its_message(error: Exception, workers: int) -> None:
    with pytest.raises(type(error)) as raised:
        list(load(partial(fails, error), range(3), workers))
    assert str(raised.value) == str(error)


def killed(number: int) -> Tensor:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return torch.zeros(10)


@pytest.mark.slow  # ten seconds, in which PyTorch waits to see whether it is dead
def test_a_dead_loader_ends_the_loading() -> None:
    with (
        pytest.raises(RuntimeError, match=r"a loader process was lost.*; go on") as raised,
        lost_loader_says("go on"),
    ):
        list(load(killed, range(100), 2))
    assert "\n" not in str(raised.value)


def raised(error: Exception) -> None:
    raise error


class _Raises:
    """Raises, when it is taken over."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __reduce__(self) -> Any:
        return raised, (self.error,)


@pytest.mark.parametrize(
    "error",
    [ConnectionResetError(104, "reset by peer"), ConnectionRefusedError(111, "refused"),
     BrokenPipeError(32, "pipe"), FileNotFoundError(2, "no such socket"), EOFError()],
)  # fmt: skip
def test_a_loader_gone_before_its_batch_is_taken_over_is_a_lost_loader(error: Exception) -> None:
    found = processes._Handed(pickle.dumps(_Raises(error))).opened()
    with (
        pytest.raises(RuntimeError, match=r"a loader process was lost.*--workers; go on"),
        lost_loader_says("go on"),
    ):
        raise found


def test_a_limit_of_open_files_is_not_a_lost_loader() -> None:
    found = processes._Handed(pickle.dumps(_Raises(OSError(24, "Too many open files")))).opened()
    with pytest.raises(RuntimeError, match="ulimit -n"), lost_loader_says("go on"):
        raise found


@pytest.mark.slow
def test_a_small_dev_shm_trains_all_the_same(
    dataset: str, script: Any, tmp_path: Any
) -> None:  # fmt: skip
    """256 KiB of it, four loaders: as in a container with its 64 MB and larger pictures."""
    command = [
        script("segswap-train"), dataset, "--out", str(tmp_path / "run"), "--steps", "4",
        "--every", "4", "--batch", "2", "--size", "128", "--workers", "4", "--device", "cpu",
        "--negatives", "0",
    ]  # fmt: skip
    mounted = 'mount -t tmpfs -o size=256k tmpfs /dev/shm && exec "$@"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", mounted, "sh", *command], capture_output=True, text=True,
        timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    if "not permitted" in done.stderr or "permission denied" in done.stderr:
        pytest.skip("mounting is not permitted")
    assert done.returncode == 0, done.stderr
    assert "/dev/shm is full" in done.stderr
    assert "Traceback" not in done.stderr
