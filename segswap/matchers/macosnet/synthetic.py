"""Random warps, as published for CNNGeometric, and images warped by them."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from segswap.matchers.macosnet.scores import carried
from segswap.matchers.sampling import cell_centres
from segswap.matchers.warps import identity_spline

_TURNED = math.radians(30)
_SCALED, _MOVED, _BENT = 0.5, 0.5, 0.4


def random_warps(count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Parameters of affine maps (count, 6) and splines (count, 18).

    A rotation by up to 30 degrees, whose four numbers are scaled by 0.5 to 1.5, each on its own,
    and a translation by up to a quarter of the image; control points moved by up to a fifth of it.
    """

    def drawn(columns: int, most: float) -> Tensor:
        return most * (2 * torch.rand(count, columns, device=device) - 1)

    angle = drawn(1, _TURNED)
    cosine, sine = angle.cos(), angle.sin()
    matrix = torch.cat([cosine, -sine, sine, cosine], dim=1) * (1 + drawn(4, _SCALED))
    moved = drawn(2, _MOVED)
    affines = torch.cat([matrix[:, :2], moved[:, :1], matrix[:, 2:], moved[:, 1:]], dim=1)
    return affines, identity_spline(affines) + drawn(18, _BENT)


def warped(images: Tensor, affines: Tensor, splines: Tensor | None = None) -> Tensor:
    """Images (B, 3, H, W) in which each pixel shows what `carried` finds for it in the originals,
    which are mirrored at their borders.
    """
    pixels = cell_centres(images.shape[2], images.shape[3], images)[None]
    places = carried(pixels, affines, splines)
    # Not the house's sampler: a border of streaks looks like nothing in a photograph.
    return F.grid_sample(images, 2 * places - 1, padding_mode="reflection", align_corners=False)
