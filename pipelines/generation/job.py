"""What segswap-generate does: a dataset of pairs, shard by shard, on Ray or in this process."""

import json
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from generators.segments import is_run
from pipelines.command.outputs import GO_ON
from pipelines.command.progress import Progress
from pipelines.command.stopping import SHARDS, Stopping, stopping
from pipelines.command.tasks import at_once
from pipelines.command.workers import Run
from pipelines.generation import attribution
from pipelines.generation.config import SPLITS, GenerateConfig
from pipelines.generation.dataset import (
    EXIT_SKIPPED,
    WORK,
    Made,
    finish,
    index_folders,
    is_finished,
    lost_of,
    own_manifest,
)
from pipelines.generation.extend import Earlier, check_inputs, check_unchanged, to_extend
from pipelines.generation.inputs import prepare, styler_of
from pipelines.generation.pairs import Losses, make_pairs
from pipelines.generation.repair import Gone, check_shard, check_whole, find_gone, restore_card
from pipelines.generation.throughput import THROUGHPUT, as_json, throughput
from segswap.data import schema
from segswap.data.pair import Pair
from segswap.data.shards import shard_name, write_shard
from segswap.files import stopwatch, storage
from segswap.files.cache import forget_copies
from segswap.files.hashes import file_hash
from segswap.files.locks import locked
from segswap.files.records import Schema, checked, read_record
from segswap.files.stopwatch import stage
from segswap.files.stores import no_room_says

# Paths in a config's groups.
_INPUT_PATHS = ("annotations", "images", "backgrounds")
_RECORD: Schema = {
    "shard": (dict,), "rejected": (dict,), "skipped": (list,), "used": (list,), "stages": (dict,),
}  # fmt: skip
_STYLING_PATHS = ("styles", "adain_weights")


def generate(config: GenerateConfig) -> int:
    """What the command does: make the dataset, or what --dry-run and --only ask for, and say so.

    Returns:
        The exit status: 0, or 3 when more of the inputs was skipped than --max-skipped allows.

    Raises:
        ValueError, RuntimeError: see `make`.
    """
    if config.mode.dry_run:
        from pipelines.generation.trial import plan

        print(plan(config) or f"{config.out} is complete already")
        return 0
    if config.mode.only is not None:
        from pipelines.generation.trial import show_pair

        print(show_pair(config))
        return 0
    made = make(config)
    print("\n".join((made.said, *made.lost)))
    return EXIT_SKIPPED if made.lost else 0


def make(config: GenerateConfig) -> Made:
    """Make the dataset of a config, finish it, or extend it.

    Raises:
        ValueError: the inputs or OUT cannot be used.
        RuntimeError: no acceptable pair could be drawn.
    """
    with locked(config.out):
        earlier, complete = found_in(config)
        # From here on OUT is known to be this dataset's.
        with _said_what_remains(config.out):
            return _completed(config) if complete else _make(config, earlier)


def _make(config: GenerateConfig, earlier: Earlier) -> Made:
    """Make a dataset, finish it, or extend the earlier one."""
    if earlier.manifest:
        check_whole(config.out, earlier.manifest, config.mode.verify)
    settings, config = config.settings, absolute(config)
    check = partial(check_unchanged, config, earlier)
    with config.running.started() as run, stopping() as signals:
        skipped = prepare(config, settings, storage.join(config.out, WORK), run, check)
        storage.sweep(config.out)
        records, used = _make_missing(config, earlier, run, signals)
    records = earlier.records(skipped) + records
    return finish(config, settings, records, skipped, used | earlier.used)


@contextmanager
def _said_what_remains(out: str) -> Iterator[None]:
    """Where the work in it ends early, say what is kept; nothing half made remains."""
    try:
        with no_room_says(out, GO_ON):
            yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; the same command goes on where it stopped") from None
    finally:
        storage.sweep(out)  # of workers that were killed in the middle of a shard


def _completed(config: GenerateConfig) -> Made:
    """A finished dataset, what is gone of it made again."""
    out, manifest = config.out, own_manifest(config.out)
    lost = lost_of(manifest, config.running.max_skipped)
    gone = find_gone(out, manifest, config.mode.verify)
    if gone.names:
        _make_gone(absolute(config), manifest, gone)
    storage.remove_folder(storage.join(out, WORK))  # also of a run killed just before it would
    if not gone.names:
        return Made(f"{out} is complete already", lost)
    for folder in (out, *index_folders(config)):
        forget_copies(folder)
    return Made(f"{out} is complete again: {gone.names} had to be made anew", lost)


