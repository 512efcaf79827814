"""A real pair with known correspondences: the Motorcycle stereo pair inside scikit-image.

Scharstein et al., "High-resolution stereo datasets with subpixel-accurate ground truth" (GCPR
2014). A pixel (x, y) of the left image is at (x - disparity, y) in the right one.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from skimage.data import stereo_motorcycle

from segswap.metrics import pck
from segswap.prediction import Prediction

_EVERY = 10  # pixels between the points that are judged


@dataclass(frozen=True)
class StereoScores:
    """Share of the points of the left image whose predicted position in the right one is off by
    at most 1, 3, 5% of the longer side.
    """

    pck_1: float
    pck_3: float
    pck_5: float


def score_stereo(
    predict: Callable[[NDArray[np.uint8], NDArray[np.uint8]], Prediction],
) -> tuple[StereoScores, Prediction]:
    """Match the pair with a method, and score its positions where the disparity is known."""
    left, right, disparity = stereo_motorcycle()
    prediction = predict(left, right)
    height, width = disparity.shape
    rows, columns = np.mgrid[_EVERY // 2 : height : _EVERY, _EVERY // 2 : width : _EVERY]
    shift = disparity[rows, columns]
    known = np.isfinite(shift) & (shift > 0) & (columns - shift >= 0)
    start = np.stack([(columns + 0.5) / width, (rows + 0.5) / height], axis=-1)[known]
    true = start - np.stack([shift[known] / width, np.zeros(known.sum())], axis=-1)
    off = (prediction.points(start) - true) * (width, height) / max(width, height)
    errors = np.linalg.norm(off, axis=1)
    return StereoScores(*pck(np.where(np.isnan(errors), np.inf, errors))), prediction
