"""Keypoints of objects of one kind: PF-WILLOW and PF-PASCAL.

Ham, Cho, Schmid, Ponce, "Proposal Flow" (CVPR 2016) and "Proposal Flow: Semantic Correspondences
from Object Proposals" (PAMI 2018), with the lists of pairs of Rocco et al. (CVPR 2017 and 2018).
Target keypoints are brought to the source. Their coordinates count pixels from 1.
"""

import csv
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat

from pipelines.benchmark.base import Benchmark, Scores, existing, fingerprint
from pipelines.benchmark.sets.pairs import Pairs, PairTask, read_both
from segswap import geometry
from segswap.evaluation.keypoints import (
    ALPHAS,
    SQUARE,
    box_side,
    on_square,
    without_padding,
)
from segswap.evaluation.metrics import pck, point_errors
from segswap.files.hashes import file_hash
from segswap.files.images import read_size
from segswap.models.prediction import Prediction

Array = NDArray[np.float64]
_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip


def _willow(root: Path, limit: int | None) -> Pairs:
    table = existing(root / "PF-dataset" / "test_pairs_pf.csv", root / "test_pairs_pf.csv")
    pairs = []
    for number, row in enumerate(_rows(table, 42)[:limit]):
        try:
            values = np.array(row[2:], np.float64).reshape(4, 10)
            source, target = without_padding(values[:2].T, values[2:].T)
        except ValueError as error:
            raise ValueError(f"{table}: row {number + 1} is damaged ({error})") from error
        pairs.append(_pair(root, number, row, "all", source, target, box_side(source)))
    return _pairs(root, table, pairs, [], limit)


def _pascal(root: Path, limit: int | None) -> Pairs:
    name, folder = "test_pairs_pf_pascal.csv", root / "PF-dataset-PASCAL"
    table = existing(folder / name, root / name)
    pairs, boxes = [], []
    for number, row in enumerate(_rows(table, 7)[:limit]):
        try:
            kind = _CLASSES[int(float(row[2])) - 1]
            points = [np.array(cell.strip(";").split(";"), np.float64) for cell in row[3:7]]
            source, target = without_padding(
                np.stack(points[:2], axis=1), np.stack(points[2:], axis=1)
            )
        except (ValueError, IndexError) as error:
            raise ValueError(f"{table}: row {number + 1} is damaged ({error})") from error
        boxes.append(existing(folder / "Annotations" / kind / f"{Path(row[0]).stem}.mat"))
        pairs.append(_pair(root, number, row, kind, source, target, _object_side(boxes[-1])))
    return _pairs(root, table, pairs, boxes, limit)


def _rows(table: Path, columns: int) -> list[list[str]]:
    with open(table, newline="", encoding="utf-8") as file:
        rows = [row for row in csv.reader(file) if row][1:]  # the first one names the columns
    if lacking := [row for row in rows if len(row) < columns]:
        raise ValueError(f"{table}: a row has {len(lacking[0])} columns; expected {columns}")
    return [row[:columns] for row in rows]


def _object_side(path: Path) -> float:
    """The longer side of the object's box in an annotation of PF-PASCAL."""
    try:
        left, top, right, bottom = np.ravel(loadmat(path)["bbox"]).astype(np.float64)
    except Exception as error:  # parsing raises many kinds
        raise ValueError(f"{path} cannot be read as an annotation with a bbox: {error}") from error
    return float(max(right - left, bottom - top))


def _pair(
    root: Path, number: int, row: list[str], kind: str, source: Array, target: Array, side: float
) -> PairTask:
    paths = existing(root / row[0]), existing(root / row[1])
    return PairTask(
        f"{number:05d}", kind, partial(read_both, *paths),
        partial(score_keypoints, source=source, target=target, paths=paths, side=side),
    )  # fmt: skip


def score_keypoints(
    prediction: Prediction, source: Array, target: Array, paths: tuple[Path, Path], side: float
) -> Scores:
    """PCK at three alphas with both references.

    Args:
        prediction: for the pair.
        source, target: keypoints (N, 2) in pixels counted from 1, without padding.
        paths: of the images.
        side: longer side of the object's box in the source.
    """
    size, other = read_size(paths[0]), read_size(paths[1])
    start = geometry.to_normalised(target - 1, *other)
    found = geometry.to_pixels(prediction.points_back(start), *size) + 1
    square = on_square(found, *size), on_square(source, *size)
    references = {
        "box": point_errors(found, source, side), "image": point_errors(*square, SQUARE)
    }  # fmt: skip
    return {
        f"PCK@{alpha:.2f} {name}": score
        for name, errors in references.items()
        for alpha, score in zip(ALPHAS, pck(errors, ALPHAS), strict=True)
    }


def _pairs(
    root: Path, table: Path, pairs: list[PairTask], boxes: list[Path], limit: int | None
) -> Pairs:
    images = [root / name for row in _rows(table, 2)[:limit] for name in row]
    identity = {
        "annotations": file_hash(table), "limit": limit,
        "images": fingerprint(root, (*images, *boxes)),
    }  # fmt: skip
    return Pairs(pairs, identity)


WILLOW = Benchmark(
    "pf-willow", "keypoints of objects of one kind, PF-WILLOW", ("pf-willow", "PF-WILLOW"),
    "PF-dataset/ with the images, and in it test_pairs_pf.csv",
    _willow,
)  # fmt: skip
PASCAL = Benchmark(
    "pf-pascal", "keypoints of objects of one kind, PF-PASCAL", ("pf-pascal", "PF-PASCAL"),
    "PF-dataset-PASCAL/ with JPEGImages/, Annotations/CLASS/IMAGE.mat and test_pairs_pf_pascal.csv",
    _pascal,
)  # fmt: skip
