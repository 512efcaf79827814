"""Segments from any folder of images, found by a proposer; and folders of backgrounds."""

import os
from collections.abc import Callable, Iterable
from functools import partial

from generators.segments import PROPOSERS
from generators.segments.labels import check_labels
from generators.segments.proposer import find_segments
from generators.sources.coco import Skipped, encode_mask
from generators.sources.index import UNKNOWN, Index, Segment, build
from segswap.files import storage
from segswap.files.images import ImageError, image_files, read_image
from segswap.files.storage import PathLike

# What one image gives: its name, width and height, and the masks of its segments as run lengths;
# or its name and why it cannot be used.
Proposals = tuple[str, int, int, list[bytes]] | tuple[str, str]
Runner = Callable[[Callable[[str], Proposals], list[str]], Iterable[Proposals]]


def propose(path: str, proposer: str | None, min_area: float, max_area: float) -> Proposals:
    """Segments of one image file; none without a proposer."""
    try:
        image = read_image(path)
        found = (
            find_segments(PROPOSERS[proposer], image, path, min_area, max_area) if proposer else ()
        )
        segments = [encode_mask(mask) for mask in found]
    except ImageError as error:
        return path, error.reason
    return path, image.shape[1], image.shape[0], segments


def folder_index(
    folder: PathLike, proposer: str | None, min_area: float, max_area: float, run: Runner = map
) -> tuple[Index, Skipped]:
    """Index a folder of images.

    Args:
        folder: a folder or URL, searched with its subfolders.
        proposer: a name in PROPOSERS; None indexes the images alone, as backgrounds.
        min_area, max_area: limits on a segment's share of its image.
        run: maps a function over the files' paths, in any order; it may use many processes.

    Raises:
        ValueError: the folder is missing or empty, the proposer finds nothing in it, or the
            proposer is "labels" and there is no folder of label maps.
    """
    # Links are not followed: the place of label maps follows from the names on the path.
    root = folder if storage.is_url(folder) else os.path.abspath(storage.local_path(folder))
    names = {storage.join(root, name): name for name in image_files(folder)}
    if proposer == "labels":
        check_labels(str(root))
    job = partial(propose, proposer=proposer, min_area=min_area, max_area=max_area)
    results = sorted(run(job, list(names)))
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
        dataset=storage.base_name(folder), root=storage.absolute(folder), exif=True,
        proposer=proposer or "none", categories=(), images=images, present=[()] * len(images),
        segments=segments, filtered={},
    )  # fmt: skip
    return index, skipped
