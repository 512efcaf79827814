"""Kills, signals, a full disk and broken inputs: whole shards only, and then the same bytes."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Run
from runs import (
    assert_same,
    assert_unfinished,
    assert_whole_shards,
    shards,
    wait_for,
    writing,
)

Start = Callable[..., subprocess.Popen[str]]
INLINE, WORKERS = ["--workers=0"], ["--workers", "2"]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc"),
]

both = pytest.mark.parametrize("how", [INLINE, WORKERS], ids=["inline", "workers"])


# --- kill -9 -----------------------------------------------------------------------------------


@both
def test_killed_in_the_middle_and_run_again(
    flags: list[str], start: Start, generate: Run, reference: Path, tmp_path: Path, how: list[str]
) -> None:
    """Of the whole process group, twice, and each time in the middle of a shard."""
    out = tmp_path / "out"
    for wanted in (4, 8) if how == INLINE else (4,):
        process = start(out, *flags, *how)
        wait_for(lambda n=wanted: len(shards(out)) >= n, process)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert not (out / "segswap.json").exists()
        assert_whole_shards(out)
    made = {path.name: path.stat().st_mtime_ns for path in shards(out)}
    generate(out, *flags, "--workers=0")
    assert_same(out, reference)
    kept = [name for name in made if (out / name).stat().st_mtime_ns == made[name]]
    # A shard whose record was not yet written is made again: one a worker at most.
    assert len(kept) >= len(made) - (1 if how == INLINE else 2) > 0


def test_a_killed_driver_takes_its_workers_along(
    flags: list[str], start: Start, generate: Run, reference: Path, tmp_path: Path
) -> None:
    """kill -9 of the one process that the user started, and the same command again."""
    out = tmp_path / "out"
    process = start(out, *flags, *WORKERS)
    wait_for(lambda: shards(out) and writing(out, process.pid), process)
    workers = writing(out, process.pid)
    process.kill()
    deadline = time.monotonic() + 240
    while any(alive(pid) for pid in workers):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert not (out / "segswap.json").exists()
    assert_whole_shards(out)
    generate(out, *flags, "--workers=0")
    assert_same(out, reference)


def alive(pid: int) -> bool:
    """Whether a process has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")")[-1].split()[0] != "Z"
    except OSError:
        return False


def test_a_killed_worker_is_replaced(
    flags: list[str], start: Start, reference: Path, tmp_path: Path
) -> None:
    """In the middle of a shard: it is made again, and what it rejected counts once."""
    out = tmp_path / "out"
    process = start(out, *flags, *WORKERS)
    wait_for(lambda: shards(out) and writing(out, process.pid), process)
    os.kill(writing(out, process.pid)[0], signal.SIGKILL)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert_same(out, reference)


# --- Ctrl-C and SIGTERM ------------------------------------------------------------------------


def send(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """Ctrl-C as a terminal sends it, to all processes; SIGTERM as batch systems do."""
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)


@both
def test_interrupted_once(
    flags: list[str], start: Start, generate: Run, reference: Path, tmp_path: Path, how: list[str]
) -> None:
    """The shards under way are finished, no other one is begun, and nothing else is left."""
    out = tmp_path / "out"
    process = start(out, *flags, *how)
    wait_for(lambda: shards(out), process)
    send(process, signal.SIGINT)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 130, output
    assert "finishing the shards under way" in output
    assert output.strip().endswith("the same command goes on where it stopped")
    assert "Traceback" not in output
    assert_unfinished(out)
    # With its record: none is made again.
    records = {path.stem for path in (out / ".segswap").glob("*.tar.json")}
    assert records == {path.name for path in shards(out)}
    generate(out, *flags, "--workers=0")
    assert_same(out, reference)


