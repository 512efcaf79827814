"""Time of one pair on one core: the published procedure and this project's, in turns.

    python benchmarks/generate_speed.py --annotations COCO.json --images FOLDER

One object a pair, Poisson blending, 480 px, no style, for both. Each runs in a process of its own,
as its users would run it, and all on one core. The published one ends with loose files, this one
with encoded members, or with a synced and hashed shard. The floor is what no generator of such
pairs goes without: decoding two images, encoding two and their masks, and one solution of Poisson's
equation on each pair's patch. Also prints how far either one's recorded map misses the pixels (see
position_error.py): a fast wrong pair is worth nothing.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import cv2
import measuring
import numpy as np
import position_error
import published

from generators.composition.blending import patch_around, solve_poisson
from generators.composition.compose import generate_pair
from generators.composition.recipe import ONE_OBJECT, TWO_OBJECTS, Recipe
from generators.sources.coco import coco_index
from generators.sources.index import Pool
from pipelines.command.tasks import settle
from segswap.data.pair import Pair
from segswap.data.shards import JPEG_QUALITY, encode_pair, write_shard
from segswap.files.images import encode_jpeg, encode_png, read_image

AREA = (0.015, 0.5)


class Segswap:
    """This project's side, in a process that is set up as a generator's worker is."""

    def __init__(self, annotations: Path, images: Path) -> None:
        settle()
        index, _ = coco_index(annotations, images, *AREA)
        self.pool = Pool.whole(index)

    def pairs(self, recipe: Recipe, first: int, count: int) -> Iterator[Pair]:
        """Accepted pairs, as segswap-generate draws them."""
        for index in range(first, first + count):
            rng = np.random.default_rng([0, index])
            yield generate_pair(self.pool, recipe, rng, index=index)

    def encoded(self, folder: Path, first: int, count: int) -> float:
        pairs = self.pairs(ONE_OBJECT, first, count)
        return measuring.seconds(lambda: [encode_pair(pair) for pair in pairs])

    def shard(self, folder: Path, first: int, count: int, recipe: Recipe = ONE_OBJECT) -> float:
        pairs = self.pairs(recipe, first, count)
        return measuring.seconds(lambda: write_shard(folder / "train-000000.tar", pairs))

    def two_objects(self, folder: Path, first: int, count: int) -> float:
        return self.shard(folder, first, count, TWO_OBJECTS)

    def floor(self, folder: Path, first: int, count: int) -> float:
        """The floor's work for the same pairs; they themselves are made off the clock."""
        index, taken = self.pool.index, 0.0
        names = {index.image_name(i): index.image_path(i) for i in range(len(index))}
        for pair in self.pairs(ONE_OBJECT, first, count):
            files = [names[pair.objects[0].segment["image"]], names[pair.background["image"]]]
            patch = patch_around(pair.target_mask > 0)
            right = np.zeros((patch.rows, patch.columns, 3), np.float32)
            start = time.perf_counter()
            for file in files:
                read_image(file, exif=False)
            solve_poisson(right)
            for image in (pair.source, pair.target):
                encode_jpeg(image, JPEG_QUALITY)
            for mask in (pair.source_mask, pair.target_mask):
                encode_png(mask)
            taken += time.perf_counter() - start
        return taken


class Published:
    """The published procedure's side."""

    def __init__(self, annotations: Path, images: Path) -> None:
        cv2.setNumThreads(0)
        self.coco = published.Coco(annotations, images, AREA)

    def pairs(self, first: int, count: int) -> Iterator[published.Published]:
        """Accepted pairs."""
        for index in range(first, first + count):
            rng = np.random.default_rng([0, index])
            while (pair := published.draw(self.coco, rng)) is None:
                pass
            yield pair

    def loose(self, folder: Path, first: int, count: int) -> float:
        start = time.perf_counter()
        for number, pair in enumerate(self.pairs(first, count), first):
            published.save(pair, folder, number)
        return time.perf_counter() - start

    def errors(self, folder: Path, first: int, count: int) -> str:
        """Its pairs' position error."""
        return errors_of(list(self.pairs(first, count)))


ROWS = {
    "published procedure": ("loose", Published),
    "segswap, encoded": ("encoded", Segswap),
    "segswap, shard": ("shard", Segswap),
    "segswap, two objects, shard": ("two_objects", Segswap),
    "the floor": ("floor", Segswap),
}
_side: dict[type, Segswap | Published] = {}  # of a child process


def begin(side: type, annotations: Path, images: Path) -> None:
    """Set a child process up."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    _side[side] = side(annotations, images)


def call(side: type, name: str, *arguments: object) -> object:
    """Do one job in a child process."""
    return getattr(_side[side], name)(*arguments)


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
    measuring.add_coco(parser)
    parser.add_argument("--pairs", type=int, default=100, help="pairs a repeat")
    parser.add_argument("--repeats", type=int, default=11)
    options = parser.parse_args()

    count, inputs = options.pairs, (Path(options.annotations), Path(options.images))
    processes = {
        side: ProcessPoolExecutor(1, get_context("spawn"), begin, (side, *inputs))
        for side in (Published, Segswap)
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def run(what: str, first: int) -> float:
            job, side = ROWS[what]
            return processes[side].submit(call, side, job, folder, first, count).result()

        jobs = {
            what: lambda repeat, what=what: 1000 / count * run(what, repeat * count)
            for what in ROWS
        }
        times = measuring.in_turns(jobs, options.repeats, warm_up=True)
        run("segswap, shard", 0)
        found = position_error.measure(folder)
    theirs = processes[Published].submit(call, Published, "errors", folder, 0, count).result()
    for process in processes.values():
        process.shutdown()
    print(f"{measuring.machine(cv2, np)}; on one core, one thread; {options.repeats} repeats of "
          f"{count} pairs, in turns")  # fmt: skip
    medians = {what: statistics.median(taken) for what, taken in times.items()}
    base = medians["published procedure"]
    measuring.print_table(
        ["", "ms/pair, median (min, max)", "pairs/s", "times the published speed"],
        (
            [what, measuring.spread(times[what]), f"{1000 / median:.1f}", f"{base / median:.2f}"]
            for what, median in medians.items()
        ),
    )
    print("position error, published:", theirs)
    print("position error, segswap:  ", position_error.summary(found))


if __name__ == "__main__":
    main()
