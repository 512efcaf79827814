"""Fields of local affine maps: sampling under them, from coarse to fine, and the true ones."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from segswap.matchers.rtn import fields
from segswap.matchers.rtn.levels import AddedLevel, OwnLevel, shortened
from segswap.matchers.sampling import cell_centres

GRID = torch.Size((7, 9))


def maps_of(channels: int = 4, grid: tuple[int, ...] = GRID) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(2, channels, *grid, dtype=torch.float64)


def constant(values: list[float], grid: tuple[int, ...] = GRID) -> Tensor:
    numbers = torch.tensor(values, dtype=torch.float64)[None, :, None, None]
    return numbers.expand(2, 6, *grid).clone()


def kernel_of(maps: Tensor) -> Tensor:
    return torch.randn(5, maps.shape[1], 3, 3, dtype=torch.float64)


def test_the_identity_gives_the_ordinary_padded_convolution() -> None:
    maps = maps_of()
    kernel, field = kernel_of(maps), fields.identity(2, GRID, maps)
    found = F.conv2d(fields.sampled(maps, field), kernel, stride=3)
    expected = F.conv2d(maps, kernel, padding=1)
    assert (found - expected).abs().max() < 1e-13  # sums of 36 products of the order of 1


def test_a_translation_gives_the_shifted_convolution() -> None:
    maps = maps_of()
    kernel = kernel_of(maps)
    field = constant([1, 0, 0, 0, 1, 2 * 2 / (GRID[1] - 1)])
    found = F.conv2d(fields.sampled(maps, field), kernel, stride=3)
    expected = F.conv2d(maps, kernel, padding=1)
    assert (found[..., :-3] - expected[..., 2:-1]).abs().max() < 1e-13


def test_a_quarter_turn_gives_the_convolution_with_the_turned_kernel() -> None:
    """Each cell reads at an offset (-columns, rows): one direction alone is right."""
    maps = maps_of(grid=(8, 8))
    kernel = kernel_of(maps)
    field = constant([0, -1, 0, 1, 0, 0], (8, 8))
    found = F.conv2d(fields.sampled(maps, field), kernel, stride=3)
    turned, wrong = (
        F.conv2d(maps, torch.rot90(kernel, turns, (2, 3)), padding=1) for turns in (1, -1)
    )
    inner = (..., slice(1, -1), slice(1, -1))
    assert (found - turned)[inner].abs().max() < 1e-13
    assert (found - wrong)[inner].abs().max() > 1


def test_another_image_may_have_another_grid() -> None:
    """Its middle is read from the middle, and offsets are its own cells."""
    maps = maps_of(grid=(5, 5))
    field = fields.identity(2, torch.Size((3, 3)), maps)
    block = fields.sampled(maps, field)[..., 3:6, 3:6]
    assert torch.allclose(block, maps[..., 1:4, 1:4], atol=1e-13)


def test_added_convolutions_are_the_identity_before_they_learn() -> None:
    level, maps = AddedLevel((3, 2)).double(), maps_of(5)
    assert torch.equal(level(maps), shortened(maps))
    field = fields.identity(2, GRID, maps)
    assert torch.allclose(level(maps, field), shortened(maps), atol=1e-13)
    with torch.no_grad():
        level.convolutions[0].change[0, 1, 1, 2] = 10  # learned at a tenth of the rate
    changed = level.convolve(maps, 1, 1)
    assert torch.allclose(changed[:, 0, :, :-1], (maps[:, 0] + maps[:, 1].roll(-1, 2))[..., :-1])
    assert torch.equal(changed[:, 1:], maps[:, 1:])


def test_an_own_convolution_follows_its_pooling_and_stays_the_backbones() -> None:
    convolution = torch.nn.Conv2d(4, 6, 3, padding=1).double()
    level, maps = OwnLevel(convolution), maps_of(grid=(8, 10))
    taken = level.take_in([maps])
    assert torch.equal(level(taken), shortened(convolution(F.max_pool2d(maps, 2)).relu()))
    moved = level(taken, fields.identity(2, torch.Size((4, 5)), maps))
    assert torch.allclose(moved, level(taken), atol=1e-13)
    assert not list(level.parameters())


def test_descriptors_are_a_little_shorter_than_1() -> None:
    unit = F.normalize(maps_of(8), dim=1)
    assert shortened(unit).norm(dim=1).mean().item() == pytest.approx(0.99504, abs=1e-5)


def test_upsampling_leaves_a_constant_field_constant() -> None:
    field = constant([1, 0.5, -0.25, 0, 1, 0.75], (4, 4))
    fine = fields.upsampled(field, torch.Size((8, 8)))
    assert (fine - field[..., :1, :1]).abs().max() < 1e-13
    assert fields.upsampled(field, torch.Size((4, 4))) is field


@pytest.mark.parametrize("grid", [GRID, torch.Size((14, 18))], ids=["same", "finer"])
def test_positions_of_the_identity_are_the_cells_centres(grid: torch.Size) -> None:
    field = fields.identity(2, GRID, torch.zeros((), dtype=torch.float64))
    found = fields.positions(field, GRID, grid)
    assert torch.allclose(found, cell_centres(*grid, found).double().expand_as(found), atol=1e-6)


def test_positions_are_in_the_other_image_columns_first() -> None:
    """Two of the other image's cells to the right, one down."""
    field = constant([1, 0, 2 / (GRID[0] - 1), 0, 1, 2 * 2 / (GRID[1] - 1)])
    found = fields.positions(field, GRID, GRID) - cell_centres(*GRID, field).double()
    assert torch.allclose(found, found.new_tensor([2 / GRID[1], 1 / GRID[0]]), atol=1e-6)


