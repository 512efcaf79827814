"""Two Ray workers against one process, and the memory that workers take.

    python benchmarks/ray_scaling.py --annotations COCO.json --images FOLDER

Runs segswap-generate, without style at 480 px, in one process (--workers 0), with two workers, and
with 64, which a machine of fewer CPUs says that it does not have. The times are those of
throughput.json: the start of Ray and the indexing of the inputs are left out, the workers' imports
are not. Memory is read from /proc twice a second: the peak resident size of the process or worker
that took most, and of all processes together, Ray's own included (what they share is counted as
often as it is shared).
"""

import argparse
import contextlib
import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import measuring

ROWS = {
    "one process": ["--workers=0"],
    "2 workers": ["--workers", "2"],
    "64 workers asked for": ["--workers", "64"],
}


def tree(root: int) -> dict[int, tuple[str, int]]:
    """Name and resident kB of a process and of all its descendants, by process number."""
    found = {}
    for number in (root, *measuring.descendants(root)):
        with contextlib.suppress(OSError):  # it has ended
            lines = Path(f"/proc/{number}/status").read_text().splitlines()
            name = Path(f"/proc/{number}/cmdline").read_text().partition("\0")[0]
            status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
            found[number] = (name, int(status.get("VmRSS", "0").split()[0]))
    return found


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
            if "--workers=0" in flags or name.startswith(("ray::task", "ray::IDLE")):
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
    measuring.add_coco(parser)
    parser.add_argument("--pairs", type=int, default=4000, help="pairs a run")
    parser.add_argument("--shard-pairs", type=int, default=250)
    parser.add_argument("--repeats", type=int, default=3, help="runs of each, in turns")
    options = parser.parse_args()
    flags = [
        "--annotations", options.annotations, "--images", options.images,
        "--pairs", str(options.pairs), "--shard-pairs", str(options.shard_pairs),
    ]  # fmt: skip
    made = []

    def once(how: list[str]) -> tuple[dict, float, float, int]:
        with tempfile.TemporaryDirectory() as folder:
            measured = run([*flags, *how], Path(folder) / "pairs")
            made.append(hashes(Path(folder) / "pairs"))
        return measured

    jobs = {what: lambda _, how=how: once(how) for what, how in ROWS.items()}
    measured = measuring.in_turns(jobs, options.repeats)
    print(f"{measuring.machine()}; {options.pairs} pairs in shards of {options.shard_pairs}, "
          f"{options.repeats} runs of each in turns")  # fmt: skip
    rates = {
        what: [speed["pairs_per_second"] for speed, *_ in runs] for what, runs in measured.items()
    }
    base = statistics.median(rates["one process"])
    measuring.print_table(
        ["", "pairs/s, median (min, max)", "times one process", "workers", "largest worker, MiB",
         "all processes, MiB"],
        (
            [what, measuring.spread(rates[what]), f"{statistics.median(rates[what]) / base:.2f}",
             max(run[3] for run in runs), f"{max(run[1] for run in runs):.0f}",
             f"{max(run[2] for run in runs):.0f}"]
            for what, runs in measured.items()
        ),
    )  # fmt: skip
    same = all(each == made[0] for each in made)
    print(f"shards of all runs: {'the same bytes' if same else 'DIFFERENT BYTES'}")


if __name__ == "__main__":
    main()
