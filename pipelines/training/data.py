"""What a run of segswap-train learns from and is scored on."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pipelines.training.config import TrainConfig
from segswap.batches.categories import CategoryStream
from segswap.batches.held_out import KindPair, held_out_pairs
from segswap.batches.mixed import MixedStream, Part
from segswap.batches.stream import PairStream, Stream
from segswap.batches.warped import WarpedStream, held_out_warps
from segswap.data.manifest import DatasetError, datasets_with
from segswap.data.pair import Pair
from segswap.matchers.base import Matcher

_VAL_PAIRS = 32  # of each sort


@dataclass(frozen=True)
class TrainingData:
    """Samples to train on, and what to score on: generated pairs and warped pictures, and pairs of
    one kind.
    """

    stream: Stream
    val: list[Pair] = field(default_factory=list)
    val_kinds: list[KindPair] = field(default_factory=list)


@contextmanager
def training_data(
    config: TrainConfig, size: int, matcher: Matcher, rank: int, ranks: int
) -> Iterator[TrainingData]:
    """The training data of one process, and for rank 0 pairs to score on.

    Raises:
        ValueError, RuntimeError: they cannot be used.
    """
    grids: dict[str, Any] = {
        "size": size, "stride": matcher.stride, "mask_stride": matcher.mask_stride,
        "seed": config.seed,
    }  # fmt: skip
    more: dict[str, Any] = {
        "strong": matcher.kinds, "workers": config.workers, "skip_bad": config.skip_bad
    }  # fmt: skip
    kinds, foregrounds = config.taught
    categories = [CategoryStream(pictures, **grids, **more) for pictures in kinds]
    warped = [
        WarpedStream(pictures, **grids, **more, masked=not matcher.kinds)
        for pictures in foregrounds
    ]
    streams: list[CategoryStream | WarpedStream] = [*categories, *warped]
    # What a kind of thing is, category pairs tell; generated ones know one thing of it alone.
    masked = not (matcher.kinds and any("mask" in stream.truth for stream in categories))
    mix = partial(_mixed, config, streams, grids)
    val_kinds, val_warped = list[KindPair](), list[Pair]()
    if rank == 0:
        val_kinds = held_out_pairs(config.pictures, _VAL_PAIRS, config.skip_bad)
        val_warped = held_out_warps(config.foregrounds, _VAL_PAIRS, size, config.skip_bad)
    if config.live:
        from pipelines.training.live import live_stream

        with live_stream(
            config.inputs, config.composition, config.styling, **grids, masked=masked,
            strong=matcher.kinds, workers=max(1, config.workers // ranks), address=config.address,
            mix=mix if streams else None,
        ) as live:  # fmt: skip
            val = live.val_pairs(_VAL_PAIRS) if rank == 0 else []
            yield TrainingData(live, val + val_warped, val_kinds)
        return
    val = _val_pairs(config, size, matcher.stride) if rank == 0 and config.data else []
    if not config.learned:
        yield TrainingData(mix() if len(streams) > 1 else streams[0], val + val_warped, val_kinds)
        return
    stream = PairStream(
        config.learned, "train", **grids, **more, masked=masked,
        weights=[share for share in config.mixture[: len(config.data)] if share] or None,
    )  # fmt: skip
    yield TrainingData(mix(stream) if streams else stream, val + val_warped, val_kinds)


def _mixed(
    config: TrainConfig, streams: Sequence[CategoryStream | WarpedStream], grids: dict[str, Any],
    *made: Part,
) -> MixedStream:  # fmt: skip
    """Generated pairs, where there are some, pairs of kinds, and warped pictures."""
    if config.mixture:
        own = sum(config.mixture[: config.generated])
        others = [share for share in config.mixture[config.generated :] if share]
        weights = [own] * len(made) + others
    else:
        # Half and half.
        counts = [len(stream) for stream in streams]
        weights = [float(sum(counts))] * len(made) + [float(count) for count in counts]
    return MixedStream(
        [*made, *streams], weights, **grids, workers=config.workers,
        kinds=max((len(pictures.kinds) for pictures in config.pictures), default=0),
        keypoints=max((len(pictures.keypoints) for pictures in config.pictures), default=0),
    )  # fmt: skip


def _val_pairs(config: TrainConfig, size: int, stride: int) -> list[Pair]:
    """The first val pairs of all datasets that have any, about as many of each."""
    try:
        found = datasets_with(config.data, "val")
    except DatasetError:
        return []
    pairs = []
    for path in found:
        stream = PairStream(
            (path,), "val", size=size, stride=stride, augment=False, skip_bad=config.skip_bad
        )
        count = min(len(stream), -(-_VAL_PAIRS // len(found)))
        pairs += [stream.pair(number) for number in range(count)]
    return pairs[:_VAL_PAIRS]
