"""How alike the cells of two images are, and how much of that a warp collects.

One grid of 15 x 15 cells, whatever the images' size: the predictors' layers are made for it. Where
parameters of warps are meant, points have the centres of the outermost pixels of a 240 px image at
-1 and 1, as published.
"""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from segswap.matchers.sampling import cell_centres, from_corners, to_corners
from segswap.matchers.warps import affine, spline

GRID = 15  # cells of a side
SIDE = 240  # px of an image of so many cells
_LEAST = 1e-6  # added to squared lengths
_SHARE = 1e-5  # added to each share of the indicator, before it is divided by their sum


def unit(values: Tensor) -> Tensor:
    """Values (B, C, h, w) scaled to length 1 along C; shorter where they are all near 0."""
    return values / (values.square().sum(1, keepdim=True) + _LEAST).sqrt()


def correlation(own: Tensor, other: Tensor) -> Tensor:
    """Inner products of all cells: (B, h' w', h, w), laid out on the grid of `own`.

    Channel row + h' column is the cell (row, column) of `other`: column by column, as published.

    Args:
        own: (B, C, h, w).
        other: (B, C, h', w').
    """
    columns = other.transpose(2, 3).flatten(2)
    return (columns.transpose(1, 2) @ own.flatten(2)).unflatten(2, own.shape[2:])


def likeness(own: Tensor, other: Tensor) -> Tensor:
    """By how much each cell is more alike to the other image's cells than to all of them in the
    mean, 0 where it is less: (B, h' w', h, w), as `correlation`.

    Published is without the mean. All cells of a picture have much in common: with it masks and
    warps are learned several times as fast.
    """
    scores = correlation(own, other)
    return torch.relu(scores - scores.mean(1, keepdim=True))


def to_grid(features: Tensor) -> Tensor:
    """Features (B, C, h, w) of length 1 along C on the predictors' grid."""
    if features.shape[2:] == (GRID, GRID):
        return features
    return unit(F.interpolate(features, (GRID, GRID), mode="bilinear", antialias=True))


def grid_scores(own: Tensor, other: Tensor) -> Tensor:
    """What the predictors see of features (B, C, h, w): squares of their likeness on the
    predictors' grid, of length 1 along the other image's cells, (B, 225, 15, 15). Published is
    without the square, from which few cells stand out.
    """
    return unit(likeness(to_grid(own), to_grid(other)).square())


def carried(
    points: Tensor, affines: Tensor, splines: Tensor | None = None, regularisation: float = 0.0
) -> Tensor:
    """Normalised points (B or 1, ..., 2) in the other image: by the spline first, if there is one,
    then by the affine map.
    """
    corners = to_corners(points, SIDE, SIDE)
    if splines is not None:
        corners = spline(splines, corners, regularisation)
    return from_corners(affine(affines, corners), SIDE, SIDE)


def collected(
    scores: Tensor, places: Tensor, mask: Tensor | None = None
) -> Tensor:  # fmt: skip
    """How much of the scores lies where a warp says: (B,).

    The mean, over the cells whose places are in the other image, of the score of the other image's
    cell there, bilinearly, times the cell's share in the mask.

    Args:
        scores: (B, N', h, w), channels as `correlation` has them, of N' = h w cells.
        places: (B, h, w, 2), where each cell lies in the other image, normalised.
        mask: (B, h, w); None counts all cells.
    """
    rows, columns = places.shape[1:3]
    marks = _marks(rows, columns).to(scores).expand(len(scores), -1, -1, -1)
    # Not the house's sampler: beyond the image there is nothing.
    inside = F.grid_sample(marks, 2 * places - 1, padding_mode="zeros", align_corners=False)
    shares = inside / (inside + _SHARE).sum((1, 2, 3), keepdim=True)
    found = (shares * scores).sum(1)
    return (found if mask is None else found * mask).sum((1, 2))


@lru_cache(maxsize=2)
def _marks(rows: int, columns: int) -> Tensor:
    """Of each cell, column by column, a map that is 1 there: (N, rows, columns)."""
    return torch.eye(rows * columns).unflatten(1, (columns, rows)).transpose(1, 2).contiguous()


def grid_places(like: Tensor) -> Tensor:
    """The cells' centres (1, 15, 15, 2), normalised."""
    return cell_centres(GRID, GRID, like)[None]
