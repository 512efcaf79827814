"""The losses of Shen et al., "Learning Co-segmentation by Segment Swapping" (arXiv 2110.15904),
section 3, and cross-entropy on a correlation; all in logits, so that mixed precision is safe.

Every function takes Matches and a Batch, looks at both directions and returns their sum, a scalar.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from segswap.matchers.base import Batch, Matches
from segswap.matchers.sampling import cells_around, sample

ETA = 8.0  # weight of the positions' L1 distance, as published


def reversed_batch(batch: Batch) -> Batch:
    """The batch with source and target exchanged."""
    return Batch(
        batch.target, batch.source, batch.target_mask, batch.source_mask, batch.to_source,
        batch.to_target, batch.target_valid, batch.source_valid,
    )  # fmt: skip


def mask_loss(
    matches: Matches,
    batch: Batch,
    negatives: Matches | None = None,
    positive_weight: float = 1.0,
) -> Tensor:
    """Binary cross-entropy of the masks with the soft ground truth, BCE(M_gt, M).

    Args:
        negatives: matches of pairs that share nothing; their masks must be 0 everywhere. They are
            part of the same mean.
        positive_weight: how often a cell counts by its share in the true mask; published is 1.
    """
    total = torch.zeros((), device=batch.source_mask.device)
    sides = (
        (matches.source_logits, batch.source_mask, "source_logits"),
        (matches.target_logits, batch.target_mask, "target_logits"),
    )
    for logits, truth, name in sides:
        if negatives is not None:
            empty = getattr(negatives, name)
            logits = torch.cat([logits, empty])
            truth = torch.cat([truth, torch.zeros_like(empty, dtype=truth.dtype)])
        total = total + _cross_entropy(logits, truth, positive_weight)
    return total


def transfer_loss(matches: Matches, batch: Batch, positive_weight: float = 1.0) -> Tensor:
    """BCE(M_gt^s, M^t at C^{s->t}): the other image's mask, carried over by the predicted
    positions, must give this image's mask too. Gradients reach the mask and the positions.
    """
    there = _transfer(matches, batch, positive_weight)
    return there + _transfer(matches.reversed(), reversed_batch(batch), positive_weight)


def _transfer(matches: Matches, batch: Batch, positive_weight: float) -> Tensor:
    carried = sample(matches.target_logits[:, None].float(), matches.to_target.float())[:, 0]
    return _cross_entropy(carried, batch.source_mask, positive_weight)


def _cross_entropy(logits: Tensor, truth: Tensor, positive_weight: float) -> Tensor:
    weight = torch.tensor(positive_weight, device=logits.device)
    return F.binary_cross_entropy_with_logits(logits.float(), truth, pos_weight=weight)


def correspondence_loss(matches: Matches, batch: Batch) -> Tensor:
    """eta times the mean L1 distance of the positions over the cells whose position is known."""
    return _positions(matches, batch) + _positions(matches.reversed(), reversed_batch(batch))


def _positions(matches: Matches, batch: Batch) -> Tensor:
    distance = (matches.to_target.float() - batch.to_target).abs().sum(dim=-1)
    return ETA * _mean(distance, batch.source_valid)


def correlation_loss(matches: Matches, batch: Batch) -> Tensor:
    """Cross-entropy of each cell's correlation with the other image's cells at its true position,
    which is shared between the four cells around it by bilinear weights.

    Raises:
        ValueError: the matches have no correlation.
    """
    if matches.correlation is None:
        raise ValueError("these matches have no correlation")
    return _classes(matches, batch) + _classes(matches.reversed(), reversed_batch(batch))


def _classes(matches: Matches, batch: Batch) -> Tensor:
    assert matches.correlation is not None
    rows, columns = matches.target_logits.shape[1:]
    logits = matches.correlation.float()
    cells, weights = cells_around(batch.to_target.flatten(1, 2), rows, columns)
    expected = (weights * logits.gather(-1, cells)).sum(-1)
    return _mean(logits.logsumexp(dim=-1) - expected, batch.source_valid.flatten(1))


def _mean(values: Tensor, chosen: Tensor) -> Tensor:
    """Mean over the chosen places; 0 where there are none."""
    return (values * chosen).sum() / chosen.sum().clamp(min=1)
