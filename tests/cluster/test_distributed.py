"""Training processes joined by Ray Train: what they return, print and raise, and how they stop."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from runs import wait_for

Job = Callable[..., subprocess.Popen[str]]

SCRIPT = """
import os, signal, sys, time
from pathlib import Path

def job(config, rank, ranks):
    import torch
    import torch.distributed as group
    from pipelines.training.distributed import stop_asked

    def summed(value):
        tensor = torch.tensor([float(value)])
        group.all_reduce(tensor)
        return int(tensor)

{body}

from pipelines.command import cli
from pipelines.training.distributed import train_on_devices
from dataclasses import dataclass

@dataclass
class Settings:
    devices: int = 2

cli.run(
    Settings, lambda settings: max(train_on_devices(job, "made", settings.devices, cpu={cpu}))
)
"""


@pytest.fixture
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Job]:
    """Start a training of which the body of the function is given; whatever is left is killed."""
    running: list[subprocess.Popen[str]] = []
    folder = tmp_path_factory.mktemp("training")

    def starter(body: str, *flags: str, cpu: bool = True) -> subprocess.Popen[str]:
        indented = textwrap.indent(textwrap.dedent(body), "    ")
        script = SCRIPT.replace("{body}", indented).replace("{cpu}", str(cpu))
        (folder / "train.py").write_text(script)
        process = subprocess.Popen(
            [sys.executable, "train.py", *flags], cwd=folder, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        running.append(process)
        return process

    yield starter
    for process in running:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@pytest.mark.slow
def test_processes_reduce_print_and_return(start: Job) -> None:
    """Rank 0 alone is heard, once; the worst status is the command's. The folder is the user's."""
    process = start("""
        total = summed(rank + 1)
        print(f"rank {rank} of {ranks} {config}: {total}, {Path('train.py').exists()}")
        print("to the terminal's other stream", file=sys.stderr)
        return 3 * rank
    """)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 3, output
    assert output.count("rank 0 of 2 made: 3, True\n") == 1
    assert output.count("to the terminal's other stream\n") == 1
    assert "rank 1" not in output


@pytest.mark.slow
def test_an_error_ends_all_with_its_own_message(start: Job) -> None:
    """Of a rank that is not the first; the other one waits for it."""
    process = start("""
        if rank == 1:
            raise ValueError("the loss is not finite at step 7")
        summed(1)
    """)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 1, output
    assert output == "error: the loss is not finite at step 7\n"


@pytest.mark.slow
def test_a_killed_process_is_said(start: Job) -> None:
    process = start("""
        if rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        summed(1)
    """)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 1, output
    assert output.splitlines()[-1].startswith("error: a training process was lost"), output


STEPS = """
    for step in range(10**6):
        if summed(stop_asked()):
            print(f"stopped at step {step}")
            return 130
        if step == 3:
            print("under way")
        time.sleep(0.05)
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_signal_reaches_all_processes(start: Job, number: signal.Signals) -> None:
    """Ctrl-C as a terminal sends it, to the whole group; SIGTERM as batch systems do."""
    process = start(STEPS)
    wait_for_line("under way", process)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 130, output
    assert "stopping after this step; once more to stop at once" in output
    assert "stopped at step" in output
    assert "Traceback" not in output


@pytest.mark.slow
def test_a_second_signal_does_not_wait(start: Job) -> None:
    process = start("""
        print("under way")
        time.sleep(600)
    """)
    wait_for_line("under way", process)
    process.send_signal(signal.SIGINT)
    wait_for_line("stopping after this step", process)
    time.sleep(0.5)  # two in a row are one, which a parent sent on
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 130, output
    assert "Traceback" not in output


def wait_for_line(text: str, process: subprocess.Popen[str]) -> None:
    """Read the process's output up to a line that has the text."""
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if text in line:
            return
    raise AssertionError("".join(seen))


@pytest.mark.slow
def test_more_devices_than_there_are(start: Job) -> None:
    process = start("return 0", "--devices", "1000", cpu=False)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 1, output
    assert "error: --num-gpus is 1000, and this machine has" in output
    assert "--device cpu" in output


@pytest.mark.slow
def test_a_live_training_on_two_processes_is_stopped_and_resumed(
    script: Callable[[str], str], tmp_path: Path
) -> None:
    """segswap-train as a user starts it: rank 0 writes the run, whose folder is relative."""
    command = [
        script("segswap-train"), "--live", "--demo", "--out", "run", "--workers", "2",
        "--num-gpus", "2", "--device", "cpu", "--steps", "30", "--batch", "2", "--every", "10",
        "--size", "64", "--match-size", "64",
    ]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip
    wait_for((tmp_path / "run" / "last.pt").exists, process)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 130, output
    stopped = re.search(r"stopped at step (\d+); --resume goes on from there", output)
    assert stopped, output
    assert 10 <= int(stopped[1]) < 30
    done = subprocess.run(
        [*command, "--resume"], cwd=tmp_path, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "run: 30 steps; best at step" in done.stdout
    rows = (tmp_path / "run" / "history.csv").read_text().splitlines()
    steps = [int(row.split(",")[0]) for row in rows[1:]]
    assert steps == sorted({*range(10, 40, 10), *steps})
