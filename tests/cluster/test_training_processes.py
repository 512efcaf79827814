"""segswap-train on Ray: several processes at once, and pairs made while it trains."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from training_runs import assert_same_run, history, small_dataset

from segswap.models.model import load
from segswap.training.checkpoints import load_state

Train = Callable[..., subprocess.Popen[str]]
SMALL = ["--batch", "2", "--size", "64", "--match-size", "64", "--device", "cpu"]


@pytest.fixture
def begin(script: Callable[[str], str], tmp_path: Path) -> Iterator[Train]:
    """Start segswap-train in a process group of its own; whatever is left is killed."""
    running: list[subprocess.Popen[str]] = []

    def starter(*arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [script("segswap-train"), *map(str, arguments)], cwd=tmp_path,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        running.append(process)
        return process

    yield starter
    for process in running:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def finish(process: subprocess.Popen[str]) -> str:
    """What a process that succeeds has said."""
    output = process.communicate(timeout=240)[0]
    assert process.returncode == 0, output
    return output


def stop(process: subprocess.Popen[str], out: Path) -> str:
    """Interrupt a run past its first checkpoint; what it has said."""
    limit = time.monotonic() + 180
    while not (out / "last.pt").exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < limit
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 130, output
    return output


@pytest.mark.slow
def test_two_processes_train_stop_and_go_on(begin: Train, tmp_path: Path) -> None:
    small_dataset(tmp_path / "pairs")
    flags = ["pairs", "--out", "run", *SMALL, "--num-gpus", 2, "--steps", 60, "--every", 5]
    output = stop(begin(*flags), tmp_path / "run")
    step = load_state(tmp_path / "run")["step"]
    assert 5 <= step < 60
    assert f"stopped at step {step}; --resume" in output
    output = finish(begin(*flags, "--resume"))
    assert "run: 60 steps; best at step" in output
    assert load_state(tmp_path / "run")["step"] == 60
    assert int(history(tmp_path / "run")[-1]["step"]) == 60
    load(tmp_path / "run")


@pytest.mark.slow
def test_what_is_wrong_in_one_of_two_processes_is_said_in_a_line(
    begin: Train, tmp_path: Path
) -> None:
    small_dataset(tmp_path / "pairs")
    (tmp_path / "pairs" / "train-000001.tar").unlink()
    process = begin("pairs", "--out", "run", *SMALL, "--num-gpus", 2, "--steps", 9)
    output = process.communicate(timeout=240)[0]
    assert process.returncode == 1
    assert output.splitlines()[-1].startswith("error: ")
    assert "train-000001.tar" in output.splitlines()[-1]


@pytest.mark.slow
def test_live_training_stops_and_goes_on_exactly_whatever_the_workers(
    begin: Train, tmp_path: Path, shapes: tuple[Path, Path]
) -> None:
    flags = [
        "--live", *SMALL, "--annotations", shapes[0], "--images", shapes[1], "--objects", 1,
        "--steps", 30, "--every", 5,
    ]  # fmt: skip
    finish(begin(*flags, "--out", "whole", "--workers", 2))
    stop(begin(*flags, "--out", "run", "--workers", 1), tmp_path / "run")
    assert 5 <= load_state(tmp_path / "run")["step"] < 30
    finish(begin(*flags, "--out", "run", "--workers", 2, "--resume"))
    assert_same_run(tmp_path / "run", tmp_path / "whole")
    assert all(row["val_mask_iou"] for row in history(tmp_path / "run"))


@pytest.mark.slow
def test_two_processes_train_on_pairs_made_meanwhile(
    begin: Train, tmp_path: Path, shapes: tuple[Path, Path]
) -> None:
    output = finish(
        begin(
            "--live", *SMALL, "--annotations", shapes[0], "--images", shapes[1], "--objects", 1,
            "--out", "run", "--steps", 4, "--every", 2, "--workers", 2, "--num-gpus", 2,
        )
    )  # fmt: skip
    assert "run: 4 steps" in output
