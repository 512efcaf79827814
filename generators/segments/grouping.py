"""Hierarchical grouping in the manner of selective search (Uijlings et al., IJCV 2013).

Starting from small graph-based regions, the two most similar neighbours are merged again and again.
The regions that come up on the way are the candidates: things show at all scales, parts within
wholes. But a region that is much like one of its neighbours is a patch of something larger.
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import felzenszwalb

from generators.segments.common.proposer import Proposer, shrunk
from generators.segments.common.regions import Regions

_COLOUR_BINS = 25
_TEXTURE_BINS = 10
_DIRECTIONS = 8
_MOST_ALIKE = 1.6  # to any neighbour, of at most 2


@dataclass(frozen=True)
class _Region:
    """A node of the hierarchy.

    Attributes:
        leaves: the labels of the first regions that it consists of.
        size: in pixels.
        box: left, top, right, bottom in pixels; right and bottom excluded.
        colour, texture: histograms, each of sum 1.
    """

    leaves: tuple[int, ...]
    size: int
    box: tuple[int, int, int, int]
    colour: NDArray[np.float64]
    texture: NDArray[np.float64]


class Grouping(Proposer):
    """The regions of a hierarchy that stand out, each as a label map of its own."""

    def regions(
        self, images: Sequence[NDArray[np.uint8]], paths: Sequence[str]
    ) -> list[Iterator[Regions]]:
        """Wholes and their parts."""
        return [_grouped(image) for image in images]


def _grouped(image: NDArray[np.uint8]) -> Iterator[Regions]:
    small = shrunk(image)
    labels = felzenszwalb(small, scale=100, sigma=0.8, min_size=60)
    for region in _standing_out(_first_regions(small, labels), _adjacent(labels), labels.size):
        inside = np.zeros(labels.max() + 1, np.uint8)
        inside[list(region.leaves)] = 1
        yield Regions(inside[labels])


def _standing_out(
    regions: list[_Region], neighbours: dict[int, set[int]], pixels: int
) -> Iterator[_Region]:
    """The regions of the hierarchy that no neighbour is too much like, as they come up.

    Both arguments grow on the way: `regions` by those of the hierarchy, `neighbours` to theirs.
    """
    heap: list[tuple[float, int, int]] = []

    def enter(new: int) -> bool:
        """Let a region take part; whether it stands out."""
        alike = {other: _alike(regions[other], regions[new]) for other in neighbours[new]}
        for other, value in alike.items():
            score = value + _compact(regions[other], regions[new], pixels)
            heapq.heappush(heap, (-score, min(other, new), max(other, new)))
        return max(alike.values(), default=0.0) < _MOST_ALIKE

    yield from [region for number, region in enumerate(regions) if enter(number)]
    while heap:
        _, a, b = heapq.heappop(heap)
        if a not in neighbours or b not in neighbours:
            continue  # one of them is merged already
        new = len(regions)
        regions.append(_merged(regions[a], regions[b]))
        neighbours[new] = (neighbours.pop(a) | neighbours.pop(b)) - {a, b}
        for other in neighbours[new]:
            neighbours[other] = neighbours[other] - {a, b} | {new}
        if enter(new):
            yield regions[new]


# The four similarities of section 3.2 of the paper, each from 0 to 1.


def _alike(a: _Region, b: _Region) -> float:
    """Colour + texture: what the histograms share."""
    return float(np.minimum(a.colour, b.colour).sum() + np.minimum(a.texture, b.texture).sum())


def _compact(a: _Region, b: _Region, pixels: int) -> float:
    """Size + fill: small regions first, and those that fill the box around both."""
    width = max(a.box[2], b.box[2]) - min(a.box[0], b.box[0])
    height = max(a.box[3], b.box[3]) - min(a.box[1], b.box[1])
    both = a.size + b.size
    return (1 - both / pixels) + (1 - (width * height - both) / pixels)


def _merged(a: _Region, b: _Region) -> _Region:
    size = a.size + b.size
    return _Region(
        a.leaves + b.leaves,
        size,
        (min(a.box[0], b.box[0]), min(a.box[1], b.box[1]),
         max(a.box[2], b.box[2]), max(a.box[3], b.box[3])),
        (a.size * a.colour + b.size * b.colour) / size,
        (a.size * a.texture + b.size * b.texture) / size,
    )  # fmt: skip


def _first_regions(image: NDArray[np.uint8], labels: NDArray[np.integer]) -> list[_Region]:
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
    colour = _histograms(labels, hsv.astype(np.float32) / 256, _COLOUR_BINS)
    texture = _histograms(labels, _derivatives(image), _TEXTURE_BINS)
    regions = []
    for label in range(labels.max() + 1):
        rows, columns = np.nonzero(labels == label)
        box = (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)
        regions.append(_Region((label,), len(rows), box, colour[label], texture[label]))
    return regions


def _derivatives(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """How fast each channel rises in eight directions: (H, W, 24), from 0 to below 1."""
    smooth = cv2.GaussianBlur(image.astype(np.float32), (0, 0), 1)
    x, y = cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)
    angles = 2 * np.pi * np.arange(_DIRECTIONS) / _DIRECTIONS
    rising = np.concatenate([np.cos(t) * x + np.sin(t) * y for t in angles], axis=-1).clip(0)
    return rising / (rising.max() * 1.001 + 1e-6)


def _histograms(
    labels: NDArray[np.integer], values: NDArray[np.float32], bins: int
) -> NDArray[np.float64]:
    """Histograms of values (H, W, C) in [0, 1) for every label: (labels, C * bins), of sum 1."""
    channels = values.shape[-1]
    places = (values * bins).astype(int) + bins * np.arange(channels)
    places += channels * bins * labels[..., None]
    count = np.bincount(places.ravel(), minlength=(labels.max() + 1) * channels * bins)
    histograms = count.reshape(-1, channels * bins)
    return histograms / histograms.sum(axis=1, keepdims=True)


def _adjacent(labels: NDArray[np.integer]) -> dict[int, set[int]]:
    """The labels that touch each label."""
    pairs = np.concatenate(
        [
            np.stack([labels[:, 1:].ravel(), labels[:, :-1].ravel()], axis=1),
            np.stack([labels[1:].ravel(), labels[:-1].ravel()], axis=1),
        ]
    )
    touching: dict[int, set[int]] = {label: set() for label in range(labels.max() + 1)}
    for a, b in np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0).tolist():
        touching[a].add(b)
        touching[b].add(a)
    return touching
