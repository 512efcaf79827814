"""Masks of matchers that have no head for them: of cells that are matched surely, there and back.

What both images show is where the match is sure and the way back leads home. How sure is sure
enough differs between matchers, sizes and trainings; two numbers, fitted on pairs with known masks,
make probabilities of it.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from segswap.matchers.base import Batch, Matcher, on_grid
from segswap.matchers.sampling import cell_centres, sample

_AGREES = 0.05  # of the image's side: how far off the way there and back ends that counts half
_LOWEST, _HIGHEST = -20.0, -1e-4  # of the product's logarithm
_STEPS = 30  # of Newton's method, which takes 5 to 10
_RIDGE = 1e-3  # keeps two sorts that are told apart without fail from numbers without end
_FLATTEST = 0.05  # least scale: a sure cell is never less likely than an unsure one


class Calibration(nn.Module):
    """Probabilities of what a confidence is worth: logits = scale * evidence + offset (Platt,
    "Probabilistic Outputs for Support Vector Machines", 1999).

    Both numbers are buffers: no loss trains them, and they are saved with the weights.

    Args:
        scale, offset: before anything is fitted.
    """

    scale: Tensor
    offset: Tensor

    def __init__(self, scale: float = 1.0, offset: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(scale))
        self.register_buffer("offset", torch.tensor(offset))

    def forward(self, evidence: Tensor) -> Tensor:
        """Logits of evidence, of any shape."""
        return self.scale * evidence + self.offset

    def set(self, scale: float, offset: float) -> None:
        """Take over two numbers."""
        self.scale.fill_(scale)
        self.offset.fill_(offset)


def mask_from_confidence(
    confidence: Tensor, positions: Tensor, back: Tensor, calibration: Calibration | None = None
) -> Tensor:
    """Logits (B, h, w) of "both images show this": confidence times forward-backward agreement,
    which halves with every twentieth of the image that the way there and back ends off.

    Args:
        confidence: (B, h, w) in [0, 1].
        positions: (B, h, w, 2) normalised, of each cell in the other image.
        back: (B, h', w', 2), of the other image's cells.
        calibration: of the product's logits; None takes them as they are.
    """
    home = cell_centres(positions.shape[1], positions.shape[2], positions)
    there = cell_centres(back.shape[1], back.shape[2], back)
    # The way is sampled, not the place: exact where cells only move, up to the border.
    way = sample((back - there).permute(0, 3, 1, 2), positions).permute(0, 2, 3, 1)
    off = (positions + way - home).square().sum(dim=-1)
    # Not the norm itself, whose gradient at 0 is none.
    distance = (off + 1e-12).sqrt()
    log = confidence.float().clamp(min=1e-12).log() - math.log(2) / _AGREES * distance.float()
    log = log.clamp(_LOWEST, _HIGHEST)
    logits = log - torch.log(-torch.expm1(log))
    return logits if calibration is None else calibration(logits)


def fitted(evidence: Tensor, mask: Tensor) -> tuple[float, float]:
    """Scale and offset of logits, by logistic regression; shared and other cells weigh the same in
    all, so that a mask cut at 0.5 is where both are equally likely to show such evidence.

    Args:
        evidence: (N,).
        mask: (N,) in [0, 1].

    Raises:
        ValueError: all cells are of one sort.
    """
    evidence, mask = evidence.double(), mask.double()
    shares = mask.mean(), 1 - mask.mean()
    if min(shares) <= 0:
        raise ValueError("a calibration needs cells inside and cells outside of masks")
    weight = (mask / shares[0] + (1 - mask) / shares[1]) / 2
    inputs = torch.stack([evidence, torch.ones_like(evidence)], dim=1)
    target = mask / shares[0] / 2 / weight
    ridge = _RIDGE * torch.eye(2, dtype=torch.float64, device=evidence.device)
    numbers = torch.zeros(2, dtype=torch.float64, device=evidence.device)
    for _ in range(_STEPS):
        found = (inputs @ numbers).sigmoid()
        gradient = inputs.T @ (weight * (found - target)) / len(mask) + ridge @ numbers
        curvature = (inputs.T * (weight * found * (1 - found))) @ inputs / len(mask) + ridge
        numbers = numbers - torch.linalg.solve(curvature, gradient).clamp(-2, 2)
    scale = max(float(numbers[0]), _FLATTEST)
    # With another scale the best offset is another one; the evidence's middle stays in the middle.
    offset = float(numbers[1]) + (float(numbers[0]) - scale) * float(evidence.median())
    return scale, offset


@torch.no_grad()
def calibrate(matcher: Matcher, batches: Iterable[Batch]) -> bool:
    """Fit the calibration of a matcher that has one, on pairs whose masks are known.

    Args:
        matcher: it is left in evaluation mode.
        batches: on the matcher's device, at the size at which it is to match.

    Returns:
        Whether it was fitted: not where there is none, or nothing to fit it on.
    """
    own = [module for module in matcher.modules() if isinstance(module, Calibration)]
    if not own:
        return False
    (calibration,) = own
    before = float(calibration.scale), float(calibration.offset)
    calibration.set(1.0, 0.0)
    matcher.eval()
    evidence, masks = [], []
    for batch in batches:
        matches = matcher(*(side.image.float() / 255 for side in batch))
        for (side, _), truth in zip(matches.both(), batch, strict=True):
            if truth.mask is None:
                continue
            mask = on_grid(truth.mask, side.mask_logits.shape[1:])
            known = ~mask.isnan()
            evidence.append(side.mask_logits.float()[known])
            masks.append(mask[known])
    mask = torch.cat(masks) if masks else torch.zeros(1)
    if not 0 < float(mask.mean()) < 1:
        calibration.set(*before)
        return False
    calibration.set(*fitted(torch.cat(evidence), mask))
    return True
