"""Pictures with a mask of what stands out in them, from a folder or from COCO annotations.

A source is one text:

    FOLDER                    FOLDER/images/NAME.jpg and FOLDER/masks/NAME.png, of the same size and
                              not 0 on the foreground, also in folders below; FOLDER/heldout.txt
                              may list pictures that are scored on, NAME.jpg one a line
    ANNOTATIONS.json:IMAGES   COCO instances and the folder of their images: all segmentations of a
                              picture together; pictures without any are left out
"""

import logging
from collections.abc import Iterator, Sequence, Set
from dataclasses import replace
from pathlib import Path

import numpy as np

from segswap.batches.picture import Picture, Pictures
from segswap.batches.pictures import HELD_OUT, held_out_keys, read_pictures
from segswap.files.folders import image_files
from segswap.files.hashes import file_hash
from segswap.files.images import read_label_map, read_size

LOG = logging.getLogger("segswap")
_KINDS = ("foreground",)  # the one kind of thing in such pictures, with number 0


def read_foregrounds(source: str, skip_bad: bool = False) -> Pictures:
    """The pictures of a source, as the module's text describes it, whose one kind is the
    foreground.

    Args:
        source: a folder, or annotations with their folder of images.
        skip_bad: leave out pictures without a mask that fits, and name them on stderr; otherwise
            they are an error.

    Raises:
        ValueError: it is no such source, a picture's mask is missing, empty, of another size or
            cannot be read, or no picture is left.
    """
    annotations, colon, _ = source.rpartition(":")
    bad: list[str] = []
    if colon and annotations.endswith(".json"):
        found = list(_of_coco(read_pictures(source, skip_bad, pairs=False)))
        held_out = set[str]()
    else:
        found, held_out = _of_folder(source, bad)
    if bad and not skip_bad:
        more = f" ({len(bad)} pictures of {source} are like this)" if len(bad) > 1 else ""
        raise ValueError(f"{bad[0]}{more}; mend them, or leave them out with --skip-bad")
    for reason in bad:
        LOG.warning("skipped: %s", reason)
    kept = tuple(picture for picture in found if picture.key not in held_out)
    scored = tuple(picture for picture in found if picture.key in held_out)
    return _checked(Pictures(source, _KINDS, (), kept, scored))


def without(sources: Sequence[Pictures], keys: Set[str]) -> tuple[Pictures, ...]:
    """Sources without the pictures of some content among those to train on.

    Raises:
        ValueError: one of them has none left.
    """
    return tuple(
        _checked(replace(source, pictures=tuple(p for p in source.pictures if p.key not in keys)))
        for source in sources
    )


def _checked(found: Pictures) -> Pictures:
    if not found.pictures:
        beside = f" beside {len(found.held_out)} held out" if found.held_out else ""
        raise ValueError(f"{found.source} holds no picture with a mask to train on{beside}")
    return found


def _of_coco(pictures: Pictures) -> Iterator[Picture]:
    for picture in pictures.pictures:
        parts = [*picture.masks.values(), *picture.crowds.values()]
        masks = [segmentation for kind in parts for segmentation in kind]
        if masks:
            labels = np.ones(1, np.int8)
            yield Picture(picture.path, picture.key, labels, {0: masks}, size=picture.size)


def _of_folder(source: str, bad: list[str]) -> tuple[list[Picture], set[str]]:
    root = Path(source)
    images, masks = root / "images", root / "masks"
    if not images.is_dir() or not masks.is_dir():
        raise ValueError(
            f"{source} has no folders images and masks; expected masks/NAME.png for each "
            "images/NAME.jpg, or ANNOTATIONS.json:IMAGES"
        )
    found, keys = [], {}
    for name in image_files(images):
        path, mask = images / name, (masks / name).with_suffix(".png")
        keys[name] = file_hash(path)
        try:
            _check_mask(path, mask)
        except ValueError as error:
            bad.append(str(error))
            continue
        found.append(Picture(str(path), keys[name], np.ones(1, np.int8), {0: str(mask)}))
    return found, held_out_keys(root / HELD_OUT, keys)


def _check_mask(path: Path, mask: Path) -> None:
    """Refuse a mask with which nothing can be learned from a picture.

    Raises:
        ValueError: it is missing, empty, of another size, or one of the two cannot be read.
    """
    if not mask.is_file():
        raise ValueError(f"{path} has no mask; expected it in {mask}")
    size, labels = read_size(path, upright=True), read_label_map(mask)
    if labels.shape[::-1] != size:
        raise ValueError(
            f"{mask} is {labels.shape[1]} x {labels.shape[0]} px, {path} {size[0]} x {size[1]}; "
            "expected masks of their pictures' sizes"
        )
    if not labels.any():
        raise ValueError(f"{mask} is empty; expected a mask of what stands out in {path}")
