"""Pairs of pictures that show the same kind of thing, as training samples."""

import sys
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segswap import geometry
from segswap.batches.loading import load_batches
from segswap.batches.pictures import Picture, Pictures
from segswap.batches.samples import check_size, photograph_numbers
from segswap.data.augment import Warp, photometric, random_window
from segswap.data.truth import cell_shares
from segswap.files.images import read_image
from segswap.matchers.base import Batch, BatchSide


class CategoryStream:
    """The n-th pair of pictures of one kind, for any n: see `Stream`.

    A kind is drawn, each as likely as any other that two pictures show, and two of its pictures.
    Both are mirrored or not, cropped around the kind or not, and changed in colour, each on its
    own. All of it follows from (pictures, seed, n).
    """

    def __init__(
        self, pictures: Pictures, *, size: int, stride: int, mask_stride: int | None = None,
        seed: int = 0, augment: bool = True, workers: int = 0, skip_bad: bool = False,
    ) -> None:  # fmt: skip
        """
        Args:
            pictures: with the kinds of things in them.
            size: side of the images in pixels, a multiple of the strides.
            stride: pixels a cell of the grid of positions.
            mask_stride: pixels a cell of the masks' grid; by default as many.
            seed: seeds what is drawn.
            augment: False changes nothing but the size.
            workers: loader processes; 0 loads in this process. They change no sample.
            skip_bad: draw another picture in place of one that cannot be read, and name that one on
                stderr; otherwise it is an error.

        Raises:
            ValueError: the size does not fit.
        """
        check_size(size, stride, mask_stride)
        self.pictures, self.seed, self.augment = pictures, seed, augment
        self.size, self.mask_cells = size, size // (mask_stride or stride)
        self.workers, self.skip_bad = workers, skip_bad
        self.skipped: dict[int, str] = {}
        self._said: set[int] = set()
        labels = np.array([picture.labels for picture in pictures.pictures])
        shown = [np.flatnonzero(labels[:, kind] == 1) for kind in range(labels.shape[1])]
        self._of_kind = {kind: found for kind, found in enumerate(shown) if len(found) > 1}

    @property
    def truth(self) -> frozenset[str]:
        """See `Stream.truth`."""
        return self.pictures.truth

    def __getitem__(self, number: int) -> Batch:
        """The run's n-th sample, without the batch dimension."""
        rng = np.random.default_rng([self.seed, 3, number])
        kind, places = self._draw(rng)
        sides: list[BatchSide] = []
        # Which ones cannot be read is found anew: what was seen before must not change a sample.
        for place in places:
            try:
                sides.append(self._side(self.pictures.pictures[place], kind, rng))
            except ValueError as error:
                if not self.skip_bad:
                    raise
                self.skipped.setdefault(int(place), str(error))
            if len(sides) == 2:
                return Batch(*sides)
        reason = next(self.skipped[place] for place in places.tolist() if place in self.skipped)
        raise ValueError(
            f"fewer than two pictures of {self.pictures.kinds[kind]} can be read: {reason}"
        )

    def batches(
        self, batch: int, first: int, last: int, rank: int = 0, ranks: int = 1
    ) -> Iterator[Batch]:
        """See `Stream.batches`."""
        return load_batches(
            self, batch, first, last, rank, ranks, workers=self.workers, say=self._say
        )

    def name(self, number: int) -> str:
        """See `Stream.name`."""
        kind, places = self._draw(np.random.default_rng([self.seed, 3, number]))
        paths = [self.pictures.pictures[place].path for place in places[:2]]
        return f"{' and '.join(paths)} ({self.pictures.kinds[kind]})"

    def _draw(self, rng: np.random.Generator) -> tuple[int, NDArray[np.intp]]:
        """A kind, and the numbers of its pictures in the order in which they are tried."""
        kind = int(rng.choice(list(self._of_kind)))
        return kind, rng.permutation(self._of_kind[kind])

    def _side(self, picture: Picture, kind: int, rng: np.random.Generator) -> BatchSide:
        image = read_image(picture.path)
        mask = picture.mask(kind, image.shape[:2])
        warp = Warp()
        if self.augment:
            kept = np.zeros(image.shape[:2], bool) if mask is None else mask
            cropped = random_window(kept, self.size, rng) if rng.random() < 0.5 else None
            warp = Warp(bool(rng.random() < 0.5), None, cropped)
        shown = warp.image(image, self.size)
        if self.augment:
            shown = photometric(shown, rng)
        keypoints, seen = self._keypoints(picture, kind, warp)
        return BatchSide(
            torch.from_numpy(shown).permute(2, 0, 1), photograph_numbers({picture.key}),
            self._mask(mask, warp), None, None, keypoints, seen, torch.from_numpy(picture.labels),
        )  # fmt: skip

    def _mask(self, mask: NDArray[np.bool_] | None, warp: Warp) -> Tensor | None:
        if "mask" not in self.truth or mask is None:
            return None
        cells = self.mask_cells
        return torch.from_numpy(cell_shares(mask.view(np.uint8), cells, cells, warp))

    def _keypoints(
        self, picture: Picture, kind: int, warp: Warp
    ) -> tuple[Tensor | None, Tensor | None]:
        names = self.pictures.keypoints
        if not names:
            return None, None
        points = picture.points.get(kind, np.full((len(names), 2), np.nan, np.float32))
        if warp.mirrored:
            points = points[self.pictures.mirrored_keypoints]
        found = warp.from_original(points.astype(np.float64)).astype(np.float32)
        seen = np.asarray(geometry.inside(found))  # False for NaN
        return torch.from_numpy(np.where(seen[:, None], found, 0)), torch.from_numpy(seen)

    def _say(self, skipped: dict[int, str]) -> None:
        for place in sorted(skipped.keys() - self._said):
            print(f"skipped: {skipped[place]}", file=sys.stderr, flush=True)
            self._said.add(place)
