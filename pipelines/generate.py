"""segswap-generate: make a dataset of pairs, shard by shard, on Ray or in this process."""

import datetime
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from generators.blending import BLENDS
from generators.compose import (
    MAX_DRAWS,
    ONE_OBJECT,
    TWO_OBJECTS,
    Look,
    Recipe,
    RejectedDraw,
    generate_pair,
)
from generators.sources.coco import Skipped, coco_index
from generators.sources.folder import folder_index
from generators.sources.index import Index, Pool, held_out
from generators.sources.photos import photos
from generators.style import Styler
from pipelines import card, cli
from pipelines.progress import Progress
from pipelines.tasks import ray_workers, run_inline, run_on_ray
from segswap.pair import FORMAT, Pair
from segswap.shards import (
    MANIFEST,
    DatasetError,
    file_hash,
    read_manifest,
    shard_name,
    write_atomically,
    write_shard,
)

SPLITS = ("train", "val")
EXIT_SKIPPED = 3
# What does not change a pair's bytes: how the work is run.
_RUN_ONLY = ("workers", "inline", "max_skipped")


@dataclass(frozen=True)
class GenerateConfig:
    """Make a dataset of image pairs that share a region, with masks and correspondences.

    Without --annotations and --images the photographs inside scikit-image are used. The same
    command makes the same bytes; run again after an interruption, it goes on where it stopped.
    """

    out: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """Folder of the dataset; it is made, or its unfinished run is resumed."""
    pairs: int = 1000
    """Pairs of the train split."""
    val_pairs: int = 0
    """Pairs of the val split. When both splits are made, they share no image."""
    val_share: float = 0.2
    """Share of the images held out for val when both splits are made."""
    seed: int = 0
    """Seeds every random choice."""
    size: int = 480
    """Side of the square images in pixels."""
    shard_pairs: int = 250
    """Pairs in one shard: the unit of work and of retry."""
    annotations: str | None = None
    """COCO instances JSON; its images lie in --images."""
    images: str | None = None
    """Folder of images. Without --annotations, segments are found by --segments."""
    segments: Literal["felzenszwalb"] = "felzenszwalb"
    """How segments are found in a folder of images without annotations."""
    backgrounds: str | None = None
    """Folder of background images; by default the images themselves."""
    segment_area: tuple[float, float] = (0.015, 0.5)
    """Smallest and largest share of its image that a segment may take."""
    objects: Literal["1", "2", "mix"] = "mix"
    """Objects a pair; mix draws one or two, half and half."""
    blend: str = "poisson"
    """How objects are put into the background: poisson, feather, paste, or several with weights,
    as in poisson:3,paste:1."""
    style: Literal["none", "histogram"] = "none"
    """Styled versions of both images, after the pictures in --styles."""
    styles: str | None = None
    """Folder of style pictures."""
    workers: int = 2
    """Ray worker processes on this machine."""
    inline: bool = False
    """Work in this process alone, without Ray."""
    max_skipped: float = 0.1
    """If a larger share of the images or annotations could not be used, the finished run exits
    with status 3."""
    one: Recipe = ONE_OBJECT
    """The one-object composition."""
    two: Recipe = TWO_OBJECTS
    """The two-object composition."""

    def __post_init__(self) -> None:
        limits = {
            "pairs": (self.pairs, 0), "val_pairs": (self.val_pairs, 0), "seed": (self.seed, 0),
            "size": (self.size, 64), "shard_pairs": (self.shard_pairs, 1),
            "workers": (self.workers, 1),
        }  # fmt: skip
        for name, (value, least) in limits.items():
            if value < least:
                flag = name.replace("_", "-")
                raise ValueError(f"--{flag} is {value}; expected at least {least}")
        if not self.pairs + self.val_pairs:
            raise ValueError("--pairs and --val-pairs are both 0: nothing to make")
        if not 0 <= self.segment_area[0] < self.segment_area[1] <= 1:
            raise ValueError(f"--segment-area is {self.segment_area}; expected two rising shares")
        if not 0 < self.val_share < 1:
            raise ValueError(f"--val-share is {self.val_share}; expected a share between 0 and 1")
        if self.annotations and not self.images:
            raise ValueError("--annotations needs --images, the folder of its images")
        if (self.style == "none") != (self.styles is None):
            raise ValueError("--style and --styles go together: a method, and a folder of pictures")
        parse_blend(self.blend)


