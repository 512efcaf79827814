"""Cells and positions in torch: the one module here that knows where a cell's centre is.

The same as `segswap.geometry` says of arrays. Where places are counted in cells, the grid's corner
is at 0 and its opposite corner at (columns, rows).
"""

import torch
from torch import Tensor, nn


def axis_places(count: int, device: torch.device | str | None = None) -> Tensor:
    """Centres of so many cells side by side: float32 (count,).

    Convention: in cells; cell j, counted from 0, has its centre at j + 0.5.
    """
    return torch.arange(count, device=device, dtype=torch.float32) + 0.5


def cell_places(rows: int, columns: int, like: Tensor) -> Tensor:
    """Centres of a grid's cells: float32 (rows, columns, 2) on `like`'s device.

    Convention: in cells, x then y; y grows downwards with the row.
    """
    x, y = axis_places(columns, like.device), axis_places(rows, like.device)
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)


def cell_centres(rows: int, columns: int, like: Tensor) -> Tensor:
    """Centres of a grid's cells: float32 (rows, columns, 2) on `like`'s device.

    Convention: normalised, x then y; y grows downwards with the row.
    """
    x, y = axis_places(columns, like.device) / columns, axis_places(rows, like.device) / rows
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)


def cell_at(places: Tensor, rows: int, columns: int) -> Tensor:
    """Number of the cell that each place (..., 2) lies in: int64 (...).

    Convention: places in cells, x then y; cell j goes from j to j + 1, its left and upper edge
    included, and the nearest cell counts outside. Cells are numbered row by row.
    """
    x, y = places.floor().long().unbind(-1)
    return y.clamp(0, rows - 1) * columns + x.clamp(0, columns - 1)


def cells_around(points: Tensor, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """The four cells around points (..., 2) and the bilinear weight of each.

    Convention: normalised points, x then y; cells are numbered row by row; beyond the outermost
    cell centres, also outside the image, the nearest cell counts.

    Returns:
        int64 (..., 4) and weights (..., 4) that sum to 1.
    """
    left, right, u = _around(points[..., 0], columns)
    top, below, v = _around(points[..., 1], rows)
    cells = [row * columns + column for row in (top, below) for column in (left, right)]
    weights = [(1 - u) * (1 - v), u * (1 - v), (1 - u) * v, u * v]
    return torch.stack(cells, dim=-1), torch.stack(weights, dim=-1)


def _around(at: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The cells before and after places on an axis of so many, and the weight of the latter."""
    at = (at * count - 0.5).clamp(0, count - 1)
    before = at.floor()
    # The last cell has none after it: there the weight is 0.
    return before.long(), (before.long() + 1).clamp(max=count - 1), at - before


def sample(maps: Tensor, points: Tensor) -> Tensor:
    """Bilinear values of maps (B, C, h, w) at points (B, rows, columns, 2): (B, C, rows, columns).

    Convention: normalised points, x then y; beyond the outermost cell centres, also outside the
    image, the nearest cell counts.
    """
    return nn.functional.grid_sample(
        maps, (2 * points - 1).to(maps.dtype), padding_mode="border", align_corners=False
    )


def to_corners(points: Tensor, rows: int, columns: int) -> Tensor:
    """Points (..., 2) where the centres of a grid's outermost cells are at -1 and 1.

    Convention: from normalised points, x then y, of an image of so many cells or pixels; other code
    calls it align_corners=True.
    """
    return (2 * points - 1) * _reach(points, rows, columns)


def from_corners(points: Tensor, rows: int, columns: int) -> Tensor:
    """The inverse of `to_corners`.

    Convention: to normalised points, x then y.
    """
    return (points / _reach(points, rows, columns) + 1) / 2


def _reach(points: Tensor, rows: int, columns: int) -> Tensor:
    """Where an image's right and lower edges are, if its outermost cells' centres are at 1."""
    count = torch.tensor([columns, rows], device=points.device, dtype=points.dtype)
    return count / (count - 1)
