"""How good predictions are: masks, positions, and what is found where nothing is shared."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike, NDArray

from segswap import geometry
from segswap.data.pair import Pair
from segswap.models.prediction import Prediction, enlarge

THRESHOLDS = (0.01, 0.03, 0.05)
_LATTICE = 60  # points along each side of an image at which correspondences are judged


@dataclass(frozen=True)
class Scores:
    """Scores of one pair or means over several; NaN where there was nothing to judge.

    Attributes:
        mask_iou: intersection over union of predicted (above 0.5) and true mask in pixels, mean of
            both images.
        mask_precision: share of the predicted mask's pixels that are in the true one, mean of both
            images; 0 of an image in which nothing was found.
        mask_recall: share of the true mask's pixels that were found, mean of both images.
        pck_1, pck_3, pck_5: share of points of the true mask, in both images, whose predicted
            position is off by at most 1, 3, 5% of the longer side of the image that it lies in.
        false_area: on images that share nothing, the predicted masks' share of both images.
    """

    mask_iou: float
    mask_precision: float
    mask_recall: float
    pck_1: float
    pck_3: float
    pck_5: float
    false_area: float


def score_pair(prediction: Prediction, pair: Pair) -> Scores:
    """Scores of a prediction for a pair with ground truth, which is of the very same thing;
    false_area is NaN.
    """
    prediction = prediction.of_things()
    masks = [
        mask_scores(prediction.source_mask, pair.source_mask),
        mask_scores(prediction.target_mask, pair.target_mask),
    ]
    within = pck(position_errors(prediction, pair))
    return make_scores(np.mean(masks, axis=0).tolist(), within)


def make_scores(masks: Sequence[float], within: Sequence[float]) -> Scores:
    """Scores of two images that share something, from IoU, precision and recall and from the PCK at
    the three thresholds.
    """
    iou, precision, recall = masks
    return Scores(iou, precision, recall, within[0], within[1], within[2], float("nan"))


def score_negative(prediction: Prediction) -> Scores:
    """Scores of a prediction for two images that share no thing: false_area alone."""
    nothing = dict.fromkeys((field.name for field in fields(Scores)), float("nan"))
    return Scores(**nothing | {"false_area": mask_area(prediction.of_things())})


def mask_area(prediction: Prediction) -> float:
    """The predicted masks' share of both images."""
    masks = prediction.source_mask, prediction.target_mask
    return float(np.mean([np.mean(mask > 0.5) for mask in masks]))


def mean_scores(scores: list[Scores]) -> Scores:
    """Means over pairs, each score over the pairs that have it."""
    table = np.array([[getattr(s, f.name) for f in fields(Scores)] for s in scores])
    known = ~np.isnan(table)
    sums = np.where(known, table, 0).sum(0)
    return Scores(
        *(float(s / n) if n else float("nan") for s, n in zip(sums, known.sum(0), strict=True))
    )


def mask_scores(
    predicted: NDArray[np.float32], labels: NDArray[np.uint8]
) -> tuple[float, float, float]:
    """IoU, precision and recall of a predicted grid (h, w), cut at 0.5 after enlarging, and a label
    map (H, W); NaN where the label map is empty: there nothing was to be found.
    """
    true = labels > 0
    if not true.any():
        return (float("nan"),) * 3
    found = enlarge(predicted, labels.shape[1], labels.shape[0]) > 0.5
    common, found_area, true_area = (int(np.sum(mask)) for mask in (found & true, found, true))
    iou = common / (found_area + true_area - common)
    return iou, common / max(found_area, 1), common / true_area


def position_errors(prediction: Prediction, pair: Pair) -> NDArray[np.float64]:
    """`point_errors` (N,) of predicted positions, as shares of the longer side of the image that
    they lie in, at the points of a 60 x 60 lattice that lie in the true masks of both images.
    """
    lattice = geometry.cell_centres(_LATTICE, _LATTICE).reshape(-1, 2)
    size = pair.width, pair.height
    errors = []
    for labels, find, true in (
        (pair.source_mask, prediction.points, pair.to_target),
        (pair.target_mask, prediction.points_back, pair.to_source),
    ):
        column, row = geometry.pixel_at(lattice, *size).T
        shown = labels[row, column]
        for item in pair.objects:
            points = lattice[shown == item.label]
            end = true(points, item.label)
            errors.append(point_errors(find(points) * size, end * size, max(size)))
    return np.concatenate(errors) if errors else np.zeros(0)


def point_errors(found: ArrayLike, true: ArrayLike, length: float) -> NDArray[np.float64]:
    """How far found points are off, as shares of a length: (N,), inf where nothing was found.

    The length is one of the image in which the points are sought: its longer side, or that of an
    object's box. A pixel counts the same across and down, also in an image that is not square.

    Args:
        found, true: (N, 2) in pixels of one image; NaN where nothing was found.
        length: in the same pixels.
    """
    off = np.linalg.norm(np.asarray(found, np.float64) - np.asarray(true, np.float64), axis=-1)
    return np.where(np.isnan(off), np.inf, off / length)


def pck(errors: NDArray[np.float64], alphas: Sequence[float] = THRESHOLDS) -> list[float]:
    """PCK, the percentage of correct keypoints: the share of `point_errors` that are at most alpha,
    for each alpha; NaN of no points. That of a data set is the mean over its pairs.

    Yang, Ramanan, "Articulated Human Detection with Flexible Mixtures of Parts" (PAMI 2013).
    """
    return [float(np.mean(errors <= alpha)) if len(errors) else float("nan") for alpha in alphas]
