"""--dry-run and --only: what a dataset would be, and one pair of it, before it is made."""

import math
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from generators.sources.index import Index
from pipelines.command.outputs import check_file
from pipelines.command.tasks import cores
from pipelines.command.workers import Item, Result, Run
from pipelines.generation.config import SPLITS, GenerateConfig
from pipelines.generation.dataset import WORK, described, index_folders
from pipelines.generation.inputs import prepare, split_inputs
from pipelines.generation.job import ShardTask, absolute, found_in, make_shard, shard_tasks
from pipelines.generation.pairs import Losses, make_pairs
from pipelines.pages.look import draw_pair
from segswap.data.coco import Skipped
from segswap.data.pair import Pair
from segswap.data.shards import Members, decode_pair, encode_pair
from segswap.files import storage
from segswap.files.images import encode_png

_MOST, _SECONDS = 16, 5.0  # pairs that are made to see, as far as they take no longer
_NAMED = 3  # inputs that cannot be used


@contextmanager
def elsewhere(config: GenerateConfig) -> Iterator[tuple[GenerateConfig, Skipped]]:
    """The config with a temporary folder as OUT, in which the indexes are, and what they lack.

    Workers are started only where segments have to be found.
    """

    def run(
        function: Callable[[Item], Result], items: Iterable[Item], on_gpu: bool = False
    ) -> Iterator[Result]:
        with config.running.started() as started:
            yield from started(function, items, on_gpu)

    when_needed: Run = run
    with tempfile.TemporaryDirectory(prefix="segswap-") as folder:
        here = replace(absolute(config), out=folder)
        yield here, prepare(here, config.settings, storage.join(folder, WORK), when_needed)


# --- one pair --------------------------------------------------------------------------------


def only_pair(config: GenerateConfig, number: int) -> Members:
    """One pair of the train split as its members of a shard: part to content.

    Raises:
        ValueError, RuntimeError: the inputs cannot be used, or no draw is acceptable.
    """
    with elsewhere(config) as (here, _):
        (pair,) = make_pairs(here, "train", range(number, number + 1), Losses())
    members = encode_pair(pair, config.amount.grid_stride)
    return {name.partition(".")[2]: data for name, data in members.items()}


def show_pair(config: GenerateConfig) -> str:
    """Draw the pair of --only into --show; returns its record, which says what it is made from."""
    number, path = config.mode.only, config.mode.show
    assert number is not None
    assert path is not None
    if not storage.is_url(path):
        check_file("--show", path)
    members = only_pair(config, number)
    storage.write_atomically(path, encode_png(_picture(decode_pair(members))))
    return members["json"].decode()


def _picture(pair: Pair) -> np.ndarray:
    """A pair as segswap-look draws it, in full size, its styled version below."""
    rows = [pair]
    if pair.source_styled is not None and pair.target_styled is not None:
        rows.append(replace(pair, source=pair.source_styled, target=pair.target_styled))
    return np.concatenate([draw_pair(row, pair.height) for row in rows])


