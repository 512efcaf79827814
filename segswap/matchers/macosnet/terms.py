"""What MaCoSNet learns from: five terms that know kinds alone, and known warps of pictures.

Chen, Lin, Yang, Huang, "Show, Match and Segment", TPAMI 2021. Pairs that share no kind take
part in none of them.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from segswap.matchers.base import Answers, Batch, Term, on_grid
from segswap.matchers.encoding import Encoding
from segswap.matchers.losses import (
    correspondence_loss,
    mask_loss,
    mean_over,
    transfer_loss,
    zero,
)
from segswap.matchers.macosnet.perceptual import (
    Masking,
    contrast,
    of_masked_features,
    of_masked_images,
    unlike,
)
from segswap.matchers.macosnet.scores import (
    SIDE,
    carried,
    collected,
    grid_places,
    grid_scores,
    to_grid,
    unit,
)
from segswap.matchers.macosnet.synthetic import random_warps, synthetic_copies, warped
from segswap.matchers.sampling import cell_centres, to_corners
from segswap.matchers.warps import affine

SCORES, AFFINE, SPLINE = "scores", "affine", "spline"  # among a side's extras
REGULARISATION = 0.2  # of splines in training, as published
POINTS = 10  # a side, of which cycles are computed
KNOWN_POINTS = 20  # a side, of which known warps are
COPIES = 3  # of each image a step, by known warps
_ELSEWHERE = 0.05  # what a point counts where the copy shows something else
_TASK = 60  # cells a side, on which masks are carried over
# How far apart objects of two kinds should be, as far as from their backgrounds. With more, masks
# shrink, step by step, to what is most typical.
_KINDS = 2.0


class Asked(Protocol):
    """What the terms ask of the matcher: parameters of warps for scores, and what is masked."""

    masking: Masking
    affine: Callable[[Tensor], Tensor]
    spline: Callable[[Tensor], Tensor]


def matching(batch: Batch) -> Tensor:
    """Which pairs are known to show a kind in common, or of which nothing is known but that they
    are pairs: bool (B,).
    """
    return (batch.related() | batch.unlabelled()).diagonal()


# --- the five published terms ----------------------------------------------------------------


def match_loss(answers: Answers) -> Tensor:
    """Minus the scores that the warps collect in the masks, of the affine map and of affine map and
    spline; mean of both directions.

    The released code takes the cells' centres for a little nearer to each other than they are
    (210/227 of the way to the border, not 14/15), and the best score for the mask.
    """
    total = zero(answers)
    for side, _ in answers.matches.both():
        cells = grid_places(side.positions).float()
        scores, mask = side.extra[SCORES], on_grid(side.mask_logits.sigmoid(), cells.shape[1:3])
        for splines in (None, side.extra[SPLINE]):
            places = carried(cells, side.extra[AFFINE], splines, REGULARISATION)
            total = total - mean_over(collected(scores, places, mask), matching(answers.batch)) / 2
    return total


def cycle_loss(answers: Answers) -> Tensor:
    """How far from their start the ways there and back bring 10 x 10 points, of both directions;
    affine maps alone. In half sides of the image, where the released code squares pixels.
    """
    there, back = (side.extra[AFFINE] for side, _ in answers.matches.both())
    return zero(answers) + sum(
        mean_over(off_cycle(*maps), matching(answers.batch))
        for maps in ((there, back), (back, there))
    )


def off_cycle(*maps: Tensor) -> Tensor:
    """Mean distance of 10 x 10 points from where affine maps (B, 6) bring them, one after the
    other: (B,).
    """
    line = torch.linspace(-1, 1, POINTS, device=maps[0].device)
    start = torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=-1)[None]
    end = start
    for parameters in maps:
        end = affine(parameters, end)
    # Not the norm itself, whose gradient at 0 is none.
    return ((end - start).square().sum(-1) + 1e-12).sqrt().mean((1, 2))


def transitivity_loss(answers: Answers) -> Tensor:
    """The same of the way around three images: a pair's, and another pair's target that is known to
    show a kind of the source's. 0 in a batch without such a triplet.
    """
    batch = answers.batch
    third = batch.related() & ~batch.meet()
    third.fill_diagonal_(False)
    first = torch.nonzero(third.any(1) & batch.related().diagonal())[:, 0]
    if not len(first):
        return zero(answers)
    last = third[first].int().argmax(1)
    matcher, (sources, targets) = asked(answers)
    there = answers.matches.source.extra[AFFINE][first]
    a, b, c = (
        images["features"][chosen]
        for images, chosen in ((sources, first), (targets, first), (targets, last))
    )
    onwards, home = matcher.affine(grid_scores(b, c)), matcher.affine(grid_scores(c, a))
    return off_cycle(there, onwards, home).mean()


def contrast_loss(answers: Answers) -> Tensor:
    """d+ + d-: objects of one kind are alike, and unlike their backgrounds; see
    `perceptual.contrast`.
    """
    own, other = _described(answers)
    alike, apart = contrast((own[0], other[0]), (own[1], other[1]))
    return mean_over(alike + apart, matching(answers.batch))


def kinds_loss(answers: Answers) -> Tensor:
    """How much too alike objects of two kinds are: of sources and targets of different pairs that
    are not known to show a kind in common, nor the same photograph. Without it backgrounds, which
    are more alike than objects, make better objects.
    """
    (sources, _), (targets, _) = _described(answers)
    batch = answers.batch
    shown = matching(batch)
    apart = ~(batch.related() | batch.meet()) & shown[:, None] & shown
    apart.fill_diagonal_(False)
    return mean_over((_KINDS - unlike(sources[:, None], targets)).clamp(min=0), apart)


def apart_loss(answers: Answers) -> Tensor:
    """Cross-entropy of masks of pairs that are not known to show a kind in common with nothing; sum
    of both sides. 0 without such pairs.
    """
    total, counted = zero(answers), answers.counted_apart
    if answers.negatives is None or counted is None:
        return total
    for side, _ in answers.negatives.both():
        lost = F.softplus(side.mask_logits.float()).mean((1, 2))
        total = total + (lost @ counted) / counted.sum().clamp(min=1)
    return total


def task_loss(answers: Answers) -> Tensor:
    """Cross-entropy of each mask with the other one carried over, which is 0 beyond the image. No
    gradient reaches the mask that is carried over: it would make both of them nothing, or all.
    """
    total = zero(answers)
    for side, other in answers.matches.both():
        own, theirs = (
            on_grid(each.mask_logits.float().sigmoid(), torch.Size((_TASK, _TASK)))
            for each in (side, other)
        )
        cells = cell_centres(_TASK, _TASK, own)[None]
        places = carried(cells, side.extra[AFFINE], side.extra[SPLINE], REGULARISATION)
        told = F.grid_sample(theirs.detach()[:, None], 2 * places - 1, align_corners=False)[:, 0]
        lost = entropy(own, told).mean((1, 2))
        total = total + mean_over(lost, matching(answers.batch))
    return total


def entropy(found: Tensor, told: Tensor) -> Tensor:
    """Binary cross-entropy of probabilities with others, to which gradients pass, too."""
    found = found.clamp(1e-6, 1 - 1e-6)
    return -(told * found.log() + (1 - told) * (1 - found).log())


# --- known warps -----------------------------------------------------------------------------


def synthetic_loss(answers: Answers) -> Tensor:
    """Mean squared distance of 20 x 20 points, moved by predicted and by true warps, of the batch's
    images and copies of them: of the affine map, and of affine map and spline.

    That is what published training begins with, and the other terms cannot begin without. There
    images are warped; here it is their features, which costs a small part of that, and what is
    warped is pasted on another image's: see `synthetic_copies`. Points count where it is.
    """
    matcher, encodings = asked(answers)
    cells = to_grid(torch.cat([images["features"] for images in encodings]).float())
    cells = cells.repeat(COPIES, 1, 1, 1)
    affines, splines = random_warps(len(cells), cells.device)
    copies, shown = synthetic_copies(cells, affines, splines)
    first = matcher.affine(grid_scores(copies, cells))
    again = unit(warped(cells, first.detach()))
    second = matcher.spline(grid_scores(copies, again))
    points = cell_centres(KNOWN_POINTS, KNOWN_POINTS, first)[None]
    true = to_corners(carried(points, affines, splines), SIDE, SIDE)
    alone = to_corners(carried(points, first), SIDE, SIDE)
    both = to_corners(carried(points, first.detach(), second, REGULARISATION), SIDE, SIDE)
    off = ((alone - true).square() + (both - true).square()).sum(-1)
    weight = F.interpolate(shown[:, None], off.shape[1:])[:, 0] + _ELSEWHERE
    return ((off * weight).sum((1, 2)) / weight.sum((1, 2))).mean()


# --- shared ----------------------------------------------------------------------------------


def of_no_kinds(compute: Callable[[Answers], Tensor]) -> Callable[[Answers], Tensor]:
    """A term of masks that is told them of pairs of unknown kinds, and of those that share none:
    masks of kinds are not for a method that needs none. Negatives are `apart_loss`'s.
    """

    def computed(answers: Answers) -> Tensor:
        batch = answers.batch
        told = (batch.unlabelled() | batch.unrelated(kinds=True)).diagonal()[:, None, None]
        sides = []
        for side in batch:
            assert side.mask is not None
            sides.append(side._replace(mask=side.mask.masked_fill(~told, torch.nan)))
        return compute(replace(answers, batch=Batch(*sides), negatives=None))

    return computed


def asked(answers: Answers) -> tuple[Asked, tuple[Encoding, Encoding]]:
    """The matcher, and what it made of the batch's images."""
    assert answers.asked is not None
    matcher, *encodings = answers.asked
    return cast(Asked, matcher), (encodings[0], encodings[1])


