"""The kernel soft argmax of SFNet, and the other kinds: checks with known answers."""

import math

import pytest
import torch
from torch import Tensor

from segswap.matchers.sampling import cell_centres
from segswap.matchers.sfnet.argmax import Argmax, correlation, find, kernel, unit

SIDE = 20
GRID = torch.Size((SIDE, SIDE))
CELLS = SIDE * SIDE


def from_corners(points: Tensor) -> Tensor:
    """Normalised points where the outermost cell centres lie at -1 and 1, as published."""
    return (2 * points.double() - 1) * SIDE / (SIDE - 1)


def centres() -> Tensor:
    return cell_centres(SIDE, SIDE, torch.zeros(1)).flatten(0, 1)


def one_row(values: dict[int, float]) -> Tensor:
    """Scores (1, 1, 400) that are 0 but for some cells."""
    scores = torch.zeros(1, 1, CELLS, dtype=torch.float64)
    for cell, value in values.items():
        scores[0, 0, cell] = value
    return scores


def test_a_lone_peak_is_found_exactly() -> None:
    torch.manual_seed(0)
    order = torch.randperm(CELLS)
    scores = torch.nn.functional.one_hot(order, CELLS)[None].double()
    found = find(scores, GRID, "kernel")
    assert torch.equal(found.positions[0], centres().double()[order])
    assert torch.equal(found.certainty, torch.ones(1, CELLS, dtype=torch.float64))


def test_of_two_peaks_the_higher_one_is_found_and_not_what_is_between() -> None:
    row = 9 * SIDE
    scores = one_row({row + 2: 0.7072, row + 17: 0.7070})
    kernelled, soft = (from_corners(find(scores, GRID, kind).positions)[0, 0, 0].item()
                       for kind in ("kernel", "soft"))  # fmt: skip
    assert kernelled == pytest.approx(2 * 2 / 19 - 1, abs=1e-5)  # -0.78947
    assert soft == pytest.approx(-0.004, abs=1e-3)


def test_equal_scores_give_the_middle_or_lie_near_the_first_cell() -> None:
    scores = torch.full((1, 1, CELLS), 1 / 20, dtype=torch.float64)
    soft = from_corners(find(scores, GRID, "soft").positions)[0, 0]
    kernelled = from_corners(find(scores, GRID, "kernel").positions)[0, 0]
    assert soft.tolist() == pytest.approx([0, 0], abs=1e-6)
    assert kernelled.tolist() == pytest.approx([-0.2836, -0.2836], abs=1e-4)


@pytest.mark.parametrize(("height", "mass"), [(0.5, 1.0), (0.2, 0.982), (0.1, 0.271)])
def test_how_much_a_low_peak_weighs(height: float, mass: float) -> None:
    found = find(one_row({210: height}), GRID, "kernel")
    assert found.certainty.item() == pytest.approx(mass, abs=1e-3)


def test_the_kernel_falls_to_a_known_value_five_cells_away() -> None:
    around = kernel(centres().double())
    assert around[0, 5].item() == pytest.approx(math.exp(-0.5), abs=1e-6)
    assert around[0, 5 * SIDE].item() == pytest.approx(0.6065, abs=1e-4)
    assert torch.equal(around.diagonal(), torch.ones(CELLS, dtype=torch.float64))


def test_gradients_reach_the_scores_and_not_the_best_cell() -> None:
    torch.manual_seed(0)
    scores = unit(torch.rand(1, 3, CELLS, dtype=torch.float64), dim=-1).requires_grad_()
    find(scores, GRID, "kernel").positions.sum().backward()
    assert scores.grad is not None
    assert scores.grad.isfinite().all()
    assert scores.grad.abs().sum() > 0
    best = scores.argmax(-1)
    around = kernel(centres().double())

    def fixed(values: Tensor) -> Tensor:
        likely = (50 * values * around[best]).softmax(-1)
        return (likely @ centres().double()).sum()

    expected = torch.autograd.functional.jacobian(fixed, scores.detach())
    assert torch.allclose(scores.grad, expected, atol=1e-12)


@pytest.mark.parametrize("kind", ["kernel", "soft"])
def test_gradients_are_those_of_finite_differences(kind: Argmax) -> None:
    torch.manual_seed(1)
    grid = torch.Size((4, 4))
    scores = unit(torch.rand(1, 2, 16, dtype=torch.float64), dim=-1).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: find(s, grid, kind).positions, (scores,))


def test_the_discrete_position_is_the_best_cell() -> None:
    torch.manual_seed(0)
    scores = torch.rand(2, 5, CELLS)
    found = find(scores, GRID, "discrete").positions
    assert torch.equal(found, centres()[scores.argmax(-1)])


@pytest.mark.parametrize("kind", ["kernel", "soft", "discrete"])
def test_hidden_cells_are_matched_by_none(kind: Argmax) -> None:
    torch.manual_seed(0)
    visible = (centres()[:, 0] < 0.5)[None]
    found = find(torch.rand(1, 7, CELLS), GRID, kind, visible)
    assert found.positions[..., 0].max() < 0.5


def test_both_directions_are_one_matrix_until_each_is_normalised() -> None:
    torch.manual_seed(0)
    source, target = (
        [unit(torch.randn(1, 8, *shape, dtype=torch.float64), dim=1) for _ in range(2)]
        for shape in ((4, 4), (4, 5))
    )
    there, back = correlation(source, target), correlation(target, source)
    assert there.shape == (1, 16, 20)
    assert torch.allclose(there, back.transpose(1, 2))
    normalised = unit(there, dim=-1), unit(back, dim=-1)
    assert not torch.allclose(normalised[0], normalised[1].transpose(1, 2), atol=1e-3)


def test_levels_are_multiplied_and_unlike_features_do_not_match() -> None:
    one = torch.tensor([[1.0, 0.0], [0.0, 1.0]])[None, :, :, None]  # two cells, two channels
    other = torch.tensor([[1.0, -1.0], [0.0, 0.0]])[None, :, :, None]
    same = torch.ones(1, 1, 2, 1)
    half = torch.tensor([1.0, 0.5])[None, None, :, None]
    found = correlation([one, same], [other, half])
    # Rows are the source's cells; a negative product counts as none.
    assert found[0].tolist() == [[1.0, 0.0], [0.0, 0.0]]
    assert correlation([same, same], [half, half])[0].tolist() == [[1.0, 0.25], [1.0, 0.25]]
