"""Pairs a second that the loader alone gives from shards, augmented, with their ground truth.

    python benchmarks/loader_speed.py [PAIRS]

PAIRS is a dataset of 480 px; by default one of 200 pairs is made from the built-in photographs and
removed. Two loader processes, batches of 8; the first batches, while the processes start, are not
counted. The second table shows where one process spends a pair's time: what does not stand there is
the rest of it. On a machine where other jobs run all of this is too low.
"""

import argparse
import contextlib
import cProfile
import pstats
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import measuring
import numpy as np
import torch

from pipelines.generation.config import Amount
from segswap.batches.stream import PairStream

SETTINGS = ((240, 8), (480, 16))  # size and stride
BATCH, WARM_UP = 8, 4  # pairs; batches
# What a pair's time goes to, by the functions that do it.
PARTS = {
    "read from the shard": ("shards.py", "members"),
    "decode JPEG": ("images.py", "read_image"),
    "decode PNG": ("images.py", "read_labels"),
    "draw windows": ("augment.py", "random_window"),
    "draw splines": ("augment.py", "random_spline"),
    "warp images": ("augment.py", "image"),
    "photometric": ("augment.py", "photometric"),
    "ground truth": ("truth.py", "_truth"),
    "all of it": ("stream.py", "__getitem__"),
}


def speed(stream: PairStream, batches: int) -> float:
    """Pairs a second once the loader runs."""
    loaded = stream.batches(BATCH, 0, WARM_UP + batches)
    for _ in range(WARM_UP):
        next(loaded)
    start = time.perf_counter()
    count = sum(batch.pairs for batch in loaded)
    return count / (time.perf_counter() - start)


def milliseconds(stream: PairStream, pairs: int) -> dict[str, float]:
    """Time of each part of a pair in this process."""
    for number in range(BATCH):
        stream[number]
    profile = cProfile.Profile()
    profile.enable()
    for number in range(BATCH, BATCH + pairs):
        stream[number]
    profile.disable()
    spent = {
        (Path(file).name, function): row[3]
        for (file, _, function), row in pstats.Stats(profile).stats.items()  # type: ignore[attr-defined]
    }
    return {part: 1000 / pairs * spent.get(place, 0.0) for part, place in PARTS.items()}


@contextlib.contextmanager
def dataset(given: str | None) -> Iterator[str]:
    """The given dataset, or one that is made and removed."""
    if given is not None:
        yield given
        return
    with tempfile.TemporaryDirectory() as folder:
        out = f"{folder}/pairs"
        measuring.make_pairs(out, Amount(200, size=480, shard_pairs=50))
        yield out


def main() -> None:
    """Run the benchmark and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("pairs", nargs="?")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batches", type=int, default=50, help="batches a repeat")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)

    with dataset(options.pairs) as folder:
        streams = {
            (size, stride): PairStream(
                [folder], "train", size=size, stride=stride, workers=options.workers
            )
            for size, stride in SETTINGS
        }
        original = streams[SETTINGS[0]].pair(0)
        jobs = {
            f"{size}, {stride}": lambda _, stream=stream: speed(stream, options.batches)
            for (size, stride), stream in streams.items()
        }
        speeds = measuring.in_turns(jobs, options.repeats)
        parts = {setting: milliseconds(streams[setting], 100) for setting in SETTINGS}

    print(
        f"{measuring.machine(cv2, np, torch)}; {options.workers} workers, batches of {BATCH}, "
        f"{options.repeats} repeats of {options.batches} batches, in turns; "
        f"pairs of {original.width} x {original.height}"
    )
    measuring.print_table(
        ["size, stride", "pairs/s, median (min, max)"],
        ([setting, measuring.spread(found, 0)] for setting, found in speeds.items()),
    )
    print()
    measuring.print_table(
        ["part, ms a pair in one process", *(str(size) for size, _ in SETTINGS)],
        ([part, *(f"{parts[s][part]:.2f}" for s in SETTINGS)] for part in PARTS),
    )


if __name__ == "__main__":
    main()