def _described(answers: Answers) -> list[tuple[Tensor, Tensor]]:
    """Features of objects and of backgrounds of sources, and of targets."""
    masking = of_masked_images if asked(answers)[0].masking == "images" else of_masked_features
    return [
        masking(truth.image, side.mask_logits.float().sigmoid())
        for (side, _), truth in zip(answers.matches.both(), answers.batch, strict=True)
    ]


_PAIR = frozenset({"pair"})

TERMS: tuple[Term, ...] = (
    Term("match", _PAIR, match_loss, "scores that the warp collects in the masks"),
    Term("cycle", _PAIR, cycle_loss, "the way there and back", 0.3),
    Term("transitivity", _PAIR, transitivity_loss, "the way around three pictures of a kind", 0.1),
    Term("contrast", _PAIR, contrast_loss, "objects with each other and with their backgrounds"),
    Term("task", _PAIR, task_loss, "masks with each other, carried over", 0.1),
    Term("kinds", _PAIR, kinds_loss, "objects of two kinds", 3.0, contrast=True),
    Term(
        "apart", _PAIR, apart_loss, "masks of pairs that share no kind, with nothing", 0.1,
        negatives=True,
    ),
    Term("synthetic", _PAIR, synthetic_loss, "known warps of the pictures themselves", 2.0),
    Term(
        "mask", frozenset({"mask"}), of_no_kinds(mask_loss),
        "masks, of generated pairs, warped pictures and those that share nothing",
    ),
    Term(
        "transfer", frozenset({"mask"}), of_no_kinds(transfer_loss),
        "masks carried over by the positions, of these pairs",
    ),
    Term("corr", frozenset({"positions"}), correspondence_loss, "known positions", 0.3),
)  # fmt: skip
