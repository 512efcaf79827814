"""Pairs of pictures that show the same kind of thing, as training samples."""

from collections.abc import Container, Iterator, Sequence
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
from segswap.matchers.base import Batch, BatchSide

_ALONE = 0.15  # share of samples in which a picture meets a changed copy of itself
_ACROSS = 0.25  # share of samples of two kinds that have the same keypoints
_NOTHING = 0.35  # share of samples that share nothing, where the labels tell of such
_CROPPED, _SMALLER = 0.5, 0.15  # shares of images that are cropped around the kind, or made smaller
_LEAST_KNOWN = 1e-3  # share of a cell, below which it is unknown


@dataclass(frozen=True)
class _Drawn:
    """What a sample is of.

    Attributes:
        what: "kind", two pictures of one; "alone", one with itself; "across", two kinds;
            "nothing", two that share none.
        kinds: of each picture that is shown.
        places: for each, numbers of pictures in the order in which they are tried.
    """

    what: str
    kinds: tuple[int, ...]
    places: tuple[NDArray[np.intp], ...]


@dataclass(frozen=True)
class _View:
    """A picture that was read, with what is known of a kind in it, or of several.

    Attributes:
        mask: bool (H, W); None where it is not known at all.
        unknown: bool (H, W), where nobody knows; None for nowhere.
        points: float32 (K, 2), normalised; NaN where one is not seen.
        masks: of all its kinds whose masks are known, by their numbers.
    """

    picture: Picture
    image: NDArray[np.uint8]
    mask: Mask | None
    unknown: Mask | None
    points: Points
    masks: dict[int, Mask]

    def of_kinds(self, kinds: Sequence[int]) -> "_View":
        """The same with the mask of all things of some of its kinds, one or more."""
        mask = np.any([self.masks[kind] for kind in kinds], axis=0)
        crowds = [self.picture.unknown(kind, self.masks[kind]) for kind in kinds]
        told = [crowd for crowd in crowds if crowd is not None]
        return replace(self, mask=mask, unknown=np.any(told, axis=0) & ~mask if told else None)


