"""What speaks for a correspondence beside its own logit: the cells around both, and both masks."""

import torch
from torch import Tensor

from segswap.matchers.base import on_grid
from segswap.matchers.windows import hide, mean_around

# Chosen on held-out animals and classes. With more of either masks are carried over better still,
# and keypoints of animals, which the logits were taught, are found worse.
_AROUND = 0.5  # share of the cells around, the correspondence's own included
_AGREE = 1.0  # weight of what both masks say
_SUREST = 4.0  # logits of masks beyond it tell nothing more


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
    around = mean_around(asked, grids, visible)
    return hide((1 - _AROUND) * asked + _AROUND * around, visible)


def _agreement(source: Tensor, target: Tensor) -> Tensor:
    """Log-probability (B, N, N') that two cells are both of what is shared, or both are not, by the
    probabilities (B, N) and (B, N') of each.
    """
    a, b = source[:, :, None], target[:, None]
    return (a * b + (1 - a) * (1 - b)).log()
