"""Segments from a COCO instances JSON and the folder of its images."""

from collections import Counter
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as rle

from generators.sources.index import Index, Segment, build
from generators.sources.licences import NOT_STATED, Licence, allows, is_known
from segswap.data.coco import Coco, CocoImage, Skipped, read_coco
from segswap.data.segmentations import FEW_POINTS, encode_segmentation, is_outline
from segswap.files import storage
from segswap.files.images import ImageError, read_sizes
from segswap.files.located import check_frame
from segswap.files.storage import PathLike

_Limits = tuple[float, float]


def coco_index(
    annotations: Path, images: PathLike, min_area: float, max_area: float, *,
    categories: Sequence[str] = (), licenses: str = "any",
) -> tuple[Index, Skipped]:  # fmt: skip
    """Index a COCO dataset.

    Left out and counted: crowds, objects of which only a box is known, segments whose share of
    their image lies outside [min_area, max_area] or whose category is not asked for; their
    categories still count as shown by the image. Images whose licence does not allow the use are
    left out with all their annotations. What cannot be used is listed with its reason: what
    `read_coco` lists, images that are missing or no image, sizes that contradict the annotations,
    segmentations without area.

    Images are taken in the frame, as stored or turned upright by their EXIF header, whose size is
    the annotated one; upright where both are, as programs to annotate with show them.

    Args:
        categories: names of those whose segments are wanted; by default all.
        licenses: "any", "shareable" or "commercial", see `licences.allows`.

    Raises:
        ValueError: the file is no COCO instances JSON, a category is unknown, or nothing can be
            used.
    """
    if not (storage.is_url(images) or Path(images).is_dir()):
        raise ValueError(f"{images} is not a folder; expected the folder of the images")
    content = read_coco(annotations, images)
    if not content.skipped and not any(is_outline(one.segmentation) for one in content.annotations):
        raise ValueError(f"{annotations} holds no segmentations; expected a COCO instances JSON")
    wanted = _wanted(content.categories, categories)
    skipped, corrected = content.skipped, content.corrected
    licences = [_licence(content, image) for image in content.images]
    allowed = [all(allows(one, licenses) for one in stated) for stated in licences]
    left_out = Counter(
        _refused(stated, licenses) for stated, one in zip(licences, allowed, strict=True) if not one
    )
    usable = _usable(content.images, allowed, images, skipped)
    segments, present, filtered = _segments(content, usable, wanted, (min_area, max_area))
    if not segments:
        raise ValueError(
            f"{annotations} with images from {images} gives no usable segment: "
            f"{len(usable)} images, {len(skipped)} skipped "
            f"(first: {skipped[0] if skipped else None}), left out {dict(filtered)} segments and "
            f"{dict(left_out.most_common())} images"
        )
    index = build(
        dataset=annotations.stem, root=storage.absolute(images), proposer="coco",
        categories=content.categories, images=[content.images[i][:3] for i in usable],
        present=present, segments=segments, filtered=dict(filtered),
        left_out=dict(left_out.most_common()), corrected=dict(corrected.most_common()),
        licences=[licences[i][0] for i in usable],
        credits=[_credit(content.images[i].entries[0]) for i in usable],
    )  # fmt: skip
    return index, skipped


def _segments(
    content: Coco, usable: list[int], wanted: set[int], area_limits: _Limits
) -> tuple[list[Segment], list[set[int]], Counter[str]]:
    """The segments, the categories that each image shows, and how many were left out and why."""
    positions = {image: position for position, image in enumerate(usable)}
    present: list[set[int]] = [set() for _ in usable]
    segments: list[Segment] = []
    filtered: Counter[str] = Counter()
    for annotation in content.annotations:
        position = positions.get(annotation.image)
        if position is None:  # listed once with the image
            continue
        present[position].add(annotation.category)
        reason = None
        if annotation.crowd:
            reason = "crowd"
        elif annotation.category not in wanted:
            reason = "category"
        elif not is_outline(annotation.segmentation):
            reason = "no outline"
        else:
            _, width, height, _ = content.images[annotation.image]
            try:
                counts, area, dropped = encode_segmentation(annotation.segmentation, width, height)
                if not area:
                    raise ValueError("no area inside the image")
            except ValueError as error:
                content.skipped.append({**annotation.named(content), "reason": str(error)})
                continue
            if dropped:
                content.corrected[FEW_POINTS] += dropped
            if area_limits[0] <= area / (width * height) <= area_limits[1]:
                segments.append(Segment(position, annotation.category, annotation.id, counts))
            else:
                reason = "area"
        if reason:
            filtered[reason] += 1
    return segments, present, filtered


def _wanted(known: list[str], names: Sequence[str]) -> set[int]:
    """Positions of the categories of these names; of all where none is named."""
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, 3, 0) or ["none"]
            raise ValueError(f"no category is called {name!r}; the nearest are {', '.join(near)}")
    return {position for position, name in enumerate(known) if not names or name in names}


def _licence(content: Coco, image: CocoImage) -> list[Licence]:
    """The licence that each entry of an image states."""
    told = (content.licences.get(str(entry.get("license"))) for entry in image.entries)
    return [NOT_STATED if one is None else Licence(*one) for one in told]


def _refused(stated: list[Licence], use: str) -> str:
    """Why an image with these licences is left out."""
    licence = next(one for one in stated if not allows(one, use))
    return f"licence: {licence.name}" + ("" if is_known(licence) else " (not recognised)")


def _credit(entry: dict[str, Any]) -> str:
    """Where an image comes from: what COCO, or this project's photographs, say of it."""
    return next((str(entry[k]) for k in ("source", "flickr_url", "coco_url") if entry.get(k)), "")


def _usable(
    listed: list[CocoImage], allowed: list[bool], folder: PathLike, skipped: Skipped
) -> list[int]:
    """Positions of the images that can be used, of each file once."""
    usable: list[int] = []
    asked = [position for position, one in enumerate(allowed) if one]
    paths = [storage.join(folder, listed[position].name) for position in asked]
    for position, path, size in zip(asked, paths, read_sizes(paths), strict=True):
        name, width, height, _ = listed[position]
        try:
            if isinstance(size, ImageError):
                raise size
            check_frame(path, size, (width, height))
            if usable and listed[usable[-1]].name == name:
                raise ImageError(name, "listed twice, with two sizes")
        except ImageError as error:
            skipped.append({"image": name, "reason": error.reason})
        else:
            usable.append(position)
    return usable


def encode_mask(mask: np.ndarray) -> bytes:
    """A binary mask (H, W) to COCO's compressed run lengths."""
    return rle.encode(np.asfortranarray(mask, np.uint8))["counts"]
