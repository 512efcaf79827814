"""What the benchmarks share: the machine in a line, jobs in turns, memory, tables, made pairs."""

import argparse
import contextlib
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from pipelines.command.tasks import cores
from pipelines.generation.config import Amount, GenerateConfig, Inputs, Running
from pipelines.generation.job import generate
from pipelines.generation.throughput import processor

Name = TypeVar("Name")
Result = TypeVar("Result")


def machine(*modules: ModuleType) -> str:
    """The processor, its cores and their load, and the versions of Python and of modules."""
    versions = [f"{module.__name__} {module.__version__}" for module in modules]
    return "; ".join([
        f"{processor()}, {cores()} cores, load {os.getloadavg()[0]:.1f}",
        ", ".join([f"Python {platform.python_version()}", *versions]),
    ])  # fmt: skip


def timed(job: Callable[[], Result]) -> tuple[float, Result]:
    """Seconds that a job takes, and what it returns."""
    start = time.perf_counter()
    result = job()
    return time.perf_counter() - start, result


def seconds(job: Callable[[], object]) -> float:
    """Seconds that a job takes."""
    return timed(job)[0]


def in_turns(
    jobs: Mapping[Name, Callable[[int], Result]], repeats: int, warm_up: bool = False
) -> dict[Name, list[Result]]:
    """What each job returns each time: first all once, then all again, so that none has the quiet
    hours of the machine for itself.

    Args:
        jobs: by name; each gets the number of the repeat, from 0.
        repeats: how often.
        warm_up: run all once before, as repeat 0, which does not count.
    """
    found: dict[Name, list[Result]] = {name: [] for name in jobs}
    for number in range(-warm_up, repeats):
        for name, job in jobs.items():
            result = job(max(number, 0))
            if number >= 0:
                found[name].append(result)
    return found


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Values as "median (min, max)"."""
    middle, least, most = statistics.median(values), min(values), max(values)
    return f"{middle:.{digits}f} ({least:.{digits}f}, {most:.{digits}f})"


def print_table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a Markdown table, each row as soon as it is there."""
    for cells in (heads, ["---"] * len(heads)):
        print(f"| {' | '.join(cells)} |")
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |", flush=True)


def memory(kinds: tuple[str, ...], pid: int | None = None) -> float:
    """MiB of a process, by default this one, that Linux counts under any of some names of
    smaps_rollup; 0 if it has ended.
    """
    try:
        lines = Path(f"/proc/{pid or 'self'}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith(kinds)) / 1024


def descendants(pid: int) -> list[int]:
    """The processes that a process started, and those that these started."""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the thread has ended
            found += [int(child) for child in path.read_text().split()]
    return found + [below for child in found for below in descendants(child)]


def add_coco(parser: argparse.ArgumentParser) -> None:
    """The flags that name the images to make pairs from."""
    parser.add_argument("--annotations", required=True, help="COCO instances JSON")
    parser.add_argument("--images", required=True, help="folder of its images")


def make_pairs(folder: str | Path, amount: Amount, inputs: Inputs | None = None) -> None:
    """Make a dataset in this process, and end the benchmark if that fails; what segswap-generate
    prints goes to stderr. Without inputs they are made from the built-in photographs.
    """
    inputs = inputs or Inputs(demo=True)
    config = GenerateConfig(str(folder), amount, inputs, running=Running(0))
    with contextlib.redirect_stdout(sys.stderr):
        status = generate(config)
    if status:
        sys.exit(status)
