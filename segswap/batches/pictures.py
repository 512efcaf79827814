"""Pictures with the kinds of things in them, from a folder a kind or from COCO annotations.

A source is one text:

    FOLDER                    FOLDER/images/KIND/*.jpg, or FOLDER/KIND/*.jpg; where there are some,
                              masks FOLDER/masks/KIND/NAME.png (not 0 where the kind is),
                              keypoints FOLDER/keypoints.json, and FOLDER/heldout.txt, which lists
                              pictures to score on, KIND/NAME.jpg one a line
    ANNOTATIONS.json:IMAGES   COCO instances and the folder of their images; keypoints where the
                              annotations have some

keypoints.json: {"keypoints": [names], "images": {"KIND/NAME.jpg": {"width": W, "height": H,
"points": [[x, y] or null, ...], "box": [left, top, right, bottom]}}}, in pixels, the box where
there is one; the k-th points of any two pictures correspond.
"""

import json
import logging
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segswap import geometry
from segswap.batches.picture import Picture, Pictures, Points
from segswap.data.coco import Annotation, CocoImage, read_coco
from segswap.data.segmentations import FEW_POINTS, is_outline, points_missing
from segswap.files.folders import image_files, subfolders
from segswap.files.hashes import file_hash
from segswap.files.images import ImageError
from segswap.files.opening import MISSING, UnreadableError, open_regular
from segswap.files.storage import local_path

LOG = logging.getLogger("segswap")
HELD_OUT = "heldout.txt"


def read_pictures(source: str, skip_bad: bool = False, pairs: bool = True) -> Pictures:
    """The pictures of a source, as the module's text describes it.

    Args:
        source: a folder or annotations with their folder of images.
        skip_bad: leave out pictures whose annotations cannot be used, and name them on stderr;
            otherwise they are an error.
        pairs: whether pairs are made of them; False takes any number of pictures.

    Raises:
        ValueError: it is no such source, or no two pictures in it show the same kind, where pairs
            are made of them.
    """
    bad: list[str] | None = [] if skip_bad else None
    found = pictures_of(source, bad)
    for reason in bad or ():
        LOG.warning("skipped: %s", reason)
    if pairs:
        found.check_pairs(len(found.held_out))
    return found


def pictures_of(source: str, bad: list[str] | None) -> Pictures:
    """The pictures of a source; what of it cannot be used is added to `bad`, and an error where
    that is None.
    """
    annotations, colon, images = source.rpartition(":")
    if colon and annotations.endswith(".json"):
        return _coco(source, annotations, images, bad)
    return _folder(source, bad)


def content_key(path: str | Path) -> str:
    """The hash of a file's content, computed once for as long as the file is as it was."""
    try:
        with open_regular(path, "an image") as file:
            state = os.fstat(file.fileno())
        return _hashed(str(path), state.st_mtime_ns, state.st_size, state.st_ino)
    except UnreadableError as error:
        raise ImageError(str(path), error.reason) from error


@lru_cache(maxsize=1 << 20)
def _hashed(path: str, *_: int) -> str:
    return file_hash(path)


# --- a folder a kind -------------------------------------------------------------------------


def _folder(source: str, bad: list[str] | None) -> Pictures:
    root = Path(source)
    if not root.is_dir():
        raise ValueError(
            f"{source} is not there; expected a folder with a folder for each kind, or "
            "ANNOTATIONS.json:IMAGES"
        )
    images = root / "images" if (root / "images").is_dir() else root
    own = _kinds_in(images)
    kinds = [*own]
    described = _keypoints_file(root / "keypoints.json")
    keys: dict[str, str] = {}
    for place in (f"{kind}/{name}" for kind, names in own.items() for name in names):
        try:
            keys[place] = content_key(images / place)
        except ImageError as error:
            if bad is None:
                raise
            bad.append(str(error))
    pictures: dict[str, Picture] = {}
    for place, key in keys.items():
        kind = kinds.index(place.split("/")[0])
        path, entry = str(images / place), described["images"].get(place)
        try:
            told = _told(entry, len(described["keypoints"]), path) if entry else None
        except ValueError as error:
            if bad is None:
                raise
            bad.append(str(error))
            continue
        # A picture of several kinds may lie in the folder of each.
        unknown = np.full(len(kinds), -1, np.int8)
        picture = pictures.setdefault(key, Picture(path, key, unknown))
        picture.labels[kind] = 1
        mask = (root / "masks" / place).with_suffix(".png")
        if mask.is_file():
            picture.masks[kind] = str(mask)
        if told is not None:
            picture.points[kind], box = told
            if box is not None:
                picture.boxes[kind] = box
    held_out = held_out_keys(root / HELD_OUT, keys)
    parts = [
        tuple(picture for key, picture in pictures.items() if (key in held_out) == scored)
        for scored in (False, True)
    ]
    return Pictures(source, tuple(kinds), tuple(described["keypoints"]), *parts)


def _kinds_in(images: Path) -> dict[str, list[str]]:
    """The pictures of each kind, by the names of files; a folder without any is named and left out.

    Raises:
        ValueError: the folder of the kinds' folders cannot be listed.
    """
    found = {}
    for kind in subfolders(images):
        if kind == "masks":
            continue
        try:
            found[kind] = image_files(images / kind)
        except ValueError as error:
            LOG.warning("left out: %s", error)
    return found


