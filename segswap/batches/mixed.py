"""Several streams as one: what the samples of one do not tell is unknown in the mix."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from segswap.batches.loading import Samples, Sayer, load_batches
from segswap.data.order import Mixture
from segswap.data.pair import Pair
from segswap.matchers.base import Batch


class Part(Samples, Protocol):
    """A stream of a mix."""

    @property
    def truth(self) -> frozenset[str]:
        """See `Stream.truth`."""

    def name(self, number: int) -> str:
        """See `Stream.name`."""


class MixedStream:
    """The n-th sample of a mix, for any n: see `Stream`.

    Which stream it is of follows from (weights, seed, n); each goes through its own samples in
    their order. All samples have the same fields: masks and the very same thing are NaN where a
    stream does not know them, positions not valid, keypoints not seen, labels -1.
    """

    def __init__(
        self, streams: Sequence[Part], weights: Sequence[float], *, size: int, stride: int,
        mask_stride: int | None = None, kinds: int = 0, keypoints: int = 0, seed: int = 0,
        workers: int = 0,
    ) -> None:  # fmt: skip
        """
        Args:
            streams: of samples of one size on the same grids; those with kinds or keypoints have
                the same ones.
            weights: of the streams, one each: their shares of the samples.
            size, stride, mask_stride: of the samples, as the streams were given them.
            kinds: how many kinds of things the labels are of.
            keypoints: how many there are.
            seed: seeds the order.
            workers: loader processes; 0 loads in this process. They change no sample.

        Raises:
            ValueError: the weights do not fit.
        """
        if len(weights) != len(streams):
            raise ValueError(
                f"{len(weights)} weights for {len(streams)} streams; expected one for each"
            )
        self.streams, self.workers = tuple(streams), workers
        self._mixture, self._say = Mixture(weights, seed), Sayer()
        cells, mask_cells = size // stride, size // (mask_stride or stride)
        unknown = _unknown(cells, mask_cells, kinds, keypoints)
        self._unknown = {k: v for name in self.truth for k, v in unknown.get(name, {}).items()}

    @property
    def truth(self) -> frozenset[str]:
        """What is known of some of its pairs: see `Stream.truth`."""
        return frozenset().union(*(stream.truth for stream in self.streams))

    @property
    def skipped(self) -> Mapping[Any, str]:
        """Why something was passed over so far, by the number of its stream and its own there."""
        return {
            (part, key): reason
            for part, stream in enumerate(self.streams) for key, reason in stream.skipped.items()
        }  # fmt: skip

    def __getitem__(self, number: int) -> Batch:
        """The run's n-th sample, without the batch dimension."""
        part, own = self.place(number)
        return self.filled(self.streams[part][own])

    def together(self, numbers: Sequence[int]) -> list[Batch]:
        """Some samples, those of a stream that makes its own together made so."""
        places = list(map(self.place, numbers))
        made: dict[tuple[int, int], Batch] = {}
        for part, stream in enumerate(self.streams):
            own = [number for which, number in places if which == part]
            some: Any = getattr(stream, "together", lambda found, of=stream: [of[n] for n in found])
            made |= {(part, n): sample for n, sample in zip(own, some(own), strict=True)}
        return [self.filled(made[place]) for place in places]

    def place(self, number: int) -> tuple[int, int]:
        """The stream of the n-th sample, and its number there."""
        return self._mixture.place(number)

    def filled(self, sample: Batch) -> Batch:
        """A sample of one of the streams with the fields of all of them."""
        sides = (
            side._replace(**{n: v for n, v in self._unknown.items() if getattr(side, n) is None})
            for side in sample
        )
        return Batch(*sides)

    def pair(self, number: int) -> Pair | None:
        """See PairSource.pair; None of a sample that is of none."""
        part, own = self.place(number)
        stream: Any = self.streams[part]
        return stream.pair(own) if hasattr(stream, "pair") else None

    def batches(
        self, batch: int, first: int, last: int, rank: int = 0, ranks: int = 1
    ) -> Iterator[Batch]:
        """See `Stream.batches`."""
        return load_batches(
            self, batch, first, last, rank, ranks, workers=self.workers, say=self._say
        )

    def name(self, number: int) -> str:
        """See `Stream.name`."""
        part, own = self.place(number)
        return self.streams[part].name(own)


def _unknown(
    cells: int, mask_cells: int, kinds: int, keypoints: int
) -> dict[str, dict[str, Tensor]]:
    """Of what a batch may know, by its name in `Batch.truth`: a side's fields when it does not."""
    grid = cells, cells
    return {
        "mask": {"mask": torch.full((mask_cells, mask_cells), torch.nan)},
        "same": {"same": torch.full(grid, torch.nan)},
        "positions": {
            "positions": torch.zeros(*grid, 2), "valid": torch.zeros(grid, dtype=torch.bool)
        },
        "keypoints": {
            "keypoints": torch.zeros(keypoints, 2), "seen": torch.zeros(keypoints, dtype=torch.bool)
        },
        "label": {"labels": torch.full((kinds,), -1, dtype=torch.int8)},
    }  # fmt: skip
