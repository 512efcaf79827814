"""Finer places of matches that were found on a coarse grid, by features of a grid twice as fine.

The hard step takes the best pair of the fine cells of both coarse ones; the soft step moves each
end within its cell's neighbourhood (Rocco et al. 2020, section 3.3).
"""

import torch
from torch import Tensor

from segswap.matchers.sampling import axis_places

FACTOR = 2  # fine cells a coarse one, in both directions
_SHARPNESS = 10.0  # of the soft step's softmax, as published


def hard_step(source: Tensor, target: Tensor, own: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """The best two fine cells of two coarse ones.

    Args:
        source, target: fine features (B, C, 2 hA, 2 wA) and (B, C, 2 hB, 2 wB).
        own, other: int64 (B, N, 2), row and column of coarse cells that match.

    Returns:
        int64 (B, N, 2), rows and columns of fine cells, twice.
    """
    within = torch.cartesian_prod(*2 * [torch.arange(FACTOR, device=own.device)])
    a, b = (FACTOR * cells[:, :, None] + within for cells in (own, other))
    products = _at(source, a) @ _at(target, b).transpose(2, 3)
    best = products.flatten(2).argmax(dim=2)
    count = len(within)
    return _taken(a, best // count), _taken(b, best % count)


def block_step(within: Tensor, own: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """The same by what `pool` says of fine scores.

    Args:
        within: int64 (B, hA, wA, hB, wB, 4).
        own, other: as of `hard_step`.
    """
    pair = torch.arange(len(own), device=own.device)[:, None]
    found = within[pair, own[..., 0], own[..., 1], other[..., 0], other[..., 1]]
    return FACTOR * own + found[..., :2], FACTOR * other + found[..., 2:]


def soft_step(source: Tensor, target: Tensor, own: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns (B, N, 2) between fine cells, float: each end moved, on its own, to the mean
    of the 3 x 3 cells around it, weighted by how alike they are to the other end.

    Args:
        source, target: fine features.
        own, other: int64 (B, N, 2), rows and columns of fine cells that match.
    """
    around = torch.cartesian_prod(*2 * [torch.arange(-1, 2, device=own.device)])
    ends = []
    for features, cells, others, places in (
        (source, own, target, other), (target, other, source, own)
    ):  # fmt: skip
        limit = torch.tensor(features.shape[2:], device=cells.device) - 1
        near = (cells[:, :, None] + around).clamp(min=0).minimum(limit)
        centre = _at(others, places[:, :, None])
        alike = (_at(features, near) @ centre.transpose(2, 3))[..., 0]
        weights = (_SHARPNESS * alike).softmax(dim=2)
        ends.append(cells + weights @ around.to(weights.dtype))
    return ends[0], ends[1]


def carried(own: Tensor, other: Tensor, grids: tuple[torch.Size, torch.Size]) -> Tensor:
    """Where coarse cells go whose match is between two places in them: (B, hA, wA, 2) normalised.

    What leads from the one place to the other leads from the cell's centre to its position.

    Args:
        own, other: rows and columns (B, hA wA, 2) on the fine grids, of all coarse cells in order.
        grids: coarse, of both images.
    """
    (rows, columns), there = grids
    y, x = torch.meshgrid(
        axis_places(rows, own.device), axis_places(columns, own.device), indexing="ij"
    )
    centre = torch.stack([y, x], dim=-1).flatten(0, 1)
    size = torch.tensor([there[0], there[1]], device=own.device)
    places = [(ends + 0.5) / FACTOR for ends in (own, other)]
    found = (places[1] - places[0] + centre) / size
    return found.flip(-1).unflatten(1, (rows, columns))


def _at(features: Tensor, cells: Tensor) -> Tensor:
    """Features (B, N, K, C) of cells (B, N, K, 2)."""
    columns = features.shape[3]
    number = (cells[..., 0] * columns + cells[..., 1]).flatten(1)
    found = features.flatten(2).gather(2, number[:, None].expand(-1, features.shape[1], -1))
    return found.transpose(1, 2).unflatten(1, cells.shape[1:3])


def _taken(cells: Tensor, number: Tensor) -> Tensor:
    """Of cells (B, N, K, 2) one each, by its number (B, N)."""
    return cells.gather(2, number[..., None, None].expand(-1, -1, 1, 2))[:, :, 0]
