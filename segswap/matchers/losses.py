"""Loss terms: those of Shen et al., "Learning Co-segmentation by Segment Swapping" (arXiv
2110.15904), section 3, cross-entropy on a correlation, and distances at keypoints.

Every function looks at both directions and returns their sum, a scalar in float32.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from segswap.matchers.base import Answers, BatchSide, Side, Term, on_grid
from segswap.matchers.sampling import cell_centres, cells_around, sample

ETA = 8.0  # weight of the positions' L1 distance, as published
_LEAST = 1e-6  # probabilities are kept from 0 and 1 by so much, where their logarithm is taken


# --- masks -----------------------------------------------------------------------------------


def mask_loss(answers: Answers, positive_weight: float = 1.0) -> Tensor:
    """Binary cross-entropy of the masks with the soft ground truth, BCE(M_gt, M), over the cells of
    which it is known.

    The masks of the negatives must be 0 everywhere; they are part of the same mean.

    Args:
        positive_weight: how often a cell counts by its share in the true mask; published is 1.
    """
    return _entropy(
        answers, lambda side: side.mask_logits, lambda truth: truth.mask, answers.counted,
        positive_weight,
    )  # fmt: skip


def same_loss(answers: Answers, positive_weight: float = 1.0) -> Tensor:
    """Binary cross-entropy of the logits `Side.extra["same"]` (B, h, w) with the share of each cell
    that shows the very same thing; as `mask_loss`.

    Raises:
        ValueError: the matches have no such logits.
    """
    return _entropy(
        answers, lambda side: _extra(side, "same"), lambda truth: truth.same, answers.counted_same,
        positive_weight,
    )  # fmt: skip


def _entropy(
    answers: Answers, logits_of: Callable[[Side], Tensor],
    true_of: Callable[[BatchSide], Tensor | None], counted: Tensor | None, positive_weight: float,
) -> Tensor:  # fmt: skip
    negatives, total = answers.negatives, zero(answers)
    for number, (side, truth) in enumerate(sides_with_truth(answers)):
        logits = logits_of(side)
        true = _on_cells(true_of(truth), logits.shape[1:])
        known = ~true.isnan()
        losses = _logit_entropy(logits, true.nan_to_num(), positive_weight)
        found, cells = (losses * known).sum(), known.sum()
        if negatives is not None and counted is not None:
            empty = logits_of((negatives.source, negatives.target)[number])
            nothing = torch.zeros_like(empty, dtype=torch.float32)
            more = _logit_entropy(empty, nothing, positive_weight).sum((1, 2))
            found = found + more @ counted
            cells = cells + counted.sum() * empty.shape[1:].numel()
        total = total + found / cells.clamp(min=1)
    return total


def _logit_entropy(logits: Tensor, truth: Tensor, positive_weight: float) -> Tensor:
    weight = torch.tensor(positive_weight, device=logits.device)
    return F.binary_cross_entropy_with_logits(
        logits.float(), truth, pos_weight=weight, reduction="none"
    )


def transfer_loss(answers: Answers, positive_weight: float = 1.0) -> Tensor:
    """BCE(M_gt^s, M^t at C^{s->t}): the other image's mask, carried over by the predicted
    positions, must give this image's mask too, where that is known. Gradients reach the mask and
    the positions.

    What is sampled is the mask, not its logits: midway between probabilities 1 and 0.12 it is 0.56.
    """
    total = zero(answers)
    for (side, other), truth in zip(answers.matches.both(), answers.batch, strict=True):
        probability = other.mask_logits.float().sigmoid()[:, None]
        carried = sample(probability, side.positions.float())[:, 0].clamp(_LEAST, 1 - _LEAST)
        true = _on_cells(truth.mask, carried.shape[1:])
        mask = true.nan_to_num()
        entropy = positive_weight * mask * carried.log() + (1 - mask) * (1 - carried).log()
        total = total - mean_over(entropy, ~true.isnan())
    return total


def _on_cells(true: Tensor | None, grid: torch.Size) -> Tensor:
    """A true mask (B, h, w) on a grid of so many rows and columns."""
    assert true is not None
    return on_grid(true, grid)


# --- positions -------------------------------------------------------------------------------


def correspondence_loss(answers: Answers) -> Tensor:
    """eta times the mean L1 distance, |dx| + |dy|, of the positions over the cells whose position
    is known.

    That is the paper's formula; the published code takes the mean over x and y, half of it.
    """
    total = zero(answers)
    for side, truth in sides_with_truth(answers):
        assert truth.positions is not None
        assert truth.valid is not None
        distance = (side.positions.float() - truth.positions).abs().sum(dim=-1)
        total = total + ETA * mean_over(distance, truth.valid)
    return total


def keypoint_loss(answers: Answers) -> Tensor:
    """eta times the mean L1 distance between where the keypoints that both images show are found
    and where they are.
    """
    total = zero(answers)
    for (side, _), (truth, there) in zip(answers.matches.both(), answers.batch.both(), strict=True):
        assert truth.keypoints is not None
        assert truth.seen is not None
        assert there.keypoints is not None
        assert there.seen is not None
        # Positions are looked up as the way from each cell: exact where cells only move.
        positions = side.positions.float()
        home = cell_centres(positions.shape[1], positions.shape[2], positions)
        way = sample((positions - home).permute(0, 3, 1, 2), truth.keypoints[:, None])[:, :, 0]
        found = truth.keypoints + way.transpose(1, 2)
        distance = (found - there.keypoints).abs().sum(dim=-1)
        total = total + ETA * mean_over(distance, truth.seen & there.seen)
    return total


def correlation_loss(answers: Answers) -> Tensor:
    """Cross-entropy of each cell's correlation with the other image's cells at its true position,
    which is shared between the four cells around it by bilinear weights.

    Raises:
        ValueError: the matches have no correlation.
    """
    total = zero(answers)
    for (side, other), truth in zip(answers.matches.both(), answers.batch, strict=True):
        total = total + _classes(_extra(side, "correlation").float(), other, truth)
    return total


def _extra(side: Side, name: str) -> Tensor:
    if name not in side.extra:
        raise ValueError(f"these matches have no {name}")
    return side.extra[name]


def _classes(logits: Tensor, other: Side, truth: BatchSide) -> Tensor:
    assert truth.positions is not None
    assert truth.valid is not None
    rows, columns = other.positions.shape[1:3]
    cells, weights = cells_around(truth.positions.flatten(1, 2), rows, columns)
    expected = (weights * logits.gather(-1, cells)).sum(-1)
    return mean_over(logits.logsumexp(dim=-1) - expected, truth.valid.flatten(1))


def sides_with_truth(answers: Answers) -> tuple[tuple[Side, BatchSide], tuple[Side, BatchSide]]:
    """Each side of the matches with what is true of it."""
    matches, batch = answers.matches, answers.batch
    return (matches.source, batch.source), (matches.target, batch.target)


def zero(answers: Answers) -> Tensor:
    """The sum of no terms, a scalar where the batch is."""
    return torch.zeros((), device=answers.batch.source.image.device)


def mean_over(values: Tensor, chosen: Tensor) -> Tensor:
    """Mean of values over the chosen places, bool of their shape; 0 where there are none."""
    return (values * chosen).sum() / chosen.sum().clamp(min=1)


# --- terms that several matchers have --------------------------------------------------------


def standard_terms(positive_weight: float = 1.0) -> tuple[Term, ...]:
    """Masks, transferred masks, positions and keypoints.

    Args:
        positive_weight: how often a cell counts by its share in the true mask.
    """
    return (
        Term(
            "mask", frozenset({"mask"}), partial(mask_loss, positive_weight=positive_weight),
            "masks, of pairs that share something and of those that share nothing", negatives=True,
        ),
        Term(
            "transfer", frozenset({"mask"}),
            partial(transfer_loss, positive_weight=positive_weight),
            "masks carried over by the positions",
        ),
        Term("corr", frozenset({"positions"}), correspondence_loss, "positions"),
        Term("keypoints", frozenset({"keypoints"}), keypoint_loss, "positions of keypoints"),
    )  # fmt: skip


CORRELATION = Term(
    "correlation", frozenset({"positions"}), correlation_loss,
    "the correlation at the true positions",
)  # fmt: skip
