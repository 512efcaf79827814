"""What SFNet learns from: masks alone (Lee et al., CVPR 2019).

Flows are in the units of the published weights: an image's outermost cell centres lie at -1 and 1.
Sums, not means, as in the released code: over cells, divided by their number or by that of the
foreground's, then the mean over the pairs. Foreground are cells of which the mask takes more than
half; the released code takes a tenth, since its masks shrink twice on their way to the grid. Cells
of which nobody knows do not count.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from segswap.matchers.base import Answers, BatchSide, Side, Term, on_grid
from segswap.matchers.losses import zero
from segswap.matchers.sampling import cell_centres, sample, to_corners

_FOREGROUND = 0.5  # share of a cell
_KNOWN = 1 - 1e-4  # share of what is sampled, from which on it counts


def mask_consistency(answers: Answers) -> Tensor:
    """(1 / cells) sum (M_s - W(M_t; F_s))^2 plus the same of the target: the other image's mask,
    carried over by the positions, is this image's mask.
    """
    total = zero(answers)
    for (side, there), (own, other) in zip(
        answers.matches.both(), answers.batch.both(), strict=True
    ):
        mask, others = _foreground(own, side), _foreground(other, there)
        maps = torch.stack([others.nan_to_num(), (~others.isnan()).float()], dim=1)
        carried, known = sample(maps, side.positions.float()).unbind(1)
        told = ~mask.isnan() & (known > _KNOWN)
        wrong = (mask.nan_to_num() - carried).square() * told
        total = total + wrong.mean((1, 2)).mean()
    return total


def flow_consistency(answers: Answers) -> Tensor:
    """sum |(F_s - F^_s) M_s|^2 / (|M_s| + 1) plus the same of the target, where F^_s is
    -W(F_t; F_s): on the foreground the way there and back leads home.

    The paper's text says the L2 norm; the released code squares it, and so does this.
    """
    total = zero(answers)
    for (side, there), truth in zip(answers.matches.both(), answers.batch, strict=True):
        back = sample(flow_of(there, side), side.positions.float())
        lost = (flow_of(side, there) + back).square().sum(1)
        total = total + _over_foreground(lost, _foreground(truth, side))
    return total


def smoothness(answers: Answers) -> Tensor:
    """sum |grad F_s M_s|_1 / (|M_s| + 1) plus the same of the target: on the foreground neighbours
    move alike.

    Of each component of the flow on its own; the released code differentiates the sum of both, to
    which a flow of u = x, v = -x is constant.
    """
    total = zero(answers)
    for (side, there), truth in zip(answers.matches.both(), answers.batch, strict=True):
        steep = steepness(flow_of(side, there))
        total = total + _over_foreground(steep, _foreground(truth, side))
    return total


def flow_of(side: Side, other: Side) -> Tensor:
    """The way of each cell to its place in the other image: (B, 2, h, w).

    Convention: x then y; both images' outermost cell centres lie at -1 and 1.
    """
    positions = side.positions.float()
    grid, there = positions.shape[1:3], other.positions.shape[1:3]
    home = cell_centres(grid[0], grid[1], positions)
    return (to_corners(positions, *there) - to_corners(home, *grid)).permute(0, 3, 1, 2)


def steepness(flow: Tensor) -> Tensor:
    """|d/dx| + |d/dy| of both components of a flow (B, 2, h, w), by central differences, zero
    beyond the border: (B, h, w).
    """
    padded = F.pad(flow, (1, 1, 1, 1))
    across = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    down = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    return (across.abs() + down.abs()).sum(1)


def _over_foreground(values: Tensor, mask: Tensor) -> Tensor:
    """The sum of values (B, h, w) in a mask, over its size plus 1; mean of the pairs."""
    foreground = mask.nan_to_num()
    sums = (values * foreground).sum((1, 2)) / (foreground.sum((1, 2)) + 1)
    return sums.mean()


def _foreground(truth: BatchSide, side: Side) -> Tensor:
    """A true mask on the grid of the positions: (B, h, w) of 0 and 1, NaN where it is unknown."""
    assert truth.mask is not None
    shares = on_grid(truth.mask, side.positions.shape[1:3])
    return torch.where(shares.isnan(), shares, (shares > _FOREGROUND).to(shares.dtype))


PUBLISHED = (
    Term(
        "mask_consistency", frozenset({"mask"}), mask_consistency,
        "masks of the foreground carried over by the positions", 3.0,
    ),
    Term(
        "flow_consistency", frozenset({"mask"}), flow_consistency,
        "the way there and back from the foreground", 16.0,
    ),
    Term("smoothness", frozenset({"mask"}), smoothness, "how rough positions are", 0.5),
)  # fmt: skip
