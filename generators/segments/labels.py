"""Segments that somebody else has found: a folder of label maps beside the folder of images."""

import os

import numpy as np
from numpy.typing import NDArray

from segswap.files import storage
from segswap.files.images import ImageError, image_files, read_label_map


def labels(image: NDArray[np.uint8], path: str) -> list[NDArray[np.integer]]:
    """The label map of the image's own size that lies at `labels_place(path)` with suffix .png.

    It is a PNG of 8 or 16 bits, one channel or a palette, and as upright as the image.

    Raises:
        ImageError: it is missing, no label map, or of another size.
    """
    place = labels_place(path)
    try:
        found = read_label_map(os.path.splitext(place)[0] + ".png")
    except ImageError as error:
        raise ImageError(path, f"its label map: {error.reason}") from error
    if found.shape != image.shape[:2]:
        sizes = [f"{shape[1]} x {shape[0]}" for shape in (found.shape, image.shape)]
        raise ImageError(path, f"its label map is {sizes[0]}, the image {sizes[1]}")
    return [found]


def labels_place(path: str) -> str:
    """Where the label maps of a folder of images lie, or with suffix .png that of an image: the
    last part of the absolute path that is called images is called labels instead. So
    labels/train/x.png is the label map of images/train/x.jpg.

    Raises:
        ValueError: no part of the path is called images.
    """
    # Links are not followed: what counts are the names on the path.
    whole = path if storage.is_url(path) else os.path.abspath(storage.local_path(path))
    before, found, behind = f"{whole}/".rpartition("/images/")
    if not found:
        raise ValueError(
            f"{path} lies in no folder called images; expected images/ with label maps in labels/ "
            "beside it, labels/x.png for images/x.jpg"
        )
    return f"{before}/labels/{behind}".rstrip("/")


def check_labels(folder: str) -> None:
    """Make sure that there are label maps for a folder of images.

    Raises:
        ValueError: there is no such folder, or no image file in it.
    """
    place = labels_place(folder)
    try:
        image_files(place)
    except ValueError as error:
        raise ValueError(
            f"no label maps for the images in {folder}: {error} (labels/x.png for images/x.jpg)"
        ) from error