# --- all pairs -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """What a dataset would be.

    Attributes:
        out: folder or URL.
        inputs: lines on what it would be made from.
        counts: for each split that gets pairs, how many and in how many shards.
        pair_bytes, pair_seconds: of a pair, the latter in one process: means over those that were
            made to see.
        tried: how many pairs were made to see.
        rejected: draws that were not acceptable meanwhile, by reason.
        workers: processes that would work at the same time.
    """

    out: str
    inputs: list[str]
    counts: dict[str, tuple[int, int]]
    pair_bytes: float
    pair_seconds: float
    tried: int
    rejected: dict[str, int]
    workers: int

    @property
    def pairs(self) -> int:
        """How many pairs would be made."""
        return sum(pairs for pairs, _ in self.counts.values())

    def __str__(self) -> str:
        made = ", ".join(f"{p} {split} in {n} shards" for split, (p, n) in self.counts.items())
        seconds = self.pairs * self.pair_seconds / self.workers
        why = "".join(f", {count} {reason}" for reason, count in self.rejected.items())
        return "\n".join(
            [
                *(f"from: {line}" for line in self.inputs),
                f"pairs: {made}",
                f"size: about {_amount(self.pairs * self.pair_bytes)}, "
                f"{_amount(self.pair_bytes)} a pair",
                f"time: about {_duration(seconds)} with {self.workers} at work, "
                f"{1000 * self.pair_seconds:.0f} ms a pair in one process ({self.tried} made)",
                f"rejected draws: {sum(self.rejected.values())} for {self.tried} pairs{why}",
                f"nothing is written to {self.out}: leave out --dry-run",
            ]
        )


def plan(config: GenerateConfig) -> Plan | None:
    """What a dataset would be, from its inputs and a few of its pairs; None where it is complete.

    Raises:
        ValueError: the inputs or OUT cannot be used.
        RuntimeError: no draw is acceptable.
    """
    earlier, complete = found_in(config)
    tasks = [] if complete else list(shard_tasks(config, earlier))
    counts: dict[str, tuple[int, int]] = {}
    for task in tasks:
        pairs, shards = counts.get(task.split, (0, 0))
        counts[task.split] = (pairs + task.last - task.first, shards + 1)
    if not counts:
        return None
    running = config.running
    workers = running.workers if running.address else min(running.workers, cores())
    with elsewhere(config) as (here, skipped):
        record, seconds = _tried(here, next(iter(counts)))
        inputs = list(_described(here, skipped))
    shard = record["shard"]
    return Plan(
        config.out, inputs, counts, shard["bytes"] / shard["pairs"], seconds / shard["pairs"],
        shard["pairs"], record["rejected"], 1 if running.inline else workers,
    )  # fmt: skip


def _tried(config: GenerateConfig, split: str) -> tuple[dict[str, Any], float]:
    """The record of a shard of a few pairs, and how many seconds it took."""
    make_shard(ShardTask(config, split, 0, 0, 1))  # the first takes longer
    start = time.perf_counter()
    make_shard(ShardTask(config, split, 0, 1, 2))
    one = time.perf_counter() - start
    count = min(_MOST, max(1, int(_SECONDS / one)))
    start = time.perf_counter()
    record = make_shard(ShardTask(config, split, 0, 0, count))
    return record, time.perf_counter() - start


def _described(config: GenerateConfig, skipped: Skipped) -> Iterator[str]:
    """What pairs are made from, in lines."""
    for index in map(Index.load, index_folders(config)):
        line = f"{index.dataset}, {len(index)} images, {len(index.arrays['segments'])} segments"
        for what, why in (
            ("left out", "left_out"), ("segments passed over", "filtered"),
            ("corrected", "corrected"),
        ):  # fmt: skip
            counts = {reason: count for reason, count in index.header[why].items() if count}
            if counts:
                line += f"; {what}: " + ", ".join(f"{n} {reason}" for reason, n in counts.items())
        if index.header["proposer"] != "none" and index.without_segments:
            line += f"; no segment in {index.without_segments} images"
        yield line
    if skipped:
        named = "; ".join(map(described, skipped[:_NAMED]))
        yield f"without {len(skipped)} that cannot be used: {named}" + "; ..." * (
            len(skipped) > _NAMED
        )
    amount = config.amount
    for split, pairs in zip(SPLITS, (amount.pairs, amount.val_pairs), strict=True):
        if pairs:
            pool, _ = split_inputs(config, split)
            yield f"{split}, {len(pool.images)} images, {len(pool.segments)} segments"


def _amount(length: float) -> str:
    units = ("bytes", "kB", "MB", "GB", "TB")
    power = min(int(math.log10(max(length, 1)) / 3), len(units) - 1)
    return f"{length / 1000**power:.4g} {units[power]}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{math.ceil(seconds)} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
