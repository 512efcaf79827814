"""Matches whose truth is known, an affine map between images of two sizes, for tests."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from segswap import geometry
from segswap.models.match import Match
from segswap.models.prediction import Prediction, enlarge

CELLS = 16
SIZES = (400, 300), (360, 480)  # width and height of source and target


def plane_prediction(
    matrix: NDArray, mask: NDArray[np.float32] | None = None, same: float | None = None
) -> Prediction:
    """What a perfect matcher says of a plane that moves by an affine map of normalised points.

    Args:
        mask: of both images, on 16 x 16 cells; by default full.
        same: the probability of the very same thing, everywhere.
    """
    centres = geometry.cell_centres(CELLS, CELLS)
    full = np.ones((CELLS, CELLS), np.float32)
    shown = full if mask is None else mask
    found = Prediction(
        geometry.transform_points(matrix, centres).astype(np.float32),
        geometry.transform_points(np.linalg.inv(matrix), centres).astype(np.float32),
        shown, shown,
    )  # fmt: skip
    if same is None:
        return found
    return replace(found, source_same=full * np.float32(same), target_same=full * np.float32(same))


def match_of(prediction: Prediction) -> Match:
    """The match of two images, one of each size, with a prediction."""
    masks = (prediction.source_mask, prediction.target_mask)
    images = (np.zeros((height, width, 3), np.uint8) for width, height in SIZES)
    return Match(
        *(enlarge(mask, *size) for mask, size in zip(masks, SIZES, strict=True)), 1.0,
        prediction, *images,
    )  # fmt: skip


def in_pixels(matrix: NDArray) -> NDArray:
    """The map of normalised points as one of the two images' pixels."""
    source, target = (geometry.pixels_from_normalised(*size) for size in SIZES)
    return target @ matrix @ np.linalg.inv(source)
