"""What tests of ground truth share: do pixels agree along it, and the plain, slow way to it."""

import numpy as np

from segswap import geometry
from segswap.data.augment import Warp
from segswap.data.pair import Pair
from segswap.data.truth import GridTruth


def colour_difference(own: np.ndarray, other: np.ndarray, truth: GridTruth, shift: float) -> float:
    """Mean difference between cell centres and their matches, moved by a share of the frame.

    Cells at the object's rim are left out: a pasted neighbour would be interpolated with it.
    """
    rows, columns = truth.mask.shape
    inner = truth.valid & (truth.mask > 0.99)
    assert inner.sum() >= 12
    here = geometry.sample(own, geometry.cell_centres(rows, columns)).astype(float)
    there = geometry.sample(other, truth.positions + np.float32(shift)).astype(float)
    return float(np.abs(here - there).mean(axis=2)[inner].mean())


def plain_mask(pair: Pair, cells: int, own: Warp, other: Warp, *, of_source: bool) -> np.ndarray:
    """The share of each cell that both images show, from 16 x 16 points a cell, one by one."""
    labels = pair.source_mask if of_source else pair.target_mask
    points = own.to_original(geometry.cell_centres(cells * 16, cells * 16))
    column, row = np.moveaxis(np.floor(points * labels.shape[::-1]).astype(int), -1, 0)
    framed = geometry.inside(points) & (column < labels.shape[1]) & (row < labels.shape[0])
    label = np.where(
        framed, labels[row.clip(0, pair.height - 1), column.clip(0, pair.width - 1)], 0
    )
    shared = np.zeros(label.shape)
    for item in pair.objects:
        chosen = label == item.label
        carry = pair.to_target if of_source else pair.to_source
        there = other.from_original(carry(points[chosen], item.label))
        shared[chosen] = geometry.inside(there)
    return shared.reshape(cells, 16, cells, 16).mean(axis=(1, 3))
