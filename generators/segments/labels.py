"""Segments that somebody else has found: a folder of label maps beside the folder of images."""

import os
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from generators.segments.common.proposer import Proposer
from generators.segments.common.regions import Regions
from segswap.files import storage
from segswap.files.images import ImageError, read_label_map


class Labels(Proposer):
    """The label map of the image's own size that lies at `labels_place(path)` with suffix .png.

    It is a PNG of 8 or 16 bits, one channel or a palette, and as upright as the image. An image is
    skipped where it is missing, no label map, or of another size.
    """

    def regions(
        self, images: Sequence[NDArray[np.uint8]], paths: Sequence[str]
    ) -> list[Iterator[Regions]]:
        """What the label maps hold."""
        return [_read(image, path) for image, path in zip(images, paths, strict=True)]

    def beside(self, folder: str) -> list[str]:
        """The folder of the label maps."""
        return [labels_place(folder)]


def _read(image: NDArray[np.uint8], path: str) -> Iterator[Regions]:
    place = labels_place(path)
    try:
        found = read_label_map(os.path.splitext(place)[0] + ".png")
    except ImageError as error:
        raise ImageError(path, f"its label map: {error.reason}") from error
    if found.shape != image.shape[:2]:
        sizes = [f"{shape[1]} x {shape[0]}" for shape in (found.shape, image.shape)]
        raise ImageError(path, f"its label map is {sizes[0]}, the image {sizes[1]}")
    yield Regions(found)


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
