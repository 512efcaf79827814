"""Pairs generated while a matcher trains: by Ray workers, as training samples, never written."""

import copy
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cached_property, partial
from itertools import islice, pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.command.cluster import import_ray, ray_cluster
from pipelines.command.messages import LOG
from pipelines.command.tasks import at_once, cores, gpu_share, run_in_order, say_available
from pipelines.generation.config import (
    Amount,
    Composition,
    GenerateConfig,
    Inputs,
    Running,
    Styling,
)  # fmt: skip
from pipelines.generation.job import absolute
from pipelines.training.made import MadePairs, Source, prepared
from segswap.batches.mixed import MixedStream
from segswap.batches.samples import check_size, make_sample
from segswap.data.pair import Pair
from segswap.matchers.base import Batch

_SIDE = 480  # of the pairs in pixels, where training asks for no more
_CHUNK = 8  # most samples a task
_AHEAD = 2  # batches ready for the trainer, beside what the workers have in hand
_STORE_SHARE = 0.25  # most of a node's object store that samples may take
# Samples, their tensors as arrays, which Ray hands over without copying; and what was left out.
_Chunk = tuple[Batch, dict[Any, str]]


@contextmanager
def live_stream(
    inputs: Inputs, composition: Composition, styling: Styling, *, size: int, stride: int,
    mask_stride: int | None = None, seed: int, workers: int, address: str | None = None,
    masked: bool = True, strong: bool = False,
    mix: Callable[["MadePairs"], MixedStream] | None = None,
) -> Iterator["LiveStream"]:  # fmt: skip
    """Training samples from the Ray cluster's workers, until the context is left.

    Ray is started, or joined at an address, and left at the end; where this process is in a cluster
    already, as Ray Train's processes are, that one is used. A fifth of the images is held out for
    validation as segswap-generate does it, where both splits can then be made.

    Args:
        inputs, composition, styling: what the pairs are made from and how, as segswap-generate
            takes them. Inputs are folders that all machines of the cluster share, or URLs.
        size: side of the samples' images in pixels, a multiple of the strides.
        stride: pixels a cell of the matcher's grid of positions.
        mask_stride: pixels a cell of its masks' grid; by default as many.
        seed: seeds everything.
        workers: worker processes that this process keeps busy, 1 or more.
        address: a running cluster's; None for one of this process's own.
        masked, strong: see `make_sample`.
        mix: mixes the samples that are made with others, which the workers make too; theirs must be
            files that all machines share. None gives those that are made alone.

    Raises:
        ValueError: the inputs cannot be used, or the numbers do not fit.
        RuntimeError: Ray does not start, or no acceptable pair can be drawn.
    """
    check_size(size, stride, mask_stride)
    if workers < 1:
        raise ValueError(f"--workers is {workers}; live generation needs at least 1")
    joined = import_ray().is_initialized()
    with (
        nullcontext() if joined else ray_cluster(min(workers, cores()), address),
        tempfile.TemporaryDirectory(prefix="segswap-live-") as folder,
    ):
        if not joined:
            say_available(workers, address)
        config = GenerateConfig(
            folder, Amount(pairs=1, val_pairs=1, seed=seed, size=max(size, _SIDE)), inputs,
            composition, styling, Running(workers, address),
        )  # fmt: skip
        sample = partial(
            make_sample, size=size, cells=size // stride,
            mask_cells=size // (mask_stride or stride), masked=masked, strong=strong,
        )  # fmt: skip
        sources = prepared(absolute(config))
        made = MadePairs(sources["train"], sample)
        yield LiveStream(mix(made) if mix else made, made, sources.get("val"))


