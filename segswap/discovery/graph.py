"""The correspondence graph of a collection: which matches of which pairs agree with each other.

Its nodes are single matches, a cell of one image and its place in another. Matches of one pair
agree where they are near each other in both images, matches of two pairs that have an image in
common where the third side of the triangle, the match between the two other images, closes it
(Shen et al., arXiv 2110.15904, section 4.3).
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from segswap import geometry
from segswap.discovery import edges
from segswap.discovery.links import Links
from segswap.discovery.settings import CONFIDENCE, SIGMA

LEAST_WEIGHT = 0.01  # of an edge
MOST_NODES = 400  # of a pair
MOST_ENTRIES = 2**28  # of a graph, 8 bytes each
_LEAST_NODES = 25  # of a pair, down to which a graph is made smaller
_PARTS = 8  # of the work, for each thread

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Nodes:
    """Matches of single cells.

    Attributes:
        images: int32 (N, 2), numbers of source and target.
        links: int32 (N,), numbers of the links that they come from, rising.
        places: float32 (N, 2, 2), where they are in source and target: x, y in cells of the grid,
            0 to its width and height.
        confidence: float32 (N,) in [0, 1].
    """

    images: NDArray[np.int32]
    links: NDArray[np.int32]
    places: Array
    confidence: Array

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, chosen: NDArray) -> "Nodes":
        return Nodes(*(getattr(self, field.name)[chosen] for field in fields(self)))


def nodes_of(
    links: Links, kept: NDArray[np.intp], confidence: float = CONFIDENCE, most: int = MOST_NODES
) -> Nodes:
    """The nodes of some links: the cells of that image of each pair in which more of them are
    confident, and where they go.

    Args:
        kept: numbers of the links, rising.
        confidence: the least value of the consistent mask, exclusive.
        most: nodes of a pair; of more, the most confident ones are taken. Two pairs with an image
            in common give the graph most^2 edges at most.
    """
    rows, columns = links.source_mask.shape[1:]
    grid = np.array([columns, rows], np.float32)
    centres = geometry.cell_centres(rows, columns).reshape(-1, 2).astype(np.float32)
    parts = []
    for number in kept.tolist():
        sides = []
        for mask, lands in ((links.source_mask, links.to_target),
                            (links.target_mask, links.to_source)):  # fmt: skip
            values = mask[number].ravel().astype(np.float32)
            cells = np.flatnonzero(values > confidence)
            sides.append((cells, values[cells], lands[number].reshape(-1, 2)[cells]))
        side = int(len(sides[1][0]) > len(sides[0][0]))
        cells, values, lands_at = sides[side]
        if len(cells) > most:
            best = np.sort(np.argsort(-values, kind="stable")[:most])
            cells, values, lands_at = cells[best], values[best], lands_at[best]
        places = np.empty((len(cells), 2, 2), np.float32)
        places[:, side], places[:, 1 - side] = centres[cells], lands_at
        parts.append((np.full(len(cells), number, np.int32), places * grid, values))
    if not parts:
        parts = [(np.zeros(0, np.int32), np.zeros((0, 2, 2), np.float32), np.zeros(0, np.float32))]
    numbers, places, values = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Nodes(links.pairs[numbers].reshape(-1, 2), numbers, places, values)


def correspondence_graph(
    nodes: Nodes, links: Links, sigma: float = SIGMA, least: float = LEAST_WEIGHT
) -> csr_matrix:
    """The weights between nodes.

    Of two nodes i and j of one pair:
        m_i m_j exp(-(|x_i^s - x_j^s| + |x_i^t - x_j^t|) / (2 sigma)).
    Of two that have one image a in common, b the other image of i, c that of j:
        m_i m_j exp(-|x_i^a - x_j^a| / sigma)
        (exp(-|x_i^b - C^cb(x_j^c)| / sigma) + exp(-|x_j^c - C^bc(x_i^b)| / sigma)) / 2,
    C^bc the matches of b in c, see `warp_points`; nothing where b and c were not matched.
    Distances are in cells. No node has an edge to itself.

    Args:
        nodes: the graph's nodes.
        links: all matched pairs, not only those that the nodes are of.
        sigma: how far matches may be off and still agree, in cells.
        least: weights below are left out.

    Returns:
        float32 (N, N), symmetric, with int32 indices.
    """
    return _Graph(nodes, links, sigma, least).matrix()


def graph_of(
    links: Links, kept: NDArray[np.intp], confidence: float = CONFIDENCE, sigma: float = SIGMA,
    most_entries: int = MOST_ENTRIES,
) -> tuple[Nodes, csr_matrix]:  # fmt: skip
    """The nodes of some links and their graph, of as many nodes a pair as memory allows.

    Of pairs that share much, the most confident MOST_NODES nodes are taken, and fewer, though not
    fewer than 25, where the graph would have more than `most_entries` entries.

    Args:
        links: all matched pairs.
        kept: numbers of the links that get nodes, rising.
        confidence: see `nodes_of`.
        sigma: see `correspondence_graph`.

    Returns:
        The nodes, and their weights: see `correspondence_graph`.
    """
    most = MOST_NODES
    while True:
        nodes = nodes_of(links, kept, confidence, most)
        graph = _Graph(nodes, links, sigma, LEAST_WEIGHT)
        if graph.entries <= most_entries or most == _LEAST_NODES:
            return nodes, graph.matrix()
        # Entries grow with the square of the nodes of a pair, or less.
        most = max(_LEAST_NODES, int(most * (most_entries / graph.entries) ** 0.5))


class _Graph:
    """A graph whose edges are counted before they are held; see `correspondence_graph`."""

    def __init__(self, nodes: Nodes, links: Links, sigma: float, least: float) -> None:
        numbers, first = np.unique(nodes.links, return_index=True)
        self._starts = np.append(first, len(nodes)).astype(np.int64)
        self._blocks, self._begins, self._links = _blocks(links, numbers, np.diff(self._starts))
        third = self._blocks[:, edges.THIRD]
        used, at = np.unique(third[third >= 0], return_inverse=True)
        third[third >= 0] = at
        rows, columns = links.source_mask.shape[1:]
        moves = np.stack([links.to_target[used], links.to_source[used]]).astype(np.float32)
        moves -= geometry.cell_centres(rows, columns).astype(np.float32)
        moves *= np.array([columns, rows], np.float32)
        pixels = geometry.to_pixels(nodes.places / (columns, rows), columns, rows)
        places = np.ascontiguousarray(pixels.transpose(1, 2, 0), np.float32)
        self._given = (
            self._starts, places, nodes.confidence, moves, np.float32(sigma), np.float32(least)
        )  # fmt: skip

    @cached_property
    def _counts(self) -> NDArray[np.int64]:
        """Edges of the nodes of each block's links, those of one node in one block together."""
        counts = np.zeros(self._begins[-1], np.int64)
        self._visit(counts, np.empty(0, np.int32), np.empty(0, np.float32))
        return counts

    @property
    def entries(self) -> int:
        """How many weights there are, each edge's twice."""
        return int(self._counts.sum())

    def matrix(self) -> csr_matrix:
        """The weights, float32 (N, N)."""
        count = int(self._starts[-1])
        degrees = np.zeros(count, np.int64)
        for nodes, counts in self._of_links(self._counts):
            degrees[nodes] = counts.sum(axis=0)
        pointers = np.append(0, np.cumsum(degrees))
        places = self._counts.copy()
        for nodes, counts in self._of_links(places):
            # In a row, the nodes of one link come after those of the link before.
            counts[...] = np.cumsum(counts, axis=0) - counts + pointers[nodes]
        indices = np.empty(pointers[-1], np.int32)
        weights = np.empty(pointers[-1], np.float32)
        self._visit(places, indices, weights)
        return csr_matrix((weights, indices, pointers), shape=(count, count))

    def _of_links(self, counters: NDArray[np.int64]) -> Iterator[tuple[slice, NDArray[np.int64]]]:
        """The nodes of each link, and what is counted of them, (blocks, nodes)."""
        bounds = np.searchsorted(self._links, np.arange(len(self._starts)))
        for link, (first, last) in enumerate(pairwise(bounds)):
            nodes = slice(self._starts[link], self._starts[link + 1])
            own = counters[self._begins[first] : self._begins[last]]
            yield nodes, own.reshape(last - first, nodes.stop - nodes.start)

    def _visit(
        self, counters: NDArray[np.int64], indices: NDArray[np.int32], weights: Array
    ) -> None:
        threads = os.cpu_count() or 1
        parts = [self._blocks[n :: _PARTS * threads] for n in range(_PARTS * threads)]
        with ThreadPoolExecutor(threads) as pool:
            jobs = [
                pool.submit(edges.visit, part, *self._given, counters, indices, weights)
                for part in parts
            ]
            for job in jobs:
                job.result()


