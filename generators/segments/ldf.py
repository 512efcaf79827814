"""What stands out: LDF (Wei et al., CVPR 2020, arXiv 2008.11048), by a network that learned it."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes
from skimage.measure import label

from generators.networks import SHIPPED
from generators.networks.trained import trained
from generators.segments.common.proposer import Proposer
from generators.segments.common.regions import Regions

if TYPE_CHECKING:
    from generators.networks.ldf.predictor import Maps, Predictor

_SIDE = 480  # px: longer side of the maps at most; segments are compared at it
_SALIENT = 0.5
_SURE = 0.97  # mean saliency of a region at least: chosen on training pictures of COCO
_LEAST = 0.005  # share of an image below which no part is looked at
_AROUND = 9  # px that a region is widened by where its confidence is measured


class Ldf(Proposer):
    """The things that stand out in an image, each part that is not connected as one."""

    version = 2
    takes_weights = True
    network = True

    @property
    def weights_file(self) -> Path:
        """The weights: the file given, or the one that ships."""
        return trained(self.weights or SHIPPED / "ldf")[0]

    @cached_property
    def _predictor(self) -> "Predictor":
        from generators.networks.ldf.predictor import Predictor

        return Predictor.load(self.weights_file)

    def regions(
        self, images: Sequence[NDArray[np.uint8]], paths: Sequence[str]
    ) -> list[Iterator[Regions]]:
        """The salient regions."""
        sizes = [_size(image) for image in images]
        return [salient(maps) for maps in self._predictor.maps(images, sizes)]


def salient(maps: "Maps") -> Iterator[Regions]:
    """The connected regions where the saliency is over a half, holes filled, that are sure; their
    score is how far from a half the saliency is in them and around them.
    """
    found = label(maps.saliency > _SALIENT, connectivity=2)
    for number in range(1, int(found.max()) + 1):
        mask = binary_fill_holes(found == number)
        if mask.mean() < _LEAST or maps.saliency[mask].mean() <= _SURE:
            continue
        around = cv2.dilate(mask.view(np.uint8), np.ones((_AROUND, _AROUND), np.uint8)) > 0
        yield Regions(mask, score=float(np.abs(2 * maps.saliency[around] - 1).mean()))


def _size(image: NDArray[np.uint8]) -> tuple[int, int]:
    """Width and height of an image's maps."""
    height, width = image.shape[:2]
    factor = min(1.0, _SIDE / max(height, width))
    return max(1, round(width * factor)), max(1, round(height * factor))
