"""Graph-based regions (Felzenszwalb and Huttenlocher, IJCV 2004), through scikit-image."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import felzenszwalb as graph_based

from generators.segments.common.proposer import Proposer, shrunk
from generators.segments.common.regions import Regions


class Felzenszwalb(Proposer):
    """One label map an image."""

    def regions(
        self, images: Sequence[NDArray[np.uint8]], paths: Sequence[str]
    ) -> list[list[Regions]]:
        """The regions of a graph of pixels."""
        return [
            [Regions(graph_based(shrunk(image), scale=300, sigma=0.8, min_size=100) + 1)]
            for image in images
        ]
