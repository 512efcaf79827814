"""Segments from any folder of images, found by a proposer; and folders of backgrounds."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray

from generators.segments import build_proposer
from generators.segments.common.regions import Found
from generators.sources.coco import encode_mask
from generators.sources.index import UNKNOWN, Index, Segment, build
from segswap.data.coco import Skipped
from segswap.files import storage
from segswap.files.folders import PassedOver, find_images, say_others
from segswap.files.images import ImageError, read_image
from segswap.files.storage import PathLike

BATCH = 8  # images that a proposer is given at a time, at most
_BATCH_BYTES = 1 << 27  # of their pixels, from which on it is given those that are read


@dataclass(frozen=True)
class Proposed:
    """What one image file gives.

    Attributes:
        path: the file's.
        reason: why it cannot be used; then there is nothing else.
        width, height: in pixels.
        segments: masks as run lengths, scores, and categories.
        categories: all that the image shows.
    """

    path: str
    reason: str | None = None
    width: int = 0
    height: int = 0
    segments: tuple[tuple[bytes, float, str | None], ...] = ()
    categories: frozenset[str] = frozenset()


Job = Callable[[list[str]], list[Proposed]]
Runner = Callable[[Job, list[list[str]]], Iterable[list[Proposed]]]

# A worker builds a proposer once for all of its batches.
proposer_of = lru_cache(maxsize=1)(build_proposer)


def propose(
    paths: list[str], name: str | None, weights: str | None, area: tuple[float, float]
) -> list[Proposed]:
    """What image files give, in any order: segments by the proposer of a name, or none without."""
    results: list[Proposed] = []
    read: dict[str, NDArray[np.uint8]] = {}
    for path in paths:
        try:
            read[path] = read_image(path)
        except ImageError as error:
            results.append(Proposed(path, error.reason))
        if sum(image.nbytes for image in read.values()) >= _BATCH_BYTES:
            results += _found(read, name, weights, area)
            read = {}
    return [*results, *_found(read, name, weights, area)]


def _found(
    read: dict[str, NDArray[np.uint8]], name: str | None, weights: str | None,
    area: tuple[float, float],
) -> Iterator[Proposed]:  # fmt: skip
    """What images give, by their files' paths."""
    found: list[Found | ImageError] = [Found([], frozenset()) for _ in read]
    if name and read:
        found = proposer_of(name, weights).propose([*read.values()], [*read], area)
    for (path, image), result in zip(read.items(), found, strict=True):
        if isinstance(result, ImageError):
            yield Proposed(path, result.reason)
            continue
        segments = tuple((encode_mask(p.mask), p.score, p.category) for p in result.proposals)
        yield Proposed(path, None, image.shape[1], image.shape[0], segments, result.categories)


def folder_index(
    folder: PathLike, proposer: str | None, min_area: float, max_area: float, run: Runner = map,
    *, weights: str | None = None,
) -> tuple[Index, Skipped]:  # fmt: skip
    """Index a folder of images.

    Args:
        folder: a folder or URL, searched with its subfolders.
        proposer: the name of one, or the folder of a run; None indexes the images alone, as
            backgrounds.
        min_area, max_area: limits on a segment's share of its image.
        run: maps a function over batches of the files' paths, in any order; it may use many
            processes.
        weights: the proposer's; see `build_proposer`.

    Raises:
        ValueError: the folder is missing or empty, the proposer is unknown or finds nothing in it,
            or the folder that the proposer reads beside it is not there.
    """
    # Links are not followed: what lies beside the images follows from the names on the path.
    root = folder if storage.is_url(folder) else os.path.abspath(storage.local_path(folder))
    found = find_images(folder)
    say_others(folder, found)
    names = {storage.join(root, name): storage.text_of(name) for name in found.images}
    built = proposer_of(proposer, weights) if proposer else None
    for place in built.beside(str(root)) if built else ():
        try:
            find_images(place)
        except ValueError as error:
            message = f"{proposer} needs {place} beside the images in {folder}: {error}"
            raise ValueError(message) from error
    job = partial(propose, name=proposer, weights=weights, area=(min_area, max_area))
    results = _in_batches(job, list(names), run)
    usable = [result for result in results if result.reason is None]
    skipped: Skipped = [
        {"image": names[result.path], "reason": result.reason}
        for result in results
        if result.reason
    ]
    skipped += passed_over(found.passed)
    if not usable or (proposer and not any(result.segments for result in usable)):
        what = "segment" if usable else "image"
        raise ValueError(
            f"{folder} gives no usable {what}: {len(usable)} images, {len(skipped)} skipped"
            + (f" (first: {skipped[0]})" if skipped else "")
        )
    categories = sorted({category for result in usable for category in result.categories})
    place_of = {category: position for position, category in enumerate(categories)}
    index = build(
        dataset=storage.text_of(storage.base_name(folder)), root=storage.absolute(folder),
        proposer=built.name if built else "none",
        proposals=built.fingerprint if built else None, categories=categories, filtered={},
        images=[(names[result.path], result.width, result.height) for result in usable],
        present=[[place_of[category] for category in result.categories] for result in usable],
        segments=_segments(usable, place_of),
    )  # fmt: skip
    return index, skipped


def _in_batches(job: Job, paths: list[str], run: Runner) -> list[Proposed]:
    """What a job gives for each of the paths, in their order."""
    batches = [paths[first : first + BATCH] for first in range(0, len(paths), BATCH)]
    place_in = {path: place for place, path in enumerate(paths)}
    found = (each for batch in run(job, batches) for each in batch)
    return sorted(found, key=lambda each: place_in[each.path])


def passed_over(passed: Iterable[PassedOver]) -> Skipped:
    """Entries for what a folder holds that is not used: `kind` and `count` where it is not one
    image.
    """
    return [
        {"image": storage.text_of(entry.path), "reason": entry.reason}
        | ({} if entry.kind == "image" else {"kind": entry.kind, "count": entry.images})
        for entry in passed
    ]


def _segments(usable: list[Proposed], place_of: dict[str, int]) -> Iterator[Segment]:
    """The segments of all images, numbered in their order."""
    number = 0
    for image, result in enumerate(usable):
        for counts, score, category in result.segments:
            known = UNKNOWN if category is None else place_of[category]
            yield Segment(image, known, number, counts, score)
            number += 1
