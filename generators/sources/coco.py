"""Segments from a COCO instances JSON and the folder of its images."""

import json
from collections import Counter
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as rle

from generators.sources.index import UNKNOWN, Index, Segment, build
from generators.sources.licences import NOT_STATED, Licence, allows
from segswap.files import storage
from segswap.files.images import ImageError, read_sizes
from segswap.files.storage import PathLike

Skipped = list[dict[str, Any]]
# What the entries of a COCO file must have; segmentations are checked one by one.
_NEEDED: dict[str, dict[str, type | tuple[type, ...]]] = {
    "images": {"id": (int, str), "file_name": str, "width": int, "height": int},
    "annotations": {"id": int, "image_id": (int, str), "category_id": (int, str)},
    "categories": {"id": (int, str), "name": str},
}


def coco_index(
    annotations: Path, images: PathLike, min_area: float, max_area: float, *,
    categories: Sequence[str] = (), licenses: str = "any",
) -> tuple[Index, Skipped]:  # fmt: skip
    """Index a COCO dataset.

    Left out and counted: crowds, segments whose share of their image lies outside [min_area,
    max_area] or whose category is not asked for; their categories still count as shown by the
    image. Images whose licence does not allow the use are left out with all their annotations.
    What cannot be used is listed with its reason: images that are missing or no image, sizes that
    contradict the annotations, annotations of unknown images, segmentations without area.

    Args:
        categories: names of those whose segments are wanted; by default all.
        licenses: "any", "shareable" or "commercial", see `licences.allows`.

    Raises:
        ValueError: the file is no COCO instances JSON, a category is unknown, or nothing can be
            used.
    """
    content = _read(annotations)
    wanted = _wanted(content["categories"], categories)
    left_out = _leave_out_images(content, licenses)
    skipped: Skipped = []
    usable, positions = _images(content["images"], images, skipped)
    segments, present, filtered = _segments(
        content, usable, positions, wanted, (min_area, max_area), skipped
    )
    if not segments:
        raise ValueError(
            f"{annotations} with images from {images} gives no usable segment: "
            f"{len(usable)} images, {len(skipped)} skipped "
            f"(first: {skipped[0] if skipped else None}), left out {dict(filtered)} segments and "
            f"{left_out} images"
        )
    licences = licences_of(content)
    listed = sorted(
        (image for image in content["images"] if image["id"] in positions),
        key=lambda image: positions[image["id"]],
    )
    index = build(
        dataset=annotations.stem, root=storage.absolute(images), exif=False, proposer="coco",
        categories=[category["name"] for category in content["categories"]],
        images=usable, present=present, segments=segments, filtered=dict(filtered),
        left_out=left_out,
        licences=[licences.get(str(image.get("license")), NOT_STATED) for image in listed],
        credits=[_credit(image) for image in listed],
    )  # fmt: skip
    return index, skipped


def _segments(
    content: dict[str, Any], usable: list[tuple[str, int, int]], positions: dict[int | str, int],
    wanted: set[int], area_limits: tuple[float, float], skipped: Skipped,
) -> tuple[list[Segment], list[set[int]], Counter[str]]:  # fmt: skip
    """The segments, the categories that each image shows, and how many were left out and why."""
    category_of = {category["id"]: place for place, category in enumerate(content["categories"])}
    present: list[set[int]] = [set() for _ in usable]
    segments: list[Segment] = []
    filtered: Counter[str] = Counter()
    known = {image["id"] for image in content["images"]}
    for annotation in content["annotations"]:
        position = positions.get(annotation["image_id"])
        if position is None:
            # Listed once with the image, unless the file knows of no such image at all.
            if annotation["image_id"] not in known:
                skipped.append({"annotation": annotation["id"], "reason": "its image is unknown"})
            continue
        category = category_of.get(annotation["category_id"], UNKNOWN)
        present[position].add(category)
        reason = None
        if annotation.get("iscrowd"):
            reason = "crowd"
        elif category not in wanted:
            reason = "category"
        else:
            name, width, height = usable[position]
            try:
                counts, area = encode_segmentation(annotation.get("segmentation"), width, height)
            except ValueError as error:
                entry = {"image": name, "annotation": annotation["id"], "reason": str(error)}
                skipped.append(entry)
                continue
            if area_limits[0] <= area / (width * height) <= area_limits[1]:
                segments.append(Segment(position, category, annotation["id"], counts))
            else:
                reason = "area"
        if reason:
            filtered[reason] += 1
    return segments, present, filtered


def _wanted(listed: list[dict[str, Any]], names: Sequence[str]) -> set[int]:
    """Positions of the categories of these names; all of them, and UNKNOWN, where none is named."""
    if not names:
        return {UNKNOWN, *range(len(listed))}
    known = [category["name"] for category in listed]
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, 3, 0) or ["none"]
            raise ValueError(f"no category is called {name!r}; the nearest are {', '.join(near)}")
    return {position for position, name in enumerate(known) if name in names}


def licences_of(content: dict[str, Any]) -> dict[str, Licence]:
    """The licences that a COCO file lists, by id."""
    return {
        str(entry.get("id")): Licence(str(entry.get("name")), str(entry.get("url") or ""))
        for entry in content.get("licenses", ())
        if isinstance(entry, dict)
    }


