"""Pairs of pictures that show the same kind of thing, as training samples."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segswap import geometry
from segswap.batches.loading import Sayer, load_batches
from segswap.batches.picture import Mask, Picture, Pictures, Points
from segswap.batches.samples import (
    check_size,
    photograph_numbers,
    random_box,
    random_warps,
    with_itself,
)  # fmt: skip
from segswap.data.augment import Warp, photometric, random_window
from segswap.data.truth import cell_shares, source_truth, target_truth
from segswap.files.images import read_image
from segswap.matchers.base import Batch, BatchSide

_ALONE = 0.15  # share of samples in which a picture meets a changed copy of itself
_ACROSS = 0.25  # share of samples of two kinds that have the same keypoints
_CROPPED, _SMALLER = 0.5, 0.15  # shares of images that are cropped around the kind, or made smaller
_LEAST_KNOWN = 1e-3  # share of a cell, below which it is unknown

Drawn = list[tuple[int, NDArray[np.intp]]]


@dataclass(frozen=True)
class _View:
    """A picture that was read, with what is known of one kind in it.

    Attributes:
        mask: bool (H, W); None where it is not known at all.
        unknown: bool (H, W), where nobody knows; None for nowhere.
        points: float32 (K, 2), normalised; NaN where one is not seen.
    """

    picture: Picture
    image: NDArray[np.uint8]
    mask: Mask | None
    unknown: Mask | None
    points: Points


class CategoryStream:
    """The n-th pair of pictures of one kind, for any n: see `Stream`.

    A kind is drawn, each as likely as any other that two pictures show, and two of its pictures.
    Both are mirrored or not, cropped around the kind or not or made smaller, and changed in colour,
    each on its own. Some samples are two views of one picture, so that the very same thing is known
    apart from another of its kind; where pictures of several kinds have keypoints, some samples are
    of two kinds, of which these alone are known. All of it follows from (pictures, seed, n).
    """

    def __init__(
        self, pictures: Pictures, *, size: int, stride: int, mask_stride: int | None = None,
        seed: int = 0, augment: bool = True, workers: int = 0, skip_bad: bool = False,
        kinds: bool = False,
    ) -> None:  # fmt: skip
        """
        Args:
            pictures: with the kinds of things in them.
            size: side of the images in pixels, a multiple of the strides.
            stride: pixels a cell of the grid of positions.
            mask_stride: pixels a cell of the masks' grid; by default as many.
            seed: seeds what is drawn.
            augment: False pairs two pictures of a kind, and changes nothing but their size.
            workers: loader processes; 0 loads in this process. They change no sample.
            skip_bad: draw another picture in place of one that cannot be read, and name that one on
                stderr; otherwise it is an error.
            kinds: whether light changes strongly at times: see `make_sample`.

        Raises:
            ValueError: the size does not fit.
        """
        check_size(size, stride, mask_stride)
        self.pictures, self.seed, self.augment, self.strong = pictures, seed, augment, kinds
        self.size, self.cells, self.mask_cells = (
            size,
            size // stride,
            size // (mask_stride or stride),
        )
        self.workers, self.skip_bad = workers, skip_bad
        self.skipped: dict[int, str] = {}
        self._say = Sayer()
        labels = np.array([picture.labels for picture in pictures.pictures])
        shown = [np.flatnonzero(labels[:, kind] == 1) for kind in range(labels.shape[1])]
        self._of_kind = {kind: found for kind, found in enumerate(shown) if len(found) > 1}
        self._pointed: dict[int, NDArray[np.intp]] = {}  # those whose keypoints are known
        for kind, found in enumerate(shown):
            told = [n for n in found.tolist() if pictures.pictures[n].shows_points(kind)]
            if told:
                self._pointed[kind] = np.array(told)

    @property
    def truth(self) -> frozenset[str]:
        """See `Stream.truth`."""
        return self.pictures.truth | {"same"} | ({"positions"} if self.augment else set())

    def __len__(self) -> int:
        """Pictures."""
        return len(self.pictures.pictures)

    def __getitem__(self, number: int) -> Batch:
        """The run's n-th sample, without the batch dimension."""
        rng = np.random.default_rng([self.seed, 3, number])
        drawn = self._draw(rng)
        views = self._views(drawn)
        if len(views) == 1:
            return self._alone(views[0], rng)
        sides = [self._side(*self._changed(view, rng), rng) for view in views]
        if drawn[0][0] != drawn[1][0] and "mask" in self.truth:
            # Whether a cat's picture shows what is in a dog's is nobody's to say.
            nothing = torch.full((self.mask_cells, self.mask_cells), torch.nan)
            sides = [side._replace(mask=nothing) for side in sides]
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
        drawn = self._draw(np.random.default_rng([self.seed, 3, number]))
        kinds = dict.fromkeys(self.pictures.kinds[kind] for kind, _ in drawn)
        places = [places[side if len(kinds) == 1 else 0] for side, (_, places) in enumerate(drawn)]
        paths = [self.pictures.pictures[place].path for place in places]
        said = " and ".join(paths) if len(paths) > 1 else f"{paths[0]} with itself"
        return f"{said} ({' and '.join(kinds)})"

    # --- which pictures ----------------------------------------------------------------------

    def _draw(self, rng: np.random.Generator) -> Drawn:
        """For each picture to show a kind and the numbers of the kind's pictures, in the order in
        which they are tried. One is shown with itself.
        """
        what = rng.random() if self.augment else 1.0
        if _ALONE <= what < _ALONE + _ACROSS and len(self._pointed) > 1:
            one, other = rng.permutation(list(self._pointed))[:2].tolist()
            alone = np.setdiff1d(self._pointed[other], self._pointed[one])
            if len(alone):
                return [(one, rng.permutation(self._pointed[one])), (other, rng.permutation(alone))]
        kind = int(rng.choice(list(self._of_kind)))
        places = rng.permutation(self._of_kind[kind])
        return [(kind, places)] * (1 if what < _ALONE else 2)

    def _views(self, drawn: Drawn) -> list[_View]:
        """Different pictures, the first of each that can be read."""
        views: list[_View] = []
        # Which ones cannot be read is found anew: what was seen before must not change a sample.
        tried: dict[int, str] = {}
        for kind, places in drawn:
            count = len(views)
            for place in (place for place in places.tolist() if place not in tried):
                tried[place] = ""
                try:
                    views.append(self._view(self.pictures.pictures[place], kind))
                    break
                except ValueError as error:
                    if not self.skip_bad:
                        raise
                    tried[place] = self.skipped.setdefault(place, str(error))
            if len(views) == count:
                few = "fewer than two" if count and kind == drawn[0][0] else "no"
                reason = next(filter(None, tried.values()))
                raise ValueError(
                    f"{few} pictures of {self.pictures.kinds[kind]} can be read: {reason}"
                )
        return views

    def _view(self, picture: Picture, kind: int) -> _View:
        image = read_image(picture.path)
        mask = picture.mask(kind, image.shape[:2])
        unknown = None if mask is None else picture.unknown(kind, mask)
        nowhere = np.full((len(self.pictures.keypoints), 2), np.nan, np.float32)
        return _View(picture, image, mask, unknown, picture.points.get(kind, nowhere))

    # --- what is shown of them ---------------------------------------------------------------

    def _changed(self, view: _View, rng: np.random.Generator) -> tuple[_View, Warp]:
        """A view, perhaps made smaller, and how it is warped."""
        if not self.augment:
            return view, Warp()
        what, window = rng.random(), None
        if what < _CROPPED:
            window = None if view.mask is None else random_window(view.mask, self.size, rng)
        elif what < _CROPPED + _SMALLER:
            view = _smaller(view, rng)
        return view, Warp(bool(rng.random() < 0.5), None, window)

    def _side(self, view: _View, warp: Warp, rng: np.random.Generator) -> BatchSide:
        """A view as one of two pictures, which show nothing that is the very same."""
        shown = warp.image(view.image, self.size)
        if self.augment:
            shown = photometric(shown, rng, self.strong)
        keypoints, seen = self._keypoints(view.points, warp)
        grid = self.cells, self.cells
        side = BatchSide(
            torch.from_numpy(shown).permute(2, 0, 1), photograph_numbers({view.picture.key}),
            self._mask(view, warp), keypoints=keypoints, seen=seen,
            labels=torch.tensor(view.picture.labels), same=torch.zeros(grid),
        )  # fmt: skip
        if not self.augment:
            return side
        return side._replace(
            positions=torch.zeros(*grid, 2), valid=torch.zeros(grid, dtype=torch.bool)
        )

    def _alone(self, view: _View, rng: np.random.Generator) -> Batch:
        """A picture with itself: mirrored together, since left and right are its own; the target
        bent; each side cropped or not. With a probability of 0.5 they exchange their roles.
        """
        shape = view.image.shape[:2]
        kept = view.mask if view.mask is not None and view.mask.any() else random_box(shape, rng)
        warps, pair = random_warps((kept, kept), rng, self.size), with_itself(view.image)
        sides = []
        for warp, truth_of in zip(warps, (source_truth, target_truth), strict=True):
            truth = truth_of(pair, self.cells, self.cells, *warps)
            sides.append(
                self._side(view, warp, rng)._replace(
                    positions=torch.from_numpy(truth.positions),
                    valid=torch.from_numpy(truth.valid), same=torch.from_numpy(truth.mask),
                )
            )  # fmt: skip
        return Batch(*(sides if rng.random() < 0.5 else sides[::-1]))

    def _mask(self, view: _View, warp: Warp) -> Tensor | None:
        if "mask" not in self.truth:
            return None
        cells = self.mask_cells
        if view.mask is None:
            return torch.full((cells, cells), torch.nan)
        shares = cell_shares(view.mask.view(np.uint8), cells, cells, warp)
        if view.unknown is not None:
            known = cell_shares((~view.unknown).view(np.uint8), cells, cells, warp)
            some = known > _LEAST_KNOWN
            shares = np.where(some, (shares / np.where(some, known, 1)).clip(max=1), np.nan)
        return torch.from_numpy(shares.astype(np.float32))

    def _keypoints(self, points: Points, warp: Warp) -> tuple[Tensor | None, Tensor | None]:
        if not self.pictures.keypoints:
            return None, None
        if warp.mirrored:
            points = points[self.pictures.mirrored_keypoints]
        found, told = np.full_like(points, np.nan), np.isfinite(points[:, 0])
        found[told] = warp.from_original(points[told].astype(np.float64))
        seen = np.asarray(geometry.inside(found))  # False for NaN
        return torch.from_numpy(np.where(seen[:, None], found, 0)), torch.from_numpy(seen)


def _smaller(view: _View, rng: np.random.Generator) -> _View:
    """A view of a picture at up to half its size, somewhere on its mean colour."""
    size = np.array(view.image.shape[:2])
    rows, columns = np.ceil(size * (1 + rng.random())).astype(int)
    top, left = rng.integers((rows, columns) - size + 1)
    inner = slice(top, top + size[0]), slice(left, left + size[1])

    def placed(part: NDArray, around: NDArray | float) -> NDArray:
        whole = np.full((rows, columns, *part.shape[2:]), around, part.dtype)
        whole[inner] = part
        return whole

    mask, unknown = (
        None if part is None else placed(part, 0) for part in (view.mask, view.unknown)
    )
    points = (view.points * size[::-1] + (left, top)) / (columns, rows)
    image = placed(view.image, np.rint(view.image.mean((0, 1))))
    return replace(
        view, image=image, mask=mask, unknown=unknown, points=points.astype(np.float32)
    )  # fmt: skip
