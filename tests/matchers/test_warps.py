"""Affine maps and thin-plate splines in torch: the published checks, and the same in NumPy."""

import numpy as np
import pytest
import torch
from torch import Tensor

from segswap import geometry
from segswap.data.augment import Spline
from segswap.matchers.warps import (
    AFFINE,
    affine,
    control_points,
    identity_spline,
    spline,
    spline_coefficients,
)

LIKE = torch.zeros(1, dtype=torch.float64)


def points(count: int = 50) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return 3 * torch.rand(1, count, 2, generator=generator, dtype=torch.float64) - 1.5


def bent(count: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    noise = torch.rand(count, 18, generator=generator, dtype=torch.float64) - 0.5
    return identity_spline(LIKE) + 0.8 * noise


def ends(parameters: Tensor) -> Tensor:
    """Where control points (B, 9, 2) go."""
    return parameters.unflatten(1, (2, 9)).transpose(1, 2)


def test_the_identity_has_the_published_order() -> None:
    assert identity_spline(LIKE).tolist() == [
        -1, -1, -1, 0, 0, 0, 1, 1, 1, -1, 0, 1, -1, 0, 1, -1, 0, 1
    ]  # fmt: skip
    assert torch.equal(affine(torch.tensor([AFFINE]), points().float()), points().float())


@pytest.mark.parametrize("regularisation", [0.0, 0.2, 5.0])
def test_the_identity_moves_nothing(regularisation: float) -> None:
    same = identity_spline(LIKE)[None]
    assert (spline(same, points(), regularisation) - points()).abs().max() < 1e-14
    weights, _ = spline_coefficients(same, regularisation)
    assert weights.abs().max() < 1e-14


@pytest.mark.parametrize("regularisation", [0.0, 0.2])
def test_control_points_moved_by_an_affine_map_give_that_map(regularisation: float) -> None:
    matrix = torch.tensor([[0.8, -0.3, 0.2, 0.4, 1.2, -0.1]], dtype=torch.float64)
    moved = affine(matrix, control_points(LIKE)[None])[0].T.flatten()[None]
    assert (spline(moved, points(), regularisation) - affine(matrix, points())).abs().max() < 1e-13
    assert spline_coefficients(moved, regularisation)[0].abs().max() < 1e-13


def test_without_regularisation_control_points_go_where_they_are_told() -> None:
    parameters, controls = bent(), control_points(LIKE)[None]
    assert (spline(parameters, controls) - ends(parameters)).abs().max() < 1e-13
    assert (spline(parameters, controls, 0.2) - ends(parameters)).abs().max() > 0.01


@pytest.mark.parametrize("regularisation", [0.0, 0.2])
def test_the_kernels_weights_are_no_affine_map(regularisation: float) -> None:
    weights, _ = spline_coefficients(bent(), regularisation)
    assert weights.sum(1).abs().max() < 1e-13
    controls = control_points(LIKE)
    assert (controls.T @ weights).abs().max() < 1e-13
    assert weights.abs().max() > 0.01


def test_splines_are_those_of_numpy() -> None:
    parameters, controls = bent(), control_points(LIKE).numpy()
    for place, moved in enumerate(ends(parameters).numpy()):
        theirs = Spline.through(controls, moved)(points()[0].numpy())
        np.testing.assert_allclose(spline(parameters, points())[place], theirs, atol=1e-12)


def test_affine_maps_are_those_of_numpy() -> None:
    generator = torch.Generator().manual_seed(2)
    parameters = torch.randn(3, 6, generator=generator, dtype=torch.float64)
    grid = points(12).view(1, 3, 4, 2)
    moved = affine(parameters, grid)
    assert moved.shape == (3, 3, 4, 2)
    for found, numbers in zip(moved, parameters.numpy(), strict=True):
        matrix = np.vstack([numbers.reshape(2, 3), [0, 0, 1]])
        np.testing.assert_allclose(found, geometry.transform_points(matrix, grid[0]), atol=1e-12)


def test_gradients_are_those_of_differences() -> None:
    parameters, some = bent(2).requires_grad_(), points(4)
    matrices = (torch.tensor([AFFINE] * 2, dtype=torch.float64) + 0.1).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: spline(p, some, 0.2), (parameters,))
    assert torch.autograd.gradcheck(lambda m: affine(m, some), (matrices,))
    # A point on a control point, where the kernel's logarithm has none.
    on = control_points(LIKE)[None].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(spline(bent(1), on).sum(), on)
    assert gradient.isfinite().all()


def test_each_of_a_batch_has_its_own() -> None:
    parameters = bent()
    together = spline(parameters, points().expand(3, -1, -1))
    for place in range(3):
        alone = spline(parameters[place : place + 1], points())
        assert torch.allclose(together[place], alone[0], atol=1e-13)