def _leave_out_images(content: dict[str, Any], use: str) -> dict[str, int]:
    """Take away the images, and their annotations, whose licence does not allow a use."""
    licences = licences_of(content)
    refused = {
        image["id"]: licences.get(str(image.get("license")), NOT_STATED).name
        for image in content["images"]
        if not allows(licences.get(str(image.get("license")), NOT_STATED), use)
    }
    for kind, key in (("images", "id"), ("annotations", "image_id")):
        content[kind] = [entry for entry in content[kind] if entry[key] not in refused]
    return {f"licence: {name}": count for name, count in Counter(refused.values()).most_common()}


def _credit(image: dict[str, Any]) -> str:
    """Where an image comes from: what COCO, or this project's photographs, say of it."""
    return next((str(image[k]) for k in ("source", "flickr_url", "coco_url") if image.get(k)), "")


def _read(annotations: Path) -> dict[str, Any]:
    try:
        content = json.loads(annotations.read_bytes())
    except FileNotFoundError as error:
        raise ValueError(f"{annotations} is missing; expected a COCO instances JSON") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"{annotations} is not a readable JSON file: {error}") from error
    if not isinstance(content, dict) or any(
        not isinstance(content.get(kind), list) for kind in _NEEDED
    ):
        raise ValueError(f"{annotations} is no COCO instances JSON: it needs lists {[*_NEEDED]}")
    for kind, fields in _NEEDED.items():
        for number, entry in enumerate(content[kind]):
            for name, kinds in fields.items():
                if not isinstance(entry, dict) or not isinstance(entry.get(name), kinds):
                    raise ValueError(f"{annotations}: {kind}[{number}] has no valid {name!r}")
    if not any("segmentation" in annotation for annotation in content["annotations"]):
        raise ValueError(f"{annotations} holds no segmentations; expected a COCO *instances* JSON")
    return content


def _images(
    listed: list[dict[str, Any]], folder: PathLike, skipped: Skipped
) -> tuple[list[tuple[str, int, int]], dict[int | str, int]]:
    """The usable images (name, width, height), and their position by COCO id."""
    if not (storage.is_url(folder) or Path(folder).is_dir()):
        raise ValueError(f"{folder} is not a folder; expected the folder of the images")
    usable: list[tuple[str, int, int]] = []
    positions: dict[int | str, int] = {}
    ordered = sorted(listed, key=lambda image: image["file_name"])
    sizes = read_sizes(
        storage.join(folder, image["file_name"])
        for image in ordered
        if not _outside(image["file_name"])
    )
    for image in ordered:
        name = image["file_name"]
        try:
            if _outside(name):
                raise ImageError(name, "outside the folder of the images")
            size = next(sizes)
            if usable and usable[-1][0] == name:
                raise ImageError(name, "listed twice")
            if isinstance(size, ImageError):
                raise size
            width, height = size
            if (width, height) != (image["width"], image["height"]):
                listed_size = f"{image['width']} x {image['height']}"
                raise ImageError(name, f"is {width} x {height}, annotated as {listed_size}")
        except ImageError as error:
            skipped.append({"image": name, "reason": error.reason})
            continue
        positions[image["id"]] = len(usable)
        usable.append((name, width, height))
    return usable, positions


def _outside(name: str) -> bool:
    return Path(name).is_absolute() or ".." in Path(name).parts


def encode_segmentation(segmentation: Any, width: int, height: int) -> tuple[bytes, int]:
    """A COCO segmentation of any kind to compressed run lengths and its area in pixels.

    Args:
        segmentation: a list of polygons, or run lengths, compressed or not.

    Raises:
        ValueError: it is malformed or has no area inside the image.
    """
    if isinstance(segmentation, list):
        encoded = rle.merge(rle.frPyObjects(_polygons(segmentation, width, height), height, width))
    elif isinstance(segmentation, dict) and segmentation.get("size") == [height, width]:
        encoded = rle.frPyObjects(
            {"size": [height, width], "counts": _run_lengths(segmentation, width * height)},
            height, width,
        )  # fmt: skip
    else:
        raise ValueError("neither polygons nor run lengths of the image's size")
    area = int(rle.area(encoded))
    if not area:
        raise ValueError("no area inside the image")
    return encoded["counts"], area


# pycocotools believes its input: run lengths that are too short give masks out of memory that was
# never written, and coordinates that are huge or no numbers end the process.


def _polygons(segmentation: list[Any], width: int, height: int) -> list[list[float]]:
    if not segmentation:
        raise ValueError("no polygon")
    reach = 10 * max(width, height)
    for polygon in segmentation:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise ValueError("a polygon that is no list of three points or more")
        if not all(isinstance(value, int | float) and abs(value) <= reach for value in polygon):
            raise ValueError("a polygon with a point that is no number or far outside the image")
    return segmentation


def _run_lengths(segmentation: dict[str, Any], pixels: int) -> list[int]:
    counts = segmentation.get("counts")
    if isinstance(counts, str):
        counts = _decoded(counts)
    if (
        not isinstance(counts, list)
        or not all(isinstance(count, int) and count >= 0 for count in counts)
        or sum(counts) != pixels
    ):
        raise ValueError("run lengths that do not fill the image")
    return counts


def _decoded(text: str) -> list[int]:
    """COCO's compressed run lengths: five bits a character, the lowest first, the sixth bit says
    that more follow; from the fourth on, the difference to the last but one.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError("malformed run lengths")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return counts


def encode_mask(mask: np.ndarray) -> bytes:
    """A binary mask (H, W) to COCO's compressed run lengths."""
    return rle.encode(np.asfortranarray(mask, np.uint8))["counts"]
