"""What LDF learns from: pictures with the mask of what stands out, cropped, mirrored, scaled."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from generators.networks.ldf.labels import decoupled
from generators.networks.ldf.network import STRIDE
from generators.networks.pictures import NumberedPictures
from segswap import geometry
from segswap.files.images import ImageError, read_image, read_label_map

_SIZES = 5  # of which a batch has one: that asked for, and those below it in steps of STRIDE
_LEAST = 2 * STRIDE
_CROPPED = 8  # a side is shortened by up to an eighth
Arrays = tuple[NDArray[np.uint8], ...]


@dataclass(frozen=True)
class Masked:
    """A picture and the mask of what stands out in it.

    Attributes:
        image, mask: their files.
        body, detail: files of predicted labels; None where they follow from the mask.
    """

    image: Path
    mask: Path
    body: Path | None = None
    detail: Path | None = None

    def read(self) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """The picture (H, W, 3) and its mask (H, W), cut at half of its largest value.

        Raises:
            ImageError: of the picture: one of both cannot be read, or the sizes differ.
        """
        image = read_image(self.image)
        try:
            labels = read_label_map(self.mask)
        except ImageError as error:
            raise ImageError(str(self.image), f"its mask {self.mask}: {error.reason}") from error
        if labels.shape != image.shape[:2]:
            sizes = [f"{shape[1]} x {shape[0]}" for shape in (labels.shape, image.shape)]
            reason = f"its mask {self.mask} is {sizes[0]}, the picture {sizes[1]}"
            raise ImageError(str(self.image), reason)
        return image, labels > labels.max() / 2


class MaskedPictures(NumberedPictures[Masked]):
    """Pictures uint8 (3, S, S), and their labels uint8 (3, S, S), mask, body and detail."""

    def __init__(
        self, pictures: Sequence[Masked], size: int, labels: str, seed: int, workers: int
    ) -> None:
        """
        Args:
            pictures, seed, workers: see NumberedPictures.
            size: largest side of the batches' squares; a multiple of STRIDE.
            labels: how masks without predicted labels are parted; see `decoupled`.
        """
        super().__init__(pictures, seed, workers)
        self._labels = labels
        self.sizes = [s for s in (size - STRIDE * i for i in range(_SIZES)) if s >= _LEAST]

    def name(self, number: int) -> str:
        """See Samples.name."""
        return str(self.picture(number).image)

    def size_of(self, batch: int) -> int:
        """Side of the squares of the batch with a number."""
        return self.sizes[np.random.default_rng([self._seed, batch, 1]).integers(len(self.sizes))]

    def sample(self, n: int, batch: int) -> tuple[Tensor, Tensor]:
        """See NumberedPictures.sample."""
        size = self.size_of(batch)
        rng = np.random.default_rng([self._seed, n, 2])
        arrays = self._arrays(self.picture(n))
        height, width = arrays[0].shape[:2]
        lost = [int(rng.integers(side // _CROPPED + 1)) for side in (height, width)]
        top, left = (int(rng.integers(each + 1)) for each in lost)
        rows, columns = (slice(at, at + side - less) for at, side, less in
                         ((top, height, lost[0]), (left, width, lost[1])))  # fmt: skip
        step = -1 if rng.integers(2) else 1
        image, *labels = (
            geometry.resize(np.ascontiguousarray(each[rows, columns][:, ::step]), size, size)
            for each in arrays
        )
        return torch.from_numpy(image).permute(2, 0, 1), torch.from_numpy(np.stack(labels))

    def _arrays(self, picture: Masked) -> Arrays:
        """The picture, and its mask, body and detail of its own size, uint8."""
        image, mask = picture.read()
        if picture.body and picture.detail:
            height, width = mask.shape
            told = [
                geometry.resize(read_label_map(path).astype(np.uint8), width, height)
                for path in (picture.body, picture.detail)
            ]
        else:
            told = [np.rint(each * 255).astype(np.uint8) for each in decoupled(mask, self._labels)]
        return image, mask.view(np.uint8) * np.uint8(255), *told
