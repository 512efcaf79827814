"""Positions and confidences from the logits of "these two cells correspond"."""

from typing import NamedTuple

import torch
from torch import Tensor

from segswap.matchers.sampling import cell_places
from segswap.matchers.windows import mean_around

_REACH = 1.5  # cells around the best one whose mean is the position: sigma of a Gaussian


# Standard deviations of the correlation for one of the consensus, and the share of the cells
# around: chosen on held-out animals and classes.
_OWN, _AROUND = 1.7, 0.5


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

    def at(self, other: "Found") -> "Found":
        """The same with another's positions, and as sure as before."""
        return self._replace(positions=other.positions, best=other.best)


def refined(
    consensus: Tensor, raw: Tensor, grids: tuple[torch.Size, torch.Size], visible: Tensor | None
) -> Tensor:
    """Logits (B, N, N') of both, and of the cells around. It is not published: the consensus alone
    passes over cells that it has little support for, and what they show themselves.

    Args:
        consensus, raw: (B, N, N') of the cells of grids of so many rows and columns; the scores
            after, and before, neighbours were asked.
        visible: bool (B, N') of the target's cells; None for all.
    """
    spread, own = (scores.flatten(1).std(dim=1)[:, None, None] for scores in (consensus, raw))
    both = consensus + _OWN * spread / own.clamp(min=1e-6) * raw
    return (1 - _AROUND) * both + _AROUND * mean_around(both, grids, visible)


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
