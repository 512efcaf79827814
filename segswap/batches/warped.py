"""A picture and its own warp as a pair: what is learned from a mask of the foreground alone."""

import logging
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from segswap import geometry
from segswap.batches.loading import Sayer, load_batches
from segswap.batches.picture import Mask, Picture, Pictures
from segswap.batches.samples import check_size, photograph_numbers
from segswap.data.augment import Warp, photometric
from segswap.data.pair import Pair, PairObject
from segswap.data.truth import source_truth, target_truth
from segswap.matchers.base import Batch, BatchSide

LOG = logging.getLogger("segswap")
_SPREAD = 0.15  # standard deviation of an affine map's six entries, as published


class WarpedStream:
    """The n-th sample of pictures with foreground masks, for any n: see `Stream`.

    Both sides show one picture, each by an affine map of its own, changed in colour on its own,
    mirrored together or not (Lee et al., "SFNet", CVPR 2019). The mask is the foreground's, where
    the other side shows it too; positions, and the very same thing, are known of the background as
    well. All of it follows from (pictures, seed, n).
    """

    def __init__(
        self, pictures: Pictures, *, size: int, stride: int, mask_stride: int | None = None,
        seed: int = 0, workers: int = 0, skip_bad: bool = False, masked: bool = True,
        strong: bool = False,
    ) -> None:  # fmt: skip
        """
        Args:
            pictures: whose kind 0 is the foreground; see `read_foregrounds`.
            size: side of the images in pixels, a multiple of the strides.
            stride: pixels a cell of the grid of positions.
            mask_stride: pixels a cell of the masks' grid; by default as many.
            seed: seeds what is drawn.
            workers: loader processes; 0 loads in this process. They change no sample.
            skip_bad: draw another picture in place of one that cannot be read, and name that one on
                stderr; otherwise it is an error.
            masked: False leaves the masks unknown, for a matcher that knows kinds of things: more
                of a kind may be in the background.
            strong: whether light changes strongly at times: see `photometric`.

        Raises:
            ValueError: the size does not fit.
        """
        check_size(size, stride, mask_stride)
        self.pictures, self.seed = pictures.pictures, seed
        self.size, self.cells = size, size // stride
        self.mask_cells = size // (mask_stride or stride)
        self.workers, self.skip_bad = workers, skip_bad
        self.masked, self.strong = masked, strong
        self.skipped: dict[int, str] = {}
        self._say = Sayer()

    @property
    def truth(self) -> frozenset[str]:
        """See `Stream.truth`."""
        return frozenset({"pair", "positions", "same"} | ({"mask"} if self.masked else set()))

    def __len__(self) -> int:
        """Pictures."""
        return len(self.pictures)

    def __getitem__(self, number: int) -> Batch:
        """The run's n-th sample, without the batch dimension."""
        rng = np.random.default_rng([self.seed, 4, number])
        place, image, mask = self._read(rng.permutation(len(self)).tolist())
        whole, foreground = warped_pair(image, mask, rng, self.size)
        sides = []
        for shown, truth_of in ((whole.source, source_truth), (whole.target, target_truth)):
            truth = truth_of(whole, self.cells, self.cells, Warp(), Warp())
            known = truth_of(foreground, self.mask_cells, self.mask_cells, Warp(), Warp()).mask
            coloured = photometric(shown, rng, self.strong)
            sides.append(BatchSide(
                torch.from_numpy(coloured).permute(2, 0, 1),
                photograph_numbers({self.pictures[place].key}),
                torch.from_numpy(known) if self.masked else None,
                torch.from_numpy(truth.positions), torch.from_numpy(truth.valid),
                same=torch.from_numpy(truth.mask),
            ))  # fmt: skip
        return Batch(*sides)

    def batches(
        self, batch: int, first: int, last: int, rank: int = 0, ranks: int = 1
    ) -> Iterator[Batch]:
        """See `Stream.batches`."""
        return load_batches(
            self, batch, first, last, rank, ranks, workers=self.workers, say=self._say
        )

    def name(self, number: int) -> str:
        """See `Stream.name`."""
        rng = np.random.default_rng([self.seed, 4, number])
        return f"{self.pictures[rng.permutation(len(self))[0]].path}, warped"

    def _read(self, places: Sequence[int]) -> tuple[int, NDArray[np.uint8], Mask]:
        """The first of some pictures that can be read: its number, image and mask."""
        # Which ones cannot be read is found anew: what was seen before must not change a sample.
        reason = ""
        for place in places:
            try:
                return place, *_view(self.pictures[place])
            except ValueError as error:
                if not self.skip_bad:
                    raise
                reason = self.skipped.setdefault(place, str(error))
        raise ValueError(f"no picture can be read: {reason}")


