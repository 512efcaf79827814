"""Ground truth on a grid of cells: soft masks and positions, exact at any stride and size.

What the stream teaches is of warped images; what a dataset may hold precomputed is of the images as
they are.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from segswap import geometry
from segswap.data.augment import Warp
from segswap.data.pair import Pair

_POINTS = 12  # a side of a cell, at which a bent mask is looked up
_RASTER = 640  # pixels a side of the raster that tells which points a warped image shows
_OUTLINE = 65  # points on each side of its frame

Grid = NDArray[np.float32]


@dataclass(frozen=True)
class GridTruth:
    """What is true of each cell of one side of a pair.

    Attributes:
        mask: float32 (rows, columns) in [0, 1], the share of the cell's area that belongs to an
            object and that the other image shows too.
        positions: float32 (rows, columns, 2), where the cell's centre lies in the other image,
            normalised; the cell's own centre where nothing is known.
        valid: bool (rows, columns), whether the position is known: the centre belongs to an object
            and its place is inside the other image.
    """

    mask: NDArray[np.float32]
    positions: NDArray[np.float32]
    valid: NDArray[np.bool_]


def source_truth(pair: Pair, rows: int, columns: int, source: Warp, target: Warp) -> GridTruth:
    """Ground truth of the source's cells, both images warped."""
    matrices = {item.label: item.target_from_source for item in pair.objects}
    return _truth(pair.source_mask, matrices, rows, columns, source, target)


def target_truth(pair: Pair, rows: int, columns: int, source: Warp, target: Warp) -> GridTruth:
    """Ground truth of the target's cells, both images warped."""
    matrices = {item.label: np.linalg.inv(item.target_from_source) for item in pair.objects}
    return _truth(pair.target_mask, matrices, rows, columns, target, source)


def _truth(
    labels: NDArray[np.uint8], matrices: dict[int, NDArray],
    rows: int, columns: int, own: Warp, other: Warp,
) -> GridTruth:  # fmt: skip
    centres = geometry.cell_centres(rows, columns)
    original = own.to_original(centres)
    label = _look_up(labels, original)
    positions = centres.copy()
    for value, matrix in matrices.items():
        chosen = label == value
        if chosen.any():
            positions[chosen] = other.from_original(
                geometry.transform_points(matrix, original[chosen])
            )
    valid = (label > 0) & geometry.inside(positions)
    shares = cell_shares(_shared(labels, matrices, other), rows, columns, own)
    return GridTruth(shares, positions.astype(np.float32), valid)


