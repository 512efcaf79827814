"""Regions of an image, and which of them are worth copying."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle
from skimage.measure import label, regionprops

from segswap import geometry

MIN_SOLIDITY = 0.65
MIN_THICKNESS = 0.2
MAX_BORDER = 0.25
MAX_OVERLAP = 0.8
MAX_SEGMENTS = 20


@dataclass(frozen=True)
class Regions:
    """Regions that a proposer has found in an image, all of one score and one category.

    Attributes:
        labels: integer label map or bool mask (h, w), of any size: that of the image, or smaller;
            0 is no region. The parts of a region that is not connected count as regions.
        score: how sure the proposer is of them, from 0 to 1, higher is better; 1 where it cannot
            tell them apart.
        category: what they show; None where unknown.
    """

    labels: NDArray[np.integer] | NDArray[np.bool_]
    score: float = 1.0
    category: str | None = None

    def __post_init__(self) -> None:
        if self.labels.ndim != 2 or not 0 <= self.score <= 1:
            raise ValueError(
                f"regions with labels {self.labels.shape} and score {self.score}; expected (h, w) "
                "and a score from 0 to 1"
            )


@dataclass(frozen=True)
class Proposal:
    """A segment of an image that is worth copying.

    Attributes:
        height, width: the image's, in pixels.
        encoded: the mask at the size it was found at, as COCO's run lengths: the masks of a large
            image would fill the memory.
        score, category: see `Regions`.
    """

    height: int
    width: int
    encoded: dict[str, Any]
    score: float
    category: str | None

    @property
    def mask(self) -> NDArray[np.bool_]:
        """The segment's pixels in the image: bool (H, W)."""
        found = rle.decode(self.encoded) * np.float32(1)
        # Growing by interpolation leaves no staircase of the smaller label map's pixels.
        return geometry.resize(found, self.width, self.height) > 0.5


@dataclass(frozen=True)
class Found:
    """What a proposer finds in one image.

    Attributes:
        proposals: the segments worth copying, the largest first.
        categories: all that the image shows, also in regions that are not worth copying.
    """

    proposals: list[Proposal]
    categories: frozenset[str]


def worth_copying(
    regions: Iterable[Regions], height: int, width: int, area: tuple[float, float]
) -> Found:
    """The segments among the regions of an image of H x W pixels that are worth copying.

    The regions that `object_like` keeps, without those that overlap a larger one by an IoU over
    0.8, and the 20 largest of them: an image with many more gives scraps.

    Args:
        area: smallest and largest share of the image that a segment may take.
    """
    found: list[Proposal] = []
    categories: set[str] = set()
    for item in regions:
        if item.category is not None and item.labels.any():
            categories.add(item.category)
        for mask in object_like(item.labels, *area):
            encoded = rle.encode(np.asfortranarray(mask, np.uint8))
            found.append(Proposal(height, width, encoded, item.score, item.category))
    found.sort(key=lambda proposal: -int(rle.area(proposal.encoded)))
    kept: list[Proposal] = []
    for proposal in found:
        if len(kept) == MAX_SEGMENTS:
            break
        others = [other.encoded for other in kept]
        crowds = [False] * len(others)
        if not kept or rle.iou([proposal.encoded], others, crowds).max() <= MAX_OVERLAP:
            kept.append(proposal)
    return Found(kept, frozenset(categories))


def object_like(
    labels: NDArray[np.integer] | NDArray[np.bool_], min_area: float, max_area: float
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
