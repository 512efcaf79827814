"""One command at a time in a folder: also after a kill, in forks, and where no folder is."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Run
from made_models import save_model
from runs import in_process

from pipelines.discovery.config import main as discover_command
from pipelines.evaluate.config import main as eval_command
from pipelines.search.index_config import main as index_command
from pipelines.training.config import main as train_command
from pipelines.training.style_config import main as style_command
from segswap.files.locks import LOCK, InUseError, is_empty, locked

HOLD = """
import sys, time
from segswap.files.locks import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def hold(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    return process


def test_a_folder_is_locked_made_and_left_as_it_was(tmp_path: Path) -> None:
    out = tmp_path / "new" / "deeper"
    with locked(out):
        assert is_empty(out)
        with (
            pytest.raises(InUseError, match=rf"{out} is in use: process {os.getpid()} on .*; wait"),
            locked(out),
        ):
            pass
        with locked(out.parent):  # another folder
            pass
    assert not out.parent.exists()
    out.mkdir(parents=True)
    with locked(f"file://{out}"):
        (out / "made").touch()
        assert not is_empty(out)
    assert [path.name for path in out.iterdir()] == ["made"]
    with pytest.raises(KeyError), locked(out):
        raise KeyError
    with locked(out), locked("memory://somewhere"), locked("memory://somewhere"):
        pass


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_lock_of_a_dead_process_is_taken_over(number: int, tmp_path: Path) -> None:
    process = hold(tmp_path)
    with pytest.raises(InUseError, match=f"process {process.pid} on"), locked(tmp_path):
        pass
    process.send_signal(number)
    process.wait()
    process.stdout.close()  # type: ignore[union-attr]
    assert (tmp_path / LOCK).exists()
    with locked(tmp_path):
        pass
    assert not (tmp_path / LOCK).exists()


def test_a_fork_does_not_keep_the_lock(tmp_path: Path) -> None:
    """A process that loads samples may live some seconds longer than its parent."""
    reading, writing = os.pipe()
    with locked(tmp_path):
        child = os.fork()
        if not child:
            os.read(reading, 1)
            os._exit(0)
    with locked(tmp_path):
        pass
    os.write(writing, b"x")
    os.waitpid(child, 0)
    os.close(reading)
    os.close(writing)


def test_where_nothing_can_be_written_the_command_itself_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with locked(tmp_path / "file"), locked(tmp_path / "file" / "below"):
        pass
    assert (tmp_path / "file").is_file()


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (index_command, ["{images}", "--out", "{out}", "--model", "{model}", "--workers=0"]),
        (discover_command, ["{images}", "--out", "{out}", "--model", "{model}", "--workers=0"]),
        (train_command, ["{pairs}", "--out", "{out}", "--device=cpu", "--workers=0"]),
        (style_command, ["{images}", "{images}", "--out", "{out}", "--workers=0"]),
        (eval_command, ["{pairs}", "--predictions", "{out}", "--model", "{model}",
                        "--device=cpu"]),
    ],
)  # fmt: skip
def test_a_second_command_is_told_who_is_at_work(
    command: Callable[[], None], arguments: list[str], shapes: tuple[Path, Path], dataset: str,
    tmp_path: Path,
) -> None:  # fmt: skip
    places = {"images": shapes[1], "out": tmp_path / "out", "pairs": dataset,
              "model": save_model(tmp_path / "model")}  # fmt: skip
    with locked(tmp_path / "out"):
        done = in_process(command, "command", *(each.format(**places) for each in arguments))
        assert [path.name for path in (tmp_path / "out").iterdir()] == [LOCK]
    assert done.returncode == 1
    said = done.stderr.splitlines()[-1]
    assert said.startswith(f"error: {tmp_path / 'out'} is in use: process {os.getpid()} on ")


def test_two_generates(flags: list[str], generate: Run, tmp_path: Path) -> None:
    with locked(tmp_path / "out"):
        done = generate(tmp_path / "out", *flags, "--workers=0", status=1)
    assert "is in use: process" in done.stderr
    assert not (tmp_path / "out").exists()
    # A lock that a killed command left is no other file in the folder.
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / LOCK).write_text("process 1 on elsewhere")
    generate(tmp_path / "out", *flags, "--pairs", 2, "--val-pairs", 0, "--workers=0")
    assert not (tmp_path / "out" / LOCK).exists()