def warped_pair(
    image: NDArray[np.uint8], mask: Mask, rng: np.random.Generator, size: int, index: int = 0,
    key: str = "",
) -> tuple[Pair, Pair]:  # fmt: skip
    """A picture in two views, size x size px each, as two pairs: one shares all of the picture, one
    its foreground. Beyond the picture's frame is its nearest edge pixel, which is not shared.

    Args:
        image: (H, W, 3).
        mask: (H, W), of the foreground.
        rng: draws mirroring and maps.
        index: of the pairs.
        key: of the photograph, by its content.
    """
    if rng.random() < 0.5:
        image, mask = geometry.mirror(image), geometry.mirror(mask)
    labels = 1 + mask.astype(np.uint8)  # 0 is beyond the frame
    to_source, to_target = _affine(rng), _affine(rng)
    shown, told = [], []
    for matrix in (to_source, to_target):
        shown.append(geometry.warp(image, matrix, size, size))
        told.append(geometry.warp_labels(labels, matrix, size, size))
    origin = {"sha256": key} if key else {}
    item = PairObject(1, to_target @ np.linalg.inv(to_source), None, origin, "")
    whole, foreground = (
        Pair(
            index, shown[0], shown[1],
            (told[0] >= least).view(np.uint8), (told[1] >= least).view(np.uint8), (item,),
        ) for least in (1, 2)
    )  # fmt: skip
    return whole, foreground


def held_out_warps(
    sources: Sequence[Pictures], count: int, size: int, skip_bad: bool = False
) -> list[Pair]:
    """Pairs of the first pictures that sources hold out, about as many of each, always the same
    ones: each with its own warp, of which the foreground is shared.

    Args:
        sources: of the pictures.
        count: most pairs.
        size: side of the images in pixels.
        skip_bad: leave out pictures that cannot be read, and say so on stderr; otherwise they are
            an error.

    Raises:
        ValueError: a picture, or its mask, cannot be read.
    """
    told = [source.held_out for source in sources if source.held_out]
    each = -(-count // max(1, len(told)))
    pairs = []
    for index, picture in enumerate(p for held_out in told for p in held_out[:each]):
        rng = np.random.default_rng([0, 5, index])
        try:
            pairs.append(warped_pair(*_view(picture), rng, size, index, picture.key)[1])
        except ValueError as error:
            if not skip_bad:
                raise
            LOG.warning("skipped: %s", error)
    return pairs[:count]


def _view(picture: Picture) -> tuple[NDArray[np.uint8], Mask]:
    image = picture.read()
    mask = picture.mask(0, image.shape[:2])
    assert mask is not None  # pictures without one are left out
    return image, mask


def _affine(rng: np.random.Generator) -> NDArray[np.float64]:
    """A random affine map to a view: 3x3, normalised from normalised coordinates of the picture.
    Near the identity; it is the inverse of the map that is drawn, of corners at -1 and 1.
    """
    drawn = np.eye(3)
    drawn[:2] += rng.normal(0, _SPREAD, (2, 3))
    to_corners = geometry.translation(-1, -1) @ geometry.scaling(2, 2)
    found: NDArray[np.float64] = np.linalg.inv(to_corners) @ np.linalg.inv(drawn) @ to_corners
    return found
