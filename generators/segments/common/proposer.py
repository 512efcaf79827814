"""What a proposer is: batches of images in, segments worth copying out."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from generators.networks.trained import trained
from generators.segments.common.regions import Found, Regions, worth_copying
from segswap import geometry
from segswap.files.hashes import file_hash
from segswap.files.images import ImageError

SIDE = 256  # px; the regions sought are large, and the time to find them grows with the pixels


class Proposer(ABC):
    """Finds segments in batches of images. Making one is cheap, also where it holds a network: that
    is loaded, and torch imported, when the first batch comes.

    Attributes:
        version: to be raised with every change of what is found: indexes that were kept of it are
            then made anew.
        takes_weights: whether it can be given a file of weights.
        needs_weights: whether it has none of its own.
        network: whether it holds a network: what is found may then differ by rounding from one
            machine to another, and a GPU helps.
        weights: that file's path or URL, or None.
    """

    version: ClassVar[int] = 1
    takes_weights: ClassVar[bool] = False
    needs_weights: ClassVar[bool] = False
    network: ClassVar[bool] = False

    def __init__(self, weights: str | None = None) -> None:
        if weights is not None and not self.takes_weights:
            raise ValueError(f"{self.name} takes no weights, and {weights} was given; leave it out")
        if weights is None and self.needs_weights:
            raise ValueError(
                f"{self.name} has no weights of its own: train some (segswap-train-proposer IMAGES "
                f"--method {self.name} --out RUN), and give their folder, RUN, in its place"
            )
        self.weights = weights
        if weights is not None and self.network:
            path, said = trained(weights)
            if said.method != self.name:
                raise ValueError(f"{path} holds weights of {said.method}, not of {self.name}")

    @property
    def name(self) -> str:
        """The name of its module."""
        return type(self).__module__.rpartition(".")[2]

    @property
    def weights_file(self) -> Path | str | None:
        """The file of its weights, the one given or its own; None where it has none."""
        return self.weights

    @property
    def fingerprint(self) -> str:
        """All that what it finds depends on, beside the images: name, version, weights' SHA-256.

        Raises:
            OSError, ValueError: the weights cannot be read.
        """
        file = self.weights_file
        parts = [self.name, str(self.version), *([file_hash(file)] if file else [])]
        return " ".join(parts)

    @abstractmethod
    def regions(
        self, images: Sequence[NDArray[np.uint8]], paths: Sequence[str]
    ) -> Sequence[Iterable[Regions]]:
        """What stands out in each image, worth copying or not.

        Args:
            images: RGB, (H, W, 3) each, of any sizes; not to be changed.
            paths: of the images' files, for what lies beside them.

        Returns:
            For each image its regions, their label maps all of one size. They are iterated once, in
            order, and may be found only then. The same image always gives the same ones, whichever
            images are with it. Iterating may raise ImageError: the image is listed as skipped.
        """

    def beside(self, folder: str) -> Sequence[str]:
        """The folders or URLs of image files that it reads beside a folder of images.

        Raises:
            ValueError: there is no place for them.
        """
        return ()

    def propose(
        self, images: Sequence[NDArray[np.uint8]], paths: Sequence[str], area: tuple[float, float]
    ) -> list[Found | ImageError]:
        """The segments of each image that are worth copying (see `worth_copying`).

        Args:
            images, paths: see `regions`.
            area: smallest and largest share of its image that a segment may take.

        Returns:
            For each image what was found, or why it cannot be used.
        """
        results: list[Found | ImageError] = []
        for image, regions in zip(images, self.regions(images, paths), strict=True):
            height, width = image.shape[:2]
            try:
                results.append(worth_copying(regions, height, width, area))
            except ImageError as error:
                results.append(error)
        return results


def shrunk(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An RGB image with its longer side at most 256 px."""
    height, width = image.shape[:2]
    factor = min(1.0, SIDE / max(height, width))
    return geometry.resize(image, max(1, round(width * factor)), max(1, round(height * factor)))
