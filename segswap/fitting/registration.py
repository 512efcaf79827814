"""How far the recorded map of an object misses the pixels, measured by registration.

The source is carried into the target by the recorded map; whatever affine motion then still
separates the two pictures inside the object is the map's error. It is found by Gauss-Newton on the
colours (Lucas and Kanade 1981; Baker and Matthews 2004), after smoothing against JPEG's noise and
after taking off the local mean, which Poisson blending changes.

A region without texture cannot be registered by anyone. The residual's noise and the texture give
the standard error of the found motion; regions where it is above 0.1 px say nothing. It does not
depend on how large the found motion is.

Nothing here uses the rest of the package: what measures pairs shares no code with what makes them,
and has its own half pixel.
"""

from collections.abc import Mapping
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
# In target pixels, or in source pixels where the map enlarges.
SMOOTH = 0.7  # of both pictures, against noise
LOCAL = 3.0  # the scale of the local mean
RIM = 4.0  # left out at the mask's rim, where object and background mix
MAX_STANDARD_ERROR = 0.1  # target pixels, at the pixel of the object where it is largest
# Pixels and channels are not independent: noise of a patch of 4 pi sigma^2 counts once.
CORRELATION = 4 * np.pi * SMOOTH**2 * 3
JPEG_NOISE = 2.0  # of the smoothed pictures' difference, in grey levels


class Found(NamedTuple):
    """The registration of one object.

    All in target pixels.

    Attributes:
        errors: displacement at 200 pixels of the mask: (200,).
        worst: the largest displacement in the mask.
        standard_error: of the displacement, where it is largest.
        least_error: the standard error that the texture would allow if nothing but JPEG's noise
            separated the pictures.
        agreement: correlation of the pictures' details along the map, once corrected: -1 to 1.
    """

    errors: Array
    worst: float
    standard_error: float
    least_error: float
    agreement: float


def register(images: Mapping[str, NDArray], label: int, matrix: Array) -> Found | None:
    """Register one object's pixels along its recorded map; None where too few are left.

    Args:
        images: "source" and "target", uint8 (H, W, 3), and "target_mask", uint8 (H, W).
        label: the object's in the mask.
        matrix: its target_from_source, (3, 3), normalised coordinates.
    """
    height, width = images["target_mask"].shape
    mask = (images["target_mask"] == label).astype(np.uint8)
    zoom = np.sqrt(abs(np.linalg.det(matrix[:2, :2])))  # source and target are of one size
    scale = max(zoom, 1.0)
    region = cv2.erode(mask, np.ones((2 * round(RIM * scale) + 1,) * 2, np.uint8), borderValue=0)
    if region.sum() < 200:
        return None
    left, top, columns, rows = cv2.boundingRect(region)
    margin = int(3 * LOCAL * scale)
    part = np.s_[
        max(top - margin, 0) : top + rows + margin, max(left - margin, 0) : left + columns + margin
    ]
    y, x = (np.arange(size)[extent] for size, extent in zip((height, width), part, strict=True))
    grid = np.stack(np.meshgrid(x, y), axis=-1)  # the part's pixels in the target: (h, w, 2)
    inner = region[part] > 0
    target = detail(images["target"][part], inner, scale)
    centre, extent = grid[inner].mean(axis=0), np.maximum(grid[inner].std(axis=0), 1)
    # At most 15,000 pixels: neighbours tell hardly more than each other.
    every = 1 + len(grid[inner]) // 15_000
    pixels = np.flatnonzero(inner)[::every]
    basis = affine_basis((grid[inner][::every] - centre) / extent)
    source = images["source"].astype(np.float32)
    if zoom < 1:
        source = cv2.GaussianBlur(source, (0, 0), max(0.5 * np.sqrt(1 / zoom**2 - 1), 0.1))
    # target pixels from normalised target coordinates, and the found motion before them
    to_pixels = np.array([[width, 0, -0.5], [0, height, -0.5], [0, 0, 1.0]])
    correction = np.eye(3)
    for _ in range(8):
        carried = carry(source, correction @ to_pixels @ matrix, grid)
        shown = detail(carried, inner, scale)
        step, spread, noise = gauss_newton(shown, target, pixels, basis)
        correction = as_matrix(step, centre, extent) @ correction
        if np.abs(step).max() < 1e-3:
            break
    spread *= max(CORRELATION * scale**2 / every, 3)
    places = np.argwhere(mask)[:, ::-1]
    chosen = places[np.linspace(0, len(places) - 1, 200).round().astype(int)]
    # An affine displacement, and its variance, are largest at a corner of the hull.
    corners = cv2.convexHull(places.astype(np.int32))[:, 0]
    moves = np.einsum("nb,cd->ncbd", affine_basis((corners - centre) / extent), np.eye(2))
    moves = moves.reshape(-1, 2, 6)
    variance = np.einsum("nij,jk,nik->n", moves, spread, moves).max()
    errors = [displacement(correction, points) for points in (chosen, corners)]
    return Found(
        errors[0], float(errors[1].max()), float(np.sqrt(noise * variance)),
        float(np.sqrt(JPEG_NOISE**2 * variance)), correlation(shown, target, pixels),
    )  # fmt: skip