class LiveStream:
    """The n-th sample of a training run for any n, made by workers when it is wanted: see Stream.

    Nothing but its number decides what a sample is.
    """

    def __init__(
        self, samples: MadePairs | MixedStream, made: MadePairs, val: Source | None
    ) -> None:
        """
        Args:
            samples: what the workers make.
            made: those of them that are generated, or all.
            val: source of the val split, where there is one.
        """
        import ray

        self._samples, self._made, self._val = samples, made, val
        self._shipped = ray.put(samples)
        config = made.source.config
        self._workers = config.running.workers
        # Where trainers hold all GPUs, workers ask for none and share what they see.
        free = config.styling.style == "adain" and ray.available_resources().get("GPU")
        self._gpu = gpu_share(at_once(self._workers)) if free else 0.0
        self._said: set[Any] = set()

    def batches(
        self, batch: int, first: int, last: int, rank: int = 0, ranks: int = 1
    ) -> Iterator[Batch]:
        """See Stream.batches.

        A few batches are made ahead, and none is begun until one of them is taken. Closing the
        iterator cancels those under way.
        """
        pieces = -(-batch // _CHUNK)
        cuts = [batch * piece // pieces for piece in range(pieces + 1)]
        items = (
            (self._shipped, start + low, start + high)
            for start in ((step * ranks + rank) * batch for step in range(first, last))
            for low, high in pairwise(cuts)
        )
        room = _smallest_store() * _STORE_SHARE / ranks / (batch / pieces * self._sample_bytes)
        window = min(self._workers + _AHEAD * pieces, max(1, int(room)))
        chunks = run_in_order(_make_chunk, items, window, self._gpu)
        try:
            while parts := list(islice(chunks, pieces)):
                for _, skipped in parts:
                    self._say(skipped)
                joined = Batch.joined([samples for samples, _ in parts], _out_of_store)
                parts.clear()  # or they stay in the object store until the next ones are there
                yield joined.each(Tensor.pin_memory) if torch.cuda.is_available() else joined
        finally:
            chunks.close()

    @property
    def truth(self) -> frozenset[str]:
        """See Stream.truth."""
        return self._samples.truth

    def pair(self, number: int) -> Pair | None:
        """See PairSource.pair; composed in this process, without styled versions."""
        return self._samples.pair(number)

    def name(self, number: int) -> str:
        """See Stream.name."""
        return self._samples.name(number)

    def val_pairs(self, count: int) -> list[Pair]:
        """The first pairs of the val split, without styled versions. Its images are in no training
        pair; where none could be held out, there are no pairs.
        """
        import ray

        if self._val is None:
            return []
        source = ray.put(self._val)
        items = ((source, index) for index in range(count))
        pairs = run_in_order(_make_pair, items, self._workers + _AHEAD)
        # Copies: what is in the object store stays there as long as it is used.
        return [copy.deepcopy(pair) for pair in pairs]

    @cached_property
    def _sample_bytes(self) -> int:
        made = self._made.plain()
        if isinstance(self._samples, MixedStream):
            made = self._samples.filled(made)
        return sum(t.nbytes for side in made for t in side if t is not None)

    def _say(self, skipped: dict[Any, str]) -> None:
        for key in skipped.keys() - self._said:
            self._said.add(key)
            LOG.warning("left out: %s", skipped[key])


def _smallest_store() -> int:
    """Bytes of the smallest object store among the cluster's nodes."""
    import ray

    return int(min(n["Resources"].get("object_store_memory", 0) for n in ray.nodes() if n["Alive"]))


def _out_of_store(arrays: tuple[NDArray, ...]) -> Tensor:
    return torch.from_numpy(np.concatenate(arrays))


# --- in a worker -------------------------------------------------------------------------------


def _make_pair(source: Source, index: int) -> Pair:
    return source.pair(index)[0]


def _make_chunk(samples: MadePairs | MixedStream, first: int, last: int) -> _Chunk:
    """The samples `first` to `last` - 1."""
    as_arrays: Any = Tensor.numpy
    joined = Batch.joined(samples.together(range(first, last)))
    return joined.each(as_arrays), dict(samples.skipped)
