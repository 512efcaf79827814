"""One pair as a training sample: augmented, resized, with its ground truth on a matcher's grid."""

from collections.abc import Collection

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segswap.data.augment import Warp, photometric, random_spline, random_window
from segswap.data.pair import Pair, PairObject, shown_images
from segswap.data.shards import Members
from segswap.data.truth import GridTruth, source_truth, target_truth
from segswap.matchers.base import Batch, BatchSide, photograph_number

PHOTOGRAPHS = 4  # that an image of a batch is made of, at most: a background and objects' own
_SAME = 0.1  # share of samples in which an image meets a changed copy of itself


def check_size(size: int, *strides: int | None) -> None:
    """Refuse a size of images, in pixels, that is no multiple of a matcher's strides.

    Raises:
        ValueError: it is not; the message names both.
    """
    for stride in strides:
        if stride is not None and size % stride:
            raise ValueError(f"the size {size} is no multiple of the matcher's stride {stride}")


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
    pair: Pair, rng: np.random.Generator, *, size: int, cells: int, mask_cells: int | None = None,
    augment: bool = True, masked: bool = True, strong: bool = False,
) -> Batch:  # fmt: skip
    """A pair as a sample, a Batch without the batch dimension.

    Args:
        rng: draws the augmentation.
        size: side of the images in pixels.
        cells: cells along each side of the matcher's grid of positions.
        mask_cells: the same of its masks' grid, by default as many.
        augment: False changes nothing but the size.
        masked: False leaves the masks unknown, where others tell what a kind of thing is: another
            thing of an object's kind may be beside it. Of the very same thing all is known.
        strong: whether light changes strongly at times: see `photometric`.
    """
    warps = Warp(), Warp()
    shown = shown_images(pair)
    if augment:
        kept = pair.source_mask > 0, pair.target_mask > 0
        if rng.random() < _SAME:
            pair, box, shown = _same_image(pair, rng)
            kept = box, box
        warps = random_warps(kept, rng, size)
    source, target = warps[0].image(pair.source, size), warps[1].image(pair.target, size)
    if augment:
        source, target = photometric(source, rng, strong), photometric(target, rng, strong)
    sides = []
    for image, photographs, truth in (
        (source, shown[0], source_truth), (target, shown[1], target_truth)
    ):  # fmt: skip
        side = _side(image, photographs, truth(pair, cells, cells, *warps))
        if not masked:
            side = side._replace(mask=torch.full((mask_cells or cells,) * 2, torch.nan))
        elif mask_cells not in (None, cells):
            fine = truth(pair, mask_cells, mask_cells, *warps)
            side = side._replace(mask=torch.from_numpy(fine.mask))
        sides.append(side)
    source_side, target_side = sides
    # With a probability of 0.5 the two sides exchange their roles.
    if augment and rng.random() < 0.5:
        return Batch(target_side, source_side)
    return Batch(source_side, target_side)


def _same_image(
    pair: Pair, rng: np.random.Generator
) -> tuple[Pair, NDArray[np.bool_], tuple[set[str], set[str]]]:
    """One of a pair's images as both, all of it shared; a box (H, W) for crops to keep; and the
    photographs that both show.

    Without such samples a matcher learns that no region is as large as its image, and finds nothing
    in two equal ones.
    """
    chosen = 0 if rng.random() < 0.5 else 1
    image, shown = (pair.source, pair.target)[chosen], shown_images(pair)[chosen]
    return with_itself(image, pair.index), random_box(image.shape[:2], rng), (shown, shown)


def with_itself(image: NDArray[np.uint8], index: int = 0) -> Pair:
    """An image (H, W, 3) as both of a pair's, all of it shared."""
    everything = np.ones(image.shape[:2], np.uint8)
    whole = PairObject(1, np.eye(3), None, {}, "")
    return Pair(index, image, image, everything, everything, (whole,))


def random_box(shape: tuple[int, int], rng: np.random.Generator) -> NDArray[np.bool_]:
    """A box somewhere in an image, as a mask (H, W), for crops to keep."""
    corners = np.sort(rng.random((2, 2)), axis=0)
    (left, top), (right, bottom) = (corners * shape[::-1]).astype(int)
    box = np.zeros(shape, bool)
    box[top : bottom + 1, left : right + 1] = True
    return box


def random_warps(
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


def _side(image: NDArray[np.uint8], shown: set[str], truth: GridTruth) -> BatchSide:
    mask = torch.from_numpy(truth.mask)
    return BatchSide(
        # A view: the batch that it is stacked into is laid out by channels, once.
        torch.from_numpy(image).permute(2, 0, 1), photograph_numbers(shown), mask,
        torch.from_numpy(truth.positions), torch.from_numpy(truth.valid), same=mask,
    )  # fmt: skip


def photograph_numbers(keys: Collection[str]) -> Tensor:
    """`BatchSide.shown` of one image, for the keys of the photographs that it was made of.

    Raises:
        ValueError: they are more than PHOTOGRAPHS.
    """
    if len(keys) > PHOTOGRAPHS:
        raise ValueError(f"an image is made of {len(keys)} photographs; expected {PHOTOGRAPHS}")
    numbers = sorted(photograph_number(key) for key in keys)
    return torch.tensor(numbers + [0] * (PHOTOGRAPHS - len(numbers)), dtype=torch.int64)
