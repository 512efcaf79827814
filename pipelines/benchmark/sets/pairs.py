"""Benchmarks of pairs of images with known positions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.benchmark.base import Advance, Scores, mean, means
from pipelines.evaluate.predictions import Predict, damage_says
from segswap.evaluation.segmentation import Mask, jaccard, pixel_precision
from segswap.files.images import read_image
from segswap.models.prediction import Prediction, enlarge

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class PairTask:
    """Two images to match.

    Attributes:
        name: different from those of other pairs, and fit for a file.
        group: of pairs whose scores are put together first.
        images: reads source and target, uint8 (H, W, 3).
        score: what a prediction for them is worth.
    """

    name: str
    group: str
    images: Callable[[], tuple[Image, Image]]
    score: Callable[[Prediction], Scores]


def read_both(source: Path, target: Path) -> tuple[Image, Image]:
    """The images of a pair, from their files."""
    return read_image(source), read_image(target)


def score_masks(prediction: Prediction, source: Mask, target: Mask) -> Scores:
    """P and J of a prediction's masks, cut at 0.5 at the sizes of the true ones, bool (H, W) and
    (H', W'): means of both images.
    """
    judged = [
        (enlarge(grid, true.shape[1], true.shape[0]) > 0.5, true)
        for grid, true in ((prediction.source_mask, source), (prediction.target_mask, target))
    ]
    return {
        "P": mean([pixel_precision(found, true) for found, true in judged]),
        "J": mean([jaccard(found, true) for found, true in judged]),
    }


def mean_of_pairs(rows: Sequence[tuple[str, Scores]]) -> Scores:
    """Means over all pairs, whatever their groups."""
    return means([scores for _, scores in rows])


@dataclass(frozen=True)
class Pairs:
    """Pairs that are scored together; see `base.Task`.

    Attributes:
        pairs: in order.
        identity: what predictions depend on, beside the method.
        summary: the benchmark's scores from the groups and scores of its pairs.
        masks: whether masks are scored, not positions alone.
    """

    pairs: Sequence[PairTask]
    identity: dict[str, Any]
    summary: Callable[[Sequence[tuple[str, Scores]]], Scores] = mean_of_pairs
    masks: bool = False
    unit: str = "pairs"

    @property
    def count(self) -> int:
        """How many pairs there are."""
        return len(self.pairs)

    def export(self, way: Predict, folder: Path, advance: Advance) -> None:
        """See `base.Task.export`."""
        for pair in self.pairs:
            way(*pair.images()).save(folder / f"{pair.name}.npz")
            advance(1)

    def score(self, folder: Path) -> Scores:
        """See `base.Task.score`."""
        rows = []
        for pair in self.pairs:
            with damage_says(folder):
                prediction = Prediction.load(folder / f"{pair.name}.npz")
            rows.append((pair.group, pair.score(prediction)))
        return self.summary(rows)
