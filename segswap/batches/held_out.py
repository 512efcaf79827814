"""Pairs of held-out pictures of one kind, to score on."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest

import numpy as np
from numpy.typing import NDArray

from segswap.batches.picture import Mask, Picture, Pictures

LOG = logging.getLogger("segswap")


@dataclass(frozen=True)
class KindView:
    """One picture of such a pair.

    Attributes:
        image: uint8 (H, W, 3) RGB.
        mask: bool (H, W), where it shows the kind; None where that is not known.
        points: float64 (K, 2), its keypoints, normalised; NaN where one is not seen.
        box_side: the longer side, in pixels, of the box of the thing that has the keypoints; of the
            tight box around them where it is not told.
    """

    image: NDArray[np.uint8]
    mask: Mask | None
    points: NDArray[np.float64]
    box_side: float


@dataclass(frozen=True)
class KindPair:
    """Two pictures that show the same kind of thing; the k-th keypoints of both correspond."""

    source: KindView
    target: KindView


def held_out_pairs(
    sources: Sequence[Pictures], count: int, skip_bad: bool = False
) -> list[KindPair]:
    """The first pairs of pictures that sources hold out, about as many of each kind; always the
    same ones, and no picture twice.

    Args:
        sources: of the pictures.
        count: most pairs.
        skip_bad: leave out pairs of pictures that cannot be read, and say so on stderr; otherwise
            they are an error.

    Raises:
        ValueError: a picture, or its mask, cannot be read.
    """
    found = []
    for source, kind, pair in islice(_drawn(sources), count):
        try:
            found.append(KindPair(*(_view(source, picture, kind) for picture in pair)))
        except ValueError as error:
            if not skip_bad:
                raise
            LOG.warning("skipped: %s", error)
    return found


def _drawn(sources: Sequence[Pictures]) -> Iterator[tuple[Pictures, int, list[Picture]]]:
    """Pairs with their source and kind: the first one of every kind, then the second ones."""
    rng = np.random.default_rng(0)
    of_kinds = []
    for source in sources:
        for kind in range(len(source.kinds)):
            shown = [picture for picture in source.held_out if picture.labels[kind] == 1]
            shuffled = [shown[n] for n in rng.permutation(len(shown))]
            pairs = [shuffled[n : n + 2] for n in range(0, len(shuffled) - 1, 2)]
            of_kinds.append([(source, kind, pair) for pair in pairs])
    for turn in zip_longest(*of_kinds):
        yield from filter(None, turn)


def _view(source: Pictures, picture: Picture, kind: int) -> KindView:
    image = picture.read()
    mask = picture.mask(kind, image.shape[:2])
    points = np.full((len(source.keypoints), 2), np.nan)
    if kind in picture.points:
        points = picture.points[kind].astype(np.float64)
    size = image.shape[1::-1]
    corners = points[np.isfinite(points[:, 0])]
    if kind in picture.boxes:
        corners = picture.boxes[kind].reshape(2, 2)
    sides = np.ptp(corners * size, axis=0) if len(corners) else np.zeros(2)
    return KindView(image, mask, points, float(sides.max()))