def parse_blend(text: str) -> dict[str, float]:
    """Weights of ways of blending from `NAME[:weight],...`.

    Raises:
        ValueError: an unknown name, or a weight that is no positive number.
    """
    weights = {}
    for part in text.split(","):
        name, _, weight = part.strip().partition(":")
        try:
            weights[name] = float(weight or 1)
        except ValueError:
            weights[name] = -1.0
        if name not in BLENDS or not 0 < weights[name] < float("inf"):
            raise ValueError(
                f"--blend has {part!r}; expected names of {', '.join(BLENDS)}, "
                "each with an optional positive weight, as in poisson:3,paste:1"
            )
    return weights


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
    if _finished(out, settings):
        shutil.rmtree(work, ignore_errors=True)  # of a run killed just before it would do so
        print(f"{out} is complete already")
        return 0
    with nullcontext() if config.inline else ray_workers(config.workers):
        run = run_inline if config.inline else partial(run_on_ray, workers=config.workers)
        # Absolute paths: a worker's current folder need not be this process's.
        config = replace(config, out=str(out.resolve()))
        skipped = _prepare(config, settings, work, run)
        _sweep(out)
        tasks = list(_tasks(config))
        records = {task.name: _whole_shard(task) for task in tasks}
        done = sum(entry["shard"]["pairs"] for entry in records.values() if entry)
        progress = Progress("pairs", config.pairs + config.val_pairs, "pairs", done)
        missing = [task for task in tasks if records[task.name] is None]
        for record in run(make_shard, missing):
            records[record["shard"]["name"]] = record
            progress.add(record["shard"]["pairs"])
        progress.close()
    return _finish(config, settings, [records[task.name] for task in tasks], skipped)


# --- one shard -------------------------------------------------------------------------------


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
    pool, look = _inputs(config, task.split)
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


@lru_cache(maxsize=4)
def _inputs(config: GenerateConfig, split: str) -> tuple[Pool, Look]:
    """What a split draws from, and how its pairs look; kept for the worker's next shard."""
    work = Path(config.out) / ".segswap"
    index = Index.load(work / "index")
    behind = Index.load(work / "backgrounds") if config.backgrounds else index
    pool = Pool.of(
        index, _split_images(index, config, split), behind, _split_images(behind, config, split)
    )
    styler = Styler.from_folder(config.style, config.styles) if config.styles else None
    return pool, Look(config.size, parse_blend(config.blend), styler)


def _split_images(index: Index, config: GenerateConfig, split: str) -> np.ndarray:
    if not (config.pairs and config.val_pairs):
        return np.arange(len(index))
    return np.flatnonzero(held_out(index, config.val_share) == (split == "val"))


# --- before and after the shards -------------------------------------------------------------


def _finished(out: Path, settings: dict[str, Any]) -> bool:
    """Whether OUT already holds this very dataset.

    Raises:
        ValueError: it holds another one, or something else.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; expected a folder to write the dataset into")
    if (out / MANIFEST).exists():
        _same(read_manifest(out)["config"], settings, out)
        return True
    job = out / ".segswap" / "job.json"
    if job.exists():
        _same(json.loads(job.read_text()), settings, out)
    elif out.is_dir() and any(path.name != ".segswap" for path in out.iterdir()):
        raise ValueError(f"{out} is not empty and holds no dataset; choose another folder")
    return False


def _same(before: dict[str, Any], now: dict[str, Any], out: Path) -> None:
    before, now = dict(_flat(before)), dict(_flat(now))
    changed = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
    if changed:
        differences = "; ".join(
            f"{key} was {before.get(key)!r}, is {now.get(key)!r}" for key in changed
        )
        raise DatasetError(
            f"{out} holds a dataset of another configuration ({differences}); "
            "use the same flags to finish it, or choose another folder"
        )


def _flat(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by name, those of a group as group.name."""
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _sweep(out: Path) -> None:
    """Remove the temporary files of processes that were killed."""
    for leftover in out.glob(".*.[0-9]*.tmp"):
        leftover.unlink(missing_ok=True)


def _prepare(
    config: GenerateConfig, settings: dict[str, Any], work: Path, run: Callable[..., Any]
) -> Skipped:
    """Make the indexes that the workers share, unless an earlier run left them."""
    if config.styles:
        Styler.from_folder(config.style, config.styles)  # an unusable folder ends the run here
    listed = work / "skipped.json"
    if not listed.exists():
        work.mkdir(parents=True, exist_ok=True)
        index, skipped = _index(config, run)
        indexes = {"index": index}
        if config.backgrounds:
            indexes["backgrounds"], more = folder_index(
                Path(config.backgrounds), None, 0, 1, partial(_with_progress, run, "backgrounds")
            )
            skipped = skipped + more
        for name, made in indexes.items():
            shutil.rmtree(work / name, ignore_errors=True)
            made.save(work / name)
        for split, pairs in zip(SPLITS, (config.pairs, config.val_pairs), strict=True):
            if pairs:
                _check_pool(_inputs(config, split)[0], config, split)
        # From here on OUT belongs to this configuration; before, another may still be tried.
        write_atomically(work / "job.json", json.dumps(settings).encode())
        write_atomically(listed, json.dumps(skipped).encode())
    return json.loads(listed.read_text())


