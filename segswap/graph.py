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
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, csr_matrix

from segswap import geometry
from segswap.links import Links

CONFIDENCE = 0.85  # that a node must have
SIGMA = 1.2  # cells; published: 0.8, 1.2 and 5 by collection
LEAST_WEIGHT = 0.01  # of an edge
MOST_NODES = 400  # of a pair

Array = NDArray[np.float32]
Entries = tuple[NDArray[np.int32], NDArray[np.int32], Array]  # rows, columns, weights


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
            worth = mask[number].ravel().astype(np.float32)
            cells = np.flatnonzero(worth > confidence)
            sides.append((cells, worth[cells], lands[number].reshape(-1, 2)[cells]))
        side = int(len(sides[1][0]) > len(sides[0][0]))
        cells, worth, lands_at = sides[side]
        if len(cells) > most:
            best = np.sort(np.argsort(-worth, kind="stable")[:most])
            cells, worth, lands_at = cells[best], worth[best], lands_at[best]
        places = np.empty((len(cells), 2, 2), np.float32)
        places[:, side], places[:, 1 - side] = centres[cells], lands_at
        parts.append((np.full(len(cells), number, np.int32), places * grid, worth))
    if not parts:
        parts = [(np.zeros(0, np.int32), np.zeros((0, 2, 2), np.float32), np.zeros(0, np.float32))]
    numbers, places, worth = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Nodes(links.pairs[numbers].reshape(-1, 2), numbers, places, worth)


def correspondence_graph(
    nodes: Nodes, links: Links, sigma: float = SIGMA, least: float = LEAST_WEIGHT
) -> csr_matrix:
    """The weights between nodes.

    Of two nodes i and j of one pair:
        m_i m_j exp(-(|x_i^s - x_j^s| + |x_i^t - x_j^t|) / (2 sigma)).
    Of two that have one image a in common, b the other image of i, c that of j:
        m_i m_j exp(-|x_i^a - x_j^a| / sigma)
        (exp(-|x_i^b - C^cb(x_j^c)| / sigma) + exp(-|x_j^c - C^bc(x_i^b)| / sigma)) / 2,
    C^bc the matches of b in c, bilinear between cells; nothing where b and c were not matched.
    Distances are in cells. No node has an edge to itself.

    Nodes of two links are compared where the links have an image in common and lie near each other
    in it, at most MOST_NODES of the one with as many of the other at a time. The matrix takes 8
    bytes for each of its entries, and 20 while it is built.

    Args:
        nodes: the graph's nodes.
        links: all matched pairs, not only those that the nodes are of.
        sigma: how far matches may be off and still agree, in cells.
        least: weights below are left out.

    Returns:
        float32 (N, N), symmetric, with int32 indices.
    """
    if not len(nodes):
        return csr_matrix((0, 0), dtype=np.float32)
    largest = int(np.bincount(nodes.links).max())

    def edges(star: _Star) -> list[Entries]:
        # What is computed with; fresh memory for each pair of links would cost as much again.
        memory = np.empty((4, largest**2), np.float32)
        every = (star.edges(k, links, sigma, least, memory) for k in range(len(star.link)))
        return [entries for found in every for entries in found if len(entries[0])]

    parts = list(_within_pairs(nodes, sigma, least, np.empty((4, largest**2), np.float32)))
    with ThreadPoolExecutor(os.cpu_count()) as threads:  # NumPy's loops run side by side
        parts += chain.from_iterable(threads.map(edges, _stars(nodes, links)))
    rows, columns, weights = [], [], []
    while parts:
        row, column, weight = parts.pop()
        rows += [row, column]
        columns += [column, row]
        weights += [weight, weight]
    empty = np.zeros(0, np.int32)
    matrix = coo_matrix(
        (
            np.concatenate([*weights, empty.astype(np.float32)]),
            (np.concatenate([*rows, empty]), np.concatenate([*columns, empty])),
        ),
        shape=(len(nodes), len(nodes)),
    )
    # Every edge is found once: without this, as much time again goes into looking for others.
    matrix.has_canonical_format = True
    del rows, columns, weights
    return matrix.tocsr()


