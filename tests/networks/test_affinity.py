"""AffinityNet: neighbours, what is learned of them, and the random walk."""

import math

import pytest
import torch
from made_classes import tiny_trunk

from generators.networks.classes.affinity import (
    UNSURE,
    AffinityHead,
    AffinityLoss,
    affinities,
    affinity_loss,
    offsets,
    pairs_of,
    transitions,
    walked,
)
from generators.networks.classes.sccam import SCCAM


def features_of(rows: int = 7, columns: int = 9, channels: int = 6) -> torch.Tensor:
    return torch.randn(channels, rows, columns, generator=torch.Generator().manual_seed(0))


# --- neighbours --------------------------------------------------------------------------------


def test_a_place_has_34_neighbours_each_pair_once() -> None:
    found = offsets(5)
    assert len(found) == len(set(found)) == 34
    assert all(math.hypot(y, x) < 5 for y, x in found)
    assert not {(-y, -x) for y, x in found} & set(found)


def test_as_many_places_have_all_neighbours_as_published() -> None:
    counts = torch.zeros(56 * 56, dtype=torch.int64)
    for one, _ in pairs_of(torch.arange(56 * 56).view(56, 56)):
        counts[one] += 1
    assert int((counts == 34).sum()) == 52 * 48 == 2496


@pytest.mark.parametrize("size", [(7, 9), (3, 12), (1, 1)])
def test_all_near_pairs_are_there(size: tuple[int, int]) -> None:
    """Also in grids that are smaller than the radius."""
    rows, columns = size
    found = {
        frozenset((int(a), int(b)))
        for one, other in pairs_of(torch.arange(rows * columns).view(rows, columns))
        for a, b in zip(one, other, strict=True)
    }
    places = [(y, x) for y in range(rows) for x in range(columns)]
    assert found == {
        frozenset((a, b))
        for a, one in enumerate(places)
        for b, other in enumerate(places)
        if 0 < math.dist(one, other) < 5
    }


# --- what is learned ---------------------------------------------------------------------------


def test_affinities_by_hand() -> None:
    features = torch.zeros(1, 2, 1, 2)
    features[0, :, 0, 1] = torch.tensor([1.0, 3.0])
    assert affinities(features).tolist() == [[pytest.approx(math.exp(-2))]]


def test_the_loss_by_hand() -> None:
    """Two pairs of background, one of a class, two of different ones, one of which nothing is
    known.
    """
    one = torch.tensor([[0, 0, 2, 0, 1, 1]])
    other = torch.tensor([[0, 0, 2, 1, 2, UNSURE]])
    found = torch.tensor([[0.5, 0.25, 0.8, 0.3, 0.6, 0.01]])
    near = -(math.log(0.5) + math.log(0.25)) / 2, -math.log(0.8)
    far = -(math.log(0.7) + math.log(0.4)) / 2
    expected = near[0] / 4 + near[1] / 4 + far / 2
    assert float(affinity_loss(found, one, other)) == pytest.approx(expected, abs=1e-4)


def test_it_teaches_its_head_alone() -> None:
    network = SCCAM(tiny_trunk(), 2, affinity=True)
    labels = torch.randint(0, 3, (2, 64, 64), generator=torch.Generator().manual_seed(0))
    labels[0, :10] = UNSURE
    AffinityLoss(network)(torch.rand(2, 3, 64, 64), labels.to(torch.uint8))["loss"].backward()
    taught = {name for name, p in network.named_parameters() if p.grad is not None}
    assert taught == {f"affinity.{name}" for name, _ in AffinityHead((8, 8, 16)).named_parameters()}


def test_the_published_head_has_as_many_weights() -> None:
    head = AffinityHead((512, 1024, 4096))
    expected = 64 * 512 + 128 * 1024 + 256 * 4096 + 448 * 448
    assert sum(p.numel() for p in head.parameters()) == expected


# --- the walk ----------------------------------------------------------------------------------


def test_ways_to_a_place_sum_to_one() -> None:
    step = transitions(features_of())
    torch.testing.assert_close(step.sum(dim=0), torch.ones(63))
    far = (6 * 9) + 8  # the last place, from the first
    assert step[0, far] == 0
    assert step[0, 1] > 0


def test_six_squarings_are_64_steps() -> None:
    step = transitions(features_of()).double()
    squared = step
    for _ in range(6):
        squared = squared @ squared
    torch.testing.assert_close(squared, torch.linalg.matrix_power(step, 64))
    ones = torch.ones(63, dtype=torch.float64)
    torch.testing.assert_close(squared.sum(dim=0), ones, rtol=0, atol=1e-4)


def test_a_constant_map_stays() -> None:
    """And becomes its share beside a background of (1 - v)^6, which it crosses at .2219."""
    for value, there in ((0.2215, False), (0.2223, True), (0.5, True)):
        maps = torch.full((1, 14, 18), value)
        found = walked(maps, features_of())
        share = value / (value + (1 - value) ** 6)
        torch.testing.assert_close(found, torch.full((1, 7, 9), share), atol=2e-4, rtol=0)
        assert bool((found > 0.5).all()) is there


def test_a_class_that_is_absent_stays_so() -> None:
    maps = torch.rand(2, 14, 18, generator=torch.Generator().manual_seed(1))
    with_absent = torch.cat([maps, torch.zeros(1, 14, 18)])
    found = walked(with_absent, features_of())
    assert not found[2].any()
    torch.testing.assert_close(found[:2], walked(maps, features_of()))


def test_the_walk_keeps_to_what_is_alike() -> None:
    """A blob in one half of an image whose halves differ fills that half alone."""
    features = torch.zeros(4, 8, 12)
    features[:, :, 6:] = 5
    maps = torch.zeros(1, 8, 12)
    maps[0, 2:6, 1:5] = 0.9
    found = walked(maps, features)[0]
    assert found[:, :6].min() > 0.3
    assert found[:, :6].max() - found[:, :6].min() < 1e-4
    assert found[:, 6:].max() < 1e-4
