"""Pairs generated while a matcher trains: by Ray workers, as training samples, never written."""

import copy
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import islice, pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from generators.composition.compose import RejectedDraw
from generators.composition.recipe import Look
from generators.sources.index import Index, Pool
from generators.styles.style import Styler
from pipelines.command import cli
from pipelines.command.tasks import (
    at_once,
    cores,
    gpu_share,
    ray_cluster,
    run_in_order,
    run_on_ray,
    say_available,
)  # fmt: skip
from pipelines.generate.config import (
    SPLITS,
    Amount,
    Composition,
    GenerateConfig,
    Inputs,
    Running,
    Styling,
)  # fmt: skip
from pipelines.generate.dataset import WORK
from pipelines.generate.inputs import prepare, split_inputs, styler_of
from pipelines.generate.job import absolute, compose
from segswap.batches.samples import check_size, make_sample
from segswap.batches.stream import GENERATED
from segswap.data.pair import Pair
from segswap.files import stopwatch, storage
from segswap.matchers.base import Batch

_SIDE = 480  # of the pairs in pixels, where training asks for no more
_CHUNK = 8  # most samples a task
_AHEAD = 2  # batches ready for the trainer, beside what the workers have in hand
_STORE_SHARE = 0.25  # most of a node's object store that samples may take
_NAMED = 5  # unusable inputs that are named; of more, the count is said
# Samples, their tensors as arrays, which Ray hands over without copying; and unusable images with
# the reasons.
_Chunk = tuple[Batch, dict[str, str]]


