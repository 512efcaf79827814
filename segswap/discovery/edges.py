"""The weights of a correspondence graph, compiled: loops over pairs of links, and their nodes.

Each pair of links that has an image in common is a block. Blocks are visited twice: to count the
edges of every node, and to write them to their places in the matrix, which is then never held in
another form. Any number of threads can share the blocks, and the order does not matter: each block
writes to places of its own.
"""

import math
from collections.abc import Callable

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[np.float32]

# Columns of the table of blocks. P and Q are numbers of two links among those with nodes, or twice
# the same; SIDE_P and SIDE_Q are 0 where the image in common is the link's source, 1 its target.
# THIRD is the row in `moves` of the link between the two other images, and FROM 0 where P's is its
# source. At OF_P and OF_Q begin the counters of the nodes of P and Q.
P, Q, SIDE_P, SIDE_Q, THIRD, FROM, OF_P, OF_Q = range(8)

_HALF = np.float32(0.5)


def compiled(function: Callable[..., None]) -> Callable[..., None]:
    """Compile a function when it is first called; the result is kept for later processes, where
    there is a folder that can be written to.
    """
    try:
        return njit(nogil=True, cache=True)(function)
    except RuntimeError:  # neither the package's own folder nor the user's cache
        return njit(nogil=True)(function)


@compiled
def visit(
    blocks: NDArray[np.int64], starts: NDArray[np.int64], places: Array, confidence: Array,
    moves: Array, sigma: np.float32, least: np.float32, counters: NDArray[np.int64],
    indices: NDArray[np.int32], weights: Array,
) -> None:  # fmt: skip
    """Count the edges of blocks, or write them.

    Args:
        blocks: int64 (B, 8), see above.
        starts: int64 (K + 1,), where the nodes of each link begin.
        places: float32 (2, 2, N), of the nodes in source and target: x and y in cells, counted from
            the centre of the first cell.
        confidence: float32 (N,).
        moves: float32 (2, L, h, w, 2), of the links that THIRD names, how far each cell's match is
            from the cell's own centre, in cells: source to target, target to source.
        sigma, least: see `segswap.discovery.graph.correspondence_graph`.
        counters: of the nodes of each block's links; one more for each edge. To write, they hold
            where in `indices` and `weights` the next edge belongs.
        indices, weights: what is written, the node at the other end of each edge and its weight.
            Without elements: the edges are only counted.
    """
    largest = 0
    for link in range(len(starts) - 1):
        largest = max(largest, starts[link + 1] - starts[link])
    carried = np.empty((2, 2, largest), np.float32)
    for b in range(len(blocks)):
        block = blocks[b]
        p = starts[block[P]], starts[block[P] + 1]
        q = starts[block[Q]], starts[block[Q] + 1]
        of_p = counters[block[OF_P] : block[OF_P] + p[1] - p[0]]
        if block[P] == block[Q]:
            _within(p, places, confidence, sigma, least, of_p, indices, weights)
            continue
        of_q = counters[block[OF_Q] : block[OF_Q] + q[1] - q[0]]
        _carry(moves[block[FROM], block[THIRD]], p, places[1 - block[SIDE_P]], carried[0])
        _carry(moves[1 - block[FROM], block[THIRD]], q, places[1 - block[SIDE_Q]], carried[1])
        _across(
            p, q, block[SIDE_P], block[SIDE_Q], places, carried, confidence, sigma, least, of_p,
            of_q, indices, weights,
        )  # fmt: skip


@compiled
def _carry(grid: Array, nodes: tuple[int, int], places: Array, out: Array) -> None:
    """Places (2, N) of some nodes, from and to, carried by the moves of cells (h, w, 2) to the
    beginning of `out`; infinitely far away where there is no answer.

    As `segswap.models.prediction.warp_points`: bilinear, and beyond the outermost centres the
    nearest cell moves a place.
    """
    rows, columns = grid.shape[0], grid.shape[1]
    for n in range(nodes[0], nodes[1]):
        x = min(max(places[0, n], np.float32(0)), np.float32(columns - 1))
        y = min(max(places[1, n], np.float32(0)), np.float32(rows - 1))
        left, top = min(max(int(x), 0), columns - 1), min(max(int(y), 0), rows - 1)
        right, below = min(left + 1, columns - 1), min(top + 1, rows - 1)
        u, v = x - np.float32(left), y - np.float32(top)
        for axis in range(2):
            corner, beside = grid[top, left, axis], grid[top, right, axis]
            under, across = grid[below, left, axis], grid[below, right, axis]
            upper, lower = corner + u * (beside - corner), under + u * (across - under)
            value = places[axis, n] + upper + v * (lower - upper)
            out[axis, n - nodes[0]] = value if math.isfinite(value) else np.float32(math.inf)


