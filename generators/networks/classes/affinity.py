"""AffinityNet (Ahn, Kwak, CVPR 2018): which neighbouring places belong together, and the walk.

It learns from rough maps of classes: places that are surely of one class belong together, those
that are surely of different ones do not, and of what is unsure nothing is learned.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

RADIUS = 5  # cells: neighbours are nearer
UNSURE = 255  # in label maps, whose 0 is the background
_WIDTHS = 64, 128, 256
_WALKED = 6, 8, 6  # power of the background, of affinities, and how often the walk is squared
_TINY = 1e-5


class AffinityHead(nn.Module):
    """Features whose differences tell what belongs together, of a trunk's three maps."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            nn.Conv2d(count, width, 1, bias=False)
            for count, width in zip(channels, _WIDTHS, strict=True)
        )
        self.last = nn.Conv2d(sum(_WIDTHS), sum(_WIDTHS), 1, bias=False)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Features (B, 448, h, w) at the finest map's cells."""
        size = maps[0].shape[-2:]
        found = [F.elu(layer(each)) for layer, each in zip(self.levels, maps, strict=True)]
        joined = [F.interpolate(each, size, mode="bilinear") for each in found]
        return F.elu(self.last(torch.cat(joined, dim=1)))


def offsets(radius: int = RADIUS) -> list[tuple[int, int]]:
    """Rows and columns to the neighbours nearer than a radius, each pair of places once."""
    return [
        (y, x)
        for y in range(radius)
        for x in range(-radius + 1, radius)
        if 0 < x * x + y * y < radius * radius and (y > 0 or x > 0)
    ]


def pairs_of(grid: Tensor, radius: int = RADIUS) -> Iterator[tuple[Tensor, Tensor]]:
    """The values of a grid (..., h, w) at neighbouring places, an offset after the other: (..., P)
    at the one places, and at the others.
    """
    rows, columns = grid.shape[-2:]
    for y, x in offsets(radius):
        left, right = max(0, -x), max(0, x)
        one = grid[..., : rows - min(y, rows), left : columns - right]
        other = grid[..., y:, right : max(right, columns - left)]
        yield one.flatten(-2), other.flatten(-2)


def affinities(features: Tensor) -> Tensor:
    """exp(-mean |difference|) of features (B, C, h, w) at neighbouring places: (B, P), the pairs in
    the order of `pairs_of`.
    """
    found = [(one - other).abs().mean(dim=1) for one, other in pairs_of(features.float())]
    return torch.exp(-torch.cat(found, dim=1))


def affinity_loss(found: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """bg / 4 + fg / 4 + different / 2, each the mean cross entropy over such pairs.

    Args:
        found: (B, P) affinities of pairs.
        one, other: (B, P) labels of their places.
    """
    sure = (one != UNSURE) & (other != UNSURE)
    same = sure & (one == other)
    near, far = -torch.log(found + _TINY), -torch.log(1 + _TINY - found)
    parts = [(same & (one == 0), near, 4), (same & (one > 0), near, 4), (sure & ~same, far, 2)]
    return torch.stack(
        [(loss * mask).sum() / (mask.sum() + _TINY) / share for mask, loss, share in parts]
    ).sum()


class AffinityLoss(nn.Module):
    """Teaches the head of a network alone, on its trunk as it is."""

    terms = ("affinity",)

    def __init__(self, network: Any) -> None:
        """
        Args:
            network: a ClassNetwork with such a head.
        """
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The loss, of images (B, 3, H, W) and label maps (B, H, W)."""
        trunk, head = self.network.trunk.eval(), self.network.affinity
        with torch.no_grad():
            maps = trunk(images)
        features = head(maps)
        size = features.shape[-2:]
        cells = F.interpolate(labels[:, None].float(), size, mode="nearest-exact")[:, 0]
        one, other = (torch.cat(part, dim=1) for part in zip(*pairs_of(cells), strict=True))
        loss = affinity_loss(affinities(features), one, other)
        return {"affinity": loss, "loss": loss}


# --- the walk ------------------------------------------------------------------------------------


def transitions(features: Tensor) -> Tensor:
    """The random walk of one step (n, n) among the n places of features (C, h, w): each column, the
    way to a place, sums to 1.
    """
    rows, columns = features.shape[-2:]
    numbers = torch.arange(rows * columns, device=features.device).view(rows, columns)
    places, others = (torch.cat(part) for part in zip(*pairs_of(numbers), strict=True))
    matrix = torch.eye(rows * columns, device=features.device)
    found = affinities(features[None])[0] ** _WALKED[1]
    matrix[places, others] = found
    matrix[others, places] = found
    return matrix / matrix.sum(dim=0, keepdim=True)


def walked(maps: Tensor, features: Tensor) -> Tensor:
    """Maps (C, h, w) in [0, 1] of an image's classes after the walk, each as a share of all and of
    the background.

    Args:
        maps: of any size.
        features: (C', h', w'), the head's.
    """
    rows, columns = features.shape[-2:]
    background = (1 - maps.amax(dim=0, keepdim=True)).clamp(min=0) ** _WALKED[0]
    cells = F.adaptive_avg_pool2d(torch.cat([background, maps]), (rows, columns))
    step = transitions(features)
    for _ in range(_WALKED[2]):
        step = step @ step
    found = (cells.flatten(1) @ step).view(-1, rows, columns)
    return found[1:] / (found.sum(dim=0, keepdim=True) + _TINY)


def sure_labels(maps: NDArray[np.float32], powers: tuple[int, int]) -> NDArray[np.uint8]:
    """A label map (H, W) of what maps (C, H, W) in [0, 1] are sure of, the classes' from 1 on.

    Args:
        maps: of the classes that an image shows, one at least.
        powers: of 1 - the largest value, the background's: what lies over it with the first is
            surely a class, what lies below it with the second surely background.
    """
    top = maps.max(axis=0)
    labels = np.full(top.shape, UNSURE, np.uint8)
    labels[top <= (1 - top) ** powers[1]] = 0
    surely = top > (1 - top) ** powers[0]
    labels[surely] = maps.argmax(axis=0)[surely].astype(np.uint8) + 1
    return labels
