"""Keypoints of animals of one kind and of two kinds, with masks.

The keypoints are those of Animal-Pose (Cao et al., "Cross-Domain Adaptation for Animal Pose
Estimation", ICCV 2019); the protocol is this project's. 300 pairs of pictures of one kind and 300
of two kinds are drawn, of each kind, and of each two kinds, as many. The keypoints that both
pictures of a pair show are looked for in both directions; the reference is the box of the animal in
the picture that they are looked for in. PCK is a mean over pairs, not over keypoints.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.benchmark.base import Benchmark, Scores, existing, fingerprint
from pipelines.benchmark.sets.kinds import (
    LAYOUT,
    in_turn,
    mask_path,
    pairs_between,
    pairs_within,
    pictures_of,
    read_mask,
    spread,
)
from pipelines.benchmark.sets.pairs import Pairs, PairTask, read_both, score_masks
from segswap.evaluation.metrics import pck, point_errors
from segswap.files.images import read_size
from segswap.models.prediction import Prediction

_PAIRS = 300  # within kinds, and as many across
_ALPHAS = (0.05, 0.10)


@dataclass(frozen=True)
class Animal:
    """A picture of an animal.

    Attributes:
        path: of the picture.
        size: its width and height.
        points: float64 (K, 2), keypoints in pixels from the upper left corner, always in the same
            order; NaN where one is not seen.
        side: longer side of the animal's box, in pixels.
    """

    path: Path
    size: tuple[int, int]
    points: NDArray[np.float64]
    side: float


def _open(root: Path, limit: int | None) -> Pairs:
    kinds, rng = pictures_of(root), np.random.default_rng(0)
    within = in_turn([pairs_within(own, rng) for own in kinds.values()], _PAIRS)
    across = in_turn([pairs_between(*two, rng) for two in combinations(kinds.values(), 2)], _PAIRS)
    drawn = spread([("within", both) for both in within], [("across", both) for both in across])
    chosen = drawn[:limit]
    listed = existing(root / "keypoints.json")
    animals = _animals(root, listed, {path for _, both in chosen for path in both})
    pairs = [
        PairTask(
            f"{number:04d}", group, partial(read_both, *both),
            partial(_score, root=root, both=[animals[path] for path in both], group=group),
        )
        for number, (group, both) in enumerate(chosen)
    ]  # fmt: skip
    paths = [path for _, both in chosen for path in both]
    files = (listed, *paths, *(mask_path(root, path) for path in paths))
    return Pairs(pairs, {"files": fingerprint(root, files), "limit": limit}, masks=True)


def _animals(root: Path, listed: Path, paths: set[Path]) -> dict[Path, Animal]:
    try:
        content = json.loads(listed.read_bytes())
        entries, count = content["images"], len(content["keypoints"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{listed} is damaged ({error!r})") from error
    found = {}
    for path in sorted(paths):
        name = path.relative_to(root / "images").as_posix()
        try:
            found[path] = _animal(path, entries[name], count)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{listed}: {name} is missing or damaged ({error!r})") from error
    return found


def _animal(path: Path, entry: dict[str, Any], count: int) -> Animal:
    size = read_size(path)
    points = np.array([point or (np.nan, np.nan) for point in entry["points"]], np.float64)
    left, top, right, bottom = (float(value) for value in entry["box"])
    if points.shape != (count, 2) or (entry["width"], entry["height"]) != size:
        raise ValueError(
            f"points {points.shape} in {entry['width']} x {entry['height']} px; expected "
            f"{count, 2} in {size[0]} x {size[1]} px"
        )
    side = max(right - left, bottom - top)
    if not 0 < side < np.inf:
        raise ValueError(f"the box {entry['box']} is empty")
    return Animal(path, size, points, side)


def _score(prediction: Prediction, root: Path, both: Sequence[Animal], group: str) -> Scores:
    """PCK; J, the mean of both pictures, where they show one kind."""
    source, target = both
    seen = ~np.isnan([source.points, target.points]).any(axis=(0, 2))
    shares = []
    for find, start, end in (
        (prediction.points, source, target), (prediction.points_back, target, source)
    ):  # fmt: skip
        found = find(start.points[seen] / start.size) * end.size
        shares.append(pck(point_errors(found, end.points[seen], end.side), _ALPHAS))
    scores = {
        f"PCK@{alpha:.2f} {group}": share
        for alpha, share in zip(_ALPHAS, np.mean(shares, axis=0).tolist(), strict=True)
    }
    if group == "within":
        masks = read_mask(root, source.path), read_mask(root, target.path)
        scores["J within"] = score_masks(prediction, *masks)["J"]
    return scores


ANIMALS = Benchmark(
    "animals", "keypoints and masks of animals of one kind, keypoints across kinds, Animal-Pose",
    ("animals",),
    f"{LAYOUT}; keypoints.json: {{\"keypoints\": [names], \"images\": {{\"KIND/IMAGE.jpg\": "
    "{\"width\", \"height\", \"box\": [x0, y0, x1, y1], \"points\": [[x, y] or null, ...]}}",
    _open,
)  # fmt: skip
