"""Coordinates, affine maps and warps of arrays: the one place that knows where a pixel's centre is.

Everything outside this module speaks normalised image coordinates: x = 0 is the left edge of the
image, x = 1 its right edge, y likewise downwards, so pixel column j of a W px wide image has its
centre at (j + 0.5) / W. OpenCV puts the centre of pixel j at j. `segswap.matchers.sampling` is the
same for torch, where `grid_sample` puts the edges at -1 and 1.

Every public function says in a line what it takes for granted, and one test holds that line. A
matrix is named after what it gives and what it takes: target_from_source maps source points to
target points, which are columns that it is multiplied with from the left.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Window = tuple[int, int, int, int]  # left, top, right, bottom in pixels; right and bottom excluded
Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels
# The powers of 1 / g, where g ** 3 = g + 1: the golden ratio's counterpart in the plane.
_R2 = np.array([0.7548776662466927, 0.5698402909980532])


# --- points ----------------------------------------------------------------------------------


def axis_centres(count: int) -> Array:
    """Centres of so many cells side by side: float64 (count,).

    Convention: normalised; cell j, counted from 0, has its centre at (j + 0.5) / count.
    """
    return (np.arange(count) + 0.5) / count


def cell_centres(rows: int, columns: int) -> Array:
    """Centres of the cells of a grid, or of an image's pixels: float64 (rows, columns, 2).

    Convention: normalised, x then y; y grows downwards with the row.
    """
    return np.stack(np.meshgrid(axis_centres(columns), axis_centres(rows)), axis=-1)


def pixels_from_normalised(width: int, height: int) -> Array:
    """3x3 matrix to the pixels of an image of a size.

    Convention: from normalised points to OpenCV's pixels, where the centre of pixel j is at j.
    """
    return np.array([[width, 0.0, -0.5], [0.0, height, -0.5], [0.0, 0.0, 1.0]])


def to_pixels(points: ArrayLike, width: int, height: int) -> Array:
    """Points (..., 2) in the pixels of an image: float64 of the same shape.

    Convention: from normalised points to OpenCV's pixels, where the centre of pixel j is at j.
    """
    return np.asarray(points, np.float64) * (width, height) - 0.5


def to_normalised(pixels: ArrayLike, width: int, height: int) -> Array:
    """The inverse of `to_pixels`: float64 of the same shape.

    Convention: from OpenCV's pixels, where the centre of pixel j is at j, to normalised points.
    """
    return (np.asarray(pixels, np.float64) + 0.5) / (width, height)


def pixel_at(points: ArrayLike, width: int, height: int) -> NDArray[np.int64]:
    """Column and row of the pixel that each point (..., 2) lies in: int64 of the same shape.

    Convention: normalised points; pixel j goes from j / W to (j + 1) / W, its left and upper edge
    included. Points outside the image lie in pixels below 0, or from the width or height on.
    """
    return np.floor(np.asarray(points, np.float64) * (width, height)).astype(np.int64)


def inside(points: ArrayLike) -> NDArray[np.bool_]:
    """Which of the points (..., 2) lie in the image: bool (...).

    Convention: normalised points; all four edges belong to the image, NaN does not.
    """
    p = np.asarray(points)
    return np.all((p >= 0) & (p <= 1), axis=-1)


def farthest_points(points: NDArray[np.floating], count: int) -> NDArray[np.intp]:
    """Numbers of at most `count` of the points (N, 2), spread by farthest-point sampling.

    The first is the nearest one to their mean, each further one the farthest from those before. Of
    points in one place one is taken.

    Convention: any units in which x and y count alike.
    """
    if not len(points) or count < 1:
        return np.zeros(0, np.intp)
    chosen = [int(np.linalg.norm(points - points.mean(axis=0), axis=1).argmin())]
    nearest = np.linalg.norm(points - points[chosen[0]], axis=1)
    while len(chosen) < count and nearest.max() > 0:
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, np.linalg.norm(points - points[chosen[-1]], axis=1))
    return np.array(chosen)


def even_points(count: int) -> Array:
    """Points spread evenly over the image, also the first few of them: float64 (count, 2).

    Roberts' R2, whose points are a multiple of two irrational steps: no lattice, and none is near
    another one, however many there are.

    Convention: normalised; the first is the image's middle.
    """
    return np.mod(0.5 + np.arange(count)[:, None] * _R2, 1.0)


# --- matrices --------------------------------------------------------------------------------


def scaling(x: float, y: float) -> Array:
    """3x3 matrix that multiplies x and y.

    Convention: about the origin, which is the image's upper left corner; any units.
    """
    return np.array([[x, 0.0, 0.0], [0.0, y, 0.0], [0.0, 0.0, 1.0]])


def translation(x: float, y: float) -> Array:
    """3x3 matrix that adds (x, y).

    Convention: any units; x to the right, y downwards.
    """
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])


def rotation(degrees: float) -> Array:
    """3x3 rotation.

    Convention: about the origin, in units in which x and y count alike; from the x axis (right)
    towards the y axis (down), which on the screen is clockwise.
    """
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def mirroring() -> Array:
    """3x3 matrix that mirrors an image left to right.

    Convention: normalised points: x becomes 1 - x, y stays.
    """
    return np.array([[-1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])


def transform_points(matrix: ArrayLike, points: ArrayLike) -> Array:
    """Map points (..., 2) through a 3x3 homography; returns float64 of the same shape.

    Convention: x then y, in the units that the matrix takes; matrix @ (x, y, 1), divided by its
    third coordinate.
    """
    m, p = np.asarray(matrix, np.float64), np.asarray(points, np.float64)
    mapped = p @ m[:, :2].T + m[:, 2]
    return mapped[..., :2] / mapped[..., 2:]


# --- images ----------------------------------------------------------------------------------


def sample(image: NDArray, points: ArrayLike) -> Array:
    """Bilinear values of an image (H, W[, C]) at points (..., 2): float64 (...[, C]).

    Not by OpenCV's remap, which before version 5 rounds points to 1/32 px.

    Convention: normalised points, x then y; beyond the centres of the outermost pixels, also
    outside the image, the nearest edge pixel counts. NaN where a point or one of the four pixels
    around it is NaN.
    """
    height, width = image.shape[:2]
    x, y = np.moveaxis(to_pixels(points, width, height), -1, 0)
    left, right, u = _around(x, width)
    top, bottom, v = _around(y, height)
    if image.ndim == 3:
        u, v = u[..., None], v[..., None]
    upper = image[top, left] * (1 - u) + image[top, right] * u
    lower = image[bottom, left] * (1 - u) + image[bottom, right] * u
    return upper * (1 - v) + lower * v


def _around(at: Array, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
    """The pixels before and after places on an axis of so many, and the share of the latter."""
    at = at.clip(0, count - 1)
    # NaN must not be made an index, but stay in the share.
    before = np.nan_to_num(np.floor(at)).astype(np.int64)
    return before, np.minimum(before + 1, count - 1), at - before


def mirror(image: NDArray) -> NDArray:
    """An image (H, W[, C]) mirrored, as a contiguous copy.

    Convention: left to right: pixel column j becomes W - 1 - j.
    """
    return image[:, ::-1].copy()


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

    Convention: the matrix maps normalised points of the image to normalised points of the result,
    pixels have their centres at half-integers of both; beyond the frame the nearest edge pixel.

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
    """A label map (H, W) through an affine map, by nearest neighbour.

    Convention: the matrix as in `warp`; 0 beyond the frame.
    """
    pixel_map = _pixel_map(matrix, labels.shape, width, height)
    left, top, right, bottom = window or (0, 0, width, height)
    part = cv2.warpAffine(
        labels, (translation(-left, -top) @ pixel_map)[:2], (right - left, bottom - top),
        flags=cv2.INTER_NEAREST,
    )  # fmt: skip
    return part if window is None else _in_frame(part, window, width, height)


def window_of(mask: NDArray[np.bool_]) -> Window:
    """The smallest window that holds all of a mask (H, W); (0, 0, 0, 0) where it is empty.

    Convention: pixel edges, counted from 0: column j is in the window where left <= j < right.
    """
    left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
    return left, top, left + width, top + height


def cut(image: NDArray, window: Window) -> NDArray:
    """The part of an image (H, W[, C]) in a window.

    Convention: pixel edges as in `window_of`; zeros where the window reaches beyond the image.
    """
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

    Convention: width, then height, in pixels; normalised points stay where they are, and beyond
    the frame the nearest edge pixel counts.
    """
    rows, columns = image.shape[:2]
    smooth = _smoothed(image, (width / columns, height / rows))
    return cv2.resize(smooth, (width, height), interpolation=cv2.INTER_LINEAR)


def cell_means(image: NDArray, rows: int, columns: int) -> NDArray:
    """Means of an image (H, W[, C]) over the cells of a coarser grid: (rows, columns[, C]).

    Convention: rows, then columns; a pixel that an edge between cells cuts counts in both by its
    shares. Normalised points stay where they are.
    """
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
