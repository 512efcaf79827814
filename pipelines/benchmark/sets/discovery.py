"""Benchmarks of collections in which the object that repeats is to be found in every image."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.benchmark.base import Advance, Scores, means
from pipelines.evaluate.predictions import damage_says
from segswap.evaluation.segmentation import jaccard, pixel_precision
from segswap.files.images import encode_png, read_label_map, read_size
from segswap.files.storage import write_atomically

Mask = NDArray[np.bool_]
# From a class's images and the width of its graph's weights (None: the default) to masks at the
# images' sizes; None where nothing was found.
Discover = Callable[[Sequence[str], float | None], Sequence[Mask | None]]


@dataclass(frozen=True)
class Collection:
    """Images of one class.

    Attributes:
        name: of the class.
        images, masks: paths; a mask is not 0 on the object, and all 0 in an image without one.
        sigma: width of the weights in the graph of correspondences, in cells; None for the default.
    """

    name: str
    images: Sequence[Path]
    masks: Sequence[Path]
    sigma: float | None = None


@dataclass(frozen=True)
class Discovery:
    """Collections that are scored together; see `base.Task`.

    P is the mean over a class's images, J over those with an object, and both then over classes.
    """

    collections: Sequence[Collection]
    identity: dict[str, Any]
    unit: str = "images"

    @property
    def count(self) -> int:
        """How many images there are."""
        return sum(len(collection.images) for collection in self.collections)

    def export(self, way: Discover, folder: Path, advance: Advance) -> None:
        """See `base.Task.export`."""
        for collection in self.collections:
            found = way([str(path) for path in collection.images], collection.sigma)
            for number, (path, mask) in enumerate(zip(collection.images, found, strict=True)):
                width, height = read_size(path)
                whole = np.zeros((height, width), bool) if mask is None else mask
                png = encode_png(whole.astype(np.uint8) * 255)
                write_atomically(_file(folder, collection, number), png)
                advance(1)

    def score(self, folder: Path) -> Scores:
        """See `base.Task.score`."""
        own: list[Scores] = []
        columns: Scores = {}
        for collection in self.collections:
            rows = [
                self._judged(_file(folder, collection, number), path, folder)
                for number, path in enumerate(collection.masks)
            ]
            own.append(means(rows))
            columns |= {f"{column} {collection.name}": own[-1][column] for column in own[-1]}
        return columns | means(own)

    def _judged(self, found: Path, true: Path, folder: Path) -> Scores:
        mask = read_label_map(true) > 0
        with damage_says(folder):
            own = read_label_map(found) > 0
        if own.shape != mask.shape:
            raise ValueError(f"{true} is {mask.shape}, its image {own.shape}; expected one size")
        return {"P": pixel_precision(own, mask), "J": jaccard(own, mask)}


def _file(folder: Path, collection: Collection, number: int) -> Path:
    return folder / f"{collection.name}-{number:05d}.png"
