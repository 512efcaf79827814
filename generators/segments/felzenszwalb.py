"""Graph-based regions (Felzenszwalb and Huttenlocher, IJCV 2004), through scikit-image."""

import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import felzenszwalb as graph_based

from generators.segments.proposer import shrunk


def felzenszwalb(image: NDArray[np.uint8], path: str) -> list[NDArray[np.integer]]:
    """One label map."""
    return [graph_based(shrunk(image), scale=300, sigma=0.8, min_size=100) + 1]
