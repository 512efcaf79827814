"""Training samples made by workers that die, and tasks whose results are taken in order."""

import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from runs import processes_below

from pipelines.command.cluster import ray_cluster
from pipelines.command.tasks import run_in_order
from pipelines.generation.config import Composition, Inputs, Styling
from pipelines.training.live import live_stream

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")


def at_work() -> list[int]:
    """This process's Ray workers that are in the middle of a task."""
    found = []
    for pid in processes_below(os.getpid()):
        try:
            name = Path(f"/proc/{pid}/cmdline").read_text()
        except OSError:
            continue
        if name.startswith("ray::task"):
            found.append(pid)
    return found


@pytest.mark.slow
def test_killed_workers_change_nothing_and_nothing_is_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Two of them, at different times, with a Ray that the stream starts and ends."""
    import ray

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    settings = {"size": 64, "stride": 8, "seed": 0, "workers": 2}
    with live_stream(Inputs(demo=True), Composition(), Styling(), **settings) as stream:
        killed: dict[int, int] = {}  # step by process
        found = []
        for step, batch in enumerate(stream.batches(4, 0, 10**6)):
            found.append(batch.source.image)
            if step > 10 + max(killed.values(), default=0):
                if len(killed) == 2:
                    break
                for pid in at_work()[:1]:
                    os.kill(pid, signal.SIGKILL)
                    killed[pid] = step
        undisturbed = [batch.source.image for batch in stream.batches(4, 0, len(found))]
        assert all(map(torch.equal, found, undisturbed))
        assert any("segswap-live" in path.name for path in tmp_path.iterdir())
    assert not ray.is_initialized()
    assert not any("segswap-live" in path.name for path in tmp_path.iterdir())


# --- results in order; from here on this process is in one Ray ---------------------------------


@pytest.fixture(scope="module")
def _two_cpus() -> Iterator[None]:
    with ray_cluster(2, store=100 * 2**20):
        yield


def worker(folder: Path) -> Callable[[int, float], int]:
    """A task that leaves a file named after its item when it begins, and takes its time.

    Ray sends it as it is: its workers cannot import the tests.
    """

    def begin(item: int, seconds: float) -> int:
        (folder / f"{item}").touch()
        time.sleep(seconds)
        if item == 99:
            raise ValueError("item 99 cannot be made")
        return item

    return begin


def begun(folder: Path, least: int = 0) -> int:
    """How many tasks have begun, once no more of them does for a while; waits for so many."""
    count, since = 0, time.monotonic()
    while time.monotonic() - since < (1.5 if count >= least else 90):
        if (now := len(list(folder.iterdir()))) != count:
            count, since = now, time.monotonic()
        time.sleep(0.05)
    return count


@pytest.mark.slow
@pytest.mark.usefixtures("_two_cpus")
def test_results_come_in_order_and_a_window_ahead(tmp_path: Path) -> None:
    """Early items take longest. Nobody takes a result: no more is begun than the window."""
    items = [(n, 0.2 if n % 4 == 0 else 0.0) for n in range(20)]
    results = run_in_order(worker(tmp_path), iter(items), window=5)
    assert begun(tmp_path) == 0
    assert next(results) == 0
    assert begun(tmp_path, 5) == 5
    assert [next(results), next(results)] == [1, 2]
    assert begun(tmp_path, 7) == 7
    assert list(results) == list(range(3, 20))
    assert begun(tmp_path, 20) == 20


@pytest.mark.slow
@pytest.mark.usefixtures("_two_cpus")
def test_closing_cancels_what_has_not_begun(tmp_path: Path) -> None:
    results = run_in_order(worker(tmp_path), ((n, 0.5) for n in range(100)), window=50)
    assert next(results) == 0
    results.close()
    assert begun(tmp_path) < 25  # of the fifty of the window; a busy machine is slow to cancel


@pytest.mark.slow
@pytest.mark.usefixtures("_two_cpus")
def test_an_error_of_the_function_keeps_its_message(tmp_path: Path) -> None:
    results = run_in_order(worker(tmp_path), ((n, 0.0) for n in (1, 99, 2)), window=2)
    assert next(results) == 1
    with pytest.raises(ValueError, match=r"^item 99 cannot be made$"):
        next(results)