@compiled
def _within(
    nodes: tuple[int, int], places: Array, confidence: Array, sigma: np.float32,
    least: np.float32, counters: NDArray[np.int64], indices: NDArray[np.int32], weights: Array,
) -> None:  # fmt: skip
    """Edges between the nodes of one link, from and to."""
    start, stop = nodes
    scale = _HALF / sigma
    reach = -math.log(least) / scale
    near, weight = np.empty(stop - start, np.int32), np.empty(stop - start, np.float32)
    for i in range(start, stop):
        found = 0
        for j in range(i + 1, stop):
            apart = np.float32(0)
            for side in range(2):
                x = places[side, 0, i] - places[side, 0, j]
                y = places[side, 1, i] - places[side, 1, j]
                apart += math.sqrt(x * x + y * y)
            if apart <= reach:
                near[found] = j - start
                weight[found] = confidence[i] * confidence[j] * math.exp(-apart * scale)
                found += weight[found] >= least
        _add(i, i - start, counters, start, near[:found], counters, weight, indices, weights)


@compiled
def _across(
    p: tuple[int, int], q: tuple[int, int], side_p: int, side_q: int, places: Array,
    carried: Array, confidence: Array, sigma: np.float32, least: np.float32,
    of_p: NDArray[np.int64], of_q: NDArray[np.int64], indices: NDArray[np.int32], weights: Array,
) -> None:  # fmt: skip
    """Edges between the nodes of two links.

    Args:
        p, q: the nodes of each, from and to.
        side_p, side_q: on which side of each the image is that both have.
        carried: (2, 2, n) or longer, the other places of p's nodes in q's other image, and those
            of q's nodes in p's.
    """
    count = q[1] - q[0]
    # Rows of their own, and memory that is new: the compiler must see that each lies in one piece
    # and that none overlaps another, or it computes one node at a time.
    x_q, y_q = places[side_q, 0, q[0] : q[1]], places[side_q, 1, q[0] : q[1]]
    u_q, v_q = places[1 - side_q, 0, q[0] : q[1]], places[1 - side_q, 1, q[0] : q[1]]
    back_u, back_v = carried[1, 0, :count], carried[1, 1, :count]
    one, two = np.empty(count, np.float32), np.empty(count, np.float32)
    near, weight = np.empty(count, np.int32), np.empty(count, np.float32)
    low_x, high_x, low_y, high_y = x_q.min(), x_q.max(), y_q.min(), y_q.max()
    scale = np.float32(1) / sigma
    for i in range(p[0], p[1]):
        # A weight is at most confidence[i] exp(-the shorter way / sigma).
        reach = np.float32(-math.log(least / confidence[i]) * sigma)
        x, y = places[side_p, 0, i], places[side_p, 1, i]
        if max(low_x - x, x - high_x, low_y - y, y - high_y) > reach:
            continue
        u, v = places[1 - side_p, 0, i], places[1 - side_p, 1, i]
        forth_u, forth_v = carried[0, 0, i - p[0]], carried[0, 1, i - p[0]]
        # Without branches, so that many are computed at a time.
        for j in range(count):
            dx, dy = x - x_q[j], y - y_q[j]
            here = math.sqrt(dx * dx + dy * dy)
            dx, dy = u - back_u[j], v - back_v[j]
            one[j] = here + math.sqrt(dx * dx + dy * dy)
            dx, dy = forth_u - u_q[j], forth_v - v_q[j]
            two[j] = here + math.sqrt(dx * dx + dy * dy)
        found = 0
        for j in range(count):
            near[found] = j
            found += (one[j] <= reach) | (two[j] <= reach)
        edges = 0
        for j in near[:found]:
            closed = math.exp(-one[j] * scale) + math.exp(-two[j] * scale)
            near[edges] = j
            weight[edges] = _HALF * confidence[i] * confidence[q[0] + j] * closed
            edges += weight[edges] >= least
        _add(i, i - p[0], of_p, q[0], near[:edges], of_q, weight, indices, weights)


@compiled
def _add(
    node: int, at: int, of_node: NDArray[np.int64], start: int, near: NDArray[np.int32],
    of_near: NDArray[np.int64], weight: Array, indices: NDArray[np.int32], weights: Array,
) -> None:  # fmt: skip
    """Count the edges from one node to some others, counted from `start`, at all of their ends; and
    write them where there is memory for it.
    """
    if len(indices):
        first = of_node[at]
        for n in range(len(near)):
            indices[first + n], weights[first + n] = start + near[n], weight[n]
            back = of_near[near[n]]
            indices[back], weights[back] = node, weight[n]
            of_near[near[n]] = back + 1
    else:
        for other in near:
            of_near[other] += 1
    of_node[at] += len(near)