def held_out_keys(path: Path, keys: Mapping[str, str]) -> set[str]:
    """Content of the pictures that are to be scored on: whatever has it is not trained on."""
    if not path.is_file():
        return set()
    lines = [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
    if missing := [line for line in lines if line not in keys]:
        raise ValueError(
            f"{path} lists {missing[0]}, which is not there; expected KIND/NAME of pictures, one a "
            "line"
        )
    return {keys[line] for line in lines}


def _keypoints_file(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {"keypoints": [], "images": {}}
    try:
        content = json.loads(path.read_bytes())
        if not isinstance(content["keypoints"], list) or not isinstance(content["images"], dict):
            raise TypeError("keypoints must be a list and images an object")
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{path} cannot be read as keypoints: {error}") from error
    return dict(content)


def _told(
    entry: Mapping[str, Any], count: int, path: str
) -> tuple[Points, NDArray[np.float32] | None]:
    """Normalised keypoints (count, 2) of a picture, and the box of what they are of."""
    try:
        points = [(np.nan, np.nan) if p is None else p for p in entry["points"]]
        array = np.array(points, np.float64).reshape(-1, 2)
        size = float(entry["width"]), float(entry["height"])
        box = np.reshape(entry["box"], (2, 2)) / size if "box" in entry else None
    except (LookupError, TypeError, ValueError) as error:
        raise ValueError(f"the keypoints of {path} cannot be read: {error}") from error
    if len(array) != count:
        raise ValueError(f"{path} has {len(array)} keypoints; expected {count}, as many as names")
    return _within(array / size), None if box is None else box.ravel().astype(np.float32)


def _within(points: NDArray[np.float64]) -> Points:
    """Normalised points, those outside of the picture as not seen."""
    return np.where(geometry.inside(points)[:, None], points, np.nan).astype(np.float32)


# --- COCO ------------------------------------------------------------------------------------


def _coco(source: str, annotations: str, images: str, bad: list[str] | None) -> Pictures:
    content = read_coco(annotations, images)
    left_out: set[str] = set()
    unknown = 0

    def leave_out(name: str, reason: str) -> None:
        if bad is None:
            raise ValueError(f"{annotations}, {name}: {reason}")
        bad.append(f"{name}: {reason}")
        left_out.add(name)

    for entry in content.skipped:
        if "image" in entry:
            which = f"annotation {entry['annotation']}: " if "annotation" in entry else ""
            leave_out(entry["image"], which + entry["reason"])
        else:
            unknown += 1  # as where a file's images were chosen, and its annotations were not
    found = [_coco_picture(image, images, len(content.categories)) for image in content.images]
    for image, picture in zip(content.images, found, strict=True):
        if isinstance(picture, str):
            leave_out(image.name, picture)
    unmasked = set()
    for annotation in content.annotations:
        picture = found[annotation.image]
        if not isinstance(picture, Picture):
            continue
        content.corrected[FEW_POINTS] += points_missing(annotation.segmentation)
        if not is_outline(annotation.segmentation):
            unmasked.add((annotation.image, annotation.category))
        try:
            _annotate(picture, annotation, len(content.keypoints))
        except ValueError as error:
            leave_out(content.images[annotation.image].name, str(error))
    for position, kind in unmasked:  # where one of its things is, is not known
        picture = found[position]
        if isinstance(picture, Picture):
            picture.masks.pop(kind, None)
            picture.crowds.pop(kind, None)
    content.corrected["annotations whose images are not listed"] += unknown
    for what, count in (+content.corrected).items():
        LOG.warning("%s: %d %s", annotations, count, what)
    kept = tuple(
        picture for image, picture in zip(content.images, found, strict=True)
        if isinstance(picture, Picture) and image.name not in left_out
    )  # fmt: skip
    return Pictures(source, tuple(content.categories), content.keypoints, kept)


def _coco_picture(image: CocoImage, folder: str, kinds: int) -> Picture | str | None:
    """COCO lists all kinds that a picture shows. None where its file is not there, what is wrong
    with it where it cannot be read.
    """
    path = local_path(os.path.join(folder, image.name))
    try:
        key = content_key(path)
    except ImageError as error:
        return None if error.reason == MISSING else error.reason
    return Picture(path, key, np.zeros(kinds, np.int8), size=(image.width, image.height))


def _annotate(picture: Picture, annotation: Annotation, count: int) -> None:
    kind = annotation.category
    picture.labels[kind] = 1
    if is_outline(annotation.segmentation):
        own = picture.masks.setdefault(kind, [])
        crowds = picture.crowds.setdefault(kind, []) if annotation.crowd else own
        crowds.append(annotation.segmentation)
    told = annotation.keypoints
    # Of several with keypoints the first one counts.
    if not told or kind in picture.points or not count:
        return
    try:
        points = np.array(told, np.float64).reshape(-1, 3)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"the keypoints of {picture.path} cannot be read: {error}") from error
    if len(points) != count:
        raise ValueError(
            f"{picture.path} has {len(points)} keypoints; expected {count}, as many as names"
        )
    points[points[:, 2] == 0] = np.nan
    if np.isfinite(points[:, 0]).any():
        assert picture.size is not None
        # COCO counts pixels from 0 at their centres.
        picture.points[kind] = _within(geometry.to_normalised(points[:, :2], *picture.size))
