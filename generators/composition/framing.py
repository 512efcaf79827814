"""Which part of an image becomes the square that pairs are made of."""

import numpy as np
from numpy.typing import NDArray

from segswap import geometry
from segswap.geometry import Window

Mask = NDArray[np.bool_]


def tight(masks: list[Mask]) -> Window:
    """The image without what lies beyond its objects' masks (H, W) on the side nearest to them."""
    left, top, right, bottom = geometry.window_of(np.logical_or.reduce(masks))
    height, width = masks[0].shape
    # Distances relative to the image, since it is squashed to a square.
    sides = [
        (left / width, (left, 0, width, height)),
        (1 - right / width, (0, 0, right, height)),
        (top / height, (0, top, width, height)),
        (1 - bottom / height, (0, 0, width, bottom)),
    ]
    return min(sides, key=lambda side: side[0])[1]


def square(fit: str, width: int, height: int, masks: list[Mask] | None = None) -> Window:
    """The window of an image that is scaled to a square.

    Args:
        fit: "squash", the whole image, whatever its shape; "crop", the largest square inside it;
            "pad", the smallest square around it, whose window reaches beyond the image.
        width, height: of the image in pixels.
        masks: objects (H, W) that a crop is centred on as far as it can; by default on the middle.
    """
    if fit == "squash" or width == height:
        return 0, 0, width, height
    if fit == "pad":
        side = max(width, height)
        left, top = -((side - width) // 2), -((side - height) // 2)
        return left, top, left + side, top + side
    side = min(width, height)
    around = geometry.window_of(np.logical_or.reduce(masks)) if masks else (0, 0, width, height)
    left = min(max((around[0] + around[2] - side) // 2, 0), width - side)
    top = min(max((around[1] + around[3] - side) // 2, 0), height - side)
    return left, top, left + side, top + side


def room(width: int, height: int, window: Window) -> tuple[float, float, float, float]:
    """The image's own part of a window: left, top, right, bottom in the window's normalised
    coordinates, within [0, 1].
    """
    left, top, right, bottom = window
    x, y = (np.clip([-low / (high - low), (length - low) / (high - low)], 0, 1)
            for low, high, length in ((left, right, width), (top, bottom, height)))  # fmt: skip
    return float(x[0]), float(y[0]), float(x[1]), float(y[1])
