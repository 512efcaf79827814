"""Time and memory of indexing a COCO JSON of the size of instances_train2017, and of sharing it.

    python benchmarks/coco_index.py

Makes a JSON of 118,287 images and 860,001 annotations, as many polygons of as many points as COCO's
have on average, and a folder of links to one photograph; indexes it, finds it again, and draws from
it in two workers. Each step runs in a process of its own, whose peak memory is its own too. Needs
2 GB of disk in --folder.
"""

import argparse
import json
import multiprocessing
import os
import resource
import tempfile
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import measuring
import numpy as np
from skimage.data import cat

from generators.sources.coco import coco_index
from generators.sources.index import Index, Pool
from segswap.files.images import encode_jpeg

IMAGES, ANNOTATIONS, POINTS = 118_287, 860_001, 24


def make(folder: Path) -> None:
    """Write instances.json and images/."""
    rng = np.random.default_rng(0)
    height, width = cat().shape[:2]
    (folder / "images").mkdir(parents=True)
    (folder / "one.jpg").write_bytes(encode_jpeg(cat(), 90))
    names = [f"{number:012d}.jpg" for number in range(IMAGES)]
    for name in names:
        os.symlink(folder / "one.jpg", folder / "images" / name)
    images = [
        {"id": n, "file_name": name, "width": width, "height": height, "license": n % 8 + 1,
         "coco_url": f"http://images.cocodataset.org/train2017/{name}",
         "flickr_url": f"http://farm9.staticflickr.com/8186/{name}",
         "date_captured": "2013-11-15 02:41:42"}
        for n, name in enumerate(names)
    ]  # fmt: skip
    angles = np.linspace(0, 2 * np.pi, POINTS, endpoint=False)
    with open(folder / "instances.json", "w") as file:
        licences = [{"id": n, "name": f"Licence {n}", "url": ""} for n in range(1, 9)]
        categories = [{"id": n, "name": f"thing {n}"} for n in range(1, 81)]
        parts = {"licenses": licences, "images": images, "categories": categories}
        file.write(json.dumps(parts)[:-1] + ', "annotations": [')
        for number in range(ANNOTATIONS):
            radius = rng.uniform(5, 100) * rng.uniform(0.7, 1.3, POINTS)
            x = np.clip(rng.uniform(0, width) + radius * np.cos(angles), 0, width)
            y = np.clip(rng.uniform(0, height) + radius * np.sin(angles), 0, height)
            polygon = np.stack([x, y], axis=1).round(2).ravel().tolist()
            entry = {
                "id": number, "image_id": int(rng.integers(IMAGES)), "iscrowd": 0,
                "category_id": int(rng.integers(1, 81)), "area": 1.0, "bbox": [0, 0, 1, 1],
                "segmentation": [polygon],
            }  # fmt: skip
            file.write((", " if number else "") + json.dumps(entry))
        file.write("]}")


def build(folder: Path) -> str:
    """Index it and save the index."""
    index, skipped = coco_index(folder / "instances.json", folder / "images", 0.015, 0.5)
    index.save(folder / "index")
    size = sum(path.stat().st_size for path in (folder / "index").iterdir())
    return (f"{len(index)} images, {len(index.arrays['segments'])} segments, "
            f"{len(skipped)} skipped, {size / 2**20:.0f} MiB on disk")  # fmt: skip


def draw(folder: Path) -> str:
    """What a worker does with it: map it, and draw segments and their masks."""
    index = Index.load(folder / "index")
    pool = Pool.whole(index)
    rng = np.random.default_rng(0)
    for _ in range(1000):
        index.mask(pool.draw_segment(rng))
    return "1000 masks drawn"


def measured(what: str, job: Callable[[Path], object], folder: Path) -> None:
    """Run a job in a process of its own; print its time and peak memory above an empty one's."""

    def child(pipe: Connection) -> None:
        before = measuring.memory(("Private_",))
        seconds, result = measuring.timed(lambda: job(folder))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        pipe.send((seconds, peak, measuring.memory(("Private_",)) - before, result))

    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=child, args=(theirs,))
    process.start()
    theirs.close()  # so that a child that fails ends the wait
    seconds, peak, own, result = ours.recv()
    process.join()
    print(f"{what}: {seconds:.1f} s, peak {peak:.0f} MiB in all, {own:.0f} MiB of its own at the "
          f"end; {result or ''}", flush=True)  # fmt: skip


def main() -> None:
    """Make, index, draw."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, help="kept; by default a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = options.folder or Path(name)
        if not (folder / "instances.json").exists():
            measured("making the JSON", make, folder)
        size = (folder / "instances.json").stat().st_size
        print(f"{IMAGES} images, {ANNOTATIONS} annotations, JSON of {size / 1e6:.0f} MB")
        measured("index", build, folder)
        measured("worker", draw, folder)


if __name__ == "__main__":
    main()
