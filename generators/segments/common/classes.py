"""From maps of the classes in an image to regions of things: what such proposers share."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes

from generators.networks.trained import trained
from generators.segments.common.proposer import Proposer, shrunk
from generators.segments.common.refining import refined
from generators.segments.common.regions import Regions

if TYPE_CHECKING:
    from generators.networks.cam import ClassMap
    from generators.networks.classes.predictor import Predictor

MOST = 5  # classes an image
_SAME = 0.5  # IoU from which on two classes are names of one thing
_STANDS_OUT = 0.5  # a class's probability at least


class Learned(Proposer):
    """The things that a run's own classifier names in an image, each with its class as category."""

    takes_weights = True
    needs_weights = True
    network = True

    @property
    def weights_file(self) -> Path:
        """Of the run, or the one given."""
        assert self.weights is not None
        return trained(self.weights)[0]

    @cached_property
    def _predictor(self) -> "Predictor":
        from generators.networks.classes.predictor import Predictor

        return Predictor.load(self.weights_file)

    def regions(
        self, images: Sequence[NDArray[np.uint8]], paths: Sequence[str]
    ) -> list[Iterator[Regions]]:
        """The refined regions of the classes that stand out."""
        sizes = [(small.shape[1], small.shape[0]) for small in map(shrunk, images)]
        found = self._predictor.class_maps(images, sizes, MOST, _STANDS_OUT)
        threshold = self._predictor.threshold
        return [
            class_regions(image, maps, threshold) for image, maps in zip(images, found, strict=True)
        ]


def class_regions(
    image: NDArray[np.uint8], maps: Sequence["ClassMap"], threshold: float
) -> Iterator[Regions]:
    """Where an image shows classes, refined at its edges; what has been found under another name is
    passed over.

    Args:
        image: RGB (H, W, 3).
        maps: of the classes, the likeliest first.
        threshold: of a map, from which on the class is rather there.
    """
    small = shrunk(image)
    height, width = small.shape[:2]
    kept: list[NDArray[np.bool_]] = []
    for each in maps:
        seen = cv2.resize(each.map, (width, height), interpolation=cv2.INTER_LINEAR)
        rough = seen > threshold
        if any(_iou(rough, other) > _SAME for other in kept):
            continue  # classes are fine: a dog is of several breeds
        kept.append(rough)
        mask = binary_fill_holes(refined(small, seen, threshold))
        yield Regions(mask, score=min(1.0, each.probability), category=each.category)


def _iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float((a & b).sum() / max(1, (a | b).sum()))