def _within_pairs(nodes: Nodes, sigma: float, least: float, memory: Array) -> Iterator[Entries]:
    """Edges between nodes of one pair."""
    starts = np.flatnonzero(np.diff(nodes.links, prepend=-1))
    for first, last in zip(starts, np.append(starts[1:], len(nodes)), strict=True):
        places, confidence = nodes.places[first:last] / (2 * sigma), nodes.confidence[first:last]
        weights, other, spare, _ = _views(memory, last - first, last - first)
        _distances(places[:, 0], places[:, 0], weights, spare)
        _distances(places[:, 1], places[:, 1], other, spare)
        weights += other
        np.exp(np.negative(weights, out=weights), out=weights)
        weights *= confidence[:, None] * confidence
        i, j = np.nonzero(np.triu(weights >= least, 1))
        yield (first + i).astype(np.int32), (first + j).astype(np.int32), weights[i, j]


def _stars(nodes: Nodes, links: Links) -> Iterator["_Star"]:
    """The nodes of each image."""
    table = _LinkTable(links)
    ends = nodes.images.ravel()  # of node n: at 2 n its source, at 2 n + 1 its target
    order = np.argsort(ends, kind="stable")
    starts = np.flatnonzero(np.diff(ends[order], prepend=-1))
    for at in np.split(order, starts[1:]):
        number, role = at // 2, at % 2
        others, code = np.unique(nodes.images[number, 1 - role], return_inverse=True)
        sort = np.argsort(code, kind="stable")
        number, role, code = number[sort], role[sort], code[sort]
        yield _Star(
            number.astype(np.int32), nodes.places[number, role], nodes.places[number, 1 - role],
            nodes.confidence[number], code, *table.between(others),
        )  # fmt: skip


@dataclass(frozen=True)
class _Star:
    """The nodes of one image, and the links between the images at their other ends.

    Attributes:
        number: int32 (n,), of the nodes.
        here: float32 (n, 2), where they are in the image, in cells.
        there: float32 (n, 2), where they are in the other image, in cells.
        confidence: float32 (n,).
        code: int (n,), rising, which of the K other images that is.
        link: int (K, K), the link between two other images; -1 where there is none.
        side: int (K, K), 0 where the first of the two is the link's source, 1 its target.
    """

    number: NDArray[np.int32]
    here: Array
    there: Array
    confidence: Array
    code: NDArray[np.intp]
    link: NDArray[np.intp]
    side: NDArray[np.intp]

    def edges(
        self, k: int, links: Links, sigma: float, least: float, memory: Array
    ) -> Iterator[Entries]:
        """Edges between the nodes with the k-th other image and those with a later one."""
        bounds = np.searchsorted(self.code, np.arange(k, len(self.link) + 1))
        own, later = slice(bounds[0], bounds[1]), slice(bounds[1], None)
        known = k + 1 + np.flatnonzero(self.link[k, k + 1 :] >= 0)
        if not len(known):
            return
        code = self.code[later]
        back = _carried(links, self.link[code, k], self.side[code, k], self.there[later])
        count = own.stop - own.start
        link, side = np.repeat(self.link[k, known], count), np.repeat(self.side[k, known], count)
        forth = _carried(links, link, side, np.tile(self.there[own], (len(known), 1)))
        for late, ahead in zip(known, forth.reshape(len(known), count, 2), strict=True):
            other = slice(bounds[late - k], bounds[late - k + 1])
            behind = back[other.start - later.start : other.stop - later.start]
            yield self._block(own, other, ahead, behind, sigma, least, memory)

    def _block(
        self, own: slice, other: slice, ahead: Array, behind: Array, sigma: float, least: float,
        memory: Array,
    ) -> Entries:  # fmt: skip
        """Edges between the nodes of two links.

        Args:
            ahead: where `own` lies in the other image of `other`, (n, 2) in cells.
            behind: where `other` lies in the other image of `own`, (m, 2) in cells.
        """
        reach = -sigma * np.log(least)
        i = own.start + np.flatnonzero(_near(self.here[own], self.here[other], reach))
        j = other.start + np.flatnonzero(_near(self.here[other], self.here[own], reach))
        if not len(i) or not len(j):
            return self.number[i[:0]], self.number[j[:0]], self.confidence[:0]
        scale = np.float32(1 / sigma)
        here, weights, other_way, spare = _views(memory, len(i), len(j))
        _distances(self.here[i] * scale, self.here[j] * scale, here, spare)
        np.subtract(np.log(self.confidence[i] / 2)[:, None], here, out=here)
        here += np.log(self.confidence[j])
        _closeness(here, self.there[i], behind[j - other.start], scale, weights, spare)
        _closeness(here, ahead[i - own.start], self.there[j], scale, other_way, spare)
        weights += other_way
        flat = np.flatnonzero(weights >= least)
        row, column = np.divmod(flat.astype(np.int32), np.int32(len(j)))
        return self.number[i][row], self.number[j][column], weights.ravel()[flat]


