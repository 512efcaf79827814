"""segswap-generate: make a dataset of pairs, shard by shard, on Ray or in this process."""

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from generators.compose import MAX_DRAWS, Look, RejectedDraw, generate_pair
from generators.sources.index import Pool
from pipelines import cli
from pipelines.dataset import finish, is_finished, sweep
from pipelines.generate_config import SPLITS, GenerateConfig
from pipelines.inputs import prepare, split_inputs
from pipelines.progress import Progress
from pipelines.tasks import ray_workers, run_inline, run_on_ray
from segswap.pair import Pair
from segswap.shards import file_hash, shard_name, write_atomically, write_shard

# What does not change a pair's bytes: how the work is run.
_RUN_ONLY = ("workers", "inline", "max_skipped")


def main() -> None:
    """Entry point of segswap-generate."""
    cli.run(GenerateConfig, generate)


def generate(config: GenerateConfig) -> int:
    """Make the dataset of a config, or finish it.

    Returns:
        The exit status: 0, or 3 when more of the inputs was skipped than --max-skipped allows.

    Raises:
        ValueError: the inputs or OUT cannot be used.
        RuntimeError: no acceptable pair could be drawn.
    """
    out = Path(config.out)
    settings = {k: v for k, v in cli.as_dict(config).items() if k not in ("out", *_RUN_ONLY)}
    work = out / ".segswap"
    if is_finished(out, settings):
        shutil.rmtree(work, ignore_errors=True)  # of a run killed just before it would do so
        print(f"{out} is complete already")
        return 0
    with nullcontext() if config.inline else ray_workers(config.workers):
        run = run_inline if config.inline else partial(run_on_ray, workers=config.workers)
        # Absolute paths: a worker's current folder need not be this process's.
        config = replace(config, out=str(out.resolve()))
        skipped = prepare(config, settings, work, run)
        sweep(out)
        tasks = list(_tasks(config))
        records = {task.name: _whole_shard(task) for task in tasks}
        done = sum(entry["shard"]["pairs"] for entry in records.values() if entry)
        progress = Progress("pairs", config.pairs + config.val_pairs, "pairs", done)
        missing = [task for task in tasks if records[task.name] is None]
        for record in run(make_shard, missing):
            records[record["shard"]["name"]] = record
            progress.add(record["shard"]["pairs"])
        progress.close()
    return finish(config, settings, [records[task.name] for task in tasks], skipped)


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
    def record(self) -> Path:
        """Where the shard's record lies until the manifest is written."""
        return Path(self.config.out) / ".segswap" / f"{self.name}.json"


def _tasks(config: GenerateConfig) -> Iterator[ShardTask]:
    for split, pairs in zip(SPLITS, (config.pairs, config.val_pairs), strict=True):
        for number, first in enumerate(range(0, pairs, config.shard_pairs)):
            last = min(first + config.shard_pairs, pairs)
            yield ShardTask(config, split, number, first, last)


def make_shard(task: ShardTask) -> dict[str, Any]:
    """Draw and write one shard, then its record: manifest entry, rejections, unusable images."""
    config = task.config
    pool, look = split_inputs(config, task.split)
    rejected: Counter[str] = Counter()
    broken: dict[str, dict[str, str]] = {}

    def draws() -> Iterator[Pair]:
        for index in range(task.first, task.last):
            yield _accepted(config, pool, look, task.split, index, rejected, broken)

    entry = write_shard(Path(config.out) / task.name, draws())
    record = {"shard": entry, "rejected": dict(rejected), "skipped": list(broken.values())}
    write_atomically(task.record, json.dumps(record).encode())
    return record


def _accepted(
    config: GenerateConfig, pool: Pool, look: Look, split: str, index: int,
    rejected: Counter[str], broken: dict[str, dict[str, str]],
) -> Pair:  # fmt: skip
    """Pair `index`: draws from its own generator until one is acceptable."""
    key = (SPLITS.index(split), index)
    rng = np.random.default_rng([config.seed, *key])
    recipes = {"1": (config.one,), "2": (config.two,), "mix": (config.one, config.two)}
    choices = recipes[config.objects]
    reasons: Counter[str] = Counter()
    for _ in range(MAX_DRAWS):
        recipe = choices[rng.integers(len(choices))]
        try:
            return generate_pair(pool, recipe, look, rng, index=index, key=key)
        except RejectedDraw as rejection:
            reasons[str(rejection)] += 1
            rejected[str(rejection)] += 1
            if rejection.image:
                broken[rejection.image["image"]] = rejection.image
    raise RuntimeError(
        f"{split} pair {index}: none of {MAX_DRAWS} draws was acceptable "
        f"({dict(reasons.most_common())}); add images, or loosen the recipe"
    )


def _whole_shard(task: ShardTask) -> dict[str, Any] | None:
    """The record of a shard that an earlier run finished; None where it must be made."""
    path = Path(task.config.out) / task.name
    if not path.exists() or not task.record.exists():
        return None
    record = json.loads(task.record.read_text())
    entry = record["shard"]
    if path.stat().st_size != entry["bytes"] or file_hash(path) != entry["sha256"]:
        return None
    return record
