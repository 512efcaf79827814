"""Building the correspondence graph of a collection, against the published way written plainly.

Made correspondences: every image shows one motif at a place and scale of its own, so that all pairs
are matched, and each image keeps its best partners; matches are off by a noise of a third of a
cell. The published program (evalInt/FullGraph3Cycle.py of Shen et al.) loops over all links, and
over all pairs of links that have an image in common, and computes the weights of all nodes of the
one with all nodes of the other as arrays; so do the functions named plain, with matches
interpolated between cells as in this package. They are timed on every so many of the pairs of
links, and the time scaled; on these, both must give the same weights. A further row is the same
with loops over the nodes too.

    python benchmarks/graph_speed.py
    python benchmarks/graph_speed.py --images 100 --part 5
"""

import argparse
import math
import resource
import time
from collections.abc import Iterator
from itertools import combinations

import measuring
import numpy as np
from numpy.typing import NDArray

from segswap import geometry
from segswap.discovery.graph import LEAST_WEIGHT, Nodes, correspondence_graph, nodes_of
from segswap.discovery.links import Links, best_partners
from segswap.discovery.settings import SIGMA
from segswap.models.prediction import warp_points

GRID = 30
Block = tuple[int, int, NDArray[np.float64]]  # first node of rows and of columns, weights


def made_links(images: int, seed: int = 0) -> Links:
    """All pairs of images of one motif."""
    rng = np.random.default_rng(seed)
    centres = geometry.cell_centres(GRID, GRID)
    placed = []
    for scale in rng.uniform(0.3, 0.5, images):
        x, y = rng.uniform(0, 1 - scale, 2)
        placed.append(geometry.translation(x, y) @ geometry.scaling(scale, scale))
    inside = [
        geometry.inside(geometry.transform_points(np.linalg.inv(matrix), centres))
        for matrix in placed
    ]
    pairs = list(combinations(range(images), 2))
    shape = (len(pairs), GRID, GRID)
    maps = [np.empty((*shape, 2), np.float16) for _ in range(2)]
    masks = [np.empty(shape, np.float16) for _ in range(2)]
    for number, (a, b) in enumerate(pairs):
        for side, (start, end) in enumerate(((a, b), (b, a))):
            matrix = placed[end] @ np.linalg.inv(placed[start])
            noise = rng.normal(0, 0.33 / GRID, (GRID, GRID, 2))
            maps[side][number] = geometry.transform_points(matrix, centres) + noise
            masks[side][number] = inside[start] * rng.uniform(0.9, 1, (GRID, GRID))
    return Links(np.array(pairs, np.int32), np.zeros(len(pairs), bool), *maps, *masks)


def distances(one: NDArray, two: NDArray) -> NDArray[np.float64]:
    """Between all of (N, 2) and all of (M, 2): (N, M)."""
    difference = one[:, None].astype(np.float64) - two[None, :]
    return np.sum(difference**2, axis=2) ** 0.5


def plain_within(nodes: Nodes, sigma: float) -> Iterator[Block]:
    """Weights between the nodes of each link."""
    for number in np.unique(nodes.links):
        own = np.flatnonzero(nodes.links == number)
        places, confidence = nodes.places[own], nodes.confidence[own].astype(np.float64)
        apart = sum(distances(places[:, side], places[:, side]) for side in (0, 1))
        weights = np.exp(-apart / (2 * sigma)) * confidence[:, None] * confidence[None, :]
        np.fill_diagonal(weights, 0)
        yield own[0], own[0], weights