def affine_positions(matrix: Tensor, shift: Tensor, grid: torch.Size) -> Tensor:
    """Positions of a map of corner units (rows first)."""
    places = fields.base(grid, matrix).flatten(1)
    there = (matrix @ places + shift[:, None]).unflatten(1, grid)
    size = torch.tensor(grid, dtype=torch.float64)[:, None, None]
    return ((there * (size - 1) / size + 1) / 2).flip(0).permute(1, 2, 0)[None]


def test_the_true_field_of_an_affine_warp_is_that_map() -> None:
    """The flow is (A - I) g + t; where neighbours are not known, the affine part is not."""
    angle = math.radians(20)
    matrix = (
        0.8
        * torch.tensor(
            [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
        ).double()
    )
    shift = torch.tensor([0.2, -0.1]).double()
    places = affine_positions(matrix, shift, GRID)
    valid = torch.ones(1, *GRID, dtype=torch.bool)
    field, known = fields.of_positions(places, valid, GRID)
    base = fields.base(GRID, matrix)
    flow = torch.einsum("ok,khw->ohw", matrix - torch.eye(2), base) + shift[:, None, None]
    assert torch.allclose(field[0, [2, 5]], flow, atol=1e-6)
    assert known[0, [2, 5]].all()
    inner = (..., slice(1, -1), slice(1, -1))
    assert torch.allclose(field[0, [0, 1, 3, 4]][inner], matrix.flatten()[:, None, None], atol=1e-6)
    assert known[inner].all()
    assert not known[0, [0, 3], 0].any()
    valid[0, 3, 4] = False
    known = fields.of_positions(places, valid, GRID)[1]
    assert not known[0, :, 3, 4].any()
    assert not known[0, [1, 4], 3, 3].any()
    assert known[0, [0, 3], 3, 3].all()


def test_the_affine_part_is_not_taken_across_two_objects() -> None:
    places = cell_centres(*GRID, torch.zeros(1)).double()[None].clone()
    places[:, :, 5:, 0] -= 0.5
    field, known = fields.of_positions(places, torch.ones(1, *GRID, dtype=torch.bool), GRID)
    assert known[0, 1, 3].tolist() == [False, True, True, True, False, False, True, True, False]
    assert torch.allclose(field[0, [0, 4]][known[0, [0, 4]]], torch.ones(1).double(), atol=1e-5)


def test_a_coarser_true_field_says_the_same() -> None:
    matrix = torch.tensor([[1.1, 0.2], [-0.1, 0.9]]).double()
    fine, coarse = torch.Size((8, 8)), torch.Size((4, 4))
    places = affine_positions(matrix, torch.tensor([0.1, 0.2]).double(), fine)
    valid = torch.ones(1, 8, 8, dtype=torch.bool)
    field, _ = fields.of_positions(places, valid, coarse)
    found = fields.positions(field, coarse, fine)
    inner = (..., slice(1, -1), slice(1, -1), slice(None))
    assert torch.allclose(found[inner], places[inner], atol=1e-6)
    valid[0, 2, 2] = False
    assert not fields.of_positions(places, valid, coarse)[1][0, 2, 1, 1]
