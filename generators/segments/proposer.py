"""What a proposer is, and which of its regions are worth copying."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from skimage.measure import regionprops

MIN_SOLIDITY = 0.6
MAX_BORDER = 0.25


class Proposer(Protocol):
    """Finds regions in an image."""

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.integer]:
        """Label map (H, W) of an RGB image (H, W, 3); 0 is no region."""
        ...


def object_like(
    labels: NDArray[np.integer], min_area: float, max_area: float
) -> Iterator[NDArray[np.bool_]]:
    """Masks (H, W) of the regions of a label map that look like a thing and not like a backdrop.

    A region is kept when its share of the image lies in [min_area, max_area], it fills at least
    0.6 of its convex hull, and at most a quarter of its outline's length runs along the frame.
    """
    height, width = labels.shape
    for region in regionprops(np.asarray(labels)):
        if not min_area <= region.area / labels.size <= max_area:
            continue
        top, left, bottom, right = region.bbox
        on_border = (
            (top == 0) * region.image[0].sum()
            + (left == 0) * region.image[:, 0].sum()
            + (bottom == height) * region.image[-1].sum()
            + (right == width) * region.image[:, -1].sum()
        )
        if on_border > MAX_BORDER * region.perimeter or region.solidity < MIN_SOLIDITY:
            continue
        mask = np.zeros(labels.shape, bool)
        mask[top:bottom, left:right] = region.image
        yield mask