def _look_up(labels: NDArray[np.uint8], points: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Label of the pixel that each normalised point lies in; 0 outside the frame."""
    height, width = labels.shape
    x, y = np.moveaxis(geometry.pixel_at(points, width, height), -1, 0)
    framed = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    return np.where(framed, labels[y.clip(0, height - 1), x.clip(0, width - 1)], 0)


def _shared(
    labels: NDArray[np.uint8], matrices: dict[int, NDArray], other: Warp
) -> NDArray[np.uint8]:
    """Which pixels of a label map (H, W) the other image still shows when it is warped: 0 or 1.

    Splines and crops move parts of their image out of the frame.
    """
    height, width = labels.shape
    frame, to_frame = _frame(other)
    shared = np.zeros(labels.shape, np.uint8)
    for value, matrix in matrices.items():
        own = (labels == value).view(np.uint8)
        left, top, right, bottom = geometry.window_of(own)
        if right == left:
            continue
        from_pixels = np.linalg.inv(geometry.pixels_from_normalised(width, height))
        part = cv2.warpPerspective(
            frame, to_frame @ matrix @ from_pixels @ geometry.translation(left, top),
            (right - left, bottom - top), flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP,
        )  # fmt: skip
        shared[top:bottom, left:right] |= own[top:bottom, left:right] & part
    return shared


def _frame(warp: Warp) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """A raster (N, N) of what a warped image shows: 1 in its frame; and the raster's pixels from
    the original's normalised coordinates, a 3x3 matrix.
    """
    # The rim of what is filled belongs to it: through the centres of the frame's outermost pixels.
    rim = float(geometry.axis_centres(round(0.8 * _RASTER))[0])
    line = np.linspace(rim, 1 - rim, _OUTLINE)
    low, high = np.full(_OUTLINE, rim), np.full(_OUTLINE, 1 - rim)
    outline = np.concatenate(
        [np.stack(side, axis=-1) for side in
         ((line, low), (high, line), (line[::-1], high), (low, line[::-1]))]
    )  # fmt: skip
    if warp.spline is not None:
        outline = warp.spline(outline)
    # A spline's frame reaches beyond the unit square.
    to_raster = (
        geometry.pixels_from_normalised(_RASTER, _RASTER)
        @ geometry.scaling(0.8, 0.8) @ geometry.translation(0.125, 0.125)
    )  # fmt: skip
    corners = np.rint(geometry.transform_points(to_raster, outline) * 256).astype(np.int32)
    raster = np.zeros((_RASTER, _RASTER), np.uint8)
    cv2.fillPoly(raster, [corners], 1, shift=8)
    return raster, to_raster @ np.linalg.inv(warp.matrix)


def cell_shares(
    shared: NDArray[np.uint8], rows: int, columns: int, own: Warp
) -> NDArray[np.float32]:
    """The share of each cell of a warped image that a mask takes: exact areas, but for splines.

    Args:
        shared: uint8 (H, W), 1 in the mask and 0 elsewhere, of the image as it was.
        rows, columns: of the grid.
        own: how the image is warped.

    Returns:
        float32 (rows, columns) in [0, 1].
    """
    if own.spline is not None:
        fine = own.labels(shared, rows * _POINTS, columns * _POINTS)
        return geometry.cell_means(fine.astype(np.float32), rows, columns)
    (width, _, left), (_, height, top) = own.matrix[:2]
    # Sums over all pixels above and to the left: between pixels they grow linearly.
    sums = cv2.integral(shared).astype(np.float64)
    for first, last, cells in ((top, top + height, rows), (left, left + width, columns)):
        pixels = len(sums) - 1
        edges = np.linspace(first, last, cells + 1) * pixels
        whole = np.floor(edges).astype(np.int64).clip(0, pixels - 1)
        part = (edges - whole)[:, None]
        # The mean over each cell; then along the other axis.
        sums = np.abs(np.diff((1 - part) * sums[whole] + part * sums[whole + 1], axis=0)).T
        sums *= cells / (pixels * abs(last - first))
    # Without what rounding leaves of cells that share nothing.
    return np.ascontiguousarray(sums.round(6), np.float32)


# --- precomputed ---------------------------------------------------------------------------


def stride_grids(pair: Pair, stride: int) -> tuple[Grid, Grid]:
    """Correspondences and masks of a pair on cells of `stride` x `stride` pixels.

    The last cells of a row or column are what the image leaves of them; a cell's centre is its
    part's. A cell belongs to the object that takes most of it.

    Args:
        stride: in pixels, at least 1.

    Returns:
        For source and target float32 (3, ceil(H / stride), ceil(W / stride)): x and y of the
        cell's centre in the other image, normalised and held within [0, 1], and the share of the
        cell that belongs to the object. All three are 0 where a cell shows no object.
    """
    to_target = {item.label: item.target_from_source for item in pair.objects}
    to_source = {label: np.linalg.inv(matrix) for label, matrix in to_target.items()}
    return (
        _stride_grid(pair.source_mask, to_target, stride),
        _stride_grid(pair.target_mask, to_source, stride),
    )


def _stride_grid(labels: NDArray[np.uint8], matrices: dict[int, NDArray], stride: int) -> Grid:
    height, width = labels.shape
    edges = (np.append(np.arange(0, length, stride), length) for length in (height, width))
    y, x = ((part[:-1] + part[1:]) / 2 / part[-1] for part in edges)
    centres = np.stack(np.meshgrid(x, y), axis=-1)
    grid = np.zeros((3, len(y), len(x)), np.float32)
    for label, matrix in matrices.items():
        share = _stride_means(labels == label, stride)
        chosen = share > grid[2]
        places = geometry.transform_points(matrix, centres[chosen]).clip(0, 1)
        grid[:, chosen] = np.concatenate([places.T, share[chosen][None]])
    return grid


def _stride_means(mask: NDArray[np.bool_], stride: int) -> NDArray[np.float32]:
    """Means over the cells; those of the last cells over their pixels in the image."""
    values = mask.astype(np.float32)
    for axis in (0, 1):
        starts = np.arange(0, mask.shape[axis], stride)
        counts = np.diff(np.append(starts, mask.shape[axis])).astype(np.float32)
        values = np.add.reduceat(values, starts, axis=axis)
        values /= counts[:, None] if axis == 0 else counts
    return values