class _LinkTable:
    """Finds the link between two images."""

    def __init__(self, links: Links) -> None:
        self._base = int(links.pairs.max(initial=0)) + 1
        keys = links.pairs[:, 0].astype(np.int64) * self._base + links.pairs[:, 1]
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]

    def between(self, images: NDArray[np.int32]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Links between any two of K images, rising: see _Star."""
        low, high = np.minimum.outer(images, images), np.maximum.outer(images, images)
        keys = low.astype(np.int64) * self._base + high
        at = np.searchsorted(self._keys, keys).clip(max=max(len(self._keys) - 1, 0))
        link = np.where(self._keys[at] == keys, self._order[at], -1)
        return link, (images[:, None] > images[None, :]).astype(np.intp)


def _carried(links: Links, link: NDArray[np.intp], side: NDArray[np.intp], places: Array) -> Array:
    """Places of one image in another one, by the links between them: float32 (n, 2) in cells.

    Bilinear between the centres of cells, continued linearly to the frame.

    Args:
        link: (n,), the link of each place.
        side: (n,), 0 where the place is in the link's source.
        places: (n, 2) in cells.
    """
    rows, columns = links.source_mask.shape[1:]
    carried = np.empty_like(places)
    for which, maps in enumerate((links.to_target, links.to_source)):
        chosen = np.flatnonzero(side == which)
        x, y = places[chosen, 0] - 0.5, places[chosen, 1] - 0.5
        column = np.floor(x).clip(0, max(columns - 2, 0)).astype(np.intp)
        row = np.floor(y).clip(0, max(rows - 2, 0)).astype(np.intp)
        right, below = np.minimum(column + 1, columns - 1), np.minimum(row + 1, rows - 1)
        u, v = (x - column)[:, None], (y - row)[:, None]
        pick = link[chosen]
        upper = (1 - u) * maps[pick, row, column] + u * maps[pick, row, right]
        lower = (1 - u) * maps[pick, below, column] + u * maps[pick, below, right]
        carried[chosen] = (1 - v) * upper + v * lower
    return carried * np.array([columns, rows], np.float32)


def _near(places: Array, others: Array, reach: float) -> NDArray[np.bool_]:
    """Which of the places (n, 2) are no farther, along each axis, from the others' bounding box."""
    low, high = others.min(axis=0) - reach, others.max(axis=0) + reach
    return ((places >= low) & (places <= high)).all(axis=1)


def _views(memory: Array, rows: int, columns: int) -> list[Array]:
    """Arrays (rows, columns) in one piece of memory each."""
    return [part[: rows * columns].reshape(rows, columns) for part in memory]


def _distances(one: Array, two: Array, out: Array, spare: Array) -> None:
    """Between all of (n, 2) and all of (m, 2), into `out` (n, m)."""
    np.subtract(one[:, 0, None], two[:, 0], out=out)
    np.subtract(one[:, 1, None], two[:, 1], out=spare)
    np.square(out, out=out)
    np.square(spare, out=spare)
    np.add(out, spare, out=out)
    np.sqrt(out, out=out)


def _closeness(
    here: Array, one: Array, two: Array, scale: np.float32, out: Array, spare: Array
) -> None:
    """exp(here - distance) of all of (n, 2) and all of (m, 2), into `out`; 0 where a place is not
    known.
    """
    known, also = (np.where(np.isfinite(p), p * scale, far)
                   for p, far in ((one, np.inf), (two, -np.inf)))  # fmt: skip
    _distances(known, also, out, spare)
    np.subtract(here, out, out=out)
    np.exp(out, out=out)
