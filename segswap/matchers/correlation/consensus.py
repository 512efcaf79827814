"""Which matches agree with their neighbours, and the local affine maps that they agree on.

Everything is a map over one image's grid: (B, C, h, w). Positions are in cells: the cell in row i
and column j has its centre at x = j + 0.5, y = i + 0.5. A cell looks at the square of neighbours
around it alone, so that time and memory grow with the number of cells and not with its square.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

_REACH = 6  # cells to every side that a cell looks at
_TOLERANCE = 0.7  # cells that a neighbour's match may be off where it is near,
_SLACK = 0.3  # plus this for every cell of distance: rotation and unequal scales
_RIDGE = 0.3  # holds a local map's linear part to the matches' mean scale where few agree
_OUTLIER = 1.0  # cells off its map at which a match loses most of its weight


def support(
    matched: Tensor, scale: Tensor, weight: Tensor, radius: float = 5.0
) -> tuple[Tensor, Tensor]:
    """How much the matches around each cell agree with its own, and the weights that follow.

    Two cells agree when the offset between their matches is the offset between the cells times
    the scale, for the scale of both. As in spectral matching (Leordeanu and Hebert, ICCV 2005) a
    match gains weight from the weight of those that agree with it, in a few iterations.

    Args:
        matched: (B, 2, h, w) matched positions in cells of the other image, x then y.
        scale: (B, 1, h, w) cells of the other image a cell of this one.
        weight: (B, 1, h, w) in [0, 1], confidence in each match on its own.
        radius: distance in cells over which matches speak for each other.

    Returns:
        support (B, 1, h, w), the weight of the agreeing matches around; new weights.
    """
    offset = _offsets(matched)
    near = _nearness(offset, radius)
    near[len(near) // 2] = 0  # no match speaks for itself
    distance = offset.norm(dim=-1)
    moved = _around(matched) - matched.flatten(2)[:, :, None]
    agree = near[None, :, None]
    # Agreement under the cell's own scale, then under its neighbour's.
    for each in (scale.flatten(2), _around(scale)[:, 0]):
        error_x = moved[:, 0] - each * offset[None, :, :1]
        error_y = moved[:, 1] - each * offset[None, :, 1:]
        tolerance = _TOLERANCE + _SLACK * distance[:, None] * each
        agree = agree * torch.exp(-0.5 * (error_x**2 + error_y**2) / tolerance**2)
    current, gained = weight, weight
    for _ in range(3):
        gained = (agree * _around(current)[:, 0]).sum(1).view_as(weight)
        current = weight * gained / (gained + 1)
    return gained, current


def local_affine(
    matched: Tensor, scale: Tensor, weight: Tensor, radius: float = 3.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Each cell's position under the affine map that the weighted matches around it agree on.

    Weighted least squares with Gaussian weights of the distance, reweighted twice so that matches
    off the map lose their say. The result is linear in `matched`: gradients flow through it to
    the matches, and not through the weights.

    Args:
        matched, scale, weight, radius: as in `support`.

    Returns:
        positions (B, 2, h, w) in cells; the map's linear part (B, 4, h, w), the change of x and
        of y along x, then along y; (B, 1, h, w) total weight of the matches behind each.
    """
    offset = _offsets(matched)
    features = torch.cat([torch.ones_like(offset[:, :1]), offset], dim=1)  # (K, 3): 1, x, y
    positions = _around(matched)
    with torch.no_grad():
        prior = _nearness(offset, radius)[:, None] * _around(weight)[:, 0]
        scales = _around(scale)[:, 0]
        share = prior
        for _ in range(2):
            maps = _fit(share, features, positions, scales)
            missed = torch.einsum("kf,bfcn->bckn", features, maps) - positions
            share = prior * torch.exp(-0.5 * missed.square().sum(1) / _OUTLIER**2)
    maps = _fit(share, features, positions, scales).unflatten(-1, matched.shape[2:])
    # At the cell itself the offset is 0: its position is the map's constant term.
    return maps[:, 0], maps[:, 1:].flatten(1, 2), share.sum(1).view_as(weight)


def _fit(share: Tensor, features: Tensor, positions: Tensor, scales: Tensor) -> Tensor:
    """Affine maps (B, 3, 2, N) from (1, offset x, offset y) to positions, one a cell.

    Args:
        share: (B, K, N) weight of each neighbour in each cell's fit.
        features: (K, 3).
        positions: (B, 2, K, N) of the neighbours' matches.
        scales: (B, K, N) of the neighbours' matches.
    """
    total = share.sum(1)
    mean = (share * scales).sum(1) / total.clamp(min=1e-6)
    products = (features[:, :, None] * features[:, None]).flatten(1)
    normal = torch.einsum("kp,bkn->bpn", products, share).unflatten(1, (3, 3))
    # Fitted is what is left after scaling by the mean scale, so that the ridge pulls towards it.
    moments = torch.einsum("kf,bckn->bfcn", features, share[:, None] * positions)
    left = _solve(normal, moments - normal[:, :, 1:] * mean[:, None, None])
    identity = torch.eye(3, device=share.device)[:, 1:, None]
    return left + mean[:, None, None] * identity


def _solve(normal: Tensor, right: Tensor) -> Tensor:
    """Solutions (B, 3, 2, N) of N symmetric 3 x 3 systems (B, 3, 3, N) with the ridge added.

    By elimination, written out: solvers for batches of matrices take many times as long at 3 x 3.
    """
    a, d, f = normal[:, 0, 0] + 1e-4, normal[:, 1, 1] + _RIDGE, normal[:, 2, 2] + _RIDGE
    b, c = normal[:, 0, 1] / a, normal[:, 0, 2] / a
    d, e = d - b * normal[:, 0, 1], normal[:, 1, 2] - b * normal[:, 0, 2]
    f = f - c * normal[:, 0, 2] - e / d * e
    b, c, e = b[:, None], c[:, None], (e / d)[:, None]
    second = right[:, 1] - b * right[:, 0]
    third = right[:, 2] - c * right[:, 0] - e * second
    z = third / f[:, None]
    y = second / d[:, None] - e * z
    x = right[:, 0] / a[:, None] - b * y - c * z
    return torch.stack([x, y, z], dim=1)


def _offsets(like: Tensor) -> Tensor:
    """Offsets (K, 2) of the neighbours in cells, x then y."""
    step = torch.arange(-_REACH, _REACH + 1, device=like.device, dtype=torch.float32)
    return torch.stack(torch.meshgrid(step, step, indexing="xy"), dim=-1).reshape(-1, 2)


def _nearness(offset: Tensor, radius: float) -> Tensor:
    return torch.exp(-0.5 * offset.square().sum(-1) / radius**2)


def _around(maps: Tensor) -> Tensor:
    """Values (B, C, K, N) of every cell's neighbours, in the order of `_offsets`; 0 outside."""
    count = 2 * _REACH + 1
    return F.unfold(maps, count, padding=_REACH).unflatten(1, (maps.shape[1], count * count))
