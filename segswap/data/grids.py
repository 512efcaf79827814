"""Ground truth on a stride's grid, for programs that want it precomputed."""

import numpy as np
from numpy.typing import NDArray

from segswap import geometry
from segswap.data.pair import Pair

Grid = NDArray[np.float32]


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
        _grid(pair.source_mask, to_target, stride), _grid(pair.target_mask, to_source, stride)
    )  # fmt: skip


def _grid(labels: NDArray[np.uint8], matrices: dict[int, NDArray], stride: int) -> Grid:
    height, width = labels.shape
    y, x = (_centres(length, stride) / length for length in (height, width))
    centres = np.stack(np.meshgrid(x, y), axis=-1)
    grid = np.zeros((3, len(y), len(x)), np.float32)
    for label, matrix in matrices.items():
        share = _means(labels == label, stride)
        chosen = share > grid[2]
        places = geometry.transform_points(matrix, centres[chosen]).clip(0, 1)
        grid[:, chosen] = np.concatenate([places.T, share[chosen][None]])
    return grid


def _centres(length: int, stride: int) -> NDArray[np.float64]:
    starts = np.arange(0, length, stride)
    return (starts + np.minimum(starts + stride, length)) / 2


def _means(mask: NDArray[np.bool_], stride: int) -> NDArray[np.float32]:
    """Means over the cells; those of the last cells over their pixels in the image."""
    values = mask.astype(np.float32)
    for axis in (0, 1):
        starts = np.arange(0, mask.shape[axis], stride)
        counts = np.diff(np.append(starts, mask.shape[axis])).astype(np.float32)
        values = np.add.reduceat(values, starts, axis=axis)
        values /= counts[:, None] if axis == 0 else counts
    return values
