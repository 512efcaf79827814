"""Positions and confidences from the logits of "these two cells correspond"."""

from typing import NamedTuple

import torch
from torch import Tensor

from segswap.matchers.sampling import cell_places

_REACH = 1.5  # cells around the best one whose mean is the position: sigma of a Gaussian


class Found(NamedTuple):
    """Of each cell of an image its match in the other one.

    Attributes:
        positions: (B, h, w, 2) normalised.
        confidence: (B, h, w), the probability of the best cell.
        best: int64 (B, h w), the best cell's number.
    """

    positions: Tensor
    confidence: Tensor
    best: Tensor


def found(logits: Tensor, shape: torch.Size, other: torch.Size) -> Found:
    """Each cell's match: the mean of the cells around the best one under softmax of the logits.

    The published network takes the best cell itself, in steps of a cell; the mean over all cells,
    which has no such steps, lies between two cells that are equally likely.

    Args:
        logits: (B, N, N') of the cells of grids of so many rows and columns.
    """
    places = cell_places(other[0], other[1], logits).flatten(0, 1)
    best, number = logits.max(dim=2)
    apart = torch.cdist(places, places).square()
    near = (logits - apart[number] / (2 * _REACH**2)).softmax(dim=2)
    size = torch.tensor([other[1], other[0]], device=logits.device)
    sure = (best - logits.logsumexp(dim=2)).exp()
    return Found((near @ places / size).unflatten(1, shape), sure.unflatten(1, shape), number)
