"""A check of what SFNet learns from that is stricter than those of its parts."""

import pytest
import torch
from made_matches import answers, batch_of, matches_of

from segswap.matchers.sampling import cell_centres
from segswap.matchers.sfnet.terms import smoothness

SIDE = 20


def test_components_that_cancel_cost_as_much_as_others() -> None:
    """u = x, v = -x, a cell each cell: 1 + 1 a cell on a mask of all but the outermost cells."""
    home = cell_centres(SIDE, SIDE, torch.zeros(1))[None]
    x = home[..., 0] - 0.5
    moved = home + torch.stack([x, -x], dim=-1)
    mask = torch.zeros(1, SIDE, SIDE)
    mask[:, 1:-1, 1:-1] = 1
    blank, known = torch.zeros(1, SIDE, SIDE), torch.zeros(1, SIDE, SIDE, dtype=torch.bool)
    features = torch.zeros(1, 1, SIDE, SIDE)
    given = answers(
        matches_of(moved, home, blank, blank, features, features),
        batch_of(torch.zeros(1, 3, SIDE, SIDE, dtype=torch.uint8), mask, blank, moved, home,
                 known, known),
    )  # fmt: skip
    cell, inner = 2 / (SIDE - 1), (SIDE - 2) ** 2
    assert smoothness(given).item() == pytest.approx(inner * 2 * cell / (inner + 1), rel=1e-4)
