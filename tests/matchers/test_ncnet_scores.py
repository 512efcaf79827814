"""Neighbourhood consensus in its parts: filters, 4D convolution, lists of scores, finer places."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from segswap import geometry
from segswap.matchers.ncnet.consensus import Consensus
from segswap.matchers.ncnet.convolution import conv4d
from segswap.matchers.ncnet.head import found
from segswap.matchers.ncnet.presets import PRESETS
from segswap.matchers.ncnet.relocalisation import block_step, carried, hard_step, soft_step
from segswap.matchers.ncnet.scores import (
    EPSILON,
    correlate,
    match_score,
    mutual_filter,
    pool,
    transposed,
)
from segswap.matchers.ncnet.sparse import Entries, list_score, nearest
from segswap.models.prediction import warp_points

SHAPE = (2, 1, 3, 4, 5, 2)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def unit(count: int, rows: int, columns: int, channels: int = 6) -> Tensor:
    """Features of length 1."""
    return F.normalize(torch.randn(count, channels, rows, columns, dtype=torch.float64), dim=1)


# --- mutual nearest neighbours ---------------------------------------------------------------


def test_nothing_stays_nothing() -> None:
    filtered = mutual_filter(torch.zeros(SHAPE))
    assert torch.equal(filtered, torch.zeros(SHAPE))


def test_a_single_score_stays() -> None:
    scores = torch.zeros(SHAPE, dtype=torch.float64)
    scores[1, 0, 2, 1, 4, 0] = 0.7
    filtered = mutual_filter(scores)
    assert filtered[1, 0, 2, 1, 4, 0].item() == pytest.approx(0.7 / (1 + EPSILON / 0.7) ** 2, 1e-12)
    assert filtered.sum().item() == pytest.approx(0.69998, abs=1e-6)


def test_the_filter_takes_away_and_does_not_depend_on_the_order_of_images() -> None:
    scores = torch.rand(SHAPE)
    filtered = mutual_filter(scores)
    assert (filtered >= 0).all()
    assert (filtered <= scores).all()
    assert torch.equal(mutual_filter(transposed(scores)), transposed(filtered))


def test_the_filter_keeps_the_scale() -> None:
    scores = torch.rand(SHAPE, dtype=torch.float64) + 0.5
    ratio = mutual_filter(2 * scores) / mutual_filter(scores)
    assert (ratio - 2).abs().max().item() < 5e-5


def test_features_that_know_negative_values_give_scores_of_0_at_least() -> None:
    scores = correlate(unit(2, 3, 4), unit(2, 5, 2))
    assert scores.shape == SHAPE
    assert scores.min() == 0
    assert scores.max() <= 1


# --- 4D convolution --------------------------------------------------------------------------


def by_definition(scores: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The sum over all shifts, with zeros around."""
    around = weight.shape[2] // 2
    padded = F.pad(scores, (around,) * 8)
    total = torch.zeros(len(scores), len(weight), *scores.shape[2:], dtype=scores.dtype)
    for shift in itertools.product(range(weight.shape[2]), repeat=4):
        part = padded[(..., *(slice(s, s + n) for s, n in zip(shift, SHAPE[2:], strict=True)))]
        total += torch.einsum("bcijkl,dc->bdijkl", part, weight[(..., *shift)])
    return total + bias.view(-1, 1, 1, 1, 1)


