"""What the benchmarks measure with."""

import os
import subprocess
import sys
import types

import pytest
from conftest import ROOT


@pytest.fixture
def measuring(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import measuring

    return measuring


def test_jobs_run_in_turns_and_the_warm_up_does_not_count(measuring: types.ModuleType) -> None:
    run: list[tuple[str, int]] = []
    jobs = {
        "a": lambda number: run.append(("a", number)) or len(run),
        "b": lambda number: run.append(("b", number)) or len(run),
    }
    assert measuring.in_turns(jobs, 2) == {"a": [1, 3], "b": [2, 4]}
    assert run == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]
    run.clear()
    assert measuring.in_turns(jobs, 1, warm_up=True) == {"a": [3], "b": [4]}
    assert run == [("a", 0), ("b", 0)] * 2


def test_a_table_s_row_is_printed_as_soon_as_it_is_there(
    measuring: types.ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    def rows() -> object:
        yield ["first", measuring.spread([3.04, 1, 2])]
        assert capsys.readouterr().out.splitlines() == [
            "| what | s |", "| --- | --- |", "| first | 2.0 (1.0, 3.0) |"
        ]  # fmt: skip
        yield ["second", 1]

    measuring.print_table(["what", "s"], rows())
    assert capsys.readouterr().out == "| second | 1 |\n"


@pytest.mark.skipif(not os.path.exists("/proc/self/smaps_rollup"), reason="this is no Linux")
def test_memory_is_of_the_process_that_is_asked_for(measuring: types.ModuleType) -> None:
    # Not this process's own: it may keep what earlier tests freed.
    code = "import time; held = b'1' * (64 << 20); print(flush=True); time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    assert child.pid in measuring.descendants(os.getpid())
    assert 64 <= measuring.memory(("Pss_Anon:",), child.pid) < 100
    child.kill()
    child.wait()
    assert measuring.memory(("Pss_Anon:",), child.pid) == 0
    child.stdout.close()
