"""Where and how large a copied object stands in the background: one affine map an object."""

from itertools import combinations

import cv2
import numpy as np
from numpy.typing import NDArray

from segswap import geometry

Box = tuple[float, float, float, float]  # left, top, right, bottom, normalised


def layouts(objects: int, gap: float) -> list[tuple[Box, ...]]:
    """All ways to give each object a box of its own: halves and quadrants that do not overlap.

    One object has the whole frame. For two there are 16 ways: the two pairs of halves, each half
    with one of the two quadrants beside it, and each pair of quadrants.

    Args:
        objects: 1 to 4.
        gap: how far apart neighbouring boxes keep, normalised.
    """
    if objects == 1:
        return [((0.0, 0.0, 1.0, 1.0),)]
    low, high = (0.0, 0.5), (0.5, 1.0)
    whole = (0.0, 1.0)
    spans = [(low, whole), (high, whole), (whole, low), (whole, high)]
    spans += [(x, y) for x in (low, high) for y in (low, high)]
    boxes = [(x[0], y[0], x[1], y[1]) for x, y in spans]
    return [
        tuple(_apart(box, gap) for box in group)
        for group in combinations(boxes, objects)
        if all(_disjoint(a, b) for a, b in combinations(group, 2))
    ]


def _disjoint(a: Box, b: Box) -> bool:
    return a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def _apart(box: Box, gap: float) -> Box:
    """The box drawn back by half the gap from the frame's middle lines where it ends there."""
    left, top, right, bottom = box
    half = gap / 2
    return (
        left + half * (left == 0.5),
        top + half * (top == 0.5),
        right - half * (right == 0.5),
        bottom - half * (bottom == 0.5),
    )


def outline(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Normalised corners of the pixels that span a mask's convex hull: float64 (N, 2)."""
    left, top, right, bottom = geometry.window_of(mask)
    contours, _ = cv2.findContours(
        mask[top:bottom, left:right].view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE,
        offset=(left, top),
    )  # fmt: skip
    hull = cv2.convexHull(np.concatenate(contours))[:, 0].astype(np.float64)
    corners = np.concatenate([hull + offset for offset in np.ndindex(2, 2)])
    return corners / (mask.shape[1], mask.shape[0])


def place(
    points: NDArray[np.float64],
    box: Box,
    size: int,
    *,
    scale: tuple[float, float],
    rotation: float,
    ratio: tuple[float, float],
    ratio_steps: int,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Draw the map of one object into a box of the background.

    The object is scaled along x and y independently, rotated, scaled so that its bounding box fits
    the box times a ratio, and put down where it fits whole, uniformly.

    Args:
        points: normalised source points that span the object's hull, (N, 2).
        box: normalised, in the target.
        size: side of both images in pixels; angles are angles of pixels.
        scale: limits of the independent scales.
        rotation: largest rotation in degrees, to either side.
        ratio, ratio_steps: limits and number of the ratios; the k-th is drawn with a probability
            proportional to exp(-k / ratio_steps), so that small ones are favoured.
        rng: draws everything.

    Returns:
        target_from_source: float64 (3, 3) in normalised coordinates.
    """
    stretch = geometry.scaling(*rng.uniform(*scale, size=2))
    turn = geometry.rotation(rng.uniform(-rotation, rotation))
    shape = turn @ stretch
    spanned = geometry.transform_points(shape, points * size)
    low, high = spanned.min(axis=0), spanned.max(axis=0)
    room = np.array([box[2] - box[0], box[3] - box[1]]) * size
    weights = np.exp(-np.arange(ratio_steps) / ratio_steps)
    drawn = rng.choice(np.linspace(*ratio, ratio_steps), p=weights / weights.sum())
    zoom = drawn * float(np.min(room / (high - low)))
    corner = np.array(box[:2]) * size + rng.uniform(size=2) * (room - zoom * (high - low))
    moved = geometry.translation(*(corner - zoom * low)) @ geometry.scaling(zoom, zoom) @ shape
    return geometry.scaling(1 / size, 1 / size) @ moved @ geometry.scaling(size, size)
