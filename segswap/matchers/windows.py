"""Each cell's descriptor compared with those in a window of the other image's, moved by a field."""

import torch
import torch.nn.functional as F
from torch import Tensor

REACH = 4  # cells to every side
WINDOW = 2 * REACH + 1
CANDIDATES = WINDOW * WINDOW
CENTRE = CANDIDATES // 2  # the candidate that the field itself names
SHARPNESS = 200.0  # what inner products are multiplied with before the softmax of `refined`
PULL = 4.0  # sigma of the Gaussian that holds its places where they were, cells


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


def _candidates(maps: Tensor) -> Tensor:
    """Maps (B, C, h, w) at each cell's candidates, 0 beyond the border: (B, C, 81, h, w)."""
    found = F.unfold(maps, WINDOW, padding=REACH)
    found = found.unflatten(1, (maps.shape[1], WINDOW, WINDOW)).unflatten(-1, maps.shape[2:])
    return found.transpose(2, 3).flatten(2, 3)  # columns first, as the scores are
