"""What LDF learns from: pictures with the mask of what stands out, cropped, mirrored, scaled."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from generators.networks.ldf.labels import decoupled
from generators.networks.ldf.network import STRIDE
from segswap import geometry
from segswap.batches.processes import load
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


class MaskedPictures:
    """Sample (n, S): a picture uint8 (3, S, S), and its labels uint8 (3, S, S), mask, body and
    detail, of (seed, n) alone. They are `Samples` of a training; every epoch has its own order.
    """

    def __init__(
        self, pictures: Sequence[Masked], size: int, labels: str, seed: int, workers: int
    ) -> None:
        """
        Args:
            pictures: to learn from.
            size: largest side of the batches' squares; a multiple of STRIDE.
            labels: how masks without predicted labels are parted; see `decoupled`.
            seed: seeds what is drawn.
            workers: processes that load pictures; 0 loads in this one. They change no sample.
        """
        self._pictures, self._labels, self._seed = list(pictures), labels, seed
        self._workers = workers
        self.sizes = [s for s in (size - STRIDE * i for i in range(_SIZES)) if s >= _LEAST]
        self._order = lru_cache(maxsize=2)(self._shuffled)

    def _shuffled(self, epoch: int) -> NDArray[np.intp]:
        order = np.random.default_rng([self._seed, epoch]).permutation(len(self._pictures))
        return order.astype(np.intp)

    def picture(self, n: int) -> Masked:
        """The picture of the sample with a number."""
        epoch, place = divmod(n, len(self._pictures))
        return self._pictures[self._order(epoch)[place]]

    def name(self, number: int) -> str:
        """See Samples.name."""
        return str(self.picture(number).image)

    def size_of(self, batch: int) -> int:
        """Side of the squares of the batch with a number."""
        return self.sizes[np.random.default_rng([self._seed, batch, 1]).integers(len(self.sizes))]

    def batches(
        self, batch: int, first: int, last: int, rank: int = 0, ranks: int = 1
    ) -> Iterator[list[Tensor]]:
        """See Samples.batches: pictures and labels, uint8 (batch, 3, S, S) each."""
        joined = partial(self._joined, batch, rank, ranks)
        return load(joined, range(first, last), self._workers)

    def _joined(self, batch: int, rank: int, ranks: int, number: int) -> list[Tensor]:
        """What one process is given of the batch with a number."""
        start = (number * ranks + rank) * batch
        samples = [self[n, self.size_of(number)] for n in range(start, start + batch)]
        return [torch.stack(part) for part in zip(*samples, strict=True)]

    def __getitem__(self, wanted: tuple[int, int]) -> tuple[Tensor, Tensor]:
        n, size = wanted
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
