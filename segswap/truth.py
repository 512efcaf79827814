"""Ground truth on a grid of cells: soft masks and positions, exact at any stride and size."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segswap import geometry
from segswap.augment import Warp
from segswap.pair import Pair


@dataclass(frozen=True)
class GridTruth:
    """What is true of each cell of one side of a pair.

    Attributes:
        mask: float32 (rows, columns) in [0, 1], the share of the cell that the other image shows.
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
    # Each cell looks up its mask at a lattice of points, so that its mean is an area: every pixel,
    # but for splines, which are slow to evaluate, no more than 6 x 6 points a cell.
    fine = max(1, -(-labels.shape[0] // rows))
    if own.spline is not None:
        fine = min(fine, 6)
    points = own.to_original(geometry.cell_centres(rows * fine, columns * fine))
    shown = _look_up(labels, points) > 0
    mask = shown.reshape(rows, fine, columns, fine).mean(axis=(1, 3), dtype=np.float32)

    centres = geometry.cell_centres(rows, columns)
    original = own.to_original(centres)
    label = _look_up(labels, original)
    positions = centres.copy()
    for value, matrix in matrices.items():
        chosen = label == value
        if chosen.any():
            positions[chosen] = other.from_original(geometry.transform(matrix, original[chosen]))
    there = geometry.inside(positions)
    # A spline moves its image's rim out of the frame; what left it is no longer shared.
    mask *= there
    return GridTruth(mask, positions.astype(np.float32), (label > 0) & there)


def _look_up(labels: NDArray[np.uint8], points: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Label of the pixel that each normalised point lies in; 0 outside the frame."""
    height, width = labels.shape
    x = np.floor(points[..., 0] * width).astype(np.int64)
    y = np.floor(points[..., 1] * height).astype(np.int64)
    framed = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    return np.where(framed, labels[y.clip(0, height - 1), x.clip(0, width - 1)], 0)
