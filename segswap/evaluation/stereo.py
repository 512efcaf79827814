"""A real pair with known correspondences: the Motorcycle stereo pair inside scikit-image.

Scharstein et al., "High-resolution stereo datasets with subpixel-accurate ground truth" (GCPR
2014). A pixel (x, y) of the left image is at (x - disparity, y) in the right one.
"""

import numpy as np

from segswap import geometry
from segswap.evaluation.known import Known, KnownPair

_EVERY = 10  # pixels between the points that are judged


def stereo_pair() -> KnownPair:
    """The pair, with the points of the left image whose disparity is known and which the right
    image's frame holds. The disparity says nothing of the other direction.

    Raises:
        ModuleNotFoundError: scikit-image, of the extra `generate`, is not installed.
    """
    from skimage.data import stereo_motorcycle

    left, right, disparity = stereo_motorcycle()
    height, width = disparity.shape
    rows, columns = np.mgrid[_EVERY // 2 : height : _EVERY, _EVERY // 2 : width : _EVERY]
    shift = disparity[rows, columns]
    known = np.isfinite(shift) & (shift > 0) & (columns - shift >= 0)
    start = geometry.to_normalised(np.stack([columns, rows], axis=-1)[known], width, height)
    end = start - np.stack([shift[known] / width, np.zeros(known.sum())], axis=-1)
    return KnownPair("motorcycle", left, right, Known(start, end))
