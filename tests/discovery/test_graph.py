"""The correspondence graph: exactly its formulas, and no more than its edges."""

import os
import subprocess
import sys

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from made_links import random_links

from segswap.discovery.graph import Nodes, correspondence_graph, graph_of, nodes_of
from segswap.discovery.links import Links, best_partners, sharing
from segswap.models.prediction import warp_points


def carried(links: Links, image: int, other: int, place: np.ndarray) -> np.ndarray | None:
    """Where a place of one image, in cells, lies in another one; None where nothing says so."""
    rows, columns = links.source_mask.shape[1:]
    for pair, there, back in zip(links.pairs, links.to_target, links.to_source, strict=True):
        if tuple(pair) in ((image, other), (other, image)):
            grid = there if pair[0] == image else back
            found = warp_points(grid, [place / (columns, rows)])[0] * (columns, rows)
            return found if np.isfinite(found).all() else None
    return None


def plain_weight(nodes: Nodes, links: Links, sigma: float, i: int, j: int) -> float:
    """The weight of one edge, as the method's text has it."""

    def near(p: np.ndarray, q: np.ndarray | None) -> float:
        return 0.0 if q is None else float(np.exp(-np.linalg.norm(p - q) / sigma))

    one, two = nodes.images[i].tolist(), nodes.images[j].tolist()
    x, y = nodes.places[i].astype(float), nodes.places[j].astype(float)
    both = float(nodes.confidence[i]) * float(nodes.confidence[j])
    if one == two:
        apart = np.linalg.norm(x[0] - y[0]) + np.linalg.norm(x[1] - y[1])
        return both * float(np.exp(-apart / (2 * sigma)))
    common = set(one) & set(two)
    if not common:
        return 0.0
    a, b = one.index(*common), two.index(*common)
    image, other = one[1 - a], two[1 - b]
    u, v = x[1 - a], y[1 - b]
    closed = near(u, carried(links, other, image, v)) + near(v, carried(links, image, other, u))
    return 0.5 * both * near(x[a], y[b]) * closed


def plain_graph(nodes: Nodes, links: Links, sigma: float) -> np.ndarray:
    graph = np.zeros((len(nodes), len(nodes)))
    for i in range(len(nodes)):
        for j in range(i):
            graph[i, j] = graph[j, i] = plain_weight(nodes, links, sigma, i, j)
    return graph


@given(
    seed=st.integers(0, 10_000), images=st.integers(2, 5), rows=st.integers(2, 4),
    columns=st.integers(2, 5), sigma=st.sampled_from([0.3, 0.8, 5.0]),
    least=st.sampled_from([0.01, 0.2]),
)  # fmt: skip
def test_every_weight_is_the_formula_s(
    seed: int, images: int, rows: int, columns: int, sigma: float, least: float
) -> None:
    rng = np.random.default_rng(seed)
    links = random_links(images, rows, columns, rng)
    # The third side of a triangle may be a link that has no nodes.
    kept = np.flatnonzero(rng.random(len(links)) < 0.7)
    nodes = nodes_of(links, kept, 0.6, most=8)
    nodes = nodes[np.isfinite(nodes.places).all(axis=(1, 2))]
    graph = correspondence_graph(nodes, links, sigma, least)
    found, expected = graph.toarray(), plain_graph(nodes, links, sigma)
    np.testing.assert_array_equal(found, found.T)
    there = found > 0
    np.testing.assert_allclose(found[there], expected[there], rtol=1e-4)
    # No edge twice, none too many, none left out; at the limit itself rounding decides.
    assert there.sum() == graph.nnz
    assert expected[there].min(initial=1) >= least * (1 - 1e-4)
    assert expected[~there].max(initial=0) <= least * (1 + 1e-4)


def identical(images: int, rows: int = 6, columns: int = 8) -> Links:
    """All pairs of copies of one image, perfectly matched."""
    pairs = np.array([(a, b) for a in range(images) for b in range(a)], np.int32)[:, ::-1]
    shape = (len(pairs), rows, columns)
    x, y = np.meshgrid((np.arange(columns) + 0.5) / columns, (np.arange(rows) + 0.5) / rows)
    maps = np.broadcast_to(np.stack([x, y], axis=-1), (*shape, 2)).astype(np.float16)
    return Links(pairs, np.zeros(len(pairs), bool), maps, maps, *np.ones((2, *shape), np.float16))


def test_two_consistent_nodes_at_one_place_weigh_the_product_of_their_confidences() -> None:
    links = identical(3)
    nodes = nodes_of(links, np.arange(3), 0.85)
    confidence = np.linspace(0.9, 1, len(nodes), dtype=np.float32)
    nodes = Nodes(nodes.images, nodes.links, nodes.places, confidence)
    graph = correspondence_graph(nodes, links, 0.8)
    cells = 48
    i, j = np.arange(cells), cells + np.arange(cells)  # the same cells of two pairs
    np.testing.assert_allclose(
        np.asarray(graph[i, j]).ravel(), confidence[i] * confidence[j], rtol=1e-2
    )