def _index(config: GenerateConfig, run: Callable[..., Any]) -> tuple[Index, Skipped]:
    if config.images and not config.annotations:
        return folder_index(
            Path(config.images), config.segments, *config.segment_area,
            partial(_with_progress, run, "segments"),
        )  # fmt: skip
    if config.annotations and config.images:
        return coco_index(Path(config.annotations), Path(config.images), *config.segment_area)
    return coco_index(*photos(), *config.segment_area)


def _with_progress(
    run: Callable[..., Any], what: str, job: Callable[[str], Any], paths: list[str]
) -> Iterator[Any]:
    progress = Progress(what, len(paths), "images")
    for result in run(job, paths):
        progress.add(1)
        yield result
    progress.close()


def _check_pool(pool: Pool, config: GenerateConfig, split: str) -> None:
    problem = None
    if not len(pool.segments):
        problem = f"none of its {len(pool.images)} images has a usable segment"
    elif config.objects != "1" and not pool.several():
        problem = "none of its images has segments of two categories; use --objects 1"
    elif pool.backgrounds is pool.index and len(pool.background_images) < 2:
        problem = "it has one image, and needs others as backgrounds"
    if problem:
        raise ValueError(f"the {split} split cannot be made: {problem}")


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


def _finish(
    config: GenerateConfig, settings: dict[str, Any], records: list[Any], skipped: Skipped
) -> int:
    """Write the card, then the manifest; say what was made and what was not."""
    out, work = Path(config.out), Path(config.out) / ".segswap"
    broken = {item["image"]: item for record in records for item in record["skipped"]}
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "generator": f"segswap {version('segswap')}",
        "created": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "seed": config.seed,
        "config": settings,
        "splits": {split: _split_entry(split, records) for split in SPLITS},
        "inputs": [
            _input_entry(Index.load(path))
            for path in (work / "index", work / "backgrounds")
            if path.exists()
        ],
        "skipped": skipped + [broken[name] for name in sorted(broken)],
        "rejected": _rejected(records),
    }
    _sweep(out)
    card.write(out, manifest)
    write_atomically(out / MANIFEST, json.dumps(manifest, indent=1).encode())
    shutil.rmtree(work)
    made = ", ".join(f"{entry['pairs']} {split}" for split, entry in manifest["splits"].items())
    print(
        f"{out}: {made} pairs from {sum(item['images'] for item in manifest['inputs'])} images; "
        f"skipped {len(manifest['skipped'])} inputs; rejected draws {manifest['rejected']}"
    )
    return _status(config.max_skipped, manifest["inputs"], skipped, len(broken))


def _split_entry(split: str, records: list[Any]) -> dict[str, Any]:
    shards = [r["shard"] for r in records if r["shard"]["name"].startswith(f"{split}-")]
    return {"pairs": sum(shard["pairs"] for shard in shards), "shards": shards}


def _input_entry(index: Index) -> dict[str, Any]:
    return {
        "name": index.dataset,
        "images": len(index),
        "segments": len(index.arrays["segments"]),
        "fingerprint": index.header["fingerprint"],
        "filtered": index.header["filtered"],
    }


def _rejected(records: list[Any]) -> dict[str, int]:
    """Rejected draws of all shards by reason, the most frequent first."""
    counts: Counter[str] = Counter()
    for record in records:
        counts.update(record["rejected"])
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _status(limit: float, inputs: list[Any], skipped: Skipped, broken: int) -> int:
    """The exit status; says so where a larger share than the limit could not be used.

    Args:
        limit: the share of the images, or of the annotations.
        inputs: the manifest's.
        skipped: what was left out of the index.
        broken: how many images of the index could not be used after all.
    """
    annotations = sum("annotation" in item for item in skipped)
    absent = len(skipped) - annotations
    images = absent + sum(item["images"] for item in inputs)
    segments = sum(item["segments"] + sum(item["filtered"].values()) for item in inputs)
    status = 0
    for what, lost, given in (
        ("images", absent + broken, images),
        ("annotations", annotations, annotations + segments),
    ):
        if lost > limit * given:
            print(f"{lost} of {given} {what} could not be used; {MANIFEST} lists them")
            status = EXIT_SKIPPED
    return status
