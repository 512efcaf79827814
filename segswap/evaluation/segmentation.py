"""How good masks are: precision P and Jaccard index J, and labels carried over by positions.

P and J as object discovery is scored since Rubinstein et al., "Unsupervised Joint Object Discovery
and Segmentation in Internet Images" (CVPR 2013); label transfer after Liu et al., "SIFT Flow" (PAMI
2011), with masks cut at 0.5.
"""

import numpy as np
from numpy.typing import NDArray

from segswap import geometry
from segswap.models.prediction import Prediction

Mask = NDArray[np.bool_]


def pixel_precision(found: Mask, true: Mask) -> float:
    """P: share of an image's pixels, bool (H, W), that are labelled right, be it as object or not.

    Raises:
        ValueError: the masks differ in size.
    """
    _check(found, true)
    return float(np.mean(found == true))


def jaccard(found: Mask, true: Mask) -> float:
    """J: intersection over union of found and true object, bool (H, W).

    NaN where the true mask is empty: such images have no J, and means are over the others.

    Raises:
        ValueError: the masks differ in size.
    """
    _check(found, true)
    if not true.any():
        return float("nan")
    return float(np.sum(found & true) / np.sum(found | true))


def transferred_mask(prediction: Prediction, source: Mask, width: int, height: int) -> Mask:
    """The source's mask, bool (H, W), as the predicted positions bring it to the target: bool
    (height, width).

    Each target pixel takes the mask's bilinear value at its place in the source, cut at 0.5; pixels
    without a place, or with one outside the source, are none of the object's.
    """
    places = prediction.points_back(geometry.cell_centres(height, width).reshape(-1, 2))
    shown = geometry.inside(places)  # False for NaN
    at = np.where(shown[:, None], places, 0.5).reshape(height, width, 2)
    values = geometry.sample(source.astype(np.float32), at)
    return (values > 0.5) & shown.reshape(height, width)


def label_transfer_accuracy(prediction: Prediction, source: Mask, target: Mask) -> float:
    """LT-ACC: share of all target pixels whose carried over label is the target mask's.

    Args:
        prediction: for the two images.
        source, target: true masks, bool (H, W) and (H', W').
    """
    height, width = target.shape
    return pixel_precision(transferred_mask(prediction, source, width, height), target)


def transfer_iou(prediction: Prediction, source: Mask, target: Mask) -> float:
    """Intersection over union of the carried over mask and the target's; NaN where that is empty.

    Args:
        prediction: for the two images.
        source, target: true masks, bool (H, W) and (H', W').
    """
    height, width = target.shape
    return jaccard(transferred_mask(prediction, source, width, height), target)


def _check(found: Mask, true: Mask) -> None:
    if found.shape != true.shape:
        raise ValueError(f"a mask is {found.shape}, the true one {true.shape}; expected one size")
