"""Ctrl-C and SIGTERM, in processes of their own and in this one."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from pipelines.command import stopping as module
from pipelines.command.stopping import stopping

HANDLED = (signal.SIGINT, signal.SIGTERM)
ANSWER = "once more to stop at once"
# A command whose job is what stands in {job}.
COMMAND = """
import time
from dataclasses import dataclass
from pipelines.command import cli, stopping
stopping._GRACE = 1.0

@dataclass(frozen=True)
class Config:
    "A job."

def job(config):
    {job}

cli.run(Config, job)
"""
SLEEP = "print('begun', flush=True); time.sleep(60)"
# As a graph's loops: compiled, they come back to the interpreter at their end alone.
COMPILED = """
    import threading
    import numba

    @numba.njit(nogil=True)
    def long(count):
        found = 1.0
        for number in range(count):
            found = found * 1.0000001 + number % 7
        return found

    long(1)
    threading.Timer(0.5, print, ["begun"], {"flush": True}).start()  # when it is at work
    long(10**12)
"""
STEPS = """
    with stopping.stopping() as signals, signals.in_order("stopping after this step") as asked:
        print("begun", flush=True)
        while not asked():
            time.sleep(0.01)
    print("in order", flush=True)
    return 130
"""
# A loader that waits, as for a file that never comes.
LOADER = """
    from segswap.batches.processes import load

    def wait(seconds):
        print("begun", flush=True)
        time.sleep(seconds)

    with stopping.stopping() as signals, signals.in_order("stopping after this step"):
        list(load(wait, [3600], 2))
"""


@pytest.fixture
def begun() -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Starts such a command in a group of its own, and waits until it is at work."""
    running: list[subprocess.Popen[str]] = []

    def start(job: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", COMMAND.format(job=job)], text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        running.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n", process.communicate()[0]
        return process

    yield start
    for process in running:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def answer(process: subprocess.Popen[str]) -> str:
    """What a process says next that is not empty."""
    assert process.stdout is not None
    while (line := process.stdout.readline()) == "\n":
        pass
    return line


@pytest.mark.parametrize(
    ("job", "said", "number"),
    [(SLEEP, "stopping; ", signal.SIGTERM), (STEPS, "stopping after this step; ", signal.SIGINT)],
)
def test_the_first_signal_ends_in_order_and_says_so(
    begun: Callable[[str], subprocess.Popen[str]], job: str, said: str, number: int
) -> None:
    process = begun(job)
    os.killpg(process.pid, number)
    os.killpg(process.pid, number)  # as a parent sends it on: the same press
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 130, output
    assert output.count(said + ANSWER) == 1
    assert ("in order" in output) == (job == STEPS)
    assert "Traceback" not in output


@pytest.mark.slow
@pytest.mark.parametrize("job", [COMPILED, LOADER], ids=["compiled", "loader"])
def test_the_second_signal_ends_at_once_whatever_is_at_work(
    begun: Callable[[str], subprocess.Popen[str]], job: str
) -> None:
    """Compiled code that does not come back, and a loader that waits for ever."""
    process = begun(job)
    os.killpg(process.pid, signal.SIGINT)
    assert ANSWER in answer(process)
    time.sleep(0.5)
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=40)  # also of the loaders, which hold its output
    assert process.returncode == 130, output
    assert "Traceback" not in output


def test_within_another_it_is_that_one_and_handlers_are_put_back() -> None:
    before = list(map(signal.getsignal, HANDLED))
    with stopping() as outer:
        with stopping() as inner, inner.in_order("finishing"):
            assert inner is outer
            signal.raise_signal(signal.SIGTERM)
        assert outer.asked
        time.sleep(module._ONE_PRESS)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert list(map(signal.getsignal, HANDLED)) == before


def test_the_answer_names_the_work_that_the_signal_found_also_when_it_comes_late(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The work may end before the thread that answers is given its turn."""
    ended, read = threading.Event(), os.read
    monkeypatch.setattr(module.os, "read", lambda *of: (ended.wait(60), read(*of))[1])
    with stopping() as signals:
        with signals.in_order("finishing"):
            signal.raise_signal(signal.SIGTERM)
        ended.set()
    assert capfd.readouterr().err == f"\nfinishing; {ANSWER}\n"


def test_handlers_stay_until_a_parent_has_sent_the_first_signal_on() -> None:
    before, first = list(map(signal.getsignal, HANDLED)), time.monotonic()
    with stopping() as signals, signals.in_order("finishing"):
        signal.raise_signal(signal.SIGTERM)
    assert time.monotonic() - first >= module._ONE_PRESS
    assert list(map(signal.getsignal, HANDLED)) == before
