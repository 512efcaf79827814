"""Time of one pair on one core: the published procedure and this project's, in turns.

    python benchmarks/generate_speed.py --annotations COCO.json --images FOLDER

One object a pair, Poisson blending, 480 px, no style, for both. The published one ends with loose
files, this one with encoded members, or with a synced and hashed shard. Also prints how far either
one's recorded map misses the pixels (see position_error.py): a fast wrong pair is worth nothing.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import position_error
import published

from generators.compose import ONE_OBJECT, TWO_OBJECTS, Look, Recipe, RejectedDraw, generate_pair
from generators.sources.coco import coco_index
from generators.sources.index import Pool
from segswap.pair import Pair
from segswap.shards import encode_pair, write_shard

AREA = (0.015, 0.5)


def ours(pool: Pool, recipe: Recipe, first: int, count: int) -> Iterator[Pair]:
    """Accepted pairs, as segswap-generate draws them."""
    for index in range(first, first + count):
        rng = np.random.default_rng([0, index])
        while True:
            try:
                yield generate_pair(pool, recipe, Look(), rng, index=index)
                break
            except RejectedDraw:
                continue


def theirs(coco: published.Coco, first: int, count: int) -> Iterator[published.Published]:
    """Accepted pairs of the published procedure."""
    for index in range(first, first + count):
        rng = np.random.default_rng([0, index])
        while (pair := published.draw(coco, rng)) is None:
            pass
        yield pair


def seconds(job: Callable[[], object]) -> float:
    """Wall-clock time of a job."""
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


def errors_of(pairs: list[published.Published]) -> str:
    """The published pairs' position error, measured as position_error.py does."""
    pixels = np.diag([published.SIZE, published.SIZE, 1.0])
    found = []
    for pair in pairs:
        images = {
            "source": pair.source,
            "target": pair.target,
            "target_mask": (pair.target_mask > 128).astype(np.uint8),
        }
        matrix = np.linalg.inv(pixels) @ pair.matrix @ pixels
        found.append(position_error.register(images, 1, matrix))
    return position_error.summary(found)


def main() -> None:
    """Run the comparison and print its table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--annotations", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=100, help="pairs a repeat")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()

    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    cv2.setNumThreads(0)
    coco = published.Coco(options.annotations, options.images, AREA)
    index, _ = coco_index(options.annotations, options.images, *AREA)
    everything = np.arange(len(index))
    pool = Pool.of(index, everything, index, everything)
    count = options.pairs
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def loose(first: int) -> None:
            for number, pair in enumerate(theirs(coco, first, count), first):
                published.save(pair, folder, number)

        def encoded(first: int) -> None:
            for pair in ours(pool, ONE_OBJECT, first, count):
                encode_pair(pair)

        def shard(recipe: Recipe, first: int) -> None:
            write_shard(folder / "train-000000.tar", ours(pool, recipe, first, count))

        jobs: dict[str, Callable[[int], None]] = {
            "published procedure": loose,
            "segswap, encoded": encoded,
            "segswap, shard": lambda first: shard(ONE_OBJECT, first),
            "segswap, two objects, shard": lambda first: shard(TWO_OBJECTS, first),
        }
        times: dict[str, list[float]] = {what: [] for what in jobs}
        for job in jobs.values():  # warm-up
            job(0)
        for repeat in range(options.repeats):
            for what, job in jobs.items():
                times[what].append(1000 / count * seconds(lambda: job(repeat * count)))  # noqa: B023
        shard(ONE_OBJECT, 0)
        found = position_error.measure(folder)
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    processor = next(line for line in lines if line.startswith("model name"))
    print(f"{processor.split(':')[1].strip()}, one core, one thread; Python "
          f"{platform.python_version()}, OpenCV {cv2.__version__}, NumPy {np.__version__}; "
          f"{options.repeats} repeats of {count} pairs, in turns")  # fmt: skip
    print("| | ms/pair, median (min, max) | pairs/s | times the published speed |")
    print("|---|---|---|---|")
    base = statistics.median(times["published procedure"])
    for what, taken in times.items():
        median = statistics.median(taken)
        print(f"| {what} | {median:.1f} ({min(taken):.1f}, {max(taken):.1f}) | {1000 / median:.1f} "
              f"| {base / median:.2f} |")  # fmt: skip
    print("position error, published:", errors_of(list(theirs(coco, 0, count))))
    print("position error, segswap:  ", position_error.summary(found))


if __name__ == "__main__":
    main()
