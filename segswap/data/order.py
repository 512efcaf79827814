"""Which pair is the n-th of a run: computed from n, shuffled, and friendly to remote shards."""

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_BLOCK = 1000  # samples over which the shares of a mixture are exact
_SHUFFLE, _MIXTURE = 0, 2  # what a generator is for; stream.py's is 1


@dataclass(frozen=True)
class Epoch:
    """One epoch's order of shards.

    Attributes:
        shards: their numbers.
        ends: samples up to the end of each of them, in that order.
        groups: samples up to the end of each group of them.
    """

    shards: NDArray[np.int64]
    ends: NDArray[np.int64]
    groups: list[int]


class Order:
    """Every sample of some shards once an epoch.

    An epoch is a permutation of the shards, of which consecutive ones make a group, and a
    permutation of the samples inside each group. So only the shards of a group and the next one
    are in use at a time, and what is at a URL is fetched once an epoch.
    """

    def __init__(
        self, pairs: Sequence[int], lengths: Sequence[int], seed: tuple[int, int] | None, *,
        group_shards: int = 16, group_bytes: int = 1 << 30,
    ) -> None:  # fmt: skip
        """
        Args:
            pairs: of each shard.
            lengths: bytes of each shard.
            seed: the run's, and the number of these shards' dataset; None leaves all in order.
            group_shards: at most so many shards make a group,
            group_bytes: and at most so many bytes, but for a single shard.
        """
        self._pairs = np.array(pairs, np.int64)
        self._lengths = lengths
        self._seed = None if seed is None else (seed[0], _SHUFFLE, seed[1])
        self._group_shards, self._group_bytes = group_shards, group_bytes
        self._total = int(self._pairs.sum())

    def __len__(self) -> int:
        """Samples in an epoch."""
        return self._total

    def place(self, number: int) -> tuple[int, int]:
        """The shard of the n-th sample, and its place in the shard; n has no end."""
        epoch, position = divmod(number, self._total)
        order = _epoch(self, epoch)
        if self._seed is not None:
            group = bisect.bisect_right(order.groups, position)
            first = order.groups[group - 1] if group else 0
            permutation = _permutation((*self._seed, epoch, 1 + group), order.groups[group] - first)
            position = first + int(permutation[position - first])
        index = int(np.searchsorted(order.ends, position, side="right"))
        shard = int(order.shards[index])
        return shard, position - int(order.ends[index] - self._pairs[shard])

    def epoch(self, number: int) -> Epoch:
        """The order of the shards in an epoch."""
        count = len(self._pairs)
        shards = np.arange(count)
        if self._seed is not None:
            shards = _permutation((*self._seed, number, 0), count)
        ends = np.cumsum(self._pairs[shards])
        groups: list[int] = []
        held, room = self._group_shards, 0
        for shard, end in zip(shards.tolist(), ends.tolist(), strict=True):
            length = self._lengths[shard]
            if held == self._group_shards or length > room:  # the first one too
                groups.append(0)
                held, room = 0, self._group_bytes
            groups[-1] = end
            held, room = held + 1, room - length
        return Epoch(shards, ends, groups)


class Mixture:
    """Which dataset each sample of a run comes from: exact shares over every 1000 samples."""

    def __init__(self, weights: Sequence[float], seed: int) -> None:
        """
        Args:
            weights: of the datasets; only their ratios count.
            seed: seeds the order.

        Raises:
            ValueError: a weight that is not positive and finite, or gives no sample in 1000.
        """
        if not all(math.isfinite(weight) and weight > 0 for weight in weights):
            raise ValueError(f"the datasets' weights {list(weights)} must be positive and finite")
        shares = np.array(weights, np.float64) / max(weights)
        shares *= _BLOCK / shares.sum()
        counts = np.floor(shares).astype(np.int64)
        # What rounding down left goes to the largest remainders.
        largest = np.argsort(-(shares - counts), kind="stable")
        counts[largest[: _BLOCK - counts.sum()]] += 1
        if not counts.all():
            raise ValueError(
                f"the datasets' weights {list(weights)} leave one without a sample in {_BLOCK}; "
                "raise the smallest, or leave its dataset out"
            )
        self._counts, self._seed = counts, seed

    def place(self, number: int) -> tuple[int, int]:
        """The dataset of the n-th sample, and how many samples of it come before."""
        block, position = divmod(number, _BLOCK)
        bounds = np.cumsum(self._counts)
        drawn = _permutation((self._seed, _MIXTURE, block), _BLOCK)
        dataset = int(np.searchsorted(bounds, drawn[position], side="right"))
        high = bounds[dataset]
        before = drawn[:position]
        own = int(((before < high) & (before >= high - self._counts[dataset])).sum())
        return dataset, block * int(self._counts[dataset]) + own


@lru_cache(maxsize=16)
def _epoch(order: Order, number: int) -> Epoch:
    return order.epoch(number)


@lru_cache(maxsize=64)
def _permutation(seed: tuple[int, ...], length: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).permutation(length)
