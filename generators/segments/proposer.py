"""What a proposer is, and which of the regions that it finds are worth copying."""

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle
from skimage.measure import label, regionprops

from segswap import geometry

SIDE = 256  # px; the regions sought are large, and the time to find them grows with the pixels
MIN_SOLIDITY = 0.65
MIN_THICKNESS = 0.2
MAX_BORDER = 0.25
MAX_OVERLAP = 0.8
MAX_SEGMENTS = 20


class Proposer(Protocol):
    """Finds regions in an image."""

    def __call__(self, image: NDArray[np.uint8], path: str) -> Iterable[NDArray[np.integer]]:
        """Label maps of an image: one, or several where regions overlap.

        Args:
            image: RGB, (H, W, 3).
            path: of the image's file, for what lies beside it.

        Returns:
            Label maps (h, w), all of one size, which need not be the image's; 0 is no region. The
            parts of a region that is not connected count as regions. The same image always gives
            the same label maps.

        Raises:
            ImageError: the image cannot be used; it is listed as skipped.
        """
        ...


def shrunk(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An RGB image with its longer side at most 256 px."""
    height, width = image.shape[:2]
    factor = min(1.0, SIDE / max(height, width))
    return geometry.resize(image, max(1, round(width * factor)), max(1, round(height * factor)))


def find_segments(
    proposer: Proposer, image: NDArray[np.uint8], path: str, min_area: float, max_area: float
) -> Iterator[NDArray[np.bool_]]:
    """Masks (H, W) of the segments that a proposer finds in an RGB image, the largest first.

    The regions that `object_like` keeps, without those that overlap a larger one by an IoU over
    0.8, and the 20 largest of them: an image with many more gives scraps.

    Raises:
        ImageError: of the proposer.
    """
    height, width = image.shape[:2]
    # As run lengths: masks of a large label map would fill the memory.
    found = [
        rle.encode(np.asfortranarray(mask, np.uint8))
        for labels in proposer(image, path)
        for mask in object_like(labels, min_area, max_area)
    ]
    found.sort(key=lambda region: -int(rle.area(region)))
    kept: list[int] = []
    for number, region in enumerate(found):
        if len(kept) == MAX_SEGMENTS:
            break
        others = [found[i] for i in kept]
        if not kept or rle.iou([region], others, [False] * len(others)).max() <= MAX_OVERLAP:
            kept.append(number)
    for number in kept:
        # Growing by interpolation leaves no staircase of the smaller label map's pixels.
        yield geometry.resize(rle.decode(found[number]) * np.float32(1), width, height) > 0.5


def object_like(
    labels: NDArray[np.integer], min_area: float, max_area: float
) -> Iterator[NDArray[np.bool_]]:
    """Masks (h, w) of the regions of a label map that look like a thing and not like a backdrop.

    A region, or a connected part of one, is kept when

    - its share of the image lies in [min_area, max_area];
    - it fills at least 0.65 of its convex hull;
    - it is no sliver: the ellipse with its moments is at least a fifth as thick as long;
    - it does not reach from one side of the image to the opposite one, and what lies on the frame
      is at most a quarter of the outline of its bounding box.
    """
    for region in regionprops(label(labels, background=0, connectivity=2)):
        if (
            min_area <= region.area / labels.size <= max_area
            and not _at_the_border(region, labels.shape)
            and region.axis_minor_length >= MIN_THICKNESS * region.axis_major_length
            and region.solidity >= MIN_SOLIDITY
        ):
            top, left, bottom, right = region.bbox
            mask = np.zeros(labels.shape, bool)
            mask[top:bottom, left:right] = region.image
            yield mask


def _at_the_border(region: Any, shape: tuple[int, ...]) -> bool:
    top, left, bottom, right = region.bbox
    sides = [
        (top == 0) * region.image[0].sum(),
        (bottom == shape[0]) * region.image[-1].sum(),
        (left == 0) * region.image[:, 0].sum(),
        (right == shape[1]) * region.image[:, -1].sum(),
    ]
    across = (sides[0] and sides[1]) or (sides[2] and sides[3])
    return bool(across or sum(sides) > MAX_BORDER * 2 * (bottom - top + right - left))
