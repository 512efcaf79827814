"""Pictures of pairs and matches: masks outlined, points that belong together in one colour."""

import colorsys

import cv2
import numpy as np
from numpy.typing import NDArray

from segswap import geometry

Image = NDArray[np.uint8]
Mask = NDArray[np.bool_]
_OUTLINES = ((255, 70, 60), (60, 200, 255), (90, 230, 90), (255, 200, 40))


def outlined(image: Image, labels: NDArray) -> Image:
    """A copy of an RGB image with the outline of every region of a label map (H, W) drawn in."""
    drawn = image.copy()
    thickness = max(1, round(min(image.shape[:2]) / 200))
    for label in np.unique(labels[labels > 0]):
        contours, _ = cv2.findContours(
            (labels == label).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
        )
        colour = _OUTLINES[(int(label) - 1) % len(_OUTLINES)]
        cv2.drawContours(drawn, contours, -1, colour, thickness, cv2.LINE_AA)
    return drawn


def beside(left: Image, right: Image, height: int = 320, gap: int = 8) -> Image:
    """Two RGB images at one height, side by side on white."""
    parts = [
        cv2.resize(
            image, (max(1, round(image.shape[1] * height / image.shape[0])), height),
            interpolation=cv2.INTER_AREA if image.shape[0] > height else cv2.INTER_LINEAR,
        )
        for image in (left, right)
    ]  # fmt: skip
    return np.hstack([parts[0], np.full((height, gap, 3), 255, np.uint8), parts[1]])


def draw_match(
    source: Image, target: Image, source_mask: Mask, target_mask: Mask, start: NDArray,
    end: NDArray, *, height: int = 320,
) -> Image:  # fmt: skip
    """Source and target side by side, what is not shared darkened, matching points joined.

    Args:
        source, target: uint8 (H, W, 3) RGB of any sizes.
        source_mask, target_mask: bool (H, W) at their sizes, what both images share.
        start, end: (N, 2) normalised source points and where they lie in the target; a point whose
            place is not finite is left out.
        height: of the picture in pixels.
    """
    dimmed = [
        outlined(np.where(mask[..., None], image, image // 3), mask.astype(np.uint8))
        for mask, image in ((source_mask, source), (target_mask, target))
    ]
    picture = beside(dimmed[0], dimmed[1], height)
    join(picture, start, end, source.shape, target.shape, height)
    return picture


def spread_points(mask: NDArray[np.bool_], count: int) -> NDArray[np.float64]:
    """At most `count` normalised points (N, 2) spread evenly over a mask (H, W)."""
    rows, columns = np.nonzero(mask)
    every = max(1, len(rows) // 4000)
    pixels = np.stack([columns, rows], axis=1)[::every]
    points = geometry.to_normalised(pixels, mask.shape[1], mask.shape[0])
    return points[geometry.farthest_points(points, count)]


def join(
    picture: Image, start: NDArray, end: NDArray, source_shape: tuple[int, ...],
    target_shape: tuple[int, ...], height: int, gap: int = 8,
) -> None:  # fmt: skip
    """Draw lines between normalised points of the two images in a picture that `beside` made."""
    left = round(source_shape[1] * height / source_shape[0])
    right = round(target_shape[1] * height / target_shape[0])
    for number, (a, b) in enumerate(zip(start, end, strict=True)):
        if not np.isfinite(b).all():
            continue
        hue = colorsys.hsv_to_rgb(number / max(len(start), 1), 0.75, 1.0)
        colour = tuple(int(255 * part) for part in hue)
        p = (round(a[0] * left), round(a[1] * height))
        q = (left + gap + round(b[0] * right), round(b[1] * height))
        cv2.line(picture, p, q, colour, 1, cv2.LINE_AA)
        for place in (p, q):
            cv2.circle(picture, place, 4, (0, 0, 0), -1, cv2.LINE_AA)
            cv2.circle(picture, place, 3, colour, -1, cv2.LINE_AA)
