"""MaCoSNet's correlation, and what a warp collects of it: the published checks."""

import pytest
import torch
from torch import Tensor

from segswap.matchers.macosnet.scores import (
    carried,
    collected,
    correlation,
    grid_places,
    grid_scores,
    likeness,
    to_grid,
    unit,
)
from segswap.matchers.sampling import cell_centres
from segswap.matchers.warps import AFFINE, identity_spline

IDENTITY = torch.tensor([AFFINE])
SAME = 225 / (225 + 225**2 * 1e-5)  # 0.99775
COLUMN = 2 * 16 / 239  # of a grid of 15 cells, where a 240 px image's outermost pixels are at 1


def indicator(columns: int = 0) -> Tensor:
    """Scores (1, 225, 15, 15) of 1 where a cell meets the cell so many columns to the right."""
    scores = torch.zeros(1, 225, 15, 15)
    for row in range(15):
        for column in range(15 - columns):
            scores[0, row + 15 * (column + columns), row, column] = 1
    return scores


def places(x: float = 0.0) -> Tensor:
    moved = IDENTITY + torch.tensor([0, 0, x, 0, 0, 0])
    return carried(grid_places(moved), moved)


def test_channels_are_the_other_images_cells_column_by_column() -> None:
    torch.manual_seed(0)
    own, other = torch.randn(2, 5, 3, 4), torch.randn(2, 5, 6, 7)
    found = correlation(own, other)
    assert found.shape == (2, 42, 3, 4)
    for row, column in ((0, 1), (1, 0), (2, 5), (5, 6)):
        for i, j in ((0, 0), (2, 1)):
            expected = (other[:, :, row, column] * own[:, :, i, j]).sum(1)
            assert torch.allclose(found[:, row + 6 * column, i, j], expected, atol=1e-5)


def test_what_all_cells_have_in_common_is_no_likeness() -> None:
    torch.manual_seed(0)
    own, other = torch.randn(1, 8, 3, 4), torch.randn(1, 8, 15, 15)
    found = likeness(own, other)
    assert found.min() == 0
    assert torch.allclose(likeness(own, other + torch.randn(1, 8, 1, 1)), found, atol=1e-4)
    raw = correlation(own, other)
    more = raw > raw.mean(1, keepdim=True)
    assert torch.equal(found > 0, more)


def test_predictors_see_scores_of_length_1_on_one_grid() -> None:
    torch.manual_seed(0)
    own, other = (unit(torch.randn(1, 8, *grid)) for grid in ((6, 8), (20, 20)))
    scores = grid_scores(own, other)
    assert scores.shape == (1, 225, 15, 15)
    assert torch.allclose(scores.square().sum(1), torch.ones(1, 15, 15), atol=1e-3)
    assert to_grid(scores) is scores


def test_the_identity_collects_all_of_the_identity() -> None:
    assert collected(indicator(), places()).item() == pytest.approx(SAME, abs=1e-5)
    assert pytest.approx(0.99775, abs=1e-5) == SAME


def test_scores_that_moved_are_collected_by_the_warp_that_moved_as_they_did() -> None:
    assert collected(indicator(1), places()).item() < 1e-6
    assert collected(indicator(1), places(COLUMN)).item() == pytest.approx(0.9976, abs=5e-5)
    assert collected(indicator(), places(COLUMN)).item() < 1e-4


def test_masks_of_ones_change_nothing_and_masks_of_zeros_leave_nothing() -> None:
    torch.manual_seed(0)
    scores = torch.rand(2, 225, 15, 15)
    where = places(0.1).expand(2, -1, -1, -1)
    unguided = collected(scores, where)
    assert torch.equal(collected(scores, where, torch.ones(2, 15, 15)), unguided)
    assert torch.equal(collected(scores, where, torch.zeros(2, 15, 15)), torch.zeros(2))
    half = collected(scores, where, torch.full((2, 15, 15), 0.5))
    assert torch.allclose(half, unguided / 2)


def test_a_warp_goes_through_the_spline_first() -> None:
    spline = (identity_spline(IDENTITY) + 0.1 * torch.linspace(-1, 1, 18))[None]
    scaled = IDENTITY * torch.tensor([0.5, 1, 1, 1, 1, 1])
    cells = cell_centres(4, 4, IDENTITY)[None]
    assert torch.allclose(carried(cells, IDENTITY, identity_spline(IDENTITY)[None]), cells)
    bent, both = carried(cells, IDENTITY, spline), carried(cells, scaled, spline)
    assert not torch.allclose(bent, cells, atol=1e-3)
    # The affine map halves x about the middle of what the spline made.
    assert torch.allclose(both[..., 0] - 0.5, (bent[..., 0] - 0.5) / 2, atol=1e-6)
    assert torch.allclose(both[..., 1], bent[..., 1], atol=1e-6)


def test_a_warp_moves_by_pixels_of_240() -> None:
    """1 is from the middle of the image to the centre of its last pixel: 119.5 px."""
    moved = places(1.0) - places()
    assert moved[..., 0].mean().item() == pytest.approx(119.5 / 240)
    assert moved[..., 1].abs().max() < 1e-6
