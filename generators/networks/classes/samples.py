"""What SEAM and SC-CAM learn from: crops of pictures, and the classes that each picture shows."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms import functional

from generators.networks.classes.affinity import UNSURE
from generators.networks.pictures import NumberedPictures
from segswap import geometry
from segswap.batches.picture import Picture
from segswap.files.images import read_label_map

LONGEST = 1.0, 1.75  # times the crop's side: what a picture's longer side is brought to
_JITTER = 0.3  # of brightness, contrast and saturation
_HUE = 0.1
_GREY = 127  # around a picture that is smaller than the crop: about the mean of networks' inputs


class LabelledPictures(NumberedPictures[Picture]):
    """Pictures uint8 (3, S, S), cropped, mirrored, changed in colour, and what is told of each:
    float32 (L,).
    """

    def __init__(
        self, pictures: Sequence[Picture], labels: NDArray[np.bool_], size: int, seed: int,
        workers: int,
    ) -> None:  # fmt: skip
        """
        Args:
            pictures, seed, workers: see NumberedPictures.
            labels: (N, L) of each picture.
            size: side of the crops.
        """
        super().__init__(pictures, seed, workers)
        self._labels, self._size = labels, size

    def name(self, number: int) -> str:
        """See Samples.name."""
        return self.picture(number).path

    def sample(self, n: int, batch: int) -> tuple[Tensor, ...]:
        """See NumberedPictures.sample."""
        rng = np.random.default_rng([self._seed, n, 2])
        image = self.picture(n).read()
        square = Crop.drawn(image.shape, self._size, rng).of(image)
        pixels = recoloured(torch.from_numpy(square).permute(2, 0, 1), rng)
        return pixels, torch.from_numpy(self._labels[self.place(n)].astype(np.float32))


class AffinityPictures(NumberedPictures[Picture]):
    """Pictures uint8 (3, S, S), cropped, mirrored, changed in colour, and label maps uint8 (S, S)
    of what is surely known; see `sure_labels`.
    """

    def __init__(
        self, pictures: Sequence[Picture], labels: Sequence[Path], size: int, seed: int,
        workers: int,
    ) -> None:  # fmt: skip
        """
        Args:
            pictures, seed, workers: see NumberedPictures.
            labels: a file of each, of any size.
            size: side of the crops.
        """
        super().__init__(pictures, seed, workers)
        self._labels, self._size = list(labels), size

    def name(self, number: int) -> str:
        """See Samples.name."""
        return self.picture(number).path

    def sample(self, n: int, batch: int) -> tuple[Tensor, Tensor]:
        """See NumberedPictures.sample."""
        rng = np.random.default_rng([self._seed, n, 2])
        image = self.picture(n).read()
        labels = read_label_map(self._labels[self.place(n)]).astype(np.uint8)
        crop = Crop.drawn(image.shape, self._size, rng)
        pixels = recoloured(torch.from_numpy(crop.of(image)).permute(2, 0, 1), rng)
        return pixels, torch.from_numpy(crop.of_labels(labels, UNSURE))


@dataclass(frozen=True)
class Crop:
    """A square of a picture at another size, mirrored or not.

    Attributes:
        width, height: what the whole picture is brought to, pixels.
        window: the square in that, which it may leave.
        mirrored: whether it is.
    """

    width: int
    height: int
    window: geometry.Window
    mirrored: bool

    @classmethod
    def drawn(cls, shape: Sequence[int], size: int, rng: np.random.Generator) -> "Crop":
        """A square of `size` px of a picture of a shape (H, W, ...)."""
        factor = rng.uniform(*LONGEST) * size / max(shape[:2])
        height, width = (max(1, round(side * factor)) for side in shape[:2])
        left, top = (
            int(rng.integers(-max(0, size - side), max(0, side - size) + 1))
            for side in (width, height)
        )
        return cls(width, height, (left, top, left + size, top + size), bool(rng.integers(2)))

    def of(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The square of the picture (H, W, 3), grey where it leaves it."""
        return self._cut(geometry.resize(image, self.width, self.height), _GREY)

    def of_labels(self, labels: NDArray[np.uint8], outside: int) -> NDArray[np.uint8]:
        """The square of a label map (H, W) of the picture, of any size."""
        size = self.width, self.height
        return self._cut(cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST), outside)

    def _cut(self, array: NDArray[np.uint8], fill: int) -> NDArray[np.uint8]:
        left, top, right, bottom = self.window
        made = np.full((bottom - top, right - left, *array.shape[2:]), fill, np.uint8)
        part = array[max(0, top) : bottom, max(0, left) : right]
        made[max(0, -top) :, max(0, -left) :][: part.shape[0], : part.shape[1]] = part
        return np.ascontiguousarray(made[:, ::-1]) if self.mirrored else made


def recoloured(image: Tensor, rng: np.random.Generator) -> Tensor:
    """An image uint8 (3, H, W) of another brightness, contrast, saturation and hue."""
    for change in (
        functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation
    ):  # fmt: skip
        image = change(image, rng.uniform(1 - _JITTER, 1 + _JITTER))
    return functional.adjust_hue(image, rng.uniform(-_HUE, _HUE))