def by_loop(scores: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """As published: k 3D convolutions for each place on the first axis."""
    size = weight.shape[2]
    padded = F.pad(scores, (0,) * 6 + (size // 2,) * 2)
    made = [
        sum(F.conv3d(padded[:, :, row + k], weight[:, :, k], padding=size // 2)
            for k in range(size)) + bias.view(-1, 1, 1, 1)
        for row in range(scores.shape[2])
    ]  # fmt: skip
    return torch.stack(made, dim=2)


@pytest.mark.parametrize(
    ("inputs", "channels", "size"), [(1, 16, 3), (16, 1, 3), (3, 3, 3), (1, 4, 5), (6, 6, 5)]
)
def test_convolution_is_the_sum_over_all_shifts(inputs: int, channels: int, size: int) -> None:
    scores = torch.randn(SHAPE[0], inputs, *SHAPE[2:], dtype=torch.float64)
    weight = torch.randn(channels, inputs, *[size] * 4, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(channels, dtype=torch.float64)
    made = conv4d(scores, weight, bias)
    naive, loop = by_definition(scores, weight, bias), by_loop(scores, weight, bias)
    assert (made - naive).abs().max() < 1e-13 * naive.abs().max()
    assert (loop - naive).abs().max() < 1e-13 * naive.abs().max()
    gradients = [torch.autograd.grad(out.square().sum(), weight)[0] for out in (made, loop)]
    assert torch.allclose(*gradients, rtol=1e-10)


@pytest.mark.parametrize("channels", [1, 20])
def test_a_kernel_of_one_place_changes_nothing(channels: int) -> None:
    weight = torch.zeros(channels, channels, 3, 3, 3, 3)
    weight[:, :, 1, 1, 1, 1] = torch.eye(channels)
    scores = torch.randn(SHAPE[0], channels, *SHAPE[2:])
    assert torch.equal(conv4d(scores, weight), scores)


def test_consensus_does_not_depend_on_the_order_of_images() -> None:
    network, scores = Consensus((3, 3), (16, 1)), torch.rand(SHAPE)
    assert torch.equal(network(transposed(scores)), transposed(network(scores)))
    alone = network.one_way(transposed(scores)) - transposed(network.one_way(scores))
    assert alone.abs().max() > 1e-3


@pytest.mark.parametrize(
    ("preset", "count"), [("small", 2609), ("indoor", 2609), ("pf-pascal", 180_033)]
)
def test_published_numbers_of_parameters(preset: str, count: int) -> None:
    chosen = PRESETS[preset]
    network = Consensus(chosen.kernels, chosen.channels)
    assert sum(parameter.numel() for parameter in network.parameters()) == count


def test_a_new_network_lets_scores_through() -> None:
    """For any weights drawn: a ReLU that gives nothing anywhere would never learn."""
    for seed in range(20):
        torch.manual_seed(seed)
        assert Consensus((3, 3), (16, 1))(torch.rand(SHAPE)).min() > 0


# --- how surely images match -----------------------------------------------------------------


def test_equal_scores_match_by_chance() -> None:
    scores = torch.full((1, 1, 25, 25, 25, 25), 0.3)
    assert match_score(scores).item() == pytest.approx(1 / 625, rel=1e-4)
    # What a network that has learned nothing can reach is no more than this.
    assert match_score(torch.eye(625).view(1, 1, 25, 25, 25, 25)).item() < 0.0044


def test_sure_matches_score_1() -> None:
    scores = 50 * torch.eye(12).view(1, 1, 3, 4, 3, 4)
    assert match_score(scores).item() == pytest.approx(1)


# --- relocalisation --------------------------------------------------------------------------


def test_pooled_scores_are_where_the_offsets_say() -> None:
    fine = torch.rand(2, 1, 6, 9, 3, 6)
    pooled, within = pool(fine, 3)
    assert pooled.shape == (2, 1, 2, 3, 1, 2)
    for place in itertools.product(*(range(n) for n in within.shape[:5])):
        offsets = within[place].tolist()
        at = [3 * cell + offset for cell, offset in zip(place[1:], offsets, strict=True)]
        assert fine[(place[0], 0, *at)] == pooled[(place[0], 0, *place[1:])]
        block = fine[(place[0], 0, *(slice(3 * c, 3 * c + 3) for c in place[1:]))]
        assert block.max() == pooled[(place[0], 0, *place[1:])]


def test_both_hard_steps_find_the_best_fine_cells() -> None:
    source, target = unit(2, 6, 8), unit(2, 4, 6)
    _, within = pool(torch.einsum("bcij,bckl->bijkl", source, target)[:, None], 2)
    own, other = torch.randint(0, 3, (2, 20, 2)), torch.randint(0, 2, (2, 20, 2))
    by_features, by_scores = (
        hard_step(source, target, own, other), block_step(within, own, other)
    )  # fmt: skip
    for one, two, coarse in zip(by_features, by_scores, (own, other), strict=True):
        assert torch.equal(one, two)
        # Within the coarse cell: never by more than one fine cell.
        assert ((one - 2 * coarse).abs() <= 1).all()
        assert (one >= 2 * coarse).all()


def test_the_soft_step_stays_where_all_is_alike_and_follows_what_is_more_alike() -> None:
    alike = torch.ones(1, 1, 6, 6, dtype=torch.float64)
    cells = torch.tensor([[[0, 0], [2, 3], [5, 5]]])
    for ends in soft_step(alike, alike, cells, cells):
        assert torch.equal(ends, cells.double())
    source, target = alike * 0, alike * 0
    source[0, 0, 2, 3], target[0, 0, 2, 4] = 1, 1
    own, other = soft_step(source, target, cells, cells)
    # The target's neighbour to the right is like the source's end; its own end is like none.
    assert other[0, 1, 1] > 3.9
    assert other[0, 1, 0] == pytest.approx(2)
    assert torch.equal(own[0, 1], cells[0, 1].double())


def test_finer_places_carry_their_cells_with_them() -> None:
    grid = torch.Size((2, 3))
    rows, columns = torch.meshgrid(torch.arange(2), torch.arange(3), indexing="ij")
    own = 2 * torch.stack([rows, columns], dim=-1).flatten(0, 1)[None]
    there = carried(own, own + torch.tensor([0, 1]), (grid, grid))
    home = torch.from_numpy(geometry.cell_centres(2, 3)).float()
    # Half a cell to the right.
    assert torch.allclose(there[0], home + torch.tensor([0.5 / 3, 0.0]))


# --- lists -----------------------------------------------------------------------------------


def test_lists_hold_the_nearest_of_both_sides() -> None:
    source, target = unit(2, 4, 5), unit(2, 4, 5)
    entries, cells = nearest(source, target, 3), 20
    cosines = (source.flatten(2).transpose(1, 2) @ target.flatten(2)).view(2, 4, 5, 4, 5)
    cosine = cosines[tuple(entries.places.T)]
    times = (entries.values / cosine).round()
    assert torch.equal(entries.values, times * cosine)
    assert set(times.tolist()) == {1.0, 2.0}
    # 3 for each cell of both images, those that both name counted once.
    assert times.sum() == 2 * 2 * 3 * cells
    assert len(entries.places) <= 2 * 2 * 3 * cells
    number = torch.stack([entries.of_source, torch.zeros_like(entries.of_source)]).unique(dim=1)
    assert number.shape[1] == 2 * cells


def test_half_the_squared_distance_is_the_cosine() -> None:
    a, b = unit(1, 4, 5), unit(1, 4, 5)
    squared = torch.cdist(a.flatten(2).mT, b.flatten(2).mT).square()
    cosines = a.flatten(2).mT @ b.flatten(2)
    assert torch.allclose(1 - squared / 2, cosines, atol=1e-12)


def test_a_list_of_all_cells_is_convolved_as_all_cells_are() -> None:
    source, target = unit(2, 3, 4), unit(2, 2, 5)
    network = Consensus((3, 3), (16, 1)).double()
    entries = nearest(source, target, 12)
    assert len(entries.values) == 2 * 12 * 10
    listed = entries.with_values(network.sparse(entries))
    assert torch.allclose(listed.dense(), network(entries.dense().clamp(min=0)), atol=1e-12)
    assert torch.allclose(list_score(listed), match_score(listed.dense()), atol=1e-12)


def test_what_is_no_entry_gets_none() -> None:
    """Submanifold: the convolution of a list is that of all cells, cut to the list each time."""
    entries = nearest(unit(2, 4, 5), unit(2, 4, 5), 3)
    network = Consensus((3, 3), (16, 1)).double()
    there = entries.with_values(torch.ones_like(entries.values)).dense()
    expected = []
    for exchange in (lambda scores: scores, transposed):
        cells = exchange(entries.dense().clamp(min=0))
        for layer in network.layers:
            cells = layer(cells).relu() * exchange(there)
        expected.append(exchange(cells))
    listed = entries.with_values(network.sparse(entries))
    assert listed.places is entries.places
    assert torch.allclose(listed.dense(), expected[0] + expected[1], atol=1e-12)


def test_the_gradient_of_a_list_is_that_of_all_cells() -> None:
    entries = nearest(unit(1, 3, 4), unit(1, 3, 4), 12)
    network = Consensus((3, 3), (4, 1)).double()
    network.sparse(entries).square().sum().backward()
    listed = [parameter.grad for parameter in network.parameters()]
    network.zero_grad()
    network(entries.dense().clamp(min=0)).square().sum().backward()
    for one, other in zip(listed, network.parameters(), strict=True):
        assert torch.allclose(one, other.grad)


def test_a_list_counts_as_zeros_where_it_has_no_entries() -> None:
    entries = nearest(unit(2, 4, 5), unit(2, 4, 5), 3)
    entries = entries.with_values(4 * entries.values.clamp(min=0))
    assert torch.allclose(list_score(entries), match_score(entries.dense()), atol=1e-12)


def test_cells_without_entries_do_not_count() -> None:
    places = torch.tensor([[0, 0, 0, 0, 0], [0, 0, 1, 0, 0]])
    entries = Entries(places, torch.tensor([2.0, 0.0]), (1, 1, 3, 1, 3))
    e = np.exp(2)
    there = (e / (e + 2) + 1 / 3) / 2  # two of three cells have an entry
    back = e / (e + 2)
    assert list_score(entries).item() == pytest.approx((there + back) / 2, rel=1e-6)


# --- positions -------------------------------------------------------------------------------


def test_a_clear_best_cell_is_the_position() -> None:
    grid, other = torch.Size((3, 4)), torch.Size((5, 5))
    cells = torch.randint(0, 25, (1, 12))
    there = found(100.0 * F.one_hot(cells, 25).float(), grid, other)
    centres = torch.from_numpy(geometry.cell_centres(5, 5)).float().flatten(0, 1)
    assert torch.allclose(there.positions.flatten(1, 2), centres[cells], atol=1e-6)
    assert torch.allclose(there.confidence, torch.ones(1, 3, 4))
    assert torch.equal(there.best, cells)


def test_points_of_an_affine_map_that_cells_follow_are_exact() -> None:
    """Bilinear transfer of points by the four matches around each, as PF-Pascal is scored."""
    matrix = np.array([[0.8, 0.15, 0.05], [-0.1, 0.9, 0.08], [0, 0, 1]])
    positions = geometry.transform_points(matrix, geometry.cell_centres(20, 20))
    points = np.random.default_rng(0).uniform(0.03, 0.97, (50, 2))
    expected = geometry.transform_points(matrix, points)
    assert np.abs(warp_points(positions, points) - expected).max() < 1e-15
