"""Graph-based regions (Felzenszwalb and Huttenlocher, IJCV 2004), through scikit-image."""

import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import felzenszwalb as graph_based

from segswap import geometry

_SIDE = 256


def felzenszwalb(image: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Label map (H, W) of an RGB image (H, W, 3), regions from 1.

    The regions are found at a longer side of at most 256 px: those sought are large, and the time
    grows with the pixels.
    """
    height, width = image.shape[:2]
    shrink = min(1.0, _SIDE / max(height, width))
    small = geometry.resize(image, max(1, round(width * shrink)), max(1, round(height * shrink)))
    labels = graph_based(small, scale=300, sigma=0.8, min_size=100) + 1
    points = geometry.cell_centres(height, width)
    rows = np.minimum((points[..., 1] * small.shape[0]).astype(int), small.shape[0] - 1)
    columns = np.minimum((points[..., 0] * small.shape[1]).astype(int), small.shape[1] - 1)
    return labels[rows, columns]
