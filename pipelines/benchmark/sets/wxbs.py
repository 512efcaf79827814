"""The same place in another light, season, angle or by another sensor: WxBS.

Mishkin, Matas, Perdoch, Lenc, "WxBS: Wide Baseline Stereo Generalizations" (BMVC 2015), in the
layout of its version 1.1, whose two validation pairs are left out. As there, points are looked for
in both directions, and a pair's share of right ones is the mean of the two. The allowed error is a
share of the longer side of the image in which they are looked for; there, a number of pixels.
"""

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.benchmark.base import Benchmark, Scores, existing, fingerprint
from pipelines.benchmark.sets.pairs import Pairs, PairTask, read_both
from segswap import geometry
from segswap.evaluation.metrics import pck, point_errors
from segswap.files.images import read_size
from segswap.models.prediction import Prediction

Array = NDArray[np.float64]
_VALIDATION = ("kyiv_dolltheater2", "petrzin")
_ALPHAS = (0.01, 0.02, 0.05)


def _open(root: Path, limit: int | None) -> Pairs:
    if (root / "v1.1").is_dir():
        root = root / "v1.1"
    places = sorted({path.parent for path in root.glob("*/*/01.*")})
    tested = [place for place in places if place.name not in _VALIDATION][:limit]
    pairs: list[PairTask] = []
    files: list[Path] = []
    for number, place in enumerate(tested):
        first, second = (existing(place / f"0{n}.png", place / f"0{n}.jpg") for n in (1, 2))
        listed = existing(place / "corrs.txt")
        score = partial(_score, points=_points(listed), paths=(first, second))
        images = partial(read_both, first, second)
        pairs.append(PairTask(f"{number:04d}", place.parent.name, images, score))
        files += [first, second, listed]
    return Pairs(pairs, {"files": fingerprint(root, files), "limit": limit})


def _points(path: Path) -> Array:
    """Correspondences, float64 (N, 4): x and y in the one image, x and y in the other."""
    try:
        lines = path.read_text("utf-8").splitlines()
        rows = np.array([line.split() for line in lines if line.strip()], np.float64)
        if rows.ndim != 2 or rows.shape[1] != 4 or not np.isfinite(rows).all():
            raise ValueError(f"an array {rows.shape}; expected four numbers a line")
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error})") from error
    return rows


def _score(prediction: Prediction, points: Array, paths: tuple[Path, Path]) -> Scores:
    """Shares of the points; their pixels are counted from 0 at the centres."""
    sizes = [read_size(path) for path in paths]
    sides = [points[:, :2], points[:, 2:]]
    shares = []
    for source, find in ((0, prediction.points), (1, prediction.points_back)):
        target = 1 - source
        found = find(geometry.to_normalised(sides[source], *sizes[source]))
        pixels = geometry.to_pixels(found, *sizes[target])
        shares.append(pck(point_errors(pixels, sides[target], max(sizes[target])), _ALPHAS))
    within = np.mean(shares, axis=0).tolist()
    return {f"points within {a:.0%}": share for a, share in zip(_ALPHAS, within, strict=True)}


WXBS = Benchmark(
    "wxbs", "points of one place in another light, season, angle or by another sensor, WxBS",
    ("wxbs", "WxBS"),
    "KIND/PLACE/ with 01.png, 02.png (or .jpg) and corrs.txt, a line \"x1 y1 x2 y2\" for every "
    "correspondence (or v1.1/ with them)",
    _open,
)  # fmt: skip
