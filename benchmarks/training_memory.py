"""Whether the memory of a training run stays flat: its trainer and its loader, over many steps.

    python benchmarks/training_memory.py

Runs segswap-train with the correlation matcher at a tiny size from shards, one loader process, with
history, TensorBoard, checkpoints and val scores 20 times a run; the pairs are made from the
built-in photographs and removed. Memory is read from /proc five times a second: resident pages of
the processes' own and of shared memory, each counted once however many of them share it; not those
of libraries' files, whose count depends on what else runs here. Memory at a share of the steps is
the median over the 5% of the steps before it, so that the short peaks of checkpoints and scores,
shown apart, do not decide. If it grows from 10% to 100% of the steps by more than 10% or by more
than 50 MiB, the exit status is 1. Needs Linux.
"""

import argparse
import csv
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import measuring
import torch

from pipelines.generation.config import Amount
from segswap.training.history import HISTORY

INTERVALS = 20  # of a run: a checkpoint at the end of each
SHOWN = (10, 50, 100)  # percent of the steps
MOST_SHARE, MOST_MIB = 0.1, 50.0  # of growth


def memory(pid: int) -> float:
    """MiB of a process that belong to no file, its part of what it shares included."""
    return measuring.memory(("Pss_Anon:", "Pss_Shmem:"), pid)


def last_step(run: Path) -> int:
    """The last step in the history of a run."""
    if not (run / HISTORY).exists():
        return 0
    with open(run / HISTORY, newline="") as file:
        return max((int(row["step"]) for row in csv.DictReader(file)), default=0)


def watch(process: subprocess.Popen[bytes], run: Path, every: int) -> list[list[list[float]]]:
    """MiB of the trainer and of its loaders, a list of samples for each interval of the run."""
    samples: list[list[list[float]]] = [[] for _ in range(INTERVALS)]
    while process.poll() is None:
        interval = last_step(run) // every
        if interval < INTERVALS:  # else it is ending
            below = sum(map(memory, measuring.descendants(process.pid)))
            samples[interval].append([memory(process.pid), below])
        time.sleep(0.2)
    if process.returncode:
        sys.exit(f"segswap-train ended with status {process.returncode}")
    return samples


def measure(options: argparse.Namespace) -> list[list[list[float]]]:
    """Make pairs, and watch a training run on them."""
    with tempfile.TemporaryDirectory() as folder:
        pairs, run = f"{folder}/pairs", Path(folder) / "run"
        measuring.make_pairs(pairs, Amount(200, 16, val_share=0.34, size=128, shard_pairs=25))
        every = options.steps // INTERVALS
        numbers = {
            "steps": every * INTERVALS, "every": every, "batch": options.batch,
            "size": options.size, "match-size": options.size, "workers": 1,
        }  # fmt: skip
        flags = [f"--{name}={value}" for name, value in numbers.items()]
        command = [str(Path(sys.executable).parent / "segswap-train"), pairs, "--out", str(run)]
        process = subprocess.Popen([*command, *flags], stdout=subprocess.DEVNULL)
        try:
            return watch(process, run, every)
        finally:
            if process.poll() is None:
                os.kill(process.pid, signal.SIGTERM)
                process.wait()


def main() -> None:
    """Run the benchmark, print its table, and fail if memory grows."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--size", type=int, default=64, help="side of the images, pixels")
    options = parser.parse_args()
    if options.steps < 10 * INTERVALS:
        parser.error(f"--steps is {options.steps}; expected at least {10 * INTERVALS}")
    samples = measure(options)
    found = {share: samples[share * INTERVALS // 100 - 1] for share in SHOWN}
    if not all(found.values()):
        sys.exit("the run was too fast to be watched; give more --steps")

    print(f"{measuring.machine(torch)}; {options.steps // INTERVALS * INTERVALS} steps of "
          f"{options.batch} pairs of {options.size} px; {sum(map(len, samples))} looks"
    )  # fmt: skip
    together = {share: statistics.median(map(sum, looks)) for share, looks in found.items()}
    rows = []
    for share, looks in found.items():
        trainer, loader = (statistics.median(values) for values in zip(*looks, strict=True))
        values = (trainer, loader, together[share], max(map(sum, looks)))
        rows.append([f"{share}%", *(f"{value:.0f}" for value in values)])
    measuring.print_table(
        ["steps", "trainer, MiB", "loader, MiB", "together, MiB", "peak, MiB"], rows
    )
    first, last = together[SHOWN[0]], together[SHOWN[-1]]
    growth = last - first
    grows = growth > MOST_SHARE * first or growth > MOST_MIB
    verdict = "MEMORY GROWS" if grows else "flat"
    print(f"{verdict}: {growth:+.0f} MiB ({100 * growth / first:+.1f}%) "
          f"from {SHOWN[0]}% to {SHOWN[-1]}% of the steps")  # fmt: skip
    sys.exit(int(grows))


if __name__ == "__main__":
    main()