def _blocks(
    links: Links, numbers: NDArray[np.int32], sizes: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Which links are compared, and where their nodes are counted.

    Args:
        numbers: (K,), of the links that have nodes, rising.
        sizes: (K,), how many nodes each has.

    Returns:
        The table of blocks, see `segswap.discovery.edges`: every link with itself, and with those
        that have an image in common with it and a link from their other image to its own. Where the
        counters of each two links begin, ordered by the first and then by the second, and the end
        of all.
        The first of each two.
    """
    table = _LinkTable(links)
    own = np.zeros((len(numbers), 6), np.int64)
    own[:, edges.P] = own[:, edges.Q] = np.arange(len(numbers))
    own[:, edges.THIRD] = -1
    parts = [own]
    ends = links.pairs[
        numbers
    ].ravel()  # of the k-th link: at 2 k its source, at 2 k + 1 its target
    order = np.argsort(ends, kind="stable")
    for at in np.split(order, np.flatnonzero(np.diff(ends[order])) + 1):
        p, q = (at[n] for n in np.triu_indices(len(at), 1))
        from_, to = ends[p ^ 1], ends[q ^ 1]
        third = table.between(from_, to)
        block = np.column_stack([p // 2, q // 2, p % 2, q % 2, third, from_ > to])
        parts.append(block[third >= 0])
    blocks = np.concatenate(parts)
    p, q = blocks[:, edges.P], blocks[:, edges.Q]
    across = np.flatnonzero(p != q)
    firsts, seconds = np.append(p, q[across]), np.append(q, p[across])
    order = np.lexsort((seconds, firsts))
    begins = np.append(0, np.cumsum(sizes[firsts[order]]))
    of = np.empty(len(order), np.int64)
    of[order] = begins[:-1]
    of_q = of[: len(blocks)].copy()
    of_q[across] = of[len(blocks) :]
    return np.column_stack([blocks, of[: len(blocks)], of_q]), begins, firsts[order]


class _LinkTable:
    """Finds the link between two images."""

    def __init__(self, links: Links) -> None:
        self._base = int(links.pairs.max(initial=0)) + 1
        keys = links.pairs[:, 0].astype(np.int64) * self._base + links.pairs[:, 1]
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]

    def between(self, one: NDArray[np.int32], two: NDArray[np.int32]) -> NDArray[np.intp]:
        """Numbers of the links between images; -1 where there is none."""
        keys = np.minimum(one, two).astype(np.int64) * self._base + np.maximum(one, two)
        at = np.searchsorted(self._keys, keys).clip(max=max(len(self._keys) - 1, 0))
        return np.where(self._keys[at] == keys, self._order[at], -1)
