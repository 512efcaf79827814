"""Keypoints of objects of one kind under large changes: SPair-71k.

Min, Lee, Ponce, Cho, "SPair-71k: A Large-scale Benchmark for Semantic Correspondence" (arXiv
1908.10543). Source keypoints are brought to the target; the reference is the target object's box.
"""

import json
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.benchmark.base import Benchmark, Scores, existing, fingerprint
from pipelines.benchmark.sets.pairs import Pairs, PairTask, read_both
from segswap import geometry
from segswap.evaluation.keypoints import ALPHAS, without_padding
from segswap.evaluation.metrics import pck, point_errors
from segswap.files.images import read_size
from segswap.models.prediction import Prediction

Array = NDArray[np.float64]


def _open(root: Path, limit: int | None) -> Pairs:
    if (root / "SPair-71k").is_dir():
        root = root / "SPair-71k"
    names = existing(root / "Layout" / "large" / "test.txt").read_text("utf-8").split()[:limit]
    files, pairs = [], []
    for number, name in enumerate(names):
        annotation = existing(root / "PairAnnotation" / "test" / f"{name}.json")
        pair, images = _pair(root, number, annotation)
        pairs.append(pair)
        files += [annotation, *images]
    return Pairs(pairs, {"files": fingerprint(root, files), "limit": limit})


def _pair(root: Path, number: int, path: Path) -> tuple[PairTask, tuple[Path, Path]]:
    try:
        content = json.loads(path.read_bytes())
        kind = str(content["category"])
        source, target = without_padding(content["src_kps"], content["trg_kps"])
        left, top, right, bottom = (float(value) for value in content["trg_bndbox"])
        folder = root / "JPEGImages" / kind
        names = [str(content[key]) for key in ("src_imname", "trg_imname")]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error!r})") from error
    images = existing(folder / names[0]), existing(folder / names[1])
    side = max(right - left, bottom - top)
    score = partial(_score, source=source, target=target, paths=images, side=side)
    pair = PairTask(f"{number:06d}", kind, partial(read_both, *images), score)
    return pair, images


def _score(
    prediction: Prediction, source: Array, target: Array, paths: tuple[Path, Path], side: float
) -> Scores:
    """PCK; the keypoints are whole pixels counted from 0."""
    size, other = read_size(paths[0]), read_size(paths[1])
    start = geometry.to_normalised(source, *size)
    found = geometry.to_pixels(prediction.points(start), *other)
    scores = pck(point_errors(found, target, side), ALPHAS)
    return {f"PCK@{alpha:.2f} box": score for alpha, score in zip(ALPHAS, scores, strict=True)}


SPAIR = Benchmark(
    "spair", "keypoints of objects of one kind, SPair-71k, test", ("spair", "SPair-71k"),
    "SPair-71k/ with JPEGImages/CLASS/, PairAnnotation/test/PAIR.json and Layout/large/test.txt",
    _open,
)  # fmt: skip
