"""One pair as a training sample: augmented, resized, with its ground truth on a matcher's grid."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segswap.data.augment import Warp, photometric, random_spline, random_window
from segswap.data.pair import Pair, PairObject
from segswap.data.shards import Members
from segswap.data.truth import GridTruth, source_truth, target_truth
from segswap.matchers.base import Batch

_SAME = 0.1  # share of samples in which an image meets a changed copy of itself


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
    source_warp, target_warp = Warp(), Warp()
    if augment:
        kept = pair.source_mask > 0, pair.target_mask > 0
        if rng.random() < _SAME:
            pair, box = _same_image(pair, rng)
            kept = box, box
        source_warp, target_warp = _random_warps(kept, rng, size)
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


def _same_image(pair: Pair, rng: np.random.Generator) -> tuple[Pair, NDArray[np.bool_]]:
    """One of a pair's images as both, all of it shared, and a box (H, W) for crops to keep.

    Without such samples a matcher learns that no region is as large as its image, and finds nothing
    in two equal ones.
    """
    image = pair.source if rng.random() < 0.5 else pair.target
    everything = np.ones(image.shape[:2], np.uint8)
    whole = PairObject(1, np.eye(3), None, {}, "")
    corners = np.sort(rng.random((2, 2)), axis=0)
    (left, top), (right, bottom) = (corners * (image.shape[1], image.shape[0])).astype(int)
    box = np.zeros(image.shape[:2], bool)
    box[top : bottom + 1, left : right + 1] = True
    return Pair(pair.index, image, image, everything, everything, (whole,)), box


def _random_warps(
    kept: tuple[NDArray[np.bool_], NDArray[np.bool_]], rng: np.random.Generator, size: int
) -> tuple[Warp, Warp]:
    """Warps of source and target: mirrored together, the target bent, each side cropped or not.

    Args:
        kept: what of each image a crop keeps.
    """
    mirrored = bool(rng.random() < 0.5)
    spline = random_spline(rng) if rng.random() < 0.5 else None
    windows = [random_window(mask, size, rng) if rng.random() < 0.5 else None for mask in kept]
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
