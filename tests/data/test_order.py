"""Every sample once an epoch, shuffled in groups of shards; datasets mixed in exact shares."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segswap.data.order import Mixture, Order

shards = st.lists(st.integers(1, 12), min_size=1, max_size=30)
seeds = st.integers(0, 2**32)


def order_of(pairs: list[int], seed: int = 0, **options: int) -> Order:
    return Order(pairs, [10 * count for count in pairs], (seed, 0), **options)


def epoch_of(order: Order, number: int) -> list[tuple[int, int]]:
    return [order.place(number * len(order) + k) for k in range(len(order))]


@given(shards, seeds, st.integers(0, 1000), st.integers(1, 5), st.integers(1, 300))
def test_every_sample_comes_once_an_epoch(
    pairs: list[int], seed: int, epoch: int, group_shards: int, group_bytes: int
) -> None:
    order = order_of(pairs, seed, group_shards=group_shards, group_bytes=group_bytes)
    assert len(order) == sum(pairs)
    everything = [(shard, place) for shard, count in enumerate(pairs) for place in range(count)]
    assert sorted(epoch_of(order, epoch)) == everything


@given(shards, seeds, st.integers(1, 5), st.integers(1, 300))
def test_a_shard_is_used_up_before_more_than_a_groups_others(
    pairs: list[int], seed: int, group_shards: int, group_bytes: int
) -> None:
    order = order_of(pairs, seed, group_shards=group_shards, group_bytes=group_bytes)
    seen = [shard for shard, _ in epoch_of(order, 0)]
    first = {shard: seen.index(shard) for shard in seen}
    last = {shard: len(seen) - 1 - seen[::-1].index(shard) for shard in seen}
    for position in range(len(seen)):
        in_use = [s for s in first if first[s] <= position <= last[s]]
        assert len(in_use) <= group_shards
        assert len(in_use) == 1 or sum(10 * pairs[s] for s in in_use) <= group_bytes


def test_epochs_and_seeds_give_other_orders() -> None:
    order = order_of([5] * 8, 1, group_shards=3)
    orders = [tuple(epoch_of(order, epoch)) for epoch in range(20)]
    orders += [tuple(epoch_of(order_of([5] * 8, seed, group_shards=3), 0)) for seed in range(2, 20)]
    assert len(set(orders)) == len(orders)
    # Shards and the samples inside of a group are both shuffled: other shards come first.
    for some in (orders[:20], orders[20:]):
        assert len({frozenset(s for s, _ in o[:15]) for o in some}) > 10
    mixed = [sum(a != b for (a, _), (b, _) in pairwise(o)) for o in orders]
    assert np.mean(mixed) > 20


def test_a_shards_samples_come_in_another_order_in_each_epoch_and_group() -> None:
    order = order_of([9, 9], 4, group_shards=1)
    runs = [[place for _, place in epoch_of(order, epoch)] for epoch in range(8)]
    halves = {tuple(half) for run in runs for half in (run[:9], run[9:])}
    assert len(halves) == 16


def test_places_follow_from_the_number_alone() -> None:
    order = order_of([3, 9, 4, 4], 7)
    forwards = [order.place(number) for number in range(100)]
    again = order_of([3, 9, 4, 4], 7)
    assert [again.place(number) for number in reversed(range(100))] == forwards[::-1]


def test_in_order_where_nothing_is_shuffled() -> None:
    order = Order([2, 3], [1, 1], None)
    expected = [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]
    assert [order.place(number) for number in range(10)] == expected * 2


@given(st.lists(st.floats(0.5, 20), min_size=1, max_size=6), seeds, st.integers(0, 50))
def test_every_block_has_the_datasets_exact_shares(
    weights: list[float], seed: int, block: int
) -> None:
    mixture = Mixture(weights, seed)
    drawn = [mixture.place(number) for number in range(1000 * block, 1000 * (block + 1))]
    counts = Counter(dataset for dataset, _ in drawn)
    for dataset, weight in enumerate(weights):
        assert abs(counts[dataset] - 1000 * weight / sum(weights)) < 1
        # Its own numbers follow each other, from block to block too.
        own = [number for d, number in drawn if d == dataset]
        assert own == list(range(block * counts[dataset], (block + 1) * counts[dataset]))


def test_mixtures_are_shuffled_and_only_ratios_count() -> None:
    drawn = [Mixture([3, 1], 5).place(number) for number in range(3000)]
    assert drawn == [Mixture([0.3, 0.1], 5).place(number) for number in range(3000)]
    assert drawn != [Mixture([3, 1], 6).place(number) for number in range(3000)]
    blocks = [[dataset for dataset, _ in drawn[k : k + 1000]] for k in (0, 1000, 2000)]
    assert blocks[0] != blocks[1] != blocks[2]
    assert all(sum(block) == 250 for block in blocks)
    # In every stretch of 100, near enough.
    assert all(10 <= sum(blocks[0][k : k + 100]) <= 45 for k in range(0, 1000, 100))


@pytest.mark.parametrize("weights", [[1, 0], [1, -2], [1, float("nan")], [float("inf"), 1]])
def test_weights_that_are_none_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match=r"must be positive and finite"):
        Mixture(weights, 0)


def test_a_weight_too_small_to_count_is_refused() -> None:
    with pytest.raises(ValueError, match="without a sample in 1000"):
        Mixture([1, 1e-5], 0)
    assert Counter(Mixture([1, 0.001], 0).place(n)[0] for n in range(1000))[1] == 1
