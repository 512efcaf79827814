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


def homography_by_magsac(
    source: NDArray[np.float64], target: NDArray[np.float64], threshold: float
) -> tuple[NDArray[np.float64] | None, NDArray[np.bool_]]:
    """The homography that most matches agree with, by MAGSAC++ (Barath et al., CVPR 2020).

    Args:
        source, target: (N, 2), points that belong together, in pixels.
        threshold: how far off in the target, in pixels, a match that agrees may be.

    Returns:
        The 3x3 matrix, from source to target, and which matches agree, bool (N,); None and no
        match where there are fewer than four, or four that agree are not found.

    Raises:
        ValueError: the threshold is not above 0.
    """
    if not threshold > 0:
        raise ValueError(f"threshold is {threshold}; expected pixels, above 0")
    none = np.zeros(len(source), np.bool_)
    if len(source) < 4:
        return None, none
    matrix, inliers = cv2.findHomography(
        source, target, cv2.USAC_MAGSAC, threshold, maxIters=10_000, confidence=0.999
    )
    if matrix is None or not np.isfinite(matrix).all() or np.count_nonzero(inliers) < 4:
        return None, none
    return matrix, inliers.ravel() > 0
