"""Pictures with the kinds of things in them, from a folder a kind or from COCO annotations.

A source is one text:

    FOLDER                    FOLDER/images/KIND/*.jpg, or FOLDER/KIND/*.jpg; where there are some,
                              masks FOLDER/masks/KIND/NAME.png (not 0 where the kind is) and
                              keypoints FOLDER/keypoints.json
    ANNOTATIONS.json:IMAGES   COCO instances and the folder of their images; keypoints where the
                              annotations have some

keypoints.json: {"keypoints": [names], "images": {"KIND/NAME.jpg": {"width": W, "height": H,
"points": [[x, y] or null, ...]}}}, in pixels; the k-th points of any two pictures correspond.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from segswap import geometry
from segswap.files.hashes import file_hash
from segswap.files.images import image_files, read_label_map

Points = NDArray[np.float32]
_SIDES = (("left_", "right_"), ("right_", "left_"))


@dataclass
class Picture:
    """A picture and what is known of it.

    Attributes:
        path: of its file.
        key: SHA-256 of the file's content, by which the same picture in two places is one.
        labels: int8 (C,), for each kind 1 where it is in the picture, 0 where it is not, -1 where
            nobody knows.
        masks: for a kind's number, where its mask comes from: a file, or COCO's segmentations.
        points: for a kind's number float32 (K, 2), normalised keypoints; NaN where one is not seen.
    """

    path: str
    key: str
    labels: NDArray[np.int8]
    masks: dict[int, Any] = field(default_factory=dict)
    points: dict[int, Points] = field(default_factory=dict)

    def mask(self, kind: int, shape: tuple[int, int]) -> NDArray[np.bool_] | None:
        """Where the picture, of so many rows and columns, shows a kind: bool (H, W); None where
        that is not known.

        Raises:
            ImageError: the mask's file cannot be read.
            ValueError: the mask is of another size.
        """
        if kind not in self.masks:
            return None
        told = self.masks[kind]
        mask = _union(told, *shape) if isinstance(told, list) else read_label_map(told) > 0
        if mask.shape != shape:
            raise ValueError(
                f"{told} is {mask.shape[1]} x {mask.shape[0]} px, {self.path} {shape[1]} x "
                f"{shape[0]}; expected masks of their pictures' sizes"
            )
        return mask


@dataclass(frozen=True)
class Pictures:
    """Pictures of a source.

    Attributes:
        source: where they come from.
        kinds: names of the kinds of things.
        keypoints: names of the keypoints.
        pictures: each with its labels in the order of `kinds`.
    """

    source: str
    kinds: tuple[str, ...]
    keypoints: tuple[str, ...]
    pictures: tuple[Picture, ...]

    @cached_property
    def truth(self) -> frozenset[str]:
        """What is known of pairs of them: see `Batch.truth`."""
        known = {"pair", "label"}
        if all(kind in p.masks for p in self.pictures for kind in np.flatnonzero(p.labels == 1)):
            known.add("mask")
        if self.keypoints:
            known.add("keypoints")
        return frozenset(known)

    @cached_property
    def mirrored_keypoints(self) -> NDArray[np.intp]:
        """Number of the keypoint that each one is in a mirror: left and right change places."""
        numbers = {name: number for number, name in enumerate(self.keypoints)}
        found = []
        for number, name in enumerate(self.keypoints):
            swapped = [name.replace(own, other, 1) for own, other in _SIDES if own in name]
            found.append(numbers.get(swapped[0], number) if swapped else number)
        return np.array(found, np.intp)


def read_pictures(source: str) -> Pictures:
    """The pictures of a source, as the module's text describes it.

    Raises:
        ValueError: it is no such source, or no two pictures in it show the same kind.
    """
    annotations, colon, images = source.rpartition(":")
    is_coco = bool(colon) and annotations.endswith(".json")
    found = _coco(source, annotations, images) if is_coco else _folder(source)
    if not _pairs(found):
        raise ValueError(
            f"{source} holds {len(found.pictures)} pictures of {len(found.kinds)} kinds, and no "
            "two of one kind; expected a folder for each kind with two pictures or more, or "
            "ANNOTATIONS.json:IMAGES"
        )
    return found


def pictures_hash(source: str) -> str:
    """SHA-256 of what a source tells: its pictures by content, their kinds, and whose masks and
    keypoints are known.

    Raises:
        ValueError: see `read_pictures`.
    """
    found = read_pictures(source)
    told = [
        (p.key, p.labels.tolist(), sorted(p.masks), {k: v.tolist() for k, v in p.points.items()})
        for p in found.pictures
    ]
    return hashlib.sha256(json.dumps([found.kinds, found.keypoints, told]).encode()).hexdigest()


def _pairs(found: Pictures) -> bool:
    if not found.pictures:
        return False
    return bool((np.sum([picture.labels == 1 for picture in found.pictures], axis=0) > 1).any())


# --- a folder a kind -------------------------------------------------------------------------


def _folder(source: str) -> Pictures:
    root = Path(source)
    if not root.is_dir():
        raise ValueError(
            f"{source} is not there; expected a folder with a folder for each kind, or "
            "ANNOTATIONS.json:IMAGES"
        )
    images = root / "images" if (root / "images").is_dir() else root
    kinds = sorted(p.name for p in images.iterdir() if p.is_dir() and p.name != "masks")
    described = _keypoints_file(root / "keypoints.json")
    pictures: dict[str, Picture] = {}
    for number, kind in enumerate(kinds):
        for name in image_files(images / kind):
            path = images / kind / name
            key = file_hash(path)
            # A picture of several kinds may lie in the folder of each.
            unknown = np.full(len(kinds), -1, np.int8)
            picture = pictures.setdefault(key, Picture(str(path), key, unknown))
            picture.labels[number] = 1
            mask = root / "masks" / kind / Path(name).with_suffix(".png")
            if mask.is_file():
                picture.masks[number] = str(mask)
            if entry := described["images"].get(f"{kind}/{name}"):
                picture.points[number] = _normalised(entry, len(described["keypoints"]), path)
    return Pictures(source, tuple(kinds), tuple(described["keypoints"]), tuple(pictures.values()))


def _keypoints_file(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {"keypoints": [], "images": {}}
    try:
        content = json.loads(path.read_text())
        if not isinstance(content["keypoints"], list) or not isinstance(content["images"], dict):
            raise TypeError("keypoints must be a list and images an object")
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{path} cannot be read as keypoints: {error}") from error
    return dict(content)


def _normalised(entry: Mapping[str, Any], count: int, path: Path) -> Points:
    try:
        points = [(np.nan, np.nan) if p is None else p for p in entry["points"]]
        array = np.array(points, np.float64).reshape(-1, 2)
        size = float(entry["width"]), float(entry["height"])
    except (LookupError, TypeError, ValueError) as error:
        raise ValueError(f"the keypoints of {path} cannot be read: {error}") from error
    if len(array) != count:
        raise ValueError(f"{path} has {len(array)} keypoints; expected {count}, as many as names")
    return _within(array / size)


def _within(points: NDArray[np.float64]) -> Points:
    """Normalised points, those outside of the picture as not seen."""
    return np.where(geometry.inside(points)[:, None], points, np.nan).astype(np.float32)


# --- COCO ------------------------------------------------------------------------------------


def _coco(source: str, annotations: str, images: str) -> Pictures:
    try:
        content = json.loads(Path(annotations).read_text())
        kinds = {category["id"]: n for n, category in enumerate(content["categories"])}
        names = tuple(str(category["name"]) for category in content["categories"])
        labelled = [c for c in content["categories"] if c.get("keypoints")]
        keypoints = tuple(labelled[0]["keypoints"]) if labelled else ()
        found = dict(_coco_pictures(content, images, len(names)))
        for annotation in content["annotations"]:
            if annotation["image_id"] in found and annotation["category_id"] in kinds:
                entry, size = found[annotation["image_id"]]
                _annotate(entry, annotation, kinds[annotation["category_id"]], size, len(keypoints))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{annotations} cannot be read as COCO annotations: {error}") from error
    return Pictures(source, names, keypoints, tuple(entry for entry, _ in found.values()))


def _coco_pictures(
    content: Mapping[str, Any], images: str, kinds: int
) -> Iterator[tuple[Any, tuple[Picture, tuple[int, int]]]]:
    """By their ids, the pictures whose files are there; COCO lists all kinds that they show."""
    for image in content["images"]:
        path = os.path.join(images, image["file_name"])
        if os.path.isfile(path):
            entry = Picture(path, file_hash(path), np.zeros(kinds, np.int8))
            yield image["id"], (entry, (int(image["width"]), int(image["height"])))


def _annotate(
    picture: Picture, annotation: Mapping[str, Any], kind: int, size: tuple[int, int], count: int
) -> None:
    picture.labels[kind] = 1
    if annotation.get("segmentation"):
        picture.masks.setdefault(kind, []).append(annotation["segmentation"])
    told = annotation.get("keypoints")
    # Of several with keypoints the first one counts.
    if told and kind not in picture.points and count:
        points = np.array(told, np.float64).reshape(count, 3)
        points[points[:, 2] == 0] = np.nan
        # COCO counts pixels from 0 at their centres.
        picture.points[kind] = _within(geometry.to_normalised(points[:, :2], *size))


def _union(segmentations: list[Any], height: int, width: int) -> NDArray[np.bool_]:
    """All of COCO's segmentations, polygons or run lengths, as one mask."""
    parts = []
    for segmentation in segmentations:
        if isinstance(segmentation, list):
            parts += rle.frPyObjects(segmentation, height, width)
        elif isinstance(segmentation["counts"], list):
            parts.append(rle.frPyObjects(segmentation, height, width))
        else:
            parts.append(segmentation)
    return rle.decode(rle.merge(parts)).astype(bool)
