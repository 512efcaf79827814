"""Shards to batches: every pair once an epoch, shuffled, augmented, with its ground truth."""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from segswap.batches.loading import Sayer, load_batches
from segswap.batches.samples import check_size, choose_styled, make_sample
from segswap.data.manifest import DatasetError, datasets_with, split_shards
from segswap.data.order import Mixture, Order
from segswap.data.pair import Pair
from segswap.data.shards import Members, listed_shard
from segswap.files import storage
from segswap.matchers.base import Batch

GENERATED = frozenset(
    {"pair", "mask", "positions", "same"}
)  # what is known of pairs that were generated
_GROUP_BYTES = 1 << 30  # of shards in use at a time; a quarter of what files/cache.py keeps


class Stream(Protocol):
    """The samples of a training run, numbered from 0 without end: what the trainer draws from.

    Which sample a number names, and how it is augmented, never depends on who asks or how often: a
    resumed run goes on at its next number, and ranks share the numbers out among them.
    """

    @property
    def truth(self) -> frozenset[str]:
        """What is known of its pairs: see `Batch.truth`."""

    def batches(
        self, batch: int, first: int, last: int, rank: int = 0, ranks: int = 1
    ) -> Iterator[Batch]:
        """Batches of the steps `first` to `last` - 1; each rank's step takes `batch` samples.

        Step k of rank r has the samples (k * ranks + r) * batch and the batch - 1 after it.
        """

    def name(self, number: int) -> str:
        """Where the pair behind a sample comes from, for messages."""


class PairSource(Stream, Protocol):
    """A stream of pairs that were generated, or are, perhaps among others."""

    def pair(self, number: int) -> Pair | None:
        """The pair behind a sample, as it was generated; None of a sample that was not."""


