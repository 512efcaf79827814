"""A mask at an image's size from what is known on a coarse grid, its edge found by GrabCut."""

import cv2
import numpy as np
from numpy.typing import NDArray

from segswap import geometry
from segswap.discovery.clusters import CUT
from segswap.models.prediction import enlarge

WORKING_SIDE = 480  # pixels of the longer side, at which the edge is sought
BAND = 10  # pixels around all that may be foreground, that may be background
_ITERATIONS = 5


def refine(image: NDArray[np.uint8], values: NDArray[np.float32]) -> NDArray[np.bool_]:
    """The mask of what an image map says, its edge moved to where the image has one.

    GrabCut (Rother, Kolmogorov and Blake, SIGGRAPH 2004) begins with certain foreground where the
    enlarged map is above CUT times its maximum, probable foreground where it is above 0, probable
    background in a band around, and certain background elsewhere. Where that leaves it without
    background to learn from, the mask is the certain foreground. The same input gives the same
    mask.

    Args:
        image: uint8 (H, W, 3) RGB.
        values: float32 (h, w) of any range, above 0 where the thing may be; see
            `segswap.discovery.clusters.image_maps` and `segswap.discovery.kinds`.

    Returns:
        bool (H, W).
    """
    height, width = image.shape[:2]
    scale = min(1.0, WORKING_SIDE / max(height, width))
    columns, rows = max(1, round(width * scale)), max(1, round(height * scale))
    small = geometry.resize(image, columns, rows) if scale < 1 else image
    large = enlarge(values.astype(np.float32), columns, rows)
    mask = _grab_cut(small, large) if large.max() > 0 else np.zeros((rows, columns), bool)
    return mask if scale == 1 else enlarge(mask.astype(np.float32), width, height) > 0.5


def _grab_cut(image: NDArray[np.uint8], values: NDArray[np.float32]) -> NDArray[np.bool_]:
    sure, maybe = values > CUT * values.max(), values > 0
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * BAND + 1, 2 * BAND + 1))
    around = cv2.dilate(maybe.view(np.uint8), disc) > 0
    labels = np.full(values.shape, cv2.GC_BGD, np.uint8)
    labels[around] = cv2.GC_PR_BGD
    labels[maybe] = cv2.GC_PR_FGD
    labels[sure] = cv2.GC_FGD
    if maybe.all():
        return sure
    cv2.setRNGSeed(0)  # it clusters colours from a random start
    models = np.zeros((1, 65)), np.zeros((1, 65))
    try:
        cv2.grabCut(
            np.ascontiguousarray(image[..., ::-1]), labels, None, *models, _ITERATIONS,
            cv2.GC_INIT_WITH_MASK,
        )  # fmt: skip
    except cv2.error:  # fewer pixels of one kind than colours to cluster
        return sure
    return (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
