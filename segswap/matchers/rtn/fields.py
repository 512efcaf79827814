"""Fields of local affine maps: what recurrent transformer networks estimate.

A field (B, 6, h, w) has for each cell of one image [a_rr, a_rc, t_r, a_cr, a_cc, t_c], the row's
component first, as published. A cell at g reads the other image at g + t, and what lies an offset
d away from it there at g + t + A d, where the outermost cell centres of both images' grids lie at
-1 and 1 ("corner units").
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from segswap.matchers.sampling import cell_centres

PARAMETERS = 6
SIDE = 3  # of the convolution's kernel whose samples a field moves


def identity(images: int, grid: torch.Size, like: Tensor) -> Tensor:
    """The field that maps each cell to its own place: (B, 6, h, w)."""
    field = like.new_zeros(images, PARAMETERS, *grid)
    field[:, 0] = field[:, 4] = 1
    return field


def base(grid: torch.Size, like: Tensor) -> Tensor:
    """The cells' own places: (2, h, w) in corner units, row then column."""
    axes = [torch.linspace(-1, 1, count, device=like.device, dtype=like.dtype) for count in grid]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def steps(grid: torch.Size, like: Tensor) -> Tensor:
    """One cell in corner units: (2,), down and across."""
    return 2 / (torch.tensor(grid, device=like.device, dtype=like.dtype) - 1).clamp(min=1)


def sampled(maps: Tensor, field: Tensor) -> Tensor:
    """What a 3 x 3 convolution of stride 3 needs to see the other image under a field.

    The 3 x 3 block of each cell holds the samples around its place in the other image; beyond the
    outermost cells' centres values fall to 0 within a cell, as a convolution's padding has them.

    Args:
        maps: (B, C, h', w') of the other image.
        field: (B, 6, h, w).

    Returns:
        (B, C, 3 h, 3 w).
    """
    matrix, shift = field.unflatten(1, (2, 3)).split((2, 1), dim=2)
    reach = torch.arange(SIDE, device=maps.device, dtype=maps.dtype) - SIDE // 2
    offsets = torch.stack(torch.meshgrid(reach, reach, indexing="ij"), dim=-1)
    offsets = offsets * steps(maps.shape[2:], field)
    moved = torch.einsum("bokhw,rck->bohrwc", matrix, offsets)
    centres = base(field.shape[2:], field) + shift[:, :, 0]
    points = (centres[:, :, :, None, :, None] + moved).flatten(4, 5).flatten(2, 3)
    return F.grid_sample(maps, points.permute(0, 2, 3, 1).flip(-1), align_corners=True)


def upsampled(field: Tensor, grid: torch.Size) -> Tensor:
    """A field on a finer grid; a constant one stays what it is, up to the border."""
    if field.shape[2:] == grid:
        return field
    # What differs from the identity, which thereby stays itself to the last bit.
    change = field - identity(len(field), field.shape[2:], field)
    change = F.interpolate(change, grid, mode="bilinear", align_corners=True)
    return change + identity(len(field), grid, field)


def positions(field: Tensor, other: torch.Size, grid: torch.Size) -> Tensor:
    """Where cells are in the other image: (B, *grid, 2), normalised, x then y.

    Args:
        field: (B, 6, h, w).
        other: rows and columns of the other image's cells.
        grid: of the cells, as fine as the field's or finer.
    """
    there = base(field.shape[2:], field) + field[:, [2, 5]]
    size = torch.tensor(other, device=field.device, dtype=field.dtype)[:, None, None]
    # From the outermost centres at -1 and 1 to the image's edges at 0 and 1.
    return enlarged(((there * (size - 1) / size + 1) / 2).flip(1).permute(0, 2, 3, 1), grid)


def enlarged(places: Tensor, grid: torch.Size) -> Tensor:
    """Places (B, h, w, 2) of the cells of a grid that is as fine as theirs or finer."""
    shape = places.shape[1:3]
    if shape == grid:
        return places
    way = (places - cell_centres(shape[0], shape[1], places)).permute(0, 3, 1, 2)
    way = F.interpolate(way, (grid[0], grid[1]), mode="bilinear")
    return way.permute(0, 2, 3, 1) + cell_centres(grid[0], grid[1], places)


def of_positions(places: Tensor, valid: Tensor, grid: torch.Size) -> tuple[Tensor, Tensor]:
    """The true field of positions, on their grid or on a coarser one, and where it is known.

    The affine part is how positions change from a cell to its neighbours; it is known where these
    are, and where positions change alike on both sides: neighbours on another object do not.

    Args:
        places: (B, H, W, 2), normalised, x then y, in an image with as many cells.
        valid: bool (B, H, W), where they are known.
        grid: of the field.

    Returns:
        (B, 6, h, w); bool of the same shape.
    """
    way = (places - cell_centres(places.shape[1], places.shape[2], places)).permute(0, 3, 1, 2)
    kept, shape = valid[:, None].to(places.dtype), (grid[0], grid[1])
    share = F.adaptive_avg_pool2d(kept, shape)
    way = F.adaptive_avg_pool2d(way * kept, shape) / share.clamp(min=1e-6)
    whole = share > 1 - 1e-4
    size = torch.tensor(grid, device=places.device, dtype=places.dtype)[:, None, None]
    shift = 2 * way.flip(1) * size / (size - 1)
    there = base(grid, places) + shift
    field, known = identity(len(places), grid, places), whole.repeat(1, PARAMETERS, 1, 1)
    field[:, [2, 5]] = shift
    for axis, cell in enumerate(steps(grid, places)):
        slope, told = _slope(there, whole, 2 + axis, steps(grid, places))
        field[:, [axis, 3 + axis]] = slope / cell
        known[:, [axis, 3 + axis]] = told
    return field, known


def _slope(there: Tensor, whole: Tensor, axis: int, cells: Tensor) -> tuple[Tensor, Tensor]:
    """How much values (B, 2, h, w) grow from a cell to the next along an axis, and where that is
    known (B, 1, h, w): where both neighbours are, and both sides differ by less than half a cell.
    """
    before, here, after = (
        torch.roll(there, shift, dims=axis) for shift in (1, 0, -1)
    )  # fmt: skip
    inside = torch.zeros_like(whole)
    inside.narrow(axis, 1, max(whole.shape[axis] - 2, 0)).fill_(True)
    known = inside & whole & torch.roll(whole, 1, dims=axis) & torch.roll(whole, -1, dims=axis)
    bent = (after - 2 * here + before).abs() / cells[:, None, None]
    return (after - before) / 2, known & (bent < 0.5).all(dim=1, keepdim=True)