@both
def test_interrupted_twice(
    flags: list[str], start: Start, generate: Run, tmp_path: Path, how: list[str]
) -> None:
    """A second Ctrl-C does not wait for the shards under way, here of minutes."""
    out = tmp_path / "out"
    large = ["--pairs=200000", "--shard-pairs=100000"]
    process = start(out, *flags, *large, *how)
    wait_for(lambda: list(out.glob(".train-*.tmp")), process)
    send(process, signal.SIGINT)
    time.sleep(1)
    assert process.poll() is None, process.communicate()[0]
    send(process, signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert output.strip().endswith("the same command goes on where it stopped")
    assert "Traceback" not in output
    assert_unfinished(out)
    assert not shards(out)


@both
def test_terminated(
    flags: list[str], start: Start, generate: Run, reference: Path, tmp_path: Path, how: list[str]
) -> None:
    out = tmp_path / "out"
    process = start(out, *flags, *how)
    wait_for(lambda: shards(out), process)
    send(process, signal.SIGTERM)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 130, output
    assert_unfinished(out)
    generate(out, *flags, "--workers=0")
    assert_same(out, reference)


def test_interrupted_while_the_inputs_are_read(data: Path, start: Start, tmp_path: Path) -> None:
    """Nothing is under way then that is worth waiting for."""
    out = tmp_path / "out"
    images = data / "coco_mini" / "train2017"
    process = start(out, "--images", images, "--pairs", 10, "--workers=0")
    wait_for(lambda: out.exists(), process)
    send(process, signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert "finishing" not in output
    assert_unfinished(out)


# --- a full disk -------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def generate(generate_process: Run) -> Run:
    """In a process of its own always: these tests change its environment and its disk."""
    return generate_process


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for some of the shards; tests make room by `resize`."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2M", "tmpfs", str(disk)], capture_output=True
    )
    if done.returncode:
        pytest.skip(f"mounting is not permitted: {done.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@both
def test_a_full_disk(
    flags: list[str], generate: Run, reference: Path, small_disk: Path, how: list[str]
) -> None:
    """A message, whole shards only; with more room the same command goes on."""
    out = small_disk / "out"
    done = generate(out, *flags, *how, status=1)
    assert "No space left on device" in done.stderr
    assert "make room, and the same command goes on" in done.stderr
    assert "Traceback" not in done.stderr
    assert_unfinished(out)
    assert shards(out)
    subprocess.run(["mount", "-o", "remount,size=64M", str(small_disk)], check=True)
    generate(out, *flags, *how)
    assert_same(out, reference)


# --- broken inputs -----------------------------------------------------------------------------


@pytest.fixture
def broken_twentieth(data: Path, tmp_path: Path) -> list[str]:
    """Flags that name the COCO subset, with 5% of its images broken after they were listed."""
    images = tmp_path / "images"
    shutil.copytree(data / "coco_mini" / "train2017", images)
    for number, path in enumerate(sorted(images.iterdir())):
        if number % 20 == 7:
            path.write_bytes(path.read_bytes()[:2000])
    annotations = data / "coco_mini" / "annotations" / "instances_train2017.json"
    return [
        "--annotations", str(annotations), "--images", str(images), "--pairs", "150",
        "--shard-pairs", "15", "--size", "128",
    ]  # fmt: skip


@both
def test_broken_inputs(
    broken_twentieth: list[str], start: Start, generate: Run, tmp_path: Path, how: list[str]
) -> None:
    """They are listed, and a killed and resumed run tells the same of them."""
    undisturbed, out = tmp_path / "undisturbed", tmp_path / "out"
    generate(undisturbed, *broken_twentieth, "--workers=0")
    skipped = json.loads((undisturbed / "segswap.json").read_text())["skipped"]
    given = [path for path in (tmp_path / "images").iterdir() if path.stat().st_size == 2000]
    assert skipped
    assert {item["image"] for item in skipped} <= {path.name for path in given}
    assert all(item["reason"] for item in skipped)
    process = start(out, *broken_twentieth, *how)
    wait_for(lambda: len(shards(out)) >= 3, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    generate(out, *broken_twentieth, "--workers=0")
    assert_same(out, undisturbed)
