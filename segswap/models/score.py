"""How much two images share, cell by cell and as one number; and one vector for an image."""

import torch
import torch.nn.functional as F
from torch import Tensor

from segswap.matchers.base import Matcher, Matches, Side
from segswap.matchers.encoding import Encoding
from segswap.matchers.sampling import cell_at, sample

_OF_A_KIND = 0.1  # what a cell counts that shows another thing of the same kind
_CHANNELS = 32  # multiplied at a time: what lies between stays in memory that was used before


def cell_scores(matches: Matches, weight: Tensor | None = None) -> Tensor:
    """What every source cell adds to S(s, t) of Shen et al. (arXiv 2110.15904), section 4.

    The product of M^s, of M^t at the cell's match, and of the cosine between the features of the
    cell and of the target cell that the match lies in; M is the probability of the very same thing,
    and a tenth of that of another one of its kind (a hundredth in the product): the same thing is
    ranked above the same kind of thing, and that above what shares nothing. Of several source
    cells whose matches lie in one target cell only the best counts, the others are 0, and so is
    every cell whose product is not positive or whose match lies outside the target.

    Args:
        weight: (B, h, w) or broadcast to it, in [0, 1]; what M^s is multiplied with.

    Returns:
        (B, h, w), at most 1.
    """
    source, target = matches.source, matches.target
    rows, columns = target.positions.shape[1:3]
    positions = source.positions
    carried = sample(_counted(target)[:, None], positions)[:, 0]
    size = torch.tensor([columns, rows], device=positions.device)
    landing = cell_at(positions * size, rows, columns).flatten(1)
    cosine = _products(source.features, target.features, landing)
    mask = _counted(source) * ((positions >= 0) & (positions <= 1)).all(-1)
    scores = ((mask if weight is None else mask * weight) * carried * cosine).clamp(min=0)
    flat = scores.flatten(1)
    best = flat.new_zeros(len(flat), rows * columns)
    best = best.scatter_reduce(1, landing, flat, "amax")
    # Of equally good cells the first counts.
    order = torch.arange(flat.shape[1], device=flat.device).expand_as(flat)
    winning = flat == best.gather(1, landing)
    first = torch.full_like(landing.new_empty(best.shape), flat.shape[1])
    first = first.scatter_reduce(1, landing, order.masked_fill(~winning, flat.shape[1]), "amin")
    return (flat * (first.gather(1, landing) == order)).view_as(scores)


def _counted(side: Side) -> Tensor:
    """What each cell counts, (B, h, w) in [0, 1]; see `cell_scores`."""
    same = side.same()
    return same + _OF_A_KIND * (side.cell_mask() - same).clamp(min=0)


def _products(source: Tensor, target: Tensor, landing: Tensor) -> Tensor:
    """Inner products (B, h, w) of source features (B, C, h, w) with those of the target cells whose
    indices (B, h w) are given.
    """
    total = source.new_zeros(len(source), *source.shape[2:])
    parts = zip(source.split(_CHANNELS, 1), target.flatten(2).split(_CHANNELS, 1), strict=True)
    for own, other in parts:
        there = other.gather(2, landing[:, None].expand(-1, other.shape[1], -1))
        total += (own * there.view_as(own)).sum(1)
    return total


def pair_score(matches: Matches, weight: Tensor | None = None) -> Tensor:
    """S(s, t): the sum of `cell_scores`, float (B,).

    With a perfect mask and identical images it is the number of cells.
    """
    return cell_scores(matches, weight).flatten(1).sum(1)


@torch.inference_mode()
def self_consistent(matcher: Matcher, query: Encoding, inside: Tensor) -> Tensor:
    """What the cells of a query count in a search: (B, h, w) in [0, 1].

    The query is matched with itself, and its mask, within the detail, is carried there and back: a
    cell that looks like many others does not even find itself, and counts little.

    Args:
        query: what `matcher.encode` returned, of B images.
        inside: (B, h, w) in [0, 1], which cells belong to the detail.
    """
    matches = matcher.match(query, query).float()
    source, target = matches.source, matches.target
    mask = inside * source.same()
    there = sample(mask[:, None], target.positions) * target.same()[:, None]
    return mask * sample(there, source.positions)[:, 0]


@torch.inference_mode()
def pooled(matcher: Matcher, images: Encoding, weight: Tensor | None = None) -> Tensor:
    """One vector of length 1 for an image, by which similar images are found fast: (B, D).

    The mean over the cells of the features that the score compares.

    Args:
        images: what `matcher.encode` returned, of B images.
        weight: (B, h, w), of the cells; None where all count the same.
    """
    cells = matcher.compared(images).flatten(2)
    if weight is not None:
        cells = cells * weight.flatten(1)[:, None]
    return F.normalize(cells.sum(2), dim=1)
