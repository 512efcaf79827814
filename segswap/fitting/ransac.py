"""Maps that most of two images' matched features agree with."""

import cv2
import numpy as np
from numpy.typing import NDArray

_RATIO = 0.8
_REPROJECTION = 5.0


def affine_by_ransac(
    points: NDArray, descriptors: NDArray, others: NDArray, other_descriptors: NDArray
) -> tuple[NDArray[np.float64], NDArray, NDArray] | None:
    """The affine map that most of the matches agree with, ratio test at 0.8, RANSAC at 5 px.

    Args:
        points, others: (N, 2) and (M, 2), features of two images in pixels.
        descriptors, other_descriptors: float32 (N, D) and (M, D).

    Returns:
        The 3x3 map and the matches that agree, (K, 2) each; None with fewer than four.
    """
    if len(points) < 4 or len(others) < 2:
        return None
    nearest = cv2.BFMatcher().knnMatch(descriptors, other_descriptors, k=2)
    kept = [m for m, n in nearest if m.distance < _RATIO * n.distance]
    if len(kept) < 4:
        return None
    start = points[[m.queryIdx for m in kept]]
    end = others[[m.trainIdx for m in kept]]
    cv2.setRNGSeed(0)
    affine, inliers = cv2.estimateAffine2D(
        start, end, method=cv2.RANSAC, ransacReprojThreshold=_REPROJECTION, maxIters=5000,
        confidence=0.999,
    )  # fmt: skip
    if affine is None or inliers.sum() < 4:
        return None
    chosen = inliers.ravel() > 0
    return np.vstack([affine, [0, 0, 1]]), start[chosen], end[chosen]
