"""What a dataset is made from: indexes made once, shared by all workers, and parted into splits."""

import json
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from generators.composition.recipe import Look
from generators.sources.cache import cached_index, fingerprint
from generators.sources.coco import coco_index
from generators.sources.folder import Job, Proposed, folder_index, passed_over, proposer_of
from generators.sources.index import Index, Pool, held_out
from generators.sources.photos import photos
from generators.styles.style import Styler, unusable_styles
from pipelines.command.progress import Progress
from pipelines.command.workers import Run
from pipelines.generation.config import SPLITS, GenerateConfig, parse_blend
from pipelines.generation.dataset import WORK
from segswap.data.coco import Skipped
from segswap.files import storage
from segswap.files.cache import local_copy
from segswap.files.formats import EXTENSIONS
from segswap.files.records import all_checked, parse_json


def prepare(
    config: GenerateConfig, settings: dict[str, Any], work: str, run: Run,
    check: Callable[[], None] = lambda: None,
) -> Skipped:  # fmt: skip
    """Make the indexes that the workers share, unless an earlier run left them.

    Args:
        settings: of the config, those that the pairs depend on.
        work: the folder of what there is only until the dataset is finished.
        run: looks for segments in images without annotations.
        check: called when the indexes are new, before they are kept for a run that goes on.

    Returns:
        Inputs that could not be indexed.
    """
    for kept in (split_inputs, _styler, proposer_of):  # of files that may have been made anew since
        kept.cache_clear()
    styler_of(config)  # an unusable folder ends the run here
    listed = storage.join(work, "skipped.json")
    storage.make_folder(work)
    _check_styles(config, storage.join(work, "styles.json"), new=storage.size(listed) is None)
    if storage.size(listed) is None:
        index, skipped = _index(config, run)
        indexes = {"index": index}
        if config.inputs.backgrounds:
            indexes["backgrounds"], more = folder_index(
                config.inputs.backgrounds, None, 0, 1,
                partial(_with_progress, run, "backgrounds"),
            )  # fmt: skip
            skipped = skipped + more
        if config.styling.styles:
            skipped = skipped + passed_over(unusable_styles(config.styling.styles))
        for name, made in indexes.items():
            storage.remove_folder(storage.join(work, name))
            made.save(storage.join(work, name))
        wanted = (config.amount.pairs, config.amount.val_pairs)
        for split, pairs in zip(SPLITS, wanted, strict=True):
            if pairs:
                _check_pool(split_inputs(config, split)[0], config, split)
        check()
        # From here on OUT belongs to this configuration; before, another may still be tried.
        storage.write_atomically(storage.join(work, "job.json"), json.dumps(settings).encode())
        storage.write_atomically(listed, json.dumps(skipped).encode())
    return all_checked(parse_json(storage.read_bytes(listed), listed), {}, listed)


def _check_styles(config: GenerateConfig, kept: str, *, new: bool) -> None:
    """Refuse to finish a dataset with other style pictures or weights than it was begun with."""
    paths = (config.styling.styles, config.styling.adain_weights)
    now = json.dumps([fingerprint(path) for path in paths if path]).encode()
    if new:
        storage.write_atomically(kept, now)
    elif storage.read_bytes(kept) != now:
        raise ValueError(
            f"the files in {' or '.join(path for path in paths if path)} have changed since "
            f"{config.out} was begun; put them back, or choose another OUT"
        )


def _index(config: GenerateConfig, run: Run) -> tuple[Index, Skipped]:
    """The index of a job's segments, from the cache where an earlier job left it."""
    inputs = config.inputs
    if inputs.images and not inputs.annotations:
        proposer = proposer_of(inputs.segments)
        identity: dict[str, Any] = {
            "images": fingerprint(inputs.images), "segments": proposer.fingerprint,
            "area": inputs.segment_area, "endings": sorted(EXTENSIONS),
            "beside": [fingerprint(place) for place in proposer.beside(inputs.images)],
        }  # fmt: skip
        return cached_index(
            identity,
            lambda: folder_index(
                str(inputs.images), inputs.segments, *inputs.segment_area,
                partial(_with_progress, partial(run, on_gpu=proposer.network), "segments"),
            ),
        )  # fmt: skip
    annotations, images = (
        (Path(local_copy(inputs.annotations)), _place(inputs.images))
        if inputs.annotations and inputs.images
        else photos()
    )
    identity = {
        "annotations": fingerprint(annotations), "images": fingerprint(images),
        "area": inputs.segment_area, "categories": inputs.categories, "licenses": inputs.licenses,
    }  # fmt: skip
    return cached_index(
        identity,
        lambda: coco_index(
            annotations, images, *inputs.segment_area,
            categories=inputs.categories, licenses=inputs.licenses,
        ),
    )  # fmt: skip


def _place(folder: str) -> storage.PathLike:
    return folder if storage.is_url(folder) else Path(storage.local_path(folder))


def _with_progress(
    run: Run, what: str, job: Job, batches: list[list[str]]
) -> Iterator[list[Proposed]]:
    progress = Progress(what, sum(map(len, batches)), "images")
    for results in run(job, batches):
        progress.add(len(results))
        yield results
    progress.close()


def _check_pool(pool: Pool, config: GenerateConfig, split: str) -> None:
    problem = None
    if not len(pool.segments):
        problem = f"none of its {len(pool.images)} images has a usable segment"
    elif config.composition.objects == "2" and not pool.several():
        problem = "none of its images has segments of two categories; use --objects 1 or mix"
    elif pool.backgrounds is pool.index and len(pool.background_images) < 2:
        problem = "it has one image, and needs others as backgrounds"
    if problem:
        raise ValueError(f"the {split} split cannot be made: {problem}")


@lru_cache(maxsize=4)
def split_inputs(config: GenerateConfig, split: str) -> tuple[Pool, Look]:
    """What a split draws from, and how its pairs look; kept for the worker's next shard."""
    work = storage.join(config.out, WORK)
    index = Index.load(storage.join(work, "index"))
    behind = index
    if config.inputs.backgrounds:
        behind = Index.load(storage.join(work, "backgrounds"))
    pool = Pool.of(
        index, _split_images(index, config, split), behind, _split_images(behind, config, split)
    )
    blends = parse_blend(config.composition.blend)
    look = Look(config.amount.size, config.composition.fit, blends, styler_of(config))
    return pool, look


def styler_of(config: GenerateConfig) -> Styler | None:
    """What restyles the pairs of a config; None for nothing."""
    styling = config.styling
    if styling.styles is None:
        return None
    return _styler(styling.style, styling.styles, styling.adain_weights)


@lru_cache(maxsize=1)
def _styler(method: str, folder: str, weights: str | None) -> Styler:
    """One for both splits: it holds a network's weights."""
    return Styler.from_folder(method, folder, weights)


def _split_images(index: Index, config: GenerateConfig, split: str) -> np.ndarray:
    if not (config.amount.pairs and config.amount.val_pairs):
        return np.arange(len(index))
    return np.flatnonzero(held_out(index, config.amount.val_share) == (split == "val"))
