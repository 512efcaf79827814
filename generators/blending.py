"""Put a warped object into a background: Poisson, feathered or plainly pasted."""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import fft

Image = NDArray[np.uint8]
Mask = NDArray[np.bool_]
# Takes background (H, W, 3), the object's pixels (H, W, 3) and its mask (H, W); returns the blend.
Blend = Callable[[Image, Image, Mask], Image]

_FEATHER = 6.0
_MARGIN = 2


def paste(background: Image, pixels: Image, mask: Mask) -> Image:
    """The object's pixels where the mask is set, the background elsewhere."""
    return np.where(mask[..., None], pixels, background)


def feather(background: Image, pixels: Image, mask: Mask) -> Image:
    """Fade the object in over the outermost pixels of its mask, so that its rim is soft."""
    # The frame's edge is no rim: without the padding's ring an object would fade out there.
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1]
    alpha = np.clip(depth / _FEATHER, 0, 1)[..., None]
    return np.rint(alpha * pixels + (1 - alpha) * background).astype(np.uint8)


def poisson(background: Image, pixels: Image, mask: Mask) -> Image:
    """Seamless cloning: the object's gradients, the background's values around them.

    Solves the Poisson equation of Perez, Gangnet and Blake ("Poisson Image Editing", SIGGRAPH
    2003, equations 2 and 3) on the rectangle around the mask: the guidance field is the object's
    gradient between two pixels of the mask and the background's elsewhere; the border holds the
    background. The Laplacian of a rectangle is diagonal in the discrete sine transform, so the
    solution is exact and takes two transforms a channel. The object is not moved. It may touch the
    frame, where the background is continued outwards.
    """
    if not mask.any():
        return background.copy()
    top, left, rows, columns = _patch(mask)
    outer = (
        slice(top - 1, top + rows + 1),
        slice(left - 1, left + columns + 1),
    )
    behind = _crop(background, outer).astype(np.float32)
    # What is solved for is the change of the background: zero on the patch's border, so that no
    # boundary term is left, and zero everywhere outside the mask's influence.
    excess = _crop(pixels, outer).astype(np.float32) - behind
    inside = _crop(mask, outer)
    divergence = np.zeros((rows + 2, columns + 2, 3), np.float32)
    for axis in (0, 1):
        low = tuple(slice(0, -1) if a == axis else slice(None) for a in (0, 1))
        high = tuple(slice(1, None) if a == axis else slice(None) for a in (0, 1))
        step = (excess[high] - excess[low]) * (inside[high] & inside[low])[..., None]
        divergence[low] += step
        divergence[high] -= step
    change = solve_poisson(divergence[1:-1, 1:-1])
    result = background.copy()
    frame = (
        slice(max(top, 0), min(top + rows, mask.shape[0])),
        slice(max(left, 0), min(left + columns, mask.shape[1])),
    )
    visible = change[
        frame[0].start - top : frame[0].stop - top, frame[1].start - left : frame[1].stop - left
    ]
    result[frame] = np.clip(np.rint(background[frame] + visible), 0, 255).astype(np.uint8)
    return result


BLENDS: dict[str, Blend] = {"poisson": poisson, "feather": feather, "paste": paste}


def solve_poisson(divergence: NDArray[np.float32]) -> NDArray[np.float32]:
    """Solve laplacian(u) = divergence with u = 0 just outside the rectangle.

    Args:
        divergence: float32 (H, W, C); fastest where H + 1 and W + 1 have small prime factors.

    Returns:
        u, float32 (H, W, C): its five-point Laplacian is the divergence.
    """
    rows, columns = divergence.shape[:2]
    eigenvalues = (
        2 * np.cos(np.pi * np.arange(1, rows + 1) / (rows + 1))[:, None]
        + 2 * np.cos(np.pi * np.arange(1, columns + 1) / (columns + 1))[None, :]
        - 4
    ).astype(np.float32)
    # Channels first: the transforms then run over contiguous rows.
    planes = np.ascontiguousarray(np.moveaxis(divergence, -1, 0))
    spectrum = fft.dstn(planes, type=1, axes=(1, 2), overwrite_x=True)
    spectrum /= eigenvalues
    return np.moveaxis(fft.idstn(spectrum, type=1, axes=(1, 2), overwrite_x=True), 0, -1)


def _patch(mask: Mask) -> tuple[int, int, int, int]:
    """Top, left, rows and columns of the rectangle to solve on: the mask's box, a margin, and
    padding to a size whose sine transform is fast. It may reach beyond the frame.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    place = []
    for indices, limit in ((rows, mask.shape[0]), (columns, mask.shape[1])):
        first, last = int(indices[0]) - _MARGIN, int(indices[-1]) + _MARGIN
        size = fft.next_fast_len(last - first + 2, real=True) - 1
        # Grown towards the inside of the frame first: real background is better than continued.
        spare = size - (last - first + 1)
        before = min(spare // 2, max(first, 0))
        if last + spare - before >= limit:
            before = min(spare, max(first, 0))
        place.append((first - before, size))
    (top, height), (left, width) = place
    return top, left, height, width


def _crop(array: NDArray, region: tuple[slice, slice]) -> NDArray:
    """A part of an image that may reach beyond it, where the nearest edge pixel is repeated."""
    rows = np.clip(np.arange(region[0].start, region[0].stop), 0, array.shape[0] - 1)
    columns = np.clip(np.arange(region[1].start, region[1].stop), 0, array.shape[1] - 1)
    return array[rows[:, None], columns]
