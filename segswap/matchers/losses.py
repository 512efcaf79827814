"""Loss terms: those of Shen et al., "Learning Co-segmentation by Segment Swapping" (arXiv
2110.15904), section 3, cross-entropy on a correlation, and distances at keypoints.

Every function looks at both directions and returns their sum, a scalar in float32.
"""

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
    """Binary cross-entropy of the masks with the soft ground truth, BCE(M_gt, M).

    The masks of the negatives must be 0 everywhere; they are part of the same mean.

    Args:
        positive_weight: how often a cell counts by its share in the true mask; published is 1.
    """
    negatives, total = answers.negatives, _zero(answers)
    for number, (side, truth) in enumerate(_sides(answers)):
        losses = _logit_entropy(
            side.mask_logits, _mask(truth, side.mask_logits.shape[1:]), positive_weight
        )
        if negatives is None or answers.counted is None:
            total = total + losses.mean()
            continue
        empty = (negatives.source, negatives.target)[number].mask_logits
        more = _logit_entropy(empty, torch.zeros_like(empty, dtype=torch.float32), positive_weight)
        cells = len(losses) + answers.counted.sum()
        total = total + (losses.mean((1, 2)).sum() + more.mean((1, 2)) @ answers.counted) / cells
    return total


def _logit_entropy(logits: Tensor, truth: Tensor, positive_weight: float) -> Tensor:
    weight = torch.tensor(positive_weight, device=logits.device)
    return F.binary_cross_entropy_with_logits(
        logits.float(), truth, pos_weight=weight, reduction="none"
    )


def transfer_loss(answers: Answers, positive_weight: float = 1.0) -> Tensor:
    """BCE(M_gt^s, M^t at C^{s->t}): the other image's mask, carried over by the predicted
    positions, must give this image's mask too. Gradients reach the mask and the positions.

    What is sampled is the mask, not its logits: midway between probabilities 1 and 0.12 it is 0.56.
    """
    total = _zero(answers)
    for (side, other), truth in zip(answers.matches.both(), answers.batch, strict=True):
        probability = other.mask_logits.float().sigmoid()[:, None]
        carried = sample(probability, side.positions.float())[:, 0].clamp(_LEAST, 1 - _LEAST)
        mask = _mask(truth, carried.shape[1:])
        entropy = positive_weight * mask * carried.log() + (1 - mask) * (1 - carried).log()
        total = total - entropy.mean()
    return total


def _mask(truth: BatchSide, grid: torch.Size) -> Tensor:
    """The true mask (B, h, w) on a grid of so many rows and columns."""
    assert truth.mask is not None
    return on_grid(truth.mask, grid)


# --- positions -------------------------------------------------------------------------------


def correspondence_loss(answers: Answers) -> Tensor:
    """eta times the mean L1 distance, |dx| + |dy|, of the positions over the cells whose position
    is known.

    That is the paper's formula; the published code takes the mean over x and y, half of it.
    """
    total = _zero(answers)
    for side, truth in _sides(answers):
        assert truth.positions is not None
        assert truth.valid is not None
        distance = (side.positions.float() - truth.positions).abs().sum(dim=-1)
        total = total + ETA * _mean(distance, truth.valid)
    return total


def keypoint_loss(answers: Answers) -> Tensor:
    """eta times the mean L1 distance between where the keypoints that both images show are found
    and where they are.
    """
    total = _zero(answers)
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
        total = total + ETA * _mean(distance, truth.seen & there.seen)
    return total


def correlation_loss(answers: Answers) -> Tensor:
    """Cross-entropy of each cell's correlation with the other image's cells at its true position,
    which is shared between the four cells around it by bilinear weights.

    Raises:
        ValueError: the matches have no correlation.
    """
    total = _zero(answers)
    for (side, other), truth in zip(answers.matches.both(), answers.batch, strict=True):
        if "correlation" not in side.extra:
            raise ValueError("these matches have no correlation")
        total = total + _classes(side.extra["correlation"].float(), other, truth)
    return total


def _classes(logits: Tensor, other: Side, truth: BatchSide) -> Tensor:
    assert truth.positions is not None
    assert truth.valid is not None
    rows, columns = other.positions.shape[1:3]
    cells, weights = cells_around(truth.positions.flatten(1, 2), rows, columns)
    expected = (weights * logits.gather(-1, cells)).sum(-1)
    return _mean(logits.logsumexp(dim=-1) - expected, truth.valid.flatten(1))


def _sides(answers: Answers) -> tuple[tuple[Side, BatchSide], tuple[Side, BatchSide]]:
    matches, batch = answers.matches, answers.batch
    return (matches.source, batch.source), (matches.target, batch.target)


def _zero(answers: Answers) -> Tensor:
    return torch.zeros((), device=answers.batch.source.image.device)


def _mean(values: Tensor, chosen: Tensor) -> Tensor:
    """Mean over the chosen places; 0 where there are none."""
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
