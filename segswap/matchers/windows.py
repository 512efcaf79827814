"""What the cells around say: descriptors in windows, and scores of cells that move alike."""

import torch
import torch.nn.functional as F
from torch import Tensor

REACH = 4  # cells to every side
WINDOW = 2 * REACH + 1
CANDIDATES = WINDOW * WINDOW
CENTRE = CANDIDATES // 2  # the candidate that the field itself names
SHARPNESS = 200.0  # what inner products are multiplied with before the softmax of `refined`
PULL = 4.0  # sigma of the Gaussian that holds its places where they were, cells
_HIDDEN = -1e4  # a logit; not infinite, since half precision and means take part


def window_correlation(source: Tensor, target: Tensor) -> Tensor:
    """Inner products of each cell with the cells around the same place of the other map.

    Args:
        source, target: (B, C, h, w), the target's moved onto the source's cells.

    Returns:
        (B, 81, h, w); of the offset of so many rows and columns, -4 to 4 each, it is channel
        9 * (columns + 4) + rows + 4, as published; 0 beyond the border.
    """
    width = source.shape[3]
    bands = F.pad(target, (REACH,) * 4).unfold(2, WINDOW, 1)
    # All of a band of 9 rows: of these scores, of which 9 columns a cell are kept, few are idle.
    bands = bands.permute(0, 2, 1, 4, 3).flatten(3)
    scores = (source.permute(0, 2, 3, 1) @ bands).unflatten(3, (WINDOW, width + 2 * REACH))
    columns = torch.arange(width, device=source.device)[:, None]
    columns = columns + torch.arange(WINDOW, device=source.device)
    kept = scores.gather(4, columns[:, None].expand(*scores.shape[:4], WINDOW))
    return kept.permute(0, 4, 3, 1, 2).flatten(1, 2)


def refined(scores: Tensor, places: Tensor) -> Tensor:
    """Places of cells, moved to what is most alike around them: (B, h, w, 2).

    The mean of the 81 candidates' places under softmax of how alike they are, half of it to the
    cell itself and half to the 3 x 3 cells around it, whose candidates moved as far; held to where
    they were by a Gaussian. Both numbers were chosen on held-out pictures. It is not published.

    Args:
        scores: inner products (B, 81, h, w), see `window_correlation`.
        places: (B, h, w, 2) normalised, of the cells themselves.
    """
    inside = places.new_ones(1, 1, *places.shape[1:3])
    around = F.avg_pool2d(scores, 3, 1, 1) / F.avg_pool2d(inside, 3, 1, 1)
    reach = torch.arange(-REACH, REACH + 1, device=scores.device, dtype=scores.dtype)
    apart = (reach[:, None].square() + reach.square()).flatten()[:, None, None]
    logits = SHARPNESS * (scores + around) / 2 - apart / (2 * PULL**2)
    logits = logits.masked_fill(_candidates(inside)[:, 0] == 0, -torch.inf)
    candidates = _candidates(places.permute(0, 3, 1, 2))
    found = (logits.softmax(dim=1)[:, None] * candidates).sum(dim=2)
    return found.permute(0, 2, 3, 1)


def mean_around(
    scores: Tensor, grids: tuple[torch.Size, torch.Size], visible: Tensor | None = None
) -> Tensor:
    """Means (B, N, N') of the scores of two cells and of those around both, 3 x 3, the same step
    away in both images: where one moves, the other moves as far. What is beyond a border does not
    count.

    Args:
        scores: (B, N, N') of the cells of grids of so many rows and columns.
        visible: bool (B, N'), the other image's cells that count; None for all.
    """
    if visible is not None:
        told = visible[:, None].expand_as(scores).to(scores.dtype)
        counted = mean_around(told, grids).clamp(min=1 / WINDOW**2)  # 0 where none is visible
        return mean_around(scores * told, grids) / counted
    found = scores.unflatten(2, grids[1]).unflatten(1, grids[0])
    for axes in ((1, 3), (2, 4)):  # rows of both, columns of both
        found = _mean_along(found.movedim(axes, (0, 1))).movedim((0, 1), axes)
    return found.flatten(3, 4).flatten(1, 2)


def _mean_along(scores: Tensor) -> Tensor:
    """Means of each entry with those one step further, and one step back, along the first two
    dimensions at once.
    """
    total, count = scores.clone(), scores.new_ones(scores.shape[:2])
    one = torch.ones_like(count)
    before, after = slice(None, -1), slice(1, None)
    for here, there in ((before, after), (after, before)):
        total[here, here] += scores[there, there]
        count[here, here] += one[there, there]
    return total / count[:, :, None, None, None]


def hide(logits: Tensor, visible: Tensor | None) -> Tensor:
    """Logits of "these cells correspond" (B, N, N'), by which nothing corresponds to those of the
    other image's cells that bool (B, N') does not have; None has all.
    """
    return logits if visible is None else logits.masked_fill(~visible[:, None], _HIDDEN)


def _candidates(maps: Tensor) -> Tensor:
    """Maps (B, C, h, w) at each cell's candidates, 0 beyond the border: (B, C, 81, h, w)."""
    found = F.unfold(maps, WINDOW, padding=REACH)
    found = found.unflatten(1, (maps.shape[1], WINDOW, WINDOW)).unflatten(-1, maps.shape[2:])
    return found.transpose(2, 3).flatten(2, 3)  # columns first, as the scores are