def correlation(one: NDArray, other: NDArray, pixels: NDArray) -> float:
    """Of two pictures (h, w, 3) without their means, at chosen pixels; 0 where one is flat."""
    a, b = (image.reshape(-1, 3)[pixels].astype(np.float64) for image in (one, other))
    return float((a * b).sum() / max(np.sqrt((a * a).sum() * (b * b).sum()), 1e-9))


def displacement(matrix: Array, points: NDArray) -> Array:
    """How far an affine map moves points (N, 2): (N,)."""
    return np.linalg.norm(points @ matrix[:2, :2].T + matrix[:2, 2] - points, axis=1)


def carry(source: NDArray, pixels_from_source: Array, grid: NDArray) -> NDArray:
    """The source at the target's pixels: float32 (h, w, 3).

    Args:
        source: (H, W, 3).
        pixels_from_source: target pixels from normalised source coordinates, (3, 3).
        grid: target pixels (h, w, 2), x then y.
    """
    rows, columns = source.shape[:2]
    homogeneous = np.concatenate([grid, np.ones((*grid.shape[:2], 1))], axis=-1)
    place = homogeneous @ np.linalg.inv(pixels_from_source).T
    place = (place[..., :2] / place[..., 2:] * (columns, rows) - 0.5).astype(np.float32)
    return cv2.remap(
        source, place[..., 0], place[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )


def detail(image: NDArray, inner: NDArray, scale: float) -> NDArray:
    """The image smoothed, less its local mean inside the region: float32 (h, w, 3)."""
    weight = inner.astype(np.float32)
    smooth = cv2.GaussianBlur(image.astype(np.float32), (0, 0), SMOOTH * scale)
    total = cv2.GaussianBlur(smooth * weight[..., None], (0, 0), LOCAL * scale)
    share = cv2.GaussianBlur(weight, (0, 0), LOCAL * scale)
    return smooth - total / np.maximum(share, 1e-3)[..., None]


def affine_basis(points: Array) -> Array:
    """1, x and y of points (N, 2): (N, 3)."""
    return np.column_stack([np.ones(len(points)), points])


def as_matrix(motion: Array, centre: Array, extent: Array) -> Array:
    """p + affine_basis((p - centre) / extent) @ motion as a (3, 3) matrix."""
    linear = motion[1:].T / extent
    matrix = np.eye(3)
    matrix[:2, :2] += linear
    matrix[:2, 2] = motion[0] - linear @ centre
    return matrix


def gauss_newton(
    carried: NDArray, target: NDArray, pixels: NDArray, basis: Array
) -> tuple[Array, Array, float]:
    """The motion (3, 2) that carries the first picture onto the second, to first order.

    Returns the motion, the covariance of its six numbers, (6, 6), for independent pixels with a
    noise of variance 1, and the noise's variance.
    """
    kernel = np.array([[-0.25, 0, 0.25]])
    slopes = [cv2.filter2D(target + carried, -1, k) for k in (kernel, kernel.T)]
    here, there, *slopes = (
        image.reshape(-1, 3)[pixels].astype(np.float64) for image in (carried, target, *slopes)
    )
    gradient = np.stack(slopes, axis=-1)  # (N, 3 channels, 2)
    # Unknowns: motion of x and y by each basis function, and the pictures' relative contrast.
    jacobian = np.einsum("nb,ncd->ncbd", basis, gradient).reshape(len(basis), 3, 6)
    jacobian = np.concatenate([jacobian, -here[..., None]], axis=-1).reshape(-1, 7)
    residual = (here - there).ravel()
    scale = 1.48 * np.median(np.abs(residual)) + 1e-6
    weight = 1 / np.maximum(np.abs(residual) / (2 * scale), 1)
    normal = jacobian.T @ (jacobian * weight[:, None]) + 1e-9 * np.eye(7)
    step = np.linalg.solve(normal, jacobian.T @ (residual * weight))
    remaining = residual - jacobian @ step
    noise = float((weight * remaining**2).sum() / weight.sum())
    return step[:6].reshape(3, 2), np.linalg.inv(normal)[:6, :6], noise


def certain(found: list[Found | None]) -> list[Found]:
    """The registrations whose standard error is small enough to say anything."""
    return [one for one in found if one and one.standard_error <= MAX_STANDARD_ERROR]
