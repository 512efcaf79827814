"""What segswap-generate does: a dataset of pairs, shard by shard, on Ray or in this process."""

import errno
import json
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from generators.composition.compose import RejectedDraw, generate_pair
from generators.composition.recipe import Look
from generators.sources.index import Pool
from generators.styles.style import style_pairs
from pipelines.command import cli
from pipelines.command.progress import Progress
from pipelines.command.stopping import Stopping
from pipelines.command.tasks import at_once
from pipelines.command.workers import Run
from pipelines.generate import attribution
from pipelines.generate.config import SPLITS, GenerateConfig
from pipelines.generate.dataset import WORK, finish, is_finished
from pipelines.generate.inputs import prepare, split_inputs
from pipelines.generate.throughput import THROUGHPUT, as_json, throughput
from segswap.data.pair import Pair
from segswap.data.shards import shard_name, write_shard
from segswap.files import stopwatch, storage
from segswap.files.hashes import file_hash
from segswap.files.stopwatch import stage

# Paths in a config's groups.
_INPUT_PATHS = ("annotations", "images", "backgrounds")
_STYLING_PATHS = ("styles", "adain_weights")


def generate(config: GenerateConfig) -> int:
    """Make the dataset of a config, or finish it.

    Returns:
        The exit status: 0, or 3 when more of the inputs was skipped than --max-skipped allows.

    Raises:
        ValueError: the inputs or OUT cannot be used.
        RuntimeError: no acceptable pair could be drawn.
    """
    out = config.out
    aside = {"out", *cli.as_dict(config.running)}
    settings = {k: v for k, v in cli.as_dict(config).items() if k not in aside}
    if is_finished(out, settings):
        storage.remove_folder(storage.join(out, WORK))  # of a run killed just before it would do so
        print(f"{out} is complete already")
        return 0
    config = absolute(config)
    try:
        with config.running.started() as run, Stopping() as stopping:
            skipped = prepare(config, settings, storage.join(config.out, WORK), run)
            storage.sweep(out)
            records, used = _make_missing(config, run, stopping)
        return finish(config, settings, records, skipped, used)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; the same command goes on where it stopped") from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise RuntimeError(
            f"{error.strerror} in {out}; what is finished is kept: make room, and the same command "
            "goes on"
        ) from error
    finally:
        storage.sweep(out)  # of workers that were killed in the middle of a shard


def absolute(config: GenerateConfig) -> GenerateConfig:
    """The config with its local paths made absolute: a worker's folder need not be this
    process's.
    """

    def resolved(group: Any, names: Iterable[str]) -> dict[str, Any]:
        given = {name: getattr(group, name) for name in names}
        return {name: path and storage.absolute(path) for name, path in given.items()}

    return replace(
        config,
        **resolved(config, ["out"]),
        inputs=replace(config.inputs, **resolved(config.inputs, _INPUT_PATHS)),
        styling=replace(config.styling, **resolved(config.styling, _STYLING_PATHS)),
    )


def _make_missing(
    config: GenerateConfig, run: Run, stopping: Stopping
) -> tuple[list[dict[str, Any]], set[attribution.Used]]:
    """Make the shards that no earlier run finished.

    Returns:
        The records of all shards, in order, and the images that any of them used.
    """
    tasks = list(_tasks(config))
    begun = set(storage.entries(storage.join(config.out, WORK)))
    used: set[attribution.Used] = set()

    def kept(record: dict[str, Any]) -> dict[str, Any]:
        # Most shards use the same images: together they are few.
        used.update((dataset, image) for dataset, image in record.pop("used"))
        return record

    made_before = run(_whole_shard, [task for task in tasks if f"{task.name}.json" in begun])
    records: dict[str, Any] = {name: record and kept(record) for name, record in made_before}
    missing = [task for task in tasks if records.get(task.name) is None]
    wanted = config.amount.pairs + config.amount.val_pairs
    lacking = sum(task.last - task.first for task in missing)
    progress = Progress("pairs", wanted, "pairs", wanted - lacking)
    start, left = time.perf_counter(), len(missing)
    on_gpu = config.styling.style == "adain"
    for record in run(make_shard, stopping.until_asked(missing), on_gpu):
        records[record["shard"]["name"]] = kept(record)
        left -= 1
        progress.add(record["shard"]["pairs"], f"{len(tasks) - left}/{len(tasks)} shards")
    progress.close()
    if left:
        raise KeyboardInterrupt
    ordered = [records[task.name] for task in tasks]
    workers = 1 if config.running.inline else at_once(config.running.workers)
    speed = throughput(ordered, lacking, time.perf_counter() - start, workers)
    storage.write_atomically(storage.join(config.out, THROUGHPUT), as_json(speed))
    return ordered, used


