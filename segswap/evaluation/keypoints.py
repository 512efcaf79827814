"""Published lists of keypoints, and the two lengths that their PCK refers to.

A point is right when it is off by at most alpha times the longer side of a reference: the object's
box, or the image after both have been brought to a square (Han et al., "SCNet", ICCV 2017). The two
are not to be compared: the second is the easier one by far.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
SQUARE = 224.0  # pixels of the square's side; the score does not depend on it
ALPHAS = (0.05, 0.10, 0.15)
_PADDING = -1.0  # fills lists of fewer keypoints up to a fixed length


def without_padding(source: ArrayLike, target: ArrayLike) -> tuple[Array, Array]:
    """Keypoints (N, 2) of two images without those that only fill their lists up, -1 in either.

    Before anything is measured: a box around padded points is far too large, which has inflated
    published scores.

    Raises:
        ValueError: the lists differ in length, or are none of points.
    """
    a, b = np.asarray(source, np.float64), np.asarray(target, np.float64)
    if a.shape != b.shape or a.ndim != 2 or a.shape[1] != 2:
        raise ValueError(f"keypoints are {a.shape} and {b.shape}; expected twice (N, 2)")
    there = (a != _PADDING).all(axis=1) & (b != _PADDING).all(axis=1)
    return a[there], b[there]


def box_side(points: ArrayLike) -> float:
    """The longer side of the tight box around points (N, 2); NaN of none."""
    p = np.asarray(points, np.float64)
    return float(np.max(p.max(axis=0) - p.min(axis=0))) if len(p) else float("nan")


def on_square(points: ArrayLike, width: int, height: int) -> Array:
    """Points (N, 2) in an image's pixels, in those of the square that the image is brought to."""
    return np.asarray(points, np.float64) * (SQUARE / width, SQUARE / height)