@contextmanager
def live_stream(
    inputs: Inputs, composition: Composition, styling: Styling, *, size: int, stride: int,
    mask_stride: int | None = None, seed: int, workers: int, address: str | None = None,
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

    Raises:
        ValueError: the inputs cannot be used, or the numbers do not fit.
        RuntimeError: Ray does not start, or no acceptable pair can be drawn.
    """
    check_size(size, stride, mask_stride)
    if workers < 1:
        raise ValueError(f"--workers is {workers}; live generation needs at least 1")
    import ray

    joined = ray.is_initialized()
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
            make_sample, size=size, cells=size // stride, mask_cells=size // (mask_stride or stride)
        )
        yield LiveStream(_prepared(absolute(config)), sample)


# --- what pairs are made from ------------------------------------------------------------------


@dataclass(frozen=True)
class _Source:
    """What a worker makes the pairs of one split from; it maps the arrays from the object store.

    Attributes:
        config: the settings, as segswap-generate's.
        pool, look: see generate_pair; the styler, which holds a network, is each worker's own.
        split: train or val.
    """

    config: GenerateConfig
    pool: Pool
    look: Look
    split: str

    def pair(
        self, index: int, broken: dict[str, str] | None = None
    ) -> tuple[Pair, np.random.Generator]:
        """A pair of the split as segswap-generate composes it, without styled versions.

        Args:
            index: the pair's index in the split.
            broken: takes up unusable images, with the reasons.

        Returns:
            The pair, and its generator, from which its styles are yet to be drawn.
        """

        def note(rejection: RejectedDraw) -> None:
            if rejection.image and broken is not None:
                broken[rejection.image["image"]] = rejection.image["reason"]

        return compose(self.config, self.pool, self.look, self.split, index, note)


def _prepared(config: GenerateConfig) -> dict[str, _Source]:
    """The sources of the train split and, where it can be made, of the val split."""
    try:
        return _sources(config)
    except (ValueError, RuntimeError):
        # Either the images are too few to be parted, or there is more wrong, which is raised now.
        sources = _sources(replace(config, amount=replace(config.amount, val_pairs=0)))
        print("too few images to hold some out: there are no validation pairs", file=sys.stderr)
        return sources


def _sources(config: GenerateConfig) -> dict[str, _Source]:
    run = partial(run_on_ray, workers=config.running.workers)
    skipped = prepare(config, cli.as_dict(config), storage.join(config.out, WORK), run)
    wanted = (config.amount.pairs, config.amount.val_pairs)
    sources = {}
    for split in (split for split, pairs in zip(SPLITS, wanted, strict=True) if pairs):
        pool, look = split_inputs(config, split)
        sources[split] = _Source(config, _in_memory(pool), replace(look, styler=None), split)
        sources[split].pair(0)  # where no draw is acceptable, this says so
    for entry in skipped[:_NAMED]:
        print("left out: " + ", ".join(map(str, entry.values())), file=sys.stderr)
    if len(skipped) > _NAMED:
        print(f"left out: {len(skipped) - _NAMED} more of the inputs", file=sys.stderr)
    return sources


def _in_memory(pool: Pool) -> Pool:
    """A pool with plain arrays, which reach workers without being copied; mapped files do not."""

    def plain(index: Index) -> Index:
        return replace(index, arrays={k: np.asarray(v) for k, v in index.arrays.items()})

    index = plain(pool.index)
    behind = index if pool.backgrounds is pool.index else plain(pool.backgrounds)
    return replace(pool, index=index, backgrounds=behind)


# --- in the trainer ----------------------------------------------------------------------------


class LiveStream:
    """The n-th sample of a training run for any n, generated when it is wanted: see Stream.

    Sample n is pair n of the train split that segswap-generate makes of the same inputs, settings
    and seed, each side plain or styled, and augmented: all of it drawn from (seed, n) alone.
    """

    def __init__(self, sources: dict[str, _Source], sample: Callable[..., Batch]) -> None:
        """
        Args:
            sources: of the train split, and of the val split where there is one.
            sample: makes a sample of a pair and a random generator, as `make_sample`.
        """
        import ray

        self._sources, self._sample = sources, sample
        self._train = ray.put(sources["train"])
        config = sources["train"].config
        self._seed, self._workers = config.amount.seed, config.running.workers
        # Where trainers hold all GPUs, workers ask for none and share what they see.
        free = config.styling.style == "adain" and ray.available_resources().get("GPU")
        self._gpu = gpu_share(at_once(self._workers)) if free else 0.0
        self._said: set[str] = set()

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
            (self._train, self._sample, start + low, start + high)
            for start in ((step * ranks + rank) * batch for step in range(first, last))
            for low, high in pairwise(cuts)
        )
        room = _smallest_store() * _STORE_SHARE / ranks / (batch / pieces * self._sample_bytes)
        window = min(self._workers + _AHEAD * pieces, max(1, int(room)))
        chunks = run_in_order(_make_chunk, items, window, self._gpu)
        try:
            while parts := list(islice(chunks, pieces)):
                for _, broken in parts:
                    self._say(broken)
                joined = Batch.joined([samples for samples, _ in parts], _out_of_store)
                parts.clear()  # or they stay in the object store until the next ones are there
                yield joined.each(Tensor.pin_memory) if torch.cuda.is_available() else joined
        finally:
            chunks.close()

    @property
    def truth(self) -> frozenset[str]:
        """See Stream.truth."""
        return GENERATED

    def pair(self, number: int) -> Pair:
        """See PairSource.pair; composed in this process, without styled versions."""
        return self._sources["train"].pair(number)[0]

    def name(self, number: int) -> str:
        """See Stream.name."""
        return f"live pair {number} (seed {self._seed})"

    def val_pairs(self, count: int) -> list[Pair]:
        """The first pairs of the val split, without styled versions. Its images are in no training
        pair; where none could be held out, there are no pairs.
        """
        import ray

        if "val" not in self._sources:
            return []
        source = ray.put(self._sources["val"])
        items = ((source, index) for index in range(count))
        pairs = run_in_order(_make_pair, items, self._workers + _AHEAD)
        # Copies: what is in the object store stays there as long as it is used.
        return [copy.deepcopy(pair) for pair in pairs]

    @cached_property
    def _sample_bytes(self) -> int:
        made = self._sample(self.pair(0), np.random.default_rng(0))
        return sum(t.nbytes for side in made for t in side if t is not None)

    def _say(self, broken: dict[str, str]) -> None:
        for image in broken.keys() - self._said:
            self._said.add(image)
            print(f"left out: {image}, {broken[image]}", file=sys.stderr)


def _smallest_store() -> int:
    """Bytes of the smallest object store among the cluster's nodes."""
    import ray

    return int(min(n["Resources"].get("object_store_memory", 0) for n in ray.nodes() if n["Alive"]))


def _out_of_store(arrays: tuple[NDArray, ...]) -> Tensor:
    return torch.from_numpy(np.concatenate(arrays))


# --- in a worker -------------------------------------------------------------------------------


def _make_pair(source: _Source, index: int) -> Pair:
    return source.pair(index)[0]


def _make_chunk(source: _Source, sample: Callable[..., Batch], first: int, last: int) -> _Chunk:
    """The samples `first` to `last` - 1."""
    broken: dict[str, str] = {}
    made = [source.pair(number, broken) for number in range(first, last)]
    seed = source.config.amount.seed
    rngs = [np.random.default_rng([seed, 1, number]) for number in range(first, last)]
    pairs = [pair for pair, _ in made]
    if styler := styler_of(source.config):
        pairs = _styled_sides(pairs, styler, [rng for _, rng in made], rngs)
    stopwatch.read()  # nobody asks for the stages' times
    made_of = zip(pairs, rngs, strict=True)
    samples = Batch.joined([sample(pair, rng) for pair, rng in made_of])
    as_arrays: Any = Tensor.numpy
    return samples.each(as_arrays), broken


def _styled_sides(
    pairs: Sequence[Pair], styler: Styler, rngs: Sequence[np.random.Generator],
    sample_rngs: Sequence[np.random.Generator],
) -> list[Pair]:  # fmt: skip
    """Pairs of which each side is styled with a probability of 0.5, in place of the plain image.

    Draws what style_pairs draws from the pairs' generators, and then choose_styled from the
    samples', but restyles only what is chosen.
    """
    changed = list(pairs)
    for first in range(0, len(pairs), styler.pairs_at_once):
        chosen = []
        for place in range(first, min(first + styler.pairs_at_once, len(pairs))):
            for side in ("source", "target"):
                choice = styler.draw(rngs[place])
                if sample_rngs[place].random() < 0.5:
                    chosen.append((place, side, choice))
        images = [getattr(pairs[place], side) for place, side, _ in chosen]
        styled = styler.restyle(images, [choice for *_, choice in chosen])
        for (place, side, _), image in zip(chosen, styled, strict=True):
            sides: dict[str, Any] = {side: image}
            changed[place] = replace(changed[place], **sides)
    return changed
