r"""Which proposer finds things: segments of each compared with what people drew.

    python benchmarks/proposers.py --data DATA [--proposers felzenszwalb cam runs/ldf ...]
    python benchmarks/proposers.py --saliency IMAGES MASKS --proposers ldf runs/ldf/coarse
    python benchmarks/proposers.py --classes FOLDER [FOLDER ...] --proposers runs/seam ...

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

The third one scores maps of runs of seam and sccam on the pictures that each FOLDER/heldout.txt
lists, in images/CLASS and masks/CLASS: of each class that a picture is known to show the IoU of its
map with its mask, pixels summed over the pictures, the mean over classes:

* best: at the threshold of all of 0 to 0.59 that is best for the mean; own: at the method's.
* refined: what the proposer makes of it at the edges.

A run of sccam has a second row, of the maps of its sub-categories. A plain CAM that was taught the
same labels is a run's round0.
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
from generators.segments.common.classes import class_regions
from generators.segments.common.regions import Found
from segswap import geometry
from segswap.batches.pictures import read_pictures
from segswap.evaluation.saliency import saliency_scores
from segswap.files.folders import image_files
from segswap.files.images import read_image, read_label_map

Mask = NDArray[np.bool_]
PROPOSERS = ("felzenszwalb", "slic", "grouping", "cam", "ldf")
_BATCH = 8
_AREA = (0.015, 0.5)  # as segswap-generate has it by default
_LEAST, _MOST = 0.02, 0.5  # of an image, which objects and regions take
_BINS, _SWEPT = 100, 60  # of a map's values, and thresholds that are tried


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


class ClassScores:
    """Pixels of maps and masks, summed over pictures, by class and the maps' values."""

    def __init__(self, classes: int) -> None:
        self._counts = np.zeros((2, classes, _BINS), np.int64)  # not of the class, and of it
        self._refined = np.zeros((2, classes), np.int64)  # both, and either

    def add(self, kind: int, values: NDArray[np.float32], found: Mask, true: Mask) -> None:
        """A map of a class, its refined mask and the true one."""
        places = np.minimum((values * _BINS).astype(int), _BINS - 1)
        for of_it in (0, 1):
            self._counts[of_it, kind] += np.bincount(places[true == of_it], minlength=_BINS)
        self._refined[:, kind] += (found & true).sum(), (found | true).sum()

    def columns(self, own: float) -> list[str]:
        """Best, own and refined."""
        others, hits = self._counts[..., ::-1].cumsum(axis=2)[..., ::-1]
        seen = hits[:, 0] > 0
        iou = (hits / np.maximum(1, hits[:, :1] + others))[seen].mean(axis=0)
        best = int(iou[:_SWEPT].argmax())
        refined = (self._refined[0] / np.maximum(1, self._refined[1]))[seen].mean()
        at = iou[round(own * _BINS)]
        return [f"{iou[best]:.3f} ({best / _BINS:.2f})", f"{at:.3f}", f"{refined:.3f}"]


def class_rows(name: str, folders: list[Path], every: int) -> Iterator[list[str]]:
    """The rows of a run in the third table."""
    from generators.networks.classes.predictor import Predictor

    predictor = Predictor.load(name)
    known = {kind.casefold(): number for number, kind in enumerate(predictor.classes)}
    rows: list[list[ClassScores]] = []
    for folder in folders:
        source = read_pictures(str(folder), pairs=False)
        scores = [ClassScores(len(known)) for _ in range(1 + predictor.has_subs)]
        rows.append(scores)
        for picture in source.held_out[::every]:
            image = picture.read()
            size = image.shape[1], image.shape[0]
            told = {
                known[shown]: picture.mask(kind, image.shape[:2])
                for kind in picture.masks
                if (shown := source.kinds[kind].casefold()) in known
            }
            maps = [predictor.seen(image, size, [*told]).maps]
            if predictor.has_subs:
                maps.append(predictor.sub_seen(image, size, [*told]))
            for score, each in zip(scores, maps, strict=True):
                for (kind, mask), values in zip(told.items(), each, strict=True):
                    assert mask is not None
                    score.add(kind, values, _refined(image, values, predictor.threshold), mask)
    for number, of_folders in enumerate(zip(*rows, strict=True)):
        cells = [cell for score in of_folders for cell in score.columns(predictor.threshold)]
        yield [os.path.relpath(name) + ", sub-categories" * number, *cells]


def _refined(image: NDArray[np.uint8], values: NDArray[np.float32], threshold: float) -> Mask:
    from generators.networks.cam import ClassMap

    found = np.zeros(values.shape, bool)
    for regions in class_regions(image, [ClassMap("", 1.0, values)], threshold):
        whole = np.asarray(regions.labels, np.float32)
        found |= geometry.resize(whole, values.shape[1], values.shape[0]) > 0.5
    return found


def main() -> None:
    """Print the tables that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="folder of coco_mini and bsds")
    parser.add_argument("--proposers", nargs="+", default=PROPOSERS, help="names or runs' folders")
    parser.add_argument("--saliency", nargs=2, type=Path, metavar=("IMAGES", "MASKS"))
    parser.add_argument("--classes", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--every", type=int, default=1, help="take each N-th picture of --classes")
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
    if options.classes:
        parts = ("best", "own", "refined")
        heads = ("run", *(f"{folder.name}: {part}" for folder in options.classes for part in parts))
        runs = (class_rows(name, options.classes, options.every) for name in options.proposers)
        measuring.print_table(heads, (row for rows in runs for row in rows))
    if not (options.data or options.saliency or options.classes):
        parser.error("nothing to score: give --data, --saliency or --classes")


if __name__ == "__main__":
    main()
