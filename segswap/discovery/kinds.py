"""Where images show a kind of thing: what the pairs of each image say of it, together.

Matches of the very same thing agree to a cell, and where they do the graph tells of every cell.
Those of two things of one kind agree here and there, on the most alike parts of the most alike
images. So the graph tells which pairs belong together, and the pairs' masks where the thing is.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from segswap.discovery.graph import Nodes
from segswap.discovery.links import Links, best_partners

Array = NDArray[np.float32]

PARTNERS = 10  # of each image, those with which it shares most
# Chosen with PARTNERS on held-out pictures of bicycles, boats and bottles, where .35 and .45 do as
# well within .005.
_LIKELY = 0.4  # probability from which on a cell may show the kind


def kind_maps(links: Links) -> dict[int, Array]:
    """What each image shares with its PARTNERS.

    Returns:
        By image number float32 (h, w): above 0 where the image may show the kind. Images that show
        none anywhere are left out.
    """
    masks = links.source_mask, links.target_mask
    return _means([
        (int(links.pairs[number, side]), masks[side][number])
        for number in best_partners(links, PARTNERS).tolist() for side in (0, 1)
    ])  # fmt: skip


def group_maps(links: Links, nodes: Nodes, chosen: NDArray[np.intp]) -> dict[int, Array]:
    """The same of a group: what the pairs that have nodes in it share, but for the cells that are
    nearer to nodes of the same pair outside of the group.

    Args:
        links: the links that the nodes are of.
        nodes: of all groups.
        chosen: numbers of the group's nodes.
    """
    inside = np.zeros(len(nodes), bool)
    inside[chosen] = True
    masks = links.source_mask, links.target_mask
    found = []
    for number in np.unique(nodes.links[chosen]).tolist():
        own = np.flatnonzero(nodes.links == number)
        for side in (0, 1):
            near = _nearest(nodes.places[own, side], masks[side].shape[1:])
            mask = np.where(inside[own][near], masks[side][number], 0)
            found.append((int(links.pairs[number, side]), mask))
    return _means(found)


def _nearest(places: Array, grid: tuple[int, ...]) -> NDArray[np.intp]:
    """The number (h, w) of the place (x, y), in cells, that is nearest to each cell's centre."""
    rows, columns = np.indices(grid) + 0.5
    nearest: NDArray[np.intp] = cKDTree(places).query(np.stack([columns, rows], axis=-1))[1]
    return nearest


def _means(masks: list[tuple[int, NDArray[np.floating]]]) -> dict[int, Array]:
    """By image number the mean of its consistent masks, less what is likely.

    A consistent mask is a product of two probabilities, that of a cell and that of its match; the
    mean's root is again of the size of one.
    """
    found: dict[int, list[Array]] = {}
    for image, mask in masks:
        found.setdefault(image, []).append(mask.astype(np.float32))
    maps = {image: np.sqrt(np.mean(own, axis=0)) - _LIKELY for image, own in found.items()}
    return {image: values for image, values in sorted(maps.items()) if values.max() > 0}
