"""Two Ray workers against one process, and the memory that workers take.

    python benchmarks/ray_scaling.py --annotations COCO.json --images FOLDER

Runs segswap-generate, without style at 480 px, in one process (--inline), with two workers, and
with 64, which a machine of fewer CPUs says that it does not have. The times are those of
throughput.json: the start of Ray and the indexing of the inputs are left out, the workers' imports
are not. Memory is read from /proc twice a second: the peak resident size of the process or worker
that took most, and of all processes together, Ray's own included (what they share is counted as
often as it is shared).
"""

import argparse
import hashlib
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from pipelines.generate.throughput import processor

ROWS = {
    "one process": ["--inline"],
    "2 workers": ["--workers", "2"],
    "64 workers asked for": ["--workers", "64"],
}


def tree(root: int) -> dict[int, tuple[str, int]]:
    """Name and resident kB of a process and of all its descendants, by process number."""
    found, parents = {}, {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            lines = (entry / "status").read_text().splitlines()
            name = (entry / "cmdline").read_text().partition("\0")[0]
        except OSError:  # it has ended
            continue
        status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        parents[int(entry.name)] = int(status["PPid"])
        found[int(entry.name)] = (name, int(status.get("VmRSS", "0").split()[0]))
    below = {root}
    while more := {child for child, parent in parents.items() if parent in below} - below:
        below |= more
    return {number: found[number] for number in below if number in found}


def run(flags: list[str], out: Path) -> tuple[dict, float, float, int]:
    """One run of segswap-generate.

    Returns:
        throughput.json, the largest worker's peak MiB, the peak MiB of all processes together, and
        how many workers there were.
    """
    command = [str(Path(sys.executable).parent / "segswap-generate"), str(out), *flags]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peaks: dict[int, int] = defaultdict(int)
    together = 0
    while process.poll() is None:
        seen = tree(process.pid)
        together = max(together, sum(size for _, size in seen.values()))
        for number, (name, size) in seen.items():
            # Ray names a worker after its task, or ray::IDLE between two.
            if "--inline" in flags or name.startswith(("ray::task", "ray::IDLE")):
                peaks[number] = max(peaks[number], size)
        time.sleep(0.5)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with status {process.returncode}")
    speed = json.loads((out / "throughput.json").read_text())
    return speed, max(peaks.values()) / 1024, together / 1024, len(peaks)


def hashes(out: Path) -> dict[str, str]:
    """SHA-256 of the shards."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in out.glob("*.tar")}


def main() -> None:
    """Run the comparison and print its table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--annotations", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=4000, help="pairs a run")
    parser.add_argument("--shard-pairs", type=int, default=250)
    parser.add_argument("--repeats", type=int, default=3, help="runs of each, in turns")
    options = parser.parse_args()
    flags = [
        "--annotations", str(options.annotations), "--images", str(options.images),
        "--pairs", str(options.pairs), "--shard-pairs", str(options.shard_pairs),
    ]  # fmt: skip
    measured: dict[str, list] = {what: [] for what in ROWS}
    made = []
    for _ in range(options.repeats):
        for what, how in ROWS.items():
            with tempfile.TemporaryDirectory() as folder:
                measured[what].append(run([*flags, *how], Path(folder) / "pairs"))
                made.append(hashes(Path(folder) / "pairs"))
    print(f"{processor()}; Python {platform.python_version()}; {options.pairs} pairs in shards of "
          f"{options.shard_pairs}, {options.repeats} runs of each in turns")  # fmt: skip
    print("| | pairs/s, median (min, max) | times one process | workers | largest worker, MiB "
          "| all processes, MiB |")  # fmt: skip
    print("|---|---|---|---|---|---|")
    base = statistics.median(speed["pairs_per_second"] for speed, *_ in measured["one process"])
    for what, runs in measured.items():
        rates = [speed["pairs_per_second"] for speed, *_ in runs]
        median = statistics.median(rates)
        print(f"| {what} | {median:.1f} ({min(rates):.1f}, {max(rates):.1f}) | {median / base:.2f} "
              f"| {max(run[3] for run in runs)} | {max(run[1] for run in runs):.0f} "
              f"| {max(run[2] for run in runs):.0f} |")  # fmt: skip
    same = all(each == made[0] for each in made)
    print(f"shards of all runs: {'the same bytes' if same else 'DIFFERENT BYTES'}")


if __name__ == "__main__":
    main()
