"""Scores of "these cells correspond", and the positions that three kinds of argmax make of them."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from segswap.matchers.sampling import cell_centres

Argmax = Literal["kernel", "soft", "discrete"]

SHARPNESS = 50.0  # beta: what scores are multiplied with before their softmax
REACH = 0.25  # sigma of the kernel, as a share of the image: 5 of 20 cells
_LEAST = 1e-6  # added to squared lengths
_HIDDEN = -1e4  # the logit of a cell that is matched by none


class Found(NamedTuple):
    """Where cells are in the other image.

    Attributes:
        positions: (B, N, 2), normalised.
        certainty: (B, N), the largest probability of one of the other image's cells.
    """

    positions: Tensor
    certainty: Tensor


def unit(values: Tensor, dim: int) -> Tensor:
    """Values scaled to length 1 along a dimension; shorter where they are all near 0."""
    return values / (values.square().sum(dim, keepdim=True) + _LEAST).sqrt()


def correlation(source: list[Tensor], target: list[Tensor]) -> Tensor:
    """How alike cells are in all levels at once: (B, N, N'), at least 0.

    The product over the levels of the inner products of features, negative ones taken for 0.

    Args:
        source, target: of each level features (B, C, h, w) of length 1 along C; the levels of an
            image have one grid, of N = h w cells.
    """
    alike = [
        torch.relu(own.flatten(2).transpose(1, 2) @ other.flatten(2))
        for own, other in zip(source, target, strict=True)
    ]
    return torch.stack(alike).prod(dim=0)


def find(
    scores: Tensor, grid: torch.Size, kind: Argmax, visible: Tensor | None = None
) -> Found:  # fmt: skip
    """The place of each cell in the other image.

    kernel: the mean of the other image's cells under softmax of the scores, each multiplied with a
    Gaussian around the best one; no gradient passes through which one
    that is. soft: the same without the Gaussian. discrete: the best cell's centre, which has no
    gradient.

    Args:
        scores: (B, N, N') of length 1 along the last dimension.
        grid: rows and columns of the other image's cells.
        visible: bool (B, N'), which of them may be matched; None for all.
    """
    centres = cell_centres(grid[0], grid[1], scores).flatten(0, 1).to(scores.dtype)
    if visible is not None:
        scores = scores.masked_fill(~visible[:, None], 0)
    best = scores.argmax(dim=-1)
    if kind == "kernel":
        scores = scores * kernel(centres)[best]
    logits = SHARPNESS * scores
    if visible is not None:
        logits = logits.masked_fill(~visible[:, None], _HIDDEN)
    likely = logits.softmax(dim=-1)
    positions = centres[best] if kind == "discrete" else likely @ centres
    return Found(positions, likely.amax(dim=-1))


def kernel(centres: Tensor) -> Tensor:
    """The Gaussian around each cell at all cells: (N, N), of centres (N, 2) in normalised
    coordinates; 1 at the cell itself.
    """
    apart = (centres[:, None] - centres).square().sum(-1)
    return torch.exp(-apart / (2 * REACH**2))
