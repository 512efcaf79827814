"""Segments from any folder of images, found by a proposer; and folders of backgrounds."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from generators.segments import PROPOSERS
from generators.segments.proposer import object_like
from generators.sources.coco import Skipped, encode_mask
from generators.sources.index import NOT_STATED, UNKNOWN, Index, Segment, build
from segswap.images import ImageError, image_files, read_image

# What one image gives: its name, width and height, and the masks of its segments as run lengths;
# or its name and why it cannot be used.
Proposals = tuple[str, int, int, list[bytes]] | tuple[str, str]
Runner = Callable[[Callable[[str], Proposals], list[str]], Iterable[Proposals]]


def propose(path: str, proposer: str | None, min_area: float, max_area: float) -> Proposals:
    """Segments of one image file; none without a proposer."""
    try:
        image = read_image(path)
    except ImageError as error:
        return path, error.reason
    masks = object_like(PROPOSERS[proposer](image), min_area, max_area) if proposer else ()
    return path, image.shape[1], image.shape[0], [encode_mask(mask) for mask in masks]


def folder_index(
    folder: Path, proposer: str | None, min_area: float, max_area: float, run: Runner = map
) -> tuple[Index, Skipped]:
    """Index a folder of images.

    Args:
        folder: searched with its subfolders.
        proposer: a name in PROPOSERS; None indexes the images alone, as backgrounds.
        min_area, max_area: limits on a segment's share of its image.
        run: maps a function over the files' paths, in any order; it may use many processes.

    Raises:
        ValueError: the folder is missing or empty, or the proposer finds nothing in it.
    """
    paths = [str(folder / name) for name in image_files(folder)]
    job = partial(propose, proposer=proposer, min_area=min_area, max_area=max_area)
    results = sorted(run(job, paths))
    names = {path: Path(path).relative_to(folder).as_posix() for path in paths}
    skipped: Skipped = []
    images: list[tuple[str, int, int]] = []
    segments: list[Segment] = []
    for result in results:
        name = names[result[0]]
        if len(result) == 2:
            skipped.append({"image": name, "reason": result[1]})
            continue
        _, width, height, masks = result
        for counts in masks:
            segments.append(Segment(len(images), UNKNOWN, len(segments), counts))
        images.append((name, width, height))
    if not images or (proposer and not segments):
        what = "segment" if images else "image"
        raise ValueError(
            f"{folder} gives no usable {what}: {len(images)} images, {len(skipped)} skipped"
            + (f" (first: {skipped[0]})" if skipped else "")
        )
    index = build(
        dataset=folder.resolve().name, root=str(folder.resolve()), exif=True,
        proposer=proposer or "none", categories=(), images=images, present=[()] * len(images),
        segments=segments, filtered={}, licences={NOT_STATED: len(images)},
    )  # fmt: skip
    return index, skipped