def _make_gone(config: GenerateConfig, manifest: dict[str, Any], gone: Gone) -> None:
    """Make what a finished dataset lacks, to the bytes that its manifest lists.

    Raises:
        DatasetError: what it is made from has changed.
    """
    check = partial(check_inputs, config, manifest)
    tasks = [ShardTask(config, **vars(place)) for place in gone.shards.values()]
    progress = Progress("pairs", sum(task.last - task.first for task in tasks), "pairs")
    with config.running.started() as run, stopping() as signals:
        prepare(config, config.settings, storage.join(config.out, WORK), run, check)
        left, on_gpu = len(tasks), config.styling.style == "adain"
        with signals.in_order(SHARDS):
            for record in run(make_shard, signals.until_asked(tasks), on_gpu):
                check_shard(config.out, manifest, record["shard"])
                left -= 1
                progress.add(record["shard"]["pairs"])
    progress.close()
    if left:
        raise KeyboardInterrupt
    restore_card(config, manifest, gone.beside)


def found_in(config: GenerateConfig) -> tuple[Earlier, bool]:
    """What OUT holds already that is to be kept, and whether nothing is left to be made.

    Raises:
        ValueError: OUT cannot be used.
    """
    if config.mode.extend:
        earlier = to_extend(config.out, config.settings)
        return earlier, earlier.manifest["config"] == config.settings
    return Earlier(), is_finished(config.out, config.settings)


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
        inputs=replace(
            config.inputs,
            **resolved(config.inputs, _INPUT_PATHS),
            **resolved(config.inputs, ["segments"] if is_run(config.inputs.segments) else []),
        ),
        styling=replace(config.styling, **resolved(config.styling, _STYLING_PATHS)),
    )


def _make_missing(
    config: GenerateConfig, earlier: Earlier, run: Run, signals: Stopping
) -> tuple[list[dict[str, Any]], set[attribution.Used]]:
    """Make the shards that are neither in the dataset that is extended nor finished by a run that
    was cut off.

    Returns:
        The records of all but the former, in order, and the images that any of them used.
    """
    tasks = list(shard_tasks(config, earlier))
    begun = set(storage.entries(storage.join(config.out, WORK)))
    used: set[attribution.Used] = set()

    def kept(record: dict[str, Any]) -> dict[str, Any]:
        # Most shards use the same images: together they are few.
        used.update((dataset, image) for dataset, image in record.pop("used"))
        return record

    made_before = run(_whole_shard, [task for task in tasks if f"{task.name}.json" in begun])
    records: dict[str, Any] = {name: record and kept(record) for name, record in made_before}
    missing = [task for task in tasks if records.get(task.name) is None]
    wanted = sum(task.last - task.first for task in tasks)
    lacking = sum(task.last - task.first for task in missing)
    progress = Progress("pairs", wanted, "pairs", wanted - lacking)
    start, left = time.perf_counter(), len(missing)
    on_gpu = config.styling.style == "adain"
    with signals.in_order(SHARDS):
        for record in run(make_shard, signals.until_asked(missing), on_gpu):
            records[record["shard"]["name"]] = kept(record)
            left -= 1
            progress.add(record["shard"]["pairs"], f"{len(tasks) - left}/{len(tasks)} shards")
    progress.close()
    if left:
        raise KeyboardInterrupt
    ordered = [records[task.name] for task in tasks]
    workers = 1 if config.running.inline else at_once(config.running.workers)
    speed = throughput(earlier.records([]) + ordered, lacking, time.perf_counter() - start, workers)
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


def shard_tasks(config: GenerateConfig, earlier: Earlier) -> Iterator[ShardTask]:
    """The shards that a dataset has beside those that it had earlier, which keep their bytes, full
    or not.
    """
    for split, pairs in zip(SPLITS, (config.amount.pairs, config.amount.val_pairs), strict=True):
        begin, shards = earlier.pairs(split), len(earlier.shards(split))
        for number, first in enumerate(range(begin, pairs, config.amount.shard_pairs), shards):
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
    losses = Losses()
    used: set[attribution.Used] = set()
    styler = styler_of(config)
    together = styler.pairs_at_once if styler else 1

    def draws() -> Iterator[Pair]:
        for first in range(task.first, task.last, together):
            indices = range(first, min(first + together, task.last))
            for pair in make_pairs(config, task.split, indices, losses):
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


def _whole_shard(task: ShardTask) -> tuple[str, dict[str, Any] | None]:
    """A shard's name and the record of an earlier run that finished it; None where it must be
    made.

    At a URL the size alone is compared: the record was written after an upload whose size agreed,
    and hashing would read the whole dataset back.
    """
    try:
        record = read_record(task.record, _RECORD)
        entry = checked(record["shard"], schema.SHARD, task.record)
    except ValueError:
        return task.name, None
    whole = storage.size(task.path) == entry["bytes"] and (
        storage.is_url(task.path) or file_hash(task.path) == entry["sha256"]
    )
    return task.name, record if whole else None
