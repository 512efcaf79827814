"""Discovery: what repeats in a collection of images, as masks and as groups of regions."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from segswap import geometry
from segswap.discovery.clusters import groups_of, image_maps, leading_eigenvector
from segswap.discovery.graph import Nodes, graph_of
from segswap.discovery.kinds import group_maps, kind_maps
from segswap.discovery.links import Links, best_partners, sharing
from segswap.discovery.pairing import (
    Advance,
    Predict,
    check_enough,
    match_images,
    match_pairs,
    readable,
    silent,
)
from segswap.discovery.refine import refine
from segswap.discovery.settings import Settings, same_for
from segswap.files.images import read_image
from segswap.models.model import DEFAULT_MODEL, Model, load

POINTS = 6  # shown of a pair of a group
_AGREED = 0.1  # of the value of the pair's best match: what a shown point has at least
LEAST_STRENGTH = 0.02  # of a member; where a false match agrees with a group by chance, it is less

PathLike = str | os.PathLike[str]
Maps = dict[int, NDArray[np.float32]]  # by image number (h, w), what `refine` makes a mask of


@dataclass(frozen=True)
class SharedPoints:
    """Some points of two members that are the same.

    Attributes:
        images: numbers of the two images.
        points: float32 (N, 2, 2), normalised (x, y) in the one and in the other.
    """

    images: tuple[int, int]
    points: NDArray[np.float32]


@dataclass(frozen=True)
class Member:
    """One image's region of a group.

    Attributes:
        image: its number.
        mask: bool (H, W) at the image's size.
        strength: how much of the group's agreement lies in it, 1 for the strongest member.
    """

    image: int
    mask: NDArray[np.bool_]
    strength: float


@dataclass(frozen=True)
class Group:
    """Regions of several images that show the same.

    Attributes:
        members: strongest first.
        strength: how many other matches of the group agree with a match of it on average, each
            counted with its weight in the graph.
        shared: points that pairs of members have in common.
    """

    members: list[Member]
    strength: float
    shared: list[SharedPoints]


@dataclass(frozen=True)
class Discovery:
    """What repeats in a collection.

    Attributes:
        images: all that were given; numbers count from 0 in this list.
        skipped: path and reason of those that could not be read.
        masks: for each image bool (H, W) at its size, what it shares with the one thing that the
            collection shares most; None for images that have no part in it.
        groups: things that repeat, those in most images first.
        links: the pairs that were matched.
    """

    images: list[str]
    skipped: list[tuple[str, str]]
    masks: list[NDArray[np.bool_] | None]
    groups: list[Group]
    links: Links


def discover(
    images: Sequence[PathLike], model: Model | PathLike | Predict = DEFAULT_MODEL, *,
    neighbours: int | None = None, settings: Settings | None = None, advance: Advance = silent,
) -> Discovery:  # fmt: skip
    """Find what repeats in a collection of images.

    All happens in this process; masks of all images are kept in memory, features in a temporary
    file. `segswap-discover` does the same for large collections, with any number of workers.

    Args:
        images: paths of two or more images.
        model: a model, what `segswap.load` takes, or a function that predicts pairs of these
            images, given by number.
        neighbours: match each image with so many others only, those with the most similar
            descriptors; needs a model. By default all pairs are matched, and with a model the
            20 of each image where there are more than 100 images.
        settings: what counts as repeated; by default things of one kind where the model knows
            kinds, otherwise the very same thing.
        advance: told how many more pairs are matched, and how many there are in all.

    Raises:
        ValueError: fewer than two images can be read, or model or settings cannot be used.
        RuntimeError: the hub with the model cannot be reached.
    """
    names = [os.fspath(image) for image in images]
    if callable(model) and not isinstance(model, Model):
        if neighbours is not None:
            raise ValueError("neighbours are chosen by a model's descriptors; leave them out")
        numbers, skipped = readable(names)
        check_enough(len(numbers), skipped)
        pairs = [(a, b) for n, a in enumerate(numbers) for b in numbers[n + 1 :]]
        settings = settings or Settings()
        links = match_pairs(pairs, model, settings, advance)
    else:
        model = model if isinstance(model, Model) else load(model)
        settings = settings or Settings.of(same_for(model, None))
        links, skipped = match_images(names, model, neighbours, settings, advance)
    repeats = find_repeats(links, settings)
    return _refined(names, skipped, repeats, links)


@dataclass(frozen=True)
class Repeat:
    """A thing that repeats, on the links' grid.

    Attributes:
        maps: of the very same thing how much of the agreement lies where, 0 and more; of kinds see
            `segswap.discovery.kinds`.
        strengths: of each member by image number, strongest first; see Member.
        strength: see Group.
        shared: see Group.
    """

    maps: Maps
    strengths: dict[int, float]
    strength: float
    shared: list[SharedPoints]

    def without_faint(self) -> "Repeat":
        """The same without members whose strength is below LEAST_STRENGTH."""
        kept = {i: value for i, value in self.strengths.items() if value >= LEAST_STRENGTH}
        shared = [pair for pair in self.shared if kept.keys() >= set(pair.images)]
        return Repeat({i: self.maps[i] for i in kept}, kept, self.strength, shared)


def find_repeats(links: Links, settings: Settings) -> tuple[Maps, list[Repeat]]:
    """What the links of a collection agree on.

    Returns:
        What the whole collection shares most, of the very same thing by the leading eigenvector of
        all; and the groups, those of most images first.
    """
    links = links[np.flatnonzero(sharing(links))]
    nodes, graph = graph_of(links, best_partners(links), settings.confidence, settings.sigma)
    grid = links.source_mask.shape[1], links.source_mask.shape[2]
    if settings.same == "kind":
        whole = kind_maps(links)
    else:
        whole = image_maps(nodes, leading_eigenvector(graph)[1], *grid)
    groups = []
    for chosen in groups_of(graph, nodes, settings.least_images):
        # Not its leading eigenvector, which in a large group is that of a few images.
        agreement = np.asarray(graph[chosen][:, chosen].sum(axis=1)).ravel()
        found = _repeat(nodes[chosen], agreement, grid).without_faint()
        if len(found.maps) < settings.least_images:
            continue
        if settings.same == "kind":
            maps = found.maps | group_maps(links, nodes, chosen)
            found = replace(found, maps={image: maps[image] for image in found.maps})
        groups.append(found)
    return whole, sorted(groups, key=lambda group: (-len(group.maps), -group.strength))


def _repeat(nodes: Nodes, values: NDArray[np.float32], grid: tuple[int, int]) -> Repeat:
    """Of a group, from how much of the agreement is each node's."""
    maps = image_maps(nodes, values, *grid)
    sums = {image: float(lies.sum()) for image, lies in maps.items()}
    most = max(sums.values(), default=1.0)
    strengths = {i: sums[i] / most for i in sorted(sums, key=lambda i: (-sums[i], i))}
    cells = np.array(grid[::-1], np.float32)
    shared = []
    for number in np.unique(nodes.links):
        link = nodes.links == number
        # The farthest of all would be those that are wrong.
        own = np.flatnonzero(link & (values > _AGREED * values[link].max()) & (values > 0))
        source, target = nodes.images[link][0].tolist()
        if len(own) and source in maps and target in maps:
            chosen = own[geometry.farthest_points(nodes.places[own, 0], POINTS)]
            shared.append(SharedPoints((source, target), nodes.places[chosen] / cells))
    return Repeat(maps, strengths, float(values.mean()), shared)


def _refined(
    images: list[str], skipped: list[tuple[str, str]], repeats: tuple[Maps, list[Repeat]],
    links: Links,
) -> Discovery:  # fmt: skip
    """The answer with masks at the images' sizes; every image is read once."""
    whole, groups = repeats
    masks: list[NDArray[np.bool_] | None] = [None] * len(images)
    regions: list[dict[int, NDArray[np.bool_]]] = [{} for _ in groups]
    for number in sorted(set(whole).union(*(group.maps for group in groups))):
        image = read_image(images[number])
        if number in whole:
            masks[number] = refine(image, whole[number])
        for region, group in zip(regions, groups, strict=True):
            if number in group.maps:
                region[number] = refine(image, group.maps[number])
    found = [
        Group(
            [Member(n, region[n], strength) for n, strength in group.strengths.items()],
            group.strength,
            group.shared,
        )
        for region, group in zip(regions, groups, strict=True)
    ]
    return Discovery(images, skipped, masks, found, links)