class CategoryStream:
    """The n-th pair of pictures of one kind, for any n: see `Stream`.

    A kind is drawn, each as likely as any other that two pictures show, and two of its pictures.
    Both are mirrored or not, cropped around the kind or not or made smaller, and changed in colour,
    each on its own. Some samples are two views of one picture, so that the very same thing is known
    apart from another of its kind; where pictures of several kinds have keypoints, some samples are
    of two kinds, of which these alone are known; and where all kinds in pictures are known, some
    are of two that share none. All of it follows from (pictures, seed, n).
    """

    def __init__(
        self, pictures: Pictures, *, size: int, stride: int, mask_stride: int | None = None,
        seed: int = 0, augment: bool = True, workers: int = 0, skip_bad: bool = False,
        strong: bool = False,
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
            strong: whether light changes strongly at times: see `photometric`.

        Raises:
            ValueError: the size does not fit.
        """
        check_size(size, stride, mask_stride)
        self.pictures, self.seed, self.augment, self.strong = pictures, seed, augment, strong
        self.size, self.cells, self.mask_cells = (
            size,
            size // stride,
            size // (mask_stride or stride),
        )
        self.workers, self.skip_bad = workers, skip_bad
        self.skipped: dict[int, str] = {}
        self._say = Sayer()
        self._labels = np.array([picture.labels for picture in pictures.pictures])
        self._complete = bool((self._labels == 0).any())
        shown = [np.flatnonzero(labels == 1) for labels in self._labels.T]
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
        if drawn.what in ("kind", "alone"):
            # Two pictures of people may both show dogs, too.
            shared = sorted(set(views[0].masks) & set(views[-1].masks))
            views = [view.of_kinds(shared) for view in views] if shared else views
        if drawn.what == "alone":
            return self._alone(views[0], rng)
        source, target = (self._side(*self._changed(view, rng), rng) for view in views)
        if "mask" in self.truth and drawn.what in ("across", "nothing"):
            # Whether a cat's picture shows what is in a dog's is nobody's to say.
            value = torch.nan if drawn.what == "across" else 0.0
            mask = torch.full((self.mask_cells, self.mask_cells), value)
            source, target = source._replace(mask=mask), target._replace(mask=mask)
        return Batch(source, target)

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
        tried: list[int] = []
        for side in range(len(drawn.kinds)):
            tried.append(next(self._candidates(drawn, side, tried, tried)))
        said = " and ".join(self.pictures.pictures[place].path for place in tried)
        said += " with itself" if drawn.what == "alone" else ""
        kinds = dict.fromkeys(self.pictures.kinds[kind] for kind in drawn.kinds)
        return f"{said} ({'nothing' if drawn.what == 'nothing' else ' and '.join(kinds)})"

    # --- which pictures ----------------------------------------------------------------------

    def _draw(self, rng: np.random.Generator) -> _Drawn:
        what = rng.random() if self.augment else 1.0
        if _ALONE <= what < _ALONE + _ACROSS and len(self._pointed) > 1:
            one, other = rng.permutation(list(self._pointed))[:2].tolist()
            apart = np.setdiff1d(self._pointed[other], self._pointed[one])
            if len(apart):
                pointed = rng.permutation(self._pointed[one]), rng.permutation(apart)
                return _Drawn("across", (one, other), pointed)
        kind = int(rng.choice(list(self._of_kind)))
        places = rng.permutation(self._of_kind[kind])
        if what < _ALONE:
            return _Drawn("alone", (kind,), (places,))
        if 1 > what >= 1 - _NOTHING and self._complete and self._apart(int(places[0])).any():
            return _Drawn("nothing", (kind, kind), (places, rng.permutation(len(self))))
        return _Drawn("kind", (kind, kind), (places, places))

    def _apart(self, place: int) -> NDArray[np.bool_]:
        """Which pictures are known to show none of a picture's kinds, as `Batch.unrelated`."""
        own, others = self._labels[place], self._labels
        may_share = ((own == 1) & (others != 0)) | ((others == 1) & (own != 0))
        return ~may_share.any(1) & (others != -1).any(1)

    def _candidates(
        self, drawn: _Drawn, side: int, shown: Sequence[int], tried: Container[int]
    ) -> Iterator[int]:
        """Numbers of the pictures that may be one side of a sample.

        Args:
            shown: what the other side shows.
            tried: which are not taken again.
        """
        places = drawn.places[side]
        if side and drawn.what == "nothing":
            places = places[self._apart(shown[0])[places]]
        return (place for place in places.tolist() if place not in tried)

    def _views(self, drawn: _Drawn) -> list[_View]:
        """Different pictures, the first of each that can be read."""
        views, shown = list[_View](), list[int]()
        # Which ones cannot be read is found anew: what was seen before must not change a sample.
        tried: dict[int, str] = {}
        for side, kind in enumerate(drawn.kinds):
            for place in self._candidates(drawn, side, shown, tried):
                tried[place] = ""
                try:
                    views.append(self._view(self.pictures.pictures[place], kind, drawn.what))
                    shown.append(place)
                    break
                except ValueError as error:
                    if not self.skip_bad:
                        raise
                    tried[place] = self.skipped.setdefault(place, str(error))
            if len(views) == side:
                few = "fewer than two" if side and drawn.what == "kind" else "no"
                reason = next(filter(None, tried.values()))
                raise ValueError(
                    f"{few} pictures of {self.pictures.kinds[kind]} can be read: {reason}"
                )
        return views

    def _view(self, picture: Picture, kind: int, what: str) -> _View:
        image = picture.read()
        if picture.labels[kind] != 1:  # in a pair that shares nothing: crops keep something else
            kind = next(iter(picture.masks), kind)
        shape = image.shape[:2]
        told = {own: picture.mask(own, shape) for own in picture.masks}
        masks = {own: mask for own, mask in told.items() if mask is not None}
        mask = masks.get(kind)
        unknown = None if mask is None else picture.unknown(kind, mask)
        nowhere = np.full((len(self.pictures.keypoints), 2), np.nan, np.float32)
        points = nowhere if what == "nothing" else picture.points.get(kind, nowhere)
        return _View(picture, image, mask, unknown, points, masks)

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
        view, image=image, mask=mask, unknown=unknown, points=points.astype(np.float32), masks={}
    )  # fmt: skip
