"""What a dataset is made from: indexes made once, shared by all workers, and parted into splits."""

import json
import shutil
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from generators.compose import Look
from generators.sources.coco import Skipped, coco_index
from generators.sources.folder import folder_index
from generators.sources.index import Index, Pool, held_out
from generators.sources.photos import photos
from generators.style import Styler
from pipelines.generate_config import SPLITS, GenerateConfig, parse_blend
from pipelines.progress import Progress
from segswap.shards import write_atomically


def prepare(
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
                _check_pool(split_inputs(config, split)[0], config, split)
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


@lru_cache(maxsize=4)
def split_inputs(config: GenerateConfig, split: str) -> tuple[Pool, Look]:
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
