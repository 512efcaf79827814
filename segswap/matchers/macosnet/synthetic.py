"""Random warps, as published for CNNGeometric, and images warped by them."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from segswap.matchers.macosnet.scores import carried, unit
from segswap.matchers.sampling import cell_centres
from segswap.matchers.warps import identity_spline

_TURNED = math.radians(30)
_SCALED, _MOVED, _BENT = 0.5, 0.5, 0.4
_PASTED = 0.7  # share of copies that are surrounded by another image
_SMALLEST, _RANGE = 0.15, 0.5  # of an ellipse's half axes, as shares of the image
_FEWEST = 0.05  # share of the cells, below which a pasted copy is none
_BLENDED = 0.8  # most of another image in a copy


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


def synthetic_copies(
    cells: Tensor, affines: Tensor, splines: Tensor
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Features of warped copies, blended with another image's features by up to four fifths, which
    in most copies surround them, too: (B, C, h, w), and where the copies are, (B, h, w) of 0 and 1.

    Args:
        cells: (B, C, h, w), of length 1 along C, of different images.
        affines, splines: (B, 6) and (B, 18), where the copies' cells are in `cells`.
    """
    count, rows, columns = len(cells), *cells.shape[2:]
    centres = cell_centres(rows, columns, cells)[None]

    def drawn(last: int = 1) -> Tensor:
        return torch.rand(count, 1, 1, last, device=cells.device)

    ellipse = ((centres - drawn(2)) / (_SMALLEST + _RANGE * drawn(2))).square().sum(-1) < 1
    places = carried(centres, affines, splines)
    shown = ellipse & ((places > 0) & (places < 1)).all(-1)
    much = shown.flatten(1).sum(1)[:, None, None] > _FEWEST * rows * columns
    shown = torch.where((drawn()[..., 0] < _PASTED) & much, shown, True)
    share = (shown * (1 - _BLENDED * drawn()[..., 0]))[:, None]
    copies = share * unit(warped(cells, affines, splines)) + (1 - share) * cells.roll(1, 0)
    return unit(copies), shown.float()


def warped(images: Tensor, affines: Tensor, splines: Tensor | None = None) -> Tensor:
    """Images (B, 3, H, W) in which each pixel shows what `carried` finds for it in the originals,
    which are mirrored at their borders.
    """
    pixels = cell_centres(images.shape[2], images.shape[3], images)[None]
    places = carried(pixels, affines, splines)
    # Not the house's sampler: a border of streaks looks like nothing in a photograph.
    return F.grid_sample(images, 2 * places - 1, padding_mode="reflection", align_corners=False)
