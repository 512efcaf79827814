"""Shards to batches: every pair once an epoch, shuffled, augmented, with its ground truth."""

import bisect
import signal
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from segswap.augment import Warp, photometric, random_spline
from segswap.pair import Pair
from segswap.shards import Members, Shard, datasets_with, split_shards
from segswap.truth import GridTruth, source_truth, target_truth


class Batch(NamedTuple):
    """Pairs and their ground truth on the matcher's grid.

    Attributes:
        source, target: uint8 (B, 3, S, S) RGB.
        source_mask, target_mask: float32 (B, h, w) in [0, 1], the share of each cell that both
            images show.
        to_target, to_source: float32 (B, h, w, 2), where each cell's centre lies in the other
            image, normalised.
        source_valid, target_valid: bool (B, h, w), where that is known.
    """

    source: Tensor
    target: Tensor
    source_mask: Tensor
    target_mask: Tensor
    to_target: Tensor
    to_source: Tensor
    source_valid: Tensor
    target_valid: Tensor

    def to(self, device: torch.device) -> "Batch":
        """The batch on another device."""
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in self))


class PairStream(Dataset):
    """The n-th sample of a training run, for any n.

    Which pair it is and how it is augmented depends on (datasets, split, seed, n) alone, so that
    the number of loader processes changes nothing and a resumed run continues at its next sample.
    """

    def __init__(
        self, datasets: Sequence[str], split: str, *, size: int, stride: int, seed: int = 0,
        augment: bool = True,
    ) -> None:  # fmt: skip
        """
        Args:
            datasets: folders that segswap-generate wrote.
            split: train or val.
            size: side of the images in pixels, a multiple of the stride.
            stride: pixels a cell.
            seed: seeds order and augmentation.
            augment: False gives every pair as it is, plain, in order.
        """
        if size % stride:
            raise ValueError(f"the size {size} is no multiple of the matcher's stride {stride}")
        self.size, self.cells, self.seed, self.augment = size, size // stride, seed, augment
        self._shards = [
            (Path(dataset) / entry["name"], entry["pairs"])
            for dataset in datasets_with(datasets, split)
            for entry in split_shards(dataset, split)
        ]
        self._ends = list(accumulate(pairs for _, pairs in self._shards))

    def __len__(self) -> int:
        """Pairs in one epoch."""
        return self._ends[-1]

    def __getitem__(self, number: int) -> Batch:
        """The run's n-th sample, without the batch dimension."""
        epoch, position = divmod(number, len(self))
        rng = np.random.default_rng([self.seed, 1, number])
        if self.augment:
            position = int(_order(self.seed, epoch, len(self))[position])
        shard, place = self._find(position)
        return self._sample(shard.read(place, lambda members: self._sides(members, rng)), rng)

    def _find(self, position: int) -> tuple[Shard, int]:
        """The shard of the epoch's sample at a position, and its place in it."""
        number = bisect.bisect_right(self._ends, position)
        path, pairs = self._shards[number]
        return _shard(path), position - (self._ends[number] - pairs)

    def _sides(self, members: Members, rng: np.random.Generator) -> Members:
        """The members to decode: of each side one image, styled with a probability of 0.5."""
        for side in ("source", "target"):
            styled = members.pop(f"{side}_styled.jpg", None)
            if self.augment and styled is not None and rng.random() < 0.5:
                members[f"{side}.jpg"] = styled
        return members

    def _sample(self, pair: Pair, rng: np.random.Generator) -> Batch:
        source_warp = target_warp = Warp()
        if self.augment:
            mirrored = bool(rng.random() < 0.5)
            spline = random_spline(rng) if rng.random() < 0.5 else None
            source_warp, target_warp = Warp(mirrored), Warp(mirrored, spline)
        source = source_warp.image(pair.source, self.size)
        target = target_warp.image(pair.target, self.size)
        if self.augment:
            source, target = photometric(source, rng), photometric(target, rng)
        truths = (
            source_truth(pair, self.cells, self.cells, source_warp, target_warp),
            target_truth(pair, self.cells, self.cells, source_warp, target_warp),
        )
        if self.augment and rng.random() < 0.5:  # the two sides exchange their roles
            source, target, truths = target, source, truths[::-1]
        return _tensors(source, target, *truths)


def _tensors(
    source: NDArray[np.uint8], target: NDArray[np.uint8], there: GridTruth, back: GridTruth
) -> Batch:
    def image(pixels: NDArray[np.uint8]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))

    return Batch(
        image(source), image(target),
        torch.from_numpy(there.mask), torch.from_numpy(back.mask),
        torch.from_numpy(there.positions), torch.from_numpy(back.positions),
        torch.from_numpy(there.valid), torch.from_numpy(back.valid),
    )  # fmt: skip


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, length: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, 0, epoch]).permutation(length)


@lru_cache(maxsize=256)
def _shard(path: Path) -> Shard:
    return Shard.open(path)


def batches(stream: PairStream, batch: int, first: int, last: int, workers: int) -> Iterator[Batch]:
    """Batches number `first` to `last` - 1 of a run, each of `batch` consecutive samples.

    Args:
        workers: loader processes; 0 loads in this process. It changes no batch.
    """
    loader = DataLoader(
        stream, batch_size=batch, sampler=range(first * batch, last * batch), num_workers=workers,
        worker_init_fn=_start_worker, pin_memory=torch.cuda.is_available(),
        persistent_workers=False,
        # Starting a loader draws a number: not from the generator of a run's dropout.
        generator=torch.Generator(),
    )  # fmt: skip
    return iter(loader)


def _start_worker(_: int) -> None:
    import cv2

    cv2.setNumThreads(0)
    # An interrupt of the whole process group is the trainer's affair: it still writes a checkpoint
    # and then ends its loaders. A second SIGTERM does end them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))
    torch.set_num_threads(1)