def test_no_node_has_an_edge_to_itself() -> None:
    links = identical(3)
    graph = correspondence_graph(nodes_of(links, np.arange(3)), links)
    assert graph.nnz > 0
    assert not graph.diagonal().any()


def test_triangles_close_by_pairs_that_were_not_kept() -> None:
    """Of three copies, two pairs have nodes: with the third one matched they agree, else not."""
    links = identical(3)
    nodes = nodes_of(links, np.array([0, 1]))
    across = correspondence_graph(nodes, links)[:48, 48:]
    without = correspondence_graph(nodes, links[np.array([0, 1])])[:48, 48:]
    assert across.nnz > 48
    assert without.nnz == 0


def test_nodes_are_of_the_side_with_more_confident_cells() -> None:
    links = identical(2)
    source, target = links.source_mask.copy(), links.target_mask.copy()
    source[0, :5] = 0
    target[0, 3:] = 0.84
    links = Links(*list(links.__dict__.values())[:4], source, target)
    nodes = nodes_of(links, np.array([0]))
    assert len(nodes) == 24
    assert nodes.places[:, 1, 1].max() < 3


def test_of_too_many_nodes_the_most_confident_are_kept() -> None:
    links = identical(2)
    mask = links.source_mask.copy()
    mask[0] = np.linspace(0.9, 1, 48).reshape(6, 8)
    links = Links(*list(links.__dict__.values())[:4], mask, links.target_mask * np.float16(0.1))
    nodes = nodes_of(links, np.array([0]), most=8)
    assert len(nodes) == 8
    assert nodes.places[:, 0, 1].min() > 5


def test_where_nothing_can_be_kept_the_loops_are_compiled_anew() -> None:
    """As in a container whose user has no folder to write to."""
    code = (
        "import numpy as np; from test_graph import *; links = identical(3); "
        "print(correspondence_graph(nodes_of(links, np.arange(3)), links).nnz)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300,
        env={
            **os.environ, "NUMBA_CACHE_LOCATOR_CLASSES": "ZipCacheLocator",
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
    )  # fmt: skip
    links = identical(3)
    graph = correspondence_graph(nodes_of(links, np.arange(3)), links)
    assert done.stdout.split() == [str(graph.nnz)], done.stderr


def test_without_nodes_the_graph_is_empty() -> None:
    links = identical(3)
    nodes = nodes_of(links, np.zeros(0, np.intp))
    assert correspondence_graph(nodes, links).shape == (0, 0)


def test_rows_are_in_order_and_the_same_each_time() -> None:
    links = random_links(6, 8, 8, np.random.default_rng(0))
    nodes = nodes_of(links, np.arange(len(links)), 0.6)
    nodes = nodes[np.isfinite(nodes.places).all(axis=(1, 2))]
    graph = correspondence_graph(nodes, links, 0.8)
    assert graph.nnz > 10 * len(nodes)
    for row in range(len(nodes)):
        assert (np.diff(graph.indices[graph.indptr[row] : graph.indptr[row + 1]]) > 0).all()
    again = correspondence_graph(nodes, links, 0.8)
    for name in ("indptr", "indices", "data"):
        np.testing.assert_array_equal(getattr(graph, name), getattr(again, name))


def test_a_graph_that_would_be_too_large_has_fewer_nodes_a_pair() -> None:
    links = identical(4, 12, 12)
    kept = np.arange(len(links))
    nodes, graph = graph_of(links, kept, sigma=5.0)
    assert len(nodes) == len(kept) * 144
    fewer, smaller = graph_of(links, kept, sigma=5.0, most_entries=graph.nnz // 4)
    assert smaller.nnz <= graph.nnz // 4
    assert np.bincount(fewer.links).min() >= 50
    expected = correspondence_graph(fewer, links, 5.0)
    np.testing.assert_array_equal(smaller.toarray(), expected.toarray())
    # So many are kept whatever they take.
    assert len(graph_of(links, kept, sigma=5.0, most_entries=1)[0]) == len(kept) * 25


@given(seed=st.integers(0, 10_000), partners=st.integers(1, 4))
def test_every_image_keeps_its_best_partners(seed: int, partners: int) -> None:
    links = random_links(7, 3, 4, np.random.default_rng(seed))
    kept = set(best_partners(links, partners, 0.01).tolist())
    worth = links.source_mask.sum(axis=(1, 2), dtype=np.float32)
    worth = worth + links.target_mask.sum(axis=(1, 2), dtype=np.float32)
    wanted = set()
    for image in range(7):
        own = np.flatnonzero((links.pairs == image).any(axis=1))
        wanted |= set(own[np.argsort(-worth[own], kind="stable")[:partners]].tolist())
    assert kept == wanted


def test_pairs_that_share_next_to_nothing_are_dropped() -> None:
    links = identical(2, 10, 20)
    source = np.zeros_like(links.source_mask)
    source[0, 0, :2] = 1
    for cells, kept in ((2, 1), (1, 0)):
        source[0, 0, cells:] = 0
        some = Links(*list(links.__dict__.values())[:4], source, links.target_mask)
        assert len(best_partners(some)) == kept
        assert sharing(some).tolist() == [bool(kept)]
