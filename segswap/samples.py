"""One pair as a training sample: augmented, resized, with its ground truth on a matcher's grid."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segswap.augment import Warp, photometric, random_spline, random_window
from segswap.pair import Pair
from segswap.shards import Members
from segswap.truth import GridTruth, source_truth, target_truth


class Batch(NamedTuple):
    """Pairs and their ground truth on the matcher's grid.

    Attributes:
        source, target: uint8 (B, 3, S, S) RGB.
        source_mask, target_mask: float32 (B, h, w) in [0, 1], the share of each cell that both
            images show.
        to_target, to_source: float32 (B, h, w, 2), where each cell's centre lies in the other
            image, normalised.
        source_valid, target_valid: bool (B, h, w), where that is known.
    """

    source: Tensor
    target: Tensor
    source_mask: Tensor
    target_mask: Tensor
    to_target: Tensor
    to_source: Tensor
    source_valid: Tensor
    target_valid: Tensor

    def to(self, device: torch.device) -> "Batch":
        """The batch on another device."""
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in self))


def choose_styled(members: Members, rng: np.random.Generator, augment: bool = True) -> Members:
    """The members to decode: of each side one image, styled with a probability of 0.5.

    Args:
        augment: False always leaves the plain images.
    """
    for side in ("source", "target"):
        styled = members.pop(f"{side}_styled.jpg", None)
        if augment and styled is not None and rng.random() < 0.5:
            members[f"{side}.jpg"] = styled
    return members


def make_sample(
    pair: Pair, rng: np.random.Generator, *, size: int, cells: int, augment: bool = True
) -> Batch:
    """A pair as a sample, a Batch without the batch dimension.

    Args:
        rng: draws the augmentation.
        size: side of the images in pixels.
        cells: cells along each side of the matcher's grid.
        augment: False changes nothing but the size.
    """
    source_warp, target_warp = _random_warps(pair, rng, size) if augment else (Warp(), Warp())
    source = source_warp.image(pair.source, size)
    target = target_warp.image(pair.target, size)
    if augment:
        source, target = photometric(source, rng), photometric(target, rng)
    truths = (
        source_truth(pair, cells, cells, source_warp, target_warp),
        target_truth(pair, cells, cells, source_warp, target_warp),
    )
    if augment and rng.random() < 0.5:  # the two sides exchange their roles
        source, target, truths = target, source, truths[::-1]
    return _tensors(source, target, *truths)


def _random_warps(pair: Pair, rng: np.random.Generator, size: int) -> tuple[Warp, Warp]:
    """Warps of source and target: mirrored together, the target bent, each side cropped or not."""
    mirrored = bool(rng.random() < 0.5)
    spline = random_spline(rng) if rng.random() < 0.5 else None
    windows = [
        random_window(mask > 0, size, rng) if rng.random() < 0.5 else None
        for mask in (pair.source_mask, pair.target_mask)
    ]
    return Warp(mirrored, None, windows[0]), Warp(mirrored, spline, windows[1])


def _tensors(
    source: NDArray[np.uint8], target: NDArray[np.uint8], there: GridTruth, back: GridTruth
) -> Batch:
    def image(pixels: NDArray[np.uint8]) -> Tensor:
        # A view: the batch that it is stacked into is laid out by channels, once.
        return torch.from_numpy(pixels).permute(2, 0, 1)

    return Batch(
        image(source), image(target),
        torch.from_numpy(there.mask), torch.from_numpy(back.mask),
        torch.from_numpy(there.positions), torch.from_numpy(back.positions),
        torch.from_numpy(there.valid), torch.from_numpy(back.valid),
    )  # fmt: skip
