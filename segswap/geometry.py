"""Coordinates, affine maps and warps: the one place that knows where a pixel's centre is.

Everything outside this module speaks normalised image coordinates: x = 0 is the left edge of the
image, x = 1 its right edge, y likewise downwards, so pixel column j of a W px wide image has its
centre at (j + 0.5) / W. OpenCV puts the centre of pixel j at j; `torch.nn.functional.grid_sample`
with ``align_corners=False`` puts the edges at -1 and 1.
"""

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def cell_centres(rows: int, columns: int) -> Array:
    """Normalised centres of the cells of a grid: float64 (rows, columns, 2), x then y."""
    x, y = np.meshgrid((np.arange(columns) + 0.5) / columns, (np.arange(rows) + 0.5) / rows)
    return np.stack([x, y], axis=-1)


def scaling(x: float, y: float) -> Array:
    """3x3 matrix that multiplies x and y."""
    return np.diag([x, y, 1.0])


def translation(x: float, y: float) -> Array:
    """3x3 matrix that adds (x, y)."""
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])


def rotation(degrees: float) -> Array:
    """3x3 rotation about the origin, from the x axis (right) towards the y axis (down)."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def transform(matrix: ArrayLike, points: ArrayLike) -> Array:
    """Map points (..., 2) through a 3x3 homography; returns float64 of the same shape."""
    m, p = np.asarray(matrix, np.float64), np.asarray(points, np.float64)
    mapped = p @ m[:, :2].T + m[:, 2]
    return mapped[..., :2] / mapped[..., 2:]


def inside(points: ArrayLike) -> NDArray[np.bool_]:
    """Which of the normalised points (..., 2) lie in the image, edges included: bool (...)."""
    p = np.asarray(points)
    return np.all((p >= 0) & (p <= 1), axis=-1)


def pixels_from_normalised(width: int, height: int) -> Array:
    """3x3 matrix from normalised coordinates to OpenCV's pixels (centre of pixel j at j)."""
    return translation(-0.5, -0.5) @ scaling(width, height)


def sample(image: NDArray, points: ArrayLike, interpolation: int = cv2.INTER_LINEAR) -> NDArray:
    """Values of an image (H, W[, C]) at normalised points (rows, columns, 2).

    Beyond the frame the nearest edge pixel is taken. Returns (rows, columns[, C]) in the image's
    dtype.
    """
    height, width = image.shape[:2]
    p = transform(pixels_from_normalised(width, height), points).astype(np.float32)
    return cv2.remap(
        image, p[..., 0], p[..., 1], interpolation, borderMode=cv2.BORDER_REPLICATE
    )


def warp(
    image: NDArray, matrix: ArrayLike, width: int, height: int, *, constant: float | None = None
) -> NDArray:
    """Resample an image through an affine map with one bilinear interpolation.

    Where the map shrinks, the image is smoothed first, so that nothing aliases: a Gaussian whose
    width grows with the shrinking along each of the image's axes.

    Args:
        image: (H, W[, C]), uint8 or float32.
        matrix: 3x3 affine map, normalised output coordinates from normalised image coordinates.
        width, height: size of the result in pixels.
        constant: the value beyond the image's frame; by default the nearest edge pixel.

    Returns:
        (height, width[, C]) of the image's dtype.
    """
    rows, columns = image.shape[:2]
    pixel_map = (
        pixels_from_normalised(width, height)
        @ np.asarray(matrix, np.float64)
        @ np.linalg.inv(pixels_from_normalised(columns, rows))
    )
    # The length of one input pixel's step in output pixels, along x and along y.
    steps = np.linalg.norm(pixel_map[:2, :2], axis=0)
    sigma = [0.5 * np.sqrt(max(1 / step**2 - 1, 0.0)) for step in steps]
    if max(sigma) > 0.3:
        image = cv2.GaussianBlur(
            image, (0, 0), max(sigma[0], 1e-3), sigmaY=max(sigma[1], 1e-3),
            borderType=cv2.BORDER_REPLICATE,
        )  # fmt: skip
    border = cv2.BORDER_REPLICATE if constant is None else cv2.BORDER_CONSTANT
    return cv2.warpAffine(
        image, pixel_map[:2], (width, height), flags=cv2.INTER_LINEAR, borderMode=border,
        borderValue=(constant or 0.0,) * 4,
    )  # fmt: skip


def warp_labels(labels: NDArray, matrix: ArrayLike, width: int, height: int) -> NDArray:
    """A label map (H, W) through an affine map as in `warp`, by nearest neighbour, 0 outside."""
    rows, columns = labels.shape
    pixel_map = (
        pixels_from_normalised(width, height)
        @ np.asarray(matrix, np.float64)
        @ np.linalg.inv(pixels_from_normalised(columns, rows))
    )
    return cv2.warpAffine(labels, pixel_map[:2], (width, height), flags=cv2.INTER_NEAREST)


def resize(image: NDArray, width: int, height: int) -> NDArray:
    """The whole image at another size: averaged over areas when shrinking, else bilinear."""
    rows, columns = image.shape[:2]
    shrinks = width < columns or height < rows
    return cv2.resize(
        image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )
