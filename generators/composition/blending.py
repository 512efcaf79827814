"""Put a warped object into a background: Poisson, feathered or plainly pasted."""

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import fft

from generators.composition.recipe import BLEND_NAMES

Image = NDArray[np.uint8]
Mask = NDArray[np.bool_]
# Takes background (H, W, 3), the object's pixels (H, W, 3) and its mask (H, W); returns the blend.
Blend = Callable[[Image, Image, Mask], Image]

_FEATHER = 6.0
_MARGIN = 2
_CROSS = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], np.float32)


def paste(background: Image, pixels: Image, mask: Mask) -> Image:
    """The object's pixels where the mask is set, the background elsewhere."""
    return cv2.copyTo(pixels, mask.view(np.uint8), background.copy())


def feather(background: Image, pixels: Image, mask: Mask) -> Image:
    """Fade the object in over the outermost pixels of its mask, so that its rim is soft."""
    if not mask.any():
        return background.copy()
    box = _box(mask)
    # The frame's edge is no rim: beyond it the mask is continued.
    depth = cv2.distanceTransform(_crop(mask.view(np.uint8), box.grown(1)), cv2.DIST_L2, 5)
    alpha = np.clip(depth[1:-1, 1:-1] / _FEATHER, 0, 1)[..., None]
    result = background.copy()
    part = _crop(result, box)
    part[:] = np.rint(alpha * _crop(pixels, box) + (1 - alpha) * part)
    return result


def poisson(background: Image, pixels: Image, mask: Mask) -> Image:
    """Seamless cloning: the object's gradients, the background's values around them.

    Solves the Poisson equation of Perez, Gangnet and Blake ("Poisson Image Editing", SIGGRAPH
    2003, equations 2 and 3) on the rectangle around the mask: the guidance field is the object's
    gradient between two pixels of the mask and the background's elsewhere; on the rectangle's
    edge the background stays. The Laplacian of a rectangle is diagonal in the discrete sine
    transform, so the solution is exact and takes two transforms a channel. The object is not
    moved. It may touch the frame, where the background is continued outwards.
    """
    return _cloned(background, pixels, mask, _object_gradients)


def poisson_mixed(background: Image, pixels: Image, mask: Mask) -> Image:
    """Seamless cloning with mixed gradients: as `poisson`, but between two pixels of the mask the
    stronger one of the object's and the background's gradient (Perez et al., equation 12), for
    each channel. The background's texture shows through where the object is smooth.
    """
    return _cloned(background, pixels, mask, _stronger_gradients)


# Takes object and background (rows, columns, 3) and the mask (rows, columns) of 0 and 1; returns
# the divergence (rows, columns, 3) of the guidance field less the background's gradient.
_Guidance = Callable[[Image, Image, NDArray[np.float32]], NDArray[np.float32]]


def _cloned(background: Image, pixels: Image, mask: Mask, guidance: _Guidance) -> Image:
    if not mask.any():
        return background.copy()
    patch = patch_around(mask)
    inside = _crop(mask.view(np.uint8), patch).astype(np.float32)
    # What is solved for is the change of the background: zero on the patch's edge, so that no
    # boundary term is left.
    change = solve_poisson(guidance(_crop(pixels, patch), _crop(background, patch), inside))
    top, left = max(patch.top, 0), max(patch.left, 0)
    result = background.copy()
    part = result[top : patch.top + patch.rows, left : patch.left + patch.columns]
    change = change[top - patch.top :, left - patch.left :][: part.shape[0], : part.shape[1]]
    # OpenCV rounds and clips when it converts to bytes.
    part[:] = cv2.add(part, change, dtype=cv2.CV_8U)
    return result


def _object_gradients(new: Image, old: Image, inside: NDArray[np.float32]) -> NDArray[np.float32]:
    neighbours, inside = (cv2.merge([plane] * 3) for plane in (_sum_around(inside), inside))
    excess = cv2.subtract(new, old, dtype=cv2.CV_32F)
    excess *= inside
    # The divergence of the excess' gradient, of steps between two pixels of the mask alone.
    divergence = _sum_around(excess)
    excess *= neighbours
    divergence -= excess
    divergence *= inside
    return divergence


def _stronger_gradients(new: Image, old: Image, inside: NDArray[np.float32]) -> NDArray[np.float32]:
    divergence = np.zeros(new.shape, np.float32)
    ahead, behind = np.s_[1:], np.s_[:-1]
    for axis in (0, 1):
        here, there = ((np.s_[:],) * axis + (part,) for part in (behind, ahead))
        of_new, of_old = np.diff(np.stack([new, old]).astype(np.float32), axis=axis + 1)
        both_inside = (inside[here] * inside[there])[..., None]
        step = np.where(np.abs(of_new) > np.abs(of_old), of_new - of_old, 0) * both_inside
        divergence[here] += step
        divergence[there] -= step
    return divergence


def _sum_around(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """The sum of every pixel's four neighbours; beyond the frame the nearest pixel is repeated."""
    return cv2.filter2D(image, -1, _CROSS, borderType=cv2.BORDER_REPLICATE)


BLENDS: dict[str, Blend] = dict(
    zip(BLEND_NAMES, (poisson, poisson_mixed, feather, paste), strict=True)
)


def solve_poisson(divergence: NDArray[np.float32]) -> NDArray[np.float32]:
    """Solve laplacian(u) = divergence with u = 0 on the rectangle's edge.

    The edge runs half a pixel outside the outermost pixels' centres: a pixel beyond it holds the
    negative of the one before it.

    Args:
        divergence: float32 (H, W, C); fastest where H and W have small prime factors.

    Returns:
        u, float32 (H, W, C): its five-point Laplacian is the divergence.
    """
    rows, columns = divergence.shape[:2]
    # The sine transform's basis functions are the Laplacian's eigenvectors.
    spectrum = fft.dstn(divergence, type=2, axes=(0, 1))
    spectrum /= (_eigenvalues(rows)[:, None] + _eigenvalues(columns))[..., None]
    return fft.idstn(spectrum, type=2, axes=(0, 1), overwrite_x=True)


def _eigenvalues(length: int) -> NDArray[np.float32]:
    """Eigenvalues of the second difference on a line that is 0 at both ends: (length,)."""
    return (2 * np.cos(np.pi * np.arange(1, length + 1) / length) - 2).astype(np.float32)


class Patch(NamedTuple):
    """A rectangle of pixels; it may reach beyond the frame."""

    top: int
    left: int
    rows: int
    columns: int

    def grown(self, margin: int) -> "Patch":
        """The rectangle with a margin on all sides."""
        return Patch(
            self.top - margin, self.left - margin, self.rows + 2 * margin, self.columns + 2 * margin
        )


def _box(mask: Mask) -> Patch:
    """The rectangle around a mask that is not empty."""
    left, top, columns, rows = cv2.boundingRect(mask.view(np.uint8))
    return Patch(top, left, rows, columns)


def patch_around(mask: Mask) -> Patch:
    """The rectangle to solve on: the mask's box, a margin, and padding to a size whose sine
    transform is fast.
    """
    box = _box(mask).grown(_MARGIN)
    place = []
    for first, length, limit in (
        (box.top, box.rows, mask.shape[0]), (box.left, box.columns, mask.shape[1])
    ):  # fmt: skip
        spare = fft.next_fast_len(length, real=True) - length
        # Grown towards the inside of the frame first: real background is better than continued.
        before = min(spare // 2, max(first, 0))
        if first + length + spare - before > limit:
            before = min(spare, max(first, 0))
        place.append((first - before, length + spare))
    (top, rows), (left, columns) = place
    return Patch(top, left, rows, columns)


def _crop(image: NDArray, patch: Patch) -> NDArray:
    """A part of an image; beyond the frame the nearest edge pixel is repeated."""
    bottom, right = patch.top + patch.rows, patch.left + patch.columns
    within = image[max(patch.top, 0) : bottom, max(patch.left, 0) : right]
    if within.shape[:2] == (patch.rows, patch.columns):
        return within
    return cv2.copyMakeBorder(
        within, max(-patch.top, 0), max(bottom - image.shape[0], 0),
        max(-patch.left, 0), max(right - image.shape[1], 0), cv2.BORDER_REPLICATE,
    )  # fmt: skip
