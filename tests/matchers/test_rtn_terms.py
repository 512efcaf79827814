"""What RTN learns from: known fields, and windows whose centre must be the best."""

import math

import pytest
import torch
from torch import Tensor

from segswap.matchers.base import Answers, Batch, BatchSide, Matches, Side
from segswap.matchers.rtn import fields
from segswap.matchers.rtn.terms import TERMS, field_loss, weak_loss
from segswap.matchers.windows import CENTRE

GRID = torch.Size((8, 8))


def side_of(**extra: Tensor) -> Side:
    count = len(next(iter(extra.values())))
    return Side(
        torch.zeros(count, *GRID, 2), torch.zeros(count, *GRID), torch.zeros(count, 1, *GRID), extra
    )  # fmt: skip


def truth_of(count: int, **known: Tensor) -> BatchSide:
    image = torch.zeros(count, 3, 8, 8, dtype=torch.uint8)
    return BatchSide(image, torch.zeros(count, 1, dtype=torch.int64), **known)


def answers(side: Side, truth: BatchSide) -> Answers:
    """The same on both sides: a loss is twice that of one."""
    return Answers(Matches(side, side), Batch(truth, truth))


# --- known fields ----------------------------------------------------------------------------


def warped() -> tuple[BatchSide, Tensor, Tensor]:
    """Positions of a pure affine warp (A - I) g + t, and its field on a fine and a coarse grid."""
    matrix, shift = torch.tensor([[0.9, 0.2], [-0.1, 1.1]]), torch.tensor([0.1, -0.05])
    made = []
    for grid in (GRID, torch.Size((4, 4))):
        # The same place of the image, in corner units of each grid.
        moved = shift * (7 / 8) * grid[0] / (grid[0] - 1)
        own = fields.base(grid, matrix)
        flow = torch.einsum("ok,khw->ohw", matrix - torch.eye(2), own) + moved[:, None, None]
        field = fields.identity(1, grid, matrix)
        field[0, [0, 1, 3, 4]] = matrix.flatten()[:, None, None].expand(4, *grid)
        field[0, [2, 5]] = flow
        made.append(field)
    places = fields.positions(made[0], GRID, GRID)
    valid = torch.ones(1, *GRID, dtype=torch.bool)
    return truth_of(1, positions=places, valid=valid), *made


def test_the_field_of_a_pure_affine_warp_has_no_loss() -> None:
    truth, fine, coarse = warped()
    side = side_of(field_1=coarse, field_2=fine)
    assert field_loss(answers(side, truth)).item() == pytest.approx(0, abs=1e-5)


def test_each_estimate_is_told_translation_and_affine_part() -> None:
    truth, fine, coarse = warped()
    wrong = fine.clone()
    wrong[:, 2] += 0.3
    loss = field_loss(answers(side_of(field_1=coarse, field_2=wrong), truth))
    assert loss.item() == pytest.approx(2 * 0.3 / 2 / 2, rel=1e-4)  # of two channels, estimates
    turned = fine.clone()
    turned[:, 1] += 0.7
    loss = field_loss(answers(side_of(field_1=turned), truth))
    assert loss.item() == pytest.approx(2 * 0.7 * (2 / 7) / 4, rel=1e-4)  # a cell's worth


def test_cells_of_which_nothing_is_known_teach_nothing() -> None:
    truth, fine, _ = warped()
    valid = torch.zeros(1, *GRID, dtype=torch.bool)
    field = (fine + 1).requires_grad_()
    loss = field_loss(answers(side_of(field_1=field), truth._replace(valid=valid)))
    loss.backward()
    assert loss.item() == 0
    assert field.grad is not None
    assert not field.grad.any()


# --- pairs of one kind -----------------------------------------------------------------------


def labelled(count: int = 1, **known: Tensor) -> BatchSide:
    return truth_of(count, labels=torch.ones(count, 2, dtype=torch.int8), **known)


def window(centre: float = 0.0, rest: float = 0.0, count: int = 1) -> Tensor:
    values = torch.full((count, 81, *GRID), rest)
    values[:, CENTRE] = centre
    return values


@pytest.mark.parametrize(
    ("centre", "rest", "expected"),
    [(0.3, 0.3, math.log(81)), (1, 0, 3.415), (1, -1, 2.470)],
)
def test_the_weak_loss_is_cross_entropy_at_the_centre(
    centre: float, rest: float, expected: float
) -> None:
    loss = weak_loss(answers(side_of(window_1=window(centre, rest)), labelled()))
    assert loss.item() == pytest.approx(2 * expected, abs=2e-3)
    assert math.log(81) == pytest.approx(4.394, abs=1e-3)


def test_it_is_the_mean_of_all_estimates_the_last_one_too() -> None:
    side = side_of(window_1=window(), window_2=window(1, -1))
    loss = weak_loss(answers(side, labelled()))
    assert loss.item() == pytest.approx(4.394 + 2.470, abs=4e-3)


def test_background_does_not_count_where_masks_are_known() -> None:
    logits = window()
    logits[:, CENTRE, :, 4:] = 50
    mask = torch.zeros(1, *GRID)
    mask[..., :2] = 1
    mask[..., 2:4] = 0.4
    side = side_of(window_1=logits)
    loss = weak_loss(answers(side, labelled(mask=mask)))
    assert loss.item() == pytest.approx(2 * math.log(81), abs=1e-3)
    unknown = labelled(mask=torch.full((1, *GRID), torch.nan))
    assert weak_loss(answers(side, unknown)).item() == pytest.approx(math.log(81), abs=1e-3)


def test_pairs_that_are_not_known_to_be_of_one_kind_teach_nothing() -> None:
    labels = torch.tensor([[1, 0], [1, -1], [-1, -1]], dtype=torch.int8)
    own = truth_of(3, labels=labels)
    other = truth_of(3, labels=torch.tensor([[1, 1], [0, 1], [-1, -1]], dtype=torch.int8))
    logits = window(count=3)
    logits[1:, CENTRE] = -100
    side = side_of(window_1=logits)
    batch = Batch(own, other)
    loss = weak_loss(Answers(Matches(side, side), batch))
    assert loss.item() == pytest.approx(2 * math.log(81), abs=1e-3)
    apart = Batch(*(replace_labels(each) for each in batch))
    assert weak_loss(Answers(Matches(side, side), apart)).item() == 0


def replace_labels(side: BatchSide) -> BatchSide:
    return side._replace(labels=-torch.ones(3, 2, dtype=torch.int8))


def test_it_has_the_losses_of_the_other_matchers_too() -> None:
    weights = {term.name: term.weight for term in TERMS}
    assert weights == {
        "field": 8, "weak": 1, "mask": 0, "transfer": 0, "corr": 0, "keypoints": 0,
    }  # fmt: skip
