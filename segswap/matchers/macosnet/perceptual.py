"""How alike what masks show and what they hide is, to a frozen network.

The network is no part of a matcher: nothing of it is trained, and nothing is saved.
"""

from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from segswap.backbones.backbones import Backbone, build_backbone
from segswap.backbones.shipped import LAST, NAME
from segswap.matchers.base import on_grid

Masking = Literal["features", "images"]

MARGIN = 2.0  # how far apart object and background should be, as in the released code
_LEVELS = ("blocks.4.3", LAST)
# Of the maps' values, so that object and background of photographs are about 2.7 apart.
_SCALES = 0.53, 0.265
_SIDE = 128  # px of masked images
_LEAST = 1e-3  # of an image's cells, that a mask counts for more


@lru_cache(maxsize=2)
def network(device: torch.device) -> Backbone:
    """The backbone that ships (published: ResNet-50), frozen, in evaluation mode; gradients pass
    through it to the images.
    """
    with torch.random.fork_rng(devices=[]):  # made sooner or later, it changes no training
        made = build_backbone(NAME, _LEVELS, weights="shipped", frozen=False)
    return made.to(device).eval().requires_grad_(False)


def of_masked_features(images: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Features (B, C) of the objects alone, and of the backgrounds alone: means of the network's
    maps, weighted with the mask, and with what it leaves.

    Args:
        images: uint8 (B, 3, H, W).
        mask: (B, H', W') in [0, 1], of the object.
    """
    cells = _cells(images)
    shares = on_grid(mask, cells.shape[2:])[:, None]
    return _mean(cells, shares), _mean(cells, 1 - shares)


def of_masked_images(images: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The same of masked images, as published: what is masked out has the colour that the network
    takes for 0; features are means over the whole image.
    """
    mean = network(images.device).mean
    small, shares = (
        F.interpolate(each, (_SIDE, _SIDE), mode="bilinear", antialias=True)
        for each in (images.float() / 255, mask[:, None])
    )
    shown = torch.cat([small * part + mean * (1 - part) for part in (shares, 1 - shares)])
    features = torch.cat([level.mean((2, 3)) for level in _maps(shown)], dim=1)
    objects, backgrounds = features.chunk(2)
    return objects, backgrounds


def unlike(one: Tensor, other: Tensor) -> Tensor:
    """|F - F'|^2 / c of features (..., c)."""
    return (one - other).square().mean(-1)


def contrast(
    objects: tuple[Tensor, Tensor], backgrounds: tuple[Tensor, Tensor], margin: float = MARGIN
) -> tuple[Tensor, Tensor]:
    """d+, how unlike the objects of two images are, and d-, by how much objects and backgrounds are
    too alike: (B,) each. The released code forgets the half in d-.

    Args:
        objects, backgrounds: features (B, C) of both images.
        margin: by how much objects and backgrounds should differ.
    """
    apart = unlike(objects[0], backgrounds[0]) + unlike(objects[1], backgrounds[1])
    return unlike(*objects), (margin - 0.5 * apart).clamp(min=0)


def _maps(images: Tensor) -> list[Tensor]:
    found = network(images.device)(images)
    return [scale * level for scale, level in zip(_SCALES, found, strict=True)]


@lru_cache(maxsize=2)  # both sides' images: two terms ask for them
@torch.no_grad()
def _cells(images: Tensor) -> Tensor:
    """Both maps of uint8 images on the finer one's grid, joined."""
    fine, coarse = _maps(images.float() / 255)
    coarse = F.interpolate(coarse, fine.shape[2:], mode="bilinear", align_corners=True)
    return torch.cat([fine, coarse], dim=1)


def _mean(cells: Tensor, shares: Tensor) -> Tensor:
    """Of cells (B, C, h, w), weighted with shares (B, 1, h, w); nearly that of all cells where
    these are all near 0.
    """
    weight = shares + _LEAST
    return (cells * weight).sum((2, 3)) / weight.sum((2, 3))
