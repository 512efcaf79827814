"""Eigenvector and groups of made graphs."""

import numpy as np
import pytest
from scipy.sparse import block_diag, csr_matrix

from segswap.discovery.clusters import groups_of, image_maps, leading_eigenvector
from segswap.discovery.graph import Nodes

CELLS = 12  # of a region, in a row


def mesh(regions: int, agreement: float = 0.5) -> np.ndarray:
    """Regions of cells in a row: neighbours within a region agree, and the same cells of all."""
    chain = np.diag(np.full(CELLS - 1, 0.6), 1)
    inside = chain + chain.T
    across = agreement * np.eye(CELLS)
    graph = np.kron(np.ones((regions, regions)) - np.eye(regions), across)
    return graph + np.kron(np.eye(regions), inside)


def nodes_in(pairs: list[tuple[int, int]]) -> Nodes:
    """One region a pair, of cells in a row."""
    count = len(pairs)
    x = np.tile(np.arange(CELLS) + 0.5, count)
    places = np.stack([np.stack([x, np.full_like(x, 0.5)], axis=1)] * 2, axis=1)
    return Nodes(
        np.repeat(np.array(pairs, np.int32), CELLS, axis=0),
        np.repeat(np.arange(count, dtype=np.int32), CELLS),
        places.astype(np.float32),
        np.ones(count * CELLS, np.float32),
    )


def all_pairs(images: range) -> list[tuple[int, int]]:
    return [(a, b) for a in images for b in images if a < b]


def groups(graph: np.ndarray, pairs: list[tuple[int, int]], **limits: float) -> list[set[int]]:
    """The images of each group."""
    nodes = nodes_in(pairs)
    sparse = csr_matrix(graph.astype(np.float32))
    found = groups_of(sparse, nodes, **limits)  # type: ignore[arg-type]
    return sorted((set(nodes.images[g].ravel().tolist()) for g in found), key=min)


@pytest.mark.parametrize("size", [50, 300])  # decomposed whole, and not
def test_the_leading_eigenvector(size: int) -> None:
    rng = np.random.default_rng(0)
    dense = rng.random((size, size)) * (rng.random((size, size)) < 0.2)
    dense = np.triu(dense, 1).astype(np.float32)
    graph = csr_matrix(dense + dense.T)
    value, vector = leading_eigenvector(graph)
    values, vectors = np.linalg.eigh(graph.toarray().astype(np.float64))
    assert value == pytest.approx(values[-1], rel=1e-4)
    np.testing.assert_allclose(vector, np.abs(vectors[:, -1]), atol=1e-3)
    np.testing.assert_array_equal(vector, leading_eigenvector(graph)[1])


def test_far_from_the_strongest_nodes_its_small_entries_are_right() -> None:
    """A chain of parts that hardly touch, each weaker than the one before."""
    rng = np.random.default_rng(0)
    size, parts = 120, 3
    dense = np.zeros((size * parts,) * 2)
    for part in range(parts):
        own = slice(part * size, (part + 1) * size)
        dense[own, own] = rng.random((size, size)) * 0.7**part
        dense[own.stop - 1, own.stop % len(dense)] = 0.02
    dense = np.triu(dense, 1).astype(np.float32).astype(np.float64)
    dense += dense.T
    # By the power method, which keeps what is positive so, however small.
    expected = np.ones(len(dense))
    for _ in range(3000):
        expected = dense @ expected
        expected /= np.linalg.norm(expected)
    _, vector = leading_eigenvector(csr_matrix(dense.astype(np.float32)))
    assert expected[-size:].max() < 1e-6 * expected.max()
    np.testing.assert_allclose(vector, expected, rtol=1e-3)


def test_its_sign_is_that_of_the_larger_energy() -> None:
    """Of a matrix with negative entries: the larger part, which hangs together, is positive."""
    part, other = np.full((30, 30), 0.5), np.full((5, 5), 0.2)
    against = np.full((30, 5), -0.3)
    dense = np.block([[part, against], [against.T, other]])
    _, vector = leading_eigenvector(csr_matrix(dense.astype(np.float32)))
    assert (vector[:30] > 0).all()
    assert (vector[30:] < 0).all()


def test_an_empty_graph_has_no_eigenvector() -> None:
    value, vector = leading_eigenvector(csr_matrix((5, 5), dtype=np.float32))
    assert value == 0
    assert not vector.any()


def test_motifs_that_share_nothing_are_groups_of_their_own() -> None:
    first, second = all_pairs(range(4)), all_pairs(range(4, 9))
    graph = block_diag([mesh(len(first)), mesh(len(second))]).toarray()
    assert groups(graph, first + second) == [{0, 1, 2, 3}, {4, 5, 6, 7, 8}]


