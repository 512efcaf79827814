"""What the correspondence graph holds: its leading eigenvector, and groups of matches that agree.

A collection with several repeated motifs gives several groups. They are found by recursive
normalised cuts (Shi and Malik, PAMI 2000), the number of groups by where a cut would cost too much.
Cuts go between regions, the connected pieces of what a pair shares, and never through one: a large
motif is a wide mesh of cells that could be halved at little cost. Where many images have the same
few partners, the pairs of each partner hang together more than with the rest; groups that lie at
the same places of the same images are one again.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import eigsh
from scipy.spatial import cKDTree

from segswap.discovery.graph import Nodes
from segswap.discovery.settings import LEAST_IMAGES

CUT = 0.6  # of the maximum: what counts as foreground
FAINT = 1e-12  # of the maximum: what is no more than rounding
MOST_CUT = 0.2  # normalised cut, 0 to 2, up to which a group is two
_TOUCHING = 2.0  # cells along each axis, between neighbouring matches of one region
_DENSE = 200  # rows, up to which a matrix is decomposed whole

Array = NDArray[np.float32]


def leading_eigenvector(graph: csr_matrix) -> tuple[float, Array]:
    """The largest eigenvalue of a symmetric matrix and its eigenvector.

    The eigenvector's sign is the one whose indicator, of the entries above CUT times the largest,
    has the larger energy x^T A x / |x|^2. The same matrix gives the same vector each time.

    It is computed in double precision: far from the nodes that agree most it is small by many
    orders of magnitude, and still tells the cells of an image there apart.

    Returns:
        value, float32 (N,) of length 1; 0 and zeros for a matrix without entries.
    """
    count = graph.shape[0]
    if not graph.nnz:
        return 0.0, np.zeros(count, np.float32)
    precise = graph.astype(np.float64)
    if count <= _DENSE:
        values, vectors = np.linalg.eigh(precise.toarray())
        value, vector = values[-1], vectors[:, -1]
    else:
        values, vectors = eigsh(precise, k=1, which="LA", v0=np.ones(count), tol=0)
        value, vector = values[0], vectors[:, 0]
    energies = [_energy(precise, sign * vector) for sign in (1, -1)]
    return float(value), (vector if energies[0] >= energies[1] else -vector).astype(np.float32)


def _energy(graph: csr_matrix, vector: NDArray) -> float:
    chosen = (vector > CUT * vector.max()).astype(np.float64)
    return float(chosen @ (graph @ chosen)) / max(float(chosen.sum()), 1.0)


def image_maps(nodes: Nodes, values: Array, rows: int, columns: int) -> dict[int, Array]:
    """Values of nodes, summed in every image over the nodes at each cell.

    Args:
        values: float32 (N,), of each node; what is below 0 counts as 0.
        rows, columns: of the grid.

    Returns:
        By image number: float32 (rows, columns). Images all of whose cells have less than FAINT
        times the largest value of any image are left out.
    """
    images, code = np.unique(nodes.images.ravel(), return_inverse=True)
    maps = np.zeros((len(images), rows, columns), np.float32)
    cells = np.floor(nodes.places.reshape(-1, 2)).astype(np.intp)
    column, row = cells[:, 0].clip(0, columns - 1), cells[:, 1].clip(0, rows - 1)
    np.add.at(maps, (code.ravel(), row, column), np.repeat(values.clip(0), 2))
    peaks = maps.max(axis=(1, 2), initial=0)
    bright = np.flatnonzero((peaks > 0) & (peaks >= FAINT * peaks.max(initial=0)))
    return {int(images[number]): maps[number] for number in bright}


def groups_of(
    graph: csr_matrix, nodes: Nodes, least_images: int = LEAST_IMAGES, most_cut: float = MOST_CUT
) -> list[NDArray[np.intp]]:
    """Groups of nodes that agree with each other and not with the others.

    Args:
        graph: the correspondence graph.
        nodes: its nodes.
        least_images: groups of fewer images are dropped.
        most_cut: the normalised cut up to which a group is divided.

    Returns:
        Rising numbers of the nodes of each group; some are in none.
    """
    if not len(nodes):
        return []
    region = _regions(nodes)
    count = int(region.max()) + 1
    member = csr_matrix(
        (np.ones(len(nodes), np.float32), (np.arange(len(nodes)), region)), (len(nodes), count)
    )
    contracted = csr_matrix(member.T @ (graph @ member)).astype(np.float64)
    images = np.zeros((count, 2), np.int32)
    images[region] = nodes.images
    found = []
    for group in _divided(contracted, images, least_images, most_cut):
        chosen = np.zeros(count, bool)
        chosen[group] = True
        found.append(np.flatnonzero(chosen[region]))
    return _united(found, nodes)


def _regions(nodes: Nodes) -> NDArray[np.intp]:
    """Which connected piece of its pair each node belongs to: int (N,), from 0."""
    # Pairs lie far apart along a fifth axis.
    apart = 1e4 * nodes.links[:, None].astype(np.float64)
    places = np.concatenate([nodes.places.reshape(-1, 4), apart], axis=1)
    near = cKDTree(places).query_pairs(_TOUCHING, p=np.inf, output_type="ndarray")
    touching = coo_matrix((np.ones(len(near), bool), (near[:, 0], near[:, 1])), (len(nodes),) * 2)
    return connected_components(touching, directed=False)[1].astype(np.intp)


def _divided(
    weights: csr_matrix, images: NDArray[np.int32], least_images: int, most_cut: float
) -> Iterator[NDArray[np.intp]]:
    """Groups of regions of at least so many images, divided as long as that is cheap."""
    waiting = [np.arange(weights.shape[0])]
    while waiting:
        part = waiting.pop()
        if len(np.unique(images[part])) < least_images:
            continue
        inside = csr_matrix(weights[part][:, part])
        pieces, piece = connected_components(inside, directed=False)
        if pieces > 1:
            order = np.argsort(piece, kind="stable")
            bounds = np.flatnonzero(np.diff(piece[order])) + 1
            waiting.extend(part[some] for some in np.split(order, bounds)[::-1])
            continue
        cost, first = _cheapest_cut(inside)
        if cost > most_cut:
            yield part
        else:
            waiting += [part[~first], part[first]]


def _united(groups: list[NDArray[np.intp]], nodes: Nodes) -> list[NDArray[np.intp]]:
    """The groups, those that lie at the same places put together.

    Two groups agree on an image where half of the cells of the one in it are also the
    other's, of the one with fewer; they are put together where that is so in two images or more,
    and in half of those that they share.
    """
    held = [_cells(nodes[group]) for group in groups]
    same = np.eye(len(groups), dtype=bool)
    for a, one in enumerate(held):
        for b, two in enumerate(held[:a]):
            agreeing = [
                len(one[image] & two[image]) >= 0.5 * min(len(one[image]), len(two[image]))
                for image in one.keys() & two.keys()
            ]
            same[a, b] = sum(agreeing) >= max(2, 0.5 * len(agreeing))
    count, label = connected_components(csr_matrix(same), directed=False)
    return [
        np.sort(np.concatenate([groups[n] for n in np.flatnonzero(label == number)]))
        for number in range(count)
    ]


def _cells(nodes: Nodes) -> dict[int, set[tuple[int, int]]]:
    """The cells (x, y) that nodes are in, by image."""
    places = np.floor(nodes.places.reshape(-1, 2)).astype(int)
    rows = np.unique(np.column_stack([nodes.images.ravel(), places]), axis=0)
    cells: dict[int, set[tuple[int, int]]] = {}
    for image, x, y in rows.tolist():
        cells.setdefault(image, set()).add((x, y))
    return cells


def _cheapest_cut(weights: csr_matrix) -> tuple[float, NDArray[np.bool_]]:
    """The best normalised cut along the second eigenvector of a connected graph.

    Returns:
        its value, cut / volume of one side + cut / volume of the other, infinite for a graph that
        cannot be cut; and which vertices are on the first side.
    """
    count = weights.shape[0]
    if count < 2:
        return np.inf, np.ones(count, bool)
    volume = np.asarray(weights.sum(axis=1)).ravel()
    scale = 1 / np.sqrt(volume)
    entries = weights.tocoo()
    normalised = csr_matrix(
        (entries.data * scale[entries.row] * scale[entries.col], (entries.row, entries.col)),
        weights.shape,
    )
    if count <= _DENSE:
        second = np.linalg.eigh(normalised.toarray())[1][:, -2]
    else:
        # The first eigenvector is known: another start, so that the second one is in it.
        start = np.sqrt(volume) + np.random.default_rng(0).uniform(-1, 1, count) * volume.mean()
        values, vectors = eigsh(normalised, k=2, which="LA", v0=start, tol=1e-8)
        second = vectors[:, np.argsort(values)[0]]
    order = np.argsort(second * scale, kind="stable")
    rank = np.empty(count, np.intp)
    rank[order] = np.arange(count)
    # Of the first n vertices: all their weights, and those that stay among them.
    total = np.cumsum(volume[order])[:-1]
    later = np.maximum(rank[entries.row], rank[entries.col])
    within = np.cumsum(np.bincount(later, entries.data, count))[:-1]
    cut = total - within
    costs = cut / total + cut / (volume.sum() - total)
    best = int(costs.argmin())
    return float(costs[best]), rank <= best
