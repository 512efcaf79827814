"""Matches and batches of given arrays, for tests."""

import torch
from torch import Tensor

from segswap.matchers.base import Answers, Batch, BatchSide, Matches, Side


def matches_of(
    to_target: Tensor, to_source: Tensor, source_logits: Tensor, target_logits: Tensor,
    source_features: Tensor, target_features: Tensor, correlation: Tensor | None = None,
) -> Matches:  # fmt: skip
    """Matches of positions, mask logits and features of both sides."""
    there, back = {}, {}
    if correlation is not None:
        there, back = {"correlation": correlation}, {"correlation": correlation.transpose(1, 2)}
    return Matches(
        Side(to_target, source_logits, source_features, there),
        Side(to_source, target_logits, target_features, back),
    )


def batch_of(
    images: Tensor, source_mask: Tensor, target_mask: Tensor, to_target: Tensor, to_source: Tensor,
    source_valid: Tensor, target_valid: Tensor,
) -> Batch:  # fmt: skip
    """Pairs of the same images on both sides; of which photographs is not known."""
    shown = torch.zeros(len(images), 1, dtype=torch.int64)
    return Batch(
        BatchSide(images, shown, source_mask, to_target, source_valid),
        BatchSide(images, shown, target_mask, to_source, target_valid),
    )


def parts(matches: Matches) -> list[Tensor]:
    """All tensors of matches, the sides' in the same order."""
    return [
        tensor
        for side, _ in matches.both()
        for tensor in (side.positions, side.mask_logits, side.features, *side.extra.values())
    ]


def answers(matches: Matches, batch: Batch, negatives: Matches | None = None) -> Answers:
    """What a loss is computed from; all negatives count."""
    count = None if negatives is None else torch.ones(len(negatives.source.mask_logits))
    return Answers(matches, batch, negatives, count, count)


def same_batch(first: Batch, second: Batch) -> bool:
    """Whether two batches hold the same, bit for bit; unknown, NaN, is the same as unknown."""

    def equal(a: Tensor, b: Tensor) -> bool:
        return torch.equal(a.isnan(), b.isnan()) and torch.equal(a.nan_to_num(), b.nan_to_num())

    return all(
        equal(a, b) if a is not None and b is not None else a is b
        for one, other in zip(first, second, strict=True)
        for a, b in zip(one, other, strict=True)
    )
