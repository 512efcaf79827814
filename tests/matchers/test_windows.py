"""Windows of correlation, and places that are refined in them."""

import torch
import torch.nn.functional as F
from torch import Tensor

from segswap.matchers.sampling import cell_centres
from segswap.matchers.windows import CENTRE, mean_around, refined, window_correlation

GRID = torch.Size((7, 9))


def maps_of(channels: int) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(2, channels, *GRID, dtype=torch.float64)


def test_a_window_holds_the_products_with_the_cells_around_rows_fastest() -> None:
    source, target = maps_of(3), maps_of(3).flip(1)
    window = window_correlation(source, target)
    assert window.shape == (2, 81, *GRID)
    for rows, columns in ((0, 0), (2, -1), (-4, 3), (1, 4)):
        padded = F.pad(target, (4, 4, 4, 4))
        there = padded[..., 4 + rows : 11 + rows, 4 + columns : 13 + columns]
        channel = 9 * (columns + 4) + rows + 4
        assert torch.allclose(window[:, channel], (source * there).sum(1))
    assert CENTRE == 40


def home(grid: torch.Size = GRID) -> Tensor:
    return cell_centres(*grid, torch.zeros(1)).double().expand(2, *grid, 2)


def test_places_are_refined_to_the_cells_that_are_alike() -> None:
    """Of an image and a copy that is two columns further on: two columns, where these are there."""
    grid = torch.Size((9, 12))
    torch.manual_seed(0)
    source = F.normalize(torch.randn(2, 16, *grid, dtype=torch.float64), dim=1)
    places = home(grid) + 0.1  # wherever the field says
    found = refined(window_correlation(source, source.roll(2, dims=3)), places)
    expected = places + torch.tensor([2 / 12, 0], dtype=torch.float64)
    assert torch.allclose(found[:, 1:-1, 1:9], expected[:, 1:-1, 1:9], atol=1e-3)


def test_where_all_is_alike_places_stay() -> None:
    """And are those of candidates inside of the image, at the border too."""
    found = refined(torch.full((2, 81, *GRID), 0.3, dtype=torch.float64), home())
    middle = found[:, 3:4, 4:5]
    assert torch.allclose(middle, home()[:, 3:4, 4:5])
    assert ((found > 0) & (found < 1)).all()


def test_neighbours_that_moved_alike_decide_between_equals() -> None:
    scores = torch.zeros(1, 81, 5, 5, dtype=torch.float64)
    scores[:, CENTRE + 9] = 1.0  # a column further on
    scores[:, CENTRE + 1, 2, 2] = 1.0  # the middle one as well a row further down
    places = home(torch.Size((5, 5)))[:1]
    found = refined(scores, places)[0, 2, 2]
    assert torch.allclose(found, places[0, 2, 3], atol=1e-3)


# --- scores of cells that move alike -------------------------------------------------------


def test_around_are_the_cells_a_step_away_in_both_images() -> None:
    grids = torch.Size((4, 5)), torch.Size((3, 6))
    scores = torch.randn(2, 20, 18, generator=torch.Generator().manual_seed(0))
    found, scored = (x.view(2, 4, 5, 3, 6) for x in (mean_around(scores, grids), scores))
    steps = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    for i, j, k, m in ((0, 0, 0, 0), (1, 2, 1, 3), (3, 4, 0, 2), (2, 4, 2, 5)):
        around = [
            scored[:, i + y, j + x, k + y, m + x]
            for y, x in steps
            if 0 <= i + y < 4 and 0 <= j + x < 5 and 0 <= k + y < 3 and 0 <= m + x < 6
        ]
        assert torch.allclose(found[:, i, j, k, m], torch.stack(around).mean(0), atol=1e-6)


def test_cells_that_do_not_count_are_left_out_of_the_mean() -> None:
    grids = torch.Size((4, 5)), torch.Size((4, 5))
    scores = torch.randn(2, 20, 20, generator=torch.Generator().manual_seed(0))
    visible = torch.rand(2, 20, generator=torch.Generator().manual_seed(1)) < 0.6
    told = visible[:, None].expand_as(scores)
    expected = mean_around(scores.where(told, 0.0), grids) / mean_around(told.float(), grids)
    found = mean_around(scores, grids, visible)
    assert torch.equal(found, mean_around(scores.where(told, 7.0), grids, visible))
    assert torch.allclose(found[told], expected[told], atol=1e-6)
    assert found.isfinite().all()
