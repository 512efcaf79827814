"""What anyone would try first: SIFT with one affine map by RANSAC, nearest features, an ellipse."""

import cv2
import numpy as np
from numpy.typing import NDArray

from segswap import geometry
from segswap.fitting.ransac import affine_by_ransac
from segswap.models.prediction import Prediction, cycle_offsets

_GRID = 60
ELLIPSES = (0.15, 0.2, 0.25, 0.35, 0.45)  # semi-axes, as shares of the image's sides


def sift(
    source: NDArray[np.uint8], target: NDArray[np.uint8], least_inliers: int = 4
) -> Prediction:
    """SIFT features (Lowe, IJCV 2004), ratio test at 0.8, affine RANSAC at 5 px.

    The affine map gives all positions; the masks are the convex hulls of the inliers. Without a
    map there is no position and both masks are empty.

    Args:
        source, target: uint8 (H, W, 3) RGB, at the size at which features are sought.
        least_inliers: with fewer there is no map; 4 or more. Unrelated images often have a few.
    """
    from_source = _affine(source, target)
    if from_source is None or len(from_source[1]) < least_inliers:
        nowhere = np.full((_GRID, _GRID, 2), np.nan, np.float32)
        empty = np.zeros((_GRID, _GRID), np.float32)
        return Prediction(nowhere, nowhere, empty, empty)
    matrix, source_inliers, target_inliers = from_source
    centres = geometry.cell_centres(_GRID, _GRID)
    return Prediction(
        geometry.transform_points(matrix, centres).astype(np.float32),
        geometry.transform_points(np.linalg.inv(matrix), centres).astype(np.float32),
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
    start, end = (np.array([point.pt for point in points]) for points, _ in found)
    matched = affine_by_ransac(start, found[0][1], end, found[1][1])
    if matched is None or abs(np.linalg.det(matched[0][:2, :2])) < 1e-6:
        return None
    affine, start, end = matched
    to_source = np.linalg.inv(geometry.pixels_from_normalised(source.shape[1], source.shape[0]))
    to_target = np.linalg.inv(geometry.pixels_from_normalised(target.shape[1], target.shape[0]))
    matrix = to_target @ affine @ np.linalg.inv(to_source)
    return (
        matrix,
        geometry.transform_points(to_source, start),
        geometry.transform_points(to_target, end),
    )


def _hull(points: NDArray) -> NDArray[np.float32]:
    hull = cv2.convexHull(np.rint(geometry.to_pixels(points, _GRID, _GRID)).astype(np.int32))
    return cv2.fillConvexPoly(np.zeros((_GRID, _GRID), np.float32), hull, 1.0)


def nearest_features(source: NDArray[np.float32], target: NDArray[np.float32]) -> Prediction:
    """Every cell goes to the cell of the other image whose feature is the most similar one.

    The masks are the cells from which the way there and back ends in the same cell or one of its
    eight neighbours.

    Args:
        source, target: features (C, h, w) and (C, h', w') of length 1 along C.
    """
    similarity = source.reshape(len(source), -1).T @ target.reshape(len(target), -1)
    there, back = similarity.argmax(axis=1), similarity.argmax(axis=0)
    shapes = source.shape[1:], target.shape[1:]
    centres = [geometry.cell_centres(*shape).reshape(-1, 2).astype(np.float32) for shape in shapes]
    to_target = centres[1][there].reshape(*shapes[0], 2)
    to_source = centres[0][back].reshape(*shapes[1], 2)
    return Prediction(
        to_target, to_source, _returns(to_target, to_source), _returns(to_source, to_target)
    )


def _returns(there: NDArray[np.float32], back: NDArray[np.float32]) -> NDArray[np.float32]:
    """1 for the cells whose way there and back ends in the same cell or one of its neighbours."""
    # Ways end at centres of cells: between 1 and 2 cells away there is none.
    return (np.abs(cycle_offsets(there, back)).max(axis=-1) < 1.5).astype(np.float32)


def ellipse_mask(width: int, height: int, share: float) -> NDArray[np.bool_]:
    """An ellipse in the middle of an image: bool (height, width).

    Args:
        share: its semi-axes as a share of the image's sides: at 0.5 it touches all of them.
    """
    offsets = (geometry.cell_centres(height, width) - 0.5) / share
    return np.linalg.norm(offsets, axis=-1) <= 1


def ellipse(source: NDArray[np.uint8], target: NDArray[np.uint8], share: float) -> Prediction:
    """`ellipse_mask` in both images, and every point at its own place in the other one: what is
    scored without having looked at the images.
    """
    centres = geometry.cell_centres(_GRID, _GRID).astype(np.float32)
    mask = ellipse_mask(_GRID, _GRID, share).astype(np.float32)
    return Prediction(centres, centres, mask, mask)
