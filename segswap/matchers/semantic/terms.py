"""What the semantic matcher learns from beside the terms that matchers share."""

import torch
from torch import Tensor
from torch.nn import functional as F

from segswap.matchers.base import Answers, on_grid
from segswap.matchers.losses import mean_over, sides_with_truth, zero
from segswap.matchers.sampling import cells_around

_FAR = 0.1  # a position off by more than this share of the image is no worse than one off by it
_UNIT = 0.02  # difference of two positions' errors that counts once


def dice_loss(answers: Answers) -> Tensor:
    """1 - 2 |M M_gt| / (|M| + |M_gt|) of the masks (Milletari et al., "V-Net", 3DV 2016, section
    3), over the known cells, mean over the images in which something is shared; sum of both sides.

    Cross-entropy alone counts a small thing little.
    """
    total = zero(answers)
    for side, truth in sides_with_truth(answers):
        assert truth.mask is not None
        true = on_grid(truth.mask, side.mask_logits.shape[1:])
        known = ~true.isnan()
        mask, found = true.nan_to_num(), side.mask_logits.float().sigmoid() * known
        sizes = found.sum((1, 2)) + mask.sum((1, 2))
        lost = 1 - (2 * (found * mask).sum((1, 2)) + 1) / (sizes + 1)
        total = total + mean_over(lost, mask.sum((1, 2)) > 0)
    return total


def keypoint_entropy(answers: Answers) -> Tensor:
    """Cross-entropy of the correlation, from where a keypoint is in one image, at where it is in
    the other, both shared between four cells by bilinear weights; mean over the keypoints that both
    images show, sum of both directions.
    """
    total = zero(answers)
    for (side, other), (truth, there) in zip(
        answers.matches.both(), answers.batch.both(), strict=True
    ):
        assert truth.keypoints is not None
        assert truth.seen is not None
        assert there.keypoints is not None
        assert there.seen is not None
        logits = side.extra["correlation"].float()
        cells, weights = cells_around(truth.keypoints, *side.positions.shape[1:3])
        pair = torch.arange(len(logits), device=logits.device)[:, None, None]
        rows = (weights[..., None] * logits[pair, cells]).sum(2)
        cells, weights = cells_around(there.keypoints, *other.positions.shape[1:3])
        expected = (weights * rows.gather(-1, cells)).sum(-1)
        total = total + mean_over(rows.logsumexp(-1) - expected, truth.seen & there.seen)
    return total


def choice_loss(answers: Answers) -> Tensor:
    """Binary cross-entropy of the choice between the detailed and the semantic position; sum of
    both directions. Where the true position is known, the right one is that which is nearer to it,
    and a cell weighs by how much nearer. Where both images show the same kind of thing but not the
    very same one, it is the semantic one: there is no detail to be found again.
    """
    total = zero(answers)
    for side, truth in sides_with_truth(answers):
        assert truth.positions is not None
        assert truth.valid is not None
        choice = side.extra["choice"].float()
        detailed, semantic = (
            (side.extra[name].detach().float() - truth.positions).norm(dim=-1).clamp(max=_FAR)
            for name in ("detailed", "semantic")
        )
        nearer = (detailed < semantic).float()
        entropy = F.binary_cross_entropy_with_logits(choice, nearer, reduction="none")
        total = total + mean_over((detailed - semantic).abs() / _UNIT * entropy, truth.valid)
        if truth.mask is not None and truth.same is not None:
            kind = on_grid(truth.mask, choice.shape[1:])
            another = (kind > 0.5) & (truth.same == 0) & ~truth.valid  # False where unknown
            total = total + mean_over(F.softplus(choice), another)
    return total