def test_a_weak_bridge_is_cut_and_a_strong_one_is_not() -> None:
    first, second = all_pairs(range(4)), all_pairs(range(4, 8))
    halves, one = [{0, 1, 2, 3}, {4, 5, 6, 7}], [{0, 1, 2, 3, 4, 5, 6, 7}]
    graph = block_diag([mesh(len(first)), mesh(len(second))]).toarray()
    size = len(first) * CELLS
    for weight, expected in ((0.02, halves), (0.5, one)):
        graph[:size, size:] = graph[size:, :size] = np.kron(
            np.ones((len(first), len(second))), weight * np.eye(CELLS)
        )
        assert groups(graph, first + second) == expected


def test_a_large_motif_is_not_cut_through_the_middle() -> None:
    """Halving the mesh of cells would cost little; regions are kept whole."""
    pairs = all_pairs(range(3))
    assert groups(mesh(len(pairs), agreement=0.05), pairs, most_cut=0.05) == [{0, 1, 2}]


def test_a_false_match_between_two_groups_is_in_none() -> None:
    first, second = all_pairs(range(4)), all_pairs(range(4, 8))
    pairs = [*first, *second, (0, 4)]
    graph = block_diag([mesh(len(first)), mesh(len(second)), mesh(1)]).toarray()
    last = len(graph) - CELLS
    graph[last, :last:CELLS] = graph[:last:CELLS, last] = 0.05  # one cell agrees a little
    nodes = nodes_in(pairs)
    found = groups_of(csr_matrix(graph.astype(np.float32)), nodes)
    assert [len(group) for group in found] == [6 * CELLS, 6 * CELLS]
    assert not np.isin(np.arange(last, last + CELLS), np.concatenate(found)).any()


def test_groups_of_too_few_images_are_dropped() -> None:
    pairs = [(0, 1), *all_pairs(range(2, 5))]
    graph = block_diag([mesh(1), mesh(3)]).toarray()
    assert groups(graph, pairs) == [{2, 3, 4}]
    assert groups(graph, pairs, least_images=2) == [{0, 1}, {2, 3, 4}]
    assert groups(graph, pairs, least_images=4) == []


def test_many_regions() -> None:
    """More than are decomposed whole."""
    first, second = all_pairs(range(16)), all_pairs(range(16, 32))
    nodes = nodes_in(first + second)
    block = csr_matrix(mesh(len(first), 0.3).astype(np.float32))
    graph = csr_matrix(block_diag([block, block])).tolil()
    graph[0, len(first) * CELLS] = graph[len(first) * CELLS, 0] = 0.5
    found = groups_of(csr_matrix(graph), nodes)
    images = sorted((set(nodes.images[group].ravel().tolist()) for group in found), key=min)
    assert images == [set(range(16)), set(range(16, 32))]


@pytest.mark.parametrize("apart", [0, 20])
def test_groups_at_the_same_places_of_the_same_images_are_one(apart: int) -> None:
    """Two images that are everyone's partners: the pairs of each agree less with those of the
    other. Elsewhere in the same images they are two motifs.
    """
    first, second = ([(hub, image) for image in range(2, 8)] for hub in (0, 1))
    graph = block_diag([mesh(len(first)), mesh(len(second))]).toarray()
    size = len(first) * CELLS
    bridge = np.kron(np.eye(len(first)), 0.05 * np.eye(CELLS))
    graph[:size, size:] = graph[size:, :size] = bridge
    nodes = nodes_in(first + second)
    places = nodes.places.copy()
    places[size:, :, 1] += apart
    moved = Nodes(nodes.images, nodes.links, places, nodes.confidence)
    found = groups_of(csr_matrix(graph.astype(np.float32)), moved)
    assert sorted(len(group) for group in found) == ([size, size] if apart else [2 * size])


def test_image_maps_sum_what_nodes_are_worth_at_their_cells() -> None:
    places = np.array([[[0.5, 1.5], [2.4, 0.1]], [[0.2, 1.9], [3.0, 2.0]]], np.float32)
    pairs = np.array([[0, 1], [0, 2]], np.int32)
    nodes = Nodes(pairs, np.array([0, 1], np.int32), places, np.ones(2, np.float32))
    maps = image_maps(nodes, np.array([0.25, 0.5], np.float32), 2, 3)
    assert sorted(maps) == [0, 1, 2]
    np.testing.assert_array_equal(maps[0], [[0, 0, 0], [0.75, 0, 0]])
    np.testing.assert_array_equal(maps[1], [[0, 0, 0.25], [0, 0, 0]])
    np.testing.assert_array_equal(maps[2], [[0, 0, 0], [0, 0, 0.5]])  # on the frame
    maps = image_maps(nodes, np.array([1e-14, 0.5], np.float32), 2, 3)
    assert sorted(maps) == [0, 2]
    assert not image_maps(nodes, np.array([-1, 0], np.float32), 2, 3)