class PairStream:
    """The n-th sample of a training run, for any n.

    Which pair it is and how it is augmented depends on (datasets, split, weights, seed, n) alone,
    so that the number of loader processes changes nothing and a resumed run continues at its next
    sample.
    """

    def __init__(
        self, datasets: Sequence[str], split: str, *, size: int, stride: int,
        mask_stride: int | None = None, seed: int = 0, augment: bool = True, workers: int = 0,
        weights: Sequence[float] | None = None, skip_bad: bool = False, masked: bool = True,
        strong: bool = False,
    ) -> None:  # fmt: skip
        """
        Args:
            datasets: folders or URLs that segswap-generate wrote.
            split: train or val.
            size: side of the images in pixels, a multiple of the strides.
            stride: pixels a cell of the grid of positions.
            mask_stride: pixels a cell of the masks' grid; by default as many.
            seed: seeds order and augmentation.
            augment: False gives every pair as it is, plain, in order.
            workers: loader processes; 0 loads in this process. They change no sample.
            weights: of the datasets, one each: their shares of the samples. Each then goes through
                epochs of its own. None: an epoch is every pair of all of them.
            skip_bad: in place of a sample that cannot be read, the next one that can comes again,
                and the shard is named on stderr; otherwise it is an error.
            masked, strong: see `make_sample`.

        Raises:
            DatasetError: a dataset is missing, unfinished, of another format or given twice; none
                of them, or one with a weight, has pairs in the split.
            ValueError: the size or the weights do not fit.
            StorageError: a store cannot be read.
        """
        check_size(size, stride, mask_stride)
        self.size, self.seed, self.augment = size, seed, augment
        self.masked, self.strong = masked, strong
        self.cells, self.mask_cells = size // stride, size // (mask_stride or stride)
        self.workers, self.skip_bad = workers, skip_bad
        _check_distinct(datasets)
        if weights is not None and len(weights) != len(datasets):
            raise ValueError(
                f"{len(weights)} weights for {len(datasets)} datasets; expected one for each"
            )
        self._mixture = None if weights is None else Mixture(weights, seed)
        parts = [datasets] if weights is None else [[dataset] for dataset in datasets]
        self._shards: list[tuple[str, dict[str, Any]]] = []  # paths and entries of the manifests
        self._orders: list[tuple[int, Order]] = []  # each with the number of its first shard
        for number, part in enumerate(parts):
            shards = _listed(part, split)
            order = Order(
                [entry["pairs"] for _, entry in shards], [entry["bytes"] for _, entry in shards],
                (seed, number) if augment else None, group_bytes=_GROUP_BYTES // len(parts),
            )  # fmt: skip
            self._orders.append((len(self._shards), order))
            self._shards += shards
        self._bad: dict[int, str] = {}  # shards that cannot be opened, and why
        self.skipped: dict[int, str] = {}  # shards of which a sample was passed over, and why
        self._say = Sayer()

    @property
    def truth(self) -> frozenset[str]:
        """See Stream.truth."""
        return GENERATED

    def __len__(self) -> int:
        """Pairs in all datasets together."""
        return sum(len(order) for _, order in self._orders)

    def __getitem__(self, number: int) -> Batch:
        """The run's n-th sample, without the batch dimension."""
        rng = np.random.default_rng([self.seed, 1, number])
        pair, _ = self._read(number, lambda members: choose_styled(members, rng, self.augment))
        return make_sample(
            pair, rng, size=self.size, cells=self.cells, mask_cells=self.mask_cells,
            augment=self.augment, masked=self.masked, strong=self.strong,
        )  # fmt: skip

    def pair(self, number: int) -> Pair:
        """See PairSource.pair."""
        pair, _ = self._read(number)
        self._say(self.skipped)
        return pair

    def name(self, number: int) -> str:
        """See Stream.name."""
        return self._read(number)[1] if self.skip_bad else self._name(*next(self._places(number)))

    def batches(
        self, batch: int, first: int, last: int, rank: int = 0, ranks: int = 1
    ) -> Iterator[Batch]:
        """See Stream.batches."""
        return load_batches(
            self, batch, first, last, rank, ranks, workers=self.workers, say=self._say
        )

    def _places(self, number: int) -> Iterator[tuple[int, int]]:
        """The shard of the run's n-th sample and its place there; with skip_bad, then those of the
        samples that may come instead.
        """
        dataset, number = self._mixture.place(number) if self._mixture else (0, number)
        first, order = self._orders[dataset]
        for candidate in range(number, number + (len(order) if self.skip_bad else 1)):
            shard, place = order.place(candidate)
            yield first + shard, place

    def _name(self, shard: int, place: int) -> str:
        return f"{self._shards[shard][0]}, sample {place}"

    def _read(
        self, number: int, choose: Callable[[Members], Members] | None = None
    ) -> tuple[Pair, str]:
        """The pair behind a sample, and its name."""
        for shard, place in self._places(number):
            try:
                return self._decode(shard, place, choose), self._name(shard, place)
            except DatasetError as error:
                if not self.skip_bad:
                    raise
                self.skipped.setdefault(shard, str(error))
        raise DatasetError(f"no sample can be read: {self.skipped[shard]}")

    def _decode(self, shard: int, place: int, choose: Callable[[Members], Members] | None) -> Pair:
        path, entry = self._shards[shard]
        if shard in self._bad:
            raise DatasetError(self._bad[shard])
        try:
            opened = _open(path, entry["pairs"], entry["bytes"], entry["sha256"])
        except DatasetError as error:
            if self.skip_bad:
                self._bad[shard] = str(error)
            raise
        try:
            return opened.read(place, choose)
        except FileNotFoundError as error:
            raise DatasetError(f"{path} is missing; generate the dataset again") from error


def _check_distinct(datasets: Sequence[str]) -> None:
    places = [storage.absolute(dataset) for dataset in datasets]
    for dataset, place in zip(datasets, places, strict=True):
        if places.count(place) > 1:
            raise DatasetError(f"{dataset} is given twice; expected each dataset once")


def _listed(datasets: Sequence[str], split: str) -> list[tuple[str, dict[str, Any]]]:
    """Paths of all shards of a split, with what the manifests say of them."""
    return [
        (storage.join(dataset, entry["name"]), entry)
        for dataset in datasets_with(datasets, split)
        for entry in split_shards(dataset, split)
    ]


# A dataset made anew in another's place is listed with other hashes.
_open = lru_cache(maxsize=256)(listed_shard)
