"""What speaks for a correspondence beside its own logit: the cells around both, and both masks."""

import torch
from torch import Tensor

from segswap.matchers.base import on_grid

# Chosen on held-out animals and classes. With more of either masks are carried over better still,
# and keypoints of animals, which the logits were taught, are found worse.
_AROUND = 0.5  # share of the cells around, the correspondence's own included
_AGREE = 1.0  # weight of what both masks say
_SUREST = 4.0  # logits of masks beyond it tell nothing more


_HIDDEN = -1e4


def supported(
    logits: Tensor, masks: tuple[Tensor, Tensor], grids: tuple[torch.Size, torch.Size],
    visible: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Logits (B, N, N') of "these cells correspond", of the cells of two grids, after the masks of
    both images and the cells around were asked. Gradients reach the logits alone.

    Args:
        masks: of each image its mask's logits (B, H, W), on grids that may be finer.
        grids: rows and columns of each image's cells.
        visible: bool (B, N') of the target's cells; those that are hidden say nothing, and nothing
            corresponds to them. None for all.
    """
    asked = logits + _AGREE * _agreement(*(
        on_grid(mask.detach().float().clamp(-_SUREST, _SUREST).sigmoid(), grid).flatten(1)
        for mask, grid in zip(masks, grids, strict=True)
    ))  # fmt: skip
    if visible is None:
        around = mean_around(asked, grids)
    else:
        told = visible[:, None].expand_as(asked).to(asked.dtype)
        around = mean_around(asked * told, grids) / mean_around(told, grids)
    return hidden((1 - _AROUND) * asked + _AROUND * around, visible)


def hidden(logits: Tensor, visible: Tensor | None) -> Tensor:
    """Logits (B, N, N') by which nothing corresponds to target cells that bool (B, N') has not."""
    return logits if visible is None else logits.masked_fill(~visible[:, None], _HIDDEN)


def _agreement(source: Tensor, target: Tensor) -> Tensor:
    """Log-probability (B, N, N') that two cells are both of what is shared, or both are not, by the
    probabilities (B, N) and (B, N') of each.
    """
    a, b = source[:, :, None], target[:, None]
    return (a * b + (1 - a) * (1 - b)).log()


def mean_around(scores: Tensor, grids: tuple[torch.Size, torch.Size]) -> Tensor:
    """Means (B, N, N') of the scores of two cells and of those around both, 3 x 3, the same step
    away in both images: where one moves, the other moves as far. What is beyond a border does not
    count.

    Args:
        scores: (B, N, N') of the cells of grids of so many rows and columns.
    """
    found = scores.unflatten(2, grids[1]).unflatten(1, grids[0])
    for axes in ((1, 3), (2, 4)):  # rows of both, columns of both
        found = _mean_along(found.movedim(axes, (0, 1))).movedim((0, 1), axes)
    return found.flatten(3, 4).flatten(1, 2)


def _mean_along(scores: Tensor) -> Tensor:
    """Means of each entry with those one step further, and one step back, along the first two
    dimensions at once.
    """
    total, count = scores.clone(), scores.new_ones(scores.shape[:2])
    one = torch.ones_like(count)
    before, after = slice(None, -1), slice(1, None)
    for here, there in ((before, after), (after, before)):
        total[here, here] += scores[there, there]
        count[here, here] += one[there, there]
    return total / count[:, :, None, None, None]
