"""Real pairs of images with correspondences that are known at some points, and their scores."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from segswap.evaluation.metrics import Scores, make_scores, mask_scores, pck, point_errors
from segswap.models.prediction import Prediction

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Known:
    """Correspondences from one image to the other: `end[i]` is where `start[i]` lies there.

    Attributes:
        start, end: float64 (N, 2), normalised coordinates, x then y.
    """

    start: Array
    end: Array

    @classmethod
    def none(cls) -> "Known":
        """No correspondence."""
        return cls(np.zeros((0, 2)), np.zeros((0, 2)))


@dataclass(frozen=True)
class KnownPair:
    """Two images, points whose correspondences are known, and perhaps masks.

    Attributes:
        name: of the pair within its set, also the name of a file.
        source, target: uint8 (H, W, 3) RGB of any sizes.
        to_target: correspondences of points of the source.
        to_source: correspondences of points of the target.
        source_mask, target_mask: uint8 (H, W) of their images' sizes, not 0 where both images show
            the same object; None where that is not known.
    """

    name: str
    source: NDArray[np.uint8]
    target: NDArray[np.uint8]
    to_target: Known
    to_source: Known = field(default_factory=Known.none)
    source_mask: NDArray[np.uint8] | None = None
    target_mask: NDArray[np.uint8] | None = None


def score_known(prediction: Prediction, pair: KnownPair) -> Scores:
    """Scores of a prediction for a real pair.

    PCK and the mask scores are means over the two directions that are known; without a mask, and of
    false_area, there is no score.
    """
    directions = [
        (prediction.points, pair.to_target, pair.target),
        (prediction.points_back, pair.to_source, pair.source),
    ]
    within = []
    for find, known, image in directions:
        if len(known.start):
            height, width = image.shape[:2]
            size = width, height
            errors = point_errors(find(known.start) * size, known.end * size, max(size))
            within.append(pck(errors))
    masks = [
        mask_scores(found, true)
        for found, true in (
            (prediction.source_mask, pair.source_mask),
            (prediction.target_mask, pair.target_mask),
        )
        if true is not None
    ]
    return make_scores(_means(masks), _means(within))


def _means(rows: list) -> list[float]:
    """Means of rows of three scores; three NaN of none."""
    return np.mean(rows, axis=0).tolist() if rows else [float("nan")] * 3
