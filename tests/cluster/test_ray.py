"""Ray clusters: an address to join and leave, fewer CPUs than asked for, nodes that come and go."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from subprocess import Popen

import pytest
from conftest import Run
from runs import assert_same, shards, wait_for, writing

from pipelines.command import tasks
from pipelines.command.tasks import at_once, gpu_share, ray_workers, run_on_ray

STORE = 80 * 2**20


@pytest.fixture
def cluster() -> Iterator:
    """Makes clusters of this machine's processes, each with an address of its own."""
    from ray.cluster_utils import Cluster

    made = []

    def make(**head: int) -> Cluster:
        arguments = {"include_dashboard": False, "object_store_memory": STORE, **head}
        made.append(Cluster(initialize_head=True, head_node_args=arguments))
        return made[-1]

    yield make
    for each in made:
        each.shutdown()


@pytest.mark.slow
def test_a_lost_node_changes_nothing_and_the_cluster_is_left_running(
    cluster: Callable, flags: list[str], start: Callable[..., Popen[str]], generate: Run,
    reference: Path, tmp_path: Path,
) -> None:  # fmt: skip
    """Its shards are made elsewhere. Started in another folder, which the flags' paths survive."""
    both, out = cluster(num_cpus=1), tmp_path / "out"
    lost = both.add_node(num_cpus=1, object_store_memory=STORE)
    process = start(out, *flags, "--address", both.address, "--workers", 3)
    wait_for(lambda: len(shards(out)) >= 3 and writing(out, os.getpid()), process)
    both.remove_node(lost, allow_graceful=False)
    output, _ = process.communicate(timeout=150)
    assert process.returncode == 0, output
    assert (
        f"--workers 3: the cluster at {both.address} has 2 CPUs; working with what there is"
        in output
    )
    assert_same(out, reference)
    # The next command finds the cluster as it was.
    generate(tmp_path / "next", *flags, "--pairs", 15, "--address", both.address, "--workers", 1)


def test_no_cluster_at_the_address(generate: Run, tmp_path: Path) -> None:
    """Said at once; Ray itself would ask for minutes."""
    done = generate(tmp_path / "out", "--demo", "--address", "127.0.0.1:9", status=1)
    assert "no Ray cluster can be joined at --address 127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stderr


def doubler() -> Callable[[int], int]:
    """What the tests' tasks do: fail, die, or answer. Ray sends it as it is: its workers cannot
    import the tests."""

    def twice(item: int) -> int:
        if item == -1:
            raise ValueError("cannot be doubled")
        if item == -2:
            os._exit(1)
        time.sleep(0.01)
        return 2 * item

    return twice


def assert_all_delivered_within(window: int, count: int) -> None:
    """Every item is delivered once, and no more than a window of them is ever under way."""
    handed = delivered = widest = 0

    def items() -> Iterator[int]:
        nonlocal handed, widest
        for item in range(count):
            handed += 1
            widest = max(widest, handed - delivered)
            yield item

    found = []
    for result in run_on_ray(doubler(), items(), window):
        found.append(result)
        delivered += 1
    assert sorted(found) == list(range(0, 2 * count, 2))
    assert widest <= window


@pytest.mark.slow
def test_tasks_on_an_own_ray(capfd: pytest.CaptureFixture[str]) -> None:
    with ray_workers(1000):
        workers = at_once(1000)
        assert workers == tasks.cores()
        assert f"--workers 1000: this machine has {workers} CPUs" in capfd.readouterr().err
        assert_all_delivered_within(workers, 50)
        with pytest.raises(ValueError, match="cannot be doubled"):
            list(run_on_ray(doubler(), [1, -1, 2], workers))
        with pytest.raises(RuntimeError, match="a worker was lost 4 times"):
            list(run_on_ray(doubler(), [-2], workers))
        assert list(run_on_ray(doubler(), [], workers)) == []


@pytest.mark.parametrize(
    ("gpus", "workers", "share"), [(0, 4, 0), (1, 2, 0.5), (2, 3, 0.5), (4, 2, 1), (8, 64, 0.125)]
)
def test_all_workers_fit_onto_the_gpus(
    monkeypatch: pytest.MonkeyPatch, gpus: int, workers: int, share: float
) -> None:
    """A GPU's shares are whole: three workers on two GPUs have a half each, not two thirds."""
    monkeypatch.setattr(tasks, "_available", {"GPU": gpus}.get)
    assert gpu_share(workers) == share


@pytest.mark.slow
def test_tasks_share_a_gpu(cluster: Callable) -> None:
    """Two of them at a time on one GPU, which Ray is told of and need not be there."""
    own = cluster(num_cpus=2, num_gpus=1)

    def seen(item: int) -> tuple[float, float, str]:
        begun = time.time()
        time.sleep(0.5)
        return begun, time.time(), os.environ["CUDA_VISIBLE_DEVICES"]

    with ray_workers(2, own.address):
        share = gpu_share(at_once(2))
        assert share == 0.5
        spans = sorted(run_on_ray(seen, range(6), 2, share))
    assert {device for *_, device in spans} == {"0"}
    assert any(later[0] < earlier[1] for earlier, later in pairwise(spans))


@pytest.mark.slow
def test_a_cluster_without_cpus_waits_for_some(
    cluster: Callable, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The only node with CPUs is lost; when another one joins, the work goes on."""
    monkeypatch.setattr(tasks, "_STUCK", 2.0)
    shrinking = cluster(num_cpus=0)
    only = shrinking.add_node(num_cpus=2, object_store_memory=STORE)
    with ray_workers(2, shrinking.address):
        results = run_on_ray(doubler(), range(300), 2)
        found = [next(results) for _ in range(20)]
        shrinking.remove_node(only, allow_graceful=False)
        rest = threading.Thread(target=lambda: found.extend(results), daemon=True)
        rest.start()
        said = ""
        while "the Ray cluster has no CPU left; waiting for one to join" not in said:
            assert rest.is_alive()
            said += capfd.readouterr().err
            time.sleep(0.1)
        shrinking.add_node(num_cpus=1, object_store_memory=STORE)
        rest.join(timeout=120)
        assert sorted(found) == list(range(0, 600, 2))


@pytest.mark.slow
def test_64_logical_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """More processes than any machine of the tests has cores for: none is lost, none too many."""
    monkeypatch.setattr(tasks, "cores", lambda: 64)
    with ray_workers(64):
        assert at_once(64) == 64
        assert_all_delivered_within(64, 2000)
