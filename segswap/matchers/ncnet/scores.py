"""Scores of all pairs of cells, how they are filtered, and pooled for relocalisation.

Scores are float (B, 1, hA, wA, hB, wB): row and column in the one image, then in the other.
"""

import torch
from torch import Tensor

EPSILON = 1e-5


def correlate(source: Tensor, target: Tensor) -> Tensor:
    """Inner products of features (B, C, hA, wA) and (B, C, hB, wB), none below 0: features that
    know negative values would turn the mutual filter around.
    """
    products = torch.einsum("bcij,bckl->bijkl", source, target)
    return products.clamp(min=0)[:, None]


def transposed(scores: Tensor) -> Tensor:
    """The same scores with the images exchanged."""
    return scores.permute(0, 1, 4, 5, 2, 3)


def mutual_filter(scores: Tensor) -> Tensor:
    """Soft mutual nearest neighbours (Rocco et al. 2018, section 3.3): each score times its shares
    of the best score of its cell in the one image and in the other.
    """
    best_target = scores.flatten(4).amax(dim=4)[..., None, None]
    best_source = scores.flatten(2, 3).amax(dim=2)[:, :, None, None]
    # The product of both shares first: it is the same when the images are exchanged.
    shares = (scores / (best_target + EPSILON)) * (scores / (best_source + EPSILON))
    return scores * shares


def pool(scores: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """The best score of each block of `factor` cells along all four axes, and where it is.

    Returns:
        (B, 1, hA / factor, ...), and int64 (B, hA / factor, ..., 4), the place within the block:
        row and column in the one image, row and column in the other, from 0 to factor - 1.
    """
    count, _, *sides = scores.shape
    split = [part for side in sides for part in (side // factor, factor)]
    blocks = scores.view(count, *split).permute(0, 1, 3, 5, 7, 2, 4, 6, 8).flatten(5)
    best, number = blocks.max(dim=5)
    digits = []
    for _ in range(4):
        digits.append(number % factor)
        number = number // factor
    return best[:, None], torch.stack(digits[::-1], dim=-1)


def match_score(scores: Tensor) -> Tensor:
    """How surely the cells of both images match: (B,), between 1 / cells and 1.

    The mean over the cells of the largest of the softmax over the other image's cells, without a
    temperature (the published code has none), of both directions.
    """
    flat = scores.flatten(4).flatten(1, 3)  # B, A, B's cells
    there = (flat.amax(2) - flat.logsumexp(2)).exp().mean(1)
    back = (flat.amax(1) - flat.logsumexp(1)).exp().mean(1)
    return (there + back) / 2
