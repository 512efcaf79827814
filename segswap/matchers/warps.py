"""Affine maps and thin-plate splines of batches of points, in torch: differentiable, one for each.

Both are given as CNNGeometric's networks predict them (Rocco et al., "Convolutional Neural Network
Architecture for Geometric Matching", CVPR 2017). Points are of the square from -1 to 1, x then y,
y downwards; `segswap.data.augment.Spline` is the same spline in NumPy, of any control points.
"""

import torch
from torch import Tensor

AFFINE = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)  # the identity, row by row: x' = (a, b, c) (x, y, 1)
CONTROLS = 3  # control points a side of the square
_LEAST = 1e-18  # squared distance, below which the logarithm is not taken


def control_points(like: Tensor) -> Tensor:
    """The spline's control points (9, 2), column by column: x is the slow index."""
    line = torch.linspace(-1, 1, CONTROLS, dtype=like.dtype, device=like.device)
    return torch.stack(torch.meshgrid(line, line, indexing="ij"), dim=-1).flatten(0, 1)


def identity_spline(like: Tensor) -> Tensor:
    """The parameters (18,) that leave all points in place: x of all control points, then y."""
    return control_points(like).T.flatten()


def affine(parameters: Tensor, points: Tensor) -> Tensor:
    """Points (B, ..., 2), or (1, ..., 2) for all, by affine maps (B, 6): (B, ..., 2)."""
    matrix = parameters.unflatten(1, (2, 3))
    flat = points.flatten(1, -2)
    moved = flat @ matrix[..., :2].transpose(1, 2) + matrix[:, None, :, 2]
    return moved.unflatten(1, points.shape[1:-1])


def spline_coefficients(parameters: Tensor, regularisation: float = 0.0) -> tuple[Tensor, Tensor]:
    """Weights (B, 9, 2) of the kernel r^2 log r^2 at the control points, and the affine part
    (B, 3, 2): (1, x, y) @ affine.

    Args:
        parameters: (B, 18), where the control points go: all x, then all y.
        regularisation: added to the kernel's diagonal; with 0 the spline goes through these points.
    """
    controls = control_points(parameters)
    count = len(controls)
    ones = torch.cat([torch.ones_like(controls[:, :1]), controls], dim=1)
    system = parameters.new_zeros(count + 3, count + 3)
    system[:count, :count] = _kernel(controls, controls)
    system[:count, :count] += regularisation * torch.eye(count).to(parameters)
    system[:count, count:], system[count:, :count] = ones, ones.T
    ends = parameters.unflatten(1, (2, count)).transpose(1, 2)
    known = torch.cat([ends, ends.new_zeros(len(ends), 3, 2)], dim=1)
    solution = torch.linalg.solve(system, known)
    return solution[:, :count], solution[:, count:]


def spline(parameters: Tensor, points: Tensor, regularisation: float = 0.0) -> Tensor:
    """Points (B, ..., 2), or (1, ..., 2) for all, by thin-plate splines: (B, ..., 2); see
    `spline_coefficients`.
    """
    weights, plane = spline_coefficients(parameters, regularisation)
    flat = points.flatten(1, -2)
    bent = _kernel(flat, control_points(parameters)) @ weights
    moved = plane[:, :1] + flat @ plane[:, 1:] + bent
    return moved.unflatten(1, points.shape[1:-1])


def _kernel(points: Tensor, controls: Tensor) -> Tensor:
    """r^2 log r^2 of points (..., N, 2) and controls (K, 2): (..., N, K); 0 where r is."""
    squared = (points[..., None, :] - controls).square().sum(-1).clamp(min=_LEAST)
    return squared * squared.log()
