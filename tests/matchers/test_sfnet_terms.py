"""What SFNet learns from: fields of which the losses are known, and gradients."""

import pytest
import torch
from made_matches import answers, batch_of, matches_of
from torch import Tensor

from segswap.matchers.base import Answers, Term
from segswap.matchers.sampling import cell_centres
from segswap.matchers.sfnet.terms import (
    PUBLISHED,
    flow_consistency,
    flow_of,
    mask_consistency,
    smoothness,
    steepness,
)

SIDE = 20
CELL = 2 / (SIDE - 1)  # in the units of flows


def told(
    to_target: Tensor, to_source: Tensor, source_mask: Tensor, target_mask: Tensor
) -> Answers:  # fmt: skip
    """What losses are computed of, for positions (B, 20, 20, 2) and masks (B, 20, 20)."""
    count = len(to_target)
    blank = torch.zeros(count, SIDE, SIDE)
    features = torch.zeros(count, 1, SIDE, SIDE)
    matches = matches_of(to_target, to_source, blank, blank, features, features)
    images = torch.zeros(count, 3, SIDE, SIDE, dtype=torch.uint8)
    known = torch.zeros(count, SIDE, SIDE, dtype=torch.bool)
    return answers(
        matches, batch_of(images, source_mask, target_mask, to_target, to_source, known, known)
    )


def home(count: int = 1) -> Tensor:
    return cell_centres(SIDE, SIDE, torch.zeros(1)).expand(count, -1, -1, -1).clone()


def moved(cells: float, count: int = 1) -> Tensor:
    """All cells moved to the right by so many."""
    return home(count) + torch.tensor([cells / SIDE, 0])


def block(left: int, right: int, count: int = 1) -> Tensor:
    mask = torch.zeros(count, SIDE, SIDE)
    mask[:, 5:15, left:right] = 1
    return mask


def test_a_shift_and_its_inverse_cost_nothing() -> None:
    given = told(moved(3), moved(-3), block(5, 12), block(8, 15))
    assert mask_consistency(given).item() == pytest.approx(0, abs=1e-6)
    assert flow_consistency(given).item() == pytest.approx(0, abs=1e-6)
    # Away from the borders, beyond which flows are taken for 0.
    assert steepness(flow_of(*given.matches.both().__next__()))[0, 1:-1, 1:-1].max() < 1e-5


def test_without_movement_equal_masks_cost_nothing() -> None:
    given = told(home(), home(), block(5, 12), block(5, 12))
    for term in (mask_consistency, flow_consistency, smoothness):
        assert term(given).item() == pytest.approx(0, abs=1e-6)


def test_roles_may_be_exchanged() -> None:
    torch.manual_seed(0)
    there, back = torch.rand(2, SIDE, SIDE, 2), torch.rand(2, SIDE, SIDE, 2)
    masks = [(torch.rand(2, SIDE, SIDE) > 0.5).float() for _ in range(2)]
    for term in (mask_consistency, flow_consistency, smoothness):
        one = term(told(there, back, *masks))
        other = term(told(back, there, *reversed(masks)))
        assert one.item() == pytest.approx(other.item(), rel=1e-5)
        assert one > 0


def test_the_sums_are_those_of_the_published_formulas() -> None:
    # One column of ten cells of each mask has no counterpart: 10 of 400 in both directions.
    given = told(home(), home(), block(5, 12), block(5, 13))
    assert mask_consistency(given).item() == pytest.approx(2 * 10 / 400)
    # The way back is missing: every cell of the foreground ends 3 cells off.
    given = told(moved(3), home(), block(5, 12), torch.zeros(1, SIDE, SIDE))
    assert flow_consistency(given).item() == pytest.approx(70 * (3 * CELL) ** 2 / 71, rel=1e-4)
    # u = 2 x, in cells: the slope is one cell a cell.
    wider = home() + torch.stack([home()[..., 0], torch.zeros(1, SIDE, SIDE)], dim=-1)
    given = told(wider, home(), block(5, 12), torch.zeros(1, SIDE, SIDE))
    assert smoothness(given).item() == pytest.approx(70 * CELL / 71, rel=1e-4)


def test_components_that_cancel_are_not_smooth() -> None:
    x = CELL * torch.arange(SIDE).float().expand(SIDE, SIDE)
    steep = steepness(torch.stack([x, -x])[None])[0, 1:-1, 1:-1] / CELL
    assert torch.allclose(steep, torch.full_like(steep, 2.0), atol=1e-5)


def test_flows_have_the_published_units() -> None:
    given = told(moved(1), moved(-1), block(5, 12), block(5, 12))
    source, target = given.matches.source, given.matches.target
    flow = flow_of(source, target)
    assert torch.allclose(flow[:, 0], torch.full((1, SIDE, SIDE), CELL), atol=1e-5)
    assert flow[:, 1].abs().max() < 1e-6
    corners = home()[0, 0, 0].expand(1, SIDE, SIDE, 2)
    flow = flow_of(told(corners, corners, block(5, 12), block(5, 12)).matches.source, target)
    assert flow[0, :, -1, -1].tolist() == pytest.approx([-2, -2], abs=1e-5)
    assert flow[0, :, 0, 0].tolist() == pytest.approx([0, 0], abs=1e-5)


def test_a_pair_counts_as_much_as_another() -> None:
    small, large = block(5, 6), block(2, 18)
    torch.manual_seed(0)
    there, back = torch.rand(2, SIDE, SIDE, 2), torch.rand(2, SIDE, SIDE, 2)
    masks = torch.cat([small, large])
    for term in (mask_consistency, flow_consistency, smoothness):
        alone = [
            term(told(there[n : n + 1], back[n : n + 1], masks[n : n + 1], masks[n : n + 1]))
            for n in range(2)
        ]
        both = term(told(there, back, masks, masks))
        assert both.item() == pytest.approx((alone[0] + alone[1]).item() / 2, rel=1e-5)


def test_what_nobody_knows_does_not_count() -> None:
    torch.manual_seed(0)
    there, back = torch.rand(1, SIDE, SIDE, 2), torch.rand(1, SIDE, SIDE, 2)
    unknown = torch.full((1, SIDE, SIDE), torch.nan)
    for term in (mask_consistency, flow_consistency, smoothness):
        assert term(told(there, back, unknown, unknown)).item() == 0
    half = block(5, 15)
    half[:, :, 10:] = torch.nan
    given = told(home(), home(), half, block(5, 10) * 0)
    assert mask_consistency(given).item() == pytest.approx(2 * 50 / 400)


@pytest.mark.parametrize("term", PUBLISHED, ids=lambda term: term.name)
def test_every_term_moves_positions(term: Term) -> None:
    torch.manual_seed(0)
    there, back = (torch.rand(1, SIDE, SIDE, 2).requires_grad_() for _ in range(2))
    term.compute(told(there, back, block(5, 12), block(8, 15))).backward()
    for positions in (there, back):
        assert positions.grad is not None
        assert positions.grad.isfinite().all()
        assert positions.grad.abs().sum() > 0


def test_weights_are_the_published_ones() -> None:
    assert {term.name: term.weight for term in PUBLISHED} == {
        "mask_consistency": 3, "flow_consistency": 16, "smoothness": 0.5
    }  # fmt: skip
