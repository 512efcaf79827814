"""What recurrent transformer networks learn from: known maps, or that two pictures show one kind.

Every estimate is told, the last one too, of which the released code sees only the one before it.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from segswap.matchers.base import Answers, BatchSide, Side, Term, on_grid
from segswap.matchers.losses import mean_over, sides_with_truth, standard_terms, zero
from segswap.matchers.rtn.fields import of_positions, steps
from segswap.matchers.windows import CENTRE

FIELD, WINDOW = "field_", "window_"  # among a side's extras, with the estimate's number behind
_FOREGROUND = 0.5  # share of a cell


def field_loss(answers: Answers) -> Tensor:
    """Mean L1 distance of the fields from the true ones, where these are known; mean of the
    estimates.

    Of translations in corner units, as published; and of the affine parts, which the released code
    does not teach: they count as what they move a neighbouring cell by.
    """
    total = zero(answers)
    for side, truth in sides_with_truth(answers):
        assert truth.positions is not None
        assert truth.valid is not None
        losses = []
        for field in _of(side, FIELD):
            true, known = of_positions(truth.positions, truth.valid, field.shape[2:])
            down, across = steps(field.shape[2:], field).tolist()
            weight = field.new_tensor([down, across, 1, down, across, 1])[:, None, None]
            wrong = (field.float() - true).abs() * weight
            moved, turned = (mean_over(wrong[:, at], known[:, at]) for at in ([2, 5], [0, 1, 3, 4]))
            losses.append(moved + turned)
        total = total + torch.stack(losses).mean()
    return total


def weak_loss(answers: Answers) -> Tensor:
    """-log softmax of the window's centre: the place that a cell is moved to is more like it than
    the 80 others around; mean over cells, of the estimates.

    Of pairs that are known to show a kind in common; and of what their masks show of it, where
    masks are known, as the released code takes the object's box: else background dominates.
    """
    related = answers.batch.related().diagonal()
    total = zero(answers)
    for side, truth in sides_with_truth(answers):
        losses = []
        for window in _of(side, WINDOW):
            lost = window.logsumexp(dim=1) - window[:, CENTRE]
            losses.append(mean_over(lost, _shown(truth, window) & related[:, None, None]))
        total = total + torch.stack(losses).mean()
    return total


def _of(side: Side, name: str) -> Iterator[Tensor]:
    """What a side has of each of the estimates."""
    return (value for key, value in side.extra.items() if key.startswith(name))


def _shown(truth: BatchSide, window: Tensor) -> Tensor:
    """Which cells may show the kind: bool (B, h, w)."""
    if truth.mask is None:
        return torch.ones_like(window[:, 0], dtype=torch.bool)
    shares = on_grid(truth.mask, window.shape[2:])
    return shares.isnan() | (shares > _FOREGROUND)


TERMS = (
    # Of the order of a tenth, where the other is of the order of 1, and the surer of the two.
    Term("field", frozenset({"positions"}), field_loss, "local affine maps that are known", 8.0),
    Term(
        "weak", frozenset({"label"}), weak_loss,
        "how much more alike what is matched is than what is around, of pairs of one kind", 1.0,
    ),
    *(replace(term, weight=0.0) for term in standard_terms()),
)  # fmt: skip
