r"""Which proposer finds things: segments of each compared with what people drew.

    python benchmarks/proposers.py --data DATA [--proposers felzenszwalb cam runs/ldf ...]
    python benchmarks/proposers.py --saliency IMAGES MASKS --proposers ldf runs/ldf/coarse

DATA holds coco_mini/ (COCO's val2017 and its annotations) and bsds/ (images/test, labels/test).
Columns of the first table:

* good: share of the proposals whose IoU with an annotated object is over a half; objects of COCO
  over 2% of their image, no crowds.
* object: the best IoU of any proposal that an object gets, the mean over objects.
* regions: on BSDS the best IoU of any proposal that a region which people drew gets, the mean over
  regions of 2% to 50% of their image.
* an image: proposals kept of an image; images in which nothing is found.
* ms: an image of COCO, found in batches of 8 by this process.

The second table scores maps of networks of saliency on pictures with masks, as LDF's authors do.
"""

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

import measuring
import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO

from generators.networks import SHIPPED
from generators.segments import build_proposer
from generators.segments.common.regions import Found
from segswap.evaluation.saliency import saliency_scores
from segswap.files.folders import image_files
from segswap.files.images import read_image, read_label_map

Mask = NDArray[np.bool_]
PROPOSERS = ("felzenszwalb", "slic", "grouping", "cam", "ldf")
_BATCH = 8
_AREA = (0.015, 0.5)  # as segswap-generate has it by default
_LEAST, _MOST = 0.02, 0.5  # of an image, which objects and regions take


def objects_of_coco(data: Path) -> dict[Path, list[Mask]]:
    """The annotated objects of each image of val2017 that shows any."""
    coco = COCO(data / "annotations" / "instances_val2017.json")
    found = {}
    for image in coco.loadImgs(sorted(coco.getImgIds())):
        masks = [
            coco.annToMask(entry).astype(bool)
            for entry in coco.loadAnns(coco.getAnnIds(imgIds=image["id"], iscrowd=False))
        ]
        masks = [mask for mask in masks if mask.mean() > _LEAST]
        if masks:
            found[data / "val2017" / image["file_name"]] = masks
    return found


def regions_of_bsds(data: Path) -> dict[Path, list[Mask]]:
    """What people drew in each image."""
    found = {}
    for path in sorted((data / "images").rglob("*.jpg")):
        labels = read_label_map(
            data / "labels" / path.relative_to(data / "images").with_suffix(".png")
        )
        masks = [labels == number for number in range(1, int(labels.max()) + 1)]
        found[path] = [mask for mask in masks if _LEAST <= mask.mean() <= _MOST]
    return found


def proposals(name: str, paths: list[Path]) -> tuple[list[list[Mask]], float]:
    """The masks that a proposer finds in each image, and milliseconds an image."""
    proposer = build_proposer(name)
    images = [read_image(path) for path in paths]
    proposer.propose(images[:1], [str(paths[0])], _AREA)  # loads what it needs

    def find() -> Iterator[list[Mask]]:
        for first in range(0, len(images), _BATCH):
            batch = slice(first, first + _BATCH)
            for found in proposer.propose(images[batch], [*map(str, paths[batch])], _AREA):
                assert isinstance(found, Found)
                yield [proposal.mask for proposal in found.proposals]

    seconds, found = measuring.timed(lambda: list(find()))
    return found, 1000 * seconds / len(images)


def overlaps(found: list[Mask], true: list[Mask]) -> NDArray[np.float64]:
    """IoU of each proposal with each true mask: (proposals, true)."""
    table = np.zeros((len(found), len(true)))
    for row, one in enumerate(found):
        for column, other in enumerate(true):
            table[row, column] = (one & other).sum() / (one | other).sum()
    return table


def row_of(name: str, coco: dict[Path, list[Mask]], bsds: dict[Path, list[Mask]]) -> list[str]:
    """A proposer's row of the first table."""
    found, ms = proposals(name, list(coco))
    tables = [overlaps(*each) for each in zip(found, coco.values(), strict=True)]
    good = np.concatenate([(table.max(axis=1, initial=0) > 0.5) for table in tables])
    best = np.concatenate([table.max(axis=0, initial=0) for table in tables])
    drawn, _ = proposals(name, list(bsds))
    regions = np.concatenate([
        overlaps(*each).max(axis=0, initial=0) for each in zip(drawn, bsds.values(), strict=True)
    ])  # fmt: skip
    empty = sum(not each for each in found)
    return [
        name, f"{good.mean():.3f} of {len(good)}", f"{best.mean():.3f}", f"{regions.mean():.3f}",
        f"{len(good) / len(found):.1f}; {empty} without", f"{ms:.0f}",
    ]  # fmt: skip


def saliency_row(name: str, images: Path, masks: Path) -> list[str]:
    """A row of the second table, of the shipped weights or a run's folder."""
    from generators.networks.ldf.predictor import Predictor

    predictor = Predictor.load(SHIPPED / name if (SHIPPED / name).is_dir() else name)

    def pairs() -> Iterator[tuple[NDArray[np.float32], Mask]]:
        for picture in image_files(images):
            true = read_label_map((masks / picture).with_suffix(".png"))
            maps = predictor.maps([read_image(images / picture)])[0]
            yield maps.saliency, true > true.max() / 2

    scores = saliency_scores(pairs())
    numbers = (
        scores.mae, scores.raw_mae, scores.f, scores.mean_f, scores.max_f, scores.e, scores.capped_e
    )  # fmt: skip
    return [os.path.relpath(name), *(f"{number:.3f}" for number in numbers)]


def main() -> None:
    """Print the tables that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="folder of coco_mini and bsds")
    parser.add_argument("--proposers", nargs="+", default=PROPOSERS, help="names or runs' folders")
    parser.add_argument("--saliency", nargs=2, type=Path, metavar=("IMAGES", "MASKS"))
    options = parser.parse_args()
    print(measuring.machine(np))
    if options.data:
        coco = objects_of_coco(options.data / "coco_mini")
        bsds = regions_of_bsds(options.data / "bsds")
        counts = [(len(each), sum(map(len, each.values()))) for each in (coco, bsds)]
        print("COCO: {} images, {} objects; BSDS: {} images, {} regions\n".format(*sum(counts, ())))
        heads = ("proposer", "good", "object", "regions", "an image", "ms")
        measuring.print_table(heads, (row_of(name, coco, bsds) for name in options.proposers))
    if options.saliency:
        heads = ("weights", "MAE", "MAE raw", "F", "mean F", "max F", "E", "E capped")
        rows = (saliency_row(name, *options.saliency) for name in options.proposers)
        measuring.print_table(heads, rows)
    if not (options.data or options.saliency):
        parser.error("nothing to score: give --data DATA, --saliency IMAGES MASKS, or both")


if __name__ == "__main__":
    main()