@dataclass(frozen=True)
class ShardTask:
    """What a worker needs to make one shard.

    Attributes:
        config: the job.
        split: train or val.
        number: the shard's number in its split.
        first, last: range of its pairs' indices.
    """

    config: GenerateConfig
    split: str
    number: int
    first: int
    last: int

    @property
    def name(self) -> str:
        """The shard's file name."""
        return shard_name(self.split, self.number)

    @property
    def path(self) -> str:
        """The shard's file or URL."""
        return storage.join(self.config.out, self.name)

    @property
    def record(self) -> str:
        """Where the shard's record lies until the manifest is written."""
        return storage.join(self.config.out, WORK, f"{self.name}.json")


def _tasks(config: GenerateConfig) -> Iterator[ShardTask]:
    for split, pairs in zip(SPLITS, (config.amount.pairs, config.amount.val_pairs), strict=True):
        for number, first in enumerate(range(0, pairs, config.amount.shard_pairs)):
            last = min(first + config.amount.shard_pairs, pairs)
            yield ShardTask(config, split, number, first, last)


def make_shard(task: ShardTask) -> dict[str, Any]:
    """Draw and write one shard, then its record.

    Returns:
        The record: manifest entry, rejections, unusable images, histograms of the stages' times.
    """
    config = task.config
    if not (storage.is_url(task.record) or Path(task.record).parent.is_dir()):
        raise RuntimeError(
            f"{config.out} is not there on {socket.gethostname()}; with --address, OUT must be a "
            "folder that all machines share, or a URL"
        )
    pool, look = split_inputs(config, task.split)
    losses = _Losses()
    used: set[attribution.Used] = set()
    together = look.styler.pairs_at_once if look.styler else 1

    def draws() -> Iterator[Pair]:
        for first in range(task.first, task.last, together):
            indices = range(first, min(first + together, task.last))
            for pair in _pairs(config, pool, look, task.split, indices, losses):
                used.update(attribution.images_of(pair))
                yield pair
            stopwatch.lap(len(indices))

    stopwatch.read()  # what an interrupted shard has left
    with stage("finish"):  # sync, hash and put in place: what is in no other stage
        entry = write_shard(task.path, draws(), grid_stride=config.amount.grid_stride)
    stopwatch.lap(entry["pairs"])
    record = {
        "shard": entry, "rejected": dict(losses.rejected),
        "skipped": list(losses.broken.values()), "used": sorted(used), "stages": stopwatch.read(),
    }  # fmt: skip
    storage.write_atomically(task.record, json.dumps(record).encode())
    return record


@dataclass(frozen=True)
class _Losses:
    """What a shard's draws came to nothing by.

    Attributes:
        rejected: draws by reason.
        broken: unusable images by name, each with its entry for the manifest.
    """

    rejected: Counter[str] = field(default_factory=Counter)
    broken: dict[str, dict[str, str]] = field(default_factory=dict)

    def count(self, rejection: RejectedDraw) -> None:
        """Take a draw that was not acceptable into account."""
        self.rejected[str(rejection)] += 1
        if rejection.image:
            self.broken[rejection.image["image"]] = rejection.image


def _pairs(
    config: GenerateConfig, pool: Pool, look: Look, split: str, indices: range, losses: _Losses
) -> list[Pair]:
    """The pairs of these indices, composed one by one and restyled together."""
    plain = replace(look, styler=None)
    with stage("compose"):
        drawn = [compose(config, pool, plain, split, index, losses.count) for index in indices]
    pairs, rngs = [pair for pair, _ in drawn], [rng for _, rng in drawn]
    return style_pairs(pairs, look.styler, rngs) if look.styler else pairs


def compose(
    config: GenerateConfig, pool: Pool, look: Look, split: str, index: int,
    rejected: Callable[[RejectedDraw], None],
) -> tuple[Pair, np.random.Generator]:  # fmt: skip
    """A pair of a split, drawn from (seed, split, index) alone.

    Args:
        pool, look: see generate_pair; without a styler.
        rejected: told of every draw that was not acceptable.

    Returns:
        The pair, and its generator, from which its styles are yet to be drawn.

    Raises:
        RuntimeError: no draw was acceptable.
    """
    recipes = {"1": [config.one], "2": [config.two], "mix": [config.one, config.two]}
    key = (SPLITS.index(split), index)
    rng = np.random.default_rng([config.amount.seed, *key])
    pair = generate_pair(
        pool, recipes[config.composition.objects], rng, look=look, index=index, key=key,
        rejected=rejected,
    )  # fmt: skip
    return pair, rng


def _whole_shard(task: ShardTask) -> tuple[str, dict[str, Any] | None]:
    """A shard's name and the record of an earlier run that finished it; None where it must be
    made.

    At a URL the size alone is compared: the record was written after an upload whose size agreed,
    and hashing would read the whole dataset back.
    """
    record = json.loads(storage.read_bytes(task.record))
    entry = record["shard"]
    whole = storage.size(task.path) == entry["bytes"] and (
        storage.is_url(task.path) or file_hash(task.path) == entry["sha256"]
    )
    return task.name, record if whole else None
