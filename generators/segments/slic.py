"""SLIC superpixels (Achanta et al., TPAMI 2012) merged over their region adjacency graph.

Both through scikit-image. What a merge costs is Ward's criterion (J. Amer. Stat. Assoc. 1963): by
how much the squared differences of the pixels from the mean colour of their region grow.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.color import rgb2lab
from skimage.graph import RAG, merge_hierarchical, rag_mean_color
from skimage.segmentation import slic as superpixels

from generators.segments.common.proposer import Proposer, shrunk
from generators.segments.common.regions import Regions

_SUPERPIXELS = 400
# In CIELAB: the root of a merge's cost as a share of the image. Things show at different ones.
_THRESHOLDS = (1.0, 1.6, 2.4, 3.6, 5.4)


class Slic(Proposer):
    """A label map for each of five thresholds up to which superpixels are merged."""

    def regions(
        self, images: Sequence[NDArray[np.uint8]], paths: Sequence[str]
    ) -> list[Iterator[Regions]]:
        """Superpixels that are merged further and further."""
        return [_regions(image) for image in images]


def _regions(image: NDArray[np.uint8]) -> Iterator[Regions]:
    small = shrunk(image)
    labels = superpixels(small, n_segments=_SUPERPIXELS, sigma=1, start_label=0)
    graph = rag_mean_color(rgb2lab(small), labels)
    graph.graph["pixels"] = labels.size
    for one, other in graph.edges:
        graph.edges[one, other].update(_cost(graph, one, one, other))
    # Each goes on where the last one stopped: the graph is changed in place.
    for threshold in _THRESHOLDS:
        merged = merge_hierarchical(
            labels, graph, threshold, rag_copy=False, in_place_merge=True,
            merge_func=_merge, weight_func=_cost,
        )  # fmt: skip
        yield Regions(merged + 1)


def _merge(graph: RAG, source: int, target: int) -> None:
    """Give `target` the colour and the pixels of `source`, which is about to be part of it."""
    node, gone = graph.nodes[target], graph.nodes[source]
    node["total color"] += gone["total color"]
    node["pixel count"] += gone["pixel count"]
    node["mean color"] = node["total color"] / node["pixel count"]


def _cost(graph: RAG, source: int, target: int, neighbour: int) -> dict[str, Any]:
    """The edge between a region and its neighbour."""
    a, b = graph.nodes[target], graph.nodes[neighbour]
    shared = a["pixel count"] * b["pixel count"] / (a["pixel count"] + b["pixel count"])
    difference = np.linalg.norm(a["mean color"] - b["mean color"])
    return {"weight": float(difference * np.sqrt(shared / graph.graph["pixels"]))}
