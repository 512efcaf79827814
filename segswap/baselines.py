"""What anyone would try first: SIFT, the ratio test, and one affine map by RANSAC."""

import cv2
import numpy as np
from numpy.typing import NDArray

from segswap import geometry
from segswap.prediction import Prediction

_GRID = 60
_RATIO = 0.8
_REPROJECTION = 5.0


def sift(source: NDArray[np.uint8], target: NDArray[np.uint8]) -> Prediction:
    """SIFT features (Lowe, IJCV 2004), ratio test at 0.8, affine RANSAC at 5 px.

    The affine map gives all positions; the masks are the convex hulls of the inliers. Without a
    map (fewer than four inliers) there is no position and both masks are empty.

    Args:
        source, target: uint8 (H, W, 3) RGB, at the size at which features are sought.
    """
    from_source = _affine(source, target)
    if from_source is None:
        nowhere = np.full((_GRID, _GRID, 2), np.nan, np.float32)
        empty = np.zeros((_GRID, _GRID), np.float32)
        return Prediction(nowhere, nowhere, empty, empty)
    matrix, source_inliers, target_inliers = from_source
    centres = geometry.cell_centres(_GRID, _GRID)
    return Prediction(
        geometry.transform(matrix, centres).astype(np.float32),
        geometry.transform(np.linalg.inv(matrix), centres).astype(np.float32),
        _hull(source_inliers),
        _hull(target_inliers),
    )


def _affine(
    source: NDArray[np.uint8], target: NDArray[np.uint8]
) -> tuple[NDArray[np.float64], NDArray, NDArray] | None:
    """Normalised target-from-source map, and the inliers in both images, normalised (N, 2)."""
    finder = cv2.SIFT.create()
    found = [
        finder.detectAndCompute(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), None)
        for image in (source, target)
    ]
    if any(descriptors is None or len(descriptors) < 2 for _, descriptors in found):
        return None
    (source_points, a), (target_points, b) = found
    nearest = cv2.BFMatcher().knnMatch(a, b, k=2)
    kept = [m for m, n in nearest if m.distance < _RATIO * n.distance]
    if len(kept) < 4:
        return None
    start = np.array([source_points[m.queryIdx].pt for m in kept])
    end = np.array([target_points[m.trainIdx].pt for m in kept])
    cv2.setRNGSeed(0)
    affine, inliers = cv2.estimateAffine2D(
        start, end, method=cv2.RANSAC, ransacReprojThreshold=_REPROJECTION, maxIters=5000,
        confidence=0.999,
    )  # fmt: skip
    if affine is None or inliers.sum() < 4 or abs(np.linalg.det(affine[:, :2])) < 1e-6:
        return None
    to_source = np.linalg.inv(geometry.pixels_from_normalised(source.shape[1], source.shape[0]))
    to_target = np.linalg.inv(geometry.pixels_from_normalised(target.shape[1], target.shape[0]))
    matrix = to_target @ np.vstack([affine, [0, 0, 1]]) @ np.linalg.inv(to_source)
    chosen = inliers.ravel() > 0
    return (
        matrix,
        geometry.transform(to_source, start[chosen]),
        geometry.transform(to_target, end[chosen]),
    )


def _hull(points: NDArray) -> NDArray[np.float32]:
    hull = cv2.convexHull(np.rint(points * _GRID - 0.5).astype(np.int32))
    return cv2.fillConvexPoly(np.zeros((_GRID, _GRID), np.float32), hull, 1.0)
