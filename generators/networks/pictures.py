"""Numbered samples of pictures: every epoch in its own order, loaded by processes."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segswap.batches.processes import load

P = TypeVar("P")


class NumberedPictures(Generic[P]):
    """`Samples` of a training: sample n follows from (seed, n) alone."""

    def __init__(self, pictures: Sequence[P], seed: int, workers: int) -> None:
        """
        Args:
            pictures: to learn from.
            seed: seeds what is drawn.
            workers: processes that load pictures; 0 loads in this one. They change no sample.
        """
        self._pictures, self._seed, self._workers = list(pictures), seed, workers
        self._order = lru_cache(maxsize=2)(self._shuffled)

    def _shuffled(self, epoch: int) -> NDArray[np.intp]:
        order = np.random.default_rng([self._seed, epoch]).permutation(len(self._pictures))
        return order.astype(np.intp)

    def place(self, n: int) -> int:
        """Place among the pictures of that of the sample with a number."""
        epoch, place = divmod(n, len(self._pictures))
        return int(self._order(epoch)[place])

    def picture(self, n: int) -> P:
        """The picture of the sample with a number."""
        return self._pictures[self.place(n)]

    def batches(
        self, batch: int, first: int, last: int, rank: int = 0, ranks: int = 1
    ) -> Iterator[list[Tensor]]:
        """See Samples.batches: the parts of the samples, stacked."""
        joined = partial(self._joined, batch, rank, ranks)
        return load(joined, range(first, last), self._workers)

    def _joined(self, batch: int, rank: int, ranks: int, number: int) -> list[Tensor]:
        """What one process is given of the batch with a number."""
        start = (number * ranks + rank) * batch
        samples = [self.sample(n, number) for n in range(start, start + batch)]
        return [torch.stack(part) for part in zip(*samples, strict=True)]

    @abstractmethod
    def sample(self, n: int, batch: int) -> tuple[Tensor, ...]:
        """The sample with a number, in the batch with a number."""
