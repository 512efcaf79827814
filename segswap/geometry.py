"""Coordinates, affine maps and warps: the one place that knows where a pixel's centre is.

Everything outside this module speaks normalised image coordinates: x = 0 is the left edge of the
image, x = 1 its right edge, y likewise downwards, so pixel column j of a W px wide image has its
centre at (j + 0.5) / W. OpenCV puts the centre of pixel j at j; `torch.nn.functional.grid_sample`
with ``align_corners=False`` puts the edges at -1 and 1.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Window = tuple[int, int, int, int]  # left, top, right, bottom in pixels; right and bottom excluded
Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels


def cell_centres(rows: int, columns: int) -> Array:
    """Normalised centres of the cells of a grid: float64 (rows, columns, 2), x then y."""
    x, y = np.meshgrid((np.arange(columns) + 0.5) / columns, (np.arange(rows) + 0.5) / rows)
    return np.stack([x, y], axis=-1)


def scaling(x: float, y: float) -> Array:
    """3x3 matrix that multiplies x and y."""
    return np.array([[x, 0.0, 0.0], [0.0, y, 0.0], [0.0, 0.0, 1.0]])


def translation(x: float, y: float) -> Array:
    """3x3 matrix that adds (x, y)."""
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])


def rotation(degrees: float) -> Array:
    """3x3 rotation about the origin, from the x axis (right) towards the y axis (down)."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def transform_points(matrix: ArrayLike, points: ArrayLike) -> Array:
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
    return np.array([[width, 0.0, -0.5], [0.0, height, -0.5], [0.0, 0.0, 1.0]])


def sample(image: NDArray, points: ArrayLike, interpolation: int = cv2.INTER_LINEAR) -> NDArray:
    """Values of an image (H, W[, C]) at normalised points (rows, columns, 2).

    Beyond the frame the nearest edge pixel is taken. Returns (rows, columns[, C]) in the image's
    dtype.
    """
    height, width = image.shape[:2]
    p = transform_points(pixels_from_normalised(width, height), points).astype(np.float32)
    return cv2.remap(image, p[..., 0], p[..., 1], interpolation, borderMode=cv2.BORDER_REPLICATE)


def warp(
    image: NDArray,
    matrix: ArrayLike,
    width: int,
    height: int,
    *,
    constant: float | None = None,
    window: Window | None = None,
) -> NDArray:
    """Resample an image through an affine map with one bilinear interpolation.

    Where the map shrinks, the image is smoothed first, so that nothing aliases: a Gaussian whose
    width grows with the shrinking along each of the image's axes.

    Args:
        image: (H, W[, C]), uint8 or float32.
        matrix: 3x3 affine map, normalised output coordinates from normalised image coordinates.
        width, height: size of the result in pixels.
        constant: the value beyond the image's frame; by default the nearest edge pixel.
        window: the only part of the result that is computed, in pixels; the rest is 0.

    Returns:
        (height, width[, C]) of the image's dtype.
    """
    pixel_map = _pixel_map(matrix, image.shape, width, height)
    left, top, right, bottom = window or (0, 0, width, height)
    # The length of one input pixel's step in output pixels, along x and along y.
    steps = np.linalg.norm(pixel_map[:2, :2], axis=0)
    corners = np.array([(x, y) for x in (left - 1, right) for y in (top - 1, bottom)])
    needed = transform_points(np.linalg.inv(pixel_map), corners)
    reach = 2 + 2 / steps  # of interpolation and smoothing, in input pixels
    low = np.floor(needed.min(axis=0) - reach).astype(int).clip(0)
    high = np.ceil(needed.max(axis=0) + reach).astype(int).clip(1)
    # An image that lies elsewhere still gives its nearest pixel.
    low = np.minimum(low, np.array(image.shape[1::-1]) - 1)
    image = _smoothed(image[low[1] : high[1], low[0] : high[0]], steps)
    border = cv2.BORDER_REPLICATE if constant is None else cv2.BORDER_CONSTANT
    part = cv2.warpAffine(
        image, (translation(-left, -top) @ pixel_map @ translation(*low))[:2],
        (right - left, bottom - top), flags=cv2.INTER_LINEAR, borderMode=border,
        borderValue=(constant or 0.0,) * 4,
    )  # fmt: skip
    return part if window is None else _in_frame(part, window, width, height)


def warp_labels(
    labels: NDArray, matrix: ArrayLike, width: int, height: int, *, window: Window | None = None
) -> NDArray:
    """A label map (H, W) through an affine map as in `warp`, by nearest neighbour, 0 outside."""
    pixel_map = _pixel_map(matrix, labels.shape, width, height)
    left, top, right, bottom = window or (0, 0, width, height)
    part = cv2.warpAffine(
        labels, (translation(-left, -top) @ pixel_map)[:2], (right - left, bottom - top),
        flags=cv2.INTER_NEAREST,
    )  # fmt: skip
    return part if window is None else _in_frame(part, window, width, height)


def window_of(mask: NDArray[np.bool_]) -> Window:
    """The smallest window that holds all of a mask (H, W); (0, 0, 0, 0) where it is empty."""
    left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
    return left, top, left + width, top + height


def cut(image: NDArray, window: Window) -> NDArray:
    """The part of an image (H, W[, C]) in a window; zeros where that reaches beyond the image."""
    left, top, right, bottom = window
    part = image[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    height, width = image.shape[:2]
    beyond = [(max(-top, 0), max(bottom - height, 0)), (max(-left, 0), max(right - width, 0))]
    if not np.any(beyond):
        return part
    return np.pad(part, beyond + [(0, 0)] * (image.ndim - 2))


def _in_frame(part: NDArray, window: Window, width: int, height: int) -> NDArray:
    """An image that is 0 but for a window."""
    left, top, right, bottom = window
    whole = np.zeros((height, width, *part.shape[2:]), part.dtype)
    whole[top:bottom, left:right] = part
    return whole


def resize(image: NDArray, width: int, height: int) -> NDArray:
    """The whole image (H, W[, C]) at another size: what `warp` makes of it by the identity.

    Not by OpenCV's INTER_AREA, which moves pixels by up to 1.5 px where one side grows.
    """
    rows, columns = image.shape[:2]
    smooth = _smoothed(image, (width / columns, height / rows))
    return cv2.resize(smooth, (width, height), interpolation=cv2.INTER_LINEAR)


def cell_means(image: NDArray, rows: int, columns: int) -> NDArray:
    """Means of an image (H, W[, C]) over the cells of a coarser grid: (rows, columns[, C])."""
    return cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA)


def _pixel_map(matrix: ArrayLike, shape: Sequence[int], width: int, height: int) -> Array:
    """An affine map between OpenCV's pixels of an image of a shape (H, W, ...) and of a result."""
    rows, columns = shape[:2]
    return (
        pixels_from_normalised(width, height)
        @ np.asarray(matrix, np.float64)
        @ np.linalg.inv(pixels_from_normalised(columns, rows))
    )


def _smoothed(image: NDArray, steps: Sequence[float] | Array) -> NDArray:
    """The image ready for sampling at steps (x, y) of an input pixel in output pixels."""
    sigma = [0.5 * np.sqrt(max(1 / step**2 - 1, 0.0)) for step in steps]
    if max(sigma) <= 0.3:
        return image
    width, height = (2 * round(3 * s) + 1 for s in sigma)
    return cv2.GaussianBlur(
        image, (width, height), max(sigma[0], 1e-3), sigmaY=max(sigma[1], 1e-3),
        borderType=cv2.BORDER_REPLICATE,
    )  # fmt: skip
