"""What a neighbourhood consensus network learns from."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from segswap.matchers.base import Answers, Batch, Term
from segswap.matchers.losses import (
    CORRELATION,
    correspondence_loss,
    mask_loss,
    transfer_loss,
    zero,
)

SCORE = "match_score"  # among a side's extras


def weak_loss(answers: Answers) -> Tensor:
    """Mean score of pairs that do not match, minus that of pairs that do (Rocco et al. 2018,
    equation 4). All that is known of the pairs is which show the same kind of thing.

    Pairs that do not match are the batch's sources with other samples' targets (published is: with
    the one before, whatever both show; here without those known to show a kind in common), and the
    pairs of the batch that are known to share no kind. 0 in a batch that lacks either sort.
    """
    batch = answers.batch
    score = answers.matches.source.extra[SCORE].float()
    apart = batch.unrelated(kinds=True).diagonal().to(score.dtype)
    matching = (batch.related() | batch.unlabelled()).diagonal().to(score.dtype)
    scores, counted = [score], [apart]
    if answers.negatives is not None and answers.counted_apart is not None:
        scores.append(answers.negatives.source.extra[SCORE].float())
        counted.append(answers.counted_apart)
    other, weight = torch.cat(scores), torch.cat(counted)
    if not matching.any() or not weight.any():
        return zero(answers) * score.sum()
    return (other @ weight) / weight.sum() - (score @ matching) / matching.sum()


def of_copies(compute: Callable[[Answers], Tensor]) -> Callable[[Answers], Tensor]:
    """A term of masks that is told where both images show the very same thing, of pairs that do,
    and nothing of others: masks of kinds of things are not for a method that needs none.
    """

    def computed(answers: Answers) -> Tensor:
        sides = []
        for side in answers.batch:
            assert side.same is not None
            assert side.valid is not None
            copied = side.valid.flatten(1).any(1)[:, None, None]
            sides.append(side._replace(mask=side.same.masked_fill(~copied, torch.nan)))
        return compute(replace(answers, batch=Batch(*sides)))

    return computed


_COPIES = frozenset({"same", "positions"})

TERMS: tuple[Term, ...] = (
    Term(
        "weak", frozenset({"pair"}), weak_loss,
        "how surely pairs match that show a kind in common, against pairs that do not",
        # Its range is far smaller than that of the others, which pairs of copies alone have.
        5.0, negatives=True, contrast=True,
    ),
    Term(
        "mask", _COPIES, of_copies(mask_loss),
        "masks, of pairs that show the very same thing and of those that share nothing",
        negatives=True,
    ),
    Term("transfer", _COPIES, of_copies(transfer_loss), "masks carried over by the positions"),
    Term("corr", frozenset({"positions"}), correspondence_loss, "positions"),
    CORRELATION,
)  # fmt: skip