def plain_across(nodes: Nodes, links: Links, sigma: float, part: int) -> Iterator[Block]:
    """Weights between the nodes of every `part`-th pair of links that have an image in common."""
    where = {tuple(pair): number for number, pair in enumerate(links.pairs.tolist())}
    starts = {int(n): np.flatnonzero(nodes.links == n) for n in np.unique(nodes.links)}

    def carried(image: int, other: int, places: NDArray) -> NDArray[np.float64]:
        there = (image, other) in where
        number = where[(image, other) if there else (other, image)]
        maps = links.to_target if there else links.to_source
        return warp_points(maps[number], places / GRID) * GRID

    count = 0
    for first, second in combinations(starts, 2):
        one, two = links.pairs[first].tolist(), links.pairs[second].tolist()
        common = set(one) & set(two)
        if not common:
            continue
        count += 1
        if count % part:
            continue
        a, b = one.index(*common), two.index(*common)
        i, j = starts[first], starts[second]
        x, y = nodes.places[i], nodes.places[j]
        u, v = x[:, 1 - a], y[:, 1 - b]
        weights = np.exp(-distances(x[:, a], y[:, b]) / sigma)
        back = np.exp(-distances(u, carried(two[1 - b], one[1 - a], v)) / sigma)
        forth = np.exp(-distances(carried(one[1 - a], two[1 - b], u), v) / sigma)
        confidence = nodes.confidence.astype(np.float64)
        weights = weights * (back + forth) * 0.5 * confidence[i][:, None] * confidence[j][None, :]
        yield i[0], j[0], weights


def seconds_by_nodes(nodes: Nodes, sigma: float, pairs: int = 100_000) -> float:
    """Seconds that one pair of nodes takes where Python loops over them; of the shortest formula,
    that of nodes of one link.
    """
    places, confidence = nodes.places.tolist(), nodes.confidence.tolist()
    count = int(pairs**0.5)
    found = []
    start = time.perf_counter()
    for i in range(count):
        for j in range(count):
            (a, b), (c, d) = places[i], places[j]
            apart = math.dist(a, c) + math.dist(b, d)
            weight = confidence[i] * confidence[j] * math.exp(-apart / (2 * sigma))
            if weight > LEAST_WEIGHT:
                found.append((i, j, weight))
    return (time.perf_counter() - start) / count**2


def entries(blocks: Iterator[Block]) -> tuple[NDArray, NDArray, NDArray]:
    """Rows, columns and values of what is kept of the blocks."""
    parts = []
    for first, second, weights in blocks:
        rows, columns = np.where(weights > LEAST_WEIGHT)
        parts.append((rows + first, columns + second, weights[rows, columns]))
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))  # type: ignore[return-value]


def node_pairs(nodes: Nodes) -> int:
    """How many pairs of nodes of one link, or of links with an image in common, there are."""
    of_image = np.bincount(nodes.images.ravel()).astype(np.int64)
    of_link = np.bincount(nodes.links).astype(np.int64)
    # A pair of one link is counted in both of its images.
    return int((of_image**2).sum() - (of_link**2).sum()) // 2


def main() -> None:
    """Print times and their ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--part", type=int, default=10, help="time every so many pairs of links")
    parser.add_argument("--sigma", type=float, default=SIGMA, help="in cells")
    given = parser.parse_args()
    links = made_links(given.images)
    kept = best_partners(links)
    nodes = nodes_of(links, kept)
    times = []
    for _ in range(3):
        taken, graph = measuring.timed(lambda: correspondence_graph(nodes, links, given.sigma))
        times.append(taken)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    plain, within = measuring.timed(lambda: entries(plain_within(nodes, given.sigma)))
    part, across = measuring.timed(
        lambda: entries(plain_across(nodes, links, given.sigma, given.part))
    )
    plain += part * given.part
    for rows, columns, weights in (within, across):
        found = np.asarray(graph[rows, columns]).ravel()
        missing = (found == 0) & (weights > LEAST_WEIGHT * (1 + 1e-4))
        assert not missing.any(), f"{missing.sum()} edges are missing"
        assert np.allclose(found[found > 0], weights[found > 0], rtol=1e-3)
    size = graph.data.nbytes + graph.indices.nbytes + graph.indptr.nbytes
    compared = node_pairs(nodes)
    by_nodes = compared * seconds_by_nodes(nodes, given.sigma)
    print(f"{given.images} images, {len(kept)} links, {len(nodes)} nodes, {graph.nnz} entries")
    print(f"plain    {plain:8.2f} s, scaled from 1 in {given.part} pairs of links")
    print(f"by nodes {by_nodes:8.2f} s, scaled from 100,000 of {compared} pairs of nodes")
    print(
        f"segswap  {min(times):8.2f} s, best of 3: {plain / min(times):.1f} times as fast as plain "
        f"and {by_nodes / min(times):.0f} times as by nodes"
    )
    print(f"matrix   {size / 2**20:8.0f} MiB; the process at its most {peak:.0f} MiB")


if __name__ == "__main__":
    main()
