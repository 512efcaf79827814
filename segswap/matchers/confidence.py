"""Masks of matchers that have no head for them."""

import torch
from torch import Tensor

from segswap.matchers.sampling import cell_centres, sample

_AGREES = 0.05  # error of the way there and back, as a share of the image, that halves a cell
_LEAST = 1e-4


def mask_from_confidence(confidence: Tensor, positions: Tensor, back: Tensor) -> Tensor:
    """Logits (B, h, w) of "both images show this": confidence times forward-backward agreement.

    Args:
        confidence: (B, h, w) in [0, 1].
        positions: (B, h, w, 2) normalised, of each cell in the other image.
        back: (B, h', w', 2), of the other image's cells.
    """
    home = cell_centres(positions.shape[1], positions.shape[2], positions)
    returned = sample(back.permute(0, 3, 1, 2), positions).permute(0, 2, 3, 1)
    agrees = torch.exp2(-(returned - home).norm(dim=-1) / _AGREES)
    return torch.logit((confidence * agrees).clamp(_LEAST, 1 - _LEAST))
